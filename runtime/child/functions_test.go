package child_test

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
	"baton/sandbox"
)

// A function is closed once, by itself or with its executor. What was made of it goes when its processes have.
func TestFunctions(t *testing.T) {
	t.Parallel()
	functions := shared(t).NewFunctions()
	refused := errors.New("refused")
	add := func(err error) (f *child.Function, gone *atomic.Int32) {
		var running atomic.Int32
		gone = new(atomic.Int32)
		f = functions.Add(child.Config{
			Name: "echo", Spec: sandbox.Spec{Argv: []string{"/bin/sh", "-c", echo}},
			Open: func(*child.Process) error { running.Add(1); return nil },
			Free: func(*child.Process) { running.Add(-1) },
			Gone: func() error {
				gone.Add(1)
				if n := running.Load(); n != 0 {
					t.Errorf("gone while %d processes run", n)
				}
				return err
			},
		})
		if answer, got := ask(f.Pool, &runtime.Invocation{}, "a", testenv.Patience()); answer != "got a" || got.Reason != runtime.OK {
			t.Fatalf("%q, %+v", answer, got)
		}
		return f, gone
	}
	first, goneFirst := add(nil)
	second, goneSecond := add(refused)
	plain := functions.Add(child.Config{Name: "none"})
	if first.Inline() {
		t.Error("it would wait on an event loop")
	}
	if err := first.Close(); err != nil || goneFirst.Load() != 1 || goneSecond.Load() != 0 {
		t.Errorf("close one: %v, gone %d and %d times", err, goneFirst.Load(), goneSecond.Load())
	}
	if err := functions.Close(); !errors.Is(err, refused) || goneFirst.Load() != 1 || goneSecond.Load() != 1 {
		t.Errorf("close all: %v, gone %d and %d times", err, goneFirst.Load(), goneSecond.Load())
	}
	for _, f := range []*child.Function{first, second, plain} {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("close it again: %v", err)
		}
		if _, got := ask(f.Pool, &runtime.Invocation{}, "a", testenv.Patience()); got.Reason != runtime.Unavailable {
			t.Errorf("after Close: %+v", got)
		}
	}
	if err := functions.Close(); err != nil {
		t.Errorf("close all again: %v", err)
	}
}
