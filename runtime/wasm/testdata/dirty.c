// Dirties as many MiB of its 64 MiB memory as the body says.
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static char big[60 << 20];

int main(void) {
	char body[8] = "";
	read(0, body, sizeof body - 1);
	volatile uint64_t *p = (volatile uint64_t *)big;
	for (size_t i = 0, n = (size_t)atoi(body) << 17; i < n; i++)
		p[i] = i;
	return 0;
}
