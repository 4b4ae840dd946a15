package httpparse

import "bytes"

// parseTarget finds the form and the parts of r.Target, whose bytes are all of
// isQuery and which is not empty.
//
// Source: RFC 9112 section 3.2, RFC 3986 section 3.
func (r *Request) parseTarget() Reason {
	t := r.Target
	switch {
	case t[0] == '/':
		return r.parsePath(t)
	case len(t) == 1 && t[0] == '*':
		if string(r.Method) != "OPTIONS" {
			return ReasonAsteriskForm
		}
		r.Form = AsteriskForm
		return ReasonNone
	}
	return r.parseAbsolute(t)
}

// parsePath splits an absolute path and an optional query.
func (r *Request) parsePath(t []byte) Reason {
	r.Path, r.Query = t, nil
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		r.Path, r.Query = t[:i], t[i+1:]
	}
	if !all(r.Path, isPath) {
		return ReasonBadTarget
	}
	return percentEncoding(t)
}

// percentEncoding checks that each '%' starts an encoded byte.
// Source: RFC 3986 section 2.1.
func percentEncoding(b []byte) Reason {
	for {
		i := bytes.IndexByte(b, '%')
		if i < 0 {
			return ReasonNone
		}
		b = b[i+1:]
		if len(b) < 2 || class[b[0]]&class[b[1]]&isHex == 0 {
			return ReasonBadPercentEncoding
		}
		b = b[2:]
	}
}

// parseAbsolute splits a target in absolute form.
// Source: RFC 9112 section 3.2.2, RFC 9110 section 4.2.
func (r *Request) parseAbsolute(t []byte) Reason {
	i := bytes.IndexByte(t, ':')
	if i < 0 || len(t) < i+3 || t[i+1] != '/' || t[i+2] != '/' {
		return ReasonBadTarget
	}
	if !equalFold(t[:i], "http") && !equalFold(t[:i], "https") {
		return ReasonBadScheme
	}
	r.Form = AbsoluteForm
	// The path of a target without one is the first slash of "//".
	slash, rest := t[i+1:i+2], t[i+3:]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	r.Authority = rest[:end]
	if end == 0 || !validHost(r.Authority) {
		return ReasonBadAuthority
	}
	switch rest = rest[end:]; {
	case len(rest) > 0 && rest[0] == '/':
		return r.parsePath(rest)
	case len(rest) > 0:
		r.Path, r.Query = slash, rest[1:]
		return percentEncoding(rest)
	case string(r.Method) == "OPTIONS":
		// RFC 9112 section 3.2.4: what a proxy would have sent as "*".
		r.Form = AsteriskForm
	default:
		r.Path = slash
	}
	return ReasonNone
}

// validHost says whether b is a host with an optional port, or empty.
//
// Stricter than the grammar: a port needs a host before it and is at most
// 65535.
//
// Source: RFC 9110 section 7.2, RFC 3986 sections 3.2.2 and 3.2.3.
func validHost(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] == '[' {
		i := bytes.IndexByte(b, ']')
		return i > 0 && validIPLiteral(b[1:i]) && validPort(b[i+1:])
	}
	i := bytes.IndexByte(b, ':')
	if i < 0 {
		i = len(b)
	}
	return i > 0 && all(b[:i], isHost) && percentEncoding(b[:i]) == ReasonNone && validPort(b[i:])
}

// validPort says whether b is empty, or ':' and a port, which may be empty.
func validPort(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != ':' {
		return false
	}
	port := 0
	for _, c := range b[1:] {
		if c < '0' || c > '9' {
			return false
		}
		if port = port*10 + int(c-'0'); port > 65535 {
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
			if c == '%' || c != ':' && class[c]&isHost == 0 {
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
