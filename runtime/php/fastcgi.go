package php

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"baton/runtime"
)

// A record of FastCGI, all numbers in network byte order:
//
//	 0        1        2        4        6        7        8
//	+--------+--------+--------+--------+--------+--------+----
//	|version |  type  |request |content |padding |   0    | content, padding
//	+--------+--------+--------+--------+--------+--------+----
//
// Source: FastCGI Specification 1.0, sections 3.3 and 8.
const (
	recordBytes   = 8
	recordVersion = 1

	recordBegin  = 1
	recordEnd    = 3
	recordParams = 4
	recordStdin  = 5
	recordStdout = 6
	recordStderr = 7

	roleResponder = 1
	flagKeep      = 1 // the connection is kept after the request

	// contentMax bounds a record's content, in bytes; a multiple of 8 needs no padding.
	contentMax = 0xfff8
)

// appendRecord appends the record's head.
func appendRecord(dst []byte, kind byte, content int) []byte {
	return append(dst, recordVersion, kind, 0, 1, byte(content>>8), byte(content), 0, 0)
}

// appendStream appends content as records of one kind, without the empty one
// that ends a stream.
func appendStream(dst []byte, kind byte, content []byte) []byte {
	for len(content) > 0 {
		n := min(len(content), contentMax)
		dst = append(appendRecord(dst, kind, n), content[:n]...)
		content = content[n:]
	}
	return dst
}

// appendBegin begins a request.
func appendBegin(dst []byte) []byte {
	return append(appendRecord(dst, recordBegin, 8), 0, roleResponder, flagKeep, 0, 0, 0, 0, 0)
}

// appendParam appends one name and value.
//
// Source: FastCGI Specification 1.0, section 3.4.
func appendParam[S []byte | string](dst []byte, name, value S) []byte {
	dst = appendLength(dst, len(name))
	dst = appendLength(dst, len(value))
	return append(append(dst, name...), value...)
}

func appendLength(dst []byte, n int) []byte {
	if n < 0x80 {
		return append(dst, byte(n))
	}
	return binary.BigEndian.AppendUint32(dst, uint32(n)|1<<31)
}

// closeParams makes the params that begin at dst[at:] records, and ends them. Most
// requests have one record's worth: room for its head was left before them.
func closeParams(dst []byte, at int) []byte {
	n := len(dst) - at
	if n <= contentMax {
		_ = appendRecord(dst[:at-recordBytes], recordParams, n) // where the room was left
		return appendRecord(dst, recordParams, 0)
	}
	params := bytes.Clone(dst[at:])
	return appendRecord(appendStream(dst[:at-recordBytes], recordParams, params), recordParams, 0)
}

// variables calls f for each of the invocation's variables. scratch is grown as
// needed and returned.
func variables(scratch []byte, env runtime.Environ, f func(name, value []byte)) []byte {
	if env == nil {
		return scratch
	}
	scratch = env.AppendTo(scratch[:0])
	for rest := scratch; len(rest) > 0; {
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			break
		}
		if is := bytes.IndexByte(rest[:end], '='); is > 0 {
			f(rest[:is], rest[is+1:end])
		}
		rest = rest[end+1:]
	}
	return scratch
}

// records takes the stream of records apart. The zero value is at a record's start.
type records struct {
	head    [recordBytes]byte
	have    int // of head
	content int // what is left of it
	padding int
}

// next takes what b starts with: a piece of a record's content, or the end of a
// record without any. It returns n, the bytes of b it took; kind 0 says that b is used up. Called again with the rest.
func (r *records) next(b []byte) (kind byte, piece []byte, n int, err error) {
	for {
		if r.have == recordBytes && r.content > 0 {
			if n == len(b) {
				return 0, nil, n, nil
			}
			piece = b[n:min(len(b), n+r.content)]
			r.content -= len(piece)
			kind = r.head[1]
			n += len(piece)
			if r.content == 0 && r.padding == 0 {
				r.have = 0
			}
			return kind, piece, n, nil
		}
		if r.have == recordBytes {
			skip := min(r.padding, len(b)-n)
			r.padding -= skip
			n += skip
			if r.padding > 0 {
				return 0, nil, n, nil
			}
			r.have = 0
		}
		took := copy(r.head[r.have:], b[n:])
		n += took
		r.have += took
		if r.have < recordBytes {
			return 0, nil, n, nil
		}
		if r.head[0] != recordVersion {
			return 0, nil, n, fmt.Errorf("a FastCGI record of version %d", r.head[0])
		}
		r.content, r.padding = int(binary.BigEndian.Uint16(r.head[4:])), int(r.head[6])
		if r.content == 0 {
			if r.padding == 0 {
				r.have = 0
			}
			return r.head[1], nil, n, nil
		}
	}
}
