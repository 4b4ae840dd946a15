// Package event makes the HTTP event of a request, payload format 2.0, from its
// variables: what a handler of an interpreted language gets as its argument.
//
// The variables are those that every function gets (CGI/1.1 and WAGI), so that
// an event never says more than they do. It is made here, once and in one pass, because the
// parser of JSON of such a language is several times faster than its own code
// that would take variables apart: RATIONALE.md, "How does a Python handler get its event?".
//
// No goroutines, no locks.
//
// Source: docs.aws.amazon.com, "Create AWS Lambda proxy integrations for HTTP APIs".
package event

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
	"time"

	"baton/internal/jsontext"
	"baton/runtime"
)

// Builder makes events, one at a time. The zero Builder is ready. It keeps its
// buffers from one to the next.
type Builder struct {
	text   []byte // the variables
	names  []byte // header names in lower case
	fields []field
	pairs  []pair
	route  []byte // the route's key
}

// field is a header: its place in names, and its value.
type field struct {
	from, to int
	value    []byte
}

// pair is a parameter, decoded.
type pair struct{ name, value string }

// variables are those of the environment that the event is made of.
type variables struct {
	method, protocol, route, url, query, address, host []byte
	agent, cookie, id                                  []byte
	params                                             [][]byte // NAME=value of X_PARAM_NAME
}

// Append appends the event of env at that time. These members are always there: version ("2.0"),
// routeKey, rawPath, rawQueryString, cookies (a list, empty without any), headers
// (names in lower case, the cookies not among them), queryStringParameters (decoded;
// values of one name are joined by a comma), pathParameters (decoded), requestContext
// (http with method, path, protocol, sourceIp and userAgent; requestId, routeKey, domainName,
// domainPrefix, stage, time, timeEpoch), body and isBase64Encoded. Body is an empty string, and not
// encoded: who has one puts it there.
//
// Bytes that are not UTF-8 become U+FFFD. A nil env gives an event without a request.
func (b *Builder) Append(dst []byte, env runtime.Environ, now time.Time) []byte {
	v := b.read(env)
	path := pathOf(v.url)
	b.route = append(append(append(b.route[:0], v.method...), ' '), v.route...)
	dst = append(dst, `{"version":"2.0","routeKey":`...)
	dst = jsontext.Append(dst, b.route)
	dst = append(dst, `,"rawPath":`...)
	dst = jsontext.Append(dst, path)
	dst = append(dst, `,"rawQueryString":`...)
	dst = jsontext.Append(dst, v.query)
	dst = append(dst, `,"cookies":`...)
	dst = appendCookies(dst, v.cookie)
	dst = append(dst, `,"headers":{`...)
	for i, f := range b.fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(jsontext.Append(dst, b.names[f.from:f.to]), ':')
		dst = jsontext.Append(dst, f.value)
	}
	dst = append(dst, `},"queryStringParameters":`...)
	dst = b.appendQuery(dst, v.query)
	dst = append(dst, `,"pathParameters":`...)
	dst = b.appendParams(dst, v)
	dst = append(dst, `,"requestContext":{"http":{"method":`...)
	dst = jsontext.Append(dst, v.method)
	dst = append(dst, `,"path":`...)
	dst = jsontext.Append(dst, path)
	dst = append(dst, `,"protocol":`...)
	dst = jsontext.Append(dst, v.protocol)
	dst = append(dst, `,"sourceIp":`...)
	dst = jsontext.Append(dst, v.address)
	dst = append(dst, `,"userAgent":`...)
	dst = jsontext.Append(dst, v.agent)
	dst = append(dst, `},"requestId":`...)
	dst = jsontext.Append(dst, v.id)
	dst = append(dst, `,"routeKey":`...)
	dst = jsontext.Append(dst, b.route)
	dst = append(dst, `,"domainName":`...)
	dst = jsontext.Append(dst, v.host)
	prefix, _, _ := bytes.Cut(v.host, dot)
	dst = append(dst, `,"domainPrefix":`...)
	dst = jsontext.Append(dst, prefix)
	dst = append(dst, `,"stage":"$default","time":"`...)
	dst = now.UTC().AppendFormat(dst, "02/Jan/2006:15:04:05 -0700")
	dst = append(dst, `","timeEpoch":`...)
	dst = strconv.AppendInt(dst, now.UnixMilli(), 10)
	return append(dst, `},"body":"","isBase64Encoded":false}`...)
}

var dot = []byte(".")

// read takes the variables apart, and puts the headers into b.
func (b *Builder) read(env runtime.Environ) variables {
	var v variables
	b.text, b.names, b.fields = b.text[:0], b.names[:0], b.fields[:0]
	if env != nil {
		b.text = env.AppendTo(b.text)
	}
	for text := b.text; len(text) > 0; {
		end := bytes.IndexByte(text, 0)
		if end < 0 {
			end = len(text)
		}
		name, value, ok := bytes.Cut(text[:end], equals)
		text = text[min(end+1, len(text)):]
		if !ok {
			continue
		}
		if rest, ok := bytes.CutPrefix(name, http); ok {
			switch string(rest) {
			case "COOKIE":
				v.cookie = value
				continue
			case "USER_AGENT":
				v.agent = value
			case "X_REQUEST_ID":
				v.id = value
			}
			b.addHeader(rest, value)
			continue
		}
		switch string(name) {
		case "REQUEST_METHOD":
			v.method = value
		case "SERVER_PROTOCOL":
			v.protocol = value
		case "SERVER_NAME":
			v.host = value
		case "QUERY_STRING":
			v.query = value
		case "REMOTE_ADDR":
			v.address = value
		case "X_MATCHED_ROUTE":
			v.route = value
		case "X_FULL_URL":
			v.url = value
		case "CONTENT_TYPE", "CONTENT_LENGTH":
			b.addHeader(name, value)
		default:
			if rest, ok := bytes.CutPrefix(name, param); ok {
				v.params = append(v.params, rest, value)
			}
		}
	}
	return v
}

var equals, http, param = []byte("="), []byte("HTTP_"), []byte("X_PARAM_")

// addHeader adds a header by the name of its variable.
func (b *Builder) addHeader(name, value []byte) {
	from := len(b.names)
	for _, c := range name {
		switch {
		case c == '_':
			c = '-'
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		b.names = append(b.names, c)
	}
	b.fields = append(b.fields, field{from, len(b.names), value})
}

// pathOf is the path of a URL with a scheme and an authority, as the client
// has sent it.
func pathOf(url []byte) []byte {
	if i := bytes.Index(url, []byte("://")); i >= 0 {
		url = url[i+3:]
		if i = bytes.IndexByte(url, '/'); i < 0 {
			return nil
		}
		url = url[i:]
	}
	path, _, _ := bytes.Cut(url, []byte("?"))
	return path
}

// appendCookies appends the list of "name=value" in a Cookie field.
func appendCookies(dst, value []byte) []byte {
	dst = append(dst, '[')
	first := true
	for len(value) > 0 {
		var one []byte
		one, value, _ = bytes.Cut(value, []byte(";"))
		if one = bytes.TrimSpace(one); len(one) == 0 {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = jsontext.Append(dst, one)
	}
	return append(dst, ']')
}

// appendQuery appends the parameters of a query. A pair that is wrongly escaped
// stays as it is.
func (b *Builder) appendQuery(dst, query []byte) []byte {
	b.pairs = b.pairs[:0]
	var places map[string]int // of names, once there are many
	for len(query) > 0 {
		var one []byte
		one, query, _ = bytes.Cut(query, []byte("&"))
		if len(one) == 0 {
			continue
		}
		name, value, _ := bytes.Cut(one, equals)
		p := pair{unescape(name), unescape(value)}
		i := b.place(places, p.name)
		if i >= 0 {
			b.pairs[i].value += "," + p.value
			continue
		}
		b.pairs = append(b.pairs, p)
		if places != nil {
			places[p.name] = len(b.pairs) - 1
		} else if len(b.pairs) == scanMax {
			places = make(map[string]int, 4*scanMax)
			for i := range b.pairs {
				places[b.pairs[i].name] = i
			}
		}
	}
	return b.appendPairs(dst)
}

// scanMax is the number of parameters up to which looking at each is faster
// than a map. Above it a query of thousands would cost their square.
const scanMax = 16

// place is where a name stands in b.pairs; -1: nowhere.
func (b *Builder) place(places map[string]int, name string) int {
	if places != nil {
		if i, ok := places[name]; ok {
			return i
		}
		return -1
	}
	for i := range b.pairs {
		if b.pairs[i].name == name {
			return i
		}
	}
	return -1
}

func (b *Builder) appendPairs(dst []byte) []byte {
	dst = append(dst, '{')
	for i, p := range b.pairs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(jsontext.Append(dst, p.name), ':')
		dst = jsontext.Append(dst, p.value)
	}
	return append(dst, '}')
}

func unescape(b []byte) string {
	s := string(b)
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

// appendParams appends the parameters of the path. Their variables come in the
// order of the route and have their names in capitals: the route says how they are spelled.
func (b *Builder) appendParams(dst []byte, v variables) []byte {
	b.pairs = b.pairs[:0]
	route := v.route
	for i := 0; i < len(v.params); i += 2 {
		var name []byte
		_, route, _ = bytes.Cut(route, []byte("{"))
		name, route, _ = bytes.Cut(route, []byte("}"))
		name = bytes.TrimSuffix(name, []byte("..."))
		if len(name) == 0 { // a variable that is no parameter's
			name = bytes.ToLower(v.params[i])
		}
		b.pairs = append(b.pairs, pair{string(name), unescapePath(v.params[i+1])})
	}
	return b.appendPairs(dst)
}

func unescapePath(b []byte) string {
	if bytes.IndexByte(b, '%') < 0 {
		return string(b)
	}
	if plain, err := url.PathUnescape(string(b)); err == nil {
		return plain
	}
	return string(b)
}
