package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/child"
	"baton/sandbox"
)

// readBytes is how much of a function's output is read at a time.
const readBytes = 64 << 10

// Executor runs native functions. It implements runtime.Executor.
type Executor struct {
	*child.Functions
}

// New makes the executor.
func New(shared *child.Shared) *Executor { return &Executor{shared.NewFunctions()} }

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
	spec, err := e.Spec(f)
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
		memory := sandbox.AddressSpace(spec.MemoryMB)
		spec.Argv = []string{e.Program, "spawn", f.Module, mode, strconv.FormatUint(memory, 10)}
		spec.MemoryMB = 0                           // the spawner sets it for what it starts
		spec.Env = append(spec.Env, "GOMAXPROCS=1") // it does one thing at a time
	}
	l.Function = e.Add(child.Config{Name: f.Name, Spec: spec, Open: open, Ready: ready, Free: free})
	return l, nil
}

// loaded is a function and its pool.
type loaded struct {
	*child.Function
	f      *runtime.Function
	memory int64

	argc, fixed     int
	argv, variables []byte // each with its NUL
}

func (l *loaded) addArgument(s string) { l.argv, l.argc = append(append(l.argv, s...), 0), l.argc+1 }

func (l *loaded) addVariable(s string) {
	l.variables, l.fixed = append(append(l.variables, s...), 0), l.fixed+1
}

// server is what a process of the pool has beside it: standard input and output of
// its children, and the buffer of the one request that it serves.
type server struct {
	stdio *child.Stdio
	frame []byte
}

func open(p *child.Process) error {
	stdio, err := child.OpenStdio(p, make([]byte, readBytes))
	if err != nil {
		return err
	}
	p.State = &server{stdio: stdio}
	return nil
}

func free(p *child.Process) {
	if s, ok := p.State.(*server); ok {
		s.stdio.Close()
	}
}

// ready waits for the server's first sign of life.
func ready(p *child.Process) error {
	p.State.(*server).stdio.Ready(p)
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
		p, result := l.Pool.Get(inv, deadline)
		if p == nil {
			return result
		}
		s := p.State.(*server)
		p.Begin(inv, deadline)
		a, err := l.serve(p, s, inv)
		result = p.End(err)
		l.Pool.Put(p, err == nil && result.Reason == runtime.OK && a.left == 0)
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
	if err := s.stdio.Start(p, inv, func(stdin int) error { return l.send(p, s, inv, stdin) }); err != nil {
		return answer{}, err
	}
	a, err := await(p)
	if err := s.stdio.Finish(p, inv, err); err != nil {
		return answer{}, err
	}
	return a, nil
}

// send sends the request, with a descriptor unless that is negative.
func (l *loaded) send(p *child.Process, s *server, inv *runtime.Invocation, stdin int) error {
	var flags uint32
	if stdin >= 0 {
		flags = flagStdin
	}
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

// await waits for the end of the function.
func await(p *child.Process) (answer, error) {
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
	return a, err
}
