package python

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/event"
)

const (
	// readBytes is how much is read of an answer at a time.
	readBytes = 64 << 10

	// usesMax is how many scripts one interpreter is forked for: they share its
	// address layout and the seed of its hashes.
	usesMax = 5000
)

// errChannel says that a function has spoilt its channel.
var errChannel = errors.New("the channel")

// Executor runs Python functions. It implements runtime.Executor.
type Executor struct {
	*child.Functions
	path   string
	filter string

	finding sync.Mutex   // held while the interpreter is looked for
	found   *Interpreter // guarded by finding; nil: not found yet
	code    []byte       // guarded by finding; the server's, for that interpreter
}

// New makes the executor. path is the list of directories, as PATH is, in which the interpreter
// is looked for when the first function is loaded.
func New(shared *child.Shared, path string) *Executor {
	e := &Executor{Functions: shared.NewFunctions(), path: path}
	if !slices.Contains(shared.Without, "seccomp") {
		e.filter = refuseProcesses()
	}
	return e
}

// interpreter finds the interpreter and compiles the server for it. A machine
// that has none is looked at again at the next load.
func (e *Executor) interpreter(ctx context.Context) (*Interpreter, []byte, error) {
	e.finding.Lock()
	defer e.finding.Unlock()
	if e.found != nil {
		return e.found, e.code, nil
	}
	found, err := Find(ctx, e.path)
	if err != nil {
		return nil, nil, err
	}
	code, err := found.compile(ctx)
	if err != nil {
		return nil, nil, err
	}
	e.found, e.code = &found, code
	return e.found, e.code, nil
}

// Load implements runtime.Executor. It starts nothing: the first request does.
func (e *Executor) Load(ctx context.Context, f *runtime.Function) (runtime.Loaded, error) {
	info, err := os.Stat(f.Module)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("file %s: not a file", f.Module)
	}
	python, code, err := e.interpreter(ctx)
	if err != nil {
		return nil, err
	}
	spec, err := e.Spec(f)
	if err != nil {
		return nil, err
	}
	l := &loaded{f: f, code: code, memory: f.Memory()}
	if f.Handler != "" {
		l.addVariable("_HANDLER=" + f.Handler)
	}
	for _, v := range f.Env {
		l.addVariable(v)
	}
	folder := e.Artifact(f.Module)
	if folder == f.Module {
		folder = "" // a file alone
	}
	if f.Files != "" {
		spec.Read = append(spec.Read, f.Files)
	}
	filter := ""
	if spec.Processes == 0 {
		filter = e.filter
	}
	spec.Read = append(spec.Read, python.Read...)
	// Symbols are looked up once, by the server, and not by each of its forks.
	spec.Env = append(spec.Env, "PATH=/usr/local/bin:/usr/bin:/bin", "LD_BIND_NOW=1")
	spec.Processes++ // the server's own forks; the filter takes them back
	l.bounded = !slices.Contains(e.Without, "rlimits")
	spec.MemoryMB = 0 // the server bounds itself, once it is there
	spec.Argv = []string{
		python.Path, "-I", "-B", "-X", "utf8", "-c", starter,
		f.Module, folder, functionOf(f.Handler), f.Name, strconv.FormatInt(l.memory>>20, 10), filter,
	}
	l.Function = e.Add(child.Config{Name: f.Name, Spec: spec, Open: l.open, Ready: l.ready, Free: free})
	return l, nil
}

// functionOf is the name of the function that a descriptor's handler names:
// what is behind the last colon or dot of "FILE:FUNC" and "FILE.FUNC". Empty, which is "handler" where
// the file has it: none is named, or the file alone. A single name, with "?" before it, may be either: a
// function when the file has it.
func functionOf(handler string) string {
	if handler == "" || strings.HasSuffix(handler, ".py") {
		return ""
	}
	if at := strings.LastIndexAny(handler, ":."); at >= 0 {
		return handler[at+1:]
	}
	return "?" + handler[strings.LastIndexByte(handler, '/')+1:]
}

// loaded is a function and its pool.
type loaded struct {
	*child.Function
	f         *runtime.Function
	code      []byte // the server's
	memory    int64
	bounded   bool
	variables []byte // its own, each with its NUL
}

func (l *loaded) addVariable(s string) { l.variables = append(append(l.variables, s...), 0) }

// server is what a process of the pool has beside it: standard input and output of
// its forks, and the buffers of the one request that it serves.
type server struct {
	handler bool         // the file defines the handler
	stdio   *child.Stdio // of scripts
	frame   []byte
	out     []byte // a handler's answer is read into it, a script's output by stdio
	events  event.Builder
}

// open makes what a script reads the body from, and the file in memory that the
// server's code is in.
func (l *loaded) open(p *child.Process) error {
	out := make([]byte, readBytes)
	stdio, err := child.OpenStdio(p, out)
	if err != nil {
		return err
	}
	p.State = &server{stdio: stdio, out: out}
	n, f, err := child.InMemory("server", l.code)
	if err != nil {
		return err
	}
	_ = syscall.Close(n)
	p.Files = append(p.Files, f)
	return nil
}

func free(p *child.Process) {
	if s, ok := p.State.(*server); ok {
		s.stdio.Close()
	}
}

// ready waits for the server's first sign of life, tells it what it may use, and
// waits until it has read the file.
func (l *loaded) ready(p *child.Process) error {
	s := p.State.(*server)
	s.stdio.Ready(p)
	a, err := readAnswer(p)
	if err != nil {
		return fmt.Errorf("wait for the interpreter: %w", err)
	}
	if a.kind != kindHello {
		return fmt.Errorf("the interpreter begins with an answer of kind %d", a.kind)
	}
	space, err := l.space(p.PID)
	if err != nil {
		return err
	}
	if _, err := p.Channel.Write(appendConfig(nil, l.variables, space)); err != nil {
		return fmt.Errorf("configure the interpreter: %w", err)
	}
	if a, err = readAnswer(p); err != nil {
		return fmt.Errorf("wait until the function is read: %w", err)
	}
	if a.kind != kindReady {
		return fmt.Errorf("the interpreter is not ready: an answer of kind %d, %w", a.kind, syscall.Errno(a.status))
	}
	s.handler = a.flags&flagHandler != 0
	return nil
}

// space is the bound of the interpreter's address space: what it has now, and
// the function's memory. Zero: none.
func (l *loaded) space(pid int) (uint64, error) {
	if !l.bounded {
		return 0, nil
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, fmt.Errorf("size of the interpreter: %w", err)
	}
	first, _, _ := bytes.Cut(text, []byte(" "))
	pages, err := strconv.ParseUint(string(first), 10, 48)
	if err != nil {
		return 0, fmt.Errorf("size of the interpreter: %w", err)
	}
	return pages*uint64(os.Getpagesize()) + uint64(l.memory), nil
}

func readAnswer(p *child.Process) (answer, error) {
	var b [answerBytes]byte
	if _, err := io.ReadFull(p.Channel, b[:]); err != nil {
		return answer{}, err
	}
	return parseAnswer(b[:])
}

// Invoke implements runtime.Loaded.
func (l *loaded) Invoke(inv *runtime.Invocation) runtime.Result {
	deadline := inv.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(l.f.Limit())
	}
	p, result := l.Pool.Get(inv, deadline)
	if p == nil {
		return result
	}
	s := p.State.(*server)
	p.Begin(inv, deadline)
	var a answer
	var err error
	if s.handler {
		a, err = l.call(p, s, inv, deadline)
	} else {
		a, err = l.run(p, s, inv)
	}
	if errors.Is(err, errChannel) {
		p.Fail(runtime.Trap, err.Error())
	}
	result = p.End(err)
	if result.Reason == runtime.Internal && errors.Is(err, io.EOF) {
		result.Reason = runtime.Trap // it runs, and has closed its channel
	}
	switch {
	case err != nil:
	case a.flags&flagComputes != 0:
		l.Pool.Enough(goruntime.NumCPU())
	case a.flags&flagWaits != 0:
		l.Pool.Enough(0)
	}
	reusable := err == nil && result.Reason == runtime.OK && a.flags&(flagLeft|flagRetire) == 0 && (s.handler || p.Requests < usesMax)
	l.Pool.Put(p, reusable)
	if err != nil || result.Reason != runtime.OK {
		return result
	}
	return l.result(s, a)
}

// result translates what the answer says.
func (l *loaded) result(s *server, a answer) runtime.Result {
	if a.kind == kindAnswered {
		return runtime.Result{}
	}
	r := runtime.Result{Exit: a.status}
	if !s.handler {
		status := syscall.WaitStatus(a.status)
		if r.Exit = int32(status.ExitStatus()); status.Signaled() {
			r = child.Signalled(status.Signal())
		}
	}
	switch {
	case a.flags&flagMemory != 0:
		return runtime.Result{Reason: runtime.Memory, Exit: r.Exit, Detail: "memory ended"}
	case r.Exit != 0 && r.Reason == runtime.OK:
		r.Reason = runtime.Exit
	}
	return r
}

// call is one request to a handler. An error says that the conversation with
// the server did not go as it should: it is killed then, or was.
func (l *loaded) call(p *child.Process, s *server, inv *runtime.Invocation, deadline time.Time) (answer, error) {
	now := time.Now()
	frame := appendHead(s.frame[:0])
	frame = s.events.Append(frame, inv.Env, now)
	text := len(frame) - requestBytes
	if text > textMax {
		return answer{}, fmt.Errorf("%w: an event of %d bytes", errChannel, text)
	}
	var flags uint32
	if inv.More != nil {
		flags |= flagStreamed
	}
	left := max(deadline.Sub(now).Milliseconds(), 0)
	putHead(frame, flags, text, uint32(min(left, math.MaxUint32)), len(inv.Body))
	frame = append(frame, inv.Body...)
	s.frame = frame[:0]
	if cap(s.frame) > 4*readBytes {
		s.frame = nil
	}
	_, err := p.Channel.Write(frame)
	if err == nil && inv.More != nil {
		err = s.sendParts(p, inv)
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		return answer{}, err
	}
	return s.receive(p, inv)
}

// sendParts sends what comes of the body. It ends with the process, which is the
// only reader.
func (s *server) sendParts(p *child.Process, inv *runtime.Invocation) error {
	for {
		n, err := inv.More.Read(s.out[partBytes:])
		if n > 0 {
			binary.LittleEndian.PutUint32(s.out, uint32(n))
			if _, err := p.Channel.Write(s.out[:partBytes+n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			_, err = p.Channel.Write(make([]byte, partBytes))
			return err
		}
		if err != nil {
			p.Fail(runtime.Cancelled, err.Error())
			return err
		}
	}
}

// receive gives a handler's answer on.
func (s *server) receive(p *child.Process, inv *runtime.Invocation) (answer, error) {
	got := 0
	for got < answerBytes {
		n, err := p.Channel.Read(s.out[got:])
		if err != nil {
			return answer{}, err
		}
		got += n
	}
	a, err := parseAnswer(s.out)
	if err != nil {
		return answer{}, err
	}
	rest := s.out[answerBytes:got]
	switch {
	case a.kind == kindFailed && len(rest) == 0:
		return a, nil
	case a.kind != kindAnswered:
		return answer{}, fmt.Errorf("%w: an answer of kind %d", errChannel, a.kind)
	}
	for left := a.number; ; {
		if uint64(len(rest)) > left {
			return answer{}, fmt.Errorf("%w: an answer is longer than it says", errChannel)
		}
		if len(rest) > 0 {
			if err := p.Write(inv, rest); err != nil {
				return answer{}, err
			}
			left -= uint64(len(rest))
		}
		if left == 0 {
			return a, nil
		}
		n, err := p.Channel.Read(s.out[:min(left, uint64(len(s.out)))])
		if err != nil {
			return answer{}, err
		}
		rest = s.out[:n]
	}
}

// run is one request to a script. Errors: see call.
func (l *loaded) run(p *child.Process, s *server, inv *runtime.Invocation) (answer, error) {
	if err := s.stdio.Start(p, inv, func(stdin int) error { return s.send(p, inv, stdin) }); err != nil {
		return answer{}, err
	}
	a, err := await(p)
	if err := s.stdio.Finish(p, inv, err); err != nil {
		return answer{}, err
	}
	return a, nil
}

// send sends a script its request, with a descriptor unless that is negative.
func (s *server) send(p *child.Process, inv *runtime.Invocation, stdin int) error {
	var flags uint32
	if stdin >= 0 {
		flags = flagStreamed
	}
	frame := appendVariables(appendHead(s.frame[:0]), inv.Env)
	s.frame = frame[:0]
	if len(frame)-requestBytes > textMax {
		return fmt.Errorf("%w: %d bytes of variables", errChannel, len(frame))
	}
	putHead(frame, flags, len(frame)-requestBytes, 0, len(inv.Body))
	if stdin >= 0 {
		control := sys.PutRights(make([]byte, sys.RightsSpace(1)), []int32{int32(stdin)})
		n, errno := sys.SendMsg(p.ChannelFD, [][]byte{frame}, control)
		if errno != 0 {
			return fmt.Errorf("send the request: %w", errno)
		}
		frame = frame[n:]
	}
	if len(frame) == 0 {
		return nil
	}
	if _, err := p.Channel.Write(frame); err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	return nil
}

// await waits for the end of the script.
func await(p *child.Process) (answer, error) {
	a, err := readAnswer(p)
	switch {
	case err == nil && a.kind == kindNoFork:
		err = fmt.Errorf("fork the interpreter: %w", syscall.Errno(a.status))
	case err == nil && a.kind != kindEnded:
		err = fmt.Errorf("%w: an answer of kind %d", errChannel, a.kind)
	}
	return a, err
}
