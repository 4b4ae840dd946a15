package httpparse

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

// chunkLaw is one rule. Without a reason the body is complete, or, when more
// is set, incomplete, and decodes to data.
type chunkLaw struct {
	name, in string
	why      Reason
	data     string
	more     bool
}

func chunkLaws() []chunkLaw {
	const last = "0\r\n\r\n"
	fields := func(n int) string { return strings.Repeat("X: y\r\n", n) }
	return []chunkLaw{
		{"RFC 9112 7.1: one chunk", "5\r\nhello\r\n" + last, 0, "hello", false},
		{"RFC 9112 7.1: two chunks", "5\r\nhello\r\n1\r\n!\r\n" + last, 0, "hello!", false},
		{"RFC 9112 7.1: no data", last, 0, "", false},
		{"RFC 9112 7.1: digits in both cases", "aA\r\n" + strings.Repeat("x", 0xaa) + "\r\n" + last, 0, strings.Repeat("x", 0xaa), false},
		{"RFC 9112 7.1: leading zeros", "0000000000000005\r\nhello\r\n00\r\n\r\n", 0, "hello", false},
		{"RFC 9112 7.1: data that looks like framing", "7\r\n\r\n0\r\n\r\n\r\n" + last, 0, "\r\n0\r\n\r\n", false},
		{"RFC 9112 7.1: any byte is data", "4\r\n\x00\n\r\xff\r\n" + last, 0, "\x00\n\r\xff", false},
		{"RFC 9112 8: incomplete data", "5\r\nhel", 0, "hel", true},
		{"RFC 9112 8: no last chunk", "5\r\nhello\r\n", 0, "hello", true},
		{"RFC 9112 8: no empty line", "0\r\n", 0, "", true},

		{"RFC 9112 7.1: no digit", "\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: a letter behind f", "g\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: 0x", "0x5\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: a sign", "+5\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: a negative sign", "-5\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: an underscore", "1_0\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: a space before the size", " 5\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: a space behind the size", "5 \r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1: HTAB behind the size", "5\t\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1: more behind the size", "5 5\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1: a second number in hexadecimal", "5,5\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: a quote around the size", "\"5\"\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: NUL behind the size", "5\x00\r\nhello\r\n", ReasonBadChunkSize, "", false},
		{"RFC 9112 7.1: an empty line before a size", "5\r\nhello\r\n\r\n", ReasonBadChunkSize, "hello", false},
		{"RFC 9112 7.1: the largest size", "7fffffffffffffff\r\nx", 0, "x", true},
		{"RFC 9112 7.1: one more", "8000000000000000\r\nx", ReasonChunkTooLarge, "", false},
		{"RFC 9112 7.1: 2^64+5", "10000000000000005\r\nhello\r\n", ReasonChunkTooLarge, "", false},
		{"RFC 9112 7.1: more digits than 16", "00000000000000005\r\nhello\r\n", ReasonChunkTooLarge, "", false},

		{"RFC 9112 2.2: LF behind the size", "5\nhello\r\n", ReasonBareLF, "", false},
		{"RFC 9112 2.2: CR behind the size", "5\rhello\r\n", ReasonBareCR, "", false},
		{"RFC 9112 2.2: LF for the size", "\n5\r\nhello", ReasonBareLF, "", false},
		{"RFC 9112 7.1: LF behind the data", "5\r\nhello\n0\r\n", ReasonBadChunkEnd, "hello", false},
		{"RFC 9112 7.1: CR behind the data", "5\r\nhello\r0\r\n", ReasonBadChunkEnd, "hello", false},
		{"RFC 9112 7.1: nothing behind the data", "5\r\nhello0\r\n", ReasonBadChunkEnd, "hello", false},
		{"RFC 9112 7.1: more data than the size", "4\r\nhello\r\n", ReasonBadChunkEnd, "hell", false},
		{"RFC 9112 7.1: less data than the size", "6\r\nhello\r\n0\r\n\r\n", ReasonBadChunkEnd, "hello\r", false},

		{"RFC 9112 7.1.1: an extension", "5;a\r\nhello\r\n0;b=c\r\n\r\n", 0, "hello", false},
		{"RFC 9112 7.1.1: extensions with values", "5;a=b;c=\"d\";e\r\nhello\r\n" + last, 0, "hello", false},
		{"RFC 9112 7.1.1: a quoted value", "5;a=\"b;\\\"\\\\ \t\xff=\"\r\nhello\r\n" + last, 0, "hello", false},
		{"RFC 9112 7.1.1: bad white space", "5 ; a\t=  \"b\" \t;c = d\r\nhello\r\n" + last, 0, "hello", false},
		{"RFC 9112 7.1.1: no name", "5;\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: no name before a value", "5;=a\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: no value", "5;a=\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: two values", "5;a=b=c\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: a space behind the last extension", "5;a \r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: a space behind the last value", "5;a=b \r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: an open quote", "5;a=\"b\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: an escaped CR", "5;a=\"\\\r\n\"\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: more behind a quoted value", "5;a=\"b\"c\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: NUL in an extension", "5;a\x00\r\nhello\r\n", ReasonBadChunkExtension, "", false},
		{"RFC 9112 7.1.1: LF in an extension", "5;a\nhello\r\n", ReasonBareLF, "", false},
		{"RFC 9112 7.1.1: LF in a quoted value", "5;a=\"\nb\"\r\nhello\r\n", ReasonBareLF, "", false},
		{"RFC 9112 7.1.1: a bare CR in an extension", "5;a\rb\r\nhello\r\n", ReasonBareCR, "", false},
		{"RFC 9112 7.1.1: the longest line", "5;" + strings.Repeat("a", ChunkLineBytesMax-2) + "\r\nhello\r\n" + last, 0, "hello", false},
		{"RFC 9112 7.1.1: one byte more", "5;" + strings.Repeat("a", ChunkLineBytesMax-1) + "\r\nhello\r\n", ReasonChunkLineTooLong, "", false},

		{"RFC 9112 7.1.2: trailers are dropped", "5\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n", 0, "hello", false},
		{"RFC 9112 7.1.2: trailers of framing change nothing", "0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: a b\r\n\r\n", 0, "", false},
		{"RFC 9112 7.1.2: a value with HTAB and obs-text", "0\r\nA: \tb\xff\r\n\r\n", 0, "", false},
		{"RFC 9112 7.1.2: no colon", "0\r\nA\r\n\r\n", ReasonMissingColon, "", false},
		{"RFC 9112 7.1.2: no name", "0\r\n: a\r\n\r\n", ReasonBadFieldName, "", false},
		{"RFC 9112 7.1.2: a name that is no token", "0\r\nA(: a\r\n\r\n", ReasonBadFieldName, "", false},
		{"RFC 9112 7.1.2: a space before the colon", "0\r\nA : a\r\n\r\n", ReasonSpaceBeforeColon, "", false},
		{"RFC 9112 7.1.2: obs-fold", "0\r\nA: a\r\n b\r\n\r\n", ReasonObsFold, "", false},
		{"RFC 9112 7.1.2: NUL in a value", "0\r\nA: a\x00\r\n\r\n", ReasonBadFieldValue, "", false},
		{"RFC 9112 7.1.2: LF behind a value", "0\r\nA: a\n\r\n", ReasonBareLF, "", false},
		{"RFC 9112 7.1.2: LF behind a name", "0\r\nA\n\r\n", ReasonBareLF, "", false},
		{"RFC 9112 7.1.2: CR in a value", "0\r\nA: a\rb\r\n\r\n", ReasonBareCR, "", false},
		{"RFC 9112 7.1.2: the section ends with LF", "0\r\n\n", ReasonBareLF, "", false},
		{"RFC 9112 7.1.2: the section ends with CR", "0\r\n\rG", ReasonBareCR, "", false},
		{"RFC 9112 7.1.2: the largest number of trailers", "0\r\n" + fields(TrailerFieldsMax) + "\r\n", 0, "", false},
		{"RFC 9112 7.1.2: one more", "0\r\n" + fields(TrailerFieldsMax+1) + "\r\n", ReasonTooManyFields, "", false},
	}
}

// chunkLimits are the laws about sizes that are too long for every split.
func chunkLimits() []chunkLaw {
	trailer := func(n int) string {
		return "0\r\nX: " + strings.Repeat("a", n-len("X: \r\n\r\n")) + "\r\n\r\n"
	}
	// One byte of data costs a line of 1000, again and again.
	wasteful := "1;" + strings.Repeat("a", 998) + "\r\nx\r\n"
	modest := "40;" + strings.Repeat("a", 78) + "\r\n" + strings.Repeat("x", 0x40) + "\r\n"
	return []chunkLaw{
		{"RFC 6585 5: the largest trailer section", trailer(TrailerBytesMax), 0, "", false},
		{"RFC 6585 5: one byte more", trailer(TrailerBytesMax + 1), ReasonTrailerTooLarge, "", false},
		{"RFC 6585 5: a trailer name without end", "0\r\n" + strings.Repeat("a", TrailerBytesMax+1), ReasonTrailerTooLarge, "", false},
		{"CVE-2023-39326: extensions without end", strings.Repeat(wasteful, 20), ReasonChunkOverhead, strings.Repeat("x", 16), false},
		{"CVE-2023-39326: a little for each chunk is fine", strings.Repeat(modest, 2000), 0, strings.Repeat("x", 2000*0x40), true},
		{"CVE-2023-39326: tiny chunks are fine", strings.Repeat("1\r\nx\r\n", 20000), 0, strings.Repeat("x", 20000), true},
		{"RFC 9112 7.1: the sum of sizes saturates", "1\r\nx\r\n7fffffffffffffff\r\nx", 0, "xx", true},
	}
}

func checkChunkLaw(t *testing.T, c chunkLaw, v chunkVerdict) {
	t.Helper()
	want := Complete
	switch {
	case c.why != ReasonNone:
		want = Invalid
	case c.more:
		want = Incomplete
	}
	if v.outcome != want || v.why != c.why || v.data != c.data || v.why == ReasonNone && v.n != len(c.in) {
		t.Fatalf("%v %v, %d of %d bytes, data %q; want %v %v, %q", v.outcome, v.why, v.n, len(c.in), v.data, want, c.why, c.data)
	}
}

func TestChunkLaws(t *testing.T) {
	t.Parallel()
	for _, c := range append(chunkLaws(), chunkLimits()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkChunkLaw(t, c, checkChunks(t, []byte(c.in)))
		})
	}
}

// Every law holds whole, byte by byte and cut at every place, with the next
// request behind the body, whose bytes are left alone.
func TestChunksEverySplit(t *testing.T) {
	t.Parallel()
	const next = "GET / HTTP/1.1\r\n"
	for _, c := range chunkLaws() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := []byte(c.in)
			if !c.more {
				b = append(b, next...)
			}
			whole := checkChunks(t, b)
			checkChunkLaw(t, c, whole)
			for i := range b {
				if v := decodeChunks(t, b[:i:i], b[i:]); v != whole {
					t.Fatalf("cut at %d: %+v, whole: %+v", i, v, whole)
				}
			}
			var pieces [][]byte
			for i := range b {
				pieces = append(pieces, b[i:i+1:i+1])
			}
			if v := decodeChunks(t, pieces...); v != whole {
				t.Fatalf("byte by byte: %+v, whole: %+v", v, whole)
			}
		})
	}
}

// Every single byte at every place of a body: the oracle agrees.
func TestChunksEveryByteEverywhere(t *testing.T) {
	t.Parallel()
	base := []byte("5;a=\"b\\c\" ; d=e\r\nhello\r\n0 ;f\r\nX: y\r\nZ:\r\n\r\n")
	for i := range base {
		b := bytes.Clone(base)
		for c := range 256 {
			b[i] = byte(c)
			checkChunks(t, b)
		}
		checkChunks(t, append(bytes.Clone(base[:i]), base[i+1:]...))
		checkChunks(t, append(append(bytes.Clone(base[:i]), base[i]), base[i:]...))
	}
}

// What a caller with a limit needs: the size is known before the data.
func TestChunksDeclared(t *testing.T) {
	t.Parallel()
	var c Chunks
	steps := []struct {
		in             string
		data           string
		declared, left int64
	}{
		{"", "", 0, 0},
		{"1", "", 0, 0},
		{"0\r", "", 0, 0},
		{"\n", "", 16, 16},
		{"0123456789", "0123456789", 16, 6},
		{"abcdef", "abcdef", 16, 0},
		{"\r\n7fffffffffffffff\r\n", "", math.MaxInt64, math.MaxInt64},
		{"x", "x", math.MaxInt64, math.MaxInt64 - 1},
	}
	for i, s := range steps {
		data, n, o, why := c.Next([]byte(s.in))
		if string(data) != s.data || n != len(s.in) || o != Incomplete || why != ReasonNone ||
			c.Declared() != s.declared || c.Left() != s.left {
			t.Fatalf("step %d: %q %d %v %v, declared %d, left %d", i, data, n, o, why, c.Declared(), c.Left())
		}
	}
}
