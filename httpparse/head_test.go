package httpparse

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// headLaw is one rule. A case with a reason breaks it; one without is accepted
// and has, among the words of describe, those in has.
type headLaw struct {
	name, in string
	why      Reason
	has      string
}

// describe tells what a head means, in words.
func describe(r *Request) string {
	forms := []string{"origin", "absolute", "asterisk"}
	framing := "no-body"
	switch {
	case r.Chunked:
		framing = "chunked"
	case r.ContentLength >= 0:
		framing = fmt.Sprintf("length=%d", r.ContentLength)
	}
	d := fmt.Sprintf("%s %s path=%s query=%s authority=%s 1.%d %s fields=%d id=%s", r.Method, forms[r.Form],
		r.Path, r.Query, r.Authority, r.Minor, framing, len(r.Fields), r.RequestID)
	for _, flag := range []struct {
		on   bool
		word string
	}{
		{r.KeepAlive, "keep"}, {!r.KeepAlive, "close"}, {r.ExpectContinue, "expects"}, {r.Underscores, "underscores"},
		{r.Query != nil, "has-query"}, {r.Query == nil, "no-query"}, {r.Path == nil, "no-path"},
		{r.Authority == nil, "no-authority"},
	} {
		if flag.on {
			d += " " + flag.word
		}
	}
	return d
}

const (
	get11 = "GET / HTTP/1.1\r\n"
	host  = "Host: h\r\n"
	end   = "\r\n"
)

// get is a request with these field lines.
func get(lines ...string) string { return get11 + host + strings.Join(lines, "") + end }

// line is a request with this request line.
func line(s string) string { return s + "\r\n" + host + end }

// hostIs is a request with this Host.
func hostIs(s string) string { return get11 + "Host: " + s + "\r\n" + end }

func headLaws() []headLaw {
	laws := []headLaw{
		{"RFC 9112 3: a request line and its parts", line("GET /a/b?c=d?e HTTP/1.1"), 0,
			"GET origin path=/a/b query=c=d?e has-query authority=h 1.1 no-body keep fields=1 id="},
		{"RFC 9112 2.2: one empty line before the request line is ignored", "\r\n" + get(), 0, "GET path=/"},
		{"RFC 9112 2.2, stricter: a second empty line is not", "\r\n\r\n" + get(), ReasonBadRequestLine, ""},
		{"RFC 9112 2.2, stricter: nor is a bare LF", "\n" + get(), ReasonBareLF, ""},
		{"RFC 9112 2.2: CR without LF before the request line", "\rG" + get(), ReasonBareCR, ""},

		{"RFC 9110 9.1: methods are case-sensitive tokens", line("get / HTTP/1.1"), 0, "get"},
		{"RFC 9110 5.6.2: every tchar may be in a method", line("!#$%&'*+-.^_`|~09AZaz / HTTP/1.1"), 0, "!#$%&'*+-.^_`|~09AZaz"},
		{"RFC 9110 9.1: a method longer than a word", line("VERSION-CONTROL / HTTP/1.1"), 0, "VERSION-CONTROL"},
		{"RFC 9110 9.1: a method that starts like GET", line("GETS / HTTP/1.1"), 0, "GETS"},
		{"RFC 9110 9.1: a method that starts like POST", line("POSTS / HTTP/1.1"), 0, "POSTS"},
		{"RFC 9110 9.1: POST", line("POST / HTTP/1.1"), 0, "POST"},
		{"RFC 9110 9.1: a method that is not a token", line("GE(T / HTTP/1.1"), ReasonBadMethod, ""},
		{"RFC 9110 9.1: a method with a NUL", line("GE\x00T / HTTP/1.1"), ReasonBadMethod, ""},
		{"RFC 9110 9.1: a method that is not ASCII", line("G\xc3\x89T / HTTP/1.1"), ReasonBadMethod, ""},
		{"RFC 9112 3: no method", line(" / HTTP/1.1"), ReasonBadMethod, ""},
		{"RFC 9112 3: HTAB behind the method", line("GET\t/ HTTP/1.1"), ReasonBadMethod, ""},
		{"RFC 9112 3: a TLS handshake", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ReasonBadMethod, ""},
		{"RFC 9112 3: a method alone", line("GET"), ReasonBadRequestLine, ""},
		{"RFC 9112 3: a method alone, LF", "GET\n" + host + end, ReasonBareLF, ""},
		{"RFC 9112 3: two spaces before the target", line("GET  / HTTP/1.1"), ReasonBadRequestLine, ""},
		{"RFC 9112 3: no target", line("GET HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3: no version (HTTP/0.9)", line("GET /"), ReasonBadRequestLine, ""},
		{"RFC 9112 3: no version but its space", line("GET / "), ReasonBadRequestLine, ""},
		{"RFC 9112 3: two spaces before the version", line("GET /  HTTP/1.1"), ReasonBadRequestLine, ""},
		{"RFC 9112 3: HTAB before the version", line("GET /\tHTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3: a space in the target", line("GET /a b HTTP/1.1"), ReasonBadVersion, ""},
		{"RFC 9112 3: a space behind the version", line("GET / HTTP/1.1 "), ReasonBadRequestLine, ""},
		{"RFC 9112 3: HTAB behind the version", line("GET / HTTP/1.1\t"), ReasonBadRequestLine, ""},
		{"RFC 9112 3: more behind the version", line("GET / HTTP/1.1 x"), ReasonBadRequestLine, ""},
		{"RFC 9112 2.2, stricter: the request line ends with LF", "GET / HTTP/1.1\n" + host + end, ReasonBareLF, ""},
		{"RFC 9112 2.2: the request line ends with CR", "GET / HTTP/1.1\r" + host + end, ReasonBareCR, ""},
		{"RFC 9112 2.2: the request line ends with CR CR LF", "GET / HTTP/1.1\r\r\n" + host + end, ReasonBareCR, ""},
		{"RFC 9112 2.2: CR within the target", line("GET /\rx HTTP/1.1"), ReasonBadRequestLine, ""},
		{"RFC 9112 2.2: LF within the target", line("GET /\nx HTTP/1.1"), ReasonBareLF, ""},

		{"RFC 9112 2.3: HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 0, "1.0 close no-authority fields=0"},
		{"RFC 9110 2.5: a higher minor version is read as 1.1", line("GET / HTTP/1.2"), 0, "1.1 keep"},
		{"RFC 9110 2.5: HTTP/1.9 needs a Host like 1.1", "GET / HTTP/1.9\r\n\r\n", ReasonMissingHost, ""},
		{"RFC 9110 15.6.6: HTTP/2.0", line("GET / HTTP/2.0"), ReasonUnsupportedVersion, ""},
		{"RFC 9113 3.4: the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ReasonUnsupportedVersion, ""},
		{"RFC 9112 3.2.4: GET * in HTTP/1.0", "GET * HTTP/1.0\r\n\r\n", ReasonAsteriskForm, ""},
		{"RFC 9110 15.6.6: HTTP/3.0", line("GET / HTTP/3.0"), ReasonUnsupportedVersion, ""},
		{"RFC 9110 15.6.6: HTTP/0.9", line("GET / HTTP/0.9"), ReasonUnsupportedVersion, ""},
		{"RFC 9112 2.3: a version of two digits", line("GET / HTTP/1.10"), ReasonBadVersion, ""},
		{"RFC 9112 2.3: a major version of two digits", line("GET / HTTP/11.1"), ReasonBadVersion, ""},
		{"RFC 9112 2.3: no minor version", line("GET / HTTP/1"), ReasonBadVersion, ""},
		{"RFC 9112 2.3: no minor version behind the dot", line("GET / HTTP/1."), ReasonBadVersion, ""},
		{"RFC 9112 2.3: the name is case-sensitive", line("GET / http/1.1"), ReasonBadVersion, ""},
		{"RFC 9112 2.3: another name", line("GET / HTTPS/1.1"), ReasonBadVersion, ""},
		{"RFC 9112 2.3: a comma for the dot", line("GET / HTTP/1,1"), ReasonBadVersion, ""},
		{"RFC 9112 2.3: a letter for the digit", line("GET / HTTP/1.x"), ReasonBadVersion, ""},

		{"RFC 9112 3.2.1: an empty query is a query", line("GET /? HTTP/1.1"), 0, "path=/ query= has-query"},
		{"RFC 9112 3.2.1: no query", line("GET /a HTTP/1.1"), 0, "no-query"},
		{"RFC 9112 3.2.1: empty segments stay", line("GET //a//../b HTTP/1.1"), 0, "path=//a//../b"},
		{"RFC 3986 3.3: every pchar in a path", line("GET /azAZ09-._~!$&'()*+,;=:@/%aF%00 HTTP/1.1"), 0,
			"path=/azAZ09-._~!$&'()*+,;=:@/%aF%00"},
		{"RFC 3986 3.4: every pchar, '/' and '?' in a query", line("GET /?azAZ09-._~!$&'()*+,;=:@/?%aF HTTP/1.1"), 0,
			"query=azAZ09-._~!$&'()*+,;=:@/?%aF"},
		{"URL Standard: what browsers leave in a query", line("GET /?a[]={b}|c^`\\ HTTP/1.1"), 0, "query=a[]={b}|c^`\\"},
		{"RFC 3986 2.1: percent and one digit", line("GET /%a HTTP/1.1"), ReasonBadPercentEncoding, ""},
		{"RFC 3986 2.1: percent and no digits", line("GET /% HTTP/1.1"), ReasonBadPercentEncoding, ""},
		{"RFC 3986 2.1: percent and other letters", line("GET /%zz HTTP/1.1"), ReasonBadPercentEncoding, ""},
		{"RFC 3986 2.1: percent and one good digit", line("GET /%az HTTP/1.1"), ReasonBadPercentEncoding, ""},
		{"RFC 3986 2.1: percent in a query", line("GET /?%g0 HTTP/1.1"), ReasonBadPercentEncoding, ""},
		{"RFC 3986 2.1: percent behind an encoded byte", line("GET /%25%2 HTTP/1.1"), ReasonBadPercentEncoding, ""},
		{"RFC 9112 3.2: a fragment", line("GET /a#b HTTP/1.1"), ReasonFragmentInTarget, ""},
		{"RFC 9112 3.2: a fragment behind a query", line("GET /a?b#c HTTP/1.1"), ReasonFragmentInTarget, ""},
		{"RFC 9112 3.2: a fragment alone", line("GET # HTTP/1.1"), ReasonFragmentInTarget, ""},
		{"RFC 3986 2: NUL in a target", line("GET /a\x00b HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 2: DEL in a target", line("GET /a\x7fb HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 2: a raw byte from 0x80 on in a path", line("GET /caf\xc3\xa9 HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 2: a raw byte from 0x80 on in a query", line("GET /?\xff HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 3.3: a backslash in a path", line("GET /a\\b HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 3.3: a bracket in a path", line("GET /a[b HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 2: a quote in a query", line("GET /?\"a\" HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 3986 2: an angle bracket in a query", line("GET /?<a> HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3.2: a target that is no form", line("GET a/b HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3.2: a target that is a query", line("GET ?a HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3.2.3: authority form without CONNECT", line("GET h:80 HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9110 9.3.6: CONNECT", line("CONNECT h:80 HTTP/1.1"), ReasonConnect, ""},
		{"RFC 9110 9.3.6: CONNECT with another form", line("CONNECT / HTTP/1.1"), ReasonConnect, ""},
		{"RFC 9110 9.1: connect is another method", line("connect / HTTP/1.1"), 0, "connect"},
		{"RFC 9112 3.2.4: OPTIONS *", line("OPTIONS * HTTP/1.1"), 0, "OPTIONS asterisk no-path no-query authority=h"},
		{"RFC 9112 3.2.4: OPTIONS of a path", line("OPTIONS /a HTTP/1.1"), 0, "OPTIONS origin path=/a"},
		{"RFC 9112 3.2.4: GET *", line("GET * HTTP/1.1"), ReasonAsteriskForm, ""},
		{"RFC 9112 3.2.4: more behind the asterisk", line("OPTIONS *a HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3.2.4: a query behind the asterisk", line("OPTIONS *?a HTTP/1.1"), ReasonBadTarget, ""},

		{"RFC 9112 3.2.2: absolute form", line("GET http://x.example:81/a?b HTTP/1.1"), 0,
			"absolute path=/a query=b authority=x.example:81"},
		{"RFC 9112 3.2.2: http, in any case", line("GET HtTp://x/ HTTP/1.1"), 0, "absolute path=/ authority=x"},
		{"RFC 9110 7.4: https without TLS", line("GET HtTpS://x/ HTTP/1.1"), ReasonMisdirected, ""},
		{"RFC 9110 7.4: https without TLS, OPTIONS *", line("OPTIONS https://x HTTP/1.1"), ReasonMisdirected, ""},
		{"RFC 9110 4.2.3: an empty path is /", line("GET http://x HTTP/1.1"), 0, "absolute path=/ no-query authority=x"},
		{"RFC 9110 4.2.3: an empty path before a query", line("GET http://x?a/b HTTP/1.1"), 0, "path=/ query=a/b authority=x"},
		{"RFC 9112 3.2.4: OPTIONS of an empty path is OPTIONS *", line("OPTIONS http://x HTTP/1.1"), 0,
			"asterisk no-path authority=x"},
		{"RFC 9112 3.2.4: OPTIONS of / is not", line("OPTIONS http://x/ HTTP/1.1"), 0, "absolute path=/"},
		{"RFC 9112 3.2.2: absolute form still needs a Host", "GET http://x/ HTTP/1.1\r\n\r\n", ReasonMissingHost, ""},
		{"RFC 9112 3.2.2: and a valid one", "GET http://x/ HTTP/1.1\r\nHost: a b\r\n\r\n", ReasonBadHost, ""},
		{"RFC 9112 3.2.2: absolute form in HTTP/1.0", "GET http://x/ HTTP/1.0\r\n\r\n", 0, "absolute authority=x 1.0"},
		{"RFC 9112 3.2.2: an IPv6 authority", line("GET http://[::1]:80/ HTTP/1.1"), 0, "authority=[::1]:80"},
		{"RFC 9110 4.2: another scheme", line("GET ftp://x/ HTTP/1.1"), ReasonBadScheme, ""},
		{"RFC 9110 4.2: a scheme without authority", line("GET http:/a HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9110 4.2: a scheme alone", line("GET http: HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9110 4.2: mailto", line("GET mailto:a HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9110 4.2.1: an empty host", line("GET http:///a HTTP/1.1"), ReasonBadAuthority, ""},
		{"RFC 9110 4.2.1: an empty host before a port", line("GET http://:80/a HTTP/1.1"), ReasonBadAuthority, ""},
		{"RFC 9110 4.2.4: userinfo", line("GET http://user@x/ HTTP/1.1"), ReasonBadAuthority, ""},
		{"RFC 9110 4.2.4: userinfo with a password", line("GET http://user:p@x/ HTTP/1.1"), ReasonBadAuthority, ""},
		{"RFC 3986 3.2.3: a port that is no number", line("GET http://x:a/ HTTP/1.1"), ReasonBadAuthority, ""},
		{"RFC 3986 3.2.2: a backslash in the authority", line("GET http://x\\y/ HTTP/1.1"), ReasonBadTarget, ""},
		{"RFC 9112 3.2: a fragment behind the authority", line("GET http://x#a HTTP/1.1"), ReasonFragmentInTarget, ""},
		{"RFC 9112 3.2: a bad path behind the authority", line("GET http://x/% HTTP/1.1"), ReasonBadPercentEncoding, ""},

		{"RFC 9112 5: a field's parts", get("X-A:b\r\n"), 0, "fields=2"},
		{"RFC 9112 5.1: white space around a value is not part of it", get("X-Request-Id: \t  a-b \t \r\n"), 0, "id=a-b"},
		{"RFC 9112 5: an empty value", get("X-Request-Id:\r\n"), 0, "fields=2 id="},
		{"RFC 9112 5: a value of white space", get("X-A: \t \r\n"), 0, "fields=2"},
		{"RFC 9110 5.5: HTAB and obs-text within a value", get("X-A: a\tb\x80\xff\tcaf\xc3\xa9 d\r\n"), 0, "fields=2"},
		{"RFC 9110 5.6.2: every tchar in a name", get("!#$%&'*+-.^_`|~09AZaz: v\r\n"), 0, "fields=2 underscores"},
		{"RFC 9110 5.1: a name with '_' is marked", get("Content_Length: 5\r\n"), 0, "no-body underscores"},
		{"RFC 9110 5.1: a name without is not", get("X-1: a_b\r\n"), 0, "fields=2"},
		{"RFC 9112 5.1: a space before the colon", get("X-A : b\r\n"), ReasonSpaceBeforeColon, ""},
		{"RFC 9112 5.1: HTAB before the colon", get("X-A\t: b\r\n"), ReasonSpaceBeforeColon, ""},
		{"RFC 9112 5.1: a space before Content-Length's colon", get("Content-Length : 5\r\n"), ReasonSpaceBeforeColon, ""},
		{"RFC 9112 5.2: obs-fold", get("X-A: b\r\n c\r\n"), ReasonObsFold, ""},
		{"RFC 9112 5.2: obs-fold with HTAB", get("X-A: b\r\n\tc\r\n"), ReasonObsFold, ""},
		{"RFC 9112 2.2: white space before the first field", get11 + " X: y\r\n" + host + end, ReasonObsFold, ""},
		{"RFC 9112 2.2: a line of white space", get("X-A: b\r\n \r\n"), ReasonObsFold, ""},
		{"RFC 9112 5: no name", get(": b\r\n"), ReasonBadFieldName, ""},
		{"RFC 9112 5: no colon", get("X-A\r\n"), ReasonMissingColon, ""},
		{"RFC 9112 5: a name that is no token", get("X(A): b\r\n"), ReasonBadFieldName, ""},
		{"RFC 9112 5: a name that is not ASCII", get("X-\xc3\x84: b\r\n"), ReasonBadFieldName, ""},
		{"RFC 9112 5: NUL in a name", get("X\x00: b\r\n"), ReasonBadFieldName, ""},
		{"RFC 9112 5: a name in quotes", get("\"X\": b\r\n"), ReasonBadFieldName, ""},
		{"RFC 9110 5.5: NUL in a value", get("X-A: b\x00c\r\n"), ReasonBadFieldValue, ""},
		{"RFC 9110 5.5: a control character in a value", get("X-A: b\x0bc\r\n"), ReasonBadFieldValue, ""},
		{"RFC 9110 5.5: ESC at the start of a value", get("X-A:\x1b\r\n"), ReasonBadFieldValue, ""},
		{"RFC 9110 5.5: DEL in a value", get("X-A: b\x7f\r\n"), ReasonBadFieldValue, ""},
		{"RFC 9112 2.2: bare CR in a value", get("X-A: b\rc\r\n"), ReasonBareCR, ""},
		{"RFC 9112 2.2: CR CR LF behind a value", get("X-A: b\r\r\n"), ReasonBareCR, ""},
		{"RFC 9112 2.2, stricter: bare LF behind a value", get("X-A: b\nX-B: c\r\n"), ReasonBareLF, ""},
		{"RFC 9112 2.2, stricter: bare LF in a name", get("X-A\n: c\r\n"), ReasonBareLF, ""},
		{"RFC 9112 2.2, stricter: the head ends with LF", get11 + host + "\n", ReasonBareLF, ""},
		{"RFC 9112 2.2: the head ends with CR", get11 + host + "\rX", ReasonBareCR, ""},

		{"RFC 9112 3.2: no Host in 1.1", get11 + end, ReasonMissingHost, ""},
		{"RFC 9112 3.2: no Host in 1.0", "GET / HTTP/1.0\r\nX: y\r\n\r\n", 0, "no-authority"},
		{"RFC 9112 3.2: two of them", get(host), ReasonRepeatedHost, ""},
		{"RFC 9112 3.2: two of them in another case", get("HOST: h\r\n"), ReasonRepeatedHost, ""},
		{"RFC 9112 3.2: two of them in 1.0", "GET / HTTP/1.0\r\n" + host + host + end, ReasonRepeatedHost, ""},
		{"RFC 9112 3.3: an empty Host is no authority", hostIs(""), 0, "authority="},
		{"RFC 3986 3.2.2: a name", hostIs("www.Example-1.com"), 0, "authority=www.Example-1.com"},
		{"RFC 3986 3.2.2: a name and a port", hostIs("h:8080"), 0, "authority=h:8080"},
		{"RFC 3986 3.2.3: an empty port", hostIs("h:"), 0, "authority=h:"},
		{"RFC 3986 3.2.3: the highest port", hostIs("h:65535"), 0, "authority=h:65535"},
		{"RFC 3986 3.2.3: leading zeros", hostIs("h:0000000000080"), 0, "authority=h:0000000000080"},
		{"RFC 3986 3.2.2: every character of a name", hostIs("az09-._~!$&'()*+,;=%4A"), 0, "authority=az09-._~!$&'()*+,;=%4A"},
		{"RFC 3986 3.2.2: IPv4", hostIs("127.0.0.1:80"), 0, "authority=127.0.0.1:80"},
		{"RFC 3986 3.2.2: IPv6", hostIs("[2001:db8::1]"), 0, "authority=[2001:db8::1]"},
		{"RFC 3986 3.2.2: IPv6 and a port", hostIs("[::]:80"), 0, "authority=[::]:80"},
		{"RFC 3986 3.2.2: IPvFuture", hostIs("[v1F.a:b]"), 0, "authority=[v1F.a:b]"},
		{"RFC 3986 3.2.3, stricter: no such port", hostIs("h:65536"), ReasonBadHost, ""},
		{"RFC 3986 3.2.3: a port that is no number", hostIs("h:8a"), ReasonBadHost, ""},
		{"RFC 3986 3.2.3: a negative port", hostIs("h:-1"), ReasonBadHost, ""},
		{"RFC 3986 3.2.3: two ports", hostIs("h:1:2"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2, stricter: a port without a host", hostIs(":80"), ReasonBadHost, ""},
		{"RFC 9110 7.2: userinfo", hostIs("user@h"), ReasonBadHost, ""},
		{"RFC 9110 7.2: a path", hostIs("h/a"), ReasonBadHost, ""},
		{"RFC 9110 7.2: a scheme", hostIs("http://h"), ReasonBadHost, ""},
		{"RFC 9110 7.2: a space", hostIs("a b"), ReasonBadHost, ""},
		{"RFC 9110 7.2: HTAB", hostIs("a\tb"), ReasonBadHost, ""},
		{"RFC 9110 7.2: not ASCII", hostIs("h\xc3\xb6st"), ReasonBadHost, ""},
		{"RFC 9110 7.2: a backslash", hostIs("h\\a"), ReasonBadHost, ""},
		{"RFC 3986 2.1: a bad percent", hostIs("h%4"), ReasonBadHost, ""},
		{"RFC 3986 2.1: a bad percent within", hostIs("h%4g.de"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: no closing bracket", hostIs("[::1"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: no opening bracket", hostIs("::1]"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: IPv6 without brackets", hostIs("::1"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: empty brackets", hostIs("[]"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: IPv4 in brackets", hostIs("[127.0.0.1]"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: more behind the brackets", hostIs("[::1]a"), ReasonBadHost, ""},
		{"RFC 3986 3.2.2: brackets behind a name", hostIs("a[::1]"), ReasonBadHost, ""},
		{"RFC 6874: a zone", hostIs("[fe80::1%25eth0]"), ReasonBadHost, ""},

		{"RFC 9112 6.3: no Content-Length and no Transfer-Encoding", get(), 0, "no-body"},
		{"RFC 9112 6.3: Content-Length", get("Content-Length: 5\r\n"), 0, "length=5"},
		{"RFC 9112 6.3: Content-Length in another case", get("cOnTeNt-LeNgTh:5\r\n"), 0, "length=5"},
		{"RFC 9112 6.3: Content-Length of nothing", get("Content-Length: 0\r\n"), 0, "length=0"},
		{"RFC 9110 8.6: leading zeros", get("Content-Length: 0000000000000000000005\r\n"), 0, "length=5"},
		{"RFC 9110 8.6: the largest Content-Length", get("Content-Length: 9223372036854775807\r\n"), 0, "length=9223372036854775807"},
		{"RFC 9110 8.6: one more", get("Content-Length: 9223372036854775808\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: 2^64+5", get("Content-Length: 18446744073709551621\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: far more", get("Content-Length: " + strings.Repeat("9", 400) + "\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: an empty Content-Length", get("Content-Length: \r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: a sign", get("Content-Length: +5\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: a negative sign", get("Content-Length: -5\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: hexadecimal", get("Content-Length: 0x5\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: an underscore", get("Content-Length: 1_0\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: a space within", get("Content-Length: 1 0\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: a fraction", get("Content-Length: 5.0\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6: a list of two values", get("Content-Length: 5, 6\r\n"), ReasonBadContentLength, ""},
		{"RFC 9110 8.6, stricter: a list of one value twice", get("Content-Length: 5, 5\r\n"), ReasonBadContentLength, ""},
		{"RFC 9112 6.3: two different Content-Length", get("Content-Length: 5\r\n", "Content-Length: 6\r\n"), ReasonRepeatedContentLength, ""},
		{"RFC 9112 6.3, stricter: Content-Length twice", get("Content-Length: 5\r\n", "Content-Length: 5\r\n"), ReasonRepeatedContentLength, ""},

		{"RFC 9112 6.1: chunked", get("Transfer-Encoding: chunked\r\n"), 0, "chunked"},
		{"RFC 9112 7: chunked in another case", get("transfer-ENCODING: \tCHUNKED \r\n"), 0, "chunked"},
		{"RFC 9112 6.3: Content-Length with Transfer-Encoding", get("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"), ReasonLengthAndTransferEncoding, ""},
		{"RFC 9112 6.3: Transfer-Encoding with Content-Length", get("Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n"), ReasonLengthAndTransferEncoding, ""},
		{"RFC 9112 6.1: Transfer-Encoding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ReasonTransferEncodingHTTP10, ""},
		{"RFC 9112 6.1: another coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", ReasonTransferEncodingHTTP10, ""},
		{"RFC 9112 6.1: two Transfer-Encoding fields", get("Transfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\n"), ReasonRepeatedTransferEncoding, ""},
		{"RFC 9112 6.1: two Transfer-Encoding fields, one of them identity", get("Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n"), ReasonRepeatedTransferEncoding, ""},
		{"RFC 9112 7.1: chunked twice", get("Transfer-Encoding: chunked, chunked\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 6.3: chunked not last", get("Transfer-Encoding: chunked, gzip\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 6.1: an empty Transfer-Encoding", get("Transfer-Encoding:\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 6.1: an empty element", get("Transfer-Encoding: chunked,\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 6.1: an empty element before", get("Transfer-Encoding: , chunked\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 7: a parameter of chunked", get("Transfer-Encoding: chunked;a=b\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 7: chunked in quotes", get("Transfer-Encoding: \"chunked\"\r\n"), ReasonBadTransferEncoding, ""},
		{"RFC 9112 6.1: chunked behind HTAB and VT", get("Transfer-Encoding: \x0bchunked\r\n"), ReasonBadFieldValue, ""},
		{"RFC 9112 6.1: gzip", get("Transfer-Encoding: gzip\r\n"), ReasonUnsupportedTransferEncoding, ""},
		{"RFC 9112 6.1: gzip before chunked", get("Transfer-Encoding: gzip, chunked\r\n"), ReasonUnsupportedTransferEncoding, ""},
		{"RFC 9112 6.1: a coding with a parameter", get("Transfer-Encoding: x ; a=\"b\", chunked\r\n"), ReasonUnsupportedTransferEncoding, ""},
		{"RFC 9112 6.1: identity, which RFC 7230 abolished", get("Transfer-Encoding: identity\r\n"), ReasonUnsupportedTransferEncoding, ""},
		{"RFC 9112 6.1: xchunked", get("Transfer-Encoding: xchunked\r\n"), ReasonUnsupportedTransferEncoding, ""},
		{"pitfall of CGI: Transfer_Encoding is no Transfer-Encoding", get("Transfer_Encoding: chunked\r\n"), 0, "no-body underscores"},

		{"RFC 9112 9.3: 1.1 stays", get(), 0, "keep"},
		{"RFC 9112 9.6: close", get("Connection: close\r\n"), 0, "close"},
		{"RFC 9110 7.6.1: in any case", get("CONNECTION: ClOsE\r\n"), 0, "close"},
		{"RFC 9110 7.6.1: in a list", get("Connection: te , CLOSE, upgrade\r\n"), 0, "close"},
		{"RFC 9110 7.6.1: in a second field", get("Connection: te\r\n", "Connection: close\r\n"), 0, "close"},
		{"RFC 9110 5.6.1: empty elements", get("Connection: ,, close ,\r\n"), 0, "close"},
		{"RFC 9110 7.6.1: an empty field", get("Connection: \r\n"), 0, "keep"},
		{"RFC 9110 7.6.1: an option that only contains close", get("Connection: closed, not-close\r\n"), 0, "keep"},
		{"RFC 9112 9.3: keep-alive in 1.1", get("Connection: keep-alive\r\n"), 0, "keep"},
		{"RFC 9112 9.3: keep-alive in 1.0", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 0, "keep"},
		{"RFC 9112 9.3: keep-alive in a list in 1.0", "GET / HTTP/1.0\r\nConnection: te,keep-alive\r\n\r\n", 0, "keep"},
		{"RFC 9112 9.3: 1.0 ends", "GET / HTTP/1.0\r\n\r\n", 0, "close"},
		{"RFC 9112 9.3: close wins", get("Connection: keep-alive, close\r\n"), 0, "close"},
		{"RFC 9112 9.3: close wins in 1.0", "GET / HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n", 0, "close"},
		{"RFC 9110 7.6.1: an option that is no token", get("Connection: close; x\r\n"), ReasonBadConnection, ""},
		{"RFC 9110 7.6.1: two options without a comma", get("Connection: close te\r\n"), ReasonBadConnection, ""},

		{"RFC 9110 10.1.1: 100-continue", get("Expect: 100-continue\r\n"), 0, "expects"},
		{"RFC 9110 10.1.1: in any case", get("EXPECT: 100-Continue\r\n"), 0, "expects"},
		{"RFC 9110 10.1.1: ignored in 1.0", "GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", 0, "1.0"},
		{"RFC 9110 10.1.1: another expectation", get("Expect: 200-ok\r\n"), ReasonUnsupportedExpectation, ""},
		{"RFC 9110 10.1.1: one more expectation", get("Expect: 100-continue, x\r\n"), ReasonUnsupportedExpectation, ""},
		{"RFC 9110 10.1.1: an empty one", get("Expect:\r\n"), ReasonUnsupportedExpectation, ""},

		{"design: a request id is taken over", get("x-request-ID: aZ09._-\r\n"), 0, "id=aZ09._-"},
		{"design: 128 bytes of it", get("X-Request-Id: " + strings.Repeat("a", 128) + "\r\n"), 0, "id=" + strings.Repeat("a", 128)},
		{"design: not 129", get("X-Request-Id: " + strings.Repeat("a", 129) + "\r\n"), 0, "id= fields=2"},
		{"design: not other characters", get("X-Request-Id: a b\r\n"), 0, "id= fields=2"},
		{"design: the first one counts", get("X-Request-Id: a\r\n", "X-Request-Id: b\r\n"), 0, "id=a"},
		{"design: the first one counts, even when it is not taken", get("X-Request-Id: ?\r\n", "X-Request-Id: b\r\n"), 0, "id="},
		{"design: a name that only looks like it", get("X-Request_Id: a\r\n"), 0, "id= underscores"},
	}
	return laws
}

// headLimits are the laws about sizes: too long for every split.
func headLimits() []headLaw {
	const rest = " HTTP/1.1"
	path := func(n int) string { return "GET /" + strings.Repeat("a", n-len("GET /")-len(rest)) + rest }
	fields := func(n int) string { return strings.Repeat("X: y\r\n", n) }
	fill := func(n int) string {
		return get("X: " + strings.Repeat("a", n-len(get("X: \r\n"))) + "\r\n")
	}
	return []headLaw{
		{"RFC 9112 3: the longest request line", line(path(RequestLineBytesMax)), 0, "GET"},
		{"RFC 9112 3: the longest request line behind an empty line", "\r\n" + line(path(RequestLineBytesMax)), 0, "GET"},
		{"RFC 9110 15.5.15: one byte more", line(path(RequestLineBytesMax + 1)), ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: one byte more behind an empty line", "\r\n" + line(path(RequestLineBytesMax+1)), ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: a target without end", "GET /" + strings.Repeat("a", RequestLineBytesMax), ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: a method without end", strings.Repeat("A", RequestLineBytesMax+2), ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: a scheme without end", "GET " + strings.Repeat("a", RequestLineBytesMax), ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: an authority without end", "GET http://" + strings.Repeat("a", RequestLineBytesMax), ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: a query that ends with a percent", "GET /?" + strings.Repeat("a", RequestLineBytesMax-5) + "%", ReasonRequestLineTooLong, ""},
		{"RFC 9110 15.5.15: a bad byte within the limit comes first", "GET /\x00" + strings.Repeat("a", RequestLineBytesMax), ReasonBadTarget, ""},
		{"RFC 6585 5: the largest number of fields", get(fields(FieldsMax - 1)), 0, fmt.Sprintf("fields=%d", FieldsMax)},
		{"RFC 6585 5: one more", get(fields(FieldsMax)), ReasonTooManyFields, ""},
		{"RFC 6585 5: the largest head", fill(HeadBytesMax), 0, "GET"},
		{"RFC 6585 5: one byte more", fill(HeadBytesMax + 1), ReasonHeadTooLarge, ""},
		{"RFC 6585 5: the largest head behind an empty line", "\r\n" + fill(HeadBytesMax-2), 0, "GET"},
		{"RFC 6585 5: one byte more behind an empty line", "\r\n" + fill(HeadBytesMax-1), ReasonHeadTooLarge, ""},
		{"RFC 6585 5: a value without end", get11 + "X: " + strings.Repeat("a", HeadBytesMax), ReasonHeadTooLarge, ""},
		{"RFC 6585 5: a name without end", get11 + strings.Repeat("a", HeadBytesMax), ReasonHeadTooLarge, ""},
		{"RFC 6585 5: a bad byte within the limit comes first", get11 + "X: \x00" + strings.Repeat("a", HeadBytesMax), ReasonBadFieldValue, ""},
	}
}

// checkLaw runs one case against the law, the oracle and the contract.
func checkLaw(t *testing.T, c headLaw) {
	t.Helper()
	var r Request
	v := checkHead(t, &r, []byte(c.in))
	switch {
	case c.why != ReasonNone:
		if v.outcome != Invalid || v.why != c.why {
			t.Fatalf("%v %v, want %v", v.outcome, v.why, c.why)
		}
	case v.outcome != Complete || v.n != len(c.in):
		t.Fatalf("%v %v, %d of %d bytes", v.outcome, v.why, v.n, len(c.in))
	default:
		words := strings.Split(describe(&r), " ")
		for want := range strings.SplitSeq(c.has, " ") {
			if !contains(words, want) {
				t.Fatalf("no %q in %q", want, words)
			}
		}
		if !strings.Contains(c.has, "underscores") && r.Underscores {
			t.Fatal("marked as having underscores")
		}
		if r.ExpectContinue != strings.Contains(c.has, "expects") {
			t.Fatal("ExpectContinue", r.ExpectContinue)
		}
	}
}

func contains(words []string, want string) bool {
	for _, word := range words {
		if word == want {
			return true
		}
	}
	return false
}

func TestHeadLaws(t *testing.T) {
	t.Parallel()
	for _, c := range append(headLaws(), headLimits()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkLaw(t, c)
		})
	}
}

// Every law holds wherever the input is cut, and whatever follows it: a prefix
// is Incomplete or has the whole's verdict already, at the byte where the
// oracle is sure; and the next request's bytes are left alone.
func TestHeadEverySplit(t *testing.T) {
	t.Parallel()
	const next = "DELETE /next HTTP/1.1\r\nHost: other\r\n\r\n"
	for _, c := range headLaws() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var r Request
			b := []byte(c.in + next)
			whole := checkHead(t, &r, b)
			if c.why == ReasonNone {
				if whole.n != len(c.in) {
					t.Fatalf("%d bytes of %d, the next request behind them", whole.n, len(c.in))
				}
				checkLaw(t, headLaw{c.name, next, 0, "DELETE path=/next authority=other fields=1 no-body keep id="})
			}
			for i := range b {
				// The capacity ends with the prefix: reading beyond it panics.
				prefix := checkHead(t, &r, b[:i:i])
				if prefix.outcome != Incomplete && !reflect.DeepEqual(prefix, whole) {
					t.Fatalf("cut at %d: %+v, whole: %+v", i, prefix, whole)
				}
			}
		})
	}
}

// A limit is met at the same byte, whatever arrives with it.
func TestHeadLimitsAtTheirByte(t *testing.T) {
	t.Parallel()
	for _, c := range headLimits() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var r Request
			b := []byte(c.in)
			whole := checkHead(t, &r, b)
			for _, around := range []int{RequestLineBytesMax, HeadBytesMax, len(b)} {
				for i := max(0, around-3); i < min(len(b), around+4); i++ {
					prefix := checkHead(t, &r, b[:i:i])
					if prefix.outcome != Incomplete && !reflect.DeepEqual(prefix, whole) {
						t.Fatalf("cut at %d: %+v, whole: %+v", i, prefix, whole)
					}
				}
			}
		})
	}
}

// A Request that was used for another head says nothing of that.
func TestRequestIsReset(t *testing.T) {
	t.Parallel()
	var used, fresh Request
	full := []byte("POST http://x/a?b HTTP/1.0\r\nHost: y\r\nX_Y: z\r\nX-Request-Id: i\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n")
	for _, c := range headLaws() {
		ParseHead(&used, full)
		got := checkHead(t, &used, []byte(c.in))
		fresh = Request{}
		if want := checkHead(t, &fresh, []byte(c.in)); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: %+v after another head, %+v afresh", c.name, got, want)
		}
	}
}

// Every single byte at every place of a head: the oracle agrees.
func TestHeadEveryByteEverywhere(t *testing.T) {
	t.Parallel()
	base := []byte("GET /a?b HTTP/1.1\r\nHost: h:80\r\nExpect: 100-continue\r\nConnection: close\r\n" +
		"X-Request-Id: a\r\nContent-Length: 7\r\n\r\n")
	var r Request
	for i := range base {
		b := bytes.Clone(base)
		for c := range 256 {
			b[i] = byte(c)
			checkHead(t, &r, b)
		}
		checkHead(t, &r, append(bytes.Clone(base[:i]), base[i+1:]...))
		checkHead(t, &r, append(append(bytes.Clone(base[:i]), base[i]), base[i:]...))
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	var r Request
	ParseHead(&r, []byte(get("X-A: 1\r\n", "x-a: 2\r\n", "X@B:\r\n")))
	ParseHead(&r, []byte(get("X-A: 1\r\n", "x-a: 2\r\n", "X-Empty:\r\n", "X-^: 3\r\n")))
	for name, want := range map[string]string{"X-A": "1", "x-a": "1", "X-EMPTY": "", "host": "h", "x-^": "3"} {
		if got := r.Header(name); got == nil || string(got) != want {
			t.Errorf("Header(%q) = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"", "X", "X-B", "X-~", "X-AA"} {
		if got := r.Header(name); got != nil {
			t.Errorf("Header(%q) = %q", name, got)
		}
	}
}

func TestHeadEnd(t *testing.T) {
	t.Parallel()
	b := []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\nnext\r\n\r\n")
	end := bytes.Index(b, []byte("\r\n\r\n")) + 4
	for from := range b {
		want := end
		if from >= end {
			want = len(b)
		}
		if got := HeadEnd(b, from); got != want {
			t.Errorf("HeadEnd(b, %d) = %d, want %d", from, got, want)
		}
	}
	for i := range end {
		if got := HeadEnd(b[:i], 0); got != -1 {
			t.Errorf("HeadEnd(b[:%d], 0) = %d", i, got)
		}
	}
}
