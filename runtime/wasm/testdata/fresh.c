// Prints what must be fresh in every request: a variable, an argument, the
// clocks and random numbers.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
	uint64_t r;
	getentropy(&r, sizeof r);
	struct timespec wall, mono;
	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	const char *who = getenv("WHO");
	printf("%s %s\n%016llx\n%lld\n%lld\n", argv[argc - 1], who ? who : "nobody", (unsigned long long)r,
		(long long)wall.tv_sec * 1000000000 + wall.tv_nsec, (long long)mono.tv_sec * 1000000000 + mono.tv_nsec);
	return 0;
}
