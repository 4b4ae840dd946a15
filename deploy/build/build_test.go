package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
)

// folder writes files into a new folder and returns it.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// builder returns a builder on a data directory of its own, and checks at the
// end that its builds left nothing.
func builder(t testing.TB, o Options) *Builder {
	t.Helper()
	if o.Data == "" {
		o.Data = t.TempDir()
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(filepath.Join(o.Data, "tmp")); len(left) > 0 {
			t.Errorf("builds left %v", left)
		}
	})
	return b
}

// shared is one builder for the tests that only use its caches.
var shared = sync.OnceValues(func() (*Builder, error) {
	dir, err := os.MkdirTemp("", "baton-build-test-")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = removeAll(dir) }
	return New(Options{Data: dir, Max: 2})
})

var remove = func() {}

func sharedBuilder(t testing.TB) *Builder {
	t.Helper()
	b, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// made is what a build left in Out.
type made struct {
	Result
	dir string
	log string
}

func (m *made) module(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, m.Module))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// run builds and checks that a failed build leaves Out empty.
func run(ctx context.Context, t testing.TB, b *Builder, req Request) (*made, error) {
	t.Helper()
	var log bytes.Buffer
	m := &made{dir: t.TempDir()}
	req.Out = m.dir
	if req.Log == nil {
		req.Log = &log
	}
	var err error
	m.Result, err = b.Build(ctx, req)
	m.log = log.String()
	if err != nil {
		if left, _ := os.ReadDir(m.dir); len(left) > 0 {
			t.Errorf("a failed build left %v", left)
		}
	}
	return m, err
}

// reasonOf is the reason of an *Error, or empty.
func reasonOf(err error) string {
	var mine *Error
	if errors.As(err, &mine) {
		return mine.Reason
	}
	return ""
}

// need skips the test, by the package's name, where a command is missing.
func need(t testing.TB, command, packages string) {
	t.Helper()
	b := &Builder{opt: Options{Path: os.Getenv("PATH")}}
	if _, ok := b.lookOne(command); !ok {
		t.Skipf("needs %s (Debian package %s)", command, packages)
	}
}

const goMain = "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hello\") }\n"

func TestBuildGo(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"one file":             {"hello.go": goMain},
		"with go.mod":          {"go.mod": "module hello\n\ngo 1.24\n", "main.go": goMain},
		"a package of its own": {"go.mod": "module hello\n\ngo 1.24\n", "main.go": "package main\n\nimport \"hello/text\"\n\nfunc main() { println(text.Hello) }\n", "text/text.go": "package text\n\nconst Hello = \"hello\"\n"},
		"main is below":        {"go.mod": "module hello\n\ngo 1.24\n", "cmd/hello/main.go": goMain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, files), Runtime: "go"})
			if err != nil {
				t.Fatal(err)
			}
			if m.Module != "module.wasm" || !bytes.Contains(m.module(t), []byte("\x06handle\x00")) {
				t.Errorf("%s does not export handle", m.Module)
			}
			if m.log != "" {
				t.Errorf("a build without a fault prints %q", m.log)
			}
		})
	}
}

func TestBuildReportsTheCompiler(t *testing.T) {
	t.Parallel()
	m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, map[string]string{"main.go": "package main\n\nfunc main() { x }\n"}), Runtime: "go"})
	var mine *Error
	if !errors.As(err, &mine) || mine.Reason != CompileFailed {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(mine.Detail, "./main.go:3:15: undefined: x") || strings.Contains(mine.Detail, tempPrefix) {
		t.Errorf("detail: %s", mine.Detail)
	}
	if m.log != mine.Detail {
		t.Errorf("the log is %q, the detail %q", m.log, mine.Detail)
	}
}

func TestSameSourcesAreBuiltOnce(t *testing.T) {
	t.Parallel()
	b := sharedBuilder(t)
	files := map[string]string{"main.go": "package main\n\nfunc main() { println(\"built once\") }\n"}
	first, err := run(t.Context(), t, b, Request{Source: folder(t, files), Runtime: "go"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := run(t.Context(), t, b, Request{Source: folder(t, files), Runtime: "go"})
	if err != nil {
		t.Fatal(err)
	}
	if first.Cached || !second.Cached || !bytes.Equal(first.module(t), second.module(t)) {
		t.Errorf("cached: %t, then %t", first.Cached, second.Cached)
	}
}

func TestBuildPHP(t *testing.T) {
	t.Parallel()
	need(t, "php-cgi", "php-cgi")
	for _, c := range []struct {
		name    string
		files   map[string]string
		handler string
		module  string // empty: an error
		want    string // in the error
	}{
		{"one file", map[string]string{"hello.php": "<?php echo 1;"}, "", "module.php", ""},
		{"a folder", map[string]string{"index.php": "<?php require 'lib/x.php';", "lib/x.php": "<?php"}, "", "index.php", ""},
		{"the handler names the file", map[string]string{"index.php": "<?php", "b.php": "<?php"}, "b.php", "b.php", ""},
		{"a syntax error", map[string]string{"hello.php": "<?php\necho 1\necho 2;"}, "", "", "hello.php on line 3"},
		{"a syntax error below", map[string]string{"index.php": "<?php", "lib/x.php": "<?php if"}, "", "", "lib/x.php"},
		{"nothing", map[string]string{"readme.txt": "x"}, "", "", ".php"},
		{"which one?", map[string]string{"a.php": "<?php", "b.php": "<?php"}, "", "", "which file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, c.files), Runtime: "php", Handler: c.handler})
			checkScript(t, m, err, c.module, c.want, c.files)
		})
	}
}

// checkScript compares a build of files as they are with what was wanted.
func checkScript(t *testing.T, m *made, err error, module, want string, files map[string]string) {
	t.Helper()
	if module == "" {
		if reason := reasonOf(err); reason != CompileFailed && reason != BadSource || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.Module != module {
		t.Errorf("the module is %s, want %s", m.Module, module)
	}
	for name, text := range files {
		if len(files) == 1 {
			name = m.Module
		}
		if got, err := os.ReadFile(filepath.Join(m.dir, name)); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestBuildPython(t *testing.T) {
	t.Parallel()
	need(t, "python3", "python3")
	for _, c := range []struct {
		name    string
		files   map[string]string
		handler string
		module  string
		want    string
	}{
		{"one file", map[string]string{"hello.py": "print(1)\n"}, "", "module.py", ""},
		{"a folder", map[string]string{"main.py": "import x\n", "x.py": "\n"}, "", "main.py", ""},
		{"below", map[string]string{"src/app.py": "\n", "data.txt": "x"}, "", "src/app.py", ""},
		{"the handler names file and function", map[string]string{"main.py": "\n", "x.py": "def serve(e): pass\n"}, "x.py:serve", "x.py", ""},
		{"the same with a dot", map[string]string{"main.py": "\n", "x.py": "serve = print\n"}, "x.serve", "x.py", ""},
		{"in a package", map[string]string{"main.py": "\n", "p/x.py": "from main import *\n"}, "p.x.serve", "p/x.py", ""},
		{"a function alone", map[string]string{"main.py": "def serve(e): pass\n", "x.py": "\n"}, "serve", "main.py", ""},
		{"a file alone", map[string]string{"main.py": "\n", "x.py": "\n"}, "x", "x.py", ""},
		{"no such function", map[string]string{"main.py": "def serve(e): pass\n"}, "main.server", "", "main.py defines no function server"},
		{"no such file", map[string]string{"main.py": "\n", "x.py": "\n"}, "y.serve", "", "y.py"},
		{"a syntax error", map[string]string{"hello.py": "def f(:\n"}, "", "", `File "hello.py", line 1`},
		{"nothing is run", map[string]string{"hello.py": "raise SystemExit(3)\n"}, "", "module.py", ""},
		{"a NUL byte", map[string]string{"hello.py": "x = 1\x00\n"}, "", "", "null byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, c.files), Runtime: "python", Handler: c.handler})
			checkScript(t, m, err, c.module, c.want, c.files)
		})
	}
}

func TestBuildFinished(t *testing.T) {
	t.Parallel()
	self, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	foreign := bytes.Clone(self)
	foreign[18] ^= 0xff
	for _, c := range []struct {
		name, runtime string
		files         map[string]string
		module        string
		want          string
	}{
		{"a module", "wasm", map[string]string{"m.wasm": string(wasmModule)}, "module.wasm", ""},
		{"a module by any name", "wasm", map[string]string{"blob": string(wasmModule)}, "module.wasm", ""},
		{"a component", "wasm", map[string]string{"m.wasm": "\x00asm\x0d\x00\x01\x00"}, "", "component"},
		{"no module", "wasm", map[string]string{"m.wasm": "hello, I am text"}, "", "no WebAssembly"},
		{"a short one", "wasm", map[string]string{"m.wasm": "\x00as"}, "", "no WebAssembly"},
		{"a program", "native", map[string]string{"prog": string(self)}, "module.bin", ""},
		{"a program for another machine", "native", map[string]string{"prog": string(foreign)}, "", "is a program for"},
		{"a script", "native", map[string]string{"run": "#!/bin/sh\necho hi\n"}, "module.bin", ""},
		{"a script and its data", "native", map[string]string{"run": "#!/bin/sh\ncat data.txt\n", "data.txt": "hi"}, "run", ""},
		{"a script with Windows line ends", "native", map[string]string{"run": "#!/bin/sh\r\necho hi\r\n"}, "", "carriage return"},
		{"no interpreter", "native", map[string]string{"run": "#!/bin/no-such-thing\n"}, "", "not installed"},
		{"no interpreter line", "native", map[string]string{"run": "echo hi\n"}, "", "no program"},
		{"an endless interpreter line", "native", map[string]string{"run": "#!" + strings.Repeat("x", 1000)}, "", "no end"},
		{"two programs", "native", map[string]string{"a": "#!/bin/sh\n", "b": "#!/bin/sh\n"}, "", "which program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, c.files), Runtime: c.runtime})
			if c.module == "" {
				if reasonOf(err) == "" || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			checkScript(t, m, err, c.module, c.want, c.files)
			if info, err := os.Stat(filepath.Join(m.dir, m.Module)); err != nil || c.runtime == "native" && info.Mode().Perm() != 0o755 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestUnknownRuntime(t *testing.T) {
	t.Parallel()
	_, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, map[string]string{"x": "x"}), Runtime: "cobol"})
	if reasonOf(err) != BadSource {
		t.Errorf("got %v", err)
	}
}

// scripted is a builder whose only tool is a shell script in a place of a
// toolchain's command, which also finds the usual commands.
func scripted(t *testing.T, o Options, command, script string) *Builder {
	t.Helper()
	o.Path = scriptPath(t, command, script)
	return builder(t, o)
}

// scriptPath is a path with the script as a command. Another process writes it:
// one that this process has open for writing, and a child of another test with it, could not be started.
func scriptPath(t *testing.T, command, script string) string {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, command)
	write := exec.Command("/bin/sh", "-c", "cat >\"$0\" && chmod 755 \"$0\"", name)
	write.Stdin = strings.NewReader("#!/bin/sh\n" + script)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// What only has to be there, and is not executed.
	if err := os.WriteFile(filepath.Join(dir, "php-cgi"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir + ":/usr/bin:/bin"
}

var phpFile = map[string]string{"x.php": "<?php"}

// The scripts end by themselves: a test that dies must not leave something
// behind that fills the machine.
func TestBuildBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		script string
		o      Options
		want   string
	}{
		{"time", "sleep 100 & sleep 100", Options{Timeout: 300 * time.Millisecond}, BuildTimeout},
		{"output", "yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -c 50000000 >&2", Options{OutputMax: 10_000}, OutputLimit},
		{"output without a line's end", "head -c 50000000 /dev/zero | tr '\\0' a >&2", Options{OutputMax: 100_000}, OutputLimit},
		{"memory", "head -c 300000000 /dev/zero | tail", Options{MemoryMB: 64}, BuildOOM},
		{"processes", "for i in $(seq 700); do sleep 100 & done; wait", Options{MemoryMB: 8192}, ProcessLimit},
		{"disk", "head -c 32000000 /dev/zero >big; sleep 100", Options{DiskMB: 8}, OutputLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := scripted(t, c.o, "php", c.script)
			_, err := run(t.Context(), t, b, Request{Source: folder(t, phpFile), Runtime: "php"})
			var mine *Error
			if !errors.As(err, &mine) || mine.Reason != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if mine.Hint == "" || c.want == OutputLimit && len(mine.Detail) > max(c.o.OutputMax, 10_000) {
				t.Errorf("hint %q, %d bytes of detail", mine.Hint, len(mine.Detail))
			}
		})
	}
}

func TestBuildIsCancelled(t *testing.T) {
	t.Parallel()
	started := filepath.Join(t.TempDir(), "started")
	b := scripted(t, Options{Baton: []string{}}, "php", "sleep 100 & echo $$ $! >"+started+".tmp; mv "+started+".tmp "+started+"; wait")
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client is gone")
	done := make(chan error)
	go func() {
		_, err := run(ctx, t, b, Request{Source: folder(t, phpFile), Runtime: "php"})
		done <- err
	}()
	var pids []string
	testenv.Until(t, "the build runs", func() bool {
		text, err := os.ReadFile(started)
		pids = strings.Fields(string(text))
		return err == nil
	})
	cancel(gone)
	if err := <-done; !errors.Is(err, gone) || reasonOf(err) != "" {
		t.Errorf("got %v", err)
	}
	for _, pid := range pids {
		testenv.Until(t, "the build's processes are gone", func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}

func TestBuildsWait(t *testing.T) {
	t.Parallel()
	gate := filepath.Join(t.TempDir(), "gate")
	b := scripted(t, Options{Baton: []string{}, Max: 1, Waiting: 1, Wait: time.Minute}, "php", "for i in $(seq 5000); do [ -e "+gate+" ] && exit; sleep 0.02; done")
	req := func(state func(string)) Request {
		return Request{Source: folder(t, phpFile), Runtime: "php", State: state}
	}
	type end struct {
		states []string
		err    error
	}
	ends := make(chan end, 2)
	begin := func(reached chan<- string) {
		var e end
		_, e.err = run(t.Context(), t, b, req(func(s string) {
			e.states = append(e.states, s)
			reached <- s
		}))
		ends <- e
	}
	first, second := make(chan string, 4), make(chan string, 4)
	go begin(first)
	<-first
	go begin(second)
	<-second
	if _, err := run(t.Context(), t, b, req(nil)); reasonOf(err) != BuilderBusy {
		t.Errorf("the third got %v", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var waited int
	for range 2 {
		e := <-ends
		if e.err != nil {
			t.Error(e.err)
		}
		if e.states[0] == StateWaiting {
			waited++
		}
	}
	if waited != 1 {
		t.Errorf("%d of two waited, want 1", waited)
	}
}

func TestBuildWaitsNoLongerThan(t *testing.T) {
	t.Parallel()
	b := builder(t, Options{Max: 1, Wait: time.Millisecond})
	slot := <-b.slots
	_, err := run(t.Context(), t, b, Request{Source: folder(t, phpFile), Runtime: "php"})
	if reasonOf(err) != BuilderBusy {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := run(ctx, t, b, Request{Source: folder(t, phpFile), Runtime: "php"}); !errors.Is(err, context.Canceled) && reasonOf(err) != BuilderBusy {
		t.Errorf("got %v", err)
	}
	b.slots <- slot
	if n := b.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

func TestLeftBuildsAreRemoved(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	left := filepath.Join(data, "tmp", tempPrefix+"123", "a", "b")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(left), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "tmp", "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Data: data}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(data, "tmp"))
	if err != nil || len(entries) != 1 || entries[0].Name() != "other" {
		t.Errorf("left: %v, %v", entries, err)
	}
}
