package wasm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/runtime"
	"baton/runtime/wasm/prepare"
)

// variants prepares n modules that differ from the one at path in a constant, and
// returns their paths: the i-th greets with variantName(i) instead of "hello".
//
// A constant is data, so the native code is that of the first, which is the one
// that is compiled; each of the others gets a copy of it, or the same file if they share.
func variants(tb testing.TB, path, dir string, n int, share bool) []string {
	tb.Helper()
	base, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	report, err := Prepare(context.Background(), path, dir)
	if err != nil {
		tb.Fatal(err)
	}
	first, err := readStamp(dir, report.Module)
	if err != nil {
		tb.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join(dir, first.Code))
	if err != nil {
		tb.Fatal(err)
	}
	var paths []string
	for i := range n {
		module := bytes.ReplaceAll(base, []byte("hello "), []byte(variantName(i)+" "))
		prepared, info, err := rewrite(module)
		if err != nil {
			tb.Fatal(err)
		}
		tag := sha256.Sum256(prepared)
		skeleton, err := prepare.Skeleton(prepared, tag[:])
		if err != nil {
			tb.Fatal(err)
		}
		key, err := keyOf(context.Background(), skeleton)
		if err != nil {
			tb.Fatal(err)
		}
		s := *first
		s.Module, s.Prepared, s.Code, s.Info = hash(module), hash(module)+".skeleton.wasm", codeName(key), *info
		text, err := json.Marshal(s)
		if err != nil {
			tb.Fatal(err)
		}
		file := filepath.Join(dir, fmt.Sprint("variant", i, ".wasm"))
		files := map[string][]byte{file: module, filepath.Join(dir, s.Prepared): skeleton, stampPath(dir, s.Module): text}
		if !share {
			files[filepath.Join(dir, s.Code)] = code
		} else if err := os.Link(filepath.Join(dir, first.Code), filepath.Join(dir, s.Code)); err != nil {
			tb.Fatal(err)
		}
		for name, content := range files {
			if err := os.WriteFile(name, content, 0o600); err != nil {
				tb.Fatal(err)
			}
		}
		paths = append(paths, file)
	}
	return paths
}

func variantName(i int) string { return fmt.Sprintf("f%04d", i) }

// private is how much memory this process has for itself, in bytes: without
// pages of files, such as native code.
func private(tb testing.TB) int64 {
	tb.Helper()
	goruntime.GC()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kb << 10
		}
	}
	tb.Fatal("no RssAnon")
	return 0
}

// crowd is many functions on one executor, each of which greets with its name.
type crowd struct {
	functions []runtime.Loaded
	out       bytes.Buffer
	inv       runtime.Invocation
	random    *rand.Rand
}

func newCrowd(tb testing.TB, e *Executor, functions []*runtime.Function) *crowd {
	tb.Helper()
	c := &crowd{random: rand.New(rand.NewPCG(1, 2))}
	c.inv = runtime.Invocation{Body: []byte("a body of bytes\n"), Env: requestEnv(), Stdout: &c.out}
	for _, f := range functions {
		l, err := e.Load(context.Background(), f)
		if err != nil {
			tb.Fatal(err)
		}
		c.functions = append(c.functions, l)
	}
	return c
}

func (c *crowd) close(tb testing.TB) {
	for _, l := range c.functions {
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	}
}

// call calls the i-th function.
func (c *crowd) call(tb testing.TB, i int) {
	c.out.Reset()
	l := c.functions[i].(*loaded)
	if res := l.Invoke(&c.inv); res.Reason != runtime.OK || !bytes.HasPrefix(c.out.Bytes(), []byte(l.f.Name)) {
		tb.Fatalf("function %d: %+v %q", i, res, c.out.Bytes())
	}
}

// BenchmarkMany: many different modules on one worker, hit uniformly, beside one of
// them hit alone, in turns. Where the time goes: the same modules, but their native code is one
// file and so in the same memory, at as many addresses; and one module at one
// address, in as many instances.
func BenchmarkMany(b *testing.B) {
	cases := []struct {
		name   string
		module string
		n      int
		share  bool // the native code's memory
		same   bool // one module
	}{
		{"c-100", buildC(b, "hello"), 100, false, false},
		{"c-1000", buildC(b, "hello"), 1000, false, false},
		{"c-1000-shared", buildC(b, "hello"), 1000, true, false},
		{"c-1000-same", buildC(b, "hello"), 1000, true, true},
		{"go-100", buildGo(b, "testdata/gohello", true), 100, false, false},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			var functions []*runtime.Function
			if c.same {
				path := variants(b, c.module, dir, 1, false)[0]
				for i := range c.n { // instances are shared by functions with the same memory
					functions = append(functions, &runtime.Function{Name: variantName(0), Module: path, MemoryMB: 2 + i})
				}
			} else {
				for i, path := range variants(b, c.module, dir, c.n, c.share) {
					functions = append(functions, &runtime.Function{Name: variantName(i), Module: path})
				}
			}
			e, err := New(Options{CacheDir: dir, CodeMax: 1 << 40})
			if err != nil {
				b.Fatal(err)
			}
			before := private(b)
			start := time.Now()
			all := newCrowd(b, e, functions)
			loading := time.Since(start)
			for range 3 {
				for i := range c.n {
					all.call(b, i)
				}
			}
			used := private(b) - before
			const calls = 4000
			best := [2]time.Duration{math.MaxInt64, math.MaxInt64}
			for b.Loop() {
				for kind, n := range []int{1, c.n} {
					start := time.Now()
					for range calls {
						all.call(b, all.random.IntN(n))
					}
					best[kind] = min(best[kind], time.Since(start)/calls)
				}
			}
			b.ReportMetric(float64(best[0])/1e3, "alone-µs")
			b.ReportMetric(float64(best[1])/1e3, "uniform-µs")
			b.ReportMetric(float64(used)/float64(c.n)/1024, "idle-KB/function")
			b.ReportMetric(loading.Seconds()*1e3/float64(c.n), "load-ms/function")
			all.close(b)
			if err := e.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
