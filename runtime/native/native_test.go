package native_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/native"
	"baton/sandbox"
)

// TestMain is the sandbox step as well: the test's own binary stands in for
// baton.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "sandbox":
			fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
			os.Exit(sandbox.ExitRefused)
		}
	}
	os.Exit(testenv.Main(m))
}

// compile compiles a C or C++ program of testdata with the entry.
func compile(t testing.TB, dir, source string, linked bool) string {
	t.Helper()
	compiler := "gcc"
	if strings.HasSuffix(source, ".cpp") {
		compiler = "g++"
	}
	testenv.Need(t, compiler)
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	program := filepath.Join(dir, "module.bin")
	args := []string{compiler, "-O2", "-o", program, filepath.Join("testdata", source), "-lpthread"}
	if linked {
		entry := filepath.Join(dir, "entry.c")
		if err := os.WriteFile(entry, []byte(native.EntrySource), 0o600); err != nil {
			t.Fatal(err)
		}
		object := filepath.Join(dir, "entry.o")
		run(append(append([]string{"gcc"}, native.EntryFlags()...), "-Wall", "-Wextra", "-Werror", "-c", entry, "-o", object)...)
		args = append(append(args, object), native.LinkFlags()...)
	}
	run(args...)
	if native.Linked(program) != linked {
		t.Fatalf("linked with the entry: %v, want %v", native.Linked(program), linked)
	}
	return program
}

// load makes an executor of its own and loads a program of testdata.
func load(t testing.TB, source string, linked bool, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	data := t.TempDir()
	dir := filepath.Join(data, "functions", "id", "1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.Module = compile(t, dir, source, linked)
	if f.Name == "" {
		f.Name = "fn"
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	starter := sandbox.NewStarter()
	t.Cleanup(starter.Close)
	shared, err := child.New(child.Options{
		Baton: []string{self, "sandbox"}, Data: data, Work: filepath.Join(data, "work"), Starter: starter,
		Without: without, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := native.New(shared, []string{self, "spawn"}).Load(context.Background(), &f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// variables is an Environ for tests.
type variables []string

func (v variables) Sizes() (count, bytes int) {
	for _, s := range v {
		bytes += len(s) + 1
	}
	return len(v), bytes
}

func (v variables) AppendTo(dst []byte) []byte {
	for _, s := range v {
		dst = append(append(dst, s...), 0)
	}
	return dst
}

// call is one invocation with the command as its variable CMD.
func call(l runtime.Loaded, command, body string) (out, log string, result runtime.Result) {
	var stdout, stderr bytes.Buffer
	result = l.Invoke(&runtime.Invocation{
		Body: []byte(body), Env: variables{"CMD=" + command}, Stdout: &stdout, Stderr: &stderr,
		Deadline: time.Now().Add(testenv.Patience()),
	})
	return stdout.String(), stderr.String(), result
}

// ways are the ways in which a program may be confined, by name.
var ways = map[string][]string{
	"all layers":       nil,
	"no namespaces":    {sandbox.LayerRoot},
	"no uid":           {sandbox.LayerUID},
	"no seccomp":       {sandbox.LayerSeccomp},
	"neither":          {sandbox.LayerSeccomp, sandbox.LayerRoot},
	"without landlock": {sandbox.LayerLandlock, sandbox.LayerRoot},
}

func TestUnmodifiedPrograms(t *testing.T) {
	t.Parallel()
	for name, without := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := load(t, "probe.c", true, runtime.Function{Name: "fn", Handler: "h", Env: []string{"OWN=1"}}, without...)
			for _, c := range []struct{ command, body, out, log string }{
				{"echo", "hello", "hello", ""},
				{"echo", "", "", ""},
				{"echo", strings.Repeat("large ", 20_000), strings.Repeat("large ", 20_000), ""},
				{"echo", "short", "short", ""},
				{"argv", "", "fn h\n", ""},
				{"env", "", "CMD=env OWN=1 _HANDLER=h BATON_ENTRY=(none)\n", ""},
				{"static", "", "1\n", ""},
				{"static", "", "1\n", ""},
				{"stderr", "", "out\n", "to the log\nand on"},
				{"nonblock", "", "ok\n", ""},
				{"flags", "", "blocking\n", ""},
				{"thread", "", "from a thread\n", ""},
				{"large", "", strings.Repeat("0123456789abcde\n", 3<<16), ""},
			} {
				out, log, result := call(l, c.command, c.body)
				if out != c.out || log != c.log || result != (runtime.Result{}) {
					t.Errorf("%s: out %.80q (%d bytes), log %q, %+v", c.command, out, len(out), log, result)
				}
			}
		})
	}
}

func TestEndings(t *testing.T) {
	t.Parallel()
	for name, without := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := load(t, "probe.c", true, runtime.Function{MemoryMB: 64}, without...)
			for _, c := range []struct {
				command string
				want    runtime.Result
			}{
				{"exit 7", runtime.Result{Reason: runtime.Exit, Exit: 7}},
				{"exit 97", runtime.Result{Reason: runtime.Exit, Exit: 97}},
				{"segv", runtime.Result{Reason: runtime.Signal, Exit: 139, Detail: "SIGSEGV"}},
				{"abort", runtime.Result{Reason: runtime.Signal, Exit: 134, Detail: "SIGABRT"}},
				{"memory", runtime.Result{Reason: runtime.Memory}},
				{"close", runtime.Result{}},
				{"echo", runtime.Result{}},
			} {
				_, log, got := call(l, c.command, "")
				if c.want.Reason == runtime.Memory {
					got.Exit, got.Detail = 0, ""
				}
				if c.command == "abort" && len(without) > 0 && got.Reason == runtime.Signal {
					continue // where signals are refused it ends by another one
				}
				if got != c.want {
					t.Errorf("%s: %+v, want %+v (log %q)", c.command, got, c.want, log)
				}
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	for name, without := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := load(t, "probe.c", true, runtime.Function{Processes: 4}, without...)
			for _, command := range []string{"spin", "fork spin"} {
				result := l.Invoke(&runtime.Invocation{Env: variables{"CMD=" + command}, Stdout: io.Discard, Deadline: time.Now().Add(400 * time.Millisecond)})
				if result.Reason != runtime.Timeout {
					t.Errorf("%s: %+v", command, result)
				}
			}
			if out, _, result := call(l, "echo", "after"); out != "after" || result.Reason != runtime.OK {
				t.Errorf("afterwards: %q, %+v", out, result)
			}
		})
	}
}

func TestConstructorsRunPerRequest(t *testing.T) {
	t.Parallel()
	l := load(t, "constructor.cpp", true, runtime.Function{})
	for range 3 {
		out, log, result := call(l, "x", "body")
		if out != "constructed 1 body\n" || log != "constructor\n" || result.Reason != runtime.OK {
			t.Fatalf("%q, log %q, %+v", out, log, result)
		}
	}
}

func TestStreamedBody(t *testing.T) {
	t.Parallel()
	l := load(t, "probe.c", true, runtime.Function{})
	text := strings.Repeat("streamed ", 100_000)
	for range 3 {
		var out bytes.Buffer
		result := l.Invoke(&runtime.Invocation{
			Body: []byte(text[:1000]), More: strings.NewReader(text[1000:]), Env: variables{"CMD=echo"}, Stdout: &out,
			Deadline: time.Now().Add(testenv.Patience()),
		})
		if result.Reason != runtime.OK || out.String() != text {
			t.Fatalf("%d bytes, %+v", out.Len(), result)
		}
		if out, _, result := call(l, "echo", "whole"); out != "whole" || result.Reason != runtime.OK {
			t.Fatalf("%q, %+v", out, result)
		}
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

func TestOutputLimit(t *testing.T) {
	t.Parallel()
	l := load(t, "probe.c", true, runtime.Function{})
	result := l.Invoke(&runtime.Invocation{Env: variables{"CMD=endless"}, Stdout: &limited{10 << 20}, Deadline: time.Now().Add(testenv.Patience())})
	if result.Reason != runtime.OutputLimit {
		t.Errorf("%+v", result)
	}
}

func TestExecutedAnew(t *testing.T) {
	t.Parallel()
	l := load(t, "probe.c", true, runtime.Function{})
	places := map[string]bool{}
	for i := range 2100 {
		out, _, result := call(l, "address", "")
		if result.Reason != runtime.OK {
			t.Fatalf("request %d: %+v", i, result)
		}
		places[out] = true
	}
	if len(places) != 3 {
		t.Errorf("%d address layouts in 2,100 requests, want 3", len(places))
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	l := load(t, "probe.c", true, runtime.Function{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				body := fmt.Sprint(i, " ", j)
				if out, _, result := call(l, "echo", body); out != body || result.Reason != runtime.OK {
					t.Errorf("%q for %q, %+v", out, body, result)
				}
			}
		})
	}
	wg.Wait()
}
