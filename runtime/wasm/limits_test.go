package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/wasm/prepare"
)

// Types used by hand-made modules.
func voidType() []byte { return []byte{0x60, 0, 0} }

// command is a module with a _start of the given code and more sections.
func command(before [][]byte, after [][]byte, code ...byte) []byte {
	sections := [][]byte{section(1, vec(voidType(), []byte{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f}))}
	sections = append(sections, before...)
	sections = append(sections, after...)
	sections = append(sections, section(10, vec(fn(code...))))
	return assemble(sections...)
}

func TestPrepareRefusesByName(t *testing.T) {
	t.Parallel()
	functions := section(3, vec([]byte{0}))
	start := section(7, vec(cat(str("_start"), []byte{0, 0})))
	cases := []struct {
		name   string
		module []byte
		want   string
	}{
		{"nothing to run", command(nil, [][]byte{functions, section(7, vec(cat(str("main"), []byte{0, 0})))}), "neither _start"},
		{"imported memory", command([][]byte{section(2, vec(cat(str("env"), str("memory"), []byte{2, 0, 1})))}, [][]byte{functions, start}), "imports a memory"},
		{"unknown module", command([][]byte{section(2, vec(cat(str("env"), str("open"), []byte{0, 0})))}, [][]byte{functions, section(7, vec(cat(str("_start"), []byte{0, 1})))}), "env.open"},
		{"unknown function", command([][]byte{section(2, vec(cat(str("wasi_snapshot_preview1"), str("fd_fly"), []byte{0, 0})))}, [][]byte{functions, section(7, vec(cat(str("_start"), []byte{0, 1})))}), "fd_fly"},
		{"wrong type", command([][]byte{section(2, vec(cat(str("wasi_snapshot_preview1"), str("proc_exit"), []byte{0, 0})))}, [][]byte{functions, section(7, vec(cat(str("_start"), []byte{0, 1})))}), "other parameters"},
		{"large table", command(nil, [][]byte{functions, section(4, vec([]byte{0x70, 0, 0x80, 0x80, 0x80, 0x01})), start}), "table of"},
		{"many elements", command(nil, [][]byte{functions, start, section(9, cat([]byte{1, 1, 0}, binary.AppendUvarint(nil, prepare.TableMax+1), make([]byte, prepare.TableMax+1)))}), "element segments"},
		{"reserved export", command(nil, [][]byte{functions, section(7, vec(cat(str("_start"), []byte{0, 0}), cat(str("baton:fuel"), []byte{0, 0})))}), "reserved"},
	}
	for _, c := range cases {
		_, err := Prepare(t.Context(), writeModule(t, c.module), t.TempDir())
		var r *RefusedError
		if !errors.As(err, &r) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	large := writeModule(t, nil)
	if err := os.Truncate(large, moduleBytesMax+1); err != nil {
		t.Fatal(err)
	}
	var r *RefusedError
	if _, err := Prepare(t.Context(), large, t.TempDir()); !errors.As(err, &r) {
		t.Errorf("module over the bound: %v", err)
	}
}

func TestModuleThatStartsWithTooMuchMemoryIsRefused(t *testing.T) {
	t.Parallel()
	// 32 pages of 64 KiB are 2 MiB.
	module := writeModule(t, command(nil, [][]byte{section(3, vec([]byte{0})), section(5, vec([]byte{0, 32})), section(7, vec(cat(str("_start"), []byte{0, 0})))}))
	e := executor(t)
	if report, err := Prepare(t.Context(), module, e.dir); err != nil || report.MemoryMin != 2<<20 {
		t.Fatalf("%+v %v", report, err)
	}
	var r *RefusedError
	if _, err := e.Load(t.Context(), &runtime.Function{Name: "f", Module: module, MemoryMB: 1}); !errors.As(err, &r) {
		t.Errorf("1 MiB: %v", err)
	}
	l, err := e.Load(t.Context(), &runtime.Function{Name: "f", Module: module, MemoryMB: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, res := call(l, ""); res.Reason != runtime.OK {
		t.Errorf("2 MiB: %+v", res)
	}
	_ = l.Close()
}

// The descriptor's memory is a hard bound, seen inside as memory.grow = -1.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	for _, mb := range []int{2, 8, 64} {
		l := load(t, executor(t), &runtime.Function{Name: "grow", Module: buildC(t, "grow"), MemoryMB: mb})
		for range 3 {
			if out, res := call(l, ""); res.Reason != runtime.OK || out != strings.Repeat("x", mb*16) {
				t.Errorf("%d MiB: %d pages, %+v", mb, len(out), res)
			}
		}
	}
}

// What an idle instance holds in tables counts as kept.
func TestTablesCountAsMemory(t *testing.T) {
	t.Parallel()
	e := executor(t)
	table := section(4, vec(binary.AppendUvarint([]byte{0x70, 0}, prepare.TableMax)))
	elements := section(9, cat([]byte{1, 1, 0}, binary.AppendUvarint(nil, 1000), make([]byte, 1000)))
	module := writeModule(t, command(nil, [][]byte{section(3, vec([]byte{0})), table, section(7, vec(cat(str("_start"), []byte{0, 0}))), elements}))
	if _, err := Prepare(t.Context(), module, e.dir); err != nil {
		t.Fatal(err)
	}
	l, err := e.Load(t.Context(), &runtime.Function{Name: "table", Module: module})
	if err != nil {
		t.Fatal(err)
	}
	if _, res := call(l, ""); res.Reason != runtime.OK {
		t.Errorf("%+v", res)
	}
	if kept, want := e.kept.Load(), int64(instanceBytes+(prepare.TableMax+1000)*8); kept != want {
		t.Errorf("%d bytes are kept, want %d", kept, want)
	}
	_ = l.Close()
}

func TestOutputLimitAndClientEndTheInvocation(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "hello", Module: buildC(t, "hello")})
	for err, want := range map[error]runtime.Reason{runtime.ErrOutputLimit: runtime.OutputLimit, os.ErrClosed: runtime.Cancelled} {
		if res := l.Invoke(&runtime.Invocation{Stdout: failing{err}}); res.Reason != want {
			t.Errorf("%v: %+v", err, res)
		}
	}
	if res := l.Invoke(&runtime.Invocation{More: failing{os.ErrDeadlineExceeded}, Stdout: discard{}}); res.Reason != runtime.Cancelled {
		t.Errorf("body: %+v", res)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

// The body is read from memory first, then from the stream, whatever its pieces.
func TestBodyGoesOnFromTheStream(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "echo", Module: buildC(t, "echo")})
	whole := strings.Repeat("0123456789abcdef", 10000)
	for _, cut := range []int{0, 1, 4095, 4096, 100000, len(whole)} {
		var out bytes.Buffer
		res := l.Invoke(&runtime.Invocation{Body: []byte(whole[:cut]), More: &pieces{whole[cut:]}, Stdout: &out})
		if res.Reason != runtime.OK || out.String() != whole {
			t.Errorf("cut at %d: %+v, %d bytes of %d", cut, res, out.Len(), len(whole))
		}
	}
}

// pieces reads at most 1,000 bytes at a time.
type pieces struct{ rest string }

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1000)], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func TestInstancesAreBounded(t *testing.T) {
	t.Parallel()
	e, err := New(Options{CacheDir: executor(t).dir, InstancesMax: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := load(t, e, &runtime.Function{Name: "echo", Module: buildC(t, "echo")})
	defer func() { _ = l.Close() }()
	release := make(chan struct{})
	done := make(chan runtime.Result)
	running := make(chan struct{}, 2)
	for range 2 {
		go func() { done <- l.Invoke(&runtime.Invocation{More: &gate{running, release}, Stdout: discard{}}) }()
	}
	<-running
	<-running
	if _, res := call(l, ""); res.Reason != runtime.Unavailable {
		t.Errorf("third of two: %+v", res)
	}
	close(release)
	for range 2 {
		if res := <-done; res.Reason != runtime.OK {
			t.Errorf("%+v", res)
		}
	}
	if _, res := call(l, ""); res.Reason != runtime.OK {
		t.Errorf("after them: %+v", res)
	}
	if !l.Inline() {
		t.Error("two idle instances, but it may not run on the loop")
	}
	e.Trim(0) // begins their idle time
	e.Trim(0)
	if l.Inline() || e.kept.Load() != 0 {
		t.Errorf("instances are still kept: %d bytes", e.kept.Load())
	}
}

// gate is a body that ends when it is told.
type gate struct{ running, release chan struct{} }

func (g *gate) Read([]byte) (int, error) {
	g.running <- struct{}{}
	<-g.release
	return 0, io.EOF
}

func TestIdleInstancesObeyTheMemoryBudget(t *testing.T) {
	t.Parallel()
	e, err := New(Options{CacheDir: executor(t).dir, MemoryMax: 3 * instanceBytes})
	if err != nil {
		t.Fatal(err)
	}
	var all []runtime.Loaded
	for mb := 1; mb <= 8; mb++ { // each has a pool of its own
		l := load(t, e, &runtime.Function{Name: "echo", Module: buildC(t, "echo"), MemoryMB: mb})
		if _, res := call(l, ""); res.Reason != runtime.OK {
			t.Fatalf("%+v", res)
		}
		if kept := e.kept.Load(); kept > e.o.MemoryMax {
			t.Errorf("%d bytes are kept, at most %d", kept, e.o.MemoryMax)
		}
		all = append(all, l)
	}
	if !all[7].Inline() || all[0].Inline() {
		t.Error("not the least recently used instances gave way")
	}
	for _, l := range all {
		if _, res := call(l, ""); res.Reason != runtime.OK {
			t.Errorf("%+v", res)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if e.kept.Load() != 0 {
		t.Errorf("%d bytes are kept by nobody", e.kept.Load())
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// Functions that are not used give back their native code and load it again.
func TestNativeCodeObeysItsBudget(t *testing.T) {
	t.Parallel()
	e, err := New(Options{CacheDir: executor(t).dir, CodeMax: 1})
	if err != nil {
		t.Fatal(err)
	}
	var all []runtime.Loaded
	for _, name := range []string{"echo", "hello", "grow", "fresh"} {
		all = append(all, load(t, e, &runtime.Function{Name: name, Module: buildC(t, name), MemoryMB: 2}))
	}
	loadedNow := func() (n int) {
		for _, p := range e.pools {
			if p.live {
				n++
			}
		}
		return n
	}
	for range 3 {
		for i, l := range all {
			if _, res := call(l, "x"); res.Reason != runtime.OK {
				t.Errorf("function %d: %+v", i, res)
			}
			if n := loadedNow(); n != 1 {
				t.Errorf("%d functions are loaded, want 1", n)
			}
		}
	}
	for _, l := range all {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if e.code.Load() != 0 {
		t.Errorf("%d bytes of code are loaded by nobody", e.code.Load())
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// While more instances are put back than may be, invocations wait, off the loop
// and no longer than their time.
func TestInvocationsWaitForPutBack(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "echo", Module: buildC(t, "echo")})
	p := l.(*loaded).pool
	p.restoring.Store(restoringMax + 1)
	promoted := 0
	promote := func() { promoted++ }
	if res := l.Invoke(&runtime.Invocation{Deadline: time.Now().Add(20 * time.Millisecond), Promote: promote}); res.Reason != runtime.Timeout {
		t.Errorf("past the deadline: %+v", res)
	}
	if promoted != 1 {
		t.Errorf("promoted %d times, want once", promoted)
	}
	var cancelled atomic.Bool
	cancelled.Store(true)
	if res := l.Invoke(&runtime.Invocation{Cancel: &cancelled}); res.Reason != runtime.Cancelled {
		t.Errorf("cancelled: %+v", res)
	}
	ended := make(chan runtime.Result)
	go func() {
		_, res := call(l, "x")
		ended <- res
	}()
	testenv.Until(t, "the invocation waits", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.restored != nil
	})
	select {
	case res := <-ended:
		t.Errorf("did not wait: %+v", res)
	default:
	}
	p.restoring.Store(0)
	if res := <-ended; res.Reason != runtime.OK {
		t.Errorf("after the wait: %+v", res)
	}
}
