package httpparse

import "testing"

func TestSmoke(t *testing.T) {
	var r Request
	head := "GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nX-Request-Id: abc\r\nContent-Length: 5\r\n\r\n"
	o, n, why := ParseHead(&r, []byte(head+"hello"))
	if o != Complete || n != len(head) || why != 0 || string(r.Path) != "/a" || string(r.Query) != "b=c" ||
		string(r.Authority) != "x:80" || string(r.RequestID) != "abc" || r.ContentLength != 5 || !r.KeepAlive {
		t.Fatal(o, n, why, r)
	}
	for i := range len(head) {
		if o, _, why := ParseHead(&r, []byte(head[:i])); o != Incomplete || why != 0 {
			t.Fatal(i, o, why)
		}
	}
	var c Chunks
	b := []byte("5;a=\"b\" ; c\r\nhello\r\n0\r\nX: y\r\n\r\nGET")
	data, n, o, why := c.Next(b)
	if string(data) != "hello" || o != Incomplete {
		t.Fatal(string(data), n, o, why)
	}
	data, m, o, why := c.Next(b[n:])
	if len(data) != 0 || o != Complete || string(b[n+m:]) != "GET" {
		t.Fatal(string(data), n, o, why)
	}
	var h CGIHead
	if is, n, why := ParseCGI(&h, []byte("Status: 404 Not Found\nX: y\n\nbody")); !is || n != 28 || h.Status != 404 || why != 0 {
		t.Fatal(is, n, why, h.Status)
	}
	if s := AppendDate(nil, 784111777); string(s) != "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n" || len(s) != DateBytes {
		t.Fatal(string(s))
	}
}
