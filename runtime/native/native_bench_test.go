package native_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
)

// BenchmarkInvoke is one request of a C program, 64 callers at a time for all
// processors together, against one posix_spawn per request in the same run (spawn).
func BenchmarkInvoke(b *testing.B) {
	for _, c := range []struct {
		name   string
		linked bool
		body   string
	}{{"forkserver", true, "hello"}, {"forkserver-64KiB", true, strings.Repeat("x", 64<<10)}, {"spawner", false, "hello"}} {
		b.Run(c.name, func(b *testing.B) {
			l := load(b, "probe.c", c.linked, runtime.Function{})
			if out, _, result := call(l, "echo", c.body); out != c.body {
				b.Fatalf("%.40q, %+v", out, result)
			}
			invocations(b, l, c.body)
		})
	}
	b.Run("posix_spawn", func(b *testing.B) {
		program := compile(b, b.TempDir(), "probe.c", false)
		b.SetParallelism(32)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := spawnOnce(program, "hello"); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func invocations(b *testing.B, l runtime.Loaded, body string) {
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var out bytes.Buffer
		inv := &runtime.Invocation{Body: []byte(body), Env: testenv.Variables{"CMD=echo"}, Stdout: &out}
		for pb.Next() {
			out.Reset()
			inv.Deadline = time.Now().Add(time.Minute)
			if result := l.Invoke(inv); result.Reason != runtime.OK || out.Len() != len(body) {
				b.Errorf("%d bytes, %+v", out.Len(), result)
			}
		}
	})
}

// BenchmarkSequential is the latency of one request at a time.
func BenchmarkSequential(b *testing.B) {
	l := load(b, "probe.c", true, runtime.Function{})
	_, _, _ = call(l, "echo", "hello")
	inv := &runtime.Invocation{Body: []byte("hello"), Env: testenv.Variables{"CMD=echo"}, Stdout: io.Discard}
	for b.Loop() {
		inv.Deadline = time.Now().Add(time.Minute)
		if result := l.Invoke(inv); result.Reason != runtime.OK {
			b.Fatal(result)
		}
	}
}

// spawnOnce is what a platform does that starts a program per request: pipes,
// posix_spawn (vfork and execve, as package os does it), write, read, wait.
func spawnOnce(program, body string) error {
	in, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	outR, out, err := os.Pipe()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	p, err := os.StartProcess(program, []string{filepath.Base(program)}, &os.ProcAttr{Env: []string{"CMD=echo"}, Files: []*os.File{in, out, null}})
	in.Close()
	out.Close()
	null.Close()
	if err != nil {
		return err
	}
	_, _ = io.WriteString(inW, body)
	inW.Close()
	_, err = io.Copy(io.Discard, outR)
	outR.Close()
	if _, e := p.Wait(); err == nil {
		err = e
	}
	return err
}
