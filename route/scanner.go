package route

import (
	"unicode/utf16"
	"unicode/utf8"
)

// scanner cuts a JSON object into names and raw values, as strict as RFC 8259
// and in one pass: encoding/json neither refuses a name given twice nor leaves
// the value for later. It reads b[i:]; why is set by the first fault and ends
// everything.
type scanner struct {
	b   []byte
	i   int
	why string
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
}

func (s *scanner) fail(why string) bool {
	if s.why == "" {
		s.why = why
	}
	return false
}

func (s *scanner) is(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// open reads the opening bracket.
func (s *scanner) open(c byte) bool {
	s.space()
	if !s.is(c) {
		return false
	}
	s.i++
	return true
}

// next says whether an element follows, after n of them: it reads the comma
// before it or the closing bracket.
func (s *scanner) next(closing byte, n int) bool {
	if s.why != "" {
		return false
	}
	s.space()
	switch {
	case s.is(closing):
		s.i++
		return false
	case n == 0:
		return true
	case s.is(','):
		s.i++
		return true
	}
	return s.fail("no comma or closing bracket")
}

// end says whether only white space is left.
func (s *scanner) end() bool {
	s.space()
	return s.i == len(s.b)
}

// name reads a member's name and the colon.
func (s *scanner) name() (string, bool) {
	s.space()
	start := s.i
	if !s.text() {
		return "", false
	}
	name, ok := unquote(s.b[start:s.i])
	if !ok {
		return "", s.fail("a bad escape")
	}
	s.space()
	if !s.is(':') {
		return "", s.fail("no colon")
	}
	s.i++
	return name, true
}

// value reads one value of any kind and returns its text.
func (s *scanner) value() ([]byte, bool) {
	s.space()
	start := s.i
	if !s.skip(0) {
		return nil, false
	}
	return s.b[start:s.i], true
}

// skip passes over one value; nesting is bounded by nestingMax.
func (s *scanner) skip(depth int) bool {
	s.space()
	if s.i == len(s.b) {
		return s.fail("the end of the text")
	}
	if depth > nestingMax {
		return s.fail("too deep a nesting")
	}
	switch c := s.b[s.i]; {
	case c == '"':
		start := s.i
		if !s.text() {
			return false
		}
		if _, ok := unquote(s.b[start:s.i]); !ok {
			return s.fail("a bad escape")
		}
		return true
	case c == '{':
		s.i++
		for n := 0; s.next('}', n); n++ {
			if _, ok := s.name(); !ok || !s.skip(depth+1) {
				return false
			}
		}
		return s.why == ""
	case c == '[':
		s.i++
		for n := 0; s.next(']', n); n++ {
			if !s.skip(depth + 1) {
				return false
			}
		}
		return s.why == ""
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if len(s.b)-s.i >= len(word) && string(s.b[s.i:s.i+len(word)]) == word {
			s.i += len(word)
			return true
		}
	}
	return s.fail("no JSON value")
}

// text passes over a string with its quotes; its escapes are unquote's matter.
func (s *scanner) text() bool {
	if !s.is('"') {
		return s.fail("no quoted text")
	}
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return true
		case c == '\\':
			s.i++
		case c < ' ':
			return s.fail("a bare control character in a text")
		}
	}
	return s.fail("a text without its end")
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return start < s.i
}

// number passes over a number of RFC 8259 section 6.
func (s *scanner) number() bool {
	if s.is('-') {
		s.i++
	}
	if s.is('0') {
		s.i++
	} else if !s.digits() {
		return s.fail("a bad number")
	}
	if s.is('.') {
		s.i++
		if !s.digits() {
			return s.fail("a bad number")
		}
	}
	if s.is('e') || s.is('E') {
		s.i++
		if s.is('+') || s.is('-') {
			s.i++
		}
		if !s.digits() {
			return s.fail("a bad number")
		}
	}
	return true
}

// isNumber says whether a value that skip has passed over is a number: what
// strconv reads beyond JSON (Inf, 0x10, 1_000) never gets here otherwise.
func isNumber(v []byte) bool {
	return len(v) > 0 && (v[0] == '-' || '0' <= v[0] && v[0] <= '9')
}

// unquote reads the text of a JSON string with its quotes; false when v is
// none. A lone surrogate is refused: it has no UTF-8 form.
func unquote(v []byte) (string, bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	v = v[1 : len(v)-1]
	plain := true
	for _, c := range v {
		if c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		return string(v), true
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] != '\\' {
			out = append(out, v[i])
			continue
		}
		i++
		if i == len(v) {
			return "", false
		}
		switch v[i] {
		case '"', '\\', '/':
			out = append(out, v[i])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(v[i+1:])
			if !ok {
				return "", false
			}
			i += 4
			if utf16.IsSurrogate(r) {
				if len(v)-i < 7 || v[i+1] != '\\' || v[i+2] != 'u' {
					return "", false
				}
				low, ok := hex4(v[i+3:])
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return "", false
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", false
		}
	}
	return string(out), true
}

func hex4(v []byte) (rune, bool) {
	if len(v) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range v[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
