package python_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/python"
	"baton/sandbox"
)

// scriptFiles is the folder of testdata/script.py.
func scriptFiles(t testing.TB) files {
	t.Helper()
	text, err := os.ReadFile("testdata/script.py")
	if err != nil {
		t.Fatal(err)
	}
	return files{
		"script.py": string(text),
		"beside.py": "n = 0\ndef calls():\n    global n\n    n += 1\n    return n\n",
		// A name of the standard library is the function's own.
		"inner/__init__.py": "", "inner/deep.py": "from . import colorsys\nNAME = colorsys.MINE\ndef fail():\n    raise ValueError('deep down')\n",
		"inner/colorsys.py": "MINE = 'mine'\n",
	}
}

func loadScript(t testing.TB, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	return load(t, "script.py", scriptFiles(t), f, without...)
}

func TestScripts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		l := loadScript(t, runtime.Function{Env: []string{"OWN=1"}}, without...)
		for _, c := range []struct{ query, body, out, log string }{
			{"echo", "hello", "hello", ""},
			{"echo", "", "", ""},
			{"echo", strings.Repeat("large ", 10_000), strings.Repeat("large ", 10_000), ""},
			{"echo", "grün", "grün", ""},
			{"binary", "\x00\xff\xfe", "\xfe\xff\x00", ""},
			{"lines", "a\nb\nc", "3\n", ""},
			{"state", "", "1 1 mine None False [] __main__ script.py ['script.py']\n", ""},
			{"state", "", "1 1 mine None False [] __main__ script.py ['script.py']\n", ""},
			{"environ", "", "1 GET None None None\n", ""},
			{"stderr", "", "out\n", "to the log\nand on"},
			{"kept", "", "buffered", ""},
			{"atexit", "", "from a thread\nat exit\n", ""},
			{"exit 0", "", "said\n", ""},
			{"thread", "", "left\n", ""},
			{"channel", "", "OSError\n", ""},
			{"large 64", "", strings.Repeat("0123456789abcde\n", 64<<12), ""},
		} {
			out, log, result := call(l, c.query, c.body)
			if out != c.out || log != c.log || result != (runtime.Result{}) {
				t.Errorf("%s: out %.90q (%d bytes), log %q, %+v", c.query, out, len(out), log, result)
			}
		}
	})
}

func TestScriptEndings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		l := loadScript(t, runtime.Function{MemoryMB: 64}, without...)
		exit := func(code int32) runtime.Result { return runtime.Result{Reason: runtime.Exit, Exit: code} }
		memory := runtime.Result{Reason: runtime.Memory, Exit: 1, Detail: "memory ended"}
		for _, c := range []struct {
			query, out string
			want       runtime.Result
			log        string
		}{
			{"exit 7", "said\n", exit(7), ""},
			{"exit 97", "said\n", exit(97), ""},
			{"exit -1", "said\n", exit(255), ""},
			{"_exit 3", "", exit(3), ""},
			{"exittext", "", exit(1), "told\n"},
			{"raise", "", exit(1), "ValueError: deep down\n"},
			{"segv", "", runtime.Result{Reason: runtime.Signal, Exit: 139, Detail: "SIGSEGV"}, ""},
			{"kill", "", runtime.Result{Reason: runtime.Signal, Exit: 137, Detail: "SIGKILL"}, ""},
			{"memory", "", memory, "MemoryError\n"},
			{"slowmemory", "", memory, "MemoryError\n"},
			{"close", "", runtime.Result{}, ""},
			{"close1", "", runtime.Result{}, ""},
			{"echo", "", runtime.Result{}, ""},
		} {
			if c.query == "kill" && slices.Contains(without, sandbox.LayerLandlock) {
				continue // where only seccomp keeps signals in, there are none
			}
			out, log, got := call(l, c.query, "")
			if got != c.want || out != c.out || !strings.HasSuffix(log, c.log) {
				t.Errorf("%s: %q, %+v, want %+v (log %q)", c.query, out, got, c.want, log)
			}
		}
	})
}

// TestTraceback: the log has what `python3 file.py` prints, and nothing of ours.
func TestTraceback(t *testing.T) {
	t.Parallel()
	l := loadScript(t, runtime.Function{})
	_, log, _ := call(l, "raise", "")
	lines := strings.Split(log, "\n")
	if lines[0] != "Traceback (most recent call last):" || !strings.Contains(lines[1], `script.py", line `) || !strings.Contains(log, "    deep.fail()") ||
		!strings.Contains(log, `inner/deep.py", line 4, in fail`) || strings.Contains(log, "<baton>") {
		t.Errorf("log is %q", log)
	}
	l = load(t, "wrong.py", files{"wrong.py": "print(1\n"}, runtime.Function{})
	for range 2 {
		out, log, got := call(l, "", "")
		if out != "" || got != (runtime.Result{Reason: runtime.Exit, Exit: 1}) || !strings.Contains(log, "SyntaxError") || strings.Contains(log, "<baton>") {
			t.Errorf("%q, %+v, log %q", out, got, log)
		}
	}
}

// TestRandomOfForks: no two requests see the same numbers, and no two
// interpreters have the same seed of hashes.
func TestRandomOfForks(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	l := loadScript(t, runtime.Function{})
	for range 20 {
		out, log, result := call(l, "random", "")
		number, id, ok := strings.Cut(out, " ")
		if !ok || result.Reason != runtime.OK || seen[number] || seen[id] {
			t.Fatalf("%q (seen: %v, %v), %+v, log %q", out, seen[number], seen[id], result, log)
		}
		seen[number], seen[id] = true, true
	}
	for range 2 {
		out, _, result := call(load(t, "h.py", files{"h.py": "print(hash('baton'))"}, runtime.Function{}), "", "")
		if result.Reason != runtime.OK || seen[out] {
			t.Errorf("hash %q (seen: %v), %+v", out, seen[out], result)
		}
		seen[out] = true
	}
}

func TestScriptDeadline(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		l := loadScript(t, runtime.Function{Processes: 4}, without...)
		for _, query := range []string{"spin", "wait"} {
			// Without an interpreter that waits, the deadline could end the start.
			if out, _, result := call(l, "echo", "before"); out != "before" || result.Reason != runtime.OK {
				t.Fatalf("%q, %+v", out, result)
			}
			result := l.Invoke(&runtime.Invocation{Env: testenv.Variables{"QUERY_STRING=" + query}, Stdout: io.Discard, Deadline: time.Now().Add(400 * time.Millisecond)})
			if result.Reason != runtime.Timeout {
				t.Errorf("%s: %+v", query, result)
			}
		}
		if out, _, result := call(l, "echo", "after"); out != "after" || result.Reason != runtime.OK {
			t.Errorf("afterwards: %q, %+v", out, result)
		}
	})
}

// once becomes ready to be cancelled when the function says something.
type once struct{ cancel atomic.Bool }

func (o *once) Write(p []byte) (int, error) {
	o.cancel.Store(true)
	return len(p), nil
}

func TestScriptCancel(t *testing.T) {
	t.Parallel()
	l := load(t, "m.py", files{"m.py": "import sys, time\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(3600)\n"}, runtime.Function{})
	var log once
	got := l.Invoke(&runtime.Invocation{Stdout: io.Discard, Stderr: &log, Cancel: &log.cancel, Deadline: time.Now().Add(time.Hour)})
	if got.Reason != runtime.Cancelled {
		t.Errorf("%+v", got)
	}
}

// limited takes so many bytes.
type limited struct{ left int }

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, runtime.ErrOutputLimit
	}
	return len(p), nil
}

// counted counts bytes.
type counted struct{ n int64 }

func (c *counted) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func TestScriptOutput(t *testing.T) {
	t.Parallel()
	l := loadScript(t, runtime.Function{})
	got := l.Invoke(&runtime.Invocation{Env: testenv.Variables{"QUERY_STRING=large 1000000000"}, Stdout: &limited{10 << 20}, Deadline: time.Now().Add(testenv.Patience())})
	if got.Reason != runtime.OutputLimit {
		t.Errorf("above its limit: %+v", got)
	}
	// 1 GiB, through a pipe of 1 MiB.
	var out counted
	got = l.Invoke(&runtime.Invocation{Env: testenv.Variables{"QUERY_STRING=large 16384"}, Stdout: &out, Deadline: time.Now().Add(10 * time.Minute)})
	if got.Reason != runtime.OK || out.n != 1<<30 {
		t.Errorf("%d bytes, %+v", out.n, got)
	}
}

func TestScriptStreamedBody(t *testing.T) {
	t.Parallel()
	l := loadScript(t, runtime.Function{})
	text := strings.Repeat("streamed ", 200_000)
	for range 3 {
		var out bytes.Buffer
		result := l.Invoke(&runtime.Invocation{
			Body: []byte(text[:1000]), More: strings.NewReader(text[1000:]), Env: testenv.Variables{"QUERY_STRING=echo"}, Stdout: &out,
			Deadline: time.Now().Add(testenv.Patience()),
		})
		if result.Reason != runtime.OK || out.String() != text {
			t.Fatalf("%d bytes, %+v", out.Len(), result)
		}
		// Who does not read does not wait.
		if got := l.Invoke(&runtime.Invocation{
			More: strings.NewReader(text), Env: testenv.Variables{"QUERY_STRING=environ"}, Stdout: io.Discard, Deadline: time.Now().Add(testenv.Patience()),
		}); got.Reason != runtime.OK {
			t.Fatal(got)
		}
		if out, _, result := call(l, "echo", "whole"); out != "whole" || result.Reason != runtime.OK {
			t.Fatalf("%q, %+v", out, result)
		}
	}
}

// TestScriptProcesses: those that the descriptor does not grant are refused.
func TestScriptProcesses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		if !slices.Contains(without, sandbox.LayerSeccomp) {
			l := loadScript(t, runtime.Function{}, without...)
			for _, query := range []string{"fork", "bomb"} {
				if out, _, result := call(l, query, ""); out != "PermissionError\n" || result.Reason != runtime.OK {
					t.Errorf("%s: %q, %+v", query, out, result)
				}
			}
		}
		l := loadScript(t, runtime.Function{Processes: 8}, without...)
		for query, want := range map[string]string{"fork": "child\nparent\n", "run": "GET\n\n"} {
			if out, log, result := call(l, query, ""); out != want || result.Reason != runtime.OK {
				t.Errorf("%s: %q, %+v, log %q", query, out, result, log)
			}
		}
	})
}

// serial makes numbers that no other process of these tests has in its command line.
var serial atomic.Int64

func uniqueSeconds() string {
	return strconv.FormatInt(100_000_000+int64(os.Getpid())*1000+serial.Add(1), 10)
}

// running says whether a `sleep seconds` runs on this machine.
func running(t *testing.T, seconds string) bool {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(names, func(name string) bool {
		text, _ := os.ReadFile(name) // it may have ended
		return string(text) == "sleep\x00"+seconds+"\x00"
	})
}

// TestScriptLeavesNoProcess: neither a new session nor two forks help.
func TestScriptLeavesNoProcess(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		if slices.Contains(without, sandbox.LayerSeccomp) && slices.Contains(without, sandbox.LayerRoot) {
			return // nothing keeps it from leaving the group that is killed
		}
		l := loadScript(t, runtime.Function{Processes: 8}, without...)
		for range 2 {
			seconds := uniqueSeconds()
			if out, log, result := call(l, "daemon "+seconds, ""); out != "started\n" || result.Reason != runtime.OK {
				t.Fatalf("%q, %+v, log %q", out, result, log)
			}
			testenv.Until(t, "the daemon is dead", func() bool { return !running(t, seconds) })
			if out, _, result := call(l, "echo", "after"); out != "after" || result.Reason != runtime.OK {
				t.Fatalf("afterwards: %q, %+v", out, result)
			}
		}
	})
}

// TestIsolation: what a function cannot reach, from inside of it.
func TestIsolation(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		if slices.Contains(without, sandbox.LayerLandlock) || len(without) > 1 {
			return // nothing is left that keeps files off
		}
		l, data := loadIn(t, "script.py", scriptFiles(t), runtime.Function{}, without...)
		var paths []string
		for _, name := range []string{"admin.token", "faas_meta.db", "functions/other/1/module.py", "functions/id/2/module.py", "work/x"} {
			name = filepath.Join(data, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte("secret"), 0o644); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, name)
		}
		paths = append(paths, fmt.Sprintf("/proc/%d/environ", os.Getpid()), "/proc/self/environ", "/proc/1/environ", "/etc/shadow")
		out, _, result := call(l, "probe", strings.Join(paths, "\n"))
		if out != strings.Repeat("no\n", len(paths)) || result.Reason != runtime.OK {
			t.Errorf("%+v: %s", result, out)
		}
		// The path of a socket has at most 107 bytes.
		dir, err := os.MkdirTemp("", "baton-py-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		socket, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		if err := os.Chmod(socket.Addr().String(), 0o777); err != nil {
			t.Fatal(err)
		}
		port, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer port.Close()
		_, number, _ := net.SplitHostPort(port.Addr().String())
		out, log, result := call(l, "connect "+socket.Addr().String(), number)
		if out != "no\nno\n" || result.Reason != runtime.OK {
			t.Errorf("%+v: %s, log %s", result, out, log)
		}
	})
}

// TestWaits: an interpreter tells of its requests whether they wait for
// anything but the processor.
func TestWaits(t *testing.T) {
	t.Parallel()
	const computes, sleeps = "sum(range(1000))", "__import__('time').sleep(0.002)"
	for name, c := range map[string]struct {
		source string
		waits  bool
	}{
		"a script that computes":  {computes, false},
		"a script that waits":     {sleeps, true},
		"a handler that computes": {"def handler(event): " + computes, false},
		"a handler that waits":    {"def handler(event): " + sleeps, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := load(t, "m.py", files{"m.py": c.source + "\n"}, runtime.Function{})
			ctx, cancel := context.WithTimeout(t.Context(), testenv.Patience())
			defer cancel()
			computed := false
			for !c.waits && !computed { // a page that another process has may make it wait, now and then
				var err error
				if computed, _, err = python.Told(ctx, l, &runtime.Invocation{Stdout: io.Discard}); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				_, waits, err := python.Told(ctx, l, &runtime.Invocation{Stdout: io.Discard})
				if err != nil || c.waits && !waits {
					t.Fatalf("waits: %v, want %v (%v)", waits, c.waits, err)
				}
			}
		})
	}
}

func TestManyScriptsAtOnce(t *testing.T) {
	t.Parallel()
	l := loadScript(t, runtime.Function{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 10 {
				body := fmt.Sprint(i, " ", j)
				if out, _, result := call(l, "echo", body); out != body || result.Reason != runtime.OK {
					t.Errorf("%q for %q, %+v", out, body, result)
				}
			}
		})
	}
	wg.Wait()
}
