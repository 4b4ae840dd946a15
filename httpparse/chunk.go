package httpparse

import "math"

const (
	// ChunkLineBytesMax bounds the line of a chunk's size and extensions, its CRLF
	// not counted; a longer one is answered 400.
	ChunkLineBytesMax = 1 << 10

	// chunkDigitsMax bounds the digits of a chunk's size, leading zeros included.
	chunkDigitsMax = 16

	// chunkOverheadBytesMax bounds what chunk lines may cost beyond 16 bytes and
	// twice the data of their chunk, summed over a body: many small chunks with
	// long extensions would otherwise cost reading without end. net/http has the
	// same rule and the same figures since CVE-2023-39326.
	chunkOverheadBytesMax = 16 << 10

	// TrailerBytesMax bounds the trailer section, its empty line included; a
	// longer one is answered 431.
	TrailerBytesMax = 8 << 10

	// TrailerFieldsMax bounds the number of trailer fields; one more is answered
	// 431.
	TrailerFieldsMax = FieldsMax
)

// chunkState says what the next byte of a chunked body is. The order is that
// of the grammar.
type chunkState uint8

const (
	chunkSize      chunkState = iota // first digit of a size
	chunkSizeMore                    // further digits
	chunkSpace                       // white space that must lead to ';' or, behind a name, '='
	chunkExt                         // behind ';', before a name
	chunkExtName                     // in a name
	chunkExtEqual                    // white space behind a name: ';' or '='
	chunkExtValue                    // behind '=', before a value
	chunkExtToken                    // in a value that is a token
	chunkExtQuoted                   // in a quoted string
	chunkExtPair                     // behind a backslash in one
	chunkExtEnd                      // behind a quoted string
	chunkLineLF                      // LF of the line
	chunkData                        // data
	chunkDataCR                      // CR behind data
	chunkDataLF                      // LF behind data
	trailerLine                      // first byte of a trailer field or of the empty line
	trailerName                      // in a name
	trailerValue                     // in a value
	trailerLF                        // LF behind a trailer field
	trailerEnd                       // LF of the empty line
	chunkDone
	chunkFailed
)

// Chunks decodes a chunked body as it arrives. The zero value is ready; to
// reuse one, assign the zero value. It keeps no bytes, so a body may be cut
// anywhere.
//
// Extensions and trailers are checked, bounded and dropped: trailers are never
// merged into the head (RFC 9110 section 6.5.1).
type Chunks struct {
	left     int64 // of the current chunk's data
	total    int64 // of all chunks declared so far
	overhead int64
	line     int // bytes of the current line, or of the trailer section
	fields   int
	digits   uint8
	state    chunkState
	why      Reason
}

// Declared returns the size of the body as far as it is known: the data of all
// chunks whose size has been read, delivered or not. It saturates at the
// largest int64. A caller with a limit compares after each Next.
func (c *Chunks) Declared() int64 { return c.total }

// Left returns how much data of the current chunk is still to come.
func (c *Chunks) Left() int64 {
	if c.state != chunkData {
		return 0
	}
	return c.left
}

// Next consumes n bytes of b and returns the next piece of data among them.
//
// data is a view into b and may be empty. Call again with b[n:] until the
// outcome is Complete, which is behind the empty line of the trailer section
// with the bytes of the next request untouched, or until Incomplete with
// n == len(b): then more bytes are needed. On Invalid, why is the rule that is
// broken; every further call repeats it and consumes nothing.
//
// Allocates nothing. Source: RFC 9112 section 7.1.
func (c *Chunks) Next(b []byte) (data []byte, n int, o Outcome, why Reason) {
	for n < len(b) {
		if c.state == chunkData {
			// One view for each call: what lies behind it is for the next one.
			m := int(min(c.left, int64(len(b)-n)))
			c.left -= int64(m)
			if c.left == 0 {
				c.state = chunkDataCR
			}
			return b[n : n+m], n + m, Incomplete, ReasonNone
		}
		if c.state >= chunkDone {
			break
		}
		if why := c.step(b[n]); why != ReasonNone {
			c.state, c.why = chunkFailed, why
			return nil, n, Invalid, why
		}
		n++
	}
	switch c.state {
	case chunkDone:
		return nil, n, Complete, ReasonNone
	case chunkFailed:
		return nil, n, Invalid, c.why
	}
	return nil, n, Incomplete, ReasonNone
}

// step consumes one byte of framing.
func (c *Chunks) step(b byte) Reason {
	if c.state <= chunkExtEnd && b != '\r' {
		if c.line++; c.line > ChunkLineBytesMax {
			return ReasonChunkLineTooLong
		}
	}
	if c.state >= trailerLine {
		if c.line++; c.line > TrailerBytesMax {
			return ReasonTrailerTooLarge
		}
	}
	switch c.state {
	case chunkSize:
		if class[b]&isHex == 0 {
			return reasonOfEnd(b, ReasonBadChunkSize)
		}
		c.left, c.digits, c.line = int64(unhex(b)), 1, 1
		c.state = chunkSizeMore
	case chunkSizeMore:
		if class[b]&isHex == 0 {
			return c.stepExtension(b, ReasonBadChunkSize)
		}
		if c.digits++; c.digits > chunkDigitsMax || c.left > math.MaxInt64>>4 {
			return ReasonChunkTooLarge
		}
		c.left = c.left<<4 | int64(unhex(b))
	case chunkLineLF:
		if b != '\n' {
			return ReasonBareCR
		}
		return c.endLine()
	case chunkDataCR:
		if b != '\r' {
			return ReasonBadChunkEnd
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return ReasonBadChunkEnd
		}
		c.state = chunkSize
	case trailerLine, trailerName, trailerValue, trailerLF, trailerEnd:
		return c.stepTrailer(b)
	default:
		return c.stepExtension(b, ReasonBadChunkExtension)
	}
	return ReasonNone
}

// endLine is called behind the line of a chunk's size.
func (c *Chunks) endLine() Reason {
	c.overhead = max(0, c.overhead+int64(c.line)+2-16-2*min(c.left, chunkOverheadBytesMax))
	if c.overhead > chunkOverheadBytesMax {
		return ReasonChunkOverhead
	}
	c.line = 0
	if c.left == 0 {
		c.state = trailerLine
		return ReasonNone
	}
	if c.total += c.left; c.total < 0 {
		c.total = math.MaxInt64
	}
	c.state = chunkData
	return ReasonNone
}

// stepExtension consumes one byte of
//
//	chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )
//
// or the CR behind it. why is the rule that an unexpected byte breaks.
func (c *Chunks) stepExtension(b byte, why Reason) Reason {
	space := b == ' ' || b == '\t'
	token := class[b]&isToken != 0
	next := chunkFailed
	switch c.state {
	case chunkSizeMore, chunkExtToken, chunkExtEnd:
		switch {
		case token && c.state == chunkExtToken:
			next = chunkExtToken
		case space:
			next = chunkSpace
		case b == ';':
			next = chunkExt
		case b == '\r':
			next = chunkLineLF
		}
	case chunkSpace:
		switch {
		case space:
			next = chunkSpace
		case b == ';':
			next = chunkExt
		}
	case chunkExt:
		switch {
		case space:
			next = chunkExt
		case token:
			next = chunkExtName
		}
	case chunkExtName, chunkExtEqual:
		switch {
		case token && c.state == chunkExtName:
			next = chunkExtName
		case space:
			next = chunkExtEqual
		case b == '=':
			next = chunkExtValue
		case b == ';':
			next = chunkExt
		case b == '\r' && c.state == chunkExtName:
			next = chunkLineLF
		}
	case chunkExtValue:
		switch {
		case space:
			next = chunkExtValue
		case token:
			next = chunkExtToken
		case b == '"':
			next = chunkExtQuoted
		}
	case chunkExtQuoted:
		switch {
		case b == '"':
			next = chunkExtEnd
		case b == '\\':
			next = chunkExtPair
		case class[b]&isValue != 0:
			next = chunkExtQuoted
		}
	case chunkExtPair:
		if class[b]&isValue != 0 {
			next = chunkExtQuoted
		}
	}
	if next == chunkFailed {
		return reasonOfEnd(b, why)
	}
	c.state = next
	return ReasonNone
}

// stepTrailer consumes one byte of the trailer section.
// Source: RFC 9112 section 7.1.2; the field lines are those of a head.
func (c *Chunks) stepTrailer(b byte) Reason {
	switch c.state {
	case trailerLine:
		switch {
		case b == '\r':
			c.state = trailerEnd
		case c.fields == TrailerFieldsMax:
			return ReasonTooManyFields
		case class[b]&isToken == 0:
			return reasonOfName(b, 0)
		default:
			c.fields++
			c.state = trailerName
		}
	case trailerName:
		switch {
		case b == ':':
			c.state = trailerValue
		case class[b]&isToken == 0:
			return reasonOfName(b, 1)
		}
	case trailerValue:
		switch {
		case b == '\r':
			c.state = trailerLF
		case class[b]&isValue == 0:
			return reasonOfEnd(b, ReasonBadFieldValue)
		}
	case trailerLF:
		if b != '\n' {
			return ReasonBareCR
		}
		c.state = trailerLine
	case trailerEnd:
		if b != '\n' {
			return ReasonBareCR
		}
		c.state = chunkDone
	}
	return ReasonNone
}
