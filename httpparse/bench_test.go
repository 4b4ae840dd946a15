package httpparse

import (
	"bufio"
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// benchHeads are the three workloads of PERFORMANCE.md, "Head": the request of
// a load generator (40 bytes), of a browser with cookies (703 bytes, 9 fields:
// the shape of the request that picohttpparser's benchmark uses, field by
// field), and of an API client (8 fields, 1 KiB of body).
var benchHeads = []struct{ name, request string }{
	{"minimal", "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"},
	{"browser", "" +
		"GET /media/images/2026/03/the-river-in-spring-with-old-mill.jpeg HTTP/1.1\r\n" +
		"Host: photo.example.org\r\n" +
		"User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7; de-DE) AppleWebKit/605.1.15 (KHTML) Version/17.4.1 Safari/605.15\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
		"Accept-Language: de,en-gb;q=0.7,en;q=0.3\r\n" +
		"Accept-Encoding: gzip,deflate\r\n" +
		"Accept-Charset: utf-8,us-ascii;q=0.75,*;q=0.3\r\n" +
		"Keep-Alive: 115\r\n" +
		"Connection: keep-alive\r\n" +
		"Cookie: session=5f0c2a9b7e4d81360fa2; theme=dark; lang=de; consent=analytics.no_marketing.no_functional.yes; " +
		"_seen=1769904000.1769990400.1770076800.1770163200.14; cart=(empty)|currency=eur|source=news.example.net|path=/spring/x|kind=search\r\n" +
		"\r\n"},
	{"post", "" +
		"POST /api/v1/orders HTTP/1.1\r\n" +
		"Host: api.example.com\r\n" +
		"User-Agent: example-client/2.14.0\r\n" +
		"Accept: application/json\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Content-Type: application/json\r\n" +
		"Content-Length: 1024\r\n" +
		"Authorization: Bearer 4f2d8c1b9a7e6053\r\n" +
		"X-Request-Id: 6b1f0c3e-5a72-4d19\r\n" +
		"\r\n" + strings.Repeat("{\"item\":\"pencil\"}", 61)[:1024]},
}

// BenchmarkHead reads one head, all rules checked, beside fasthttp's and
// net/http's parsers of the same bytes, in the same run. Those two read from a
// bufio.Reader, which is how they are used; its reset is part of their time.
// emptyline is what finding the end of the head alone costs.
func BenchmarkHead(b *testing.B) {
	for _, head := range benchHeads {
		request := []byte(head.request)
		b.Run(head.name+"/baton", func(b *testing.B) {
			var r Request
			b.SetBytes(int64(len(request)))
			b.ReportAllocs()
			for b.Loop() {
				if o, _, _ := ParseHead(&r, request); o != Complete {
					b.Fatal(o)
				}
			}
		})
		b.Run(head.name+"/fasthttp", func(b *testing.B) {
			var h fasthttp.RequestHeader
			source := bytes.NewReader(request)
			reader := bufio.NewReader(source)
			b.SetBytes(int64(len(request)))
			b.ReportAllocs()
			for b.Loop() {
				source.Reset(request)
				reader.Reset(source)
				if err := h.Read(reader); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(head.name+"/nethttp", func(b *testing.B) {
			source := bytes.NewReader(request)
			reader := bufio.NewReader(source)
			b.SetBytes(int64(len(request)))
			b.ReportAllocs()
			for b.Loop() {
				source.Reset(request)
				reader.Reset(source)
				if _, err := http.ReadRequest(reader); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(head.name+"/emptyline", func(b *testing.B) {
			b.SetBytes(int64(len(request)))
			for b.Loop() {
				if n := bytes.Index(request, []byte("\r\n\r\n")); n <= 0 {
					b.Fatal(n)
				}
			}
		})
	}
}

// BenchmarkCGI looks for a header block in a function's output.
func BenchmarkCGI(b *testing.B) {
	for _, c := range []struct{ name, output string }{
		{"json", `{"message":"Hello, world","runtime":"wasm"}` + strings.Repeat(" ", 4096)},
		{"text", "Hello, world: this is a text\n" + strings.Repeat("and more of it\n", 100)},
		{"block", "Status: 200 OK\nContent-Type: text/html\nSet-Cookie: a=b\n\n<html>"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var h CGIHead
			output := []byte(c.output)
			b.ReportAllocs()
			for b.Loop() {
				if isBlock, _, _ := ParseCGI(&h, output); isBlock != (c.name == "block") {
					b.Fatal(isBlock)
				}
			}
		})
	}
}

// BenchmarkChunks decodes 64 KiB of data in chunks of one size.
func BenchmarkChunks(b *testing.B) {
	const total = 64 << 10
	for _, size := range []int{16, 1 << 10, 16 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			var body []byte
			for range total / size {
				body = append(AppendChunkSize(body, size), make([]byte, size)...)
				body = append(body, "\r\n"...)
			}
			body = AppendLastChunk(body)
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				var c Chunks
				var o Outcome
				for rest := body; o == Incomplete; {
					var n int
					_, n, o, _ = c.Next(rest)
					rest = rest[n:]
				}
				if o != Complete {
					b.Fatal(o)
				}
			}
		})
	}
}

// BenchmarkResponseHead writes the head of a small response.
func BenchmarkResponseHead(b *testing.B) {
	dst := make([]byte, 0, 512)
	date := AppendDate(nil, 784111777)
	b.ReportAllocs()
	for b.Loop() {
		p := AppendStatusLine(dst, 200)
		p = append(p, date...)
		p = AppendField(p, "X-Request-Id", "6b1f0c3e-5a72-4d19")
		p = AppendField(p, "Content-Type", "application/json")
		p = AppendContentLength(p, 1024)
		if len(p) == 0 {
			b.Fatal("nothing written")
		}
	}
}

// BenchmarkOneMoreByte is what one more byte of a head costs at most: reading
// the longest incomplete head again.
func BenchmarkOneMoreByte(b *testing.B) {
	for _, c := range []struct{ name, value string }{{"ascii", "a"}, {"obs-text", "\xff"}, {"mixed", "a\t"}} {
		b.Run(c.name, func(b *testing.B) {
			head := []byte(get11 + host + "X: " + strings.Repeat(c.value, HeadBytesMax))[:HeadBytesMax-1]
			var r Request
			for b.Loop() {
				if o, _, _ := ParseHead(&r, head); o != Incomplete {
					b.Fatal(o)
				}
			}
		})
	}
}
