package httpparse

import (
	"bytes"
	"reflect"
	"testing"
)

// checkHead compares ParseHead with the oracle on b and checks its contract.
func checkHead(t *testing.T, r *Request, b []byte) verdict {
	t.Helper()
	before := bytes.Clone(b)
	o, n, why := ParseHead(r, b)
	if !bytes.Equal(before, b) {
		t.Fatalf("ParseHead wrote into its input %q", before)
	}
	if (o == Invalid) != (why != ReasonNone) || (o == Complete) != (n > 0) || n > len(b) || n > HeadBytesMax {
		t.Fatalf("ParseHead(%q) = %v %d %v breaks its contract", b, o, n, why)
	}
	got, want := verdictOf(r, o, n, why), oracleHead(b)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("ParseHead(%q)\n     = %+v\noracle %+v", b, got, want)
	}
	if o == Complete {
		checkViews(t, b[:n], r.Method, r.Target, r.Path, r.Query, r.Authority, r.RequestID)
		for _, f := range r.Fields {
			checkViews(t, b[:n], f.Name, f.Value)
			if got := r.Header(string(bytes.ToUpper(f.Name))); got == nil {
				t.Fatalf("Header(%q) is nil in %q", f.Name, b)
			}
		}
	}
	return got
}

// checkViews checks that each view lies in b.
func checkViews(t *testing.T, b []byte, views ...[]byte) {
	t.Helper()
	for _, view := range views {
		if view == nil {
			continue
		}
		// The capacity tells where a view begins, even an empty one.
		from := cap(b) - cap(view)
		if from < 0 || from+len(view) > len(b) || cap(view) > 0 && &b[:cap(b)][from] != &view[:cap(view)][0] {
			t.Fatalf("%q is no view into the input", view)
		}
	}
}

// decodeChunks runs a decoder over the pieces of a body.
func decodeChunks(t *testing.T, pieces ...[]byte) (v chunkVerdict) {
	t.Helper()
	var c Chunks
	for _, b := range pieces {
		for {
			data, n, o, why := c.Next(b)
			if n > len(b) || len(data) > n || (o == Invalid) != (why != ReasonNone) || o != Incomplete && len(data) > 0 {
				t.Fatalf("Next(%q) = %q %d %v %v breaks its contract", b, data, n, o, why)
			}
			v.data += string(data)
			v.n += n
			v.outcome, v.why = o, why
			if o != Incomplete {
				v.declared = c.Declared()
				again, n, o, why := c.Next(b)
				if len(again) > 0 || n > 0 || o != v.outcome || why != v.why {
					t.Fatalf("Next after the end = %q %d %v %v; before, %v %v", again, n, o, why, v.outcome, v.why)
				}
				return v
			}
			b = b[n:]
			if len(b) == 0 {
				break
			}
			if n == 0 {
				t.Fatalf("Next(%q) makes no progress", b)
			}
		}
	}
	v.declared = c.Declared()
	return v
}

func checkChunks(t *testing.T, b []byte) chunkVerdict {
	t.Helper()
	got, want := decodeChunks(t, b), oracleChunks(b)
	if got != want {
		t.Fatalf("Chunks(%q)\n     = %+v\noracle %+v", b, got, want)
	}
	return got
}

func FuzzHead(f *testing.F) {
	for _, c := range headLaws() {
		f.Add([]byte(c.in), uint16(0))
	}
	for _, head := range benchHeads {
		f.Add([]byte(head.request), uint16(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		var r Request
		whole := checkHead(t, &r, b)
		// The verdict on a prefix stands, or there is none yet.
		at := int(cut) % (len(b) + 1)
		if prefix := checkHead(t, &r, b[:at:at]); prefix.outcome != Incomplete && !reflect.DeepEqual(prefix, whole) {
			t.Fatalf("%q cut at %d: %+v, whole: %+v", b, at, prefix, whole)
		}
	})
}

func FuzzChunks(f *testing.F) {
	for _, c := range chunkLaws() {
		f.Add([]byte(c.in), uint16(0), uint16(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut, second uint16) {
		whole := checkChunks(t, b)
		i := int(cut) % (len(b) + 1)
		j := i + int(second)%(len(b)-i+1)
		if pieces := decodeChunks(t, b[:i], b[i:j], b[j:]); pieces != whole {
			t.Fatalf("%q cut at %d and %d: %+v, whole: %+v", b, i, j, pieces, whole)
		}
	})
}

func FuzzCGI(f *testing.F) {
	for _, c := range cgiLaws() {
		f.Add([]byte(c.in), uint16(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) { checkCGI(t, b, int(cut)) })
}

func checkCGI(t *testing.T, b []byte, cut int) cgiVerdict {
	t.Helper()
	var h CGIHead
	isBlock, n, why := ParseCGI(&h, b)
	if why != CGIReasonNone && (!isBlock || n != 0) || n > len(b) || (n > 0) != (isBlock && why == CGIReasonNone) {
		t.Fatalf("ParseCGI(%q) = %v %d %v breaks its contract", b, isBlock, n, why)
	}
	got, want := cgiVerdictOf(&h, isBlock, n, why), oracleCGI(b)
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("ParseCGI(%q)\n     = %+v\noracle %+v", b, got, want)
	}
	if isBlock && why == CGIReasonNone {
		checkViews(t, b[:n], h.ContentType, h.Location)
		for _, f := range h.Fields {
			checkViews(t, b[:n], f.Name, f.Value)
		}
	}
	// A prefix that is decided has the verdict of the whole.
	if at := cut % (len(b) + 1); !CGIUndecided(b[:at]) {
		isBlock, n, why := ParseCGI(&h, b[:at])
		if prefix := cgiVerdictOf(&h, isBlock, n, why); !reflect.DeepEqual(prefix, got) {
			t.Fatalf("%q decided at %d: %+v, whole: %+v", b, at, prefix, got)
		}
	}
	return got
}

// FuzzFieldLine checks that nothing gets into a field line that ends it.
func FuzzFieldLine(f *testing.F) {
	f.Add("X-Name", "value")
	f.Add("X-Name", "a\r\nSet-Cookie: b")
	f.Add("X Name", "a\nb")
	f.Add("", "\x00")
	f.Add("X", "\xff\t")
	f.Fuzz(func(t *testing.T, name, value string) {
		line := AppendField([]byte("before"), name, value)
		if again := AppendFieldBytes([]byte("before"), []byte(name), []byte(value)); !bytes.Equal(line, again) {
			t.Fatalf("AppendFieldBytes %q, AppendField %q", again, line)
		}
		line = line[len("before"):]
		valid := ValidFieldName([]byte(name)) && ValidFieldValue([]byte(value))
		if valid != (len(line) > 0) {
			t.Fatalf("AppendField(%q, %q) = %q", name, value, line)
		}
		if valid && (string(line) != name+": "+value+"\r\n" || bytes.ContainsAny(line[:len(line)-2], "\r\n\x00") ||
			bytes.IndexByte(line, ':') != len(name)) {
			t.Fatalf("AppendField(%q, %q) = %q", name, value, line)
		}
	})
}
