/* CRC-32 of the request's body. With "target": "wasm" it becomes a WebAssembly module. */
#include <stdint.h>
#include <stdio.h>

int main(void)
{
	uint32_t crc = ~0u;
	for (int c; (c = getchar()) != EOF;) {
		crc ^= (uint32_t)c;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	printf("{\"crc32\":\"%08x\"}\n", ~crc);
	return 0;
}
