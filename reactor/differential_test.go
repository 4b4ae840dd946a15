package reactor

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"baton/internal/testenv"
)

// cutsMax bounds the places where one case is cut in two.
const cutsMax = 8

// differing is what two answers to the same request may differ in.
var differing = regexp.MustCompile(`Date: [^\r]*|X-Request-Id: [^\r]*|"requestId":"[^"]*"`)

// The gateway and the worker are one parser and one set of policies: the same
// bytes get the same answers, byte for byte, from either, however they are cut
// on their way, and whatever is pipelined behind them.
func TestGatewayAndWorkerAgree(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Head: testenv.Patience(), Body: testenv.Patience()}, fakes: map[string]*fake{
		"cgi":   text("Status: 404\r\nX-A: b\r\n\r\nbody"),
		"empty": text(""),
	}, handlers: map[string]string{"GET:/get": "cgi"}})
	cases := []string{
		get("/echo"), get("/get"), get("/nowhere"), get("/healthz"), get("/readyz"), get("/absent"), get("/empty"),
		post("/echo", "[1]"), post("/beside", "[1]"), post("/nowhere", "[1]"), post("/get", "[1]"), post("/healthz", "[1]"),
		"HEAD /get HTTP/1.1\r\nHost: t\r\n\r\n", "HEAD /nowhere HTTP/1.1\r\nHost: t\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: t\r\nBad\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n", "OPTIONS /get HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n[1]",
		"POST http://other/echo?q=1 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /function/f-echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /nowhere HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine-1\r\nContent-Length: 3\r\n\r\n[1]",
		chunked + "3\r\n[1]\r\n0\r\n\r\n", chunked + "1;a=b\r\n[\r\n2\r\n1]\r\n0\r\nT: v\r\n\r\n",
		"POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
		"POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n[1]\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000001\r\n\r\n[1]",
		"\r\n" + get("/echo"),
	}
	for i := range refusals {
		if len(refusals[i].request) < 4096 {
			cases = append(cases, refusals[i].request)
		}
	}
	const behind = "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
	for i, request := range cases {
		request += behind
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			var first string
			compare := func(how string, handed bool, parts ...string) {
				t.Helper()
				c := p.connect(t, handed)
				for _, part := range parts {
					if _, err := io.WriteString(c.Conn, part); err != nil {
						break // answered for the last time, and closed
					}
					if len(parts) > 1 {
						p.settle()
					}
				}
				all, err := io.ReadAll(c.Conn)
				if err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Fatalf("%q %s, handed over: %v: %v after %q", request, how, handed, err, all)
				}
				got := differing.ReplaceAllString(string(all), "-")
				// A body that is cut off its head with Expect is asked for.
				got = strings.TrimPrefix(got, string(continueAnswer))
				if first == "" {
					first = got
				}
				if got != first {
					t.Errorf("%q %s, handed over: %v:\n%q\nwant, as whole and fresh,\n%q", request, how, handed, got, first)
				}
				c.Close()
			}
			compare("whole", false, request)
			compare("whole", true, request)
			for _, handed := range []bool{false, true} {
				compare("byte by byte", handed, strings.Split(request, "")...)
			}
			step := max(1, len(request)/cutsMax)
			for at := 1 + i%step; at < len(request); at += step {
				for _, handed := range []bool{false, true} {
					compare(fmt.Sprintf("cut at %d", at), handed, request[:at], request[at:])
				}
			}
		})
	}
}
