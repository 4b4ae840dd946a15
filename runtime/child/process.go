package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/sandbox"
)

// Process is a sandboxed process that serves one invocation at a time. Its
// fields and methods are for Config.Open before it runs, and then for who has it from Pool.Get until
// Pool.Put.
type Process struct {
	// Stdin and Files may be set by Config.Open: the child's descriptors 0 and 4
	// and up. They are closed here once the child has them.
	Stdin *os.File
	Files []*os.File
	// Output, when Open sets it, is the child's descriptor 1 instead of a pipe.
	Output *os.File
	// State is the kind's own.
	State any

	// Channel is our end of the channel: a stream of bytes both ways. Reads and
	// writes may be bounded by its deadlines. At the end of the process it reads io.EOF.
	Channel *os.File
	// ChannelFD is its descriptor, which does not block; -1 once it is closed.
	ChannelFD int
	// Stdout is the read end of the child's standard output; nil when Open has set Output.
	Stdout *os.File
	// StdoutFD is its descriptor, which does not block.
	StdoutFD int
	// PID is the process as this machine numbers it.
	PID int
	// Requests counts those that it has begun.
	Requests int

	pool   *Pool
	dir    string
	pidfd  *os.File
	cmd    *exec.Cmd
	log    stderrLog
	exited chan struct{} // closed when it is reaped and everything of it is dead
	state  *os.ProcessState
	waits  sync.WaitGroup // its goroutines

	usedAt time.Time // guarded by pool.mu; when it became idle

	mu       sync.Mutex
	gone     bool         // guarded by mu; it has ended: its number may be another's
	running  bool         // guarded by mu; between Begin and End
	deadline time.Time    // guarded by mu
	cancel   *atomic.Bool // guarded by mu
	since    time.Time    // guarded by mu; when Begin was
	onSlow   func()       // guarded by mu; see Slow
	why      runtime.Reason
	detail   string
}

// start starts the process and waits until it is ready.
func (p *Pool) start() (*Process, error) {
	pr := &Process{pool: p, exited: make(chan struct{}), ChannelFD: -1, StdoutFD: -1}
	if err := pr.launch(); err != nil {
		pr.release()
		return nil, err
	}
	return pr, nil
}

func (pr *Process) launch() error {
	p := pr.pool
	pr.dir = filepath.Join(p.o.Work, strconv.FormatUint(p.o.serial.Add(1), 36)+"-"+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(pr.dir, 0o700); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	if p.c.Open != nil {
		if err := p.c.Open(pr); err != nil {
			return err
		}
	}
	theirs, err := pr.connect()
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
	}()
	if err != nil {
		return err
	}
	spec := p.c.Spec
	spec.Dir = pr.dir
	cmd, err := sandbox.Command(context.Background(), []string{p.o.Program, "sandbox"}, spec, append(theirs[:1:1], pr.Files...)...)
	if err != nil {
		return err
	}
	if pr.Stdin != nil {
		cmd.Stdin = pr.Stdin
	}
	cmd.Stdout, cmd.Stderr = pr.Output, theirs[1]
	if pr.Output == nil {
		cmd.Stdout = theirs[2]
	}
	pidfd := -1
	cmd.SysProcAttr.PidFD = &pidfd
	if err := p.o.starter.Start(cmd); err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	pr.cmd, pr.PID = cmd, cmd.Process.Pid
	if err := pr.watchEnd(pidfd); err != nil {
		pr.killAll()
		_ = cmd.Wait()
		close(pr.exited)
		pr.gone = true
		return err
	}
	pr.closeTheirs()
	// What the parent has kept of the child's descriptors would hold the channel open.
	for i, f := range theirs {
		_ = f.Close()
		theirs[i] = nil
	}
	theirs = theirs[:0]
	return pr.awaitReady()
}

// connect makes the channel and the pipes. It returns the child's ends:
// channel, standard error, and standard output unless Open has given one.
func (pr *Process) connect() (theirs []*os.File, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = append(theirs, os.NewFile(uintptr(pair[1]), "channel"))
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		_ = syscall.Close(pair[0])
		return theirs, fmt.Errorf("channel: %w", err)
	}
	pr.Channel, pr.ChannelFD = os.NewFile(uintptr(pair[0]), "channel"), pair[0]
	ours, end, n, err := pipe("stderr")
	if err != nil {
		return theirs, err
	}
	theirs = append(theirs, end)
	pr.log.file, pr.log.fd = ours, n
	if pr.Output == nil {
		if pr.Stdout, end, pr.StdoutFD, err = pipe("stdout"); err != nil {
			return theirs, err
		}
		theirs = append(theirs, end)
	}
	return theirs, nil
}

// pipe makes a pipe whose read end, ours, does not block.
func pipe(name string) (ours, theirs *os.File, n int, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, -1, fmt.Errorf("pipe: %w", err)
	}
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		_ = syscall.Close(fds[0])
		_ = syscall.Close(fds[1])
		return nil, nil, -1, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), fds[0], nil
}

// closeTheirs closes what Open has made for the child.
func (pr *Process) closeTheirs() {
	for _, f := range append([]*os.File{pr.Stdin, pr.Output}, pr.Files...) {
		if f != nil {
			_ = f.Close()
		}
	}
	pr.Stdin, pr.Output, pr.Files = nil, nil, nil
}

// watchEnd starts the goroutines that live as long as the process. pidfd is taken over.
func (pr *Process) watchEnd(pidfd int) error {
	if pidfd < 0 {
		var err error
		if pidfd, err = sys.PidfdOpen(pr.PID); err != nil {
			return err
		}
	}
	if err := syscall.SetNonblock(pidfd, true); err != nil {
		_ = syscall.Close(pidfd)
		return fmt.Errorf("pidfd: %w", err)
	}
	pr.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	raw, err := pr.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("pidfd: %w", err)
	}
	pr.waits.Go(func() { // ends with the process
		_ = raw.Read(func(n uintptr) bool { return sys.Ended(int(n)) })
		pr.mu.Lock()
		pr.gone = true
		// It is not reaped yet, so the number of its group is its own.
		pr.killAll()
		pr.mu.Unlock()
		_ = pr.cmd.Wait()
		pr.state = pr.cmd.ProcessState
		close(pr.exited)
	})
	pr.waits.Go(pr.log.run) // ends with the last process that holds the pipe, or by release
	return nil
}

// awaitReady lets the kind wait for its sign of life.
func (pr *Process) awaitReady() error {
	if pr.pool.c.Ready == nil {
		return nil
	}
	_ = pr.Channel.SetDeadline(time.Now().Add(startTimeout))
	err := pr.pool.c.Ready(pr)
	_ = pr.Channel.SetDeadline(time.Time{})
	if err == nil {
		return nil
	}
	pr.kill()
	<-pr.exited
	pr.log.drain()
	return fmt.Errorf("%w: %s %s", err, pr.state, bytes.TrimSpace(pr.log.tail()))
}

// killAll is kill with mu held, or before anybody else knows of pr. Its number is its own.
func (pr *Process) killAll() {
	if pr.pool.keeps {
		_ = sandbox.Kill(pr.PID)
		return
	}
	_ = sandbox.KillTree(pr.PID)
}

// hasExited says whether the process is known to have ended.
func (pr *Process) hasExited() bool {
	select {
	case <-pr.exited:
		return true
	default:
		return false
	}
}

// kill ends the process and all that it has started, without waiting.
func (pr *Process) kill() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if !pr.gone {
		pr.killAll()
	}
}

// release ends the process and waits, and gives back all that it holds.
func (pr *Process) release() {
	if pr.cmd != nil {
		pr.kill()
		<-pr.exited
	}
	pr.closeTheirs()
	for _, f := range []*os.File{pr.Channel, pr.Stdout, pr.log.file, pr.pidfd} {
		if f != nil {
			_ = f.Close()
		}
	}
	pr.ChannelFD, pr.StdoutFD = -1, -1
	pr.waits.Wait()
	if pr.pool.c.Free != nil {
		pr.pool.c.Free(pr)
	}
	if pr.dir != "" {
		_ = sandbox.RemoveAll(pr.dir)
	}
}

// Begin ties the process to an invocation: from here on it is killed at the
// deadline, when inv.Cancel becomes true and when the pool closes, and its standard error is the
// invocation's.
func (pr *Process) Begin(inv *runtime.Invocation, deadline time.Time) {
	pr.Requests++
	pr.log.begin(inv.Stderr)
	pr.mu.Lock()
	pr.running, pr.deadline, pr.cancel, pr.onSlow = true, deadline, inv.Cancel, nil
	pr.since = time.Now()
	pr.why, pr.detail = runtime.OK, ""
	pr.mu.Unlock()
}

// Slow has f called, once and on the watcher's goroutine, when the invocation
// runs for longer than one or two ticks. f must not block. Between Begin and End.
func (pr *Process) Slow(f func()) {
	pr.mu.Lock()
	pr.onSlow = f
	pr.mu.Unlock()
}

// Fail ends the invocation with a reason of its own: the process is killed.
// The first reason counts.
func (pr *Process) Fail(why runtime.Reason, detail string) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.fail(why, detail)
}

// Terminate sends SIGTERM to the process: it may end by itself.
func (pr *Process) Terminate() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if !pr.gone {
		_ = syscall.Kill(pr.PID, syscall.SIGTERM)
	}
}

// fail is Fail with mu held.
func (pr *Process) fail(why runtime.Reason, detail string) {
	if !pr.running || pr.why != runtime.OK {
		return
	}
	pr.why, pr.detail = why, detail
	if !pr.gone {
		pr.killAll()
	}
}

// End is the end of the invocation. err is what the conversation with the
// process ended with: nil when it went as it should. The result is why the process was killed, when it
// was; OK without err; and otherwise how the process died, which End waits for, and enforces.
// When the result is not OK everything that the process had started is dead.
func (pr *Process) End(err error) runtime.Result {
	pr.mu.Lock()
	pr.running = false
	pr.cancel, pr.onSlow = nil, nil
	why, detail := pr.why, pr.detail
	pr.mu.Unlock()
	if why == runtime.OK && err == nil {
		pr.log.end()
		return runtime.Result{}
	}
	if why == runtime.OK && !pr.dies() {
		why, detail = runtime.Internal, err.Error()
	}
	pr.kill()
	<-pr.exited
	pr.log.end()
	if why != runtime.OK {
		return runtime.Result{Reason: why, Detail: detail}
	}
	return ended(pr.state)
}

// endPatience is how long a process whose channel has ended may take to end
// itself.
const endPatience = 10 * time.Second

// dies waits for a process that seems to be ending.
func (pr *Process) dies() bool {
	if pr.hasExited() {
		return true
	}
	timer := time.NewTimer(endPatience)
	defer timer.Stop()
	select {
	case <-pr.exited:
		return true
	case <-timer.C:
		return false
	}
}

// ended translates how a process has ended.
func ended(state *os.ProcessState) runtime.Result {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return runtime.Result{Reason: runtime.Internal, Detail: state.String()}
	}
	if status.Signaled() {
		return Signalled(status.Signal())
	}
	return runtime.Result{Reason: runtime.Exit, Exit: int32(status.ExitStatus())}
}

// Signalled is the result of an invocation whose process a signal has ended.
func Signalled(s syscall.Signal) runtime.Result {
	return runtime.Result{Reason: runtime.Signal, Exit: 128 + int32(s), Detail: sys.SignalName(s)}
}

// look is the watcher's look at one process. True: it is busy.
func (pr *Process) look(now time.Time) bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if !pr.running {
		return false
	}
	switch {
	case pr.cancel != nil && pr.cancel.Load():
		pr.fail(runtime.Cancelled, "cancelled")
	case now.After(pr.deadline):
		pr.fail(runtime.Timeout, "ran past its deadline")
	case pr.onSlow != nil && now.Sub(pr.since) >= tickEvery:
		f := pr.onSlow
		pr.onSlow = nil
		f()
	}
	return true
}

// PumpIn writes the invocation's body, all of it, to w, which it leaves open.
// A process that does not read (EPIPE) is no error.
func PumpIn(w io.Writer, inv *runtime.Invocation) error {
	_, err := w.Write(inv.Body)
	if err == nil && inv.More != nil {
		_, err = io.Copy(w, inv.More)
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// PumpOut moves what comes from r to the invocation's Stdout until r ends. An
// answer that is too long, or whose client has left, ends the invocation: Fail.
func (pr *Process) PumpOut(r io.Reader, inv *runtime.Invocation) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if werr := pr.Write(inv, buf[:n]); werr != nil {
				return werr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Write gives p to the invocation's Stdout; see PumpOut.
func (pr *Process) Write(inv *runtime.Invocation, p []byte) error {
	_, err := inv.Stdout.Write(p)
	switch {
	case err == nil:
	case errors.Is(err, runtime.ErrOutputLimit):
		pr.Fail(runtime.OutputLimit, err.Error())
	default:
		pr.Fail(runtime.Cancelled, err.Error())
	}
	return err
}
