// Does what the first byte of the body says, with memory that it leaves alone otherwise: it is filled by a
// write, with random numbers, or with the rest of the body. Prints whether it was zeros before, and what it is.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static _Alignas(4096) char alone[3][4096];

int main(void) {
	char what = 0, *at = alone[1];
	read(0, &what, 1);
	size_t dirty = 0;
	if (what) {
		for (size_t i = 0; i < sizeof alone[1]; i++)
			dirty += at[i] != 0;
	}
	ssize_t n = 0;
	switch (what) {
	case 'w':
		n = 64;
		memset(at, 'w', n);
		break;
	case 'r':
		n = 64;
		getentropy(at, n);
		break;
	case 'b':
		n = read(0, at, sizeof alone[1]);
		break;
	}
	printf("%zu ", dirty);
	fwrite(at, 1, n < 0 ? 0 : n, stdout);
	return 0;
}
