/*
 * Answers with the request's body. It needs no C library, so the module that is
 * uploaded, echo.wasm, has less than 1 KiB:
 *
 *	clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry,--export=_start,-z,stack-size=8192,--strip-all -o echo.wasm echo.c
 */
#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

struct part {
	char *at;
	unsigned long size;
};

IMPORT("fd_read") int fd_read(int fd, const struct part *parts, int count, unsigned long *done);
IMPORT("fd_write") int fd_write(int fd, const struct part *parts, int count, unsigned long *done);

static char buffer[16384];

void _start(void)
{
	for (;;) {
		struct part part = {buffer, sizeof buffer};
		unsigned long got, put;
		if (fd_read(0, &part, 1, &got) != 0 || got == 0)
			return;
		for (part.size = got; part.size > 0; part.at += put, part.size -= put)
			if (fd_write(1, &part, 1, &put) != 0)
				return;
	}
}
