/* Counts what is in the request's body, as wc does. */
#include <ctype.h>
#include <stdio.h>

int main(void)
{
	long lines = 0, words = 0, bytes = 0;
	int inside = 0;
	for (int c; (c = getchar()) != EOF; bytes++) {
		lines += c == '\n';
		words += !inside && !isspace(c);
		inside = !isspace(c);
	}
	printf("{\"lines\":%ld,\"words\":%ld,\"bytes\":%ld}\n", lines, words, bytes);
	return 0;
}
