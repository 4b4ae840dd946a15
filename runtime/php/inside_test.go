package php

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/runtime"
	"baton/runtime/child"
)

// A stream of records is the same however it is cut.
func TestRecordsAtEverySplit(t *testing.T) {
	t.Parallel()
	stream := []byte{1, 6, 0, 1, 0, 5, 3, 0, 'h', 'e', 'l', 'l', 'o', 0, 0, 0, 1, 7, 0, 1, 0, 2, 0, 0, 'l', 'g'}
	stream = append(stream, 1, 6, 0, 1, 0, 0, 0, 0, 1, 3, 0, 1, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9)
	read := func(pieces ...[]byte) (out, log string, ends int) {
		var r records
		for _, b := range pieces {
			for {
				kind, piece, n, err := r.next(b)
				if err != nil {
					t.Fatal(err)
				}
				b = b[n:]
				switch kind {
				case recordStdout:
					out += string(piece)
				case recordStderr:
					log += string(piece)
				case recordEnd:
					ends += len(piece)
				}
				if kind == 0 {
					break
				}
			}
			if len(b) > 0 {
				t.Fatalf("%d bytes are left", len(b))
			}
		}
		if r.have != 0 || r.content != 0 || r.padding != 0 {
			t.Fatalf("not at a record's start: %+v", r)
		}
		return out, log, ends
	}
	for i := range stream {
		if out, log, ends := read(stream[:i], stream[i:]); out != "hello" || log != "lg" || ends != 8 {
			t.Errorf("cut at %d: %q, %q, %d", i, out, log, ends)
		}
	}
	var bytewise [][]byte
	for i := range stream {
		bytewise = append(bytewise, stream[i:i+1])
	}
	if out, log, ends := read(bytewise...); out != "hello" || log != "lg" || ends != 8 {
		t.Errorf("byte by byte: %q, %q, %d", out, log, ends)
	}
	var r records
	if _, _, _, err := r.next([]byte("Status: 200")); err == nil {
		t.Error("what is no record is taken for one")
	}
}

// What is sent is what the specification says, also where it does not fit one record.
func TestRequestRecords(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("v", 3*contentMax)
	b := appendBegin(nil)
	b = append(b, make([]byte, recordBytes)...)
	at := len(b)
	b = appendParam(b, "LONG", long)
	b = appendParam(b, "A", "b")
	b = closeParams(b, at)
	b = appendRecord(appendStream(b, recordStdin, []byte(long)), recordStdin, 0)
	var r records
	got := map[byte][]byte{}
	for {
		kind, piece, n, err := r.next(b)
		if err != nil {
			t.Fatal(err)
		}
		if kind == 0 {
			break
		}
		got[kind] = append(got[kind], piece...)
		b = b[n:]
	}
	if want := "\x04\x80\x02\xff\xe8LONG" + long + "\x01\x01Ab"; string(got[recordParams]) != want {
		t.Errorf("%d bytes of params, %.20q, want %d, %.20q", len(got[recordParams]), got[recordParams], len(want), want)
	}
	if string(got[recordStdin]) != long || !bytes.Equal(got[recordBegin], []byte{0, 1, 1, 0, 0, 0, 0, 0}) {
		t.Errorf("%d bytes of body, begin %v", len(got[recordStdin]), got[recordBegin])
	}
}

func TestRepliesAtEverySplit(t *testing.T) {
	t.Parallel()
	stream := []byte("D\x03\x00\x00\x00abcE\x00\x00\x00\x00D\x01\x00\x00\x00xE\x02\x00\x00\x00yz")
	for i := range stream {
		var r replies
		var got string
		for _, b := range [][]byte{stream[:i], stream[i:]} {
			for len(b) > 0 {
				kind, piece, whole, n := r.next(b)
				b = b[n:]
				got += string(piece)
				if kind == kindEnd && whole {
					got += "."
				}
			}
		}
		if got != "abc.xyz." {
			t.Errorf("cut at %d: %q", i, got)
		}
	}
}

// The header block is given on when the script has said something, however it is cut.
func TestAnswerAtEverySplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, out string }{
		{"\r\nhello", "hello"},
		{"\r\n", ""},
		{"\r\n\r\n\r\nx", "\r\n\r\nx"},
		{"Status: 404 Not Found\r\n\r\nx", "Status: 404 Not Found\r\n" + typeDefault + "\r\nx"},
		{"X-A: 1\r\n\r\n[1]", "X-A: 1\r\n" + typeJSON + "\r\n[1]"},
		{"content-type: a/b\r\n\r\n{}\r\n\r\n", "content-type: a/b\r\n\r\n{}\r\n\r\n"},
		{"Location: /x\r\n\r\n", "Location: /x\r\n\r\n"},
		{"X-Content-Type: a/b\r\n\r\nx", "X-Content-Type: a/b\r\n" + typeDefault + "\r\nx"},
	} {
		for i := range len(c.in) + 1 {
			var out bytes.Buffer
			var a answer
			var p child.Process
			inv := &runtime.Invocation{Stdout: &out}
			for _, piece := range []string{c.in[:i], c.in[i:]} {
				if piece == "" {
					continue
				}
				if err := a.write(&p, inv, []byte(piece)); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.end(&p, inv); err != nil || out.String() != c.out {
				t.Errorf("%q cut at %d: %q, %v; want %q", c.in, i, out.String(), err, c.out)
			}
		}
	}
	var a answer
	var p child.Process
	if err := a.write(&p, &runtime.Invocation{Stdout: &bytes.Buffer{}}, []byte("X: "+strings.Repeat("x", headMax))); !errors.Is(err, errHead) {
		t.Errorf("an endless header block: %v", err)
	}
}

func TestExits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want bool
	}{
		{`exit;`, false}, {`exit ;`, false}, {`die();`, false}, {`exit ( ) ;`, false}, {`exit(0);`, false}, {`exit( 0 );`, false}, {`die("text");`, false}, {`exit('text' . $x);`, false},
		{`exit ?>`, false}, {`$exited(3)`, false}, {`no`, false}, {`if ($x) exit; else die('x');`, false},
		{`exit(3);`, true}, {`die($x);`, true}, {`EXIT(1)`, true}, {`exit (01);`, true}, {`exit(f())`, true}, {`exit/**/(3)`, true}, {`$f = 'exit'; $f(3)`, true}, {"exit(\n3)", true}, {`exit(0 + 3)`, true}, {`x or exit(-1)`, true},
	} {
		if got := exits([]byte("<?php " + c.text)); got != c.want {
			t.Errorf("%s: %v, want %v", c.text, got, c.want)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	if got := quote(`a'b\c`); got != `'a\'b\\c'` {
		t.Error(got)
	}
}

// A machine without PHP says what to install.
func TestMissing(t *testing.T) {
	t.Parallel()
	e := New(nil)
	e.find = func() (string, error) { return "", ErrMissing }
	module := filepath.Join(t.TempDir(), "x.php")
	if err := os.WriteFile(module, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := e.Load(context.Background(), &runtime.Function{Module: module})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install php-cgi") {
		t.Errorf("%v", err)
	}
}

// A process that waits more than once per request waits for something else than requests.
func TestWaits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		before, after int
		want          bool
	}{{10, 10, false}, {10, 10 + sampleEvery, false}, {10, 10 + 2*sampleEvery, true}, {10, 10 + 20*sampleEvery, true}} {
		if got := waits(c.before, c.after, sampleEvery); got != c.want {
			t.Errorf("%d to %d: %v", c.before, c.after, got)
		}
	}
	if n, ok := switches(os.Getpid()); !ok || n <= 0 {
		t.Errorf("this process: %d, %v", n, ok)
	}
	if _, ok := switches(1 << 30); ok {
		t.Error("a process that is not there")
	}
}
