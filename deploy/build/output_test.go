package build

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// pieces takes a text apart at every place, and byte by byte.
func pieces(text string, f func(parts ...string)) {
	for i := range len(text) + 1 {
		f(text[:i], text[i:])
	}
	f(strings.Split(text, "")...)
}

func TestOutputCutsPaths(t *testing.T) {
	t.Parallel()
	const work = "/data/tmp/build-1"
	text := "in " + work + "/src/a/x.c:1: bad\nfrom " + work + "/src\n" + work + "/" + dirTemp + "/cc1.o: " + work + "\nno end"
	want := "in a/x.c:1: bad\nfrom .\ncc1.o: .\nno end"
	pieces(text, func(parts ...string) {
		var live bytes.Buffer
		o := newOutput(&live, 1000, work)
		for _, part := range parts {
			_, _ = o.Write([]byte(part))
			if s := live.String(); s != "" && !strings.HasSuffix(s, "\n") {
				t.Fatalf("half a line was passed on: %q", s)
			}
		}
		o.flush()
		if live.String() != want || o.String() != want {
			t.Fatalf("got %q, kept %q, want %q", live.String(), o.String(), want)
		}
	})
}

// A line without an end is passed on in parts, none of which begins in a path.
func TestOutputLongLine(t *testing.T) {
	t.Parallel()
	const work = "/data/tmp/build-1"
	for at := lineMax - 100; at < lineMax+100; at += 7 {
		text := strings.Repeat("x", at) + work + "/src/main.c" + strings.Repeat("y", lineMax)
		want := strings.Repeat("x", at) + "main.c" + strings.Repeat("y", lineMax)
		for _, piece := range []int{1000, lineMax} {
			var live bytes.Buffer
			o := newOutput(&live, 1<<20, work)
			for rest := text; rest != ""; {
				n := min(piece, len(rest))
				_, _ = o.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			o.flush()
			if live.String() != want {
				t.Fatalf("at %d in pieces of %d: %q", at, piece, strings.Trim(live.String(), "xy"))
			}
		}
	}
}

func TestOutputExcess(t *testing.T) {
	t.Parallel()
	var live bytes.Buffer
	o := newOutput(&live, 10, "/work")
	ended := 0
	o.onExcess(func() { ended++ })
	for i := range 10 {
		fmt.Fprintf(o, "%d\n", i)
	}
	if !o.over() || ended != 1 || o.String() != "0\n1\n2\n3\n4\n" || live.String() != o.String() {
		t.Errorf("over: %t, ended %d times, kept %q", o.over(), ended, o.String())
	}
	o.onExcess(func() { ended++ })
	if ended != 2 {
		t.Error("who asks later is not told")
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("a /w/src/b\n/w"), uint16(3), uint16(20))
	f.Add([]byte("\xff\xfe\n"), uint16(1), uint16(2))
	f.Fuzz(func(t *testing.T, text []byte, piece, max uint16) {
		var live bytes.Buffer
		o := newOutput(&live, int(max), "/w")
		for rest := text; len(rest) > 0; {
			n := min(int(piece)+1, len(rest))
			_, _ = o.Write(rest[:n])
			rest = rest[n:]
		}
		o.flush()
		if live.String() != o.String() || len(o.String()) > int(max) {
			t.Fatalf("live %q, kept %q, max %d", live.String(), o.String(), max)
		}
		if strings.Contains(o.String(), "/w/src/") {
			t.Fatalf("a path is left: %q", o.String())
		}
	})
}
