package child_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
	"baton/sandbox"
)

// TestMain is the sandbox step and the server of the tests of Stdio as well: the test's own binary stands in for baton.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sandbox" {
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	if len(os.Args) == 2 && os.Args[1] == "stdio" {
		if err := serveStdio(); err != nil {
			fmt.Fprintln(os.Stderr, "stdio:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testenv.Main(m))
}

func shared(t testing.TB, without ...string) *child.Shared {
	t.Helper()
	dir := t.TempDir()
	s, err := child.New(child.Options{Data: dir, Work: filepath.Join(dir, "work"), Without: without, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// echo answers each line on its channel by what it does with it.
const echo = `while read -r line <&3; do
	case "$line" in
	die) kill -SEGV $$;;
	exit) exit 7;;
	hang) while :; do :; done;;
	log) echo one >&2; printf two >&2; echo ok >&3;;
	out) echo output; echo ok >&3;;
	*) echo "got $line" >&3;;
	esac
done`

func pool(t testing.TB, s *child.Shared, c child.Config) *child.Pool {
	t.Helper()
	c.Name = "echo"
	if c.Spec.Argv == nil {
		c.Spec.Argv = []string{"/bin/sh", "-c", echo}
	}
	p := s.NewPool(c)
	t.Cleanup(p.Close)
	return p
}

// ask is one invocation: a line there, a line back.
func ask(p *child.Pool, inv *runtime.Invocation, line string, limit time.Duration) (string, runtime.Result) {
	deadline := time.Now().Add(limit)
	pr, result := p.Get(inv, deadline)
	if pr == nil {
		return "", result
	}
	pr.Begin(inv, deadline)
	_, err := io.WriteString(pr.Channel, line+"\n")
	var answer string
	if err == nil {
		answer, err = bufio.NewReader(pr.Channel).ReadString('\n')
	}
	result = pr.End(err)
	p.Put(pr, result.Reason == runtime.OK)
	return strings.TrimSpace(answer), result
}

func TestInvocationEndings(t *testing.T) {
	t.Parallel()
	// Without namespaces: the first process of one takes no signal from itself.
	p := pool(t, shared(t, sandbox.LayerRoot), child.Config{})
	for _, c := range []struct {
		line   string
		limit  time.Duration
		answer string
		want   runtime.Result
	}{
		{"a", testenv.Patience(), "got a", runtime.Result{}},
		{"die", testenv.Patience(), "", runtime.Result{Reason: runtime.Signal, Exit: 139, Detail: "SIGSEGV"}},
		{"exit", testenv.Patience(), "", runtime.Result{Reason: runtime.Exit, Exit: 7}},
		{"hang", 300 * time.Millisecond, "", runtime.Result{Reason: runtime.Timeout, Detail: "ran past its deadline"}},
		{"b", testenv.Patience(), "got b", runtime.Result{}},
	} {
		answer, got := ask(p, &runtime.Invocation{}, c.line, c.limit)
		if answer != c.answer || got != c.want {
			t.Errorf("%s: %q, %+v; want %q, %+v", c.line, answer, got, c.answer, c.want)
		}
	}
}

func TestCancelEnds(t *testing.T) {
	t.Parallel()
	p := pool(t, shared(t), child.Config{})
	var cancel atomic.Bool
	time.AfterFunc(50*time.Millisecond, func() { cancel.Store(true) })
	_, got := ask(p, &runtime.Invocation{Cancel: &cancel}, "hang", time.Hour)
	if got.Reason != runtime.Cancelled {
		t.Errorf("got %+v", got)
	}
}

func TestStderrIsTheInvocations(t *testing.T) {
	t.Parallel()
	p := pool(t, shared(t), child.Config{})
	for range 20 {
		var log bytes.Buffer
		if _, got := ask(p, &runtime.Invocation{Stderr: &log}, "log", testenv.Patience()); got.Reason != runtime.OK || log.String() != "one\ntwo" {
			t.Fatalf("got %+v, log %q", got, log.String())
		}
		log.Reset()
		if _, got := ask(p, &runtime.Invocation{Stderr: &log}, "x", testenv.Patience()); got.Reason != runtime.OK || log.Len() > 0 {
			t.Fatalf("got %+v, log %q of another request", got, log.String())
		}
	}
}

func TestProcessesAreBoundedAndShared(t *testing.T) {
	t.Parallel()
	var most, now atomic.Int32
	p := pool(t, shared(t), child.Config{Max: 3, Open: func(*child.Process) error {
		n := now.Add(1)
		most.Store(max(most.Load(), n))
		return nil
	}, Free: func(*child.Process) { now.Add(-1) }})
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			line := fmt.Sprint("n", i)
			if answer, got := ask(p, &runtime.Invocation{}, line, time.Hour); got.Reason != runtime.OK || answer != "got "+line {
				t.Errorf("%q, %+v", answer, got)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n < 1 || 3 < n {
		t.Errorf("%d processes", n)
	}
}

// TestEnough: what is more than enough ends as it comes back.
func TestEnough(t *testing.T) {
	t.Parallel()
	var now atomic.Int32
	p := pool(t, shared(t), child.Config{Max: 4, Open: func(*child.Process) error { now.Add(1); return nil }, Free: func(*child.Process) { now.Add(-1) }})
	deadline := time.Now().Add(testenv.Patience())
	var held []*child.Process
	for range 3 {
		pr, result := p.Get(&runtime.Invocation{}, deadline)
		if pr == nil {
			t.Fatal(result)
		}
		held = append(held, pr)
	}
	p.Enough(1)
	for _, pr := range held {
		p.Put(pr, true)
	}
	testenv.Until(t, "one process is left", func() bool { return now.Load() == 1 })
	if answer, got := ask(p, &runtime.Invocation{}, "a", testenv.Patience()); answer != "got a" || got.Reason != runtime.OK {
		t.Errorf("%q, %+v", answer, got)
	}
}

func TestUses(t *testing.T) {
	t.Parallel()
	var started atomic.Int32
	p := pool(t, shared(t), child.Config{Max: 1, Uses: 2, Open: func(*child.Process) error { started.Add(1); return nil }})
	for range 6 {
		if _, got := ask(p, &runtime.Invocation{}, "a", testenv.Patience()); got.Reason != runtime.OK {
			t.Fatal(got)
		}
	}
	if n := started.Load(); n != 3 {
		t.Errorf("%d processes for 6 requests of 2 each", n)
	}
}

func TestStartThatFails(t *testing.T) {
	t.Parallel()
	p := pool(t, shared(t), child.Config{
		Spec:  sandbox.Spec{Argv: []string{"/bin/sh", "-c", "echo no such thing >&2; exit 3"}},
		Ready: func(pr *child.Process) error { _, err := pr.Channel.Read(make([]byte, 1)); return err },
	})
	_, got := ask(p, &runtime.Invocation{}, "a", testenv.Patience())
	if got.Reason != runtime.Unavailable || !strings.Contains(got.Detail, "no such thing") || !strings.Contains(got.Detail, "exit status 3") {
		t.Errorf("got %+v", got)
	}
	if _, again := ask(p, &runtime.Invocation{}, "a", testenv.Patience()); again.Reason != runtime.Unavailable {
		t.Errorf("in the pause: %+v", again)
	}
}

func TestCloseEndsWhatRuns(t *testing.T) {
	t.Parallel()
	s := shared(t)
	p := pool(t, s, child.Config{})
	done := make(chan runtime.Result)
	go func() {
		_, got := ask(p, &runtime.Invocation{}, "hang", time.Hour)
		done <- got
	}()
	testenv.Until(t, "it runs", func() bool {
		entries, _ := os.ReadDir(s.Work)
		return len(entries) > 0
	})
	p.Close()
	if got := <-done; got.Reason != runtime.Cancelled && got.Reason != runtime.Unavailable {
		t.Errorf("got %+v", got)
	}
	if _, got := ask(p, &runtime.Invocation{}, "a", time.Hour); got.Reason != runtime.Unavailable {
		t.Errorf("after Close: %+v", got)
	}
	if entries, _ := os.ReadDir(s.Work); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestStdout(t *testing.T) {
	t.Parallel()
	p := pool(t, shared(t), child.Config{})
	deadline := time.Now().Add(testenv.Patience())
	pr, _ := p.Get(&runtime.Invocation{}, deadline)
	if pr == nil {
		t.Fatal("no process")
	}
	pr.Begin(&runtime.Invocation{}, deadline)
	if _, err := io.WriteString(pr.Channel, "out\n"); err != nil {
		t.Error(err)
	}
	line, err := bufio.NewReader(pr.Stdout).ReadString('\n')
	if err != nil || line != "output\n" {
		t.Errorf("got %q, %v", line, err)
	}
	result := pr.End(errors.Join(err))
	p.Put(pr, result.Reason == runtime.OK)
}
