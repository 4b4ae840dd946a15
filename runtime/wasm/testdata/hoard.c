// A function that keeps secrets. The body says what to do: "scan" looks for
// a secret of an earlier request in all of the memory and in memory it grows;
// everything else plants one wherever it can and then ends in that way.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char kept[70000];
static char body[64];

// The secret's bytes are never written down in the program.
static char mark(uint32_t i) { return (char)(0x80 | ((i * 37 + 11) & 0x7f)); }
#define MARK 48

static void plant(char *p, char *end) {
	for (uint32_t i = 0; p < end; i++)
		*p++ = mark(i % MARK);
}

static long search(const char *p, const char *end) {
	for (; p + MARK <= end; p++) {
		uint32_t i = 0;
		while (i < MARK && p[i] == mark(i))
			i++;
		if (i == MARK)
			return (long)p;
	}
	return -1;
}

static int deep(int n) {
	volatile char frame[512];
	for (unsigned i = 0; i < sizeof frame; i++)
		frame[i] = mark(i % MARK);
	return deep(n + 1) + frame[n % 512];
}

int main(void) {
	size_t n = fread(body, 1, sizeof body - 1, stdin);
	body[n] = 0;
	size_t pages = __builtin_wasm_memory_size(0);
	if (strcmp(body, "scan") == 0) {
		long at = search((char *)16, (char *)(pages << 16));
		if (at < 0 && __builtin_wasm_memory_grow(0, 16) != (size_t)-1)
			at = search((char *)(pages << 16), (char *)((pages + 16) << 16));
		if (kept[0] || kept[sizeof kept - 1])
			at = (long)kept;
		printf(at < 0 ? "clean %zu" : "FOUND %zu at %ld", pages, at);
		return 0;
	}
	plant(kept, kept + sizeof kept);
	char *heap = malloc(300000);
	if (heap)
		plant(heap, heap + 300000);
	size_t grown = 0;
	while (__builtin_wasm_memory_grow(0, 16) != (size_t)-1 && grown < 2048)
		grown += 16;
	char *top = (char *)(__builtin_wasm_memory_size(0) << 16);
	plant((char *)(pages << 16), top);
	plant((char *)16, (char *)1024); // below the data
	printf("planted");
	fflush(stdout);
	if (strcmp(body, "exit0") == 0)
		exit(0);
	if (strcmp(body, "exit") == 0)
		_exit(3);
	if (strcmp(body, "trap") == 0)
		__builtin_trap();
	if (strcmp(body, "spin") == 0)
		for (volatile int x = 0;; x++)
			;
	if (strcmp(body, "deep") == 0)
		return deep(0);
	if (strcmp(body, "wipe") == 0) { // all of the memory, the program's own data and stack as well
		volatile char *p = (char *)16;
		for (uint32_t i = 0; p < (volatile char *)top; i++)
			*p++ = mark(i % MARK);
		__builtin_trap();
	}
	return 0;
}
