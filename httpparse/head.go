package httpparse

import "bytes"

const (
	// RequestLineBytesMax bounds the request line, its CRLF not counted; a longer
	// one is answered 414. RFC 9112 section 3 recommends at least 8000.
	RequestLineBytesMax = 8 << 10

	// HeadBytesMax bounds a whole head, from its first byte (an ignored empty line
	// included) to the empty line behind the fields, both included; a longer one
	// is answered 431. It also bounds the re-reading of an incomplete head.
	HeadBytesMax = 32 << 10

	// FieldsMax bounds the number of field lines; one more is answered 431.
	FieldsMax = 100

	// RequestIDBytesMax bounds a request id that is taken over from a client.
	RequestIDBytesMax = 128
)

// TargetForm is the form of a request target.
// Source: RFC 9112 section 3.2. The authority form exists for CONNECT alone,
// which is refused.
type TargetForm uint8

const (
	OriginForm TargetForm = iota
	AbsoluteForm
	AsteriskForm
)

// Field is one field line. Name is a token; Value has no white space at its
// ends and no control character but HTAB.
type Field struct{ Name, Value []byte }

// Request is a parsed request head. All slices are views into the bytes given
// to ParseHead. Reuse one Request for many heads: it is about 5 KiB. A copy of
// a Request shares the Fields of the original.
type Request struct {
	// Method and Target are as sent; methods are case-sensitive.
	Method, Target []byte

	// Path is the absolute path as sent, without the query, never empty: the
	// path of "http://host" is "/". Query is what follows the first '?', nil when
	// there is no '?'. Both are nil in asterisk form.
	Path, Query []byte

	// Authority is the host, and the port if one was sent, that the request is
	// for: of the target in absolute form (RFC 9112 section 3.2.2), else of the
	// Host field. It may be empty: see ParseHead.
	Authority []byte

	// Fields are the field lines in the order of arrival.
	Fields []Field

	// ContentLength is the declared length of the body, -1 when none is.
	// There is no body when it is -1 or 0 and Chunked is false.
	ContentLength int64

	// RequestID is the value of the first X-Request-Id field if that is 1 to
	// RequestIDBytesMax of [A-Za-z0-9._-], else nil.
	RequestID []byte

	Form TargetForm

	// Minor is the minor version to answer with: HTTP/1.<Minor>, 0 or 1.
	Minor uint8

	Chunked bool

	// KeepAlive says whether the client expects the connection to stay.
	KeepAlive bool

	// ExpectContinue says whether the client waits for 100 (Continue).
	ExpectContinue bool

	// Underscores says whether some field's name has a '_'. CGI-style
	// environments fold '-' and '_', so such a field is never exported.
	Underscores bool

	seen   seen
	fields [FieldsMax]Field
}

// seen has a bit for each field of which there may be one only.
type seen uint8

const (
	seenHost seen = 1 << iota
	seenTransferEncoding
	seenConnectionClose
	seenConnectionKeepAlive
	seenRequestID
)

// Header returns the value of the first field called name, without regard to
// the case of ASCII letters, or nil when there is none. An empty value is not
// nil.
func (r *Request) Header(name string) []byte {
	for i := range r.Fields {
		if f := &r.Fields[i]; len(f.Name) == len(name) && sameName(f.Name, name) {
			return f.Value
		}
	}
	return nil
}

// sameName compares two tokens of one length without regard to case.
func sameName(b []byte, name string) bool {
	for i := range b {
		x, y := b[i], name[i]
		if x == y {
			continue
		}
		if x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z' {
			return false
		}
	}
	return true
}

// ParseHead reads one request head from b, which starts at the request line.
//
// On Complete, n is the head's length in bytes, the empty line included, and
// r's slices are views into b: they die when b is reused. On Incomplete, b is
// a proper prefix; call again with the same bytes and more. On Invalid, why is
// the first broken rule from left to right; r.Method and r.Minor hold what was
// read before it, and nothing else of r means anything.
//
// Keeps no state, allocates nothing; concurrent calls need distinct r.
//
// Source: RFC 9112 sections 2, 3, 5 and 6. Decisions where it leaves a choice,
// or where this is stricter:
//   - One empty line before the request line is ignored (2.2), a second is not.
//   - A bare LF, which 2.2 would allow, is refused; so is obs-fold (5.2).
//   - An absolute form with https is refused (RFC 9110 section 7.4).
//   - HTTP/1.2 to 1.9 are read as 1.1 (RFC 9110 section 2.5).
//   - A repeated Content-Length is refused, even with the same value (6.3).
//   - Transfer-Encoding is refused in HTTP/1.0, and beside a Content-Length
//     always (6.1, 6.3).
//   - An empty Host is valid and means no authority (3.3); an absolute form
//     with an empty host is not (RFC 9110 section 4.2.1), nor is one with
//     userinfo (RFC 9110 section 4.2.4).
func ParseHead(r *Request, b []byte) (o Outcome, n int, why Reason) {
	r.reset()
	if len(b) > HeadBytesMax {
		b = b[:HeadBytesMax]
	}
	first := 0
	if len(b) > 0 && b[0] == '\r' {
		switch {
		case len(b) == 1:
			return Incomplete, 0, ReasonNone
		case b[1] != '\n':
			return Invalid, 0, ReasonBareCR
		}
		first = len("\r\n")
	}
	n, why = r.parseRequestLine(b, first)
	if n == 0 {
		return outcomeOf(why), 0, why
	}
	for count := 0; ; count++ {
		// At the start of a line: n is behind a CRLF.
		if n >= len(b) {
			return shortHead(b)
		}
		if b[n] == '\r' {
			if n+1 >= len(b) {
				return shortHead(b)
			}
			if b[n+1] != '\n' {
				return Invalid, 0, ReasonBareCR
			}
			r.Fields = r.fields[:count]
			if why = r.finish(); why != ReasonNone {
				return Invalid, 0, why
			}
			return Complete, n + 2, ReasonNone
		}
		if count == FieldsMax {
			return Invalid, 0, ReasonTooManyFields
		}

		i := n
		word := wordAt(b, i)
		folded := word | 0x20*lanes
		for {
			if stop := nameStop(word); stop != 0 {
				i += firstLane(stop)
				break
			}
			i += 8
			word = wordAt(b, i)
		}
		if i >= len(b) {
			return shortHead(b)
		}
		if b[i] != ':' || i == n {
			// Rare: a name with digits or other tchars than '-'.
			for i < len(b) && class[b[i]]&isToken != 0 {
				i++
			}
			if i >= len(b) {
				return shortHead(b)
			}
			if b[i] != ':' || i == n {
				return Invalid, 0, reasonOfName(b[i], i-n)
			}
			if bytes.IndexByte(b[n:i], '_') >= 0 {
				r.Underscores = true
			}
		}
		f := &r.fields[count]
		f.Name = b[n:i]
		i++
		if i < len(b) && b[i] == ' ' {
			i++
		}

		start := i
		for {
			if len(b)-i < 16 {
				i = valueRun(b, i)
				break
			}
			stop := valueStop(load(b, i))
			if stop == 0 {
				i += 8
				if stop = valueStop(load(b, i)); stop == 0 {
					i += 8
					continue
				}
			}
			i += firstLane(stop)
			break
		}
		if i+1 >= len(b) || b[i] != '\r' || b[i+1] != '\n' {
			// Rare: HTAB or obs-text, the end of b, or a broken rule.
			if i = valueRun(b, i); i+1 >= len(b) || b[i] != '\r' || b[i+1] != '\n' {
				if o, why = valueEnd(b, i); o == Incomplete {
					return shortHead(b)
				}
				return o, 0, why
			}
		}
		v := b[start:i]
		if b[start] <= ' ' || b[i-1] <= ' ' {
			v = trim(v)
		}
		f.Value = v
		n = i + 2

		// The few names that matter here differ in length. Folding with 0x20 is
		// exact: no other tchar becomes a letter or '-' by it.
		switch why = ReasonNone; len(f.Name) {
		case len("Host"):
			if folded&(1<<32-1) == wordHost {
				// Behind v in b are at least CRLF, which end a run of words.
				tail := v
				if len(v) == i-start {
					tail = b[start:]
				}
				why = r.onHost(v, tail)
			}
		case len("Expect"):
			if folded&(1<<48-1) == wordExpect {
				why = r.onExpect(v)
			}
		case len("Connection"):
			if folded == wordConnecti && foldedAt(f.Name, 2) == wordNnection {
				why = r.onConnection(v)
			}
		case len("X-Request-Id"):
			if folded == wordXReques && foldedAt(f.Name, 4) == wordQuestId {
				r.onRequestID(v)
			}
		case len("Content-Length"):
			if folded == wordContent && foldedAt(f.Name, 6) == wordTLength {
				why = r.onContentLength(v)
			}
		case len("Transfer-Encoding"):
			if folded == wordTransfer && foldedAt(f.Name, 8) == wordEncodin && f.Name[16]|0x20 == 'g' {
				why = r.onTransferEncoding(v)
			}
		}
		if why != ReasonNone {
			return Invalid, 0, why
		}
	}
}

// valueEnd is the verdict on a field value that b[i:] does not end with CRLF.
func valueEnd(b []byte, i int) (Outcome, Reason) {
	switch {
	case i >= len(b):
		return Incomplete, ReasonNone
	case b[i] == '\n':
		return Invalid, ReasonBareLF
	case b[i] != '\r':
		return Invalid, ReasonBadFieldValue
	case i+1 == len(b):
		return Incomplete, ReasonNone
	}
	return Invalid, ReasonBareCR
}

// HeadEnd returns the length of b up to and with the first CRLF CRLF that ends
// behind from, or -1 when there is none. It is a hint for callers that hold an
// incomplete head: parse again when it is not -1, when b has doubled, or when b
// reaches HeadBytesMax; then many small reads cost linear time.
func HeadEnd(b []byte, from int) int {
	start := min(max(from-3, 0), len(b))
	i := bytes.Index(b[start:], []byte("\r\n\r\n"))
	if i < 0 {
		return -1
	}
	return start + i + 4
}

func outcomeOf(why Reason) Outcome {
	if why == ReasonNone {
		return Incomplete
	}
	return Invalid
}

// shortHead is the verdict on b when the head goes on behind its end.
func shortHead(b []byte) (Outcome, int, Reason) {
	if len(b) >= HeadBytesMax {
		return Invalid, 0, ReasonHeadTooLarge
	}
	return Incomplete, 0, ReasonNone
}

func (r *Request) reset() {
	r.Method, r.Target, r.Path, r.Query, r.Authority, r.RequestID = nil, nil, nil, nil, nil, nil
	r.Fields = r.fields[:0]
	r.ContentLength = -1
	r.Form, r.Minor, r.seen = OriginForm, 1, 0
	r.Chunked, r.KeepAlive, r.ExpectContinue, r.Underscores = false, false, false, false
}

// parseRequestLine reads the request line from b[first:], and returns the index
// behind its CRLF; 0 when that is not in b or why is not ReasonNone.
//
// Source: RFC 9112 section 3.
func (r *Request) parseRequestLine(b []byte, first int) (end int, why Reason) {
	short := ReasonNone
	if window := first + RequestLineBytesMax + len("\r\n"); len(b) >= window {
		b = b[:window]
		short = ReasonRequestLineTooLong
	}

	i := first
	switch w := wordAt(b, i); {
	case w&(1<<32-1) == wordGET:
		i += len("GET")
	case w&(1<<40-1) == wordPOST:
		i += len("POST")
	default:
		for i < len(b) && class[b[i]]&isToken != 0 {
			i++
		}
		if i == len(b) {
			return 0, short
		}
		switch {
		case b[i] == '\n':
			return 0, ReasonBareLF
		case b[i] == '\r':
			return 0, ReasonBadRequestLine
		case i == first, b[i] != ' ':
			return 0, ReasonBadMethod
		}
	}
	r.Method = b[first:i]
	if len(r.Method) == len("CONNECT") && string(r.Method) == "CONNECT" {
		return 0, ReasonConnect
	}

	start := i + 1
	if start < len(b) && b[start] == '/' {
		i, why = r.parsePath(b, start)
	} else {
		i, why = r.parseOtherForm(b, start)
	}
	if i == 0 {
		if why == ReasonNone {
			why = short
		}
		return 0, why
	}
	r.Target = b[start:i]

	i++
	if len(b)-i >= len("HTTP/1.1\r\n") && load(b, i) == wordHTTP11 && b[i+8] == '\r' && b[i+9] == '\n' {
		r.Minor = 1
		return r.endRequestLine(i + len("HTTP/1.1\r\n"))
	}
	n, why := r.parseVersion(b[i:])
	if n == 0 {
		if why == ReasonNone {
			why = short
		}
		return 0, why
	}
	return r.endRequestLine(i + n)
}

// endRequestLine judges the form of the target, behind the version: another
// major version has forms of its own, and its preface is to be told so (RFC
// 9113 section 3.4: "PRI * HTTP/2.0").
func (r *Request) endRequestLine(n int) (end int, why Reason) {
	if r.Form == AsteriskForm && string(r.Method) != "OPTIONS" {
		return 0, ReasonAsteriskForm
	}
	return n, ReasonNone
}

// parseVersion reads the version and the CRLF that end the request line.
// Source: RFC 9112 section 2.3: case-sensitive, one digit each side of the dot.
func (r *Request) parseVersion(b []byte) (n int, why Reason) {
	const pattern = "HTTP/d.d\r\n"
	for i := range len(pattern) {
		if i == len(b) {
			return 0, ReasonNone
		}
		c := b[i]
		if pattern[i] == 'd' {
			if c < '0' || c > '9' {
				return 0, reasonOfEnd(c, ReasonBadVersion)
			}
			continue
		}
		if c == pattern[i] {
			continue
		}
		switch i {
		case 0:
			// A second space, or no version at all.
			if c == ' ' || c == '\r' {
				return 0, ReasonBadRequestLine
			}
		case 8:
			// White space behind the version.
			if c == ' ' || c == '\t' {
				return 0, ReasonBadRequestLine
			}
		case 9:
			return 0, ReasonBareCR
		}
		return 0, reasonOfEnd(c, ReasonBadVersion)
	}
	if b[5] != '1' {
		return 0, ReasonUnsupportedVersion
	}
	r.Minor = 1
	if b[7] == '0' {
		r.Minor = 0
	}
	return len(pattern), ReasonNone
}

// reasonOfEnd is why, unless c is an LF that ends the line too early.
func reasonOfEnd(c byte, why Reason) Reason {
	if c == '\n' {
		return ReasonBareLF
	}
	return why
}

// reasonOfName is the rule that c breaks, the first byte behind a field name
// of i bytes that is not its colon.
func reasonOfName(c byte, i int) Reason {
	switch c {
	case ' ', '\t':
		if i == 0 {
			return ReasonObsFold
		}
		return ReasonSpaceBeforeColon
	case '\n':
		return ReasonBareLF
	case '\r':
		return ReasonMissingColon
	}
	return ReasonBadFieldName
}
