package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/control"
	"baton/runtime/logs"
)

// TestCommandsLaw: what every command refuses, and what it says to do next.
func TestCommandsLaw(t *testing.T) {
	t.Parallel()
	data := newData(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", strings.Repeat("a", 64)+"\n", 0o600)
	open := write("open", strings.Repeat("a", 64)+"\n", 0o644)
	code := write("a.c", "int main(){}", 0o644)
	closed := "http://127.0.0.1:1" // tcpmux: nobody listens below 1024 in a test
	for _, law := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"get"}, exitUsage, "which function? `baton ls` lists them"},
		{[]string{"get", "a", "b"}, exitUsage, `"b": one argument too many`},
		{[]string{"get", "../a"}, exitUsage, "is no function's name"},
		{[]string{"get", "a"}, exitFailure, "start one with `baton serve"},
		{[]string{"versions", "a"}, exitFailure, "start one with `baton serve"},
		{[]string{"rollback", "a"}, exitFailure, "start one with `baton serve"},
		{[]string{"rollback", "a", "0"}, exitUsage, "want a number, as `baton versions a` lists them"},
		{[]string{"rollback", "a", "1", "2"}, exitUsage, "one argument too many"},
		{[]string{"rm", "a"}, exitFailure, "start one with `baton serve"},
		{[]string{"invoke", "a"}, exitFailure, "start one with `baton serve"},
		{[]string{"invoke", "a", "-H", "x"}, exitUsage, "want 'Name: value'"},
		{[]string{"invoke", "a", "-d", "@" + filepath.Join(dir, "none")}, exitFailure, "no such file"},
		{[]string{"logs", "a"}, exitFailure, "start one with `baton serve"},
		{[]string{"logs", "a", "-f"}, exitFailure, "start one with `baton serve"},
		{[]string{"logs", "a", "--since", "yesterday"}, exitUsage, "want how long ago"},
		{[]string{"logs", "a", "--tail", "-1"}, exitUsage, "want a number of lines"},
		{[]string{"deploy"}, exitUsage, "what is to be deployed?"},
		{[]string{"deploy", "a", "b"}, exitUsage, "one path at a time"},
		{[]string{"deploy", code}, exitFailure, "start one with `baton serve"},
		{[]string{"deploy", filepath.Join(dir, "none")}, exitFailure, "`baton new go hello` begins one"},
		{[]string{"dev"}, exitUsage, "want a folder or file"},
		{[]string{"dev", code, "--port", "70000"}, exitUsage, "want 0 (a free one) to 65535"},
		{[]string{"dev", filepath.Join(dir, "none")}, exitFailure, "there is nothing at"},
		{[]string{"token"}, exitUsage, "`baton token rotate`"},
		{[]string{"token", "show"}, exitUsage, `there is no command "show"`},
		{[]string{"token", "rotate"}, exitFailure, "`baton init --demo=false"},
		{[]string{"backup"}, exitUsage, "want the file to write"},
		{[]string{"backup", filepath.Join(dir, "b.tar")}, exitFailure, "is it a data directory?"},
		{[]string{"restore", filepath.Join(dir, "none.tar")}, exitFailure, "no such file"},
		{[]string{"restore", dir}, exitFailure, "want a file"},
		{[]string{"restore", code}, exitFailure, "nothing was changed"},
		{[]string{"completion"}, exitUsage, "which shell?"},
		{[]string{"completion", "tcsh"}, exitUsage, `no completion for "tcsh"`},
		{[]string{"serve", "--check", "--keep", "0", "--builds", "-1", "--log-size", "0"}, exitUsage, "--log-size 0: want 1 to"},
		// Elsewhere.
		{[]string{"ls", "--token-file", token}, exitUsage, "name the server too"},
		{[]string{"ls", "--server", closed}, exitUsage, "wants --token-file"},
		{[]string{"ls", "--server", closed, "--token-file", open}, exitFailure, "other users can reach it"},
		{[]string{"ls", "--server", closed, "--token-file", filepath.Join(dir, "none")}, exitFailure, "no such file"},
		{[]string{"ls", "--server", "localhost:8080", "--token-file", token}, exitUsage, "want an URL"},
		{[]string{"ls", "--server", "http://a/b", "--token-file", token}, exitUsage, "scheme, host and port only"},
		{[]string{"ls", "--server", closed, "--token-file", token}, exitFailure, "no server answers at " + closed},
		{[]string{"invoke", "a", "--server", closed, "--token-file", token}, exitFailure, "no server answers at " + closed},
		{[]string{"stop", "--server", closed}, exitUsage, "works on a data directory of this machine"},
		{[]string{"init", "--server", closed}, exitUsage, "works on a data directory of this machine"},
		{[]string{"serve", "--server", closed}, exitUsage, "works on a data directory of this machine"},
		{[]string{"dev", code, "--server", closed}, exitUsage, "works on a data directory of this machine"},
		{[]string{"backup", "b", "--server", closed}, exitUsage, "works on a data directory of this machine"},
		{[]string{"restore", "b", "--server", closed}, exitUsage, "works on a data directory of this machine"},
	} {
		got := baton(nil, append(law.args, "--data", data)...)
		if got.code != law.code || !strings.Contains(got.err, law.err) || got.out != "" {
			t.Errorf("baton %v: %+v, want code %d and %q", law.args, got, law.code, law.err)
		}
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a command that was refused has made the data directory: %v", err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	fields := []control.FieldFault{{Field: "memory", Want: "less\x1b[31m", Got: "more"}, {Field: "path", Want: "a path"}}
	for _, law := range []struct {
		name   string
		remote bool
		err    error
		want   []string
	}{
		{"no server", false, fmt.Errorf("x: %w", control.ErrNotRunning), []string{"`baton serve --data DATA`"}},
		{"no server elsewhere", true, fmt.Errorf("x: %w", control.ErrNotRunning), []string{"no server answers at http://there"}},
		{"no answer", false, context.DeadlineExceeded, []string{"`baton stop --data DATA`"}},
		{"no answer elsewhere", true, context.DeadlineExceeded, []string{"the server at http://there does not answer"}},
		{"the token", false, &control.RefusedError{Status: 401, Text: "t"}, []string{"in its data directory"}},
		{"the token elsewhere", true, &control.RefusedError{Status: 401, Text: "t"}, []string{"refuses the token in FILE"}},
		{"no such function", false, &control.RefusedError{Status: 404, Reason: "function_not_found", Text: "there is no function"}, []string{"there is no function: `baton ls`"}},
		{"fields", false, &control.RefusedError{Status: 400, Text: "wrong", Fields: fields}, []string{"wrong\n    memory: want less?[31m, got more\n    path: want a path"}},
		{"one field that the text says", false, &control.RefusedError{Status: 400, Text: "path: want a path", Fields: fields[1:]}, []string{"path: want a path"}},
		{"something else", false, errors.New("x"), []string{"x"}},
	} {
		c := &commands{data: "DATA", token: "FILE"}
		if law.remote {
			c.server = "http://there"
		}
		got := c.explain(law.err)
		for _, part := range law.want {
			if !strings.Contains(got.Error(), part) {
				t.Errorf("%s: %q, want %q", law.name, got, part)
			}
		}
		if !errors.Is(got, law.err) {
			t.Errorf("%s: %v does not wrap what it explains", law.name, got)
		}
	}
	if got := (&commands{}).explain(&control.RefusedError{Text: "path: want a path", Fields: fields[1:]}).Error(); strings.Contains(got, "\n") {
		t.Errorf("what the text says is said twice: %q", got)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	now := then
	clock := func() time.Time { return now }
	var b bytes.Buffer
	p := newProgress(&b, false, 0, clock)
	p.packed(10)
	p.tell(control.Progress{State: "building"})
	p.tell(control.Progress{Log: "a.c:1: wro"})
	p.tell(control.Progress{Log: "ng\x1b[2J\n\tint x"})
	state, log := p.end()
	p.tell(control.Progress{Log: "late"})
	if want := "a.c:1: wrong?[2J\n\tint x\n"; b.String() != want || state != "building" || log != "a.c:1: wrong\x1b[2J\n\tint x" {
		t.Errorf("elsewhere than on a terminal: %q, %q, %q; want the compiler's words alone: %q", b.String(), state, log, want)
	}
	b.Reset()
	p = newProgress(&b, true, 4<<20, clock)
	p.mu.Lock()
	p.sent = 1 << 20
	p.draw()
	p.mu.Unlock()
	p.tell(control.Progress{State: "building"})
	now = now.Add(3 * time.Second)
	p.tell(control.Progress{Log: "warning\n"})
	p.end()
	got := b.String()
	for _, part := range []string{"uploading, 1 MiB of 4 MiB ...", "building ...", "\r\x1b[Kwarning\n", "building, 3 s ..."} {
		i := strings.Index(got, part)
		if i < 0 {
			t.Errorf("on a terminal: %q, want %q after what came before", b.String(), part)
			continue
		}
		got = got[i+len(part):]
	}
	if !strings.HasSuffix(b.String(), "\r\x1b[K") {
		t.Errorf("the line is left: %q", b.String())
	}
}

func TestSizeText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 10 << 20: "10 MiB", 3 << 30: "3 GiB", 5 << 40: "5 TiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestInvokeMakes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(path, []byte("of a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &commands{in: strings.NewReader("of standard input")}
	for _, law := range []struct {
		name    string
		hasData bool
		f       invokeFlags
		method  string
		kind    string
		body    string
	}{
		{"nothing", false, invokeFlags{}, "GET", "", ""},
		{"a text", true, invokeFlags{data: "hi"}, "POST", "text/plain; charset=utf-8", "hi"},
		{"an empty text", true, invokeFlags{}, "POST", "text/plain; charset=utf-8", ""},
		{"JSON", true, invokeFlags{data: `{"a":1}`}, "POST", "application/json", `{"a":1}`},
		{"a file", true, invokeFlags{data: "@" + path}, "POST", "application/json", "of a file"},
		{"standard input", true, invokeFlags{data: "-"}, "POST", "application/octet-stream", "of standard input"},
		{"a method and a type", true, invokeFlags{data: "x", method: "put", headers: []string{"content-type: text/x", "X-A: 1", "X-A:2"}}, "PUT", "text/x", "x"},
	} {
		call, end, err := c.call("hello", law.hasData, law.f)
		if err != nil {
			t.Errorf("%s: %v", law.name, err)
			continue
		}
		body := []byte{}
		if call.Body != nil {
			body, err = io.ReadAll(call.Body)
		}
		end()
		if err != nil || call.Method != law.method || call.Header.Get("Content-Type") != law.kind || string(body) != law.body {
			t.Errorf("%s: %+v with %q, %v", law.name, call, body, err)
		}
		if len(law.f.headers) > 1 && len(call.Header.Values("X-A")) != 2 {
			t.Errorf("%s: %v, want X-A twice", law.name, call.Header)
		}
	}
}

func TestInvokePrints(t *testing.T) {
	t.Parallel()
	answer := func(code int, head http.Header, body string) *http.Response {
		return &http.Response{Proto: "HTTP/1.1", Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), StatusCode: code, Header: head, Body: io.NopCloser(strings.NewReader(body))}
	}
	for _, law := range []struct {
		name     string
		response *http.Response
		head     bool
		out, err string
	}{
		{"success", answer(200, nil, "body"), false, "body", ""},
		{"a redirect", answer(302, http.Header{"Location": {"/x"}}, ""), true, "HTTP/1.1 302 Found\nLocation: /x\n\n", ""},
		{"bytes as they are", answer(200, nil, "\x00\x1b\xff"), false, "\x00\x1b\xff", ""},
		{"a head that would move the cursor", answer(200, http.Header{"X-A": {"\x1b[2J"}}, "b"), true, "HTTP/1.1 200 OK\nX-A: ?[2J\n\nb", ""},
		{"a failure", answer(502, http.Header{"X-Request-Id": {"id1"}}, "why"), false, "why", "hello answered 502 Bad Gateway; `baton logs hello --request id1` shows what it logged"},
		{"no such function", answer(404, http.Header{"X-Baton-Error": {"gateway"}}, "{}"), false, "{}", "`baton ls` lists them"},
		{"a function's own 404", answer(404, nil, "{}"), false, "{}", "hello answered 404 Not Found"},
	} {
		var out bytes.Buffer
		c := &commands{out: &out}
		err := c.printAnswer("hello", law.response, law.head)
		if out.String() != law.out || (err == nil) != (law.err == "") || err != nil && !strings.Contains(err.Error(), law.err) {
			t.Errorf("%s: %q, %v; want %q, %q", law.name, out.String(), err, law.out, law.err)
		}
	}
}

func TestLogLine(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.Local)
	for _, law := range []struct {
		e    logs.Entry
		want string
	}{
		{logs.Entry{Time: at, Version: 3, Request: "r1", Text: "hi\tyou\x1b[2J"}, "2026-01-02 03:04:05.678  v3  r1  hi?you?[2J"},
		{logs.Entry{Time: at, Text: "long", Cut: 7}, "2026-01-02 03:04:05.678  -  -  long … and 7 bytes more"},
		{logs.Entry{Time: at, Version: 1, Request: "r", Failure: "exit", Status: 502, DurationMS: 1.25, Detail: "code 3"}, "2026-01-02 03:04:05.678  v1  r  FAILED 502 exit after 1.2 ms: code 3"},
		{logs.Entry{Time: at, Dropped: 9}, "2026-01-02 03:04:05.678  9 lines found no room and are lost"},
	} {
		if got := logLine(&law.e); got != law.want {
			t.Errorf("%q, want %q", got, law.want)
		}
	}
}

func TestParseSince(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Time{
		"90m": then.Add(-90 * time.Minute), "0s": then, "2026-01-02T03:04:05Z": then, "2026-01-02T05:04:05+02:00": then,
		"2026-01-02 03:04:05": time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local), "2026-01-02": time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
	} {
		if got, err := parseSince(text, then); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"-5m", "5", "yesterday", ""} {
		if got, err := parseSince(text, then); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestServeCheck(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	file := filepath.Join(data, "baton.toml")
	if err := os.WriteFile(file, []byte("listen = ':3'\nkeep = 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := baton(func(c *commands) {
		c.env = func(name string) string { return map[string]string{"BATON_BUILDS": "2"}[name] }
	}, "serve", "--check", "--data", data, "--workers", "3")
	for _, row := range []string{"configuration file: " + file + "\n", "\nlisten :3 file\n", "\nkeep 4 file\n", "\nbuilds 2 environment\n", "\nworkers 3 flag\n", "\ndrain 10s default\n"} {
		if got.code != exitOK || !strings.Contains(squeezed(got.out), row) {
			t.Errorf("%+v, want %q", got, row)
		}
	}
	if err := os.WriteFile(file, []byte("lisen = ':3'\nkeep = 'all'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := baton(nil, "serve", "--check", "--data", data); got.code != exitUsage || !strings.Contains(got.err, `"lisen": did you mean "listen"?`) || !strings.Contains(got.err, "keep") {
		t.Errorf("a wrong file: %+v", got)
	}
	if left, _ := os.ReadDir(data); len(left) != 1 {
		t.Errorf("a check has made %v", left)
	}
}

// squeezed has one blank where there were several.
func squeezed(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	data := newData(t)
	w := busyWorld()
	w.functions = append(w.functions, control.Function{Key: "GET:/pong", Name: "ping"}, control.Function{Key: "GET:/x", Name: "a b"})
	end, err := serveWorld(data, w)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for _, law := range []struct {
		args []string
		want string // the first lines
	}{
		{[]string{"get", "--data", data, ""}, "ping\nlong\n:4\n"},
		{[]string{"--data", data, "logs", ""}, "ping\nlong\n:4\n"},
		{[]string{"get", "--data", newData(t), ""}, ":4\n"},
		{[]string{"get", "--data", data, "ping", ""}, ":4\n"},
		{[]string{"new", ""}, "c\ncpp\ngo\n"},
		{[]string{"new", "go", ""}, ":4\n"},
		{[]string{"completion", ""}, "bash\nzsh\nfish\npowershell\n"},
		{[]string{"rollba"}, "rollback\tHave an older version of a function serve again\n:4\n"},
		{[]string{"deploy", "--target", ""}, "wasm\nnative\n:4\n"},
	} {
		got := baton(nil, append([]string{"__complete"}, law.args...)...)
		if got.code != exitOK || !strings.HasPrefix(got.out, law.want) {
			t.Errorf("complete %q: %+v, want %q", law.args, got, law.want)
		}
	}
	inEnvironment := func(c *commands) {
		c.env = func(name string) string { return map[string]string{"BATON_DATA": data}[name] }
	}
	if got := baton(inEnvironment, "__complete", "invoke", ""); !strings.HasPrefix(got.out, "ping\nlong\n") {
		t.Errorf("a data directory in the environment: %+v", got)
	}
	for _, shell := range shells {
		if got := baton(nil, "completion", shell); got.code != exitOK || !strings.Contains(got.out, "__complete") {
			t.Errorf("completion %s: %+.200v", shell, got)
		}
	}
}
