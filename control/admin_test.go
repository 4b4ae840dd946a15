package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestAdminSocketModes(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	info, err := os.Stat(s.admin)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("admin socket: %v, %v; want a socket with 0600", info.Mode(), err)
	}
	if err := s.ListenAdmin(s.admin); err == nil {
		t.Error("a second admin socket was opened")
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.admin); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Shutdown: %v, want no socket", err)
	}
	if err := s.ListenAdmin(s.admin); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ListenAdmin after Shutdown = %v, want os.ErrClosed", err)
	}
}

func TestAdminSocketReplacesAStaleOne(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Backend: newWorld(), Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(privateDir(t), "admin.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if err := s.ListenAdmin(path); err != nil {
		t.Fatal(err)
	}
	if a := (&serving{Server: s, admin: path}).unix(t, request("GET", "/healthz")); a.StatusCode != 200 {
		t.Errorf("%d, want 200", a.StatusCode)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestAdminSocketInAnOpenFolder(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Backend: newWorld(), Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	dir := privateDir(t)
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := s.ListenAdmin(filepath.Join(dir, "admin.sock")); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("in a folder of mode 0750: %v, want a refusal that says what to do", err)
	}
}

// A data directory may lie deeper than the 107 bytes of a socket's address.
func TestAdminSocketWithALongPath(t *testing.T) {
	t.Parallel()
	s, err := New(Config{Backend: newWorld(), Token: testToken})
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(privateDir(t), strings.Repeat("long/", 40))
	if err := os.MkdirAll(filepath.Join(data, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := AdminSocket(data)
	if len(path) <= unixPathMax {
		t.Fatalf("path of %d bytes is not long", len(path))
	}
	if err := s.ListenAdmin(path); err != nil {
		t.Fatal(err)
	}
	if list, err := NewClient(data).Functions(t.Context()); err != nil || len(list) != 3 {
		t.Errorf("Functions = %v, %v; want 3", list, err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Shutdown: %v, want no socket", err)
	}
}

// TestPeerLaw: which processes may use the admin socket.
func TestPeerLaw(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	euid := uint32(os.Geteuid())

	// A child of this process, and a grandchild below it.
	child := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 16)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	grandchild, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.FindProcess(grandchild)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = process.Kill()
		in.Close()
		_ = child.Wait()
	}()

	// A process that was not started here: the one that started this test.
	foreign := os.Getppid()
	for _, law := range []struct {
		name    string
		peer    peer
		started int
		refused string // a part of the error; empty: admitted
	}{
		{"this process itself", peer{pid: os.Getpid(), uid: euid}, 0, ""},
		{"a process that started this one", peer{pid: foreign, uid: euid}, 0, ""},
		{"the first process", peer{pid: 1, uid: 0}, 0, ""},
		{"root", peer{pid: foreign, uid: 0}, 0, ""},
		{"another user", peer{pid: foreign, uid: euid + 1}, 0, "user"},
		{"a child", peer{pid: child.Process.Pid, uid: euid}, 0, "was started by baton"},
		{"a grandchild", peer{pid: grandchild, uid: euid}, 0, "was started by baton"},
		{"one that the backend knows", peer{pid: foreign, uid: euid}, foreign, "was started by baton"},
		{"no process", peer{pid: 0, uid: euid}, 0, "no process"},
		{"one that is not there", peer{pid: 1 << 30, uid: euid}, 0, "find the parent"},
	} {
		s.world.mu.Lock()
		s.world.started = map[int]bool{law.started: law.started != 0}
		s.world.mu.Unlock()
		err := s.checkPeer(law.peer)
		if law.refused == "" && err != nil || law.refused != "" && (err == nil || !strings.Contains(err.Error(), law.refused)) {
			t.Errorf("%s: %v, want %q", law.name, err, law.refused)
		}
	}
}

// A refused peer gets nothing at all, not even what anyone may have on the port,
// and not with the token either.
func TestRefusedPeerGetsNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, law := range []struct {
		name   string
		peerOf func(*net.UnixConn) (peer, func(), error)
	}{
		{"a child", func(*net.UnixConn) (peer, func(), error) { return peer{pid: 2_000_000_000}, func() {}, nil }},
		{"who cannot be told", func(*net.UnixConn) (peer, func(), error) { return peer{}, nil, errors.New("x") }},
		{"who is gone", func(*net.UnixConn) (peer, func(), error) {
			return peer{pid: os.Getpid(), uid: uint32(os.Geteuid()), gone: func() bool { return true }}, func() {}, nil
		}},
	} {
		s, err := New(Config{Backend: s.world, Token: testToken})
		if err != nil {
			t.Fatal(err)
		}
		s.peerOf = law.peerOf
		path := filepath.Join(privateDir(t), "admin.sock")
		if err := s.ListenAdmin(path); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{request("GET", "/healthz"), request("GET", "/system/status", authorized), request("POST", "/system/stop", "Content-Length: 0")} {
			a := (&serving{Server: s, admin: path}).unix(t, text)
			if a.StatusCode != 403 || a.reason() != "peer_refused" {
				t.Errorf("%s: %d %s, want 403 peer_refused", law.name, a.StatusCode, a.body)
			}
			checkForm(t, a)
		}
		if err := s.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.world.stops.Load(); n != 0 {
		t.Errorf("stopped %d times", n)
	}
}

// A real child is refused, and so is its own: here each is this test binary
// again, which asks once (see TestMain).
func TestChildIsRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, law := range []struct{ name, generations string }{{"a child", "1"}, {"a grandchild", "2"}} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "BATON_TEST_ASK="+s.admin, "BATON_TEST_GENERATIONS="+law.generations)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "peer_refused") || !strings.HasPrefix(string(out), "HTTP/1.1 403 ") {
			t.Errorf("%s got %s, %v; want 403 peer_refused", law.name, out, err)
		}
	}
}

// ask is the child's side of TestChildIsRefused.
func ask(socket, generations string) int {
	if generations == "2" {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), "BATON_TEST_GENERATIONS=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if cmd.Run() != nil {
			return 1
		}
		return 0
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 1
	}
	defer c.Close()
	if _, err := io.WriteString(c, request("GET", "/system/status")); err != nil {
		return 1
	}
	if _, err := io.Copy(os.Stdout, c); err != nil {
		return 1
	}
	return 0
}

func TestAdminTokenDemanded(t *testing.T) {
	t.Parallel()
	s := serve(t, func(c *Config) { c.AdminToken = true })
	for _, law := range []struct {
		text   string
		status int
	}{
		{request("GET", "/system/status"), 401},
		{request("POST", "/system/stop", "Content-Length: 0"), 401},
		{request("GET", "/system/status", "Authorization: Bearer wrong"), 401},
		{request("GET", "/healthz"), 200},
		{request("GET", "/system/status", authorized), 200},
		{request("POST", "/system/stop", authorized, "Content-Length: 0"), 202},
	} {
		if a := s.unix(t, law.text); a.StatusCode != law.status {
			t.Errorf("%s: %d, want %d", strings.ReplaceAll(law.text, "\r\n", "|"), a.StatusCode, law.status)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	data := privateDir(t)
	c := NewClient(data)
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a server: %v, want ErrNotRunning", err)
	}
	if err := os.Mkdir(filepath.Join(data, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listenAdmin(AdminSocket(data))
	if err != nil {
		t.Fatal(err)
	}
	l.UnixListener.Close() // its file stays: as after SIGKILL
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("with a dead server's socket: %v, want ErrNotRunning", err)
	}

	if created, err := CreateToken(data); err != nil || !created {
		t.Fatal(created, err)
	}
	w := newWorld()
	s, err := New(Config{Backend: w, Token: testToken, AdminToken: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ListenAdmin(AdminSocket(data)); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := c.Status(t.Context()); !errors.As(err, &refused) || refused.Status != 401 || refused.Reason != "token_wrong" {
		t.Errorf("with another token: %v, want a RefusedError of 401", err)
	}
	if err := os.WriteFile(filepath.Join(data, TokenName), []byte(testToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := c.Status(t.Context())
	if err != nil || r.Generation != 3 || len(r.Workers) != 2 || len(r.BadRows) != 1 || r.BadRows[0].Key != "POST:/broken" {
		t.Errorf("Status = %+v, %v", r, err)
	}
	if err := c.Stop(t.Context()); err != nil || w.stops.Load() != 1 {
		t.Errorf("Stop = %v, stopped %d times", err, w.stops.Load())
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A server that talks nonsense is an error, not a panic or a wait.
func TestClientOfABadServer(t *testing.T) {
	t.Parallel()
	for _, law := range []string{
		"",
		"nonsense\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n{]}{[",
		"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\n{",
		"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
		"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
	} {
		data := privateDir(t)
		if err := os.Mkdir(filepath.Join(data, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := listenAdmin(AdminSocket(data))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			// Twice: a client may repeat what went wrong before the first byte.
			for range 2 {
				c, err := l.AcceptUnix()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, law)
				c.Close()
			}
		}()
		if _, err := NewClient(data).Status(t.Context()); err == nil || err.Error() == "" {
			t.Errorf("%q: %v, want an error", law, err)
		}
		l.Close()
		<-done
	}
}
