package reactor

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"baton/internal/testenv"
	"baton/runtime"
)

// What a function is told of its request, field by field.
func TestEnviron(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"env": {inline: true, run: func(inv *runtime.Invocation) runtime.Result {
		text := inv.Env.AppendTo(nil)
		_, _ = inv.Stdout.Write(append([]byte("[\x00"), text...))
		// What it had for another request makes no difference.
		used := inv.Env.(*environ)
		fresh := environ{k: used.k, body: used.body}
		if want := fresh.AppendTo(nil); !bytes.Equal(text, want) || !slices.Equal(used.Starts(), fresh.Starts()) {
			t.Errorf("%q %v, and %q %v when built anew", text, used.Starts(), want, fresh.Starts())
		}
		var starts []uint32
		for at := 0; at < len(text); at += bytes.IndexByte(text[at:], 0) + 1 {
			starts = append(starts, uint32(at))
		}
		if n, size := used.Sizes(); n != len(starts) || size != len(text) || !slices.Equal(used.Starts(), starts) {
			t.Errorf("%d variables of %d bytes at %v, want %d at %v", n, size, used.Starts(), len(text), starts)
		}
		return runtime.Result{}
	}}}})
	for _, test := range []struct {
		name, request string
		has           map[string]string
		hasNot        []string
	}{
		{"RFC 3875 4.1: origin form", "GET /env?a=b%20c HTTP/1.1\r\nHost: h.example:81\r\nX-A: 1\r\n\r\n", map[string]string{
			"GATEWAY_INTERFACE": "CGI/1.1", "SERVER_NAME": "h.example", "SERVER_PORT": "81", "SERVER_PROTOCOL": "HTTP/1.1",
			"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/env", "PATH_INFO": "", "QUERY_STRING": "a=b%20c", "REMOTE_ADDR": "127.0.0.1",
			"HTTP_HOST": "h.example:81", "HTTP_X_A": "1", "X_FULL_URL": "http://h.example:81/env?a=b%20c",
		}, []string{"CONTENT_LENGTH", "CONTENT_TYPE"}},
		{"RFC 9112 3.2.2: absolute form wins over Host", "GET http://real:82/env HTTP/1.1\r\nhost: ignored:81\r\n\r\n", map[string]string{
			"SERVER_NAME": "real", "SERVER_PORT": "82", "HTTP_HOST": "real:82", "X_FULL_URL": "http://real:82/env",
		}, nil},
		{"HTTP/1.0 without Host", "GET /env HTTP/1.0\r\n\r\n", map[string]string{
			"SERVER_NAME": "", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.0",
		}, []string{"HTTP_HOST"}},
		{"RFC 3875 4.1.2: a body", "POST /env HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc", map[string]string{
			"CONTENT_LENGTH": "3", "CONTENT_TYPE": "a/b",
		}, []string{"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"}},
		{"a chunked body that is here has its length", "POST /env HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", map[string]string{
			"CONTENT_LENGTH": "3",
		}, []string{"HTTP_TRANSFER_ENCODING", "HTTP_X_T"}},
		{"RFC 3875 4.1.18: fields of one name are one", "GET /env HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-b: 2\r\nx-a: 3\r\n\r\n", map[string]string{
			"HTTP_X_A": "1, 3", "HTTP_X_B": "2",
		}, nil},
		{"what stays here", "GET /env HTTP/1.1\r\nHost: h\r\nProxy: p\r\nAuthorization: a\r\nProxy-Authorization: b\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n" +
			"X_A: u\r\nContent_Length: 9\r\n\r\n", nil, []string{
			"HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_CONNECTION", "HTTP_KEEP_ALIVE", "HTTP_X_A",
			"CONTENT_LENGTH", "HTTP_CONTENT_LENGTH",
		}},
		{"the settled request id", "GET /env HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\nX-Request-Id: other\r\n\r\n", map[string]string{
			"HTTP_X_REQUEST_ID": "mine",
		}, nil},
		{"another method", "PUT /env HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", map[string]string{"REQUEST_METHOD": "PUT"}, nil},
		{"another host of that length", "PUT /env HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n", map[string]string{"SERVER_NAME": "g"}, nil},
		{"HTTP/1.0 with that host", "PUT /env HTTP/1.0\r\nHost: g\r\nContent-Length: 0\r\n\r\n", map[string]string{"SERVER_PROTOCOL": "HTTP/1.0"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, test.request)
				got := map[string]string{}
				for _, v := range bytes.Split(c.Response(t).Body, []byte{0})[1:] {
					name, value, _ := bytes.Cut(v, []byte("="))
					if _, twice := got[string(name)]; twice && len(name) > 0 {
						t.Errorf("%s twice", name)
					}
					got[string(name)] = string(value)
				}
				for _, name := range slices.Sorted(maps.Keys(test.has)) {
					if value, ok := got[name]; !ok || value != test.has[name] {
						t.Errorf("%s: %q (%v), want %q", name, value, ok, test.has[name])
					}
				}
				for _, name := range test.hasNot {
					if value, ok := got[name]; ok {
						t.Errorf("%s=%q is told", name, value)
					}
				}
			})
		})
	}
}
