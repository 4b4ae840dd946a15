// Exits by proc_exit, from some way down.
#include <stdlib.h>

__attribute__((noinline)) static int down(volatile int n) {
	if (n == 0)
		exit(0);
	return down(n - 1) + 1;
}

int main(void) { return down(5); }
