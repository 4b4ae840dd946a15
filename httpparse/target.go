package httpparse

import "bytes"

// parsePath reads an absolute path and an optional query from b[start:], where
// a '/' is, and returns the index of the space behind it; 0 when that is not in
// b or why is not ReasonNone.
//
// Source: RFC 9112 section 3.2.1, RFC 3986 sections 2.1, 3.3 and 3.4.
func (r *Request) parsePath(b []byte, start int) (end int, why Reason) {
	i := start + 1
	for {
		stop := pathStop(wordAt(b, i))
		if stop == 0 {
			i += 8
			continue
		}
		i += firstLane(stop)
		if i < len(b) && b[i] == ' ' {
			r.Path = b[start:i]
			return i, ReasonNone
		}
		for i < len(b) && class[b[i]]&isPath != 0 {
			i++
		}
		if i >= len(b) {
			return 0, ReasonNone
		}
		if b[i] == ' ' {
			r.Path = b[start:i]
			return i, ReasonNone
		}
		if b[i] != '%' {
			break
		}
		if i, why = percent(b, i); i == 0 {
			return 0, why
		}
	}
	if b[i] != '?' {
		return 0, reasonOfTarget(b[i])
	}
	r.Path = b[start:i]
	return r.parseQuery(b, i)
}

// parseQuery is parsePath from a '?' at b[start] on.
func (r *Request) parseQuery(b []byte, start int) (end int, why Reason) {
	i := start + 1
	for {
		for i < len(b) && class[b[i]]&isQuery != 0 {
			i++
		}
		if i >= len(b) {
			return 0, ReasonNone
		}
		if b[i] == ' ' {
			r.Query = b[start+1 : i]
			return i, ReasonNone
		}
		if b[i] != '%' {
			return 0, reasonOfTarget(b[i])
		}
		if i, why = percent(b, i); i == 0 {
			return 0, why
		}
	}
}

// percent returns the index behind the encoded byte that starts with the '%'
// at b[i]; 0 when it is not all in b or why is not ReasonNone.
func percent(b []byte, i int) (next int, why Reason) {
	for j := i + 1; j < i+3; j++ {
		if j >= len(b) {
			return 0, ReasonNone
		}
		if class[b[j]]&isHex == 0 {
			return 0, ReasonBadPercentEncoding
		}
	}
	return i + 3, ReasonNone
}

// reasonOfTarget is the rule that c breaks in a target.
func reasonOfTarget(c byte) Reason {
	switch c {
	case '#':
		return ReasonFragmentInTarget
	case '\n':
		return ReasonBareLF
	case '\r':
		return ReasonBadRequestLine
	}
	return ReasonBadTarget
}

// parseOtherForm is parsePath for the absolute and the asterisk form, and for
// what is neither.
//
// Source: RFC 9112 sections 3.2.2 and 3.2.4, RFC 9110 section 4.2.
func (r *Request) parseOtherForm(b []byte, start int) (end int, why Reason) {
	if start >= len(b) {
		return 0, ReasonNone
	}
	if b[start] == '*' {
		switch {
		case start+1 >= len(b):
			return 0, ReasonNone
		case b[start+1] != ' ':
			return 0, reasonOfTarget(b[start+1])
		}
		r.Form = AsteriskForm
		return start + 1, ReasonNone
	}
	return r.parseAbsolute(b, start)
}

// parseAbsolute reads "http://host[:port]" and what parsePath reads. A target
// with https is refused: no connection here is secured, and an answer would be
// in the name of an origin that is (RFC 9110 section 7.4).
func (r *Request) parseAbsolute(b []byte, start int) (end int, why Reason) {
	i := start
	for i < len(b) && class[b[i]]&isScheme != 0 {
		i++
	}
	if i >= len(b) {
		return 0, ReasonNone
	}
	if b[i] != ':' || i == start {
		if b[i] == ' ' && i == start {
			return 0, ReasonBadRequestLine
		}
		return 0, reasonOfTarget(b[i])
	}
	for j := i + 1; j < i+3; j++ {
		if j >= len(b) {
			return 0, ReasonNone
		}
		if b[j] != '/' {
			return 0, reasonOfTarget(b[j])
		}
	}
	switch {
	case equalFold(b[start:i], "http"):
	case equalFold(b[start:i], "https"):
		return 0, ReasonMisdirected
	default:
		return 0, ReasonBadScheme
	}
	r.Form = AbsoluteForm
	// The path of a target without one is the first slash of "//".
	slash := b[i+1 : i+2]

	start = i + 3
	for i = start; i < len(b) && (class[b[i]]&isHost != 0 || b[i] == ':' || b[i] == '[' || b[i] == ']' || b[i] == '%'); i++ {
	}
	if i >= len(b) {
		return 0, ReasonNone
	}
	r.Authority = b[start:i]
	switch b[i] {
	case '/', '?', ' ':
		if i == start || !validHost(r.Authority) {
			return 0, ReasonBadAuthority
		}
	case '@':
		return 0, ReasonBadAuthority
	default:
		return 0, reasonOfTarget(b[i])
	}
	switch {
	case b[i] == '/':
		return r.parsePath(b, i)
	case b[i] == '?':
		r.Path = slash
		return r.parseQuery(b, i)
	case string(r.Method) == "OPTIONS":
		// RFC 9112 section 3.2.4: what a proxy would have sent as "*".
		r.Form = AsteriskForm
	default:
		r.Path = slash
	}
	return i, ReasonNone
}

// validHost says whether b is a host with an optional port, or empty.
//
// Stricter than the grammar: a port needs a host before it and is at most
// 65535.
//
// Source: RFC 9110 section 7.2, RFC 3986 sections 3.2.2 and 3.2.3.
func validHost(b []byte) bool { return validHostFrom(b, 0) }

// validHostFrom is validHost when the bytes before i are known to be fine.
func validHostFrom(b []byte, i int) bool {
	for ; i < len(b); i++ {
		if class[b[i]]&isHost != 0 {
			continue
		}
		switch b[i] {
		case ':':
			return i > 0 && validPort(b[i:])
		case '%':
			if len(b)-i < 3 || class[b[i+1]]&class[b[i+2]]&isHex == 0 {
				return false
			}
			i += 2
		case '[':
			end := bytes.IndexByte(b, ']')
			return i == 0 && end > 0 && validIPLiteral(b[1:end]) && validPort(b[end+1:])
		default:
			return false
		}
	}
	return true
}

// validPort says whether b is empty, or ':' and a port, which may be empty.
func validPort(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != ':' {
		return false
	}
	port := uint(0)
	for _, c := range b[1:] {
		d := uint(c) - '0'
		if port = port*10 + d; d > 9 || port > 65535 {
			return false
		}
	}
	return true
}

// validIPLiteral says whether b is what may stand between brackets.
func validIPLiteral(b []byte) bool {
	if len(b) > 0 && b[0]|0x20 == 'v' {
		// IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
		i := bytes.IndexByte(b, '.')
		if i < 2 || i+1 == len(b) || !all(b[1:i], isHex) {
			return false
		}
		for _, c := range b[i+1:] {
			if c != ':' && class[c]&isHost == 0 {
				return false
			}
		}
		return true
	}
	return validIPv6(b)
}

// validIPv6 says whether b is an IPv6 address without a zone: eight groups of
// one to four hexadecimal digits, the last two of which may be an IPv4 address;
// "::" once for one group or more.
func validIPv6(b []byte) bool {
	groups, elided := 0, false
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		elided = true
		b = b[2:]
		if len(b) == 0 {
			return true
		}
	}
	for {
		i := 0
		for i < len(b) && class[b[i]]&isHex != 0 {
			i++
		}
		if i < len(b) && b[i] == '.' {
			groups += 2
			return validIPv4(b) && (groups == 8 || elided && groups < 8)
		}
		if i == 0 || i > 4 {
			return false
		}
		groups++
		b = b[i:]
		if len(b) == 0 {
			return groups == 8 || elided && groups < 8
		}
		if b[0] != ':' || groups >= 8 {
			return false
		}
		b = b[1:]
		if len(b) > 0 && b[0] == ':' {
			if elided {
				return false
			}
			elided = true
			b = b[1:]
			if len(b) == 0 {
				return groups < 8
			}
		}
	}
}

// validIPv4 says whether b is four decimal numbers up to 255 without leading
// zeros.
func validIPv4(b []byte) bool {
	for part := 0; ; part++ {
		i, v := 0, 0
		for i < len(b) && i < 3 && '0' <= b[i] && b[i] <= '9' {
			v = v*10 + int(b[i]-'0')
			i++
		}
		if i == 0 || v > 255 || i > 1 && b[0] == '0' {
			return false
		}
		b = b[i:]
		if part == 3 {
			return len(b) == 0
		}
		if len(b) == 0 || b[0] != '.' {
			return false
		}
		b = b[1:]
	}
}
