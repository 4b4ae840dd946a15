//go:build amd64 || arm64

package httpparse

import "unsafe"

// load returns the eight bytes of b from i on. The caller has made sure that
// 0 <= i and i+8 <= len(b): nothing here does.
//
// encoding/binary costs a slice with its check for each load, where the checks
// of the callers are enough: PERFORMANCE.md, "Head". Its plain twin is in
// word_portable.go. Both of these architectures are little-endian and load
// unaligned words.
func load(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}
