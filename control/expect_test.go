package control

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// RFC 9110 section 10.1.1: whoever waits for 100 before it sends its body gets it
// when the body is going to be read, and otherwise the answer, which is final.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	const form = "Content-Type: multipart/form-data; boundary=b"
	wrong := "Authorization: Bearer " + strings.Repeat("0", 64)
	for _, law := range []struct {
		name, line string
		fields     []string
		body       string // sent after 100 alone; empty: there must be none
		status     int
		reason     string
	}{
		{"no token", "POST /upload", []string{form, "Content-Length: 10"}, "", 401, "token_missing"},
		{"no token, chunked", "POST /upload", []string{form, "Transfer-Encoding: chunked"}, "", 401, "token_missing"},
		{"a wrong token", "POST /upload", []string{form, "Content-Length: 10", wrong}, "", 401, "token_wrong"},
		{"a wrong token, PUT", "PUT /system/functions/f", []string{form, "Content-Length: 10", wrong}, "", 401, "token_wrong"},
		{"a wrong token, invoke", "POST /system/functions/f/invoke", []string{"Content-Length: 10", wrong}, "", 401, "token_wrong"},
		{"two tokens", "POST /upload", []string{form, "Content-Length: 10", authorized, wrong}, "", 400, "bad_request"},
		{"another origin", "POST /upload", []string{form, "Content-Length: 10", authorized, "Origin: http://evil.example"}, "", 403, "cross_origin"},
		{"nothing there", "POST /system/nothing", []string{"Content-Length: 10", authorized}, "", 404, "not_found"},
		{"another method", "POST /system/functions", []string{"Content-Length: 10", authorized}, "", 405, "method_not_allowed"},
		{"too large", "POST /upload", []string{form, "Content-Length: 200000000", authorized}, "", 413, "body_too_large"},
		{"too large, invoke", "POST /system/functions/f/invoke", []string{"Content-Length: 10485761", authorized}, "", 413, "body_too_large"},
		{"too large, rollback", "POST /system/functions/f/rollback", []string{"Content-Length: 1025", authorized}, "", 413, "body_too_large"},
		{"another media type", "POST /upload", []string{"Content-Type: text/plain", "Content-Length: 10", authorized}, "", 415, "unsupported_media_type"},
		{"another media type, PUT", "PUT /system/functions/f", []string{"Content-Type: text/plain", "Content-Length: 10", authorized}, "", 415, "unsupported_media_type"},
		{"a condition that is none", "PUT /system/functions/f", []string{form, "Content-Length: 10", authorized, "If-Match: x"}, "", 400, "bad_request"},
		{"a body that nobody reads", "GET /system/status", []string{"Content-Length: 10", authorized}, "", 200, ""},
		{"a body that nobody reads, HEAD", "HEAD /system/status", []string{"Content-Length: 10", authorized}, "", 200, ""},
		{"no body", "POST /upload", []string{form, "Content-Length: 0", authorized}, "", 400, "bad_upload"},
		{"no length", "POST /upload", []string{form, authorized}, "", 400, "bad_upload"},
		{"the right token", "POST /upload", []string{form, "Content-Length: 10", authorized}, "0123456789", 400, "bad_upload"},
		{"the right token, chunked", "POST /upload", []string{form, "Transfer-Encoding: chunked", authorized}, "1\r\nx\r\n0\r\n\r\n", 400, "bad_upload"},
		{"the right token, invoke", "POST /system/functions/f/invoke", []string{"Content-Length: 10", authorized}, "0123456789", 200, ""},
		{"the right token, PUT", "PUT /system/functions/f", []string{"Content-Type: application/json", "Content-Length: 10", authorized}, "0123456789", 400, "bad_descriptor"},
		{"the right token, rollback", "POST /system/functions/f/rollback", []string{"Content-Length: 10", authorized}, "0123456789", 400, "bad_request"},
	} {
		t.Run(law.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(c *Config) {
				c.Deployer = &desk{}
				c.AdminToken = true
				c.Invoke = func(_ context.Context, i Invocation) (*http.Response, error) {
					return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(i.Body)), ContentLength: int64(len(i.Body))}, nil
				}
			})
			for _, dial := range []func(t *testing.T) net.Conn{s.dialTCP, s.dialAdmin} {
				c := dial(t)
				method, path, _ := strings.Cut(law.line, " ")
				if _, err := io.WriteString(c, request(method, path, append(law.fields, "Expect: 100-continue")...)); err != nil {
					t.Fatal(err)
				}
				if law.body != "" {
					const interim = "HTTP/1.1 100 Continue\r\n\r\n"
					got := make([]byte, len(interim))
					if n, err := io.ReadFull(c, got); err != nil || string(got) != interim {
						t.Fatalf("%q, %v; want 100", got[:n], err)
					}
					if _, err := io.WriteString(c, law.body); err != nil {
						t.Fatal(err)
					}
				}
				a := readAnswer(t, c, method)
				if a.StatusCode != law.status || method != "HEAD" && a.reason() != law.reason {
					t.Errorf("%d %q, want %d %s and nothing before it", a.StatusCode, a.body, law.status, law.reason)
				}
				if strings.HasPrefix(law.name, "the right token, invoke") && a.body != law.body {
					t.Errorf("%q came back, want the body", a.body)
				}
				if !a.Close || !validRequestID(a.Header.Get("X-Request-Id")) {
					t.Errorf("close %v, X-Request-Id %q", a.Close, a.Header.Get("X-Request-Id"))
				}
			}
		})
	}
}

// dialTCP opens a connection that is served as one taken over.
func (s *serving) dialTCP(t *testing.T) net.Conn {
	t.Helper()
	client, server := tcpPair(t)
	if err := s.ServeConn(server); err != nil {
		t.Fatal(err)
	}
	return client
}

// dialAdmin opens a connection to the admin socket.
func (s *serving) dialAdmin(t *testing.T) net.Conn {
	t.Helper()
	address, release, err := unixAddress(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	c, err := net.Dial("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}
