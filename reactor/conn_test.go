package reactor

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"baton/httpparse"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/runtime"
)

// text is an executor that writes s.
func text(s string) *fake {
	return &fake{inline: true, run: func(inv *runtime.Invocation) runtime.Result {
		if _, err := io.WriteString(inv.Stdout, s); err != nil {
			return runtime.Result{Reason: runtime.OutputLimit}
		}
		return runtime.Result{}
	}}
}

// gate is an executor whose invocations wait until they are let go or
// cancelled.
type gate struct {
	started   chan struct{}
	open      chan struct{}
	cancelled chan struct{}
}

func newGate() *gate {
	return &gate{started: make(chan struct{}, 100), open: make(chan struct{}), cancelled: make(chan struct{}, 100)}
}

func (g *gate) fake(inline bool) *fake {
	return &fake{inline: inline, run: func(inv *runtime.Invocation) runtime.Result {
		if inv.Promote != nil {
			inv.Promote()
		}
		g.started <- struct{}{}
		look := time.NewTicker(time.Millisecond)
		defer look.Stop()
		for {
			select {
			case <-g.open:
				return echo(inv)
			case <-look.C:
				if inv.Cancel.Load() {
					g.cancelled <- struct{}{}
					return runtime.Result{Reason: runtime.Cancelled}
				}
			}
		}
	}}
}

func TestConnectionPersistence(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	for _, test := range []struct {
		name, request string
		connection    string // of the response
		ends          bool
	}{
		{"RFC 9112 9.3: 1.1 persists", "GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n", "", false},
		{"RFC 9112 9.6: close", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "close", true},
		{"RFC 9110 7.6.1: options are case-insensitive", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: CLOSE\r\n\r\n", "close", true},
		{"RFC 9110 7.6.1: a list", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: foo, , Close ,bar\r\n\r\n", "close", true},
		{"RFC 9110 5.3: two lines are one list", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: foo\r\nConnection: close\r\n\r\n", "close", true},
		{"RFC 9112 9.3: close wins over keep-alive", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, close\r\n\r\n", "close", true},
		{"close is a whole token", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: closed\r\n\r\n", "", false},
		{"RFC 9112 9.3: 1.0 ends", "GET /nowhere HTTP/1.0\r\n\r\n", "close", true},
		{"RFC 9112 9.3: 1.0 with keep-alive persists", "GET /nowhere HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive", false},
		{"a function's answer, 1.1", post("/echo", "[1]"), "", false},
		{"a function's answer, 1.0", "POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\n[1]", "close", true},
		{"a function's answer, 1.0 with keep-alive", "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n[1]", "keep-alive", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, test.request)
				r := c.Response(t)
				// net/http turns "close" into r.Close.
				if got := r.Header.Get("Connection"); got != test.connection && test.connection != "close" || r.Close != test.ends {
					t.Errorf("Connection: %q, close %v, want %q", got, r.Close, test.connection)
				}
				if r.Header.Get("Date") == "" || r.Header.Get("X-Request-Id") == "" || r.Header.Get("Content-Length") == "" {
					t.Errorf("a field is missing: %v", r.Header)
				}
				if test.ends {
					c.WantEnd(t)
					return
				}
				c.Send(t, post("/echo", "[2]"))
				want(t, c.Response(t), 200, "[2]")
			})
		})
	}
}

// Answers without a body have the fields of one that has it, and the next
// answer follows at once.
func TestAnswersWithoutBody(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{
		fakes: map[string]*fake{
			"204":    text("Status: 204\r\n\r\n"),
			"204b":   text("Status: 204\r\n\r\nnot sent"),
			"205":    text("Status: 205\r\n\r\nnot sent"),
			"205b":   writes(false, runtime.Result{}, append([]string{"Status: 205\r\n\r\n"}, repeat(strings.Repeat("not sent", 10_000), 20)...)...),
			"304":    text("Status: 304\r\n\r\nnot sent"),
			"answer": text(`{"a":1}`),
		},
		handlers: map[string]string{"GET:/get": "answer"},
	})
	for _, test := range []struct {
		name, method, path string
		status             int
		length             string
	}{
		{"RFC 9110 9.3.2: HEAD of a function", "HEAD", "/answer", 200, "7"},
		{"HEAD is served by the GET route", "HEAD", "/get", 200, "7"},
		{"HEAD of an error", "HEAD", "/nowhere", 404, "*"},
		{"HEAD of /healthz", "HEAD", "/healthz", 200, "15"},
		{"RFC 9110 15.3.5: 204", "GET", "/204", 204, ""},
		{"204 with a body from the function", "GET", "/204b", 204, ""},
		{"RFC 9110 15.3.6: 205", "GET", "/205", 205, "0"},
		{"205 with a large body from the function", "GET", "/205b", 205, "0"},
		{"205 to HEAD", "HEAD", "/205", 205, "0"},
		{"RFC 9110 15.4.5: 304", "GET", "/304", 304, ""},
		{"RFC 9110 9.3.7: OPTIONS of /readyz", "OPTIONS", "/readyz", 204, ""},
		{"HEAD of 204", "HEAD", "/204", 204, ""},
		{"RFC 9110 9.3.7: OPTIONS *", "OPTIONS", "*", 204, ""},
		{"OPTIONS of a known path", "OPTIONS", "/get", 204, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, test.method+" "+test.path+" HTTP/1.1\r\nHost: t\r\n\r\n"+get("/nowhere"))
				r, err := c.ReadResponse(test.method)
				if err != nil {
					t.Fatal(err)
				}
				got := r.Header.Get("Content-Length")
				if r.Status != test.status || len(r.Body) != 0 || got != test.length && test.length != "*" {
					t.Errorf("status %d, Content-Length %q, %d bytes of body", r.Status, got, len(r.Body))
				}
				want(t, c.Response(t), 404, "route_not_found")
			})
		})
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
		c.Send(t, "OPTIONS /get HTTP/1.1\r\nHost: t\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n"+
			"OPTIONS /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]"+
			"OPTIONS /healthz HTTP/1.1\r\nHost: t\r\n\r\n"+get("/nowhere"))
		if r := c.Response(t); r.Status != 204 || r.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("known path: %d, Allow: %q", r.Status, r.Header.Get("Allow"))
		}
		if r := c.Response(t); r.Status != 204 || r.Header.Get("Allow") == "" {
			t.Errorf("asterisk: %d, Allow: %q", r.Status, r.Header.Get("Allow"))
		}
		want(t, c.Response(t), 200, "[1]") // the function takes OPTIONS itself
		if r := c.Response(t); r.Status != 204 || r.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("/healthz: %d, Allow: %q", r.Status, r.Header.Get("Allow"))
		}
		want(t, c.Response(t), 404, "route_not_found") // none of them has ended the connection
	})
}

// RFC 9110 section 10.1.1: 100 is sent when the body is going to be read.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	head := func(path, field string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: t\r\nExpect: 100-Continue\r\n" + field + "\r\n\r\n"
	}
	for _, test := range []struct {
		name, head, body string
		interim          bool
		status           int
		part             string
	}{
		{"a length", head("/echo", "Content-Length: 3"), "[1]", true, 200, "[1]"},
		{"chunked", head("/echo", "Transfer-Encoding: chunked"), "3\r\n[1]\r\n0\r\n\r\n", true, 200, "[1]"},
		{"no body", head("/echo", "Content-Length: 0"), "", false, 502, "no_output"},
		{"no route", head("/nowhere", "Content-Length: 3"), "", false, 404, "route_not_found"},
		{"too large", head("/echo", "Content-Length: 1000001"), "", false, 413, "body_too_large"},
		{"another method", head("/get", "Content-Length: 3"), "", false, 405, "method_not_allowed"},
		{"RFC 9110 10.1.1: a 1.0 client is not told", "POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", "[1]", false, 200, "[1]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, test.head)
				if test.interim {
					if r := c.Response(t); r.Status != 100 {
						t.Fatalf("interim status %d", r.Status)
					}
				}
				c.Send(t, test.body)
				r := c.Response(t)
				want(t, r, test.status, test.part)
				if test.status >= 404 && test.status < 500 && !r.Close {
					t.Error("the body may come or not, and the connection stays")
				}
			})
		})
	}
	t.Run("a body that is there is not asked for", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, head("/echo", "Content-Length: 3")+"[1]")
			want(t, c.Response(t), 200, "[1]")
		})
	})
}

// RFC 9112 section 9.3.2: in order, also behind one that runs beside the loop.
func TestPipelining(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"gate": g.fake(false), "promoted": g.fake(true)}})
	for _, path := range []string{"/gate", "/promoted"} {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			var all strings.Builder
			all.WriteString(post("/echo", "[0]") + post(path, "[1]") + post("/echo", "[2]") + get("/nowhere"))
			all.WriteString(post("/beside", "[3]") + get("/healthz"))
			all.WriteString("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n2;x=y\r\n4]\r\n0\r\nT: 1\r\n\r\n")
			all.WriteString(post(path, "[5]") + post("/echo", "[6]"))
			c.Send(t, all.String())
			want(t, c.Response(t), 200, "[0]")
			<-g.started
			// More arrives while it runs.
			c.Send(t, post("/echo", "[7]"))
			p.settle()
			other := p.connect(t, true) // the loop serves others
			other.Close()
			g.open <- struct{}{}
			want(t, c.Response(t), 200, "[1]")
			want(t, c.Response(t), 200, "[2]")
			want(t, c.Response(t), 404, "route_not_found")
			want(t, c.Response(t), 200, "[3]")
			want(t, c.Response(t), 200, "ok")
			want(t, c.Response(t), 200, "[4]")
			<-g.started
			g.open <- struct{}{}
			want(t, c.Response(t), 200, "[5]")
			want(t, c.Response(t), 200, "[6]")
			want(t, c.Response(t), 200, "[7]")
		})
	}
}

// refusals has a request for each reason that bytes can give.
var refusals = []struct {
	reason  httpparse.Reason
	request string
}{
	{httpparse.ReasonBadMethod, "G@T / HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonConnect, "CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadRequestLine, "GET  / HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonRequestLineTooLong, "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadTarget, "GET /\"x HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadPercentEncoding, "GET /%zz HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonFragmentInTarget, "GET /#x HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonAsteriskForm, "GET * HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadScheme, "GET ftp://t/ HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonMisdirected, "GET https://t/ HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadAuthority, "GET http://u@t/ HTTP/1.1\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadVersion, "GET / HTTP/1.x\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonUnsupportedVersion, "GET / HTTP/2.0\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBareLF, "GET / HTTP/1.1\r\nHost: t\n\r\n"},
	{httpparse.ReasonBareCR, "GET / HTTP/1.1\r\nHost: t\rx\r\n\r\n"},
	{httpparse.ReasonObsFold, "GET / HTTP/1.1\r\nHost: t\r\n folded\r\n\r\n"},
	{httpparse.ReasonSpaceBeforeColon, "GET / HTTP/1.1\r\nHost : t\r\n\r\n"},
	{httpparse.ReasonMissingColon, "GET / HTTP/1.1\r\nHost: t\r\nNoColon\r\n\r\n"},
	{httpparse.ReasonBadFieldName, "GET / HTTP/1.1\r\nHost: t\r\nA(B: 1\r\n\r\n"},
	{httpparse.ReasonBadFieldValue, "GET / HTTP/1.1\r\nHost: t\r\nA: \x00\r\n\r\n"},
	{httpparse.ReasonTooManyFields, "GET / HTTP/1.1\r\nHost: t\r\n" + strings.Repeat("A: 1\r\n", 100) + "\r\n"},
	{httpparse.ReasonHeadTooLarge, "GET / HTTP/1.1\r\nHost: t\r\nA: " + strings.Repeat("a", 33000) + "\r\n\r\n"},
	{httpparse.ReasonMissingHost, "GET / HTTP/1.1\r\n\r\n"},
	{httpparse.ReasonRepeatedHost, "GET / HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n"},
	{httpparse.ReasonBadHost, "GET / HTTP/1.1\r\nHost: t t\r\n\r\n"},
	{httpparse.ReasonBadContentLength, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: -3\r\n\r\n[1]"},
	{httpparse.ReasonBadContentLength, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\n[1]"},
	{httpparse.ReasonBadContentLength, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 18446744073709551621\r\n\r\n[1]"},
	{httpparse.ReasonRepeatedContentLength, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n[1]"},
	{httpparse.ReasonBadTransferEncoding, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
	{httpparse.ReasonRepeatedTransferEncoding, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{httpparse.ReasonUnsupportedTransferEncoding, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n"},
	{httpparse.ReasonTransferEncodingHTTP10, "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{httpparse.ReasonLengthAndTransferEncoding, "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"},
	{httpparse.ReasonBadConnection, "GET / HTTP/1.1\r\nHost: t\r\nConnection: a b\r\n\r\n"},
	{httpparse.ReasonUnsupportedExpectation, "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 200-ok\r\nContent-Length: 3\r\n\r\n[1]"},
	{httpparse.ReasonBadChunkSize, chunked + "x\r\n[1]\r\n0\r\n\r\n"},
	{httpparse.ReasonBadChunkSize, chunked + "-3\r\n[1]\r\n0\r\n\r\n"},
	{httpparse.ReasonChunkTooLarge, chunked + "ffffffffffffffff\r\n[1]\r\n0\r\n\r\n"},
	{httpparse.ReasonBadChunkExtension, chunked + "3;\x01\r\n[1]\r\n0\r\n\r\n"},
	{httpparse.ReasonChunkLineTooLong, chunked + "3;a=" + strings.Repeat("b", 20000) + "\r\n[1]\r\n0\r\n\r\n"},
	{httpparse.ReasonChunkOverhead, chunked + strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\n1\r\n", 2000) + "0\r\n\r\n"},
	{httpparse.ReasonBadChunkEnd, chunked + "3\r\n[1]x\r\n0\r\n\r\n"},
	{httpparse.ReasonTrailerTooLarge, chunked + "3\r\n[1]\r\n0\r\n" + strings.Repeat("A: "+strings.Repeat("1", 1000)+"\r\n", 40) + "\r\n"},
	{httpparse.ReasonBodyTooLarge, "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000001\r\n\r\n"},
	{httpparse.ReasonBodyTooLarge, strings.Replace(chunked, "/echo", "/sink", 1) + "f4241\r\n" + strings.Repeat("x", 1000001) + "\r\n0\r\n\r\n"},
	{httpparse.ReasonBodyTooLarge, "POST /system/x HTTP/1.1\r\nHost: t\r\nContent-Length: 268435457\r\n\r\nabc"},
	// Before it is read: at the size of a chunk, alone or summed.
	{httpparse.ReasonBodyTooLarge, chunked + "f4241\r\n"},
	{httpparse.ReasonBodyTooLarge, chunked + "3\r\n[1]\r\n7ffffffffffffffe\r\n"},
	{httpparse.ReasonBodyTooLarge, chunked + "186a0\r\n" + strings.Repeat("x", 100000) + "\r\ndbba1\r\n"},
}

const chunked = "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"

// Every refusal has its status, its JSON body and a connection that ends in a
// way that lets the answer through: the client sends half a megabyte behind it
// before it reads.
func TestRefusals(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Linger: testenv.Patience()}})
	seen := map[httpparse.Reason]bool{
		httpparse.ReasonNone: true,
		// Below, in TestTimeouts.
		httpparse.ReasonHeadTimeout: true, httpparse.ReasonBodyTimeout: true,
	}
	for i, test := range refusals {
		seen[test.reason] = true
		t.Run(fmt.Sprintf("%d %s", i, test.reason), func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				wantRefusal(t, c, test.request, test.reason.Status(), test.reason.String())
			})
		})
	}
	for r := range httpparse.ReasonCount {
		if !seen[r] {
			t.Errorf("no request is refused as %s", r)
		}
	}
}

// RFC 9110 section 15.5.6: a path that is served, asked for with another method,
// is a refusal like those of the parser, and says which methods there are.
// Either process says the same, byte for byte.
func TestMethodRefusals(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Linger: testenv.Patience()}, handlers: map[string]string{"GET:/get": "echo", "PUT:/put": "echo"}})
	refused := 0
	for name, fields := range map[string]string{
		"no body":         "\r\n",
		"a length":        "Content-Length: 3\r\n\r\n[1]",
		"a length, later": "Content-Length: 3\r\n\r\n",
		"a large body":    "Content-Length: 500000\r\n\r\n",
		"chunked":         "Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
		"Expect":          "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n",
		"HTTP/1.0":        "Connection: keep-alive\r\n\r\n",
	} {
		for path, allow := range map[string]string{
			"/get": "GET, HEAD, OPTIONS", "/put": "PUT, OPTIONS", "/healthz": "GET, HEAD, OPTIONS", "/readyz": "GET, HEAD, OPTIONS",
		} {
			for _, method := range []string{"POST", "DELETE", "BREW"} {
				t.Run(method+" "+path+", "+name, func(t *testing.T) {
					var first string
					onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
						refused++
						version := "1.1"
						if name == "HTTP/1.0" {
							version = "1.0"
						}
						got := wantRefusal(t, c, method+" "+path+" HTTP/"+version+"\r\nHost: t\r\n"+fields, 405, "method_not_allowed")
						if !strings.Contains(got, "\r\nAllow: "+allow+"\r\n") {
							t.Errorf("want Allow: %s in %q", allow, got)
						}
						if first == "" {
							first = got
						} else if got != first {
							t.Errorf("the worker:\n%q\nthe gateway:\n%q", got, first)
						}
					})
				})
			}
		}
	}
	testenv.Until(t, "each is counted", func() bool { return p.count("method_not_allowed") == uint64(refused) })
}

// wantRefusal sends request and half a megabyte behind it, and reads only then:
// there is one answer, which says status and reason and that the connection ends,
// and the end behind it, no reset. It returns the answer without what differs
// each time.
func wantRefusal(t *testing.T, c *testenv.Conn, request string, status int, reason string) string {
	t.Helper()
	c.Send(t, request+strings.Repeat("still sending\r\n", 40_000))
	all, err := io.ReadAll(c.Conn)
	if err != nil {
		t.Fatalf("%v after %q", err, all)
	}
	from := bufio.NewReader(bytes.NewReader(all))
	r, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatalf("%v in %q", err, all)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil || from.Buffered() > 0 {
		t.Errorf("%v, and %d bytes behind the answer in %q", err, from.Buffered(), all)
	}
	var body struct{ Error, Component, Reason, RequestID string }
	if err := json.Unmarshal(text, &body); err != nil {
		t.Fatalf("%v in %q", err, all)
	}
	if r.StatusCode != status || body.Reason != reason || body.Error == "" || body.Component != "gateway" ||
		body.RequestID != r.Header.Get("X-Request-Id") || !r.Close || r.Header.Get("X-Baton-Error") != "gateway" {
		t.Errorf("want %d, %s: %q", status, reason, all)
	}
	return differing.ReplaceAllString(string(all), "-")
}

// A client that sends its whole body before it looks for an answer is not reset:
// neither its writing fails nor its answer is lost.
func TestRefusedUploadIsTakenToItsEnd(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Linger: testenv.Patience()}})
	const size = 16 << 20
	body := strings.Repeat("x", size)
	for name, head := range map[string]string{
		"a length": fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n", size),
		"chunked":  fmt.Sprintf("%s%x\r\n", chunked, size),
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, head+body)
				want(t, c.Response(t), 413, "body_too_large")
				c.WantEnd(t)
			})
		})
	}
}

// A client that goes on sending for ever does not keep its connection.
func TestRefusedFloodIsCut(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
		block := bytes.Repeat([]byte("x"), 64<<10)
		c.Send(t, "BAD\r\n")
		for sent := 0; ; sent += len(block) {
			if _, err := c.Write(block); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
				}
				return
			}
			if sent > 64<<20 {
				t.Fatal("64 MiB were taken from a client that was refused")
			}
		}
	})
}

// Nor does one that sends a byte now and then.
func TestRefusedTrickleIsCut(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Linger: 200 * time.Millisecond}})
	onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
		c.Send(t, "BAD\r\n")
		want(t, c.Response(t), 400, "bad_request_line")
		every := time.NewTicker(10 * time.Millisecond)
		defer every.Stop()
		for start := time.Now(); time.Since(start) < testenv.Patience(); <-every.C {
			if _, err := c.Write([]byte{'x'}); err != nil {
				return
			}
		}
		t.Error("it is not cut")
	})
}

// RFC 9112 section 9.6: what a client sends on behind its last request does not
// destroy the answer, which a reset would.
func TestLastAnswerIsNotReset(t *testing.T) {
	t.Parallel()
	g := newGate()
	large := repeat(strings.Repeat("[", 100_000), 10)
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"gate": g.fake(false), "promoted": g.fake(true), "large": {
		run: func(inv *runtime.Invocation) runtime.Result {
			g.fake(false).run(inv)
			return writes(false, runtime.Result{}, large...).run(inv)
		},
	}}})
	for _, path := range []string{"/gate", "/promoted", "/large"} {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, "POST "+path+" HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 3\r\n\r\n[1]")
			<-g.started
			c.Send(t, "and more")
			testenv.Until(t, "it has arrived", func() (has bool) {
				b := p.backs[0].back
				_ = b.ask(func() {
					for _, c := range b.conns {
						has = has || c != nil && sys.Unread(c.fd) > 0
					}
				})
				return has
			})
			g.open <- struct{}{}
			want(t, c.Response(t), 200, "[")
			if n, err := c.Conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes, %v; want a plain end", n, err)
			}
			c.Close()
		})
	}
}

// RFC 9112 section 9.6: a client that has ended its sending side gets what it
// asked for.
func TestHalfCloseIsAnswered(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := newPairWith(t, pairOptions{
		fakes:    map[string]*fake{"gate": g.fake(false)},
		timeouts: Timeouts{Probe: 10 * time.Millisecond},
	})
	for _, path := range []string{"/echo", "/beside", "/starts"} {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, post(path, "[1]")+post(path, "[2]"))
			closeWrite(t, c)
			want(t, c.Response(t), 200, "[1]")
			want(t, c.Response(t), 200, "[2]")
			c.WantEnd(t)
		})
	}
	t.Run("a long function: interim responses, then the answer", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, post("/gate", "[1]"))
			closeWrite(t, c)
			<-g.started
			for range 2 {
				if r := c.Response(t); r.Status != 100 {
					t.Fatalf("status %d", r.Status)
				}
			}
			g.open <- struct{}{}
			r := c.Response(t)
			for r.Status == 100 {
				r = c.Response(t)
			}
			want(t, r, 200, "[1]")
			c.WantEnd(t)
		})
	})
	t.Run("RFC 9110 15.2: none for a 1.0 client", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, "POST /gate HTTP/1.0\r\nContent-Length: 3\r\n\r\n[1]")
			closeWrite(t, c)
			<-g.started
			c.WantSilence(t, 5*tickInterval)
			g.open <- struct{}{}
			want(t, c.Response(t), 200, "[1]")
			c.WantEnd(t)
		})
	})
}

func closeWrite(t testing.TB, c *testenv.Conn) {
	t.Helper()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// A client that leaves ends its function, however it leaves.
func TestDisconnectCancels(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := newPairWith(t, pairOptions{
		fakes:    map[string]*fake{"gate": g.fake(false), "promoted": g.fake(true)},
		timeouts: Timeouts{Probe: 10 * time.Millisecond},
	})
	hangups := uint64(0)
	for _, test := range []struct {
		name  string
		leave func(c *net.TCPConn)
	}{
		{"reset", func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }},
		{"close", func(c *net.TCPConn) { _ = c.Close() }},
		{"half-close, then reset", func(c *net.TCPConn) { _ = c.CloseWrite(); p.settle(); _ = c.SetLinger(0); _ = c.Close() }},
	} {
		for _, path := range []string{"/gate", "/promoted"} {
			for _, behind := range []string{"", post("/echo", "[2]"), "POST /echo"} {
				t.Run(test.name+path+fmt.Sprint(len(behind)), func(t *testing.T) {
					onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
						c.Send(t, post(path, "[1]"))
						<-g.started
						c.Send(t, behind)
						test.leave(c.Conn.(*net.TCPConn))
						<-g.cancelled
						hangups++
						if n := p.backs[0].back.counters.Hangups.Load(); n != hangups {
							t.Errorf("%d hang-ups are counted, want %d", n, hangups)
						}
					})
				})
			}
		}
	}
	testenv.Until(t, "all slots are free", func() bool { return p.front.Stats().Retained == 0 })
	if n := p.board.Worker(0).Inflight(); n != 0 {
		t.Errorf("%d requests are counted in flight", n)
	}
}

// Each limit has a pair of processes of its own, in which nothing else is short:
// a busy machine may pause for longer anywhere.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T){
		"head": testHeadTimeouts, "body": testBodyTimeouts, "keep-alive": testIdleTimeouts, "write": testWriteTimeouts,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

func testHeadTimeouts(t *testing.T) {
	const limit = 2 * time.Second
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Head: limit}})
	for name, test := range map[string]func(t *testing.T, c *testenv.Conn){
		"408": func(t *testing.T, c *testenv.Conn) {
			start := time.Now()
			c.Send(t, "GET /echo HTT")
			want(t, c.Response(t), 408, "head_timeout")
			if d := time.Since(start); d < limit-tickInterval {
				t.Errorf("after %v", d)
			}
			c.WantEnd(t)
		},
		"one byte at a time does not move it": func(t *testing.T, c *testenv.Conn) {
			stop := trickle(c, "GET /echo HTTP/1.1\r\nX-Slow: "+strings.Repeat("a", 10_000))
			want(t, c.Response(t), 408, "head_timeout")
			stop()
			c.WantEnd(t)
		},
		"the id and the method of another request do not show": func(t *testing.T, c *testenv.Conn) {
			c.Send(t, "GET /ec")
			p.settle()
			other := p.connect(t, true)
			other.Send(t, "HEAD /nowhere HTTP/1.1\r\nHost: t\r\nX-Request-Id: another\r\n\r\n")
			if r, err := other.ReadResponse("HEAD"); err != nil || r.Status != 404 {
				t.Fatal(r.Status, err)
			}
			other = testenv.Dial(t, p.addr())
			other.Send(t, "HEAD /nowhere HTTP/1.1\r\nHost: t\r\nX-Request-Id: another\r\n\r\n")
			r := c.Response(t)
			want(t, r, 408, "head_timeout")
			if r.Header.Get("X-Request-Id") == "another" {
				t.Error("the answer has another request's id")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, p, test)
		})
	}
}

func testBodyTimeouts(t *testing.T) {
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Body: 400 * time.Millisecond}})
	slow := strings.Repeat("a", 10_000)
	for name, request := range map[string]string{
		"a length":          "POST /sink HTTP/1.1\r\nHost: t\r\nContent-Length: 10000\r\n\r\n",
		"chunked":           strings.Replace(chunked, "/echo", "/sink", 1) + "2710\r\n",
		"a length, streams": "POST /sink HTTP/1.1\r\nHost: t\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("a", 190_000),
		"chunked, streams":  strings.Replace(chunked, "/echo", "/sink", 1) + "30d40\r\n" + strings.Repeat("a", 190_000),
	} {
		t.Run(name+": 408", func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, request+"a")
				want(t, c.Response(t), 408, "body_timeout")
				c.WantEnd(t)
			})
		})
		t.Run(name+": one byte at a time does not move it", func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, request)
				stop := trickle(c, slow)
				want(t, c.Response(t), 408, "body_timeout")
				stop()
				c.WantEnd(t)
			})
		})
	}
	const refused = "POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 10000\r\n\r\n"
	t.Run("of a refused request: no second answer", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, refused+"a")
			want(t, c.Response(t), 404, "route_not_found")
			c.WantEnd(t)
		})
	})
	t.Run("of a refused request: one byte at a time does not move it", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, refused)
			want(t, c.Response(t), 404, "route_not_found")
			stop := trickle(c, slow)
			c.WantEnd(t)
			stop()
		})
	})
}

func testIdleTimeouts(t *testing.T) {
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Head: 2 * time.Second, KeepAlive: 400 * time.Millisecond}})
	t.Run("ends without an answer", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) { c.WantEnd(t) })
	})
	t.Run("an empty line alone is no request", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			_, _ = io.WriteString(c.Conn, "\r\n") // it may be over already
			c.WantEnd(t)
		})
	})
}

func testWriteTimeouts(t *testing.T) {
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Write: 400 * time.Millisecond}, fakes: map[string]*fake{
		"streamed": text("[" + strings.Repeat(" ", 8<<20) + "]"), "whole": text("[" + strings.Repeat(" ", 500_000) + "]"),
	}})
	for _, path := range []string{"/streamed", "/whole"} {
		for name, read := range map[string]func(c *testenv.Conn){
			"a client that does not read":         func(*testenv.Conn) {},
			"one byte at a time does not move it": func(c *testenv.Conn) { _, _ = c.Conn.Read(make([]byte, 1)) },
		} {
			t.Run(path+": "+name, func(t *testing.T) {
				onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
					before := p.backs[0].back.counters.WriteTimeouts.Load()
					c.Send(t, strings.Repeat(get(path), 40))
					testenv.Until(t, "the connection is cut", func() bool {
						read(c)
						return p.backs[0].back.counters.WriteTimeouts.Load() == before+1
					})
				})
			})
		}
	}
}

// trickle sends text a byte at a time, until stop, which waits for that.
func trickle(c *testenv.Conn, text string) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		every := time.NewTicker(20 * time.Millisecond)
		defer every.Stop()
		for _, b := range []byte(text) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			select {
			case <-every.C:
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// A large answer that the client reads late, with a part of the next head
// behind its request.
func TestLargeAnswerThenAHalfHead(t *testing.T) {
	t.Parallel()
	big := "[" + strings.Repeat(" ", 8<<20) + "]"
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"big": text(big)}})
	onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
		next := post("/echo", "[9]")
		c.Send(t, get("/big")+next[:20])
		p.settle()
		if r := c.Response(t); string(r.Body) != big {
			t.Fatalf("%d bytes", len(r.Body))
		}
		c.Send(t, next[20:])
		want(t, c.Response(t), 200, "[9]")
	})
}

// A promotion in the middle of a batch of events must not lose the news that
// there is room for a slow client's answer: both are made to be in one batch.
func TestPromotionKeepsEdges(t *testing.T) {
	t.Parallel()
	g := newGate()
	big := "[" + strings.Repeat(" ", 16<<20) + "]"
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"big": {run: text(big).run}, "promoted": g.fake(true)}})
	back := p.backs[0].back
	reader, runner := p.connect(t, true), p.connect(t, true)
	reader.Send(t, get("/big"))
	testenv.Until(t, "the answer waits for its reader", func() bool {
		waits := false
		_ = back.ask(func() {
			for _, c := range back.conns {
				if c != nil && c.wantWrite {
					f := &c.call.run.flow
					f.mu.Lock()
					waits = !f.kicked && len(f.out) == flowBytesMax
					f.mu.Unlock()
				}
			}
		})
		return waits
	})
	stopped, goOn := make(chan struct{}), make(chan struct{})
	if err := back.post(func() { close(stopped); <-goOn }); err != nil {
		t.Fatal(err)
	}
	<-stopped
	runner.Send(t, post("/promoted", "[1]"))
	// Read what is in the sockets' buffers; then there is room.
	have := 0
	block := make([]byte, 1<<20)
	for {
		_ = reader.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := reader.Conn.Read(block)
		have += n
		if err != nil {
			break
		}
	}
	_ = reader.SetReadDeadline(time.Now().Add(testenv.Patience()))
	close(goOn)
	<-g.started
	for have < len(big) {
		n, err := reader.Conn.Read(block)
		if err != nil {
			t.Fatalf("%d of %d bytes, and then %v", have, len(big), err)
		}
		have += n
	}
	g.open <- struct{}{}
	want(t, runner.Response(t), 200, "[1]")
}

// What a function prints cannot become framing, fields or a second answer.
func TestHostileOutput(t *testing.T) {
	t.Parallel()
	fakes := map[string]*fake{}
	for i, output := range hostile {
		fakes[fmt.Sprint("h", i)] = text(output.output)
	}
	fakes["limit"] = &fake{run: func(inv *runtime.Invocation) runtime.Result {
		block := make([]byte, 1<<20)
		for {
			if _, err := inv.Stdout.Write(block); err != nil {
				if !errors.Is(err, runtime.ErrOutputLimit) {
					return runtime.Result{Reason: runtime.Cancelled}
				}
				return runtime.Result{Reason: runtime.OutputLimit}
			}
		}
	}}
	p := newPairWith(t, pairOptions{fakes: fakes})
	for i, test := range hostile {
		t.Run(test.name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, get(fmt.Sprint("/h", i))+get("/nowhere"))
				r := c.Response(t)
				want(t, r, test.status, test.part)
				if r.Header.Get("Injected") != "" {
					t.Errorf("injected: %v", r.Header)
				}
				want(t, c.Response(t), 404, "route_not_found")
			})
		})
	}
}

var hostile = []struct {
	name, output string
	status       int
	part         string
}{
	{"a bare CR", "Status: 200\r\nX-A: b\rInjected: 1\r\n\r\nbody", 502, "function"},
	{"a NUL", "Status: 200\r\nX-A: b\x00c\r\n\r\nbody", 502, "function"},
	{"its own length", "Status: 200\r\nContent-Length: 1\r\n\r\nbody", 200, "body"},
	{"its own coding", "Status: 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "function"},
	{"its own persistence", "Status: 200\r\nConnection: close\r\n\r\nbody", 502, "function"},
	{"a status line", "HTTP/1.1 200 OK\r\nInjected: 1\r\n\r\nbody", 200, `{"result":"HTTP/1.1 200 OK\r\nInjected`},
	{"an interim status", "Status: 100\r\n\r\nbody", 502, "cgi_bad_status"},
	{"nothing", "", 502, "no_output"},
	{"control bytes in plain output", "a\x00\r\n\r\nb", 200, `{"result":"a\u0000\r\n\r\nb"}`},
}

func TestFailedFunctions(t *testing.T) {
	t.Parallel()
	fakes := map[string]*fake{}
	for r := range runtime.ReasonCount {
		fakes[fmt.Sprint("r", uint8(r))] = &fake{run: func(*runtime.Invocation) runtime.Result {
			return runtime.Result{Reason: r, Exit: 3, Detail: "/secret/path"}
		}}
	}
	p := newPairWith(t, pairOptions{fakes: fakes})
	onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
		for r := range runtime.ReasonCount {
			c.Send(t, get(fmt.Sprint("/r", uint8(r))))
			answer := c.Response(t)
			status, name := r.Status(), r.String()
			switch r {
			case runtime.OK:
				status, name = 502, "no_output"
			case runtime.Cancelled:
				status = 503
			}
			want(t, answer, status, `"reason":"`+name+`"`)
			if bytes.Contains(answer.Body, []byte("secret")) {
				t.Errorf("a detail for the log is in %s", answer.Body)
			}
			if status == 503 && answer.Header.Get("Retry-After") == "" {
				t.Errorf("%s without Retry-After", name)
			}
		}
		c.Send(t, get("/absent"))
		want(t, c.Response(t), 503, "function_not_prepared")
	})
}

// One function beside the loop and max_inflight requests of it.
func TestMaxInflight(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"gate": g.fake(false)}, limits: `,"max_inflight":1`})
	c := p.connect(t, false)
	c.Send(t, post("/gate", "[1]"))
	<-g.started
	for _, request := range []string{post("/gate", "[2]"), chunks("/gate", "[2]", 1)} {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, request+get("/nowhere"))
			r := c.Response(t)
			want(t, r, 429, "capacity_exceeded")
			if r.Header.Get("Retry-After") == "" {
				t.Errorf("429 with %v", r.Header)
			}
			if r.Close {
				c.WantEnd(t)
				return
			}
			want(t, c.Response(t), 404, "route_not_found")
		})
	}
	g.open <- struct{}{}
	want(t, c.Response(t), 200, "[1]")
}

// A function beside the loop sees its own request to its end, whatever the
// loop reads meanwhile.
func TestRequestStaysItsOwn(t *testing.T) {
	t.Parallel()
	g := newGate()
	f := &fake{run: func(inv *runtime.Invocation) runtime.Result {
		g.started <- struct{}{}
		<-g.open
		_, _ = inv.Stdout.Write(append(append([]byte("["), inv.Env.AppendTo(nil)...), inv.Body...))
		return runtime.Result{}
	}}
	p := newPairWith(t, pairOptions{
		fakes:    map[string]*fake{"gate": f},
		handlers: map[string]string{"ANY:/p/{id}/{rest...}": "gate"},
	})
	large := strings.Repeat("b", 100_000)
	for name, request := range map[string]string{
		"body here":    "POST /p/mine/rest/of/it?q=mine HTTP/1.1\r\nHost: mine\r\nX-Mine: mine\r\nContent-Length: 4\r\n\r\nmine",
		"body to come": "POST /p/mine/rest/of/it?q=mine HTTP/1.1\r\nHost: mine\r\nX-Mine: mine\r\nContent-Length: 100000\r\n\r\nmine",
		"chunks":       "POST /p/mine/rest/of/it?q=mine HTTP/1.1\r\nHost: mine\r\nX-Mine: mine\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n",
		"chunks to come": "POST /p/mine/rest/of/it?q=mine HTTP/1.1\r\nHost: mine\r\nX-Mine: mine\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"186a0\r\n" + large + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, request)
				<-g.started
				for range 3 {
					other := p.connect(t, true)
					other.Send(t, "GET /"+strings.Repeat("other/", 400)+" HTTP/1.1\r\nHost: other\r\n\r\n")
					want(t, other.Response(t), 404, "route_not_found")
				}
				g.open <- struct{}{}
				r := c.Response(t)
				for _, part := range []string{
					"PATH_INFO=/rest/of/it\x00", "SCRIPT_NAME=/p/mine\x00", "QUERY_STRING=q=mine\x00", "X_PARAM_ID=mine\x00",
					"HTTP_X_MINE=mine\x00", "SERVER_NAME=mine\x00",
				} {
					want(t, r, 200, part)
				}
				if bytes.Contains(r.Body, []byte("other")) {
					t.Errorf("another request shows: %.500q", r.Body)
				}
				if has := bytes.Contains(r.Body, []byte("\x00CONTENT_LENGTH=")); has == (name == "chunks to come") {
					t.Errorf("CONTENT_LENGTH is there: %v", has)
				}
			})
		})
	}
}
