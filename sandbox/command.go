package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/internal/sys"
)

// specVariable carries the Spec, as JSON, to the step, which gives the program
// an environment without it.
const specVariable = "BATON_SANDBOX"

// ExitRefused is the exit code of a step that could not become the program; its
// standard error says why.
const ExitRefused = 125

// Command returns the command that starts a child under s: baton is the command
// line of the step ("/usr/bin/baton", "sandbox"). files become its descriptors 3, 4, …; standard input,
// output and error are the caller's to set, /dev/null otherwise. No other descriptor reaches it.
//
// The child leads a process group of its own, which is killed as a whole when
// ctx ends, and is killed when the thread that started it ends: start it
// with a Starter, or from a thread that lives as long.
func Command(ctx context.Context, baton []string, s Spec, files ...*os.File) (*exec.Cmd, error) {
	if len(s.Argv) == 0 || !filepath.IsAbs(s.Argv[0]) {
		return nil, errors.New("sandbox: a program without an absolute path")
	}
	if len(baton) == 0 {
		return nil, errors.New("sandbox: no command of the step")
	}
	flags := uintptr(0)
	if s.namespaces() {
		s.Namespaces = true
		flags = sys.NewPID | sys.NewNS | sys.NewIPC
		if !s.Network {
			flags |= sys.NewNet
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("sandbox: write the grants: %w", err)
	}
	c := exec.CommandContext(ctx, baton[0], baton[1:]...)
	c.Env = []string{specVariable + "=" + string(text)}
	c.Dir = "/"
	c.ExtraFiles = files
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: flags}
	c.Cancel = func() error { return Kill(c.Process.Pid) }
	c.WaitDelay = time.Second
	return c, nil
}

// namespaces says whether the child is to have namespaces of its own. It is all of
// them or none.
func (s *Spec) namespaces() bool {
	return os.Geteuid() == 0 && !slices.Contains(s.Without, LayerRoot) && namespacesAvailable()
}

// Kill ends the process group that the child pid leads, without waiting. The caller has not reaped the
// child: its number is still its own. A group that has ended already is no error.
func Kill(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", pid, err)
	}
	return nil
}

// Share has a file, or a directory and all below it, be readable and executable by a child with a
// uid of its own, which sees nothing but what its Spec grants: whoever else may read it is
// decided by the directories above, which are left alone. Links are not followed. Where children keep our uid it does
// nothing.
func Share(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := info.Mode().Perm() | 0o444
		switch {
		case d.IsDir():
			want |= 0o111
		case !info.Mode().IsRegular():
			return nil
		case want&0o100 != 0:
			want |= 0o111
		}
		if want == info.Mode().Perm() {
			return nil
		}
		return os.Chmod(path, want)
	})
}

// Give hands a file, or a directory and all below it, to the user that a child under s
// will be. Links are not followed. Nobody else changes the directory meanwhile. Where the child keeps our uid it
// does nothing.
func (s *Spec) Give(path string) error {
	own := *s
	own.Namespaces = own.namespaces()
	uid, gid := own.identity()
	if uid < 0 {
		return nil
	}
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) == uid && int(st.Gid) == gid {
			return nil
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil {
		return fmt.Errorf("sandbox: give to user %d: %w", uid, err)
	}
	return nil
}

// Starter starts commands from one thread, which lives until Close: the kernel
// sends the signal at a parent's death when the thread that forked ends.
type Starter struct {
	requests chan startRequest
	ended    chan struct{}
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

// NewStarter starts the thread.
func NewStarter() *Starter {
	s := &Starter{requests: make(chan startRequest), ended: make(chan struct{})}
	go s.run() // ends by Close, which waits for it
	return s
}

func (s *Starter) run() {
	defer close(s.ended)
	goruntime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for r := range s.requests {
		r.done <- r.cmd.Start()
	}
}

// Start is c.Start. Not after Close.
func (s *Starter) Start(c *exec.Cmd) error {
	done := make(chan error, 1)
	s.requests <- startRequest{c, done}
	return <-done
}

// Close ends the thread and, by that, every child that it has started and that
// still runs.
func (s *Starter) Close() {
	close(s.requests)
	<-s.ended
}

// below says whether path is dir or lies below it; both are clean.
func below(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
