package httpparse

import (
	"os"
	"syscall"
	"testing"
)

// What loads whole words reads nothing beyond its input: the bytes lie directly
// before a page without access, and directly behind one. A word too many is a
// fault here, which ends the test binary.
func TestNoReadBeyondTheInput(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	room := (HeadBytesMax/page + 2) * page
	memory, err := syscall.Mmap(-1, 0, page+room+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Munmap(memory); err != nil {
			t.Error(err)
		}
	}()
	for _, guard := range [][]byte{memory[:page], memory[page+room:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	low, high := memory[page:page+room], memory[:page+room]
	var r Request
	var h CGIHead
	check := func(in string) {
		n := len(in)
		for _, b := range [][]byte{low[:n], high[len(high)-n:]} {
			copy(b, in)
			ParseHead(&r, b)
			ParseCGI(&h, b)
			decodeChunks(t, b)
			HeadEnd(b, 0)
			ValidFieldValue(b)
		}
	}
	for _, c := range headLaws() {
		for i := range len(c.in) + 1 {
			check(c.in[:i])
		}
	}
	for _, c := range headLimits() {
		if len(c.in) <= room {
			check(c.in)
		}
	}
	for _, head := range benchHeads {
		for i := range len(head.request) + 1 {
			check(head.request[:i])
		}
	}
}
