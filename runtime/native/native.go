package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/child"
	"baton/sandbox"
)

// stdoutBytes is what the pipe of a function's output holds: what a function
// writes without anybody reading yet. Answers up to 512 KiB do not stream anyway.
const stdoutBytes = 1 << 20

// readBytes is how much is read of it at a time.
const readBytes = 64 << 10

// Executor runs native functions. It implements runtime.Executor.
type Executor struct {
	shared *child.Shared
	// spawner is the command line of the process that starts programs without the entry.
	spawner []string

	mu     sync.Mutex
	loaded map[*loaded]bool // guarded by mu
}

// New makes the executor. spawner is the command line of `baton spawn`; empty: only
// programs with the entry run.
func New(shared *child.Shared, spawner []string) *Executor {
	return &Executor{shared: shared, spawner: spawner, loaded: map[*loaded]bool{}}
}

// Close implements runtime.Executor: it ends what functions that were not closed
// still have.
func (e *Executor) Close() error {
	e.mu.Lock()
	left := slices.Collect(maps.Keys(e.loaded))
	e.mu.Unlock()
	for _, l := range left {
		_ = l.Close()
	}
	return nil
}

// Load implements runtime.Executor. It starts nothing: the first request does.
func (e *Executor) Load(_ context.Context, f *runtime.Function) (runtime.Loaded, error) {
	info, err := os.Stat(f.Module)
	if err != nil {
		return nil, fmt.Errorf("program: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("program %s: not a file", f.Module)
	}
	if info.Mode().Perm()&0o100 == 0 {
		if err := os.Chmod(f.Module, info.Mode().Perm()|0o100); err != nil {
			return nil, fmt.Errorf("program: %w", err)
		}
	}
	spec, err := e.shared.Spec(f)
	if err != nil {
		return nil, err
	}
	l := &loaded{f: f, memory: f.Memory()}
	l.addArgument(f.Name)
	if f.Handler != "" {
		l.addArgument(f.Handler)
		l.addVariable("_HANDLER=" + f.Handler)
	}
	for _, v := range f.Env {
		l.addVariable(v)
	}
	if f.Files != "" {
		spec.Read = append(spec.Read, f.Files)
	}
	mode := modeAlone
	if f.Processes > 0 {
		mode = modeProcesses
	}
	spec.Env = append(spec.Env, "PATH="+Path)
	spec.Processes++ // the server's own
	if Linked(f.Module) {
		spec.Argv = []string{f.Module}
		// Symbols are looked up once, by the server.
		spec.Env = append(spec.Env, "LD_BIND_NOW=1", "BATON_ENTRY="+mode)
	} else {
		if len(e.spawner) == 0 {
			return nil, errors.New("program is not linked with baton's entry")
		}
		memory := sandbox.AddressSpace(spec.MemoryMB)
		spec.Argv = slices.Concat(e.spawner, []string{f.Module, mode, strconv.FormatUint(memory, 10)})
		spec.MemoryMB = 0                           // the spawner sets it for what it starts
		spec.Env = append(spec.Env, "GOMAXPROCS=1") // it does one thing at a time
	}
	l.pool = e.shared.NewPool(child.Config{Name: f.Name, Spec: spec, Open: open, Ready: ready, Free: free})
	l.executor = e
	e.mu.Lock()
	e.loaded[l] = true
	e.mu.Unlock()
	return l, nil
}

// loaded is a function and its pool.
type loaded struct {
	executor *Executor
	f        *runtime.Function
	pool     *child.Pool
	memory   int64

	argc, fixed     int
	argv, variables []byte // each with its NUL

	closed atomic.Bool
}

func (l *loaded) addArgument(s string) { l.argv, l.argc = append(append(l.argv, s...), 0), l.argc+1 }

func (l *loaded) addVariable(s string) {
	l.variables, l.fixed = append(append(l.variables, s...), 0), l.fixed+1
}

// Inline implements runtime.Loaded: an invocation waits for another process.
func (l *loaded) Inline() bool { return false }

// Close implements runtime.Loaded.
func (l *loaded) Close() error {
	if l.closed.Swap(true) {
		return os.ErrClosed
	}
	l.pool.Close()
	l.executor.mu.Lock()
	delete(l.executor.loaded, l)
	l.executor.mu.Unlock()
	return nil
}

// server is what a process of the pool has beside it: the file that its
// children read the body from, and the buffers of the one request that it serves.
type server struct {
	body   int // descriptor of the file in memory; ours alone
	length int // of it
	frame  []byte
	out    []byte

	pumps   sync.WaitGroup // goroutines of the request
	started bool           // the output is being pumped
}

// open makes the file in memory. The child's descriptor is another opening of it, which can only
// read: its flags are not ours.
func open(p *child.Process) error {
	s := &server{body: -1, out: make([]byte, readBytes)}
	p.State = s
	n, err := sys.Memfd("body")
	if err != nil {
		return err
	}
	s.body = n
	p.Stdin, err = os.OpenFile("/proc/self/fd/"+strconv.Itoa(n), os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open a file in memory: %w", err)
	}
	return nil
}

func free(p *child.Process) {
	if s, ok := p.State.(*server); ok && s.body >= 0 {
		_ = syscall.Close(s.body)
	}
}

// ready waits for the server's first sign of life.
func ready(p *child.Process) error {
	_ = sys.SetPipeSize(p.StdoutFD, stdoutBytes) // a smaller one holds less, and is read sooner
	a, err := readAnswer(p)
	if err != nil {
		return fmt.Errorf("wait for the fork server: %w", err)
	}
	if a.kind != kindHello {
		return fmt.Errorf("the fork server begins with an answer of kind %d", a.kind)
	}
	return nil
}

func readAnswer(p *child.Process) (answer, error) {
	var b [answerBytes]byte
	if _, err := io.ReadFull(p.Channel, b[:]); err != nil {
		return answer{}, err
	}
	return parseAnswer(&b)
}

// Invoke implements runtime.Loaded.
func (l *loaded) Invoke(inv *runtime.Invocation) runtime.Result {
	deadline := inv.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(l.f.Limit())
	}
	for tries := 1; ; tries++ {
		p, result := l.pool.Get(inv, deadline)
		if p == nil {
			return result
		}
		s := p.State.(*server)
		p.Begin(inv, deadline)
		a, err := l.serve(p, s, inv)
		result = p.End(err)
		l.pool.Put(p, err == nil && result.Reason == runtime.OK && a.left == 0)
		switch {
		case errors.Is(err, errNotSent) && tries < sendTries && time.Now().Before(deadline):
			continue // somebody has killed the process while it was idle
		case err != nil || result.Reason != runtime.OK:
			return result
		}
		return l.result(a)
	}
}

// errNotSent: the process did not get the whole request, so that nothing of the
// function has run: it becomes the program when it has.
var errNotSent = errors.New("the request could not be sent")

// sendTries bounds how often a request is sent.
const sendTries = 3

// result translates how the function's process has ended.
func (l *loaded) result(a answer) runtime.Result {
	switch {
	case a.status.Exited() && a.status.ExitStatus() == 0:
		return runtime.Result{}
	case a.rss >= l.memory-l.memory/8:
		r := runtime.Result{Reason: runtime.Memory, Exit: int32(a.status.ExitStatus()), Detail: "it had " + strconv.FormatInt(a.rss>>20, 10) + " MiB in memory"}
		if a.status.Signaled() {
			r.Exit = 128 + int32(a.status.Signal())
		}
		return r
	case a.status.Signaled():
		return child.Signalled(a.status.Signal())
	}
	return runtime.Result{Reason: runtime.Exit, Exit: int32(a.status.ExitStatus())}
}

// serve is one request. An error says that the conversation with the server
// did not go as it should: it is killed then, or was.
func (l *loaded) serve(p *child.Process, s *server, inv *runtime.Invocation) (answer, error) {
	s.started = false
	if inv.More != nil {
		return l.serveStream(p, s, inv)
	}
	if err := s.setBody(inv.Body); err != nil {
		return answer{}, err
	}
	if err := l.send(p, s, inv, 0, -1); err != nil {
		return answer{}, err
	}
	p.Slow(func() { s.pump(p, inv) })
	return l.await(p, s, inv)
}

// serveStream is serve with a body of which the end has not come: standard input is a pipe.
func (l *loaded) serveStream(p *child.Process, s *server, inv *runtime.Invocation) (answer, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return answer{}, fmt.Errorf("pipe of the body: %w", err)
	}
	raw, err := read.SyscallConn()
	if err == nil {
		if e := raw.Control(func(n uintptr) {
			_ = syscall.SetNonblock(int(n), false)
			err = l.send(p, s, inv, flagStdin, int(n))
		}); e != nil {
			err = e
		}
	}
	_ = read.Close()
	if err != nil {
		_ = write.Close()
		return answer{}, err
	}
	s.pumps.Go(func() { // ends when the child, the only reader, is gone, or the body is over or its reader fails
		if err := child.PumpIn(write, inv); err != nil {
			p.Fail(runtime.Cancelled, err.Error())
		}
		_ = write.Close()
	})
	s.pump(p, inv)
	return l.await(p, s, inv)
}

// setBody puts the body into the file, at whose start the child begins to read.
func (s *server) setBody(body []byte) error {
	if len(body) == 0 && s.length == 0 {
		return nil
	}
	if len(body) < s.length {
		if err := syscall.Ftruncate(s.body, int64(len(body))); err != nil {
			return fmt.Errorf("body: %w", err)
		}
	}
	for at := 0; at < len(body); {
		n, err := syscall.Pwrite(s.body, body[at:], int64(at))
		if err != nil && err != syscall.EINTR {
			return fmt.Errorf("body: %w", err)
		}
		at += max(n, 0)
	}
	s.length = len(body)
	return nil
}

// send sends the request, with a descriptor unless that is negative.
func (l *loaded) send(p *child.Process, s *server, inv *runtime.Invocation, flags uint32, stdin int) error {
	s.frame = appendRequest(s.frame[:0], l.argc, l.argv, l.fixed, l.variables, inv.Env, flags)
	frame := s.frame
	if len(frame)-requestBytes > bytesMax {
		return fmt.Errorf("%d bytes of variables", len(frame))
	}
	if stdin >= 0 {
		control := sys.PutRights(make([]byte, sys.RightsSpace(1)), []int32{int32(stdin)})
		n, errno := sys.SendMsg(p.ChannelFD, [][]byte{frame}, control)
		if errno != 0 {
			return fmt.Errorf("%w: %w", errNotSent, errno)
		}
		frame = frame[n:]
	}
	if _, err := p.Channel.Write(frame); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	return nil
}

// await waits for the end of the function and gives its output on.
func (l *loaded) await(p *child.Process, s *server, inv *runtime.Invocation) (answer, error) {
	a, err := readAnswer(p)
	for err == nil && a.kind == kindHello { // it was executed anew since the last request
		a, err = readAnswer(p)
	}
	if err == nil && a.kind == kindNoFork {
		p.Fail(runtime.Unavailable, "no process can be made: "+syscall.Errno(a.status).Error())
	}
	if err == nil && a.kind != kindEnded {
		err = fmt.Errorf("the fork server answers with kind %d: %w", a.kind, syscall.Errno(a.status))
	}
	p.Slow(nil)
	if s.started {
		// Nobody writes any more: what is not read yet is in the pipe.
		_ = p.Stdout.SetReadDeadline(time.Unix(1, 0))
	}
	s.pumps.Wait()
	if s.started {
		_ = p.Stdout.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return answer{}, err
	}
	return a, s.drain(p, inv)
}

// drain gives on what is left in the pipe of the output.
func (s *server) drain(p *child.Process, inv *runtime.Invocation) error {
	for {
		n, errno := sys.Read(p.StdoutFD, s.out)
		if errno == syscall.EAGAIN || errno == 0 && n == 0 {
			return nil
		}
		if errno != 0 {
			return fmt.Errorf("read the output: %w", errno)
		}
		if err := p.Write(inv, s.out[:n]); err != nil {
			return err
		}
		if n < len(s.out) {
			return nil // all writers are dead
		}
	}
}

// pump reads the output while the function runs. It is called by the watcher,
// with the process's lock held, or before that could.
func (s *server) pump(p *child.Process, inv *runtime.Invocation) {
	s.started = true
	s.pumps.Go(func() { // ends by the deadline that await sets, or with the process
		_ = p.PumpOut(p.Stdout, inv) // a fault of it ends the process, which await sees
	})
}
