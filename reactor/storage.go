package reactor

import (
	"slices"
	"sync"
)

// storage keeps the buffers of large bodies and answers for the next ones: made anew each time, they
// cost more than the copying, in page faults and in the collector's rounds. Safe for concurrent use. Who
// takes a buffer owns it until it gives it, once, to whom it likes or back here; what is not used for
// two rounds of the collector goes away.
type storage struct{ pools [len(storageSizes)]sync.Pool }

// storageSizes are the capacities of the buffers, ascending: the last holds the longest answer that does not stream.
var storageSizes = [...]int{64 << 10, 128 << 10, 256 << 10, headRoom + streamBytesMin}

// storageMin is the smallest buffer that is worth keeping here, in bytes.
const storageMin = 32 << 10

// take returns an empty buffer for n bytes.
func (s *storage) take(n int) []byte {
	for i, size := range storageSizes {
		if storageMin < n && n <= size {
			if b, ok := s.pools[i].Get().(*[]byte); ok {
				return *b
			}
			return make([]byte, 0, size)
		}
	}
	return make([]byte, 0, n)
}

// grow returns b with room for n bytes more; b is no longer the caller's.
func (s *storage) grow(b []byte, n int) []byte {
	need := len(b) + n
	switch {
	case need <= cap(b):
		return b
	case need <= storageMin || need > storageSizes[len(storageSizes)-1]:
		return slices.Grow(b, n)
	}
	grown := append(s.take(need), b...)
	s.give(b)
	return grown
}

// give takes b back. A buffer that did not come from take, or was cut at its front, is left to the collector.
func (s *storage) give(b []byte) {
	for i, size := range storageSizes {
		if cap(b) == size {
			kept := b[:0]
			s.pools[i].Put(&kept)
		}
	}
}
