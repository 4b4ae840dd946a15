package httpparse

// The character classes, one bit each, of the tables' bytes.
const (
	isToken  uint8 = 1 << iota // RFC 9110 section 5.6.2: tchar
	isPath                     // RFC 3986 section 3.3: pchar or '/', but not '%'
	isQuery                    // what a query may hold, but not '%': see classes
	isHost                     // RFC 3986 section 3.2.2: reg-name, but not '%'
	isScheme                   // RFC 3986 section 3.1
	isValue                    // RFC 9110 section 5.5: field-vchar, SP and HTAB
	isHex                      // RFC 5234: HEXDIG, in both cases
	isID                       // design.md, section 5: what a request id may hold
)

// class has the classes of each byte. It is never written after start.
var class = classes()

func classes() (t [256]uint8) {
	set := func(bit uint8, chars string) {
		for i := range len(chars) {
			t[chars[i]] |= bit
		}
	}
	const (
		digits    = "0123456789"
		letters   = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
		alnum     = digits + letters
		subDelims = "!$&'()*+,;="
		host      = alnum + "-._~" + subDelims
		path      = host + ":@/"
		// Stricter would be RFC 3986 section 3.4, which has only path and '?'.
		// Browsers leave the others of this list as they are in a query (URL
		// Standard, "query percent-encode set"), and they divide nothing.
		query = path + "?" + "[]{}|^`\\"
	)
	set(isToken, alnum+"!#$%&'*+-.^_`|~")
	set(isPath, path)
	set(isQuery, query)
	set(isHost, host)
	set(isScheme, alnum+"+-.")
	set(isHex, digits+"abcdefABCDEF")
	set(isID, alnum+"._-")
	for c := range t {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= isValue
		}
	}
	return t
}

// all says whether every byte of b is of one of the classes in bits.
func all(b []byte, bits uint8) bool {
	for _, c := range b {
		if class[c]&bits == 0 {
			return false
		}
	}
	return true
}

// equalFold says whether b equals lower, which is in lower case, when ASCII
// letters of both cases are the same.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// unhex returns the value of a hexadecimal digit.
func unhex(c byte) uint64 {
	if c <= '9' {
		return uint64(c - '0')
	}
	return uint64(c|0x20-'a') + 10
}

// trim returns b without the optional white space at both ends.
// Source: RFC 9110 section 5.6.3 (SP and HTAB only).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// ValidFieldName says whether b is a field name: a token.
// Source: RFC 9110 section 5.1.
func ValidFieldName(b []byte) bool { return len(b) > 0 && all(b, isToken) }

// ValidFieldValue says whether b can stand in a field line without ending it:
// no control character but HTAB. Bytes from 0x80 on are allowed (obs-text).
// Source: RFC 9110 section 5.5.
func ValidFieldValue(b []byte) bool {
	i := 0
	for len(b)-i >= 8 && valueStop(load(b, i)) == 0 {
		i += 8
	}
	return valueRun(b, i) == len(b)
}

// ValidRequestID says whether b may be a request id: 1 to RequestIDBytesMax of
// [A-Za-z0-9._-].
func ValidRequestID(b []byte) bool {
	return 0 < len(b) && len(b) <= RequestIDBytesMax && all(b, isID)
}
