package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// commandPatience bounds one command: a first Go build on two busy cores, with
// the race detector beside it, takes a minute or two.
const commandPatience = 5 * time.Minute

// shell is where commands run, and for which server.
type shell struct {
	t   *testing.T
	dir string
	env []string
}

func newShell(t *testing.T, s *testenv.Server) *shell {
	t.Helper()
	return &shell{t: t, dir: t.TempDir(), env: append(os.Environ(), "BATON_DATA="+s.Data)}
}

func (s *shell) command(ctx context.Context, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.CommandContext(ctx, testenv.Binary(s.t), args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	return cmd
}

// told is what a command said.
type told struct {
	out, err string
	code     int
}

func (s *shell) baton(args ...string) told { return s.batonWith("", args...) }

func (s *shell) batonWith(stdin string, args ...string) told {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := s.command(ctx, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	var exit *exec.ExitError
	if e := cmd.Run(); e != nil && !errors.As(e, &exit) || ctx.Err() != nil {
		s.t.Fatalf("baton %s: %v\n%s", strings.Join(args, " "), errors.Join(e, ctx.Err()), err.String())
	}
	return told{out.String(), err.String(), cmd.ProcessState.ExitCode()}
}

// must is baton for what has to succeed, and to say every part of want.
func (s *shell) must(args []string, want ...string) told {
	s.t.Helper()
	got := s.baton(args...)
	s.check(args, got, 0, got.out, want...)
	return got
}

// fails is baton for what has to end with code, and to say why.
func (s *shell) fails(code int, args []string, want ...string) told {
	s.t.Helper()
	got := s.baton(args...)
	s.check(args, got, code, got.err, want...)
	return got
}

func (s *shell) check(args []string, got told, code int, text string, want ...string) {
	s.t.Helper()
	for _, part := range append(want, "") {
		if got.code != code || !strings.Contains(text, part) {
			s.t.Fatalf("baton %s: %d\n%s%s\nwant %d with %q", strings.Join(args, " "), got.code, got.out, got.err, code, part)
		}
	}
}

func (s *shell) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func words(line string) []string { return strings.Fields(line) }

// saying is a C program that answers with a text, and logs it.
func saying(text string) string {
	return fmt.Sprintf("#include <stdio.h>\nint main(void) { fprintf(stderr, \"logged %[1]s\\n\"); printf(\"{\\\"says\\\":\\\"%[1]s\\\"}\"); return 0; }\n", text)
}

// TestCommandLineLife is a function's life as its author sees it: begun, deployed,
// called, looked at, deployed again, rolled back, removed.
func TestCommandLineLife(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "clang")
	server := testenv.Start(t, testenv.Options{Workers: 2})
	s := newShell(t, server)

	s.must(words("new c hello"), "wrote hello/descriptor.json, hello/main.c\n\nNext: baton deploy hello\n")
	got := s.must(words("deploy hello --target wasm"), "version 1 of hello serves, built in ", "http://"+server.Addr+"/api/hello\n")
	// What it prints to be tried, works.
	command := regexp.MustCompile(`curl -d '([^']*)' http://([^/]*)(/\S*)\n`).FindStringSubmatch(got.out)
	if command == nil {
		t.Fatalf("deploy prints no command to try: %q", got.out)
	}
	r, err := testenv.Do(command[2], post(command[3], command[1]))
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 200, fmt.Sprintf(`"Hello from C","method":"POST","bytes":%d`, len(command[1])))
	if got := s.must([]string{"invoke", "hello", "-d", "abc"}); got.out != `{"message":"Hello from C","method":"POST","bytes":3}`+"\n" {
		t.Errorf("invoke: %+v", got)
	}
	if got := s.batonWith("of standard input", words("invoke hello -X PUT -d - -i -H X-A:b")...); got.code != 0 ||
		!strings.HasPrefix(got.out, "HTTP/1.1 200 OK\n") || !strings.Contains(got.out, "\n\n{") || !strings.Contains(got.out, `"method":"PUT","bytes":17`) {
		t.Errorf("invoke -i: %+v", got)
	}
	s.must(words("ls"), "/api/hello  hello     c        serving")
	s.must(words("get hello"), "route         ANY /api/hello\n", "http://"+server.Addr+"/function/hello\n", "version       1 of 1 that are kept\n", "answered      3, of them 0 errors")

	s.write("hello/main.c", saying("two"))
	s.must(words("deploy hello --target wasm"), "version 2 of hello serves, built in")
	s.must(words("invoke hello"), `{"says":"two"}`)
	s.must(words("deploy hello --target wasm"), "version 2 of hello serves already")
	s.must(words("deploy hello --target wasm --memory 64"), "version 3 of hello serves, without a new build")
	// The descriptor alone: as a file, without code.
	s.write("alone.json", `{"name":"hello","runtime":"c","target":"wasm","path":"/api/hello","memory":64,"env":{"A":"b"}}`)
	s.must(words("deploy --descriptor alone.json"), "version 4 of hello serves, without a new build")
	s.fails(1, words("deploy --descriptor alone.json --target native"), "name the folder or file with the code")
	s.must(words("rollback hello 3"), "version 3 of hello serves\n")
	var versions []struct {
		Version    int
		Active     bool
		Descriptor struct{ Memory int }
	}
	if err := json.Unmarshal([]byte(s.must(words("versions hello --json")).out), &versions); err != nil || len(versions) != 4 ||
		!versions[1].Active || versions[1].Version != 3 || versions[1].Descriptor.Memory != 64 {
		t.Errorf("versions: %+v, %v", versions, err)
	}
	s.must(words("rollback hello 1"), "version 1 of hello serves\n")
	s.must(words("invoke hello"), "Hello from C")
	s.must(words("rollback hello 2"), "version 2 of hello serves\n")
	s.must(words("invoke hello"), `{"says":"two"}`)
	s.fails(1, words("rollback hello 9"), "version 9 is not kept; there are 1, 2, 3, 4")
	s.must(words("versions hello"), "\n2        *")

	// Each worker writes its own log, within 50 ms.
	testenv.Until(t, "both lines are in the log", func() bool { return strings.Count(s.baton("logs", "hello").out, "  logged two\n") == 2 })
	id := regexp.MustCompile(`v3?2?  (\S+)  logged two`).FindStringSubmatch(s.must(words("logs hello -n 1")).out)
	if id == nil {
		t.Fatal("a line of the log has no request's id")
	}
	if got := s.must(words("logs hello --json --request " + id[1])); strings.Count(got.out, "\n") != 1 || !json.Valid([]byte(got.out)) {
		t.Errorf("the log of one request: %+v", got)
	}

	s.must(words("rm hello"), "removed hello\n")
	s.fails(1, words("invoke hello"), "hello answered 404 Not Found: is there a function of this name?")
	s.fails(1, words("get hello"), "`baton ls` lists the functions")
	s.fails(1, words("rm hello"), "`baton ls` lists the functions")
	s.fails(1, words("logs nobody"), "`baton ls` lists the functions")
}

// A program that does not compile: the compiler's words, whole, and 1; what
// served before serves.
func TestDeployThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "clang")
	server := testenv.Start(t, testenv.Options{Workers: 1})
	s := newShell(t, server)
	s.write("f.c", saying("one"))
	s.must(words("deploy f.c --target wasm"), "version 1 of f serves")
	s.write("f.c", "int main(void) { return first; }\nint f(void) { return second; }\n")
	for _, args := range [][]string{words("deploy f.c"), words("deploy f.c --json")} {
		got := s.fails(1, args, "f.c:1:25: error: use of undeclared identifier 'first'", "f.c:2:22: error: use of undeclared identifier 'second'",
			"2 errors generated.", "baton: the program does not compile")
		if got.out != "" || strings.Count(got.err, "'first'") != 1 {
			t.Errorf("%q: %+v; want the compiler's words once, and nothing else", args, got)
		}
	}
	s.must(words("invoke f"), `{"says":"one"}`)
	s.write("g/descriptor.json", `{"name":"g","runtime":"c","memry":1,"timeout":"long"}`)
	s.write("g/main.c", saying("g"))
	s.fails(1, words("deploy g"), `memry: want a known field; did you mean "memory"?`, "timeout: want a number of seconds")
	// What only the server knows.
	s.write("h.c", saying("h"))
	s.fails(1, []string{"deploy", "h.c", "--route", "GET /ping"}, "the route GET:/ping is that of ping: choose another one")
}

// From another machine: through the port, with the token in a file, which rotate
// replaces.
func TestCommandLineRemote(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "clang")
	server := testenv.Start(t, testenv.Options{Workers: 1})
	s := newShell(t, server)
	s.env = append(os.Environ(), "BATON_SERVER=http://"+server.Addr, "BATON_TOKEN_FILE="+filepath.Join(s.dir, "token"), "BATON_DATA="+filepath.Join(s.dir, "none"))
	if err := os.WriteFile(filepath.Join(s.dir, "token"), []byte(server.Token(t)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.write("far/main.c", saying("far"))
	s.write("far/more.c", "int more;\n")
	s.must([]string{"deploy", "far", "--target", "wasm", "--route", "GET /far"}, "version 1 of far serves", "  curl http://"+server.Addr+"/far\n")
	s.must(words("invoke far"), `{"says":"far"}`)
	s.must(words("status"), "state         serving")
	old := server.Token(t)
	s.must(words("token rotate"), "the new one is in "+filepath.Join(s.dir, "token"))
	text, err := os.ReadFile(filepath.Join(s.dir, "token"))
	if err != nil || strings.TrimSpace(string(text)) == old || strings.TrimSpace(string(text)) != server.Token(t) {
		t.Errorf("the token's file has another one than the server: %v", err)
	}
	s.must(words("ls"), "/far")
	if err := os.WriteFile(filepath.Join(s.dir, "token"), []byte(old+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.fails(1, words("ls"), "refuses the token in "+filepath.Join(s.dir, "token"))
	s.must(words("invoke far"), `{"says":"far"}`) // functions are public
	if _, err := os.Stat(filepath.Join(s.dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a data directory was made here: %v", err)
	}
}

// Each starter that this machine can build answers when it was deployed.
func TestStarters(t *testing.T) {
	t.Parallel()
	server := testenv.Start(t, testenv.Options{Workers: 1})
	for _, law := range []struct {
		runtime, args, says string
		needs               []string
	}{
		{"wasm", "", `{"message":"Hello from WebAssembly"}`, nil},
		{"c", "", `{"message":"Hello from C","method":"POST","bytes":14}`, []string{"gcc"}},
		{"c", "--name c-wasm --route /c-wasm --target wasm", `{"message":"Hello from C","method":"POST","bytes":14}`, []string{"clang"}},
		{"cpp", "", `{"message":"Hello from C++","method":"POST","bytes":14}`, []string{"g++"}},
		{"rust", "", `{"message":"Hello from Rust","method":"POST","bytes":14}`, []string{"cargo"}},
		{"python", "", `{"message": "Hello, Bob", "method": "POST"}`, []string{"python3"}},
		{"php", "", `{"message":"Hello, Bob","method":"POST"}`, []string{"php", "php-cgi"}},
		{"native", "", `{"message":"Hello from a script","method":"POST","bytes":14}`, nil},
		{"tinygo", "", `{"message":"Hello from TinyGo","method":"POST","bytes":14}`, []string{"tinygo"}},
		{"go", "", `{"message":"Hello, Bob","method":"POST"}`, []string{"go"}},
	} {
		t.Run(law.runtime+law.args, func(t *testing.T) {
			testenv.Need(t, law.needs...)
			s := newShell(t, server)
			s.must(words("new " + law.runtime + " begun-" + law.runtime))
			args := words("deploy begun-" + law.runtime + " " + law.args)
			got := s.must(args, "version 1 of ")
			name := strings.Fields(got.out)[3]
			s.must([]string{"invoke", name, "-d", `{"name":"Bob"}`}, law.says)
		})
	}
}

// A backup that is made while functions are called and deployed: what it is
// restored to answers the same.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "clang")
	server := testenv.Start(t, testenv.Options{Workers: 2})
	s := newShell(t, server)
	s.write("still.c", saying("still"))
	s.must([]string{"deploy", "still.c", "--target", "wasm", "--route", "GET /still"})
	s.write("moving.c", saying("moving"))
	s.must([]string{"deploy", "moving.c", "--target", "wasm", "--route", "GET /moving"})

	stop := make(chan struct{})
	var load sync.WaitGroup
	var failed error
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := testenv.Get(server.Addr, "/still"); err != nil || r.Status != 200 {
				failed = errors.Join(failed, fmt.Errorf("while it is backed up: %d, %w", r.Status, err))
				return
			}
		}
	})
	load.Go(func() { // each a new version, of the descriptor alone
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s.baton("deploy", "moving.c", "--env", fmt.Sprint("N=", i))
		}
	})
	backups := []string{"one.tar", "two.tar", "three.tar"}
	for _, name := range backups {
		s.must([]string{"backup", name}, "wrote "+name+": ")
	}
	close(stop)
	load.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	for _, name := range backups {
		data := filepath.Join(t.TempDir(), "restored")
		s.must([]string{"restore", name, "--data", data}, "admin token     "+filepath.Join(data, "admin.token")+" (new)", "Next: baton serve --data "+data)
		restored := testenv.Start(t, testenv.Options{Data: data, Workers: 1})
		for path, says := range map[string]string{"/still": `{"says":"still"}`, "/moving": `{"says":"moving"}`, "/ping": `"pong":true`} {
			r, err := testenv.Get(restored.Addr, path)
			if err != nil {
				t.Fatal(err)
			}
			want(t, r, 200, says)
		}
		if output, code := restored.Baton(t, "status", "--json"); code != 0 || !strings.Contains(output, `"badRows": []`) {
			t.Errorf("%s: rows are refused: %s", name, output)
		}
		s.fails(1, []string{"restore", name, "--data", data, "--force"}, "is already being served by process", "`baton stop --data ")
		restored.Stop(t)
	}
	s.fails(1, []string{"restore", "one.tar"}, "is already being served by process")
}

// Ctrl-C ends a deploy: nothing of it is left, and nothing serves.
func TestDeployInterrupted(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "go")
	server := testenv.Start(t, testenv.Options{Workers: 1})
	s := newShell(t, server)
	s.must(words("new go slow")) // the first Go build compiles the library too
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := s.command(ctx, "deploy", "slow")
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	builds := func() int {
		found, _ := filepath.Glob(filepath.Join(server.Data, "tmp", "*-*"))
		return len(found)
	}
	testenv.Until(t, "the build runs", func() bool {
		found, _ := filepath.Glob(filepath.Join(server.Data, "tmp", "build-*"))
		return len(found) > 0
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 130 || !strings.Contains(text.String(), "baton: interrupted: the deploy was given up") || out.Len() > 0 {
		t.Errorf("deploy, interrupted: %d, %q, %q", cmd.ProcessState.ExitCode(), out.String(), text.String())
	}
	testenv.Until(t, "nothing of the build is left", func() bool { return builds() == 0 })
	s.fails(1, words("get slow"), "there is no function of this name")
}

// TestFollowLogs: what is logged comes while it is logged.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "clang")
	server := testenv.Start(t, testenv.Options{Workers: 1})
	s := newShell(t, server)
	s.write("chat.c", saying("hi"))
	s.must([]string{"deploy", "chat.c", "--target", "wasm", "--route", "/chat"})
	cmd, out := s.background("logs", "chat", "-f", "--json")
	r, err := testenv.Get(server.Addr, "/chat")
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 200, "hi")
	testenv.Until(t, "the line is told", func() bool { return strings.Contains(out.String(), `"text":"logged hi"`) })
	server.Stop(t)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("when the server ends: %v, want 1\n%s", err, out.String())
	}
}

// background starts a command and collects all that it says. It is killed at the
// test's end, when it still runs.
func (s *shell) background(args ...string) (*exec.Cmd, *collector) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	cmd := s.command(ctx, args...)
	out := &collector{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		cancel()
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // an error says that it was waited for
	})
	return cmd, out
}

type collector struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

func (c *collector) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

// TestDevCommand: a function is served while it is written; faults are told and
// end nothing; Ctrl-C leaves nothing.
func TestDevCommand(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "clang")
	testenv.Binary(t)
	caches, temporary := t.TempDir(), t.TempDir()
	s := &shell{t: t, dir: t.TempDir(), env: append(os.Environ(), "XDG_CACHE_HOME="+caches, "TMPDIR="+temporary)}
	s.write("now/main.c", saying("one"))
	s.write("now/descriptor.json", `{"runtime":"c","target":"wasm","path":"/now"}`)
	cmd, out := s.background("dev", "now")
	says := func(text string) func() bool {
		return func() bool { return strings.Contains(out.String(), text) }
	}
	await := func(text string) {
		t.Helper()
		testenv.UntilWithin(t, time.Minute, "dev says "+text+"; it has said: "+out.String(), says(text))
	}
	await("version 1 of now serves")
	address := regexp.MustCompile(`http://(127\.0\.0\.1:\d+) serves now until Ctrl-C`).FindStringSubmatch(out.String())
	if address == nil {
		t.Fatalf("no address: %s", out.String())
	}
	answers := func(path, text string) {
		t.Helper()
		testenv.UntilWithin(t, time.Minute, path+" answers "+text, func() bool {
			r, err := testenv.Get(address[1], path)
			return err == nil && r.Status == http.StatusOK && strings.Contains(string(r.Body), text)
		})
	}
	answers("/now", `"one"`)
	await("logged one")
	s.write("now/main.c", "int main(void) { return wrong; }\n")
	await("use of undeclared identifier 'wrong'")
	await("baton: the program does not compile")
	answers("/now", `"one"`)
	s.write("now/descriptor.json", `{"runtime":"c","target":"wasm","path":"now"}`)
	await("path: want")
	s.write("now/main.c", saying("two"))
	s.write("now/descriptor.json", `{"runtime":"c","target":"wasm","path":"/later"}`)
	answers("/later", `"two"`)

	// Another one at the same time has a data directory of its own.
	other, otherOut := s.background("dev", "now")
	testenv.UntilWithin(t, time.Minute, "a second dev serves", func() bool { return strings.Contains(otherOut.String(), "version 1 of now serves") })
	for _, ends := range []*exec.Cmd{other, cmd} {
		if err := ends.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := ends.Wait(); err != nil {
			t.Errorf("dev, interrupted: %v, want a clean end\n%s%s", err, out.String(), otherOut.String())
		}
	}
	if left, _ := os.ReadDir(temporary); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for dir, names := range map[string]string{"baton": "dev dev.lock", "baton/dev": "cache", "baton/dev/cache": "build"} {
		var got []string
		entries, err := os.ReadDir(filepath.Join(caches, dir))
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if err != nil || strings.Join(got, " ") != names {
			t.Errorf("in %s there is %q, %v; want %s", dir, got, err, names)
		}
	}
	if _, err := testenv.Get(address[1], "/later"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the end it answers: %v", err)
	}
}
