package wasm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
)

// executor returns an Executor over the cache that all tests share, so that
// each module is compiled once.
func executor(tb testing.TB) *Executor {
	tb.Helper()
	e, err := New(Options{CacheDir: filepath.Join(built.dir, "cache")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// load prepares and loads f.
func load(tb testing.TB, e *Executor, f *runtime.Function) runtime.Loaded {
	tb.Helper()
	once(tb, "prepared-"+filepath.Base(f.Module), func(string) error {
		_, err := Prepare(context.Background(), f.Module, e.dir)
		return err
	})
	l, err := e.Load(tb.Context(), f)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

// call invokes l once and returns what it wrote.
func call(l runtime.Loaded, body string, env ...string) (string, runtime.Result) {
	var out bytes.Buffer
	res := l.Invoke(&runtime.Invocation{Body: []byte(body), Env: testenv.Variables(env), Stdout: &out, Stderr: &out})
	return out.String(), res
}

func TestCommandReadsStdinAndWritesStdout(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "hello", Module: buildC(t, "hello"), Handler: "you "})
	for _, body := range []string{"one", "two"} {
		if out, res := call(l, body); out != "hello you "+body+"\n" || res != (runtime.Result{}) {
			t.Errorf("body %q: %q %+v", body, out, res)
		}
	}
}

func TestGoReactorSeesItsOwnRequest(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "go", Module: buildGo(t, "gowrap/testdata/hello", true), Handler: "h"})
	seen := map[string]bool{}
	for _, who := range []string{"ann", "bob", "eve"} {
		out, res := call(l, "body of "+who, "WHO="+who)
		if res != (runtime.Result{}) {
			t.Fatalf("%+v %q", res, out)
		}
		first, second, _ := strings.Cut(out, "\n")
		if want := "[go h] " + who + " 2  body of " + who; first != want {
			t.Errorf("got %q, want %q", first, want)
		}
		if seen[second] {
			t.Errorf("random number %s was drawn twice", second)
		}
		seen[second] = true
	}
}

func TestLoadRefusesWhatIsNotPrepared(t *testing.T) {
	t.Parallel()
	e := executor(t)
	module := filepath.Join(t.TempDir(), "m.wasm")
	if err := os.WriteFile(module, []byte("\x00asm\x01\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Load(t.Context(), &runtime.Function{Name: "x", Module: module}); !errors.Is(err, runtime.ErrNotPrepared) {
		t.Errorf("got %v", err)
	}
}

func TestPrepareRefusesWhatIsNotAModule(t *testing.T) {
	t.Parallel()
	module := filepath.Join(t.TempDir(), "m.wasm")
	if err := os.WriteFile(module, []byte("#!/bin/sh"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Prepare(t.Context(), module, t.TempDir())
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}

func TestDeadlineEndsASpinningFunction(t *testing.T) {
	t.Parallel()
	l := load(t, executor(t), &runtime.Function{Name: "spin", Module: buildC(t, "spin"), Timeout: 100 * time.Millisecond})
	start := time.Now()
	_, res := call(l, "")
	if res.Reason != runtime.Timeout {
		t.Errorf("got %+v after %v", res, time.Since(start))
	}
}
