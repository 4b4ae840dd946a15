package control

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// tape is a connection that plays a request and keeps the answer.
type tape struct {
	in     *bytes.Reader
	mu     sync.Mutex
	out    bytes.Buffer
	closed chan struct{}
	hangup chan struct{}
}

func (c *tape) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *tape) Write(p []byte) (int, error)      { c.mu.Lock(); defer c.mu.Unlock(); return c.out.Write(p) }
func (c *tape) Close() error                     { close(c.closed); return nil }
func (c *tape) Hangup() <-chan struct{}          { return c.hangup }
func (c *tape) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// FuzzServeConn: whatever bytes a connection carries, it is closed after at most
// one answer, that answer is one, and without the token nothing is told.
func FuzzServeConn(f *testing.F) {
	for _, seed := range []string{
		request("GET", "/"),
		request("GET", "/system/functions"),
		request("GET", "/system/functions", authorized[:40]),
		request("GET", "/system/status", "Cookie: baton_session=0", "Origin: http://baton.example:8080", "Sec-Fetch-Site: same-origin"),
		request("POST", "/upload", "Content-Length: 3") + "abc" + request("GET", "/"),
		request("POST", "/upload", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n",
		request("POST", "/system/stop", "Expect: 100-continue", "Content-Length: 0"),
		request("GET", "/?login=0"),
		request("HEAD", "/metrics", "X-Request-Id: x"),
		request("GET", "http://u:p@x:1/system/%66unctions?a=b#c"),
		"GET /healthz HTTP/1.0\r\n\r\n",
		"\x00\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	w := newWorld()
	s, err := New(Config{Backend: w, Token: testToken})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(b, []byte(testToken)) {
			return
		}
		// A client that has gone waits for no delayed answer.
		c := &tape{in: bytes.NewReader(b), closed: make(chan struct{}), hangup: make(chan struct{})}
		close(c.hangup)
		if err := s.ServeConn(c); err != nil {
			t.Fatal(err)
		}
		<-c.closed
		if n := s.refused[reasonInternal].Load(); n > 0 {
			t.Fatal("the control plane panicked")
		}
		if w.stops.Load() > 0 {
			t.Fatal("the server was stopped without a right")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		answer := c.out.Bytes()
		if bytes.Contains(answer, []byte("POST:/broken")) || bytes.Contains(answer, []byte(`"pid":4711`)) || bytes.Contains(answer, []byte("baton_table_generation")) {
			t.Fatalf("told without the token: %q", answer)
		}
		if len(answer) == 0 {
			if len(bytes.TrimLeft(b, "\r\n")) > 0 && bytes.Contains(b, []byte("\r\n\r\n")) {
				t.Fatalf("no answer to %q", b)
			}
			return
		}
		answer = bytes.TrimPrefix(answer, []byte("HTTP/1.1 100 Continue\r\n\r\n"))
		r := bufio.NewReader(bytes.NewReader(answer))
		method, _, _ := strings.Cut(string(b), " ")
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("answer %q: %v", answer, err)
		}
		if _, err := io.ReadAll(response.Body); err != nil {
			t.Fatalf("answer %q: %v", answer, err)
		}
		if method != "HEAD" && r.Buffered() > 0 {
			t.Fatalf("behind the answer: %q", answer)
		}
		if !response.Close || !validRequestID(response.Header.Get("X-Request-Id")) {
			t.Fatalf("answer %q: want Connection: close and a request id", answer)
		}
	})
}
