package reactor

import (
	"io"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// What the control plane reads is its one request and nothing behind it, and
// what breaks the framing or is too large ends as an error, before it is read.
func TestControlRequestIsFramed(t *testing.T) {
	t.Parallel()
	head := func(field string) string { return "POST /system/x HTTP/1.1\r\nHost: t\r\n" + field + "\r\n\r\n" }
	length, coded := head("Content-Length: 3"), head("Transfer-Encoding: chunked")
	for _, test := range []struct {
		name, request string
		sees          string // of it
		fails         bool
	}{
		{"no body", get("/system/x"), get("/system/x"), false},
		{"a length", length + "abc", length + "abc", false},
		{"chunked", coded + "3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n", coded + "3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n", false},
		{"a chunk above the limit", coded + "10000001\r\n", "", true},
		{"chunks above the limit", coded + "3\r\nabc\r\nfffffff\r\n", "", true},
		{"a bad chunk", coded + "3\r\nabc\r\nx\r\n", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t, 1, 1)
			for _, cut := range []int{len(test.request), len(test.request) - 1, strings.Index(test.request, "\r\n\r\n") + 4} {
				onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
					c.Send(t, test.request[:cut])
					if cut < len(test.request) {
						p.settle()
					}
					if _, err := io.WriteString(c.Conn, test.request[cut:]+get("/behind")); err != nil && !test.fails {
						t.Fatal(err)
					}
					saw := <-p.controls
					if test.fails {
						if !strings.HasSuffix(saw, " "+errControlBody.Error()) {
							t.Errorf("cut at %d: the control plane saw %q", cut, saw)
						}
						return
					}
					if saw != test.sees+" <nil>" {
						t.Errorf("cut at %d: the control plane saw %q", cut, saw)
					}
					want(t, c.Response(t), 200, "control")
					c.WantEnd(t)
				})
			}
		})
	}
}
