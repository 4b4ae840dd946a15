package reactor

import (
	"strconv"

	"baton/httpparse"
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
type environ struct {
	k     *call
	body  int64 // bytes; -1: not known yet
	built bool
	count int
	text  []byte
}

func (e *environ) begin(k *call, body int64) { e.k, e.body, e.built = k, body, false }

// Sizes implements runtime.Environ.
func (e *environ) Sizes() (count, bytes int) {
	if !e.built {
		e.build()
	}
	return e.count, len(e.text)
}

// AppendTo implements runtime.Environ.
func (e *environ) AppendTo(dst []byte) []byte {
	if !e.built {
		e.build()
	}
	return append(dst, e.text...)
}

func (e *environ) build() {
	k := e.k
	r := &k.req
	e.text, e.count = e.text[:0], 0
	host, port := splitHostPort(r.Authority)
	if port == nil {
		port = portDefault
	}
	script, info := k.match.ScriptName, k.match.PathInfo
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
	e.add("X_MATCHED_ROUTE", k.fn.Path())
	e.addBytes("X_RAW_PATH_INFO", info)
	e.addBytes("X_COMPONENT_ROUTE", script)
	e.addBytes("X_RAW_COMPONENT_ROUTE", script)
	e.add("X_BASE_PATH", "/")
	e.open("HTTP_X_REQUEST_ID")
	e.text = append(e.text, k.id[:k.idLen]...)
	e.close()
	for i := range k.match.Params[:k.match.ParamCount] {
		p := &k.match.Params[i]
		e.count++
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
	e.count++
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
	e.count++
	e.text = append(append(e.text, name...), '=')
}

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
