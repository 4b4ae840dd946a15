package native

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"baton/internal/sys"
)

// Path is where the programs and scripts of functions find other programs.
const Path = "/usr/local/bin:/usr/bin:/bin"

const (
	// channel is the spawner's descriptor of the channel.
	channel = 3

	// busyMax is how long a program that somebody has open for writing is tried again: who has
	// written it may have forked at that moment, and the child holds the file until it
	// executes something. On an idle machine that takes less than a millisecond.
	busyMax = 5 * time.Second
	busyMin = time.Millisecond

	// Exit codes of a program that cannot be started, as shells have them.
	exitNotExecutable = 126
	exitNotFound      = 127 // for a script, its interpreter
)

// spawner is `baton spawn`: it starts the program once per request.
type spawner struct {
	program *sys.Program
	env     [][]byte // its own for the program, each with its NUL
	first   bool     // it is the first process of a namespace
	open    bool     // the program may start processes
	dir     *os.File // the working directory

	in      []byte // the request
	control []byte
	out     []byte // the answer
	argv    []*byte
	vars    []*byte
}

// Spawn is `baton spawn PROGRAM MODE BYTES`, inside of the sandbox: it starts the program for each
// request that comes over descriptor 3, with no more than that many bytes of address space
// (zero: no bound), and answers as the entry does. MODE is that of BATON_ENTRY. It
// returns when the channel has ended.
func Spawn(args []string) error {
	// The kernel kills the programs when the thread that has started them ends.
	goruntime.LockOSThread()
	s, err := newSpawner(args)
	if err != nil {
		return err
	}
	defer s.dir.Close()
	if err := s.answer(answer{kind: kindHello, left: flag(s.open)}); err != nil {
		return err
	}
	for {
		err := s.request()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func newSpawner(args []string) (*spawner, error) {
	if len(args) != 3 || args[1] == "" {
		return nil, errors.New("want a program, what it may do, and its memory: the spawner is started by baton only")
	}
	memory, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	syscall.CloseOnExec(channel)
	s := &spawner{first: os.Getpid() == 1, control: make([]byte, sys.RightsSpace(1)), in: make([]byte, 0, 8<<10)}
	var filter []sys.BPF
	if args[1][0] == modeAlone[0] && sys.SeccompAvailable() {
		filter = refuseProcesses()
	}
	s.open = filter == nil
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "PATH=") || strings.HasPrefix(v, "TMPDIR=") {
			s.env = append(s.env, append([]byte(v), 0))
		}
	}
	if s.program, err = sys.NewProgram(args[0], memory, filter, s.first); err != nil {
		return nil, err
	}
	s.dir, err = openDir()
	return s, err
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// refuseProcesses is the filter of a program that may start no processes, as in
// entry.c: threads only.
func refuseProcesses() []sys.BPF {
	const (
		number, arch, flags = 0, 4, 16 // struct seccomp_data
		cloneThread         = 0x00010000
	)
	refused := sys.SeccompErrno | uint32(syscall.EPERM)
	code := []sys.BPF{
		{Code: sys.BPFLoad, K: arch}, {Code: sys.BPFJumpEq, K: sys.AuditArch, Jt: 1}, {Code: sys.BPFReturn, K: refused},
		{Code: sys.BPFLoad, K: number},
	}
	for _, call := range []string{"fork", "vfork"} {
		if n, ok := sys.CallNumber(call); ok {
			code = append(code, sys.BPF{Code: sys.BPFJumpEq, K: n, Jf: 1}, sys.BPF{Code: sys.BPFReturn, K: refused})
		}
	}
	// The flags of clone3 are out of a filter's sight: libraries use clone then.
	if n, ok := sys.CallNumber("clone3"); ok {
		code = append(code, sys.BPF{Code: sys.BPFJumpEq, K: n, Jf: 1}, sys.BPF{Code: sys.BPFReturn, K: sys.SeccompErrno | uint32(syscall.ENOSYS)})
	}
	if n, ok := sys.CallNumber("clone"); ok {
		code = append(code, sys.BPF{Code: sys.BPFJumpEq, K: n, Jf: 3}, sys.BPF{Code: sys.BPFLoad, K: flags},
			sys.BPF{Code: sys.BPFJumpOn, K: cloneThread, Jt: 1}, sys.BPF{Code: sys.BPFReturn, K: refused})
	}
	return append(code, sys.BPF{Code: sys.BPFReturn, K: sys.SeccompAllow})
}

// request serves one request. io.EOF: there is none any more.
func (s *spawner) request() error {
	stdin, err := s.receive()
	if err != nil {
		return err
	}
	if stdin < 0 {
		if _, err := syscall.Seek(0, 0, io.SeekStart); err != nil {
			return fmt.Errorf("the body's start: %w", err)
		}
	}
	// What an earlier request has set on what is shared.
	for fd := 1; fd <= 2; fd++ {
		if err := syscall.SetNonblock(fd, false); err != nil {
			return fmt.Errorf("standard output: %w", err)
		}
	}
	pid, errno := s.start(stdin)
	if stdin >= 0 {
		_ = syscall.Close(stdin)
	}
	switch errno {
	case 0:
	case syscall.EAGAIN, syscall.ENOMEM: // no process can be made
		return s.answer(answer{kind: kindNoFork, status: syscall.WaitStatus(errno)})
	default:
		// As a shell would say it, to the function's log.
		fmt.Fprintf(os.Stderr, "the program cannot be started: %v\n", errno)
		code := exitNotExecutable
		if errno == syscall.ENOENT {
			code = exitNotFound
		}
		return s.answer(answer{kind: kindEnded, status: syscall.WaitStatus(code << 8)})
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	for {
		_, err := syscall.Wait4(pid, &status, 0, &usage)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("wait for the program: %w", err)
		}
	}
	left := uint32(0)
	if s.open {
		left = s.sweep()
	}
	if left == 0 && !emptyDir(s.dir) {
		left = 1
	}
	return s.answer(answer{kind: kindEnded, status: status, left: left, rss: s.rss(&usage)})
}

// rss is what the program had in memory at most, in bytes; zero: it cannot be
// known, because this process, whose memory it shared at first, has more.
func (s *spawner) rss(usage *syscall.Rusage) int64 {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil || usage.Maxrss <= own.Maxrss {
		return 0
	}
	return usage.Maxrss << 10
}

// start starts the program with the request's arguments and variables behind
// those of this process.
func (s *spawner) start(stdin int) (pid int, errno syscall.Errno) {
	count := int(binary.LittleEndian.Uint32(s.in[8:]))
	variables := int(binary.LittleEndian.Uint32(s.in[12:]))
	s.argv, s.vars = s.argv[:0], s.vars[:0]
	for _, v := range s.env {
		s.vars = append(s.vars, &v[0])
	}
	text := s.in[requestBytes:]
	for i := range count + variables {
		end := bytes.IndexByte(text, 0)
		if end < 0 {
			return -1, syscall.EBADMSG
		}
		if i < count {
			s.argv = append(s.argv, &text[0])
		} else {
			s.vars = append(s.vars, &text[0])
		}
		text = text[end+1:]
	}
	s.argv, s.vars = append(s.argv, nil), append(s.vars, nil)
	pid, errno = s.program.Start(s.argv, s.vars, stdin)
	for pause, waited := busyMin, time.Duration(0); errno == syscall.ETXTBSY && waited < busyMax; pause, waited = 2*pause, waited+pause {
		time.Sleep(pause)
		pid, errno = s.program.Start(s.argv, s.vars, stdin)
	}
	return pid, errno
}

// receive reads one request into s.in; stdin is the descriptor that came with
// it, or -1.
func (s *spawner) receive() (stdin int, err error) {
	stdin = -1
	s.in = s.in[:cap(s.in)]
	n, oob, _, _, err := syscall.Recvmsg(channel, s.in[:requestBytes], s.control, syscall.MSG_CMSG_CLOEXEC)
	for errors.Is(err, syscall.EINTR) {
		n, oob, _, _, err = syscall.Recvmsg(channel, s.in[:requestBytes], s.control, syscall.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("read a request: %w", err)
	}
	if n == 0 {
		return -1, io.EOF
	}
	if oob > 0 {
		var received [1]int32
		if fds := sys.Rights(received[:0], s.control[:oob]); len(fds) > 0 {
			stdin = int(fds[0])
		}
	}
	if err := readFull(s.in[n:requestBytes]); err != nil {
		return stdin, err
	}
	length := binary.LittleEndian.Uint32(s.in[4:])
	flags := binary.LittleEndian.Uint32(s.in[16:])
	if binary.LittleEndian.Uint32(s.in) != magic || length > bytesMax || binary.LittleEndian.Uint32(s.in[8:]) == 0 || flags&flagStdin != 0 && stdin < 0 {
		return stdin, errors.New("read a request: it is damaged")
	}
	if need := requestBytes + int(length); need > len(s.in) {
		s.in = append(make([]byte, 0, need), s.in[:requestBytes]...)
	}
	s.in = s.in[:requestBytes+int(length)]
	return stdin, readFull(s.in[requestBytes:])
}

// readFull fills p from the channel.
func readFull(p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Read(channel, p)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if n == 0 {
			return io.EOF
		}
		p = p[n:]
	}
	return nil
}

func (s *spawner) answer(a answer) error {
	s.out = a.append(s.out[:0])
	for p := s.out; len(p) > 0; {
		n, err := syscall.Write(channel, p)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if errors.Is(err, syscall.EPIPE) {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// sweep ends what a request has left behind. Not zero: something is left.
func (s *spawner) sweep() uint32 {
	options := syscall.WNOHANG
	if s.first {
		_ = syscall.Kill(-1, syscall.SIGKILL)
		options = 0
	}
	for {
		pid, err := syscall.Wait4(-1, nil, options, nil)
		if err == nil && pid == 0 {
			return 1 // runs, and its number is not known here
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return 0
		}
	}
}
