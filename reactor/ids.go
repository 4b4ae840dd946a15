package reactor

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// requestIDBytesMax is the longest request id taken over from a client, and so
// the longest that a slot of the board holds (design: 1 to 128).
const requestIDBytesMax = 128

// idBytes is the length of a request id that baton makes: 13 digits of a
// random start and 7 of a count, in base 32. Two loops share a start with a
// probability of 2^-64, and one loop needs 11 hours at 800,000 requests a
// second to come round.
const idBytes = 20

const idDigits = "0123456789abcdefghijklmnopqrstuv"

// idSource makes request ids: unique, not secret. Owned by one loop.
type idSource struct {
	text [idBytes]byte
	next uint64
}

func (s *idSource) seed() {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(fmt.Sprintf("reactor: random start of request ids: %v", err))
	}
	start := binary.LittleEndian.Uint64(b[:])
	for i := range 13 {
		s.text[i] = idDigits[start&31]
		start >>= 5
	}
}

// appendNext appends a new id to dst.
func (s *idSource) appendNext(dst []byte) []byte {
	n := s.next
	s.next++
	for i := idBytes - 1; i >= 13; i-- {
		s.text[i] = idDigits[n&31]
		n >>= 5
	}
	return append(dst, s.text[:]...)
}
