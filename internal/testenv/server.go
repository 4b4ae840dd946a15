package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options says how a server is started. The zero value is a server with the
// defaults and data of its own.
type Options struct {
	Data    string   // the data directory; empty: a new one, initialised
	Listen  string   // the address; empty: 127.0.0.1 and a free port
	Workers int      // their number; 0: the default
	Args    []string // more arguments of serve
	Env     []string // more variables
	// User is the uid and gid that the server runs as; 0: the test's own. Other ones need root.
	User uint32
}

// Server is one running `baton serve`.
type Server struct {
	Addr string // host:port
	Data string // the data directory
	Pid  int    // the gateway

	binary string
	user   uint32 // see Options.User
	cmd    *exec.Cmd
	log    *logBuffer
	done   chan struct{} // closed when the process is reaped, and has said all it had to say: see Launch
	said   chan struct{} // closed when nobody has its output open any more
	err    error         // how it ended; read after done
}

// Start starts a server, waits until it is ready, and stops it when the test
// ends. When the test has failed by then, its log is printed.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := Launch(t, o)
	s.AwaitReady(t)
	return s
}

// Launch is Start without the waiting: for servers that must not become ready.
func Launch(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{Addr: o.Listen, Data: o.Data, binary: Binary(t), user: o.User, log: &logBuffer{}, done: make(chan struct{}), said: make(chan struct{})}
	if s.user != 0 {
		s.binary = binaryFor(t, s.binary)
	}
	if s.Data == "" {
		s.makeData(t)
	}
	if s.Addr == "" {
		s.Addr = FreeAddr(t)
	}
	args := []string{"serve", "--listen", s.Addr, "--data", s.Data}
	if o.Workers > 0 {
		args = append(args, "--workers", strconv.Itoa(o.Workers))
	}
	s.cmd = exec.Command(s.binary, append(args, o.Args...)...)
	s.cmd.Env = append(os.Environ(), o.Env...)
	// A pipe of our own: os/exec's Wait would wait for the workers of a killed
	// gateway, which live on and have it too.
	output, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = theirs, theirs
	// A group of its own: what stops the test does not stop it twice. When the
	// test process dies, the kernel stops it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: s.credential()}
	err = starter().start(s.cmd)
	_ = theirs.Close()
	if err != nil {
		_ = output.Close()
		t.Fatalf("start baton serve: %v", err)
	}
	s.Pid = s.cmd.Process.Pid
	go func() { // ends when the last process ends that has the output; the cleanup waits for it
		_, _ = io.Copy(s.log, output)
		_ = output.Close()
		close(s.said)
	}()
	go func() { // ends with the process; Stop waits for it
		s.err = s.cmd.Wait()
		if s.cmd.ProcessState.Exited() {
			<-s.said // by itself: its workers are gone, and what it said is here
		}
		close(s.done)
	}()
	t.Cleanup(func() {
		s.Stop(t)
		if !poll(Patience(), func() bool { return closed(s.said) }) {
			t.Errorf("baton serve, pid %d, has ended, and processes that it started have not", s.Pid)
		}
		if t.Failed() {
			t.Logf("log of baton serve, pid %d:\n%s", s.Pid, s.Log())
		}
	})
	return s
}

// credential is who the server is; nil: as the test.
func (s *Server) credential() *syscall.Credential {
	if s.user == 0 {
		return nil
	}
	return &syscall.Credential{Uid: s.user, Gid: s.user}
}

// makeData makes a data directory, with the native code of all that is in it.
func (s *Server) makeData(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	if s.user != 0 {
		dir = filepath.Dir(s.binary)
	}
	s.Data = filepath.Join(dir, "data")
	if output, err := exec.Command(s.binary, "init", "--data", s.Data).CombinedOutput(); err != nil {
		t.Fatalf("baton init: %v\n%s", err, output)
	}
	if err := prepareAll(Binary(t), s.Data); err != nil {
		t.Fatal(err)
	}
	if s.user == 0 {
		return
	}
	err := filepath.WalkDir(s.Data, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(s.user), int(s.user))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// binaryFor is a copy of the binary where every user finds it. Another process
// writes it: what this one writes while it forks could not be executed for a moment.
func binaryFor(t testing.TB, binary string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root starts a server as another user")
	}
	// Not t.TempDir, which only its owner can enter.
	dir, err := os.MkdirTemp("", "baton-user-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "baton")
	if output, err := exec.Command("install", "-m", "755", binary, name).CombinedOutput(); err != nil {
		t.Fatalf("copy the binary: %v\n%s", err, output)
	}
	return name
}

// AwaitReady waits until /readyz answers 200.
func (s *Server) AwaitReady(t testing.TB) {
	t.Helper()
	ready := poll(Patience(), func() bool {
		if s.Ended() {
			return true
		}
		response, err := Get(s.Addr, "/readyz")
		return err == nil && response.Status == 200
	})
	if s.Ended() {
		t.Fatalf("baton serve ended before it was ready: %v\n%s", s.err, s.Log())
	}
	if !ready {
		t.Fatalf("baton serve is not ready after %v\n%s", Patience(), s.Log())
	}
}

// Ended tells whether the gateway is gone and reaped.
func (s *Server) Ended() bool { return closed(s.done) }

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Wait waits for the gateway's end and returns its exit code, -1 after a signal.
func (s *Server) Wait(t testing.TB) int {
	t.Helper()
	Until(t, fmt.Sprintf("baton serve, pid %d, has ended", s.Pid), s.Ended)
	return s.cmd.ProcessState.ExitCode()
}

// Signal signals the gateway, when it still runs.
func (s *Server) Signal(signal os.Signal) {
	_ = s.cmd.Process.Signal(signal) // os.ErrProcessDone is fine: it has ended
}

// Stop stops the gateway as Ctrl-C or systemd would and waits for it. One that
// does not end is asked for its goroutines, killed with its workers, and fails
// the test. A second Stop does nothing.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.Ended() {
		return
	}
	s.Signal(syscall.SIGTERM)
	if poll(Patience()+10*time.Second, s.Ended) {
		return
	}
	children := s.Children()
	s.Signal(syscall.SIGQUIT)
	if !poll(2*time.Second, s.Ended) {
		s.Signal(syscall.SIGKILL)
	}
	poll(Patience(), s.Ended)
	t.Errorf("baton serve, pid %d, did not stop on SIGTERM; its children then: %v", s.Pid, children)
}

// Log is all that the server has printed so far.
func (s *Server) Log() string { return s.log.String() }

// Baton runs another command of the same binary on the same data directory.
func (s *Server) Baton(t testing.TB, args ...string) (output string, exit int) {
	t.Helper()
	cmd := exec.Command(s.binary, append(args, "--data", s.Data)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential()}
	text, err := cmd.CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatalf("baton %s: %v", strings.Join(args, " "), err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// Token is the token of the data directory.
func (s *Server) Token(t testing.TB) string {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(s.Data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

// Children are the processes that the gateway has started and not yet reaped.
func (s *Server) Children() []int { return Children(s.Pid) }

// Workers are those of its children that are `baton worker`.
func (s *Server) Workers() []int {
	var workers []int
	for _, pid := range s.Children() {
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if args := strings.Split(string(line), "\x00"); err == nil && len(args) > 1 && args[1] == "worker" {
			workers = append(workers, pid)
		}
	}
	return workers
}

// Children lists the children of all threads of a process.
func Children(pid int) []int {
	var pids []int
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// FreeAddr returns 127.0.0.1 with a port that nobody listens on. It lies below
// the range of outgoing connections, so none of those can take it.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(10_000)))
		if listener, err := net.Listen("tcp", addr); err == nil {
			listener.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// processStarter starts processes from one thread that lives as long as the
// test: the signal at a parent's death comes when the thread that forked ends.
type processStarter struct {
	requests chan startRequest
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

var starter = sync.OnceValue(func() *processStarter {
	s := &processStarter{requests: make(chan startRequest)}
	go s.run() // for the life of the test process; leaks.go knows it
	return s
})

func (s *processStarter) run() {
	goruntime.LockOSThread()
	for r := range s.requests {
		r.done <- r.cmd.Start()
	}
}

func (s *processStarter) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.requests <- startRequest{cmd, done}
	return <-done
}

// logBytesMax bounds what is kept of a server's output; the rest is dropped.
const logBytesMax = 4 << 20

// logBuffer collects output. It is written by a goroutine of Launch.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:min(len(p), logBytesMax-b.buf.Len())])
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
