package php

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// A request of a handler, all numbers little-endian:
//
//	 0        4        8        12
//	+--------+--------+--------+----
//	|  vars  |  body  |  more  | variables, body, and then, when more is not 0,
//	+--------+--------+--------+ pieces of the body: length, bytes; length 0 ends it
//
// vars and body are lengths in bytes. Variables are one array as PHP's
// unserialize() reads it. What comes back is, once or more often:
//
//	 0      1        5
//	+------+--------+----
//	| kind | length | bytes
//	+------+--------+----
const (
	frameBytes = 12
	replyBytes = 5

	kindLoaded = 'L' // the file is loaded
	kindEvents = 'V' // the same, and the handler takes an event
	kindData   = 'D' // more of the answer
	kindEnd    = 'E' // the last of it
	kindThrown = 'T' // the last of it: an exception that the handler did not catch
	kindExit   = 'X' // the last of it: exit; the process ends
	kindFatal  = 'F' // the last of it: an error that ends the process
	kindMemory = 'M' // the same for want of memory

	// mark stands before each of these that is said beside the answer of a
	// script, which may write to its standard output too, where nobody reads.
	mark = "[[baton is told]]"

	// kindHandler is said beside the answer of a script: it has returned a callable.
	kindHandler = 'H'
)

// countDigits is the width of an array's count, which is known at its end.
const countDigits = 6

// openArray begins a serialized array; closeArray ends the one that begins at
// dst[at:].
func openArray(dst []byte) []byte { return append(dst, "a:000000:{"...) }

func closeArray(dst []byte, at, count int) []byte {
	copy(dst[at+2:], fmt.Sprintf("%0*d", countDigits, count))
	return append(dst, '}')
}

// appendPair appends a name and a value to a serialized array.
func appendPair[S []byte | string](dst []byte, name, value S) []byte {
	return appendText(appendText(dst, name), value)
}

func appendText[S []byte | string](dst []byte, s S) []byte {
	dst = strconv.AppendInt(append(dst, "s:"...), int64(len(s)), 10)
	dst = append(append(dst, ":\""...), s...)
	return append(dst, "\";"...)
}

// putFrame writes the head of the frame that begins with b.
func putFrame(b []byte, vars, body int, more bool) {
	binary.LittleEndian.PutUint32(b, uint32(vars))
	binary.LittleEndian.PutUint32(b[4:], uint32(body))
	binary.LittleEndian.PutUint32(b[8:], 0)
	if more {
		b[8] = 1
	}
}

// appendPiece appends the head of a piece of the body.
func appendPiece(dst []byte, n int) []byte { return binary.LittleEndian.AppendUint32(dst, uint32(n)) }

// replies takes the stream of a handler's answers apart. The zero value is at
// an answer's start.
type replies struct {
	head [replyBytes]byte
	have int // of head
	left int // of the bytes
}

// next takes what b starts with, n bytes: a piece of data, and whether its answer is whole by that.
// kind 0 says that b is used up.
func (r *replies) next(b []byte) (kind byte, piece []byte, whole bool, n int) {
	if r.have < replyBytes {
		n = copy(r.head[r.have:], b)
		if r.have += n; r.have < replyBytes {
			return 0, nil, false, n
		}
		r.left = int(binary.LittleEndian.Uint32(r.head[1:]))
	}
	piece = b[n:min(len(b), n+r.left)]
	r.left -= len(piece)
	n += len(piece)
	if r.left == 0 {
		r.have = 0
		return r.head[0], piece, true, n
	}
	if len(piece) == 0 {
		return 0, nil, false, n
	}
	return r.head[0], piece, false, n
}
