package httpparse

import "bytes"

const (
	// CGIHeadBytesMax bounds the header block of a function's output, the empty
	// line included. Output that starts like a block and has no empty line
	// within it is refused.
	CGIHeadBytesMax = 32 << 10

	// CGIFieldsMax bounds the fields of a block that are passed on.
	CGIFieldsMax = 64
)

// CGIReason says what is wrong with a function's header block. The zero value
// means accepted. All are answered 502.
type CGIReason uint8

const (
	CGIReasonNone CGIReason = iota
	CGIReasonBadLine
	CGIReasonBadValue
	CGIReasonBadStatus
	CGIReasonRepeated
	CGIReasonForbidden
	CGIReasonBadContentLength
	CGIReasonTooManyFields
	CGIReasonTooLarge

	// CGIReasonCount is the number of reasons, CGIReasonNone included.
	CGIReasonCount
)

var cgiReasons = [CGIReasonCount]struct{ name, text string }{
	CGIReasonNone:             {"accepted", "the header block is accepted"},
	CGIReasonBadLine:          {"cgi_bad_line", "the function's header block has a line that is not a field"},
	CGIReasonBadValue:         {"cgi_bad_value", "the function's header block has a control character in a value"},
	CGIReasonBadStatus:        {"cgi_bad_status", "the function's Status is not a number from 200 to 599"},
	CGIReasonRepeated:         {"cgi_repeated_field", "the function's header block repeats a field that stands once"},
	CGIReasonForbidden:        {"cgi_forbidden_field", "the function's header block has a field that belongs to the connection"},
	CGIReasonBadContentLength: {"cgi_bad_content_length", "the function's Content-Length is not a decimal number"},
	CGIReasonTooManyFields:    {"cgi_too_many_fields", "the function's header block has too many fields"},
	CGIReasonTooLarge:         {"cgi_head_too_large", "the function's header block is too large"},
}

// Status returns the HTTP status that answers r: 200 for CGIReasonNone, else
// 502.
func (r CGIReason) Status() int {
	if r == CGIReasonNone {
		return 200
	}
	return 502
}

// String returns r's name for JSON bodies and metrics.
func (r CGIReason) String() string { return cgiReasons[r].name }

// Text returns a sentence about r for a person, free of bytes that JSON would
// escape.
func (r CGIReason) Text() string { return cgiReasons[r].text }

// CGIHead is the header block of a function's output. Its slices are views
// into the output. A copy shares the Fields of the original.
type CGIHead struct {
	// Status is the status to answer with: 302 when there is a Location and no
	// Status, else 200 by default.
	Status int

	// ContentType and Location are the fields of those names, nil when they are
	// missing.
	ContentType, Location []byte

	// ContentLength is what the function says its body has, -1 when it does not
	// say. The framing is ours: this is never sent, but may be compared.
	ContentLength int64

	// Fields are all other fields to send, in order.
	Fields []Field

	seenStatus bool
	fields     [CGIFieldsMax]Field
}

// cgiKind is what a field of a block is to us.
type cgiKind uint8

const (
	cgiOther     cgiKind = iota // passed on
	cgiStatus                   // the CGI fields of RFC 3875 section 6.3
	cgiType                     // …
	cgiLocation                 // …
	cgiLength                   // checked, not passed on: framing is ours
	cgiOurs                     // left out: the platform writes it itself
	cgiForbidden                // belongs to the connection: RFC 9110 section 7.6.1
)

// kindOf says what a field called name is.
func kindOf(name []byte) cgiKind {
	switch len(name) {
	case len("te"):
		if equalFold(name, "te") {
			return cgiForbidden
		}
	case len("date"):
		if equalFold(name, "date") {
			return cgiOurs
		}
	case len("status"):
		if equalFold(name, "status") {
			return cgiStatus
		}
	case len("trailer"): // and upgrade
		if equalFold(name, "trailer") || equalFold(name, "upgrade") {
			return cgiForbidden
		}
	case len("location"):
		if equalFold(name, "location") {
			return cgiLocation
		}
	case len("connection"): // and keep-alive
		if equalFold(name, "connection") || equalFold(name, "keep-alive") {
			return cgiForbidden
		}
	case len("content-type"): // and x-request-id
		if equalFold(name, "content-type") {
			return cgiType
		}
		if equalFold(name, "x-request-id") {
			return cgiOurs
		}
	case len("x-baton-error"):
		if equalFold(name, "x-baton-error") {
			return cgiOurs
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			return cgiLength
		}
	case len("proxy-connection"):
		if equalFold(name, "proxy-connection") {
			return cgiForbidden
		}
	case len("transfer-encoding"):
		if equalFold(name, "transfer-encoding") {
			return cgiForbidden
		}
	}
	return cgiOther
}

// ParseCGI looks for a header block at the start of a function's output b,
// which is all of it, or at least CGIHeadBytesMax bytes, or so much that
// CGIUndecided(b) is false.
//
// A block is one or more field lines, among them Status, Content-Type or
// Location, and an empty line behind them; lines end with LF or CRLF. With a
// block, n is its length, the empty line included, and h is filled with views
// into b, unless why says what is wrong with it. Without one, isBlock is false
// and all of b is plain output: so is a text that merely looks like fields but
// has no empty line.
//
// Nothing of a function's output can end a field line early or touch the
// framing: names are tokens, values have no control character but HTAB, the
// fields of the connection are refused, Content-Length is not passed on.
//
// Nothing in h means anything unless there is a block and no reason. A CGIHead
// is about 3 KiB: reuse one.
//
// Allocates nothing. Source: RFC 3875 section 6; RFC 9110 section 5.
func ParseCGI(h *CGIHead, b []byte) (isBlock bool, n int, why CGIReason) {
	// Most output is plain, and shows it within a few bytes.
	if !cgiMayStart(b[:min(len(b), CGIHeadBytesMax)]) {
		return false, 0, CGIReasonNone
	}
	h.Status, h.seenStatus = 200, false
	h.ContentType, h.Location = nil, nil
	h.ContentLength = -1
	h.Fields = h.fields[:0]

	// The verdict on a broken rule waits until it is sure that this is a block.
	cgi := false
	broken := CGIReasonNone
	w := b[:min(len(b), CGIHeadBytesMax)]
	for {
		line, size := cgiLine(w[n:])
		if size == 0 {
			if cgi && len(b) >= CGIHeadBytesMax {
				return true, 0, CGIReasonTooLarge
			}
			return false, 0, CGIReasonNone
		}
		n += size
		if len(line) == 0 {
			break
		}
		name, value, ok := cutField(line)
		if !ok {
			if cgi {
				return true, 0, CGIReasonBadLine
			}
			return false, 0, CGIReasonNone
		}
		kind := kindOf(name)
		cgi = cgi || kind == cgiStatus || kind == cgiType || kind == cgiLocation
		if broken == CGIReasonNone {
			broken = h.take(kind, Field{name, value})
		}
	}
	if !cgi {
		return false, 0, CGIReasonNone
	}
	if broken != CGIReasonNone {
		return true, 0, broken
	}
	if h.Location != nil && !h.seenStatus {
		h.Status = 302
	}
	return true, n, CGIReasonNone
}

// CGIUndecided says whether more output may change what ParseCGI says about
// the first bytes b of it. It is false as soon as b has the end of a header
// block, a line that no block has, or CGIHeadBytesMax bytes; at the end of the
// output, nothing is undecided.
func CGIUndecided(b []byte) bool {
	if len(b) >= CGIHeadBytesMax {
		return false
	}
	cgi := false
	for len(b) > 0 {
		line, size := cgiLine(b)
		if size == 0 {
			return cgi || cgiMayStart(b)
		}
		name, _, ok := cutField(line)
		if !ok {
			return false
		}
		switch kindOf(name) {
		case cgiStatus, cgiType, cgiLocation:
			cgi = true
		}
		b = b[size:]
	}
	return true
}

// cgiMayStart says whether b may start with a line of a block, or become one.
func cgiMayStart(b []byte) bool {
	i := 0
	for i < len(b) && class[b[i]]&isToken != 0 {
		i++
	}
	return i == len(b) || i > 0 && b[i] == ':' || len(b) == 1 && b[0] == '\r'
}

// cgiLine returns the first line of b without its LF or CRLF, and its length
// with it; 0 when b has no LF.
func cgiLine(b []byte) (line []byte, size int) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, 0
	}
	line = b[:i]
	if i > 0 && b[i-1] == '\r' {
		line = b[:i-1]
	}
	return line, i + 1
}

// cutField cuts a line at its colon. ok is false when what stands before it
// is not a token.
func cutField(line []byte) (name, value []byte, ok bool) {
	i := 0
	for i < len(line) && class[line[i]]&isToken != 0 {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		return nil, nil, false
	}
	return line[:i], trim(line[i+1:]), true
}

// take stores one field of a block.
func (h *CGIHead) take(kind cgiKind, f Field) CGIReason {
	if !ValidFieldValue(f.Value) {
		return CGIReasonBadValue
	}
	switch kind {
	case cgiStatus:
		return h.takeStatus(f.Value)
	case cgiType:
		if h.ContentType != nil {
			return CGIReasonRepeated
		}
		h.ContentType = f.Value
	case cgiLocation:
		if h.Location != nil {
			return CGIReasonRepeated
		}
		h.Location = f.Value
	case cgiLength:
		if h.ContentLength >= 0 {
			return CGIReasonRepeated
		}
		n, ok := parseLength(f.Value)
		if !ok {
			return CGIReasonBadContentLength
		}
		h.ContentLength = n
	case cgiForbidden:
		return CGIReasonForbidden
	case cgiOther:
		if len(h.Fields) == CGIFieldsMax {
			return CGIReasonTooManyFields
		}
		h.Fields = append(h.Fields, f)
	}
	return CGIReasonNone
}

// takeStatus: RFC 3875 section 6.3.3: three digits, then nothing or a space
// and a phrase, which is dropped. An interim status (1xx) cannot end a request.
func (h *CGIHead) takeStatus(v []byte) CGIReason {
	if h.seenStatus {
		return CGIReasonRepeated
	}
	h.seenStatus = true
	if len(v) < 3 || len(v) > 3 && v[3] != ' ' {
		return CGIReasonBadStatus
	}
	status := 0
	for _, c := range v[:3] {
		if c < '0' || c > '9' {
			return CGIReasonBadStatus
		}
		status = status*10 + int(c-'0')
	}
	if status < 200 || status > statusMax {
		return CGIReasonBadStatus
	}
	h.Status = status
	return CGIReasonNone
}
