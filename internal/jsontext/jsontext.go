// Package jsontext appends JSON strings to buffers, for the places that build
// small JSON bodies on the request path without encoding/json's allocations.
package jsontext

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// Append appends s as a JSON string, quotes included. Bytes that are not UTF-8
// become U+FFFD, one each. Allocates nothing beside dst's growth.
//
// Source: RFC 8259 section 7.
func Append[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= utf8.RuneSelf {
			// At most four bytes go to the stack to be decoded.
			var head [utf8.UTFMax]byte
			r, size := utf8.DecodeRune(head[:copy(head[:], s[i:])])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		if b >= 0x20 && b != '"' && b != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch b {
		case '"', '\\':
			dst = append(dst, '\\', b)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
