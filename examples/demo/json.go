package main

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// depthMax bounds how deep arrays and objects may nest in a body.
const depthMax = 64

var (
	errNotObject = errors.New("the body is not a JSON object")
	errSyntax    = errors.New("the body is not valid JSON")
)

// member finds a member of the JSON object that body is, and returns its value
// as it stands there: a view of body. It is nil when there is no such member, or
// no body at all. Of several of one name the last counts, as in encoding/json.
// The whole body is checked.
func member(body []byte, name string) (value []byte, err error) {
	rest := space(body)
	if len(rest) == 0 {
		return nil, nil
	}
	if rest[0] != '{' {
		return nil, errNotObject
	}
	rest, ok := members(rest, 0, func(key, v []byte) {
		if text, ok := text(key); ok && text == name {
			value = v
		}
	})
	if !ok || len(space(rest)) > 0 {
		return nil, errSyntax
	}
	return value, nil
}

// The functions below take bytes that start at something and return what stands
// behind it; ok tells whether it was there.

// value skips one JSON value.
func value(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 || depth > depthMax {
		return b, false
	}
	switch b[0] {
	case '{':
		return members(b, depth, func(_, _ []byte) {})
	case '[':
		return elements(b, depth)
	case '"':
		return quoted(b)
	case 't':
		return literal(b, "true")
	case 'f':
		return literal(b, "false")
	case 'n':
		return literal(b, "null")
	}
	return number(b)
}

// members skips an object and yields each key, quotes included, and value.
func members(b []byte, depth int, yield func(key, value []byte)) (rest []byte, ok bool) {
	b = space(b[1:])
	if len(b) > 0 && b[0] == '}' {
		return b[1:], true
	}
	for {
		start := b
		if b, ok = quoted(b); !ok {
			return b, false
		}
		key := start[:len(start)-len(b)]
		b = space(b)
		if len(b) == 0 || b[0] != ':' {
			return b, false
		}
		b = space(b[1:])
		start = b
		if b, ok = value(b, depth+1); !ok {
			return b, false
		}
		yield(key, start[:len(start)-len(b)])
		if b, ok = separator(b, '}'); !ok || b[0] == '}' {
			return after(b, ok)
		}
		b = space(b[1:])
	}
}

// elements skips an array.
func elements(b []byte, depth int) (rest []byte, ok bool) {
	b = space(b[1:])
	if len(b) > 0 && b[0] == ']' {
		return b[1:], true
	}
	for {
		if b, ok = value(b, depth+1); !ok {
			return b, false
		}
		if b, ok = separator(b, ']'); !ok || b[0] == ']' {
			return after(b, ok)
		}
		b = space(b[1:])
	}
}

// separator moves to the next comma or the end of the array or object.
func separator(b []byte, end byte) (rest []byte, ok bool) {
	b = space(b)
	return b, len(b) > 0 && (b[0] == ',' || b[0] == end)
}

// after drops the closing bracket, when there is one.
func after(b []byte, ok bool) ([]byte, bool) {
	if ok {
		b = b[1:]
	}
	return b, ok
}

// quoted skips a string.
func quoted(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return b, false
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return b[i+1:], true
		case c < ' ':
			return b, false
		case c == '\\':
			i++
			if i == len(b) {
				return b, false
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if _, ok := hex4(b[i+1:]); !ok {
					return b, false
				}
				i += 4
			default:
				return b, false
			}
		}
	}
	return b, false
}

// number skips a number: RFC 8259, section 6.
func number(b []byte) (rest []byte, ok bool) {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 0 && b[0] == '0' {
		b = b[1:]
	} else if b, ok = digits(b); !ok {
		return b, false
	}
	if len(b) > 0 && b[0] == '.' {
		if b, ok = digits(b[1:]); !ok {
			return b, false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		return digits(b)
	}
	return b, true
}

// digits skips one digit or more.
func digits(b []byte) (rest []byte, ok bool) {
	for len(b) > 0 && '0' <= b[0] && b[0] <= '9' {
		b, ok = b[1:], true
	}
	return b, ok
}

func literal(b []byte, word string) (rest []byte, ok bool) {
	if len(b) < len(word) || string(b[:len(word)]) != word {
		return b, false
	}
	return b[len(word):], true
}

func space(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// hex4 reads the four digits of a \u escape.
func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 32)
	return rune(n), err == nil
}

// text decodes a JSON string, quotes included, that quoted has accepted; ok is
// false for any other value. Half a surrogate pair and bytes that are not UTF-8
// become U+FFFD.
func text(b []byte) (s string, ok bool) {
	if len(b) < 2 || b[0] != '"' {
		return "", false
	}
	b = b[1 : len(b)-1]
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if b[0] != '\\' {
			r, size := utf8.DecodeRune(b)
			out = utf8.AppendRune(out, r)
			b = b[size:]
			continue
		}
		escape := b[1]
		b = b[2:]
		switch escape {
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
			r, _ := hex4(b)
			b = b[4:]
			if utf16.IsSurrogate(r) {
				second := rune(utf8.RuneError)
				if len(b) > 2 && b[0] == '\\' && b[1] == 'u' {
					second, _ = hex4(b[2:])
				}
				if r = utf16.DecodeRune(r, second); r != utf8.RuneError {
					b = b[6:]
				}
			}
			out = utf8.AppendRune(out, r)
		default: // '"', '\\', '/'
			out = append(out, escape)
		}
	}
	return string(out), true
}

// appendString appends s as a JSON string, quotes included.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
