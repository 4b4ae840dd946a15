package httpparse

import (
	"fmt"
	"strings"
	"testing"
)

// cgiLaw is one rule. A case is plain output when status is 0 and why is none,
// refused when why is some, else a block that means status and the words.
type cgiLaw struct {
	name, in string
	why      CGIReason
	status   int
	words    string
}

// words tells what a block means, but for its status.
func (v cgiVerdict) words() string {
	var w []string
	if v.hasContentType {
		w = append(w, "type="+v.contentType)
	}
	if v.hasLocation {
		w = append(w, "location="+v.location)
	}
	if v.length >= 0 {
		w = append(w, fmt.Sprintf("length=%d", v.length))
	}
	for i := 0; i < len(v.fields); i += 2 {
		w = append(w, v.fields[i]+"="+v.fields[i+1])
	}
	return strings.Join(w, " ")
}

func cgiLaws() []cgiLaw {
	const html = "Content-Type: text/html\n"
	many := func(n int) string { return strings.Repeat("X: y\n", n) }
	return []cgiLaw{
		{"RFC 3875 6.2.1: Content-Type", html + "\nbody", 0, 200, "type=text/html"},
		{"RFC 3875 2.2: lines end with CRLF", "Content-Type: text/html\r\n\r\nbody", 0, 200, "type=text/html"},
		{"RFC 3875 2.2: or one with each", "Content-Type: text/html\r\nX: y\n\r\nbody", 0, 200, "type=text/html X=y"},
		{"RFC 3875 6.3: names in any case, no space needed", "cOnTeNt-tYpE:a/b\nSTATUS:404\n\n", 0, 404, "type=a/b"},
		{"RFC 3875 6.3.3: a status and a phrase", "Status: 404 Not Found\n\n", 0, 404, ""},
		{"RFC 3875 6.3.3: a status alone", "Status: 204\n\n", 0, 204, ""},
		{"RFC 3875 6.3.3: an unregistered status", "Status: 599 x\n\n", 0, 599, ""},
		{"RFC 3875 6.2.3: Location without a status is 302", "Location: /a?b\n\n", 0, 302, "location=/a?b"},
		{"RFC 3875 6.2.4: Location with a status", "Status: 201 Created\nLocation: /a\n\n", 0, 201, "location=/a"},
		{"RFC 3875 6.3.5: other fields, repeated ones too", html + "Set-Cookie: a=b\nSet-Cookie: c=d\n\n", 0, 200, "type=text/html Set-Cookie=a=b Set-Cookie=c=d"},
		{"RFC 3875 6.3: a CGI field behind another", "X-A: b\n" + html + "\n", 0, 200, "type=text/html X-A=b"},
		{"RFC 9110 5.5: an empty value", html + "X:\n\n", 0, 200, "type=text/html X="},
		{"RFC 9110 5.5: white space around a value", "Status:\t 200 \t\nX: a \t\n\n", 0, 200, "X=a"},
		{"RFC 9110 5.5: obs-text", html + "X: caf\xc3\xa9\n\n", 0, 200, "type=text/html X=caf\xc3\xa9"},
		{"RFC 9110 8.6: Content-Length is ours, but known", html + "Content-Length: 5\n\nhello", 0, 200, "type=text/html length=5"},
		{"design: Date and our own fields are left out", html + "Date: x\nX-Request-Id: a\nX-Baton-Error: b\n\n", 0, 200, "type=text/html"},
		{"design: an empty Content-Type", "Content-Type:\n\n", 0, 200, "type="},

		{"RFC 3875 6.3: no output", "", 0, 0, ""},
		{"RFC 3875 6.3: no block in JSON", "{\"a\": 1}\n\n", 0, 0, ""},
		{"RFC 3875 6.3: no block in a text", "Dear all,\n\nhello", 0, 0, ""},
		{"RFC 3875 6.3: no CGI field", "X-A: b\n\nbody", 0, 0, ""},
		{"RFC 3875 6.3: an empty line first", "\n" + html + "\n", 0, 0, ""},
		{"RFC 3875 6.3: a name with a space first", "Content Type: text/html\n\n", 0, 0, ""},
		{"RFC 3875 6.3: no empty line", "Location: Berlin\n", 0, 0, ""},
		{"RFC 3875 6.3: not even a line end", "Location: Berlin", 0, 0, ""},
		{"RFC 3875 6.3: a status line is none", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", 0, 0, ""},
		{"RFC 3875 6.3: a name that only starts like one", "Statusx: 404\n\n", 0, 0, ""},

		{"injection: a bare CR in a value", html + "X: a\rSet-Cookie: b\n\n", CGIReasonBadValue, 0, ""},
		{"injection: CR CR LF", html + "X: a\r\r\n\n", CGIReasonBadValue, 0, ""},
		{"injection: NUL in a value", html + "X: a\x00\n\n", CGIReasonBadValue, 0, ""},
		{"injection: a control character in the type", "Content-Type: a\x0bb\n\n", CGIReasonBadValue, 0, ""},
		{"injection: DEL in the location", "Location: /\x7f\n\n", CGIReasonBadValue, 0, ""},
		{"injection: before the CGI field", "X: a\x00\n" + html + "\n", CGIReasonBadValue, 0, ""},
		{"injection: a name with a space", html + "X Y: a\n\n", CGIReasonBadLine, 0, ""},
		{"injection: a space before the colon", html + "X : a\n\n", CGIReasonBadLine, 0, ""},
		{"injection: an empty name", html + ": a\n\n", CGIReasonBadLine, 0, ""},
		{"injection: no colon", html + "hello\n\n", CGIReasonBadLine, 0, ""},
		{"injection: obs-fold", html + " a\n\n", CGIReasonBadLine, 0, ""},
		{"injection: NUL in a name", html + "X\x00: a\n\n", CGIReasonBadLine, 0, ""},
		{"injection: a CR before the empty line", html + "\r\r\n", CGIReasonBadLine, 0, ""},
		{"injection: Transfer-Encoding", html + "Transfer-Encoding: chunked\n\n", CGIReasonForbidden, 0, ""},
		{"injection: Connection", html + "connection: close\n\n", CGIReasonForbidden, 0, ""},
		{"injection: Keep-Alive", html + "Keep-Alive: timeout=5\n\n", CGIReasonForbidden, 0, ""},
		{"injection: Upgrade", html + "Upgrade: h2c\n\n", CGIReasonForbidden, 0, ""},
		{"injection: Trailer", html + "Trailer: x\n\n", CGIReasonForbidden, 0, ""},
		{"injection: TE", html + "TE: trailers\n\n", CGIReasonForbidden, 0, ""},
		{"injection: Proxy-Connection", html + "Proxy-Connection: close\n\n", CGIReasonForbidden, 0, ""},
		{"injection: Content-Length with a sign", html + "Content-Length: +5\n\n", CGIReasonBadContentLength, 0, ""},
		{"injection: Content-Length twice", html + "Content-Length: 5\nContent-Length: 5\n\n", CGIReasonRepeated, 0, ""},
		{"RFC 3875 6.3: Status twice", "Status: 200\nStatus: 200\n\n", CGIReasonRepeated, 0, ""},
		{"RFC 3875 6.3: Content-Type twice", html + html + "\n", CGIReasonRepeated, 0, ""},
		{"RFC 3875 6.3: Location twice", "Location: a\nLocation: b\n\n", CGIReasonRepeated, 0, ""},
		{"RFC 3875 6.3.3: an interim status", "Status: 101 Switching Protocols\n\n", CGIReasonBadStatus, 0, ""},
		{"RFC 3875 6.3.3: a status out of range", "Status: 600\n\n", CGIReasonBadStatus, 0, ""},
		{"RFC 3875 6.3.3: a status of two digits", "Status: 20\n\n", CGIReasonBadStatus, 0, ""},
		{"RFC 3875 6.3.3: a status of four digits", "Status: 2000\n\n", CGIReasonBadStatus, 0, ""},
		{"RFC 3875 6.3.3: an empty status", "Status:\n\n", CGIReasonBadStatus, 0, ""},
		{"RFC 3875 6.3.3: a status in words", "Status: OK\n\n", CGIReasonBadStatus, 0, ""},
		{"RFC 3875 6.3.3: HTAB behind a status", "Status: 200\tOK\n\n", CGIReasonBadStatus, 0, ""},
		{"limit: the largest number of fields", html + many(CGIFieldsMax) + "\n", 0, 200, "type=text/html" + strings.Repeat(" X=y", CGIFieldsMax)},
		{"limit: one more", html + many(CGIFieldsMax+1) + "\n", CGIReasonTooManyFields, 0, ""},
	}
}

func cgiLimits() []cgiLaw {
	block := func(n int) string {
		const around = "Status: 200\nX: \n\n"
		return "Status: 200\nX: " + strings.Repeat("a", n-len(around)) + "\n\n"
	}
	return []cgiLaw{
		{"limit: the largest block", block(CGIHeadBytesMax), 0, 200, "X=" + strings.Repeat("a", CGIHeadBytesMax-len("Status: 200\nX: \n\n"))},
		{"limit: one byte more", block(CGIHeadBytesMax + 1), CGIReasonTooLarge, 0, ""},
		{"limit: no empty line within it", "Status: 200\nX: " + strings.Repeat("a", CGIHeadBytesMax), CGIReasonTooLarge, 0, ""},
		{"limit: a long text that is no block", "X: " + strings.Repeat("a", CGIHeadBytesMax), 0, 0, ""},
	}
}

func checkCGILaw(t *testing.T, c cgiLaw, v cgiVerdict) {
	t.Helper()
	switch isBlock := c.status != 0 || c.why != CGIReasonNone; {
	case v.isBlock != isBlock || v.why != c.why:
		t.Fatalf("block %v, %v; want %v, %v", v.isBlock, v.why, isBlock, c.why)
	case c.status != v.status:
		t.Fatalf("status %d, want %d", v.status, c.status)
	case c.status != 0 && v.words() != c.words:
		t.Fatalf("%q, want %q", v.words(), c.words)
	}
}

func TestCGILaws(t *testing.T) {
	t.Parallel()
	for _, c := range append(cgiLaws(), cgiLimits()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkCGILaw(t, c, checkCGI(t, []byte(c.in), 0))
		})
	}
}

// What CGIUndecided calls decided stays so, and the body is left alone.
func TestCGIEverySplit(t *testing.T) {
	t.Parallel()
	for _, c := range cgiLaws() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := []byte(c.in)
			if c.status != 0 {
				b = append(b, "X: y\n\n\x00"...)
			}
			for i := range len(b) + 1 {
				v := checkCGI(t, b, i)
				checkCGILaw(t, c, v)
				if c.status != 0 && v.n > len(c.in) {
					t.Fatalf("a block of %d bytes, want at most %d", v.n, len(c.in))
				}
				checkCGI(t, b[:i:i], i)
			}
		})
	}
}

func TestCGIUndecided(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{
		"":                                     true,
		"S":                                    true,
		"Status":                               true,
		"Status: 200":                          true,
		"Status: 200\n":                        true,
		"Status: 200\nX":                       true,
		"Status: 200\nhello world":             true, // a bad line ends with its LF
		"Status: 200\nhello world\n":           false,
		"Status: 200\n\n":                      false,
		"Status: 200\r\n\r":                    true,
		"Status: 200\r\n\r\n":                  false,
		"{":                                    false,
		"hello world":                          false,
		"\n":                                   false,
		"\r":                                   true,
		"\rx":                                  false,
		strings.Repeat("a", CGIHeadBytesMax-1): true,
		strings.Repeat("a", CGIHeadBytesMax):   false,
	} {
		if got := CGIUndecided([]byte(in)); got != want {
			t.Errorf("CGIUndecided(%.40q) = %v", in, got)
		}
	}
}
