package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Bounds of a server's start and stop. The first start may compile modules.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// Peer is a server that can be measured: how to start it, and what it must
// answer.
type Peer struct {
	Name    string
	Needs   string // the command that must be installed
	Package string // the Debian package that has it

	// Target is the path that is measured; the answer to it is 200 with a body
	// that contains Want.
	Target, Want string

	// Prepare makes dir ready and returns the arguments with which the command
	// serves addr in the foreground.
	Prepare func(ctx context.Context, dir, addr string) ([]string, error)
}

// ErrMissing says that a command is not installed.
var ErrMissing = errors.New("not installed")

// find returns the path of the peer's command. Debian keeps servers in
// /usr/sbin, which is not in every user's PATH.
func (p Peer) find() (string, error) {
	for _, name := range []string{p.Needs, "/usr/sbin/" + p.Needs} {
		if found, err := exec.LookPath(name); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s: %w: apt-get install %s", p.Needs, ErrMissing, p.Package)
}

// pingBody is what nginx answers: the demo's /ping with a clock that stands.
const pingBody = `{"pong":true,"ts":1700000000}`

// Baton is the system itself, from its real binary. workers 0 is its default.
func Baton(binary string, workers int) Peer {
	return Peer{
		Name: "baton", Needs: binary, Package: "baton", Target: "/ping", Want: `{"pong":true,"ts":`,
		Prepare: func(ctx context.Context, dir, addr string) ([]string, error) {
			data := filepath.Join(dir, "data")
			if output, err := exec.CommandContext(ctx, binary, "init", "--data", data).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("baton init: %w\n%s", err, output)
			}
			args := []string{"serve", "--listen", addr, "--data", data}
			if workers > 0 {
				args = append(args, "--workers", strconv.Itoa(workers))
			}
			return args, nil
		},
	}
}

// Nginx answers a constant, which is about the least that an HTTP server can
// do. Logs are off, connections are never ended by count.
func Nginx(workers int) Peer {
	return Peer{
		Name: "nginx", Needs: "nginx", Package: "nginx", Target: "/ping", Want: pingBody,
		Prepare: func(_ context.Context, dir, addr string) ([]string, error) {
			config := filepath.Join(dir, "nginx.conf")
			text := fmt.Sprintf(nginxConfig, workers, dir, addr, pingBody)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				return nil, err
			}
			return []string{"-p", dir, "-e", "stderr", "-c", config}, nil
		},
	}
}

const nginxConfig = `worker_processes %d;
daemon off;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 1000000000;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	default_type application/json;
	server {
		listen %[3]s reuseport;
		location / { return 200 '%[4]s'; }
	}
}
`

// server is a running peer.
type server struct {
	peer Peer
	addr string
	cmd  *exec.Cmd
	done chan error // receives once, how it ended
	log  *bytes.Buffer
}

// start starts a peer on a free port with a folder of its own below dir, and
// waits until its answer is right.
func start(ctx context.Context, peer Peer, dir string) (*server, error) {
	command, err := peer.find()
	if err != nil {
		return nil, err
	}
	dir, err = os.MkdirTemp(dir, peer.Name+"-")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args, err := peer.Prepare(ctx, dir, addr)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", peer.Name, err)
	}
	cmd := exec.Command(command, args...)
	s := &server{peer: peer, addr: addr, cmd: cmd, done: make(chan error, 1), log: &bytes.Buffer{}}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	// A group of its own: Ctrl-C reaches us alone, and we stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", peer.Name, err)
	}
	go func() { s.done <- cmd.Wait() }() // ends with the process; stop waits for it
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// await waits for the first right answer.
func (s *server) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := s.check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case ended := <-s.done:
			s.done <- ended
			return fmt.Errorf("%s ended: %v\n%s", s.peer.Name, ended, s.log)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", s.peer.Name, err)
		}
	}
}

// check asks once, on a connection of its own, and judges the answer.
func (s *server) check(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(), nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(s.peer.Want)) {
		return fmt.Errorf("%s answers %s %.200q, want 200 with %q", s.peer.Name, response.Status, body, s.peer.Want)
	}
	return nil
}

func (s *server) url() string { return "http://" + s.addr + s.peer.Target }

// stop ends the server with all its processes, politely and then not.
func (s *server) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-s.done:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
	return fmt.Errorf("%s did not stop on SIGTERM within %v", s.peer.Name, stopTimeout)
}

// freeAddr finds a port below the range of outgoing connections.
func freeAddr() (string, error) {
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(10_000)))
		if listener, err := net.Listen("tcp", addr); err == nil {
			listener.Close()
			return addr, nil
		}
	}
	return "", errors.New("no free port")
}
