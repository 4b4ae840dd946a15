package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"
)

// step is one command of a build. Nothing of it comes from the user but names
// of files in the job's src, which start with "./".
type step struct {
	argv    []string
	env     []string  // beside the common ones
	dir     string    // empty: src
	read    []string  // beside the toolchain's usual places
	write   []string  // beside the job's folder
	network bool      // fetching only: no user code runs
	stdout  io.Writer // nil: the log
	quiet   bool      // what it prints to stderr is nobody's business
}

// How a command ended that was not the toolchain's own decision.
var (
	errTimeout = errors.New("the build's time is over")
	errOutput  = errors.New("the build prints too much")
)

// limitError ends a build at one of its bounds.
type limitError struct{ reason, hint string }

func (e *limitError) Error() string { return e.reason + ": " + e.hint }

// exitError is a command that ended by itself, and not well.
type exitError struct {
	command string
	err     error
}

func (e *exitError) Error() string { return e.command + ": " + e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// run runs one step to its end, within the bounds of the build.
func (j *job) run(ctx context.Context, s step) error {
	// The kernel kills the command when the thread that started it ends, so
	// that no build outlives this process, however it dies.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j.log.onExcess(func() { cancel(errOutput) })
	defer j.log.onExcess(nil)
	if s.dir == "" {
		s.dir = j.src()
	}
	cmd, err := j.command(ctx, s)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = j.log, j.log
	if s.stdout != nil {
		cmd.Stdout = s.stdout
	}
	if s.quiet {
		cmd.Stderr = io.Discard
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.argv[0], err)
	}
	watched := make(chan struct{})
	watchCtx, unwatch := context.WithCancel(ctx)
	go func() { // ends with unwatch; waited for below
		defer close(watched)
		j.watch(watchCtx, cmd.Process.Pid, cancel)
	}()
	err = cmd.Wait()
	unwatch()
	<-watched
	var limit *limitError
	switch cause := context.Cause(ctx); {
	case errors.As(cause, &limit):
		return cause
	case ctx.Err() != nil:
		return fmt.Errorf("run %s: %w", name(s.argv), cause)
	case err != nil:
		return &exitError{name(s.argv), err}
	}
	return nil
}

func name(argv []string) string { return argv[0][strings.LastIndexByte(argv[0], '/')+1:] }

// environ is what every command of a build has in its environment.
func (j *job) environ(more []string) []string {
	return append([]string{
		"PATH=" + j.b.opt.Path,
		"HOME=" + j.home(),
		"TMPDIR=" + j.tmp(),
		"LC_ALL=C.UTF-8",
		"TERM=dumb",
		"NO_COLOR=1",
		"SOURCE_DATE_EPOCH=0", // the same sources, the same artifact
	}, more...)
}

// command makes the process of a step, which is ended as a group.
func (j *job) command(ctx context.Context, s step) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
	cmd.Dir = s.dir
	cmd.Env = j.environ(s.env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	return cmd, nil
}

// watchEvery is how often the memory and the disk of a build are looked at. At
// 1 GB/s it is what a build can take above its bound: 100 MB.
const watchEvery = 100 * time.Millisecond
