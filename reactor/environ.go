package reactor

import (
	"bytes"
	"strconv"

	"baton/httpparse"
	"baton/route"
)

// environ gives a request's variables to a function that asks for them, and is
// built at the first question: CGI/1.1 (RFC 3875 section 4.1) and WAGI.
//
// Values come from the client. What a client sends as a field reaches the
// function as HTTP_*, with these exceptions: Authorization and Proxy-
// Authorization (RFC 3875 section 9.2), Connection and what it governs (they
// are ours), Proxy ("httpoxy": HTTP_PROXY means something else to programs),
// Host beside an absolute target, whose authority counts instead of it (RFC 9112
// section 3.2.2), and every field whose name has an underscore, which would be
// indistinguishable from one with a hyphen.
//
// What a request has in common with the one before it, which is often all of its
// route and its host, comes first in text and is left as it is.
type environ struct {
	k      *call
	body   int64 // bytes; -1: not known yet
	built  bool
	text   []byte
	starts []uint32 // of the variables in text
	common common
}

// common is what of an environment depends on a route and a host alone, and what they were.
type common struct {
	function                  *route.Function // nil: of none
	minor                     uint8
	method, script, authority []byte // copies
	bytes, count              int    // of text and starts
}

func (e *environ) begin(k *call, body int64) { e.k, e.body, e.built = k, body, false }

// Sizes implements runtime.Environ.
func (e *environ) Sizes() (count, bytes int) {
	if !e.built {
		e.build()
	}
	return len(e.starts), len(e.text)
}

// AppendTo implements runtime.Environ.
func (e *environ) AppendTo(dst []byte) []byte {
	if !e.built {
		e.build()
	}
	return append(dst, e.text...)
}

// Starts implements runtime.Environ.
func (e *environ) Starts() []uint32 {
	if !e.built {
		e.build()
	}
	return e.starts
}

// buildCommon begins text with what depends on the route and the host alone.
func (e *environ) buildCommon() {
	k, c := e.k, &e.common
	r, script := &k.req, k.match.ScriptName
	if c.function == k.fn && c.minor == r.Minor && bytes.Equal(c.script, script) && bytes.Equal(c.authority, r.Authority) && bytes.Equal(c.method, r.Method) {
		e.text, e.starts = e.text[:c.bytes], e.starts[:c.count]
		return
	}
	e.text, e.starts = e.text[:0], e.starts[:0]
	host, port := splitHostPort(r.Authority)
	if port == nil {
		port = portDefault
	}
	e.add("GATEWAY_INTERFACE", "CGI/1.1")
	e.add("SERVER_SOFTWARE", "baton")
	e.addBytes("SERVER_NAME", host)
	e.addBytes("SERVER_PORT", port)
	if r.Minor == 0 {
		e.add("SERVER_PROTOCOL", "HTTP/1.0")
	} else {
		e.add("SERVER_PROTOCOL", "HTTP/1.1")
	}
	e.addBytes("REQUEST_METHOD", r.Method)
	e.addBytes("SCRIPT_NAME", script)
	e.add("X_MATCHED_ROUTE", k.fn.Path())
	e.addBytes("X_COMPONENT_ROUTE", script)
	e.addBytes("X_RAW_COMPONENT_ROUTE", script)
	e.add("X_BASE_PATH", "/")
	c.function, c.minor = k.fn, r.Minor
	c.script, c.authority, c.method = append(c.script[:0], script...), append(c.authority[:0], r.Authority...), append(c.method[:0], r.Method...)
	c.bytes, c.count = len(e.text), len(e.starts)
}

func (e *environ) build() {
	e.buildCommon()
	k := e.k
	r, info := &k.req, k.match.PathInfo
	e.addBytes("PATH_INFO", info)
	e.addBytes("QUERY_STRING", r.Query)
	e.open("REMOTE_ADDR")
	at := len(e.text)
	e.text = k.conn.peer.AppendIP(e.text)
	ip := e.text[at:]
	e.close()
	e.addBytes("REMOTE_HOST", ip)
	e.open("X_CLIENT_ADDR")
	e.text = k.conn.peer.AppendPort(e.text, ip)
	e.close()
	if e.body > 0 || r.ContentLength >= 0 {
		e.open("CONTENT_LENGTH")
		e.text = strconv.AppendInt(e.text, e.body, 10)
		e.close()
	}
	e.open("X_FULL_URL")
	e.text = append(append(append(e.text, "http://"...), r.Authority...), r.Path...)
	if len(r.Query) > 0 {
		e.text = append(append(e.text, '?'), r.Query...)
	}
	e.close()
	e.addBytes("X_RAW_PATH_INFO", info)
	e.open("HTTP_X_REQUEST_ID")
	e.text = append(e.text, k.id[:k.idLen]...)
	e.close()
	for i := range k.match.Params[:k.match.ParamCount] {
		p := &k.match.Params[i]
		e.start()
		e.text = append(e.text, "X_PARAM_"...)
		e.appendName(p.Name)
		e.text = append(append(e.text, '='), p.Value...)
		e.close()
	}
	for i := range r.Fields {
		e.addField(r.Fields, i)
	}
	e.built = true
}

var portDefault = []byte("80")

// addField adds field i as HTTP_*, with the values of later fields of the same
// name behind it (RFC 3875 section 4.1.18), unless it is one that stays here.
func (e *environ) addField(fields []httpparse.Field, i int) {
	name := fields[i].Name
	switch len(name) {
	case len("Host"):
		if e.k.req.Form == httpparse.AbsoluteForm && equalFold(name, "host") {
			e.addBytes("HTTP_HOST", e.k.req.Authority)
			return
		}
	case len("Proxy"):
		if equalFold(name, "proxy") {
			return
		}
	case len("Connection"):
		if equalFold(name, "connection") || equalFold(name, "keep-alive") {
			return
		}
	case len("Content-Type"):
		if equalFold(name, "content-type") {
			e.addBytes("CONTENT_TYPE", fields[i].Value)
			return
		}
		if equalFold(name, "x-request-id") {
			return // the settled one is there already
		}
	case len("Authorization"):
		if equalFold(name, "authorization") {
			return
		}
	case len("Content-Length"):
		if equalFold(name, "content-length") {
			return
		}
	case len("Transfer-Encoding"):
		if equalFold(name, "transfer-encoding") {
			return
		}
	case len("Proxy-Authorization"):
		if equalFold(name, "proxy-authorization") {
			return
		}
	}
	for _, b := range name {
		if b == '_' {
			return
		}
	}
	for j := range i {
		if len(fields[j].Name) == len(name) && equalFold(fields[j].Name, string(name)) {
			return // joined there
		}
	}
	e.start()
	e.text = append(e.text, "HTTP_"...)
	e.appendName(string(name))
	e.text = append(append(e.text, '='), fields[i].Value...)
	for j := i + 1; j < len(fields); j++ {
		if len(fields[j].Name) == len(name) && equalFold(fields[j].Name, string(name)) {
			e.text = append(append(e.text, ", "...), fields[j].Value...)
		}
	}
	e.close()
}

func (e *environ) add(name, value string) {
	e.open(name)
	e.text = append(e.text, value...)
	e.close()
}

func (e *environ) addBytes(name string, value []byte) {
	e.open(name)
	e.text = append(e.text, value...)
	e.close()
}

func (e *environ) open(name string) {
	e.start()
	e.text = append(append(e.text, name...), '=')
}

func (e *environ) start() { e.starts = append(e.starts, uint32(len(e.text))) }

func (e *environ) close() { e.text = append(e.text, 0) }

// appendName appends a field name the way CGI spells it.
func (e *environ) appendName(name string) {
	for i := range len(name) {
		b := name[i]
		switch {
		case 'a' <= b && b <= 'z':
			b -= 'a' - 'A'
		case 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		default:
			b = '_'
		}
		e.text = append(e.text, b)
	}
}

// splitHostPort splits an authority that the parser has validated.
func splitHostPort(a []byte) (host, port []byte) {
	for i := len(a) - 1; i >= 0; i-- {
		switch a[i] {
		case ':':
			return a[:i], a[i+1:]
		case ']':
			return a, nil
		}
	}
	return a, nil
}

// equalFold compares name with the lower-case ASCII string or other bytes.
func equalFold(name []byte, s string) bool {
	if len(name) != len(s) {
		return false
	}
	for i := range name {
		a, b := name[i], s[i]
		if 'A' <= a && a <= 'Z' {
			a += 'a' - 'A'
		}
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if a != b {
			return false
		}
	}
	return true
}
