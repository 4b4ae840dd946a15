//go:build !race

package httpparse

import (
	"bytes"
	"testing"
)

// The hot functions allocate nothing. The count is of one call each; a single
// allocation on the head's path would be one for each request served.
func TestAllocations(t *testing.T) {
	var r Request
	var h CGIHead
	heads := make([][]byte, 0, len(benchHeads))
	for _, head := range benchHeads {
		heads = append(heads, []byte(head.request))
	}
	invalid := []byte(get("X : y\r\n"))
	chunked := bytes.Repeat([]byte("5;a=b\r\nhello\r\n"), 10)
	chunked = append(chunked, "0\r\nX: y\r\n\r\n"...)
	block := []byte("Status: 404 Not Found\nSet-Cookie: a=b\n\nbody")
	dst := make([]byte, 0, 1024)
	for name, f := range map[string]func(){
		"ParseHead": func() {
			for _, b := range heads {
				if o, _, _ := ParseHead(&r, b); o != Complete {
					t.Error(o)
				}
			}
		},
		"ParseHead, incomplete": func() { ParseHead(&r, heads[1][:500]) },
		"ParseHead, invalid":    func() { ParseHead(&r, invalid) },
		"Request.Header":        func() { r.Header("cookie") },
		"HeadEnd":               func() { HeadEnd(heads[1], 0) },
		"Chunks.Next": func() {
			var c Chunks
			for b := chunked; ; {
				_, n, o, _ := c.Next(b)
				if b = b[n:]; o == Complete {
					break
				}
			}
		},
		"ParseCGI": func() { ParseCGI(&h, block) },
		"Append": func() {
			b := AppendStatusLine(dst, 200)
			b = AppendDate(b, 784111777)
			b = AppendField(b, "X-Name", "value")
			b = AppendFieldBytes(b, block[:6], block[8:11])
			b = AppendContentLength(b, 1<<40)
			b = AppendChunkSize(b, 1<<20)
			AppendLastChunk(b)
		},
		"Reason": func() { _, _, _ = ReasonBadHost.Status(), ReasonBadHost.String(), ReasonBadHost.Text() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
