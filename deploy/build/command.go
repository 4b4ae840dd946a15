package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/sandbox"
)

// step is one command of a build. Nothing of it comes from the user but names
// of files in the job's src, which start with "./".
type step struct {
	argv    []string
	env     []string  // beside the common ones
	dir     string    // empty: src
	read    []string  // beside the system's and the command's own places
	write   []string  // beside the job's folder: caches, and no user code runs
	network bool      // fetching only: no user code runs
	code    bool      // user code may run: what it makes is executed
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
	pid := cmd.Process.Pid
	// Of all that may run, a build goes first when the machine's memory ends.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("1000"), 0) // refused: no harm
	watched := make(chan struct{})
	watchCtx, unwatch := context.WithCancel(ctx)
	go func() { // ends with unwatch; waited for below
		defer close(watched)
		j.watch(watchCtx, pid, cancel)
	}()
	// What the command leaves behind ends with it, while its number is still its own.
	err = errors.Join(sys.AwaitEnd(pid), sandbox.Kill(pid))
	if e := cmd.Wait(); err == nil {
		err = e
	}
	unwatch()
	<-watched
	var limit *limitError
	switch cause := context.Cause(ctx); {
	case errors.As(cause, &limit):
		return cause
	case ctx.Err() != nil:
		return fmt.Errorf("run %s: %w", name(s.argv), cause)
	case err != nil && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == sandbox.ExitRefused && len(j.b.opt.Baton) > 0:
		return fmt.Errorf("confine %s: %s", name(s.argv), j.log.tail())
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
	if len(j.b.opt.Baton) == 0 {
		cmd := exec.CommandContext(ctx, s.argv[0], s.argv[1:]...)
		cmd.Dir = s.dir
		cmd.Env = j.environ(s.env)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		cmd.Cancel = func() error { return sandbox.Kill(cmd.Process.Pid) }
		cmd.WaitDelay = killWait
		return cmd, nil
	}
	spec := j.spec(s)
	for _, path := range append([]string{j.work}, s.write...) {
		if err := spec.Give(path); err != nil {
			return nil, err
		}
	}
	cmd, err := sandbox.Command(ctx, j.b.opt.Baton, spec)
	if err != nil {
		return nil, err
	}
	cmd.WaitDelay = killWait
	return cmd, nil
}

const (
	// userFirst is the user of the steps that write caches, where the server is
	// root; those behind it, one for each build at a time, are of all other
	// steps. Functions have the numbers below (sandbox.UIDDefault and their own
	// number), nobody those above.
	userFirst = sandbox.UIDDefault + 1<<27

	// processesMax bounds the processes of a build at a time. A compiler's driver
	// starts one or two for each processor.
	processesMax = 512

	// reservedMB of address space a process may have above the build's memory:
	// what runtimes map and never touch. The memory itself is watched.
	reservedMB = 8 << 10

	// openFilesMax is for linkers, which open all they link at a time.
	openFilesMax = 4096
)

// spec is what a step may do: change the build's folder, read the toolchain, and
// what the step says. Only where user code may run is it executed.
//
// A step that writes a cache runs no user code, and has a user that no user code has.
func (j *job) spec(s step) sandbox.Spec {
	o := j.b.opt
	spec := sandbox.Spec{
		Argv: s.argv, Env: j.environ(s.env), In: s.dir,
		Read: slices.Concat(s.read, j.b.placeOf(s.argv[0])), Write: append([]string{j.work}, s.write...), Hide: []string{o.Data}, Links: true,
		MemoryMB: o.MemoryMB + reservedMB, Processes: processesMax, OpenFiles: openFilesMax, FileMB: o.DiskMB,
		Network: s.network, UID: userFirst + 1 + j.slot, Without: o.Without,
	}
	if s.code {
		spec.Read = append(spec.Read, j.work)
	}
	if len(s.write) > 0 {
		spec.UID = userFirst
	}
	return spec
}

// watchEvery is how often the memory and the disk of a build are looked at. At
// 1 GB/s it is what a build can take above its bound: 100 MB.
const watchEvery = 100 * time.Millisecond
