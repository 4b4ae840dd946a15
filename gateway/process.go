package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
)

// controlFD is the number under which a worker finds its end of the control
// channel: the first behind standard input, output and error.
const controlFD = 3

// process is a child that was started, until it is reaped.
type process struct {
	pid     int
	started time.Time

	// pidfd names the process whatever becomes of its number. kill and close are
	// for one goroutine, the owner's; close only after exited.
	pidfd  fd.FD
	exited chan struct{} // closed when it was reaped
	exit   sys.Exit      // read after exited
}

// startProcess starts argv[0] with exactly these descriptors: /dev/null as
// standard input, output (twice) as standard output and error, and control as
// descriptor 3. output and control are borrowed. Everything else that this
// process has open is close-on-exec.
//
// The child leads a process group of its own, so that a terminal's Ctrl-C and
// Ctrl-Z reach the gateway alone, which decides. It has no parent-death signal:
// the gateway's death must not end what runs.
func startProcess(argv, env []string, output, control int) (*process, error) {
	null, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/null: %w", err)
	}
	defer func() { _ = syscall.Close(null) }()
	pidfd := -1
	pid, _, err := syscall.StartProcess(argv[0], argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   env,
		Files: []uintptr{uintptr(null), uintptr(output), uintptr(output), uintptr(control)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	if pidfd < 0 {
		// A kernel that cannot give it with the child; the child is not reaped,
		// so its number is still its own.
		if pidfd, err = sys.PidfdOpen(pid); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			return nil, fmt.Errorf("start %s: %w", argv[0], err)
		}
	}
	p := &process{pid: pid, started: time.Now(), pidfd: fd.New(pidfd), exited: make(chan struct{})}
	go p.wait() // ends with the process; whoever owns p waits for exited
	return p, nil
}

// wait reaps the process. What is left of its group is killed first: while the
// leader is not reaped, the group's number cannot be another's.
func (p *process) wait() {
	if _, err := sys.Poll(p.pidfd.Borrow(), sys.PollIn, -1); err != nil {
		panic(fmt.Sprintf("gateway: wait for process %d: %v", p.pid, err))
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	exit, err := sys.WaitPidfd(p.pidfd.Borrow())
	if err != nil {
		exit = sys.Exit{Pid: p.pid, Code: -1} // somebody else has reaped our child
	}
	p.exit = exit
	close(p.exited)
}

// kill ends the process now. It returns before the process is gone.
func (p *process) kill(log *slog.Logger) {
	select {
	case <-p.exited:
		return
	default:
	}
	if err := sys.PidfdSignal(p.pidfd.Borrow(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		log.Error("kill worker", "pid", p.pid, "err", err)
	}
}

// gone waits until the process was reaped, at most d, and says whether it was.
func (p *process) gone(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		return false
	}
}

// close gives the pidfd back.
func (p *process) close() { _ = p.pidfd.Close() }

// ending says how a process ended, for the log.
func ending(e sys.Exit) string {
	switch {
	case e.Signal != 0 && e.Dumped:
		return fmt.Sprintf("%v, core dumped", e.Signal)
	case e.Signal != 0:
		return e.Signal.String()
	}
	return fmt.Sprintf("exit code %d", e.Code)
}
