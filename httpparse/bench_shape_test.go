package httpparse

import "testing"

// TestBenchHeads keeps the workloads what their names promise.
func TestBenchHeads(t *testing.T) {
	for i, want := range []struct{ bytes, head, fields int }{{40, 40, 1}, {703, 703, 9}, {0, 0, 8}} {
		request := []byte(benchHeads[i].request)
		var r Request
		o, n, why := ParseHead(&r, request)
		if o != Complete {
			t.Fatalf("%s: %v %v", benchHeads[i].name, o, why)
		}
		if want.bytes == 0 {
			want.bytes, want.head = n+1024, n
		}
		if len(request) != want.bytes || n != want.head || len(r.Fields) != want.fields {
			t.Errorf("%s: %d bytes, head of %d, %d fields; want %v", benchHeads[i].name, len(request), n, len(r.Fields), want)
		}
	}
}
