// Keeps the machine busy for ever, in the way that argv[1] names, when the
// body is "go"; returns at once otherwise.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile int sink;

__attribute__((noinline)) static int recursion(int n) {
	sink++;
	return n ? recursion(n - 1) + recursion(n - 1) : sink;
}

__attribute__((noinline)) static int odd(int n);
__attribute__((noinline)) static int even(int n) { return n ? odd(n - 1) + odd(n - 1) : sink++; }
__attribute__((noinline)) static int odd(int n) { return n ? even(n - 1) + even(n - 1) : sink++; }

static int viaPointer(int n);
static int (*volatile pointer)(int) = viaPointer;
static int viaPointer(int n) { return n ? pointer(n - 1) + pointer(n - 1) : sink++; }

// No loop and no cycle, but 2^40 calls.
#define LEAF(n) __attribute__((noinline)) static int t##n(void)
LEAF(0) { return sink++; }
#define T(n, m) LEAF(n) { return t##m() + t##m(); }
T(1, 0) T(2, 1) T(3, 2) T(4, 3) T(5, 4) T(6, 5) T(7, 6) T(8, 7) T(9, 8) T(10, 9)
T(11, 10) T(12, 11) T(13, 12) T(14, 13) T(15, 14) T(16, 15) T(17, 16) T(18, 17) T(19, 18) T(20, 19)
T(21, 20) T(22, 21) T(23, 22) T(24, 23) T(25, 24) T(26, 25) T(27, 26) T(28, 27) T(29, 28) T(30, 29)
T(31, 30) T(32, 31) T(33, 32) T(34, 33) T(35, 34) T(36, 35) T(37, 36) T(38, 37) T(39, 38) T(40, 39)

int main(int argc, char **argv) {
	char body[8] = "";
	if (read(0, body, sizeof body) != 2 || argc < 2)
		return 0;
	write(1, "running", 7);
	const char *how = argv[1];
	if (!strcmp(how, "loop"))
		for (;;)
			sink++;
	if (!strcmp(how, "nested"))
		for (;;)
			for (int i = 0; i < 3; i++)
				for (int j = 0; j < 3; j++)
					sink++;
	if (!strcmp(how, "recursion"))
		return recursion(60);
	if (!strcmp(how, "mutual"))
		return even(60);
	if (!strcmp(how, "indirect"))
		return pointer(60);
	if (!strcmp(how, "tree"))
		return t40();
	static char big[32 << 20], *volatile p = big;
	if (!strcmp(how, "fill"))
		for (;;)
			memset(p, sink++, sizeof big);
	if (!strcmp(how, "copy"))
		for (;;)
			memmove(p + (sink++ & 1), p + (sink & 3), sizeof big - 4);
	if (!strcmp(how, "sleep"))
		sleep(3600);
	if (!strcmp(how, "random"))
		for (;;)
			for (size_t at = 0; at < sizeof big; at += 1 << 20)
				getentropy(p + at, 256);
	if (!strcmp(how, "write"))
		for (;;)
			write(1, p, sizeof big);
	return 1;
}
