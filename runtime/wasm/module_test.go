package wasm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// assemble builds a module by hand from sections in order, for what
// compilers do not write.
func assemble(sections ...[]byte) []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		out = append(out, s...)
	}
	return out
}

func section(id byte, content ...[]byte) []byte {
	var body []byte
	for _, c := range content {
		body = append(body, c...)
	}
	return append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...)
}

// vec is a vector of encoded items.
func vec(items ...[]byte) []byte {
	out := binary.AppendUvarint(nil, uint64(len(items)))
	for _, it := range items {
		out = append(out, it...)
	}
	return out
}

func str(s string) []byte { return append(binary.AppendUvarint(nil, uint64(len(s))), s...) }

func cat(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// fn is a function body without locals.
func fn(code ...byte) []byte {
	body := append([]byte{0}, append(code, 0x0b)...)
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

func writeModule(tb testing.TB, module []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "module.wasm")
	if err := os.WriteFile(path, module, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
