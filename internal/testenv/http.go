package testenv

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// Response is one response, whole.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	Close  bool // the connection ends after it
}

// Conn is one client connection that sends and receives exactly what a test
// says. Each of its operations is bounded by Patience.
type Conn struct {
	net.Conn
	reader *bufio.Reader
}

// Connect opens a connection.
func Connect(addr string) (*Conn, error) {
	c, err := net.DialTimeout("tcp", addr, Patience())
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(Patience())); err != nil {
		c.Close()
		return nil, err
	}
	return &Conn{Conn: c, reader: bufio.NewReader(c)}, nil
}

// Dial opens a connection that is closed when the test ends.
func Dial(t testing.TB, addr string) *Conn {
	t.Helper()
	c, err := Connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Send sends bytes as they are, in one write.
func (c *Conn) Send(t testing.TB, bytes string) {
	t.Helper()
	if err := c.SetWriteDeadline(time.Now().Add(Patience())); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.Conn, bytes); err != nil {
		t.Fatalf("send %.80q: %v", bytes, err)
	}
}

// ReadResponse reads exactly one response to a request of that method. Bytes
// behind it stay for the next call.
func (c *Conn) ReadResponse(method string) (Response, error) {
	if err := c.SetReadDeadline(time.Now().Add(Patience())); err != nil {
		return Response{}, err
	}
	r, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		return Response{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return Response{}, err
	}
	return Response{Status: r.StatusCode, Header: r.Header, Body: body, Close: r.Close}, nil
}

// Response reads one response to a GET or POST, and fails the test when there
// is none.
func (c *Conn) Response(t testing.TB) Response {
	t.Helper()
	r, err := c.ReadResponse(http.MethodGet)
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	return r
}

// WantEnd fails the test unless the connection ends with no further byte.
func (c *Conn) WantEnd(t testing.TB) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(Patience())); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(c.reader)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("wait for the connection's end: %v", err)
	}
	if len(rest) > 0 {
		t.Fatalf("before the end came %.200q", rest)
	}
}

// WantSilence fails the test when a byte or the end comes within d.
func (c *Conn) WantSilence(t testing.TB, d time.Duration) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	if next, err := c.reader.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q (%v), want silence", next, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(Patience())); err != nil {
		t.Fatal(err)
	}
}

// Get is one GET on a connection of its own.
func Get(addr, target string) (Response, error) {
	return Do(addr, "GET "+target+" HTTP/1.1\r\nHost: "+addr+"\r\nConnection: close\r\n\r\n")
}

// Do sends a request as it stands on a connection of its own and reads one
// response.
func Do(addr, request string) (Response, error) {
	c, err := Connect(addr)
	if err != nil {
		return Response{}, err
	}
	defer c.Close()
	if _, err := io.WriteString(c.Conn, request); err != nil {
		return Response{}, err
	}
	return c.ReadResponse(http.MethodGet)
}
