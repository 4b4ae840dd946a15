package httpparse

import (
	"encoding/binary"
	"math/bits"
)

// Eight bytes at a time: a word has byte i of the text in its lane i, the
// lowest first. A stop function sets the high bit of each lane whose byte ends
// a run; the lowest such bit is exact, those above it may be false. The plain
// loops over class are their twins, and the oracle in the tests.
//
// PERFORMANCE.md, "Head": what the words gain over the loops.
const (
	lanes = 0x0101010101010101 // times a byte: that byte in all lanes
	highs = 0x80 * lanes
	lows  = 0x7f * lanes
)

// wordAt returns the eight bytes of b from i on. Lanes behind b's end are
// zero, which every stop function takes for an end.
func wordAt(b []byte, i int) uint64 {
	if len(b)-i >= 8 {
		return load(b, i)
	}
	return wordAtEnd(b, i)
}

// wordAtEnd is not inlined, to keep wordAt small: it runs at most twice for a
// head, where the bytes end.
//
//go:noinline
func wordAtEnd(b []byte, i int) (w uint64) {
	for j := len(b) - 1; j >= i; j-- {
		w = w<<8 | uint64(b[j])
	}
	return w
}

// firstLane returns the lane of the lowest bit of a stop mask, which is not 0.
func firstLane(stop uint64) int { return bits.TrailingZeros64(stop) / 8 }

// nameStop stops at every byte but ASCII letters and '-': field names are
// rarely made of anything else.
func nameStop(w uint64) uint64 {
	low := w & lows // no lane carries into the next
	folded := low | 0x20*lanes
	letter := (folded + (0x80-'a')*lanes) &^ (folded + (0x80-'z'-1)*lanes)
	noDash := (low ^ '-'*lanes) + lows
	return (noDash&^letter | w) & highs
}

// pathStop stops at every byte but ASCII letters, digits and "-./": what most
// paths are made of.
func pathStop(w uint64) uint64 {
	low := w & lows
	folded := low | 0x20*lanes
	letter := (folded + (0x80-'a')*lanes) &^ (folded + (0x80-'z'-1)*lanes)
	other := (low + (0x80-'-')*lanes) &^ (low + (0x80-'9'-1)*lanes)
	return (^(letter | other) | w) & highs
}

// hostStop is pathStop that stops at '/' too: what most hosts are made of.
func hostStop(w uint64) uint64 {
	return pathStop(w) | ^(w&lows^'/'*lanes+lows)&highs
}

// digitStop stops at every byte but decimal digits.
func digitStop(w uint64) uint64 {
	low := w & lows
	digit := (low + (0x80-'0')*lanes) &^ (low + (0x80-'9'-1)*lanes)
	return (^digit | w) & highs
}

// valueStop stops at control characters, HTAB and DEL among them, and at every
// byte from 0x80 on: what ordinary values are not made of.
func valueStop(w uint64) uint64 {
	return ((w - ' '*lanes) | (w + lanes) | w) & highs
}

// valueRun returns the index of the first byte of b[i:] that no field value
// has, or len(b) when there is none. It goes by bytes, for the end of b and
// for values with HTAB or obs-text: so many small words of both kinds never
// cost more than one look at each byte.
//
//go:noinline
func valueRun(b []byte, i int) int {
	for i < len(b) && class[b[i]]&isValue != 0 {
		i++
	}
	return i
}

// foldedAt returns the eight bytes of b from i on, ASCII letters in lower case.
// i+8 <= len(b). Other bytes change too, but of those in a token or in a value
// none becomes a letter or '-'.
func foldedAt(b []byte, i int) uint64 { return load(b, i) | 0x20*lanes }

// loadPlain is load's plain twin, and its oracle in the tests.
func loadPlain(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }

// The texts that are compared as words, first byte in the lowest lane. Those of
// field names are in lower case.
const (
	wordGET      = 'G' | 'E'<<8 | 'T'<<16 | ' '<<24
	wordPOST     = 'P' | 'O'<<8 | 'S'<<16 | 'T'<<24 | ' '<<32
	wordHTTP11   = 'H' | 'T'<<8 | 'T'<<16 | 'P'<<24 | '/'<<32 | '1'<<40 | '.'<<48 | '1'<<56
	wordHost     = 'h' | 'o'<<8 | 's'<<16 | 't'<<24
	wordExpect   = 'e' | 'x'<<8 | 'p'<<16 | 'e'<<24 | 'c'<<32 | 't'<<40
	wordConnecti = 'c' | 'o'<<8 | 'n'<<16 | 'n'<<24 | 'e'<<32 | 'c'<<40 | 't'<<48 | 'i'<<56
	wordNnection = 'n' | 'n'<<8 | 'e'<<16 | 'c'<<24 | 't'<<32 | 'i'<<40 | 'o'<<48 | 'n'<<56
	wordXReques  = 'x' | '-'<<8 | 'r'<<16 | 'e'<<24 | 'q'<<32 | 'u'<<40 | 'e'<<48 | 's'<<56
	wordQuestId  = 'q' | 'u'<<8 | 'e'<<16 | 's'<<24 | 't'<<32 | '-'<<40 | 'i'<<48 | 'd'<<56
	wordKeepAliv = 'k' | 'e'<<8 | 'e'<<16 | 'p'<<24 | '-'<<32 | 'a'<<40 | 'l'<<48 | 'i'<<56
	wordEpAlive  = 'e' | 'p'<<8 | '-'<<16 | 'a'<<24 | 'l'<<32 | 'i'<<40 | 'v'<<48 | 'e'<<56
	wordContent  = 'c' | 'o'<<8 | 'n'<<16 | 't'<<24 | 'e'<<32 | 'n'<<40 | 't'<<48 | '-'<<56
	wordTLength  = 't' | '-'<<8 | 'l'<<16 | 'e'<<24 | 'n'<<32 | 'g'<<40 | 't'<<48 | 'h'<<56
	wordTransfer = 't' | 'r'<<8 | 'a'<<16 | 'n'<<24 | 's'<<32 | 'f'<<40 | 'e'<<48 | 'r'<<56
	wordEncodin  = '-' | 'e'<<8 | 'n'<<16 | 'c'<<24 | 'o'<<32 | 'd'<<40 | 'i'<<48 | 'n'<<56
)
