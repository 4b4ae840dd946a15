package native_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
		case "spawn":
			if err := native.Spawn(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, "spawn:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(mainTest(m))
}

func mainTest(m *testing.M) int {
	var err error
	if programs.dir, err = os.MkdirTemp("", "baton-native-*"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(programs.dir) }()
	return testenv.Main(m)
}

// programs are those of testdata, each compiled once for all tests.
var programs struct {
	mu  sync.Mutex
	dir string
}

// compile returns a C or C++ program of testdata, with the entry or without, in
// dir. It is a link: whoever writes a program and forks meanwhile cannot start it.
func compile(t testing.TB, dir, source string, linked bool) string {
	t.Helper()
	compiler := "gcc"
	if strings.HasSuffix(source, ".cpp") {
		compiler = "g++"
	}
	testenv.Need(t, compiler)
	programs.mu.Lock()
	defer programs.mu.Unlock()
	made := filepath.Join(programs.dir, fmt.Sprint(source, "-", linked))
	if _, err := os.Stat(made); err != nil {
		compileTo(t, made, compiler, source, linked)
	}
	program := filepath.Join(dir, "module.bin")
	if err := os.Link(made, program); err != nil {
		t.Fatal(err)
	}
	if native.Linked(program) != linked {
		t.Fatalf("linked with the entry: %v, want %v", native.Linked(program), linked)
	}
	return program
}

func compileTo(t testing.TB, program, compiler, source string, linked bool) {
	t.Helper()
	run := func(argv ...string) {
		t.Helper()
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	args := []string{compiler, "-O2", "-o", program, filepath.Join("testdata", source), "-lpthread"}
	if linked {
		entry := program + ".entry.c"
		if err := os.WriteFile(entry, []byte(native.EntrySource), 0o600); err != nil {
			t.Fatal(err)
		}
		object := program + ".entry.o"
		run(append(append([]string{"gcc"}, native.EntryFlags()...), "-Wall", "-Wextra", "-Werror", "-c", entry, "-o", object)...)
		args = append(append(args, object), native.LinkFlags()...)
	}
	run(args...)
}

// load makes an executor of its own and loads a program of testdata.
func load(t testing.TB, source string, linked bool, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	l, _ := loadFile(t, source, linked, f, func(string) {}, without...)
	return l
}

// loadFile is load, with a change of the program before it is loaded.
func loadFile(t testing.TB, source string, linked bool, f runtime.Function, change func(program string), without ...string) (l runtime.Loaded, program string) {
	t.Helper()
	data, dir := dataDir(t)
	f.Module = compile(t, dir, source, linked)
	change(f.Module)
	return loadIn(t, data, f, without...), f.Module
}

// loadScript loads a script that has a file data.txt beside it.
func loadScript(t testing.TB, text string, f runtime.Function) runtime.Loaded {
	t.Helper()
	data, dir := dataDir(t)
	f.Module = filepath.Join(dir, "module.bin")
	err := os.WriteFile(f.Module, []byte(text), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "data.txt"), []byte("the data\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return loadIn(t, data, f)
}

// dataDir makes a data directory with the folder of one version.
func dataDir(t testing.TB) (data, version string) {
	t.Helper()
	data = t.TempDir()
	version = filepath.Join(data, "functions", "id", "1")
	if err := os.MkdirAll(version, 0o700); err != nil {
		t.Fatal(err)
	}
	return data, version
}

func loadIn(t testing.TB, data string, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	if f.Name == "" {
		f.Name = "fn"
	}
	shared, err := child.New(child.Options{Data: data, Work: filepath.Join(data, "work"), Without: without, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	l, err := native.New(shared).Load(context.Background(), &f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// call is one invocation with the command as its variable CMD.
func call(l runtime.Loaded, command, body string) (out, log string, result runtime.Result) {
	var stdout, stderr bytes.Buffer
	result = l.Invoke(&runtime.Invocation{
		Body: []byte(body), Env: testenv.Variables{"CMD=" + command}, Stdout: &stdout, Stderr: &stderr,
		Deadline: time.Now().Add(testenv.Patience()),
	})
	return stdout.String(), raceNoise.ReplaceAllString(stderr.String(), ""), result
}

// raceNoise is what a spawner that was built with the race detector says of a
// root directory without /proc.
var raceNoise = regexp.MustCompile(`(?m)^==\d+==WARNING: reading executable name .*\n`)

// ways are the ways in which a program may be confined, by name.
var ways = map[string][]string{
	"all layers":       nil,
	"no namespaces":    {sandbox.LayerRoot},
	"no uid":           {sandbox.LayerUID},
	"no seccomp":       {sandbox.LayerSeccomp},
	"neither":          {sandbox.LayerSeccomp, sandbox.LayerRoot},
	"without landlock": {sandbox.LayerLandlock, sandbox.LayerRoot},
}

// each runs a test for a program that is forked, and one that is started, in
// every way of being confined.
func each(t *testing.T, test func(t *testing.T, linked bool, without []string)) {
	t.Helper()
	for kind, linked := range map[string]bool{"forked": true, "spawned": false} {
		for name, without := range ways {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				test(t, linked, without)
			})
		}
	}
}

func TestUnmodifiedPrograms(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, linked bool, without []string) {
		l := load(t, "probe.c", linked, runtime.Function{Name: "fn", Handler: "h", Env: []string{"OWN=1"}}, without...)
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
			{"leave", "", "0\n", ""},
			{"leave", "", "0\n", ""},
		} {
			out, log, result := call(l, c.command, c.body)
			if out != c.out || log != c.log || result != (runtime.Result{}) {
				t.Errorf("%s: out %.80q (%d bytes), log %q, %+v", c.command, out, len(out), log, result)
			}
		}
	})
}

func TestEndings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, linked bool, without []string) {
		memory := 64
		if !linked {
			memory = 192 // more than a spawner has that was built with the race detector: see spawner.rss
		}
		l := load(t, "probe.c", linked, runtime.Function{MemoryMB: memory}, without...)
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

func TestDeadline(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, linked bool, without []string) {
		l := load(t, "probe.c", linked, runtime.Function{Processes: 4}, without...)
		for _, command := range []string{"spin", "fork spin"} {
			result := l.Invoke(&runtime.Invocation{Env: testenv.Variables{"CMD=" + command}, Stdout: io.Discard, Deadline: time.Now().Add(400 * time.Millisecond)})
			if result.Reason != runtime.Timeout {
				t.Errorf("%s: %+v", command, result)
			}
		}
		if out, _, result := call(l, "echo", "after"); out != "after" || result.Reason != runtime.OK {
			t.Errorf("afterwards: %q, %+v", out, result)
		}
	})
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
	for _, linked := range []bool{true, false} {
		t.Run(fmt.Sprint("linked ", linked), func(t *testing.T) {
			t.Parallel()
			streamedBody(t, load(t, "probe.c", linked, runtime.Function{}))
		})
	}
}

func streamedBody(t *testing.T, l runtime.Loaded) {
	text := strings.Repeat("streamed ", 100_000)
	for range 3 {
		var out bytes.Buffer
		result := l.Invoke(&runtime.Invocation{
			Body: []byte(text[:1000]), More: strings.NewReader(text[1000:]), Env: testenv.Variables{"CMD=echo"}, Stdout: &out,
			Deadline: time.Now().Add(testenv.Patience()),
		})
		if result.Reason != runtime.OK || out.String() != text {
			t.Fatalf("%d bytes, %+v", out.Len(), result)
		}
		// One that does not read its body is none the worse for it.
		out.Reset()
		result = l.Invoke(&runtime.Invocation{
			Body: []byte(text[:1000]), More: strings.NewReader(text[1000:]), Env: testenv.Variables{"CMD=static"}, Stdout: &out,
			Deadline: time.Now().Add(testenv.Patience()),
		})
		if result.Reason != runtime.OK || out.String() != "1\n" {
			t.Fatalf("%q, %+v", out.String(), result)
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
	result := l.Invoke(&runtime.Invocation{Env: testenv.Variables{"CMD=endless"}, Stdout: &limited{10 << 20}, Deadline: time.Now().Add(testenv.Patience())})
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

// What a request cannot have cleaned up costs its process, and reaches nobody.
func TestLeftFilesThatStay(t *testing.T) {
	t.Parallel()
	for _, linked := range []bool{true, false} {
		l := load(t, "probe.c", linked, runtime.Function{})
		for range 3 {
			if out, _, result := call(l, "leave deep", ""); out != "0\n" || result.Reason != runtime.OK {
				t.Fatalf("linked %v: %q, %+v", linked, out, result)
			}
		}
	}
}

// A program that somebody has open for writing cannot be executed: the start waits.
func TestProgramIsBeingWritten(t *testing.T) {
	t.Parallel()
	for _, linked := range []bool{true, false} {
		t.Run(fmt.Sprint("linked ", linked), func(t *testing.T) {
			t.Parallel()
			l, program := loadFile(t, "probe.c", linked, runtime.Function{}, func(program string) {
				// A copy: the tests' programs are one file.
				content, err := os.ReadFile(program)
				if err == nil {
					err = os.Remove(program)
				}
				if err == nil {
					err = os.WriteFile(program, content, 0o755)
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			writer, err := os.OpenFile(program, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			written := time.AfterFunc(300*time.Millisecond, func() { writer.Close() })
			defer written.Stop()
			if out, log, result := call(l, "echo", "x"); out != "x" || result.Reason != runtime.OK {
				t.Errorf("%q, log %q, %+v", out, log, result)
			}
		})
	}
}

// Scripts run, and what cannot be started says so as a shell would.
func TestScripts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		f          runtime.Function
		out, log   string
		want       runtime.Result
	}{
		{"sh", "#!/bin/sh\nread line\necho \"$line $OWN $1\" \"$(basename x)\"\n", runtime.Function{Processes: 2, Handler: "h", Env: []string{"OWN=own"}}, "body own h x\n", "", runtime.Result{}},
		{"an exit code", "#!/bin/sh\necho why >&2\nexit 3\n", runtime.Function{}, "", "why\n", runtime.Result{Reason: runtime.Exit, Exit: 3}},
		{"a signal", "#!/bin/sh\nkill -11 $$\n", runtime.Function{}, "", "", runtime.Result{Reason: runtime.Signal, Exit: 139, Detail: "SIGSEGV"}},
		{"no interpreter", "#!/nonexistent/interpreter\n", runtime.Function{}, "", "the program cannot be started: no such file or directory\n", runtime.Result{Reason: runtime.Exit, Exit: 127}},
		{"no program", "hello\n", runtime.Function{}, "", "the program cannot be started: exec format error\n", runtime.Result{Reason: runtime.Exit, Exit: 126}},
		{"env", "#!/usr/bin/env sh\necho $PATH; pwd >/dev/null; ls -A | wc -l\n", runtime.Function{Processes: 4}, native.Path + "\n0\n", "", runtime.Result{}},
		{"beside the program", "#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <\"${0%/*}/data.txt\"\n", runtime.Function{}, "the data\n", "", runtime.Result{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := loadScript(t, c.text, c.f)
			for range 2 {
				out, log, result := call(l, "", "body\n")
				if out != c.out || log != c.log || result != c.want {
					t.Errorf("out %q, log %q, %+v; want %q, %q, %+v", out, log, result, c.out, c.log, c.want)
				}
			}
		})
	}
}

// A function without processes of its own starts none; one with them leaves none behind, whatever
// they do to get away.
func TestProcesses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, linked bool, without []string) {
		l := load(t, "probe.c", linked, runtime.Function{})
		if out, _, result := call(l, "fork", ""); out != "EPERM\n" || result.Reason != runtime.OK {
			t.Errorf("fork: %q, %+v", out, result)
		}
		l = load(t, "probe.c", linked, runtime.Function{Processes: 4}, without...)
		for _, command := range []string{"stay", "stay setsid", "stay setpgid"} {
			name := fmt.Sprintf("stay%08x", rand.Uint32())
			out, log, result := call(l, command+" "+name, "")
			if out != "started\n" || result.Reason != runtime.OK {
				t.Errorf("%s: %q, log %q, %+v", command, out, log, result)
			}
			if out, _, result := call(l, "echo", "after"); out != "after" || result.Reason != runtime.OK {
				t.Errorf("afterwards: %q, %+v", out, result)
			}
			testenv.Until(t, "nothing is left of "+command, func() bool { return !processNamed(name) })
		}
	})
}

// processNamed says whether a process of that name (prctl(2), PR_SET_NAME) runs. One that
// has ended and was not reaped does not.
func processNamed(name string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && bytes.Contains(text, []byte("("+name+") ")) && !bytes.Contains(text, []byte(") Z ")) && !bytes.Contains(text, []byte(") X ")) {
			return true
		}
	}
	return false
}
