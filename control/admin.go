package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"baton/internal/sys"
)

const (
	// unixPathMax is the longest path that fits a socket's address, its final
	// zero excluded: 108 bytes less one. unix(7).
	unixPathMax = 107
	// ancestorsMax bounds the walk from a process to its first ancestor.
	ancestorsMax = 1024
)

// adminListener accepts on the admin socket and removes its file at the end.
type adminListener struct {
	*net.UnixListener
	path string
}

func (l *adminListener) Close() error {
	err := l.UnixListener.Close()
	if e := os.Remove(l.path); e != nil && !errors.Is(e, os.ErrNotExist) && err == nil {
		err = e
	}
	return err
}

// listenAdmin makes the socket. It never exists with a wider mode than 0600:
// the mode is set on the socket before it gets its name.
func listenAdmin(path string) (*adminListener, error) {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: other users can reach it (mode %04o): `chmod 700 %s`", dir, mode, dir)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	address, release, err := unixAddress(path)
	if err != nil {
		return nil, err
	}
	defer release()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(n uintptr) { err = syscall.Fchmod(int(n), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", address)
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // under address, which may be gone by then
	if err := os.Chmod(path, 0o600); err != nil {
		_ = u.Close()
		return nil, err
	}
	return &adminListener{UnixListener: u, path: path}, nil
}

// unixAddress gives a name for path that fits a socket's address. A long one is
// reached through a descriptor of its directory, until release.
func unixAddress(path string) (address string, release func(), err error) {
	if len(path) <= unixPathMax {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	var number uintptr
	raw, err := dir.SyscallConn()
	if err == nil {
		err = raw.Control(func(n uintptr) { number = n })
	}
	if err != nil {
		_ = dir.Close()
		return "", nil, err
	}
	address = "/proc/self/fd/" + strconv.Itoa(int(number)) + "/" + filepath.Base(path)
	return address, func() { _ = dir.Close() }, nil
}

// peer is the process that connected, as the kernel noted it at connect(2).
type peer struct {
	pid  int
	uid  uint32
	gone func() bool // whether it ended, so that pid may be another's; nil: cannot be told
}

// peerOf asks the kernel who connected. release must be called after the last
// use of the result.
func peerOf(c *net.UnixConn) (p peer, release func(), err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, nil, err
	}
	pidfd := -1
	e := raw.Control(func(n uintptr) {
		if p.pid, p.uid, err = sys.PeerCred(int(n)); err != nil {
			return
		}
		if pidfd, err = sys.PeerPidfd(int(n)); errors.Is(err, syscall.ENOPROTOOPT) {
			pidfd, err = -1, nil // before Linux 6.5
		}
	})
	if err = errors.Join(e, err); err != nil {
		return peer{}, nil, err
	}
	if pidfd < 0 {
		return p, func() {}, nil
	}
	p.gone = func() bool { return sys.PidfdGone(pidfd) }
	return p, func() { _ = syscall.Close(pidfd) }, nil
}

// admit says why the process at the other end may not use the admin socket.
func (s *Server) admit(c *net.UnixConn) error {
	p, release, err := s.peerOf(c)
	if err != nil {
		return fmt.Errorf("who connected: %w", err)
	}
	defer release()
	if err := s.checkPeer(p); err != nil {
		return err
	}
	// Asked last: until here the id was this process's.
	if p.gone != nil && p.gone() {
		return fmt.Errorf("process %d is gone", p.pid)
	}
	return nil
}

// checkPeer refuses another user and every process that baton started: those
// the backend knows, and those below this process. A process whose ancestors
// cannot be followed is refused too.
func (s *Server) checkPeer(p peer) error {
	if euid := os.Geteuid(); p.uid != 0 && int(p.uid) != euid {
		return fmt.Errorf("user %d, want %d", p.uid, euid)
	}
	self := os.Getpid()
	if p.pid == self {
		return nil
	}
	pid := p.pid
	for range ancestorsMax {
		if s.backend.Started(pid) {
			return fmt.Errorf("process %d was started by baton", pid)
		}
		parent, err := parentOf(pid)
		if err != nil {
			return fmt.Errorf("find the parent of process %d: %w", pid, err)
		}
		if parent == self {
			return fmt.Errorf("process %d was started by baton", pid)
		}
		if parent == 0 { // the first process, or one from outside our namespace
			return nil
		}
		pid = parent
	}
	return fmt.Errorf("process %d has more than %d ancestors", p.pid, ancestorsMax)
}

// parentOf reads the parent of a process, 0 for none.
//
// Source: proc_pid_stat(5). Field 2, the name, may hold anything, so counting
// begins behind the last ')'.
func parentOf(pid int) (int, error) {
	if pid <= 0 {
		return 0, fmt.Errorf("no process has the id %d", pid)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	words := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(words) < 2 {
		return 0, fmt.Errorf("want a line of fields, got %q", b)
	}
	parent, err := strconv.Atoi(string(words[1]))
	if err != nil || parent < 0 {
		return 0, fmt.Errorf("want a parent, got %q", words[1])
	}
	return parent, nil
}
