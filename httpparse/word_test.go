package httpparse

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// Each stop function has a plain twin: the first byte that is not of its set.
func TestStopsAgreeWithTheirTwins(t *testing.T) {
	t.Parallel()
	letter := func(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
	for _, s := range []struct {
		name string
		stop func(uint64) uint64
		runs func(byte) bool
	}{
		{"nameStop", nameStop, func(c byte) bool { return letter(c) || c == '-' }},
		{"pathStop", pathStop, func(c byte) bool { return letter(c) || '-' <= c && c <= '9' }},
		{"hostStop", hostStop, func(c byte) bool { return letter(c) || '-' <= c && c <= '9' && c != '/' }},
		{"digitStop", digitStop, func(c byte) bool { return '0' <= c && c <= '9' }},
		{"valueStop", valueStop, func(c byte) bool { return ' ' <= c && c < 0x7f }},
	} {
		check := func(b [8]byte) {
			want := 8
			for i := range 8 {
				if !s.runs(b[i]) {
					want = i
					break
				}
			}
			stop := s.stop(binary.LittleEndian.Uint64(b[:]))
			if got := firstLane(stop); got != want || stop&^highs != 0 {
				t.Fatalf("%s(%q) stops at %d, want %d (%#x)", s.name, b, got, want, stop)
			}
		}
		// Every pair of bytes in every two lanes: what one lane does to the next.
		for pair := range 1 << 16 {
			for lane := range 7 {
				b := [8]byte{'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a'}
				b[lane], b[lane+1] = byte(pair), byte(pair>>8)
				check(b)
			}
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 200_000 {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], random.Uint64())
			for i := range b {
				if random.IntN(4) > 0 {
					b[i] = "azAZ09-./ @[`{"[random.IntN(14)]
				}
			}
			check(b)
		}
	}
}

// The sets of the words are parts of the classes that they stand for.
func TestStopsAreWithinTheirClasses(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		w := uint64(c) * lanes
		for _, s := range []struct {
			name string
			stop uint64
			bit  uint8
		}{{"nameStop", nameStop(w), isToken}, {"pathStop", pathStop(w), isPath}, {"hostStop", hostStop(w), isHost}, {"hostStop", hostStop(w), isID}, {"valueStop", valueStop(w), isValue}} {
			if s.stop == 0 && class[c]&s.bit == 0 {
				t.Errorf("%s lets %#x through", s.name, c)
			}
		}
	}
}

// load has a plain twin.
func TestLoadAgreesWithItsTwin(t *testing.T) {
	t.Parallel()
	b := make([]byte, 64)
	for i := range b {
		b[i] = byte(i*37 + 200)
	}
	for i := range len(b) - 7 {
		if got, want := load(b, i), loadPlain(b, i); got != want {
			t.Fatalf("load(b, %d) = %#x, want %#x", i, got, want)
		}
	}
}

func TestWordAt(t *testing.T) {
	t.Parallel()
	b := []byte("0123456789abcdef")
	for n := range len(b) + 1 {
		b := b[:n:n] // reading behind the capacity panics
		for i := range n + 10 {
			var want uint64
			for j := i; j < min(n, i+8); j++ {
				want |= uint64(b[j]) << (8 * (j - i))
			}
			if got := wordAt(b, i); got != want {
				t.Fatalf("wordAt(%q, %d) = %#x, want %#x", b, i, got, want)
			}
		}
	}
}

// The classes are what the RFCs list, and the words' texts what they say.
func TestClasses(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for _, s := range []struct {
			name string
			bit  uint8
			want bool
		}{
			{"isToken", isToken, isOf(oracleToken, byte(c))},
			{"isPath", isPath, isOf(oraclePath, byte(c))},
			{"isQuery", isQuery, isOf(oracleQuery, byte(c))},
			{"isHost", isHost, isOf(oracleHost, byte(c))},
			{"isHex", isHex, isOf(oracleHex, byte(c))},
			{"isValue", isValue, c == '\t' || c >= ' ' && c != 0x7f},
			{"isID", isID, oracleID.Match([]byte{byte(c)})},
		} {
			if got := class[c]&s.bit != 0; got != s.want {
				t.Errorf("%s of %#x: %v", s.name, c, got)
			}
		}
	}
}
