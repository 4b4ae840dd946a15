// The hello-world of the benchmarks: reads the body, writes a greeting.
#include <stdio.h>

int main(int argc, char **argv) {
	char body[4096];
	size_t n = fread(body, 1, sizeof body, stdin);
	printf("hello %s%.*s\n", argc > 1 ? argv[1] : "", (int)n, body);
	return 0;
}
