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
	"strings"
	"syscall"
	"time"
)

// Bounds of a server's start and stop. The first start may compile modules.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	checkTimeout = 30 * time.Second
)

// Peer is a server that can be measured: how it is started.
type Peer struct {
	Name string
	// Alive is a path that it answers with 200 once it serves.
	Alive string
	// Commands makes dir ready and returns the commands that serve addr in the
	// foreground, all of them together; the last is the one that listens.
	Commands func(ctx context.Context, dir, addr string) ([]*exec.Cmd, error)
	// Ready, when not nil, is called once the server is alive: it deploys what
	// is measured. dir is that of Commands.
	Ready func(ctx context.Context, dir, addr string) error
}

// ErrMissing says that a command is not installed.
var ErrMissing = errors.New("not installed")

// find returns the path of a command, or says which package has it. Debian
// keeps servers in /usr/sbin, which is not in every user's PATH.
func find(command, install string) (string, error) {
	for _, name := range []string{command, "/usr/sbin/" + command} {
		if found, err := exec.LookPath(name); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", fmt.Errorf("%s: %w: %s", command, ErrMissing, install)
}

// server is a running peer.
type server struct {
	name string
	addr string
	dir  string
	ran  []*process
}

// process is one command of a server.
type process struct {
	cmd  *exec.Cmd
	done chan error // receives once, how it ended
	log  *bytes.Buffer
}

// start starts a peer on a free port with a folder of its own below dir, and
// waits until it answers. The caller's goroutine must be locked to its thread.
func start(ctx context.Context, peer Peer, dir string) (*server, error) {
	dir, err := os.MkdirTemp(dir, "peer-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // some servers work as another user
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	commands, err := peer.Commands(ctx, dir, addr)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", peer.Name, err)
	}
	s := &server{name: peer.Name, addr: addr, dir: dir}
	for _, cmd := range commands {
		p := &process{cmd: cmd, done: make(chan error, 1), log: &bytes.Buffer{}}
		cmd.Stdout, cmd.Stderr = p.log, p.log
		// A group of its own: Ctrl-C reaches us alone, and we stop it in order.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", peer.Name, err), s.stop())
		}
		go func() { p.done <- cmd.Wait() }() // ends with the process; stop waits for it
		s.ran = append(s.ran, p)
	}
	err = s.await(ctx, peer.Alive)
	if err == nil && peer.Ready != nil {
		err = peer.Ready(ctx, dir, addr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", peer.Name, err), s.stop())
	}
	return s, nil
}

// await waits for the first answer.
func (s *server) await(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		_, err := ask(ctx, s.addr, path, 0)
		if err == nil {
			return nil
		}
		for _, p := range s.ran {
			select {
			case ended := <-p.done:
				p.done <- ended
				return fmt.Errorf("%s ended: %v\n%s", filepath.Base(p.cmd.Path), ended, p.log)
			default:
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", err)
		}
	}
}

// ask sends one request on a connection of its own and wants 200.
func ask(ctx context.Context, addr, target string, body int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	method, content := http.MethodGet, io.Reader(nil)
	if body > 0 {
		method, content = http.MethodPost, strings.NewReader(strings.Repeat("x", body))
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+addr+target, content)
	if err != nil {
		return nil, err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s %.200q", target, response.Status, answer)
	}
	return answer, err
}

// check asks a contestant once and judges its answer: it holds the token of
// this very request.
func (s *server) check(ctx context.Context, c Contestant, load Load) error {
	target, word := c.Targets[rand.IntN(len(c.Targets))], newToken()
	answer, err := ask(ctx, s.addr, withToken(target, word), load.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	if strings.Contains(target, "TOKEN") && !bytes.Contains(answer, []byte(word)) {
		return fmt.Errorf("%s answers %.200q to %s, want the token %s in it", c.Name, answer, target, word)
	}
	return nil
}

// usage sums up all processes of the server.
func (s *server) usage() (sum Usage, err error) {
	for _, p := range s.ran {
		u, err := usage(p.cmd.Process.Pid)
		if err != nil {
			return Usage{}, err
		}
		sum.User += u.User
		sum.System += u.System
		sum.Private += u.Private
		sum.Processes += u.Processes
	}
	return sum, nil
}

// stop ends the server with all its processes, politely and then not.
func (s *server) stop() error {
	var errs []error
	for _, p := range s.ran {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, p := range s.ran {
		select {
		case <-p.done:
			continue
		case <-time.After(stopTimeout):
		}
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
		errs = append(errs, fmt.Errorf("%s did not stop on SIGTERM within %v", s.name, stopTimeout))
	}
	return errors.Join(errs...)
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
