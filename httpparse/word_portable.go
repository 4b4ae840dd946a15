//go:build !amd64 && !arm64

package httpparse

// load returns the eight bytes of b from i on; i+8 <= len(b).
func load(b []byte, i int) uint64 { return loadPlain(b, i) }
