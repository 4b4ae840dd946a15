package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// descriptorOf writes a descriptor.
func descriptorOf(t testing.TB, name, runtime string, more row) []byte {
	t.Helper()
	d := row{"name": name, "runtime": runtime, "path": "/n/" + name, "memory": 64, "timeout": 120}
	for k, v := range more {
		d[k] = v
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// source is a file of testdata/native.
func source(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "native", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// program compiles hostile.c to a program without baton's entry, as a user would
// have it who uploads a finished one.
func program(t testing.TB, flags ...string) []byte {
	t.Helper()
	testenv.Need(t, "gcc")
	out := filepath.Join(t.TempDir(), "program")
	argv := append([]string{"-O2", "-w", "-o", out, filepath.Join("testdata", "native", "hostile.c")}, flags...)
	if text, err := exec.Command("gcc", argv...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, text)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// ask calls a function of hostile.c, on a connection of its own and with patience.
func ask(t testing.TB, s *testenv.Server, name, query, body string) testenv.Response {
	t.Helper()
	r, err := asked(s, name, query, body)
	if err != nil {
		t.Fatalf("%s?%s: %v", name, query, err)
	}
	return r
}

func asked(s *testenv.Server, name, query, body string) (testenv.Response, error) {
	c, err := testenv.Connect(s.Addr)
	if err != nil {
		return testenv.Response{}, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(4 * testenv.Patience())); err != nil {
		return testenv.Response{}, err
	}
	head := fmt.Sprintf("POST /n/%s?%s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", name, query, len(body))
	if _, err := io.WriteString(c.Conn, head+body); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return testenv.Response{}, err
	}
	return c.ReadResponse(http.MethodPost)
}

// Every way in which a function ends has its documented status, and the worker
// is the same and well afterwards: for a program that is forked and for one that is started.
func TestNativeEndings(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "gcc")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	pid := onlyWorker(t, s)
	for _, kind := range []struct {
		name, runtime, file string
		code                []byte
	}{
		{"forked", "c", "hostile.c", source(t, "hostile.c")},
		{"started", "native", "program", program(t)},
		{"static", "native", "program", program(t, "-static")},
	} {
		t.Run(kind.name, func(t *testing.T) {
			fn, short, some, large := kind.name, kind.name+"-short", kind.name+"-processes", kind.name+"-large"
			deployed(t, s, descriptorOf(t, fn, kind.runtime, nil), kind.file, kind.code)
			deployed(t, s, descriptorOf(t, short, kind.runtime, row{"timeout": 1}), kind.file, kind.code)
			deployed(t, s, descriptorOf(t, some, kind.runtime, row{"processes": 8}), kind.file, kind.code)
			// More than a process has that starts others and has the race detector.
			deployed(t, s, descriptorOf(t, large, kind.runtime, row{"memory": 256}), kind.file, kind.code)
			stray := fmt.Sprintf("stray%08x", rand.Uint32())
			for _, c := range []struct {
				fn, query, body string
				status          int
				want            string
			}{
				{fn, "echo", "hello", 200, "hello"},
				{fn, "exit=3", "", 502, `"exit_code":3,`},
				{fn, "exit=3", "", 502, `"reason":"function_exit"`},
				{fn, "exit=0", "", 200, ""},
				{fn, "segv", "", 502, `"reason":"function_signal","signal":"SIGSEGV"`},
				{fn, "segv", "", 502, `"exit_code":139,`},
				{short, "spin", "", 504, `"reason":"function_timeout"`},
				{short, "sleep", "", 504, `"reason":"function_timeout"`},
				{large, "memory", "", 502, `"reason":"oom"`},
				{fn, "close", "", 502, `"reason":"no_output"`},
				{fn, "unread", strings.Repeat("x", 100_000), 200, "it was not read"},
				{fn, "bomb=" + stray, "", 200, "0\n"},
				{fn, "stay=none=" + stray, "", 200, ""},
				{some, "stay=setsid=" + stray, "", 200, "started\n"},
				{some, "stay=setpgid=" + stray, "", 200, "started\n"},
				{some, "server", "", 502, `"reason":"function_signal","signal":"SIGKILL"`},
				{fn, "echo", "still here", 200, "still here"},
				{some, "echo", "still here", 200, "still here"},
			} {
				r := ask(t, s, c.fn, c.query, c.body)
				if c.query == "server" && r.Status == 200 && string(r.Body) == "survived\n" {
					continue // the first process of a namespace cannot be killed from inside
				}
				if r.Status != c.status || !strings.Contains(string(r.Body), c.want) {
					t.Errorf("%s?%s: status %d, body %.300q; want %d with %q", c.fn, c.query, r.Status, r.Body, c.status, c.want)
				}
			}
			noneNamed(t, stray)
			well(t, s, pid)
		})
	}
}

// Who kills a function's process from outside costs the request that it runs.
func TestKilledFunctionProcess(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	pid := onlyWorker(t, s)
	for name, c := range map[string]struct {
		runtime, file string
		code          []byte
	}{"forked": {"c", "hostile.c", source(t, "hostile.c")}, "started": {"native", "program", program(t)}} {
		deployed(t, s, descriptorOf(t, name, c.runtime, nil), c.file, c.code)
		want(t, ask(t, s, name, "echo", "before"), 200, "before")
		killChildren(t, pid)
		want(t, ask(t, s, name, "echo", "after idle"), 200, "after idle")
		running := testenv.Dial(t, s.Addr)
		asleep := fmt.Sprintf("sleep%08x", rand.Uint32())
		running.Send(t, get("/n/"+name+"?sleep="+asleep))
		testenv.Until(t, "the function runs", func() bool { return named(asleep) })
		killChildren(t, pid)
		want(t, running.Response(t), 502, `"reason":"function_signal","signal":"SIGKILL"`)
		want(t, ask(t, s, name, "echo", "after running"), 200, "after running")
	}
	well(t, s, pid)
}

// killChildren kills the processes that a process has started.
func killChildren(t testing.TB, pid int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(lists) == 0 {
		t.Fatalf("children of %d: %v", pid, err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				_ = syscall.Kill(child, syscall.SIGKILL)
				awaitProcess(t, child, "ZX")
			}
		}
	}
}

// well checks that the worker is the one that it was, and serves.
func well(t testing.TB, s *testenv.Server, pid int) {
	t.Helper()
	r, err := testenv.Get(s.Addr, "/ping")
	if err != nil || r.Status != 200 {
		t.Errorf("GET /ping afterwards: status %d, %v", r.Status, err)
	}
	if now := onlyWorker(t, s); now != pid {
		t.Errorf("worker %d was replaced by %d", pid, now)
	}
}

// noneNamed waits until no process of that name (prctl(2), PR_SET_NAME) runs.
func noneNamed(t testing.TB, name string) {
	t.Helper()
	testenv.Until(t, "no process "+name+" is left", func() bool { return !named(name) })
}

// named says whether a process of that name runs. One that has ended and was not reaped does not.
func named(name string) bool {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	return slices.ContainsFunc(files, func(file string) bool {
		text, _ := os.ReadFile(file)
		_, after, ok := strings.Cut(string(text), "("+name+") ")
		return ok && after[0] != 'Z' && after[0] != 'X'
	})
}

// A function that starts processes without end is bounded, and all of them end
// with its request.
func TestForkBomb(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "gcc")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	pid := onlyWorker(t, s)
	deployed(t, s, descriptorOf(t, "bomb", "c", row{"processes": 1}), "hostile.c", source(t, "hostile.c"))
	stray := fmt.Sprintf("bomb%08x", rand.Uint32())
	r := ask(t, s, "bomb", "bomb="+stray, "")
	var count int
	if _, err := fmt.Sscan(string(r.Body), &count); err != nil || r.Status != 200 || count < 1 || count > 20_000 {
		t.Errorf("status %d, body %.300q", r.Status, r.Body)
	}
	noneNamed(t, stray)
	if r := ask(t, s, "bomb", "echo", "after"); r.Status != 200 || string(r.Body) != "after" {
		t.Errorf("afterwards: status %d, body %.300q", r.Status, r.Body)
	}
	well(t, s, pid)
}

// An answer of 1 GiB streams: the client gets all of it, and no process has more of it than
// its bounds say.
func TestAnswerOfOneGiB(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "gcc")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	pid := onlyWorker(t, s)
	deployed(t, s, descriptorOf(t, "gib", "c", row{"timeout": 600}), "hostile.c", source(t, "hostile.c"))
	request, err := http.NewRequest(http.MethodGet, "http://"+s.Addr+"/n/gib?gib", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: uploadPatience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if response.StatusCode != 200 || n != 1<<30 || err != nil {
		t.Errorf("status %d, %d bytes, %v", response.StatusCode, n, err)
	}
	const boundKB = 1 << 20 // a GiB: with the race detector a worker has some hundred MiB
	if got := residentMostKB(t, pid); got == 0 || got >= boundKB {
		t.Errorf("the worker had %d KiB in memory", got)
	}
	// A client that leaves in the middle ends the function.
	left := testenv.Dial(t, s.Addr)
	left.Send(t, get("/n/gib?gib"))
	if _, err := io.ReadFull(left.Conn, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	left.Close()
	awaitInflight(t, s, 0)
	well(t, s, pid)
}

// residentMostKB is the most that a process had in memory: VmHWM of proc(5).
func residentMostKB(t testing.TB, pid int) (n int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// C++ runs as it is: what is there before main and after it, and exceptions.
func TestCPP(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	deployed(t, s, descriptorOf(t, "cpp", "c++", nil), "main.cpp", source(t, "main.cpp"))
	for range 2 {
		for body, want := range map[string]string{"7": "[1,7]\n", "": "{\"caught\":\"nothing\"}\n", "\"x\"": "[1,\"x\"]\n"} {
			if r := ask(t, s, "cpp", "", body); r.Status != 200 || string(r.Body) != want {
				t.Errorf("%q: status %d, body %.300q", body, r.Status, r.Body)
			}
		}
	}
	r := ask(t, s, "cpp", "", "\"throw\"")
	want(t, r, 502, `"reason":"function_signal","signal":"SIG`)
}

// Scripts with an interpreter line run as they are; what they lack is said when
// they are uploaded.
func TestScripts(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	sh := "#!/bin/sh\nread -r line\necho \"{\\\"sh\\\":\\\"$line\\\",\\\"method\\\":\\\"$REQUEST_METHOD\\\",\\\"own\\\":\\\"$OWN\\\"}\"\ncase $QUERY_STRING in fail) exit 4;; kill) kill -9 $$;; loop) while :; do :; done;; esac\n"
	deployed(t, s, descriptorOf(t, "sh", "native", row{"env": row{"OWN": "own"}, "timeout": 20}), "run", []byte(sh))
	r := ask(t, s, "sh", "", "a line\n")
	want(t, r, 200, `{"sh":"a line","method":"POST","own":"own"}`)
	want(t, ask(t, s, "sh", "fail", ""), 502, `"exit_code":4,`)
	want(t, ask(t, s, "sh", "kill", ""), 502, `"signal":"SIGKILL"`)
	want(t, ask(t, s, "sh", "", "again\n"), 200, `{"sh":"again",`)

	u := upload(t, s, descriptorOf(t, "none", "native", nil), "run", []byte("#!/usr/bin/env no-such-interpreter\n"))
	if u.code/100 != 4 && u.code != 501 && u.code != 503 || u.Reason != "toolchain_missing" || !strings.Contains(u.text, "no-such-interpreter") {
		t.Errorf("a missing interpreter: status %d: %s", u.code, u.text)
	}
	u = upload(t, s, descriptorOf(t, "none", "native", nil), "run", []byte("hello\n"))
	if u.code != 400 && u.code != 422 {
		t.Errorf("no program: status %d: %s", u.code, u.text)
	}
}

// A script of Python runs as any other program, without the runtime python.
func TestPythonScript(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	script := "#!/usr/bin/env python3\nimport json, os, sys\njson.dump({'body': sys.stdin.read(), 'path': os.environ['PATH_INFO']}, sys.stdout)\n"
	deployed(t, s, descriptorOf(t, "py", "native", row{"memory": 128}), "run.py", []byte(script))
	want(t, ask(t, s, "py", "", "hello"), 200, `{"body": "hello", "path": "`)
}

// On a machine without toolchains a deploy says which package is missing, and everything that
// needs none is deployed and runs.
func TestMissingToolchains(t *testing.T) {
	t.Parallel()
	code := program(t)
	s := testenv.Start(t, testenv.Options{Workers: 1, Env: []string{"PATH=/nonexistent"}})
	for _, c := range []struct{ runtime, file, want string }{
		{"c", "main.c", "apt install gcc"},
		{"cpp", "main.cpp", "apt install g++"},
		{"go", "main.go", "golang-go"},
		{"tinygo", "main.go", "tinygo.org"},
		{"rust", "main.rs", "libstd-rust-dev-wasm32"},
		{"php", "index.php", "apt install php-cgi"},
		{"python", "main.py", "apt install python3"},
	} {
		u := upload(t, s, descriptorOf(t, "missing-"+c.runtime, c.runtime, nil), c.file, []byte("package main\n"))
		if u.code/100 == 2 || u.Reason != "toolchain_missing" || !strings.Contains(u.Message+u.Details, c.want) {
			t.Errorf("%s: status %d: %s; want %q", c.runtime, u.code, u.text, c.want)
		}
	}
	u := upload(t, s, descriptorOf(t, "missing-wasm", "c", row{"target": "wasm"}), "main.c", []byte("int main(void) { return 0; }\n"))
	if u.Reason != "toolchain_missing" || !strings.Contains(u.text, "wasi-libc") {
		t.Errorf("c for wasm: status %d: %s", u.code, u.text)
	}
	deployed(t, s, descriptorOf(t, "elf", "native", nil), "program", code)
	want(t, ask(t, s, "elf", "echo", "runs"), 200, "runs")
	deployed(t, s, descriptorOf(t, "sh", "native", nil), "run", []byte("#!/usr/bin/env sh\necho '[1]'\n"))
	want(t, ask(t, s, "sh", "", ""), 200, "[1]")
	r, err := testenv.Get(s.Addr, "/ping")
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 200, "pong")
}
