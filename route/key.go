package route

import (
	"fmt"
	"strings"
)

// Bounds of a key's path. A request path has none here: its head is bounded
// by the parser, and no route is longer than these.
const (
	pathBytesMax  = 1024
	segmentsMax   = 32 // of a path with parameters; a plain path has no such bound
	ParamsMax     = 8  // parameters of one route, the trailing {name...} included
	paramBytesMax = 32 // a parameter's name
)

// Methods is a set of request methods.
type Methods uint16

// The methods a key may name. Any stands for every method, also those that
// have no constant here.
const (
	Get Methods = 1 << iota
	Head
	Post
	Put
	Patch
	Delete
	Options
	Any

	methodUnknown Methods = 0
)

const methodList = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, ANY"

// methodNames is in the order of the bits.
var methodNames = [...]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANY"}

func methodNumber(s string) Methods {
	for i, n := range methodNames {
		if n == s {
			return 1 << i
		}
	}
	return methodUnknown
}

// String names the one method in m.
func (m Methods) String() string {
	for i, n := range methodNames {
		if m == 1<<i {
			return n
		}
	}
	return string(m.AppendAllow(nil))
}

// AppendAllow writes the set as the value of an Allow field: "GET, HEAD, POST".
// Who answers GET answers HEAD, and OPTIONS is answered for every known path.
func (m Methods) AppendAllow(dst []byte) []byte {
	if m&Get != 0 {
		m |= Head
	}
	m |= Options
	separator := ""
	for i, n := range methodNames {
		if m&(1<<i) != 0 && Methods(1<<i) != Any {
			dst = append(append(dst, separator...), n...)
			separator = ", "
		}
	}
	return dst
}

// requestMethod reads a request's method; methodUnknown is served by Any only.
func requestMethod(b []byte) Methods {
	switch string(b) {
	case "GET":
		return Get
	case "HEAD":
		return Head
	case "POST":
		return Post
	case "PUT":
		return Put
	case "PATCH":
		return Patch
	case "DELETE":
		return Delete
	case "OPTIONS":
		return Options
	}
	return methodUnknown
}

// splitKey cuts "METHOD:/path" and checks both halves.
func splitKey(key string) (Methods, string, error) {
	method, path, ok := strings.Cut(key, ":")
	if !ok {
		return 0, "", &FieldError{"key", "METHOD:/path", quote(key)}
	}
	m := methodNumber(method)
	if m == methodUnknown {
		return 0, "", &FieldError{"key", "a method of " + methodList, quote(method)}
	}
	if why := checkPattern(path); why != "" {
		return 0, "", &FieldError{"key", why, quote(path)}
	}
	return m, path, nil
}

// checkPattern says what is wrong with a route's path, as the "want" of an
// error; empty when it is a good one. The form is that of Go's net/http:
// `{name}` is one whole non-empty segment, a trailing `{name...}` is the rest
// of the path, which may be empty.
func checkPattern(path string) (want string) {
	if !strings.HasPrefix(path, "/") {
		return "a path that starts with /"
	}
	if len(path) > pathBytesMax {
		return fmt.Sprintf("a path of at most %d bytes", pathBytesMax)
	}
	if Reserved([]byte(path)) != AreaNone {
		return "a path outside the platform's own (/upload, /system, /function, /metrics, /healthz, …)"
	}
	var names [ParamsMax]string
	params, segments, last := 0, 0, false
	for seg := range strings.SplitSeq(path[1:], "/") {
		segments++
		if last {
			return "a {name...} at the end only"
		}
		if dots([]byte(seg)) {
			return "a path without . and .. segments"
		}
		name, kind := parameter(seg)
		switch kind {
		case segmentBad:
			return "{name} or a trailing {name...} as a whole segment"
		case segmentStatic:
			if why := checkSegment(seg); why != "" {
				return why
			}
			continue
		case segmentRest:
			last = true
		}
		if len(name) > paramBytesMax || !validEnvName(name) {
			return "parameter names of 1 to 32 of A-Z a-z 0-9 _, the first no digit"
		}
		if params == ParamsMax {
			return fmt.Sprintf("at most %d parameters", ParamsMax)
		}
		for _, n := range names[:params] {
			if n == name {
				return "parameters of different names"
			}
		}
		names[params] = name
		params++
	}
	if params > 0 && segments > segmentsMax {
		return fmt.Sprintf("at most %d segments in a path with parameters", segmentsMax)
	}
	return ""
}

// checkSegment: what may stand in a request's path may stand in a route's
// (RFC 3986 section 3.3), so a route that can never match is refused. The two
// forms other routers use for parameters are refused with the right one.
func checkSegment(seg string) (want string) {
	if seg == "*" || seg == "**" {
		return "{name...} for the rest of the path, not *"
	}
	if strings.HasPrefix(seg, ":") && len(seg) > 1 {
		return "{name} for a parameter, not :name"
	}
	for i := 0; i < len(seg); i++ {
		switch c := seg[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0:
		case c == '%':
			if len(seg) < i+3 || !isHex(seg[i+1]) || !isHex(seg[i+2]) {
				return "% followed by two hexadecimal digits"
			}
		default:
			return "a path as it is sent: other bytes are written as %XX"
		}
	}
	return ""
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

type segmentKind uint8

const (
	segmentStatic segmentKind = iota
	segmentParam
	segmentRest
	segmentBad
)

// parameter reads one segment of a route's path.
func parameter(seg string) (name string, kind segmentKind) {
	if !strings.ContainsAny(seg, "{}") {
		return "", segmentStatic
	}
	if len(seg) < 3 || seg[0] != '{' || seg[len(seg)-1] != '}' || strings.ContainsAny(seg[1:len(seg)-1], "{}") {
		return "", segmentBad
	}
	name = seg[1 : len(seg)-1]
	if rest, ok := strings.CutSuffix(name, "..."); ok {
		return rest, segmentRest
	}
	return name, segmentParam
}

// dots says whether a segment is `.` or `..`, also when some of it is written
// as %2E (RFC 3986 section 6.2.2: an equivalent form). A parameter or a rest
// never takes one: whoever joins it to a directory would leave that directory.
func dots(seg []byte) bool {
	n := 0
	for i := 0; i < len(seg); n++ {
		switch {
		case n == 2:
			return false
		case seg[i] == '.':
			i++
		case len(seg) >= i+3 && seg[i] == '%' && seg[i+1] == '2' && seg[i+2]|0x20 == 'e':
			i += 3
		default:
			return false
		}
	}
	return n == 1 || n == 2
}

// Area says which part of the platform a path belongs to before any route is
// asked.
type Area uint8

// The areas. Nothing of them can be taken by a route.
const (
	AreaNone     Area = iota // the table's
	AreaHealth               // /healthz, /readyz
	AreaControl              // /upload, /system/…, /metrics, /_/…, /async-function/…, /2018-06-01/…, /2015-03-31/…
	AreaFunction             // /function/<name>…: see FunctionName
)

// Reserved says whose path is: the table is asked only for AreaNone. `/` is
// AreaNone too: it goes to the control plane when Lookup answers NotFound. The
// path is compared as sent, like everything here: `/%73ystem` is nobody's.
//
// Hot: allocates nothing.
func Reserved(path []byte) Area {
	if len(path) < 2 {
		return AreaNone
	}
	switch path[1] {
	case 'h':
		if string(path) == "/healthz" {
			return AreaHealth
		}
	case 'r':
		if string(path) == "/readyz" {
			return AreaHealth
		}
	case 'u':
		if string(path) == "/upload" {
			return AreaControl
		}
	case 'm':
		if string(path) == "/metrics" {
			return AreaControl
		}
	case 's':
		return reservedUnder(path, "/system", AreaControl)
	case '_':
		return reservedUnder(path, "/_", AreaControl)
	case 'a':
		return reservedUnder(path, "/async-function", AreaControl)
	case '2':
		if reservedUnder(path, "/2018-06-01", AreaControl) == AreaControl {
			return AreaControl
		}
		return reservedUnder(path, "/2015-03-31", AreaControl)
	case 'f':
		return reservedUnder(path, "/function", AreaFunction)
	}
	return AreaNone
}

// reservedUnder: folder itself and everything below it.
func reservedUnder(path []byte, folder string, area Area) Area {
	if len(path) < len(folder) || string(path[:len(folder)]) != folder {
		return AreaNone
	}
	if len(path) > len(folder) && path[len(folder)] != '/' {
		return AreaNone
	}
	return area
}

// FunctionName cuts a path of AreaFunction into the function's name and what
// follows it, from the slash on; both are views of path and may be empty.
func FunctionName(path []byte) (name, pathInfo []byte) {
	const folder = "/function/"
	if len(path) < len(folder) {
		return nil, nil
	}
	name = path[len(folder):]
	for i, c := range name {
		if c == '/' {
			return name[:i], name[i:]
		}
	}
	return name, nil
}

// AppendDecoded appends v with its %XX decoded; false when a % is not followed
// by two hexadecimal digits or the result would hold a NUL byte.
func AppendDecoded(dst, v []byte) ([]byte, bool) {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '%' {
			if len(v) < i+3 || !isHex(v[i+1]) || !isHex(v[i+2]) {
				return dst, false
			}
			c = unhex(v[i+1])<<4 | unhex(v[i+2])
			i += 2
		}
		if c == 0 {
			return dst, false
		}
		dst = append(dst, c)
	}
	return dst, true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
