package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/deploy"
	"baton/gateway"
	"baton/internal/testenv"
)

func TestMain(m *testing.M) {
	if data := os.Getenv("BATON_TEST_SERVE"); data != "" {
		os.Exit(stoppable(data))
	}
	// The control plane's HTTP server starts a clock at its first answer, which
	// then runs for ever: before the leak check counts goroutines.
	if err := primeClock(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	awaitClock()
	os.Exit(testenv.Main(m))
}

// awaitClock returns when the clock sleeps: the leak check compares stacks.
func awaitClock() {
	stacks := make([]byte, 64<<10)
	for {
		text := string(stacks[:goruntime.Stack(stacks, true)])
		if i := strings.Index(text, "updateServerDate.func"); i >= 0 && strings.Contains(text[:i], "time.Sleep") {
			return
		}
		goruntime.Gosched()
	}
}

func primeClock() error {
	data, err := os.MkdirTemp("", "baton-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	end, err := serveWorld(data, &world{})
	if err != nil {
		return err
	}
	defer end()
	_, err = control.NewClient(data).Status(context.Background())
	return err
}

// stoppable is a server process that does nothing but stop: cleanly by the
// admin socket, with 9 by SIGTERM.
func stoppable(data string) int {
	w := &world{stopped: make(chan struct{})}
	end, err := serveWorld(data, w)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	self, err := gateway.Self()
	if err == nil {
		err = os.WriteFile(pidFile(data), fmt.Appendf(nil, "%d %d\n", self.PID, self.Start), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("up")
	<-w.stopped
	end()
	return 0
}

func pidFile(data string) string { return filepath.Join(data, "run", "serve.pid") }

// world is a control plane's backend that says what a test wants.
type world struct {
	functions []control.Function
	workers   []control.Worker
	status    control.Status
	stopped   chan struct{}
	once      sync.Once
}

func (w *world) Functions() []control.Function { return w.functions }
func (w *world) Workers() []control.Worker     { return w.workers }
func (w *world) Status() control.Status        { return w.status }
func (w *world) Stop()                         { w.once.Do(func() { close(w.stopped) }) }
func (w *world) Started(int) bool              { return false }

// serveWorld is the control plane of a data directory, without a gateway.
func serveWorld(data string, w *world) (end func(), err error) {
	if err := deploy.MakeTree(data); err != nil {
		return nil, err
	}
	if _, err := control.CreateToken(data); err != nil {
		return nil, err
	}
	token, err := control.LoadToken(data)
	if err != nil {
		return nil, err
	}
	s, err := control.New(control.Config{Backend: w, Token: token, AdminToken: true})
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(data, "run"), 0o700); err != nil {
		return nil, err
	}
	if err := s.ListenAdmin(control.AdminSocket(data)); err != nil {
		return nil, err
	}
	return func() { _ = s.Shutdown(context.Background()) }, nil
}

// told is what one run of baton said.
type told struct {
	code     int
	out, err string
}

// baton runs the program in this process. change may be nil.
func baton(change func(*commands), args ...string) told {
	var out, err bytes.Buffer
	c := &commands{out: &out, err: &err, env: func(string) string { return "" }, now: func() time.Time { return then.Add(90 * time.Minute) },
		demo: func() ([]byte, error) { return []byte("\x00asm\x01\x00\x00\x00"), nil }}
	if change != nil {
		change(c)
	}
	return told{c.run(args), out.String(), err.String()}
}

var then = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// newData is a private directory that is not there yet.
func newData(t *testing.T) string { return filepath.Join(t.TempDir(), "data") }

// golden compares with testdata/NAME, or rewrites it. The data directory's name
// is replaced.
func golden(t *testing.T, name, data, got string) {
	t.Helper()
	got = strings.ReplaceAll(got, data, "DATA")
	path := filepath.Join("testdata", name)
	if os.Getenv("BATON_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

func busyWorld() *world {
	return &world{
		functions: []control.Function{
			{Key: "GET:/ping", State: control.Serving, Name: "ping", Runtime: "wasm", Invocations: 12345, Inflight: 2},
			{Key: "POST:/a/rather/long/path/:id", State: control.Stale, Name: "long", Runtime: "wasm", Errors: 3,
				Error: "memory: want a whole number of MB, 1 to 4096, got \"lots\"\nhandlr: want a known field (handler?)"},
			{Key: "PUT:/\x1b[31mred\tx", State: control.Bad, Error: "name: want letters\x07"},
		},
		workers: []control.Worker{
			{Worker: 0, PID: 4711, State: control.Ready, Load: "idle", CPU: 1.25, Mem: 2, IO: 0, Score: 12.345, Inflight: 2, Conns: 64, Requests: 12345, Errors: 3},
			{Worker: 1, State: "starting", CPU: -1, Mem: -1, IO: -1, Score: -1, Restarts: 2},
		},
		status: control.Status{Version: "0.0.0-test", PID: 4242, Started: then, Listen: "127.0.0.1:8080", Data: "/srv/baton", Ready: true, Loaded: true,
			Generation: 17, Routes: 2, Database: "locked by another process", Connections: 64, Queued: 1,
			Isolation: []control.Layer{{Name: "wasm", Active: true, Detail: "memory and host calls"}, {Name: "landlock", Detail: "not in this kernel"}}},
	}
}

func TestGoldenOutputs(t *testing.T) {
	t.Parallel()
	data := newData(t)
	end, err := serveWorld(data, busyWorld())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	for _, law := range []struct {
		file string
		args []string
	}{
		{"ls.txt", []string{"ls"}},
		{"ls.json", []string{"ls", "--json"}},
		{"status.txt", []string{"status"}},
		{"status.json", []string{"status", "--json"}},
	} {
		got := baton(nil, append(law.args, "--data", data)...)
		if got.code != exitOK || got.err != "" {
			t.Errorf("baton %v: %d, %s", law.args, got.code, got.err)
		}
		golden(t, law.file, data, got.out)
		for i, line := range strings.Split(got.out, "\n") {
			if strings.HasSuffix(line, " ") || strings.ContainsAny(line, "\x1b\x07\t") {
				t.Errorf("%s, line %d: %q has a blank at its end, or moves the cursor", law.file, i+1, line)
			}
		}
		if strings.HasSuffix(law.file, ".json") && !json.Valid([]byte(got.out)) {
			t.Errorf("%s is not JSON", law.file)
		}
	}
}

func TestGoldenEmpty(t *testing.T) {
	t.Parallel()
	data := newData(t)
	end, err := serveWorld(data, &world{status: control.Status{Started: then, Draining: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if got := baton(nil, "ls", "--data", data); got.code != exitOK || got.out != "no functions; `baton new go hello` begins one, `baton init` adds the demo\n" {
		t.Errorf("ls: %+v", got)
	}
	if got := baton(nil, "ls", "--json", "--data", data); got.out != "[]\n" {
		t.Errorf("ls --json: %+v, want []", got)
	}
	if got := baton(nil, "status", "--data", data); got.code != exitOK || !strings.HasPrefix(got.out, "state         stopping\n") {
		t.Errorf("status: %+v", got)
	}
}

// TestGoldenHelp: every command has a help with an example, and each setting a
// twin in the environment. What says what one call is to do has none.
func TestGoldenHelp(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	shortened := map[string]bool{"invoke": true, "logs": true} // all of their flags but --json are of one call
	ofOneCall := map[string]bool{"serve check": true, "prepare cache": true, "dev port": true, "restore force": true}
	for _, flag := range []string{"descriptor", "name", "route", "runtime", "handler", "target", "env", "memory", "timeout"} {
		ofOneCall["deploy "+flag], ofOneCall["dev "+flag] = true, true
	}
	for _, name := range []string{"", "init", "serve", "status", "stop", "backup", "restore", "token", "token rotate", "new", "deploy", "dev", "ls", "get", "invoke",
		"logs", "versions", "rollback", "rm", "version", "completion", "worker", "prepare"} {
		args := append(strings.Fields(name), "--help")
		got := baton(nil, args...)
		if got.code != exitOK || got.err != "" {
			t.Errorf("baton %v: %d, %s", args, got.code, got.err)
		}
		if !strings.Contains(got.out, "Examples:\n  baton ") {
			t.Errorf("baton %v: no example", args)
		}
		for line := range strings.Lines(got.out) {
			flag, isFlag := strings.CutPrefix(line, "      --")
			if word, _, _ := strings.Cut(flag, " "); isFlag && !ofOneCall[name+" "+word] && !strings.Contains(flag, "(BATON_") && !shortened[name] {
				t.Errorf("baton %v: no variable for --%s", args, flag)
			}
		}
		fmt.Fprintf(&all, "$ baton %s\n%s\n", strings.Join(args, " "), got.out)
	}
	golden(t, "help.txt", "?", all.String())
}

func TestRunLaw(t *testing.T) {
	t.Parallel()
	data := newData(t)
	for _, law := range []struct {
		name string
		args []string
		env  string
		code int
		err  string // a part of what standard error says
	}{
		{"no command", nil, "", exitUsage, "which command?"},
		{"an unknown command", []string{"frobnicate"}, "", exitUsage, `no command "frobnicate"`},
		{"a command with a slip", []string{"stauts"}, "", exitUsage, "did you mean status"},
		{"an unknown flag", []string{"ls", "--colour"}, "", exitUsage, "`baton ls --help`"},
		{"an argument too many", []string{"stop", "now"}, "", exitUsage, `"now": this command takes no arguments`},
		{"an empty data directory name", []string{"ls", "--data", ""}, "", exitUsage, "--data is empty"},
		{"too many workers", []string{"serve", "--workers", "65"}, "", exitUsage, "want 0 (one per CPU) to 64"},
		{"workers below zero", []string{"serve", "--workers", "-1"}, "", exitUsage, "--workers -1"},
		{"every fault at once", []string{"serve", "--workers", "-1", "--drain", "0s"}, "", exitUsage, "--drain 0s"},
		{"a layer that there is not", []string{"serve", "--without", "landlock,doors"}, "", exitUsage, `no layer "doors"`},
		{"a wrong address", []string{"serve", "--listen", "8080"}, "", exitUsage, "want HOST:PORT"},
		{"a port too high", []string{"serve", "--listen", ":65536"}, "", exitUsage, "want HOST:PORT"},
		{"a wrong number in the environment", []string{"serve"}, "BATON_WORKERS=many", exitUsage, `BATON_WORKERS="many" in the environment`},
		{"a flag beats a wrong environment", []string{"serve", "--workers", "65"}, "BATON_WORKERS=many", exitUsage, "--workers 65"},
		{"a wait of nothing", []string{"stop", "--wait", "0s"}, "", exitUsage, "--wait 0s"},
		{"ls without a server", []string{"ls", "--data", data}, "", exitFailure, "start one with `baton serve --data " + data},
		{"status without a server", []string{"status", "--data", data}, "", exitFailure, "start one with `baton serve"},
		{"status of a data directory in the environment", []string{"status"}, "BATON_DATA=" + data, exitFailure, data},
		{"stop without a server", []string{"stop", "--data", data}, "", exitOK, ""},
		{"version", []string{"version"}, "", exitOK, ""},
		{"completion", []string{"completion", "bash"}, "", exitOK, ""},
	} {
		variable, value, _ := strings.Cut(law.env, "=")
		got := baton(func(c *commands) {
			c.env = func(name string) string {
				if name == variable {
					return value
				}
				return ""
			}
		}, law.args...)
		if got.code != law.code || !strings.Contains(got.err, law.err) || (law.code == exitOK) != (got.err == "") {
			t.Errorf("%s: baton %v: %+v, want code %d and %q", law.name, law.args, got, law.code, law.err)
		}
	}
}

func TestEnvironmentAndFlags(t *testing.T) {
	t.Parallel()
	for _, law := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"the default", nil, nil, ":8080"},
		{"the variable", map[string]string{"BATON_LISTEN": ":1"}, nil, ":1"},
		{"the flag wins", map[string]string{"BATON_LISTEN": ":1"}, []string{"--listen", ":2"}, ":2"},
		{"an empty variable says nothing", map[string]string{"BATON_LISTEN": ""}, nil, ":8080"},
	} {
		c := &commands{out: &bytes.Buffer{}, err: &bytes.Buffer{}, env: func(name string) string { return law.env[name] }}
		root := c.root()
		cmd, args, err := root.Find(append([]string{"serve"}, law.args...))
		if err != nil {
			t.Fatal(err)
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return nil }
		root.SetArgs(append([]string{"serve"}, args...))
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		if got := cmd.Flag("listen").Value.String(); got != law.want {
			t.Errorf("%s: --listen is %s, want %s", law.name, got, law.want)
		}
	}
}

func TestParseListen(t *testing.T) {
	t.Parallel()
	for _, law := range [][2]string{
		{":8080", "[::]:8080"},
		{"0.0.0.0:80", "0.0.0.0:80"},
		{"[::1]:0", "[::1]:0"},
		{"[::ffff:127.0.0.1]:1", "127.0.0.1:1"},
		{"localhost:8080", "127.0.0.1:8080"},
		{"127.0.0.1:http", "127.0.0.1:80"},
		{"127.0.0.1", ""},
		{"127.0.0.1:", "127.0.0.1:0"},
		{"127.0.0.1:-1", ""},
		{"::1:80", ""},
		{"", ""},
	} {
		got, err := parseListen(t.Context(), law[0])
		if law[1] == "" && err == nil || law[1] != "" && (err != nil || got.String() != law[1]) {
			t.Errorf("parseListen(%q) = %v, %v; want %q", law[0], got, err, law[1])
		}
	}
}

// startStoppable starts a server process on data; it is reaped at the end.
func startStoppable(t *testing.T, data string) (*exec.Cmd, chan error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "BATON_TEST_SERVE="+data)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 2)); n != 2 {
		t.Fatalf("the server did not come up: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, ended
}

func TestStopAsksAndAwaitsTheEnd(t *testing.T) {
	t.Parallel()
	data := newData(t)
	cmd, ended := startStoppable(t, data)
	got := baton(nil, "stop", "--data", data)
	if want := fmt.Sprintf("stopped process %d\n", cmd.Process.Pid); got.code != exitOK || got.out != want {
		t.Errorf("stop: %+v, want %q", got, want)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v, want a clean end: it was to be asked, not signalled", err)
	}
	if got := baton(nil, "stop", "--data", data); got.code != exitOK || !strings.HasPrefix(got.out, "no server runs on ") {
		t.Errorf("a second stop: %+v, want no failure", got)
	}
}

func TestStopSignalsWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	data := newData(t)
	cmd, ended := startStoppable(t, data)
	if err := os.Remove(control.AdminSocket(data)); err != nil {
		t.Fatal(err)
	}
	if got := baton(nil, "stop", "--data", data); got.code != exitOK {
		t.Errorf("stop: %+v", got)
	}
	var exit *exec.ExitError
	if err := <-ended; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("process %d ended with %v, want SIGTERM", cmd.Process.Pid, err)
	}
}

func TestStopGivesUp(t *testing.T) {
	t.Parallel()
	data := newData(t)
	cmd, ended := startStoppable(t, data)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(control.AdminSocket(data)); err != nil {
		t.Fatal(err)
	}
	got := baton(nil, "stop", "--data", data, "--wait", "50ms")
	if got.code != exitFailure || !strings.Contains(got.err, "has not ended within 50ms") || !strings.Contains(got.err, "kill -9") {
		t.Errorf("stop of a process that hangs: %+v", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// A pid file that names another process than the one that wrote it hits nobody:
// here it names this test.
func TestStopNeverHitsAnother(t *testing.T) {
	t.Parallel()
	self, err := gateway.Self()
	if err != nil {
		t.Fatal(err)
	}
	start := fmt.Sprint(self.Start)
	for _, law := range []struct {
		name, file string
		code       int
	}{
		{"another start time", fmt.Sprintf("%d %s1\n", os.Getpid(), start), exitOK},
		{"no such process", "4194305 1\n", exitOK},
		{"no start time", fmt.Sprintf("%d\n", os.Getpid()), exitFailure},
		{"every process", "-1 " + start + "\n", exitFailure},
		{"the group", "0 " + start + "\n", exitFailure},
		{"no number", "all of them\n", exitFailure},
		{"nothing", "", exitFailure},
	} {
		data := newData(t)
		if err := os.MkdirAll(filepath.Join(data, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pidFile(data), []byte(law.file), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := baton(nil, "stop", "--data", data); got.code != law.code {
			t.Errorf("%s: %+v, want code %d", law.name, got, law.code)
		}
	}
}

func TestPlain(t *testing.T) {
	t.Parallel()
	if got := plain("a\x1b[31mb\tc\nd\u009be\x7f\xffü"); got != "a?[31mb?c?d?e?\ufffdü" {
		t.Errorf("plain = %q", got)
	}
}
