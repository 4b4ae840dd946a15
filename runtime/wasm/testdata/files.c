// Prints the file that the body names, or "no"; with + before the name it
// tries to write it.
#include <stdio.h>

int main(void) {
	char path[256], text[256];
	size_t n = fread(path, 1, sizeof path - 1, stdin);
	path[n] = 0;
	if (*path == '+') {
		FILE *f = fopen(path + 1, "a");
		printf(f && fputs("written", f) >= 0 && fflush(f) == 0 ? "WRITTEN" : "no");
		return 0;
	}
	FILE *f = fopen(path, "r");
	if (!f) {
		printf("no");
		return 0;
	}
	n = fread(text, 1, sizeof text, f);
	fwrite(text, 1, n, stdout);
	return 0; // leaves the file open
}
