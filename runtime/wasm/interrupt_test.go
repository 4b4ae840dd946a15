package wasm

import (
	"bytes"
	goruntime "runtime"
	"sync/atomic"
	"testing"
	"time"

	"baton/runtime"
)

// Everything that can keep a machine busy ends at its deadline.
func TestDeadlineEndsWhateverSpins(t *testing.T) {
	t.Parallel()
	e := executor(t)
	for _, handler := range []string{"loop", "nested", "recursion", "mutual", "indirect", "tree", "fill", "copy", "sleep", "random", "write"} {
		t.Run(handler, func(t *testing.T) {
			l := load(t, e, &runtime.Function{Name: "busy", Module: buildC(t, "busy", "-mbulk-memory"), Handler: handler})
			call(l, "warm") // an instance
			const limit = 50 * time.Millisecond
			start := time.Now()
			var out discard
			res := l.Invoke(&runtime.Invocation{Body: []byte("go"), Stdout: &out, Deadline: start.Add(limit)})
			took := time.Since(start)
			if res.Reason != runtime.Timeout || took < limit {
				t.Errorf("%+v after %v", res, took)
			}
			t.Logf("%v late", took-limit)
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestCancelEndsARunningFunction(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "busy", Module: buildC(t, "busy", "-mbulk-memory"), Handler: "loop"})
	var cancel atomic.Bool
	done := make(chan runtime.Result)
	running := make(chan struct{})
	go func() {
		done <- l.Invoke(&runtime.Invocation{Body: []byte("go"), Stdout: notify{running}, Cancel: &cancel})
	}()
	<-running
	cancel.Store(true)
	if res := <-done; res.Reason != runtime.Cancelled {
		t.Errorf("%+v", res)
	}
}

// notify closes a channel at the first write.
type notify struct{ c chan struct{} }

func (n notify) Write(p []byte) (int, error) {
	select {
	case <-n.c:
	default:
		close(n.c)
	}
	return len(p), nil
}

// A collection, which stops the world, does not wait for a spinning function.
func TestStopTheWorldPassesASpinningFunction(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "busy", Module: buildC(t, "busy", "-mbulk-memory"), Handler: "loop"})
	var cancel atomic.Bool
	done := make(chan runtime.Result)
	running := make(chan struct{})
	go func() {
		done <- l.Invoke(&runtime.Invocation{Body: []byte("go"), Stdout: notify{running}, Cancel: &cancel})
	}()
	<-running
	best := time.Hour
	for range 20 {
		var stats goruntime.MemStats
		start := time.Now()
		goruntime.ReadMemStats(&stats) // stops the world
		best = min(best, time.Since(start))
	}
	cancel.Store(true)
	<-done
	// Without checks it would wait for ever. How long it takes is told, not judged: on
	// a loaded machine others take the processor.
	if best > time.Second {
		t.Errorf("stop-the-world took %v", best)
	}
	t.Logf("stop-the-world: %v", best)
}

// A function that turns endless on its 1,000th call leaves the loop's goroutine there.
func TestSlowInvocationIsPromotedOnce(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "busy", Module: buildC(t, "busy", "-mbulk-memory"), Handler: "loop"})
	call(l, "")
	promoted := 0
	inv := &runtime.Invocation{Stdout: &bytes.Buffer{}, Promote: func() { promoted++ }}
	for range 999 {
		if !l.Inline() {
			t.Fatal("a short function may not run on the loop")
		}
		if res := l.Invoke(inv); res.Reason != runtime.OK {
			t.Fatalf("%+v", res)
		}
	}
	// A short run may be promoted when the machine takes the processor away; not many.
	if promoted > 100 {
		t.Errorf("%d of 999 short runs were promoted", promoted)
	}
	promoted = 0
	inv.Promote = func() { promoted++ }
	inv.Body = []byte("go")
	inv.Deadline = time.Now().Add(500 * time.Millisecond)
	if res := l.Invoke(inv); res.Reason != runtime.Timeout || promoted != 1 {
		t.Errorf("promoted %d times, %+v", promoted, res)
	}
	for range 3 {
		inv.Deadline = time.Now().Add(200 * time.Millisecond)
		l.Invoke(inv)
	}
	if l.Inline() {
		t.Error("a slow function may run on the loop")
	}
	inv.Body, inv.Deadline, inv.Promote = nil, time.Time{}, nil
	for range 2000 {
		l.Invoke(inv)
	}
	if !l.Inline() {
		t.Error("a function that is short again may not run on the loop")
	}
}

func TestBlockingInvocationIsPromotedBefore(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "busy", Module: buildC(t, "busy", "-mbulk-memory"), Handler: "sleep"})
	call(l, "")
	promoted := 0
	inv := &runtime.Invocation{Body: []byte("go"), Stdout: &discard{}, Promote: func() { promoted++ }}
	inv.Deadline = time.Now().Add(10 * time.Millisecond)
	if res := l.Invoke(inv); res.Reason != runtime.Timeout || promoted != 1 {
		t.Errorf("promoted %d times, %+v", promoted, res)
	}
}
