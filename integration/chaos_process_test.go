package integration

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// stop stops processes, all threads of each (kill(2) returns before they are),
// and has them go on when the test ends, if not before.
func stop(t testing.TB, pids ...int) (goOn func()) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		awaitProcess(t, pid, "T")
	}
	goOn = func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
		}
	}
	t.Cleanup(goOn)
	return goOn
}

// A pause shorter than --stall costs nothing but time: of the workers, of the
// gateway for longer than --stall (whose own clock is then the wrong one), and
// of all of them.
func TestChaosPauses(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 2, Args: []string{"--stall", "4s"}})
	before := workersOf(t, s)
	var pids []int
	for pid := range before {
		pids = append(pids, pid)
	}
	for _, tc := range []struct {
		name   string
		paused []int
		pause  time.Duration
	}{
		{"workers, below stall", pids, 700 * time.Millisecond},
		{"gateway, above stall", []int{s.Pid}, 4500 * time.Millisecond},
		{"all, above stall", append([]int{s.Pid}, pids...), 4500 * time.Millisecond},
	} {
		held := testenv.Dial(t, s.Addr)
		held.Send(t, get("/ping"))
		want(t, held.Response(t), 200, "pong")
		goOn := stop(t, tc.paused...)
		conns := make([]*testenv.Conn, 20)
		for i := range conns {
			conns[i] = testenv.Dial(t, s.Addr)
			conns[i].Send(t, get("/ping"))
		}
		held.Send(t, get("/ping"))
		conns[0].WantSilence(t, tc.pause)
		goOn()
		want(t, held.Response(t), 200, "pong")
		for _, c := range conns {
			want(t, c.Response(t), 200, "pong")
		}
		if after := workersOf(t, s); !maps.Equal(before, after) {
			t.Errorf("%s: workers %v were replaced by %v", tc.name, before, after)
		}
	}
}

// Workers that stand still for longer than --stall are replaced, and what they
// had and had not read yet is served by their successors.
func TestChaosAllWorkersStall(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 2, Args: []string{"--stall", "3s"}})
	for pid := range workersOf(t, s) {
		stop(t, pid)
	}
	for range 30 {
		c := testenv.Dial(t, s.Addr)
		c.Send(t, get("/ping"))
		defer func() { want(t, c.Response(t), 200, "pong") }()
	}
}

// A pid file that an earlier process left behind names a number, and that may
// be another process's by now: it is left alone.
func TestChaosStalePidFile(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	s.Signal(syscall.SIGKILL)
	s.Wait(t)
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	path := filepath.Join(s.Data, "run", "serve.pid")
	line, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	start := strings.Fields(string(line))[1]
	for _, pid := range []int{other.Process.Pid, os.Getpid(), 1} {
		if err := os.WriteFile(path, fmt.Appendf(nil, "%d %s\n", pid, start), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := s.Baton(t, "stop"); code != 0 || !strings.Contains(out, "no server runs") {
			t.Errorf("stop with a stale pid file that names %d: exit %d, %s", pid, code, out)
		}
	}
	for _, text := range []string{"", "what", "-1 1\n", "0 0\n", "99999999999 1\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = s.Baton(t, "stop", "--wait", "1s")
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process that the stale file named: %v", err)
	}
	second := testenv.Start(t, testenv.Options{Data: s.Data, Listen: s.Addr, Workers: 1})
	if r, err := testenv.Get(second.Addr, "/ping"); err != nil || r.Status != 200 {
		t.Errorf("over what a killed server left: %d, %v", r.Status, err)
	}
}

// The reader of the log is gone: what is served goes on, also when a worker's
// death has the gateway write into the broken pipe.
func TestChaosClosedLog(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	first := testenv.Start(t, testenv.Options{Data: initialised(t, data), Workers: 1})
	first.Stop(t)
	addr := testenv.FreeAddr(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.Binary(t), "serve", "--data", data, "--listen", addr, "--workers", "1")
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_, _ = r.Close(), w.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the server ended: %v", err)
			}
		case <-time.After(2 * testenv.Patience()):
			_ = cmd.Process.Kill()
			t.Errorf("the server does not stop: %v", <-ended)
		}
	}()
	serves := func() bool {
		r, err := testenv.Get(addr, "/ping")
		return err == nil && r.Status == 200
	}
	testenv.Until(t, "the server serves", serves)
	s := &testenv.Server{Addr: addr, Data: data, Pid: cmd.Process.Pid}
	for pid := range childWorkers(s) {
		kill(t, pid)
	}
	testenv.Until(t, "the server serves again", serves)
}

// childWorkers are the workers of a server that testenv did not start.
func childWorkers(s *testenv.Server) map[int]bool {
	pids := map[int]bool{}
	for _, pid := range s.Workers() {
		pids[pid] = true
	}
	return pids
}

// initialised makes a data directory.
func initialised(t testing.TB, data string) string {
	t.Helper()
	if out, err := exec.Command(testenv.Binary(t), "init", "--data", data).CombinedOutput(); err != nil {
		t.Fatalf("baton init: %v: %s", err, out)
	}
	return data
}

// What is private stays private whatever the umask, and a directory that others
// can reach is refused.
func TestChaosModes(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	binary := testenv.Binary(t)
	addr := testenv.FreeAddr(t)
	if out, err := exec.Command("sh", "-c", `umask 000; exec "$0" init --data "$1"`, binary, data).CombinedOutput(); err != nil {
		t.Fatalf("baton init: %v: %s", err, out)
	}
	cmd := exec.Command("sh", "-c", `umask 000; exec "$0" serve --data "$1" --listen "$2" --workers 1`, binary, data, addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "the server serves", func() bool {
		r, err := testenv.Get(addr, "/ping")
		return err == nil && r.Status == 200
	})
	err := filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile: a database's journal
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the server ended: %v", err)
	}
	for _, tc := range []struct {
		path string
		mode os.FileMode
	}{{data, 0o755}, {data, 0o701}, {filepath.Join(data, "admin.token"), 0o640}} {
		info, err := os.Stat(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(tc.path, tc.mode); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(binary, "serve", "--data", data, "--listen", addr).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "chmod") {
			t.Errorf("%s with mode %v: %v, %s; want a refusal that names the cure", tc.path, tc.mode, err, out)
		}
		if err := os.Chmod(tc.path, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// A port that another process has, a limit on open files that is too small:
// refused by name, and the data directory is free again.
func TestChaosRefusedStart(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	data := initialised(t, filepath.Join(t.TempDir(), "data"))
	binary := testenv.Binary(t)
	for _, tc := range []struct{ name, command, says string }{
		{"port taken", `exec "$0" serve --data "$1" --listen "$2"`, "in use"},
		{"128 descriptors", `ulimit -n 128; exec "$0" serve --data "$1" --listen 127.0.0.1:0`, "ulimit -n"},
	} {
		out, err := exec.Command("sh", "-c", tc.command, binary, data, s.Addr).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tc.says) {
			t.Errorf("%s: %v, %s", tc.name, err, out)
		}
		if _, err := os.Stat(filepath.Join(data, "run")); !os.IsNotExist(err) {
			t.Errorf("%s: the run directory is left behind", tc.name)
		}
	}
}

// damages are what may become of the database; each returns how it is cured.
var damages = []struct {
	name, says string
	damage     func(t *testing.T, s *testenv.Server, path string) (cure func())
}{
	{"missing", "no database file", func(t *testing.T, s *testenv.Server, path string) func() {
		sql(t, s, "VACUUM INTO '"+path+".copy';")
		for _, name := range []string{path, path + "-wal", path + "-shm"} {
			_ = os.Remove(name)
		}
		return func() { rename(t, path+".copy", path) }
	}},
	{"damaged", "damaged", func(t *testing.T, s *testenv.Server, path string) func() {
		sql(t, s, "VACUUM INTO '"+path+".copy';")
		if err := os.WriteFile(path+".bad", []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		rename(t, path+".bad", path)
		return func() { rename(t, path+".copy", path) }
	}},
}

// locked is a database that another process has for itself. That is possible
// while nobody else has it open: before the start.
func locked(t *testing.T, _ *testenv.Server, path string) (cure func()) {
	shell := exec.Command("sqlite3", "-bail", path)
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = in.Close()
		_ = shell.Wait()
	})
	t.Cleanup(end)
	_, _ = io.WriteString(in, "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; SELECT 'it is ours';\n")
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "it is ours" {
			return end
		}
	}
	t.Fatal("the database cannot be locked")
	return nil
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// statusLine is what `baton status` says behind a word.
func statusLine(t *testing.T, s *testenv.Server, word string) string {
	t.Helper()
	out, _ := s.Baton(t, "status")
	_, out, _ = strings.Cut("\n"+out, "\n"+word)
	out, _, _ = strings.Cut(out, "\n")
	return strings.TrimSpace(out)
}

// The database becomes unreadable while the server runs: the last table serves,
// the status says so, and what is in the file counts when it can be read again.
func TestChaosDatabaseGone(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	for _, tc := range damages {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := testenv.Start(t, testenv.Options{Workers: 1})
			cure := tc.damage(t, s, filepath.Join(s.Data, "faas_meta.db"))
			testenv.Until(t, "the status names the trouble", func() bool {
				line := statusLine(t, s, "database")
				return strings.HasPrefix(line, "TROUBLE") && strings.Contains(line, tc.says) && strings.Contains(line, "the last good table serves")
			})
			for _, path := range []string{"/ping", "/readyz"} {
				if r, err := testenv.Get(s.Addr, path); err != nil || r.Status != 200 {
					t.Errorf("%s without a database: %d, %v", path, r.Status, err)
				}
			}
			testenv.Until(t, "the log says so", func() bool { return strings.Contains(s.Log(), "the last good table serves") })
			cure()
			testenv.Until(t, "the trouble is over", func() bool { return statusLine(t, s, "database") == "ok" })
			sql(t, s, "DELETE FROM functions WHERE k='GET:/ping';")
			awaitRoute(t, s.Addr, "/ping", false)
		})
	}
}

// The database cannot be read when the server starts: it runs, and says
// everywhere that it serves nothing, until it can.
func TestChaosDatabaseGoneAtStart(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	for _, tc := range append(slices.Clone(damages), struct {
		name, says string
		damage     func(t *testing.T, s *testenv.Server, path string) (cure func())
	}{"locked", "locked", locked}) {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			first := testenv.Start(t, testenv.Options{Workers: 1})
			first.Stop(t)
			cure := tc.damage(t, first, filepath.Join(first.Data, "faas_meta.db"))
			s := testenv.Launch(t, testenv.Options{Data: first.Data, Workers: 1})
			status := func(path string) int {
				r, err := testenv.Get(s.Addr, path)
				if err != nil {
					return 0
				}
				return r.Status
			}
			testenv.Until(t, "the server is alive", func() bool { return status("/healthz") == 200 })
			testenv.Until(t, "it has a worker", func() bool { return len(s.Workers()) == 1 })
			for _, path := range []string{"/readyz", "/ping"} {
				if code := status(path); code != 503 {
					t.Errorf("%s without a table: %d, want 503", path, code)
				}
			}
			line := statusLine(t, s, "database")
			if !strings.HasPrefix(line, "TROUBLE") || !strings.Contains(line, tc.says) || !strings.Contains(line, "nothing is served") {
				t.Errorf("the status says %q", line)
			}
			if line := statusLine(t, s, "state"); !strings.Contains(line, "no table") {
				t.Errorf("the state is %q", line)
			}
			testenv.Until(t, "the log says so", func() bool { return strings.Contains(s.Log(), "there is no table yet") })
			cure()
			testenv.Until(t, "the server is ready", func() bool { return status("/readyz") == 200 })
			if code := status("/ping"); code != 200 {
				t.Errorf("/ping afterwards: %d", code)
			}
			if line := statusLine(t, s, "state"); line != "serving" {
				t.Errorf("the state afterwards is %q", line)
			}
		})
	}
}
