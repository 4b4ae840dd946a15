// slow: waits 100 ms before it answers.
#include <stdio.h>
#include <time.h>

int main(void) {
	struct timespec wait = {0, 100 * 1000 * 1000};
	if (nanosleep(&wait, NULL) != 0)
		return 1;
	puts("{\"slow\":true}");
	return 0;
}
