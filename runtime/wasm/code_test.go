package wasm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/wasm/prepare"
)

// prints is a command that writes text: modules of texts of one length differ in nothing but
// their code.
func prints(text string) []byte {
	code := []byte{}
	store := func(at, v byte) { // i32.store8
		value := []byte{0x41, v}
		if v >= 0x40 {
			value = []byte{0x41, v | 0x80, 0}
		}
		code = append(cat(code, []byte{0x41, at}, value), 0x3a, 0, 0)
	}
	store(0, 16)
	store(4, byte(len(text)))
	for i := range len(text) {
		store(byte(16+i), text[i])
	}
	code = append(code, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 0, 0x1a)
	return assemble(
		section(1, vec(voidType(), []byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f})),
		section(2, vec(cat(str("wasi_snapshot_preview1"), str("fd_write"), []byte{0, 1}))),
		section(3, vec([]byte{0})),
		section(5, vec([]byte{0, 1})),
		section(7, vec(cat(str("_start"), []byte{0, 1}), cat(str("memory"), []byte{2, 0}))),
		section(10, vec(fn(code...))),
	)
}

// prepareIn prepares a module into dir and returns its path and its stamp.
func prepareIn(t *testing.T, dir string, module []byte) (string, *stamp) {
	t.Helper()
	path := writeModule(t, module)
	report, err := Prepare(t.Context(), path, dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readStamp(dir, report.Module)
	if err != nil {
		t.Fatal(err)
	}
	return path, s
}

func executorIn(t *testing.T, dir string) *Executor {
	t.Helper()
	e, err := New(Options{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// What a worker loads of a module has no code, so two that differ in nothing else
// must still be two.
func TestModulesThatDifferInCodeOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := executorIn(t, dir)
	for _, text := range []string{"one", "two"} {
		path, _ := prepareIn(t, dir, prints(text))
		l, err := e.Load(t.Context(), &runtime.Function{Name: text, Module: path})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if out, res := call(l, ""); out != text || res.Reason != runtime.OK {
			t.Errorf("module that prints %q printed %q, %+v", text, out, res)
		}
	}
}

// mappings counts the lines of /proc/self/maps of the file at path that are executable.
func mappings(t *testing.T, path string) (n int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		line = strings.TrimSuffix(strings.TrimSpace(line), " (deleted)")
		if strings.HasSuffix(line, " "+path) && strings.Contains(line, " r-xp ") {
			n++
		}
	}
	return n
}

// preparedAlone prepares a module in a folder of its own, as others have the same one,
// for an executor that it returns.
func preparedAlone(t *testing.T, file string) (e *Executor, path string, s *stamp) {
	t.Helper()
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	e = executorIn(t, t.TempDir())
	path, s = prepareIn(t, e.dir, module)
	return e, path, s
}

func TestNativeCodeIsMappedFromItsFile(t *testing.T) {
	t.Parallel()
	e, path, s := preparedAlone(t, buildC(t, "hello"))
	code := filepath.Join(e.dir, s.Code)
	l, err := e.Load(t.Context(), &runtime.Function{Name: "mapped", Module: path})
	if err != nil {
		t.Fatal(err)
	}
	if out, res := call(l, "you"); !strings.HasPrefix(out, "hello ") {
		t.Errorf("%q %+v", out, res)
	}
	if s.CodeSize < 2*codeMapMin {
		t.Fatalf("the module has %d bytes of native code only", s.CodeSize)
	}
	if n := mappings(t, code); n != 1 {
		t.Errorf("the native code is mapped %d times, want once", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := mappings(t, code); n != 0 {
		t.Errorf("the native code of a closed function is mapped %d times", n)
	}
	if n := len(e.files.uses); n != 0 {
		t.Errorf("%d files of native code are used", n)
	}
}

// An invocation that runs when its function is closed has its code until it ends.
func TestNativeCodeStaysWhileItRuns(t *testing.T) {
	t.Parallel()
	e, path, s := preparedAlone(t, buildC(t, "busy", "-mbulk-memory"))
	code := filepath.Join(e.dir, s.Code)
	l, err := e.Load(t.Context(), &runtime.Function{Name: "busy", Module: path, Handler: "loop", MemoryMB: 64, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var cancel atomic.Bool
	running, ended := make(chan struct{}), make(chan runtime.Result, 1)
	go func() {
		promote := func() { close(running) } // past its slice, in the middle of its code
		ended <- l.Invoke(&runtime.Invocation{Body: []byte("go"), Env: testenv.Variables(nil), Stdout: io.Discard, Stderr: io.Discard, Cancel: &cancel, Promote: promote})
	}()
	<-running
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := mappings(t, code); n != 1 {
		t.Errorf("the native code that runs is mapped %d times, want once", n)
	}
	cancel.Store(true)
	if res := <-ended; res.Reason != runtime.Cancelled {
		t.Errorf("%+v, want it cancelled", res)
	}
	if n := mappings(t, code); n != 0 {
		t.Errorf("the native code that ran last is mapped %d times", n)
	}
}

// Two pools may share native code: it goes with the last, however often one of them
// was loaded anew before.
func TestNativeCodeGoesWithItsLastUser(t *testing.T) {
	t.Parallel()
	e, path, s := preparedAlone(t, buildC(t, "hello"))
	code := filepath.Join(e.dir, s.Code)
	open := func(memory int) runtime.Loaded {
		t.Helper()
		l, err := e.Load(t.Context(), &runtime.Function{Name: "shared", Module: path, MemoryMB: memory})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	answers := func(l runtime.Loaded) {
		t.Helper()
		if out, res := call(l, "you"); !strings.HasPrefix(out, "hello ") {
			t.Fatalf("%q %+v", out, res)
		}
	}
	first := open(8)
	for range 20 {
		second := open(16)
		answers(second)
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		answers(first)
		if n := mappings(t, code); n != 1 {
			t.Fatalf("the native code is mapped %d times, want once", n)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if n := mappings(t, code); n != 0 {
		t.Errorf("the native code of closed functions is mapped %d times", n)
	}
	// And with many at once, each loading and closing for itself.
	var together sync.WaitGroup
	for i := range 8 {
		together.Go(func() {
			for range 25 {
				l, err := e.Load(t.Context(), &runtime.Function{Name: "shared", Module: path, MemoryMB: 8 + i%4})
				if err != nil {
					t.Error(err)
					return
				}
				if out, res := call(l, "you"); !strings.HasPrefix(out, "hello ") {
					t.Errorf("%q %+v", out, res)
				}
				_ = l.Close()
			}
		})
	}
	together.Wait()
	if n := mappings(t, code); n != 0 {
		t.Errorf("the native code of closed functions is mapped %d times", n)
	}
}

func TestWorkersNeverCompile(t *testing.T) {
	t.Parallel()
	e := executorIn(t, t.TempDir())
	if _, err := e.rt.CompileModule(t.Context(), prints("never")); !errors.Is(err, runtime.ErrNotPrepared) {
		t.Errorf("got %v, want %v", err, runtime.ErrNotPrepared)
	}
}

// A file of native code that was damaged is not run.
func TestDamagedNativeCodeIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, s := prepareIn(t, dir, prints("whole"))
	file := filepath.Join(dir, s.Code)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(whole, []byte("WAZEVO"))
	at, ok := codeOffset(whole[begin:])
	if !ok || (begin+at)%sys.PageSize != 0 {
		t.Fatalf("machine code at %d, behind room of %d", begin+at, begin)
	}
	damage := map[string]func() []byte{
		"machine code":  func() []byte { return edit(whole, begin+at+9) },
		"magic":         func() []byte { return edit(whole, begin) },
		"room":          func() []byte { return edit(whole, len(whole)-7) },
		"another start": func() []byte { return edit(whole, len(whole)-8) },
		"shorter":       func() []byte { return whole[:len(whole)-1] },
		"empty":         func() []byte { return nil },
	}
	for name, f := range damage {
		// Not in place: others may have it mapped.
		if err := errors.Join(os.Remove(file), os.WriteFile(file, f(), 0o600)); err != nil {
			t.Fatal(err)
		}
		e := executorIn(t, dir)
		if l, err := e.Load(t.Context(), &runtime.Function{Name: "f", Module: path}); err == nil {
			t.Errorf("%s: loaded", name)
			_ = l.Close()
		}
	}
	if err := errors.Join(os.Remove(file), os.WriteFile(file, whole, 0o600)); err != nil {
		t.Fatal(err)
	}
	l, err := executorIn(t, dir).Load(t.Context(), &runtime.Function{Name: "f", Module: path})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func edit(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// A reader answers what is in the file, whatever pieces it is asked for, and
// also where it may not map.
func TestNativeCodeIsReadInPieces(t *testing.T) {
	t.Parallel()
	stream := append([]byte("not wazero's"), bytes.Repeat([]byte{1, 2, 3, 5, 7}, 40_000)...)
	w := &codeWriter{path: filepath.Join(t.TempDir(), "code")}
	if err := w.Add(codeKey{}, bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	for _, piece := range []int{8, 4097, 100_000} {
		f, err := os.Open(w.path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := newCodeReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for rest := stream; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			p := make([]byte, min(piece, len(rest))+1)[1:] // not at a page
			if n, err := r.Read(p); n != len(p) || err != nil || !bytes.Equal(p, rest[:n]) {
				t.Fatalf("read of %d: %d bytes, %v", len(p), n, err)
			}
		}
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("behind the end: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSkeletonIsValidAndTagged(t *testing.T) {
	t.Parallel()
	for _, path := range []string{buildC(t, "hoard"), buildGo(t, "testdata/gohello", true)} {
		module, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		prepared, _, err := rewrite(module)
		if err != nil {
			t.Fatal(err)
		}
		one, err := prepare.Skeleton(prepared, []byte("one"))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(context.Background(), one); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if two, err := prepare.Skeleton(prepared, []byte("two")); err != nil || bytes.Equal(one, two) {
			t.Errorf("%s: the tag makes no difference, %v", path, err)
		}
		if len(one) >= len(prepared) {
			t.Errorf("%s: %d bytes of %d", path, len(one), len(prepared))
		}
	}
}

// A function that is closed while a call loads it anew takes no part of the
// code budget with it.
func TestCodeOfAFunctionThatIsClosedWhileItLoads(t *testing.T) {
	t.Parallel()
	e := executorIn(t, t.TempDir())
	path, _ := prepareIn(t, e.dir, prints("late"))
	for range 100 {
		l, err := e.Load(t.Context(), &runtime.Function{Name: "late", Module: path})
		if err != nil {
			t.Fatal(err)
		}
		l.(*loaded).pool.unload()
		began := make(chan struct{})
		var call sync.WaitGroup
		call.Go(func() {
			promote := func() { close(began) } // it is about to load
			l.Invoke(&runtime.Invocation{Env: testenv.Variables(nil), Stdout: io.Discard, Stderr: io.Discard, Promote: promote})
		})
		<-began
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		call.Wait()
		if n := e.code.Load(); n != 0 {
			t.Fatalf("%d bytes of code count that nobody has", n)
		}
	}
}
