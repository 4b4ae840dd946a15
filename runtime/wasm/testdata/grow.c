// Grows its memory page by page until it may not, and prints an x for each page.
#include <unistd.h>

int main(void) {
	while (__builtin_wasm_memory_grow(0, 1) != (__SIZE_TYPE__)-1)
		;
	for (__SIZE_TYPE__ n = __builtin_wasm_memory_size(0); n; n--)
		write(1, "x", 1);
	return 0;
}
