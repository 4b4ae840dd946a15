package child_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
)

// floodBytes is more than the pipe of the output and what reads it hold.
const floodBytes = 4 << 20

// serveStdio is the process of the tests of Stdio. It does what the child of a fork server would: for
// each byte that comes over the channel it reads standard input, which may have come with it, writes to
// standard output, and answers "." when it is done.
func serveStdio() error {
	const channel = 3
	var command [1]byte
	control := make([]byte, sys.RightsSpace(1))
	for {
		n, oob, _, _, err := syscall.Recvmsg(channel, command[:], control, syscall.MSG_CMSG_CLOEXEC)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		var received [1]int32
		var stdin io.Reader = io.NewSectionReader(os.Stdin, 0, 1<<40)
		var pipe *os.File
		if fds := sys.Rights(received[:0], control[:oob]); len(fds) > 0 {
			pipe = os.NewFile(uintptr(fds[0]), "stdin")
			stdin = pipe
		}
		switch command[0] {
		case 'e': // echo
			_, err = io.Copy(os.Stdout, stdin)
		case 'f': // flood
			_, err = os.Stdout.Write(make([]byte, floodBytes))
		case 'w': // write to standard input
			_, err = fmt.Fprint(os.Stdout, errors.Is(writeStdin(), syscall.EBADF))
		case 'b': // blocking
			var flags int
			if flags, err = flagsOf(pipe); err == nil {
				_, err = fmt.Fprint(os.Stdout, flags&syscall.O_NONBLOCK == 0)
			}
		}
		_ = pipe.Close() // nil: nothing
		if err != nil {
			return err
		}
		if _, err := syscall.Write(channel, []byte(".")); err != nil {
			return err
		}
	}
}

func writeStdin() error {
	_, err := syscall.Write(0, []byte("x"))
	return err
}

// flagsOf is the status flags of f, which Fd would change.
func flagsOf(f *os.File) (flags int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(n uintptr) {
		r, _, errno := syscall.Syscall(syscall.SYS_FCNTL, n, syscall.F_GETFL, 0)
		if flags = int(r); errno != 0 {
			err = errno
		}
	}); e != nil {
		return 0, e
	}
	return flags, err
}

// stdioPool is a pool of one such process.
func stdioPool(t testing.TB) *child.Pool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := child.Config{
		Max: 1,
		Open: func(pr *child.Process) error {
			s, err := child.OpenStdio(pr, make([]byte, 64<<10))
			if err == nil {
				pr.State = s
			}
			return err
		},
		Ready: func(pr *child.Process) error {
			pr.State.(*child.Stdio).Ready(pr)
			return nil
		},
		Free: func(pr *child.Process) {
			if s, ok := pr.State.(*child.Stdio); ok {
				s.Close()
			}
		},
	}
	c.Spec.Argv = []string{self, "stdio"}
	c.Spec.Read = []string{self}
	return pool(t, shared(t), c)
}

// request is one request with a body, of which the part that is still to come may be nil.
func request(p *child.Pool, command byte, body string, more io.Reader) (out string, pid int, result runtime.Result) {
	return requestBy(p, body, more, func(pr *child.Process, stdin int) error { return sendCommand(pr, command, stdin) })
}

// sendCommand has the process of the tests do something, with a descriptor unless that is negative.
func sendCommand(pr *child.Process, command byte, stdin int) error {
	var control []byte
	if stdin >= 0 {
		control = sys.PutRights(make([]byte, sys.RightsSpace(1)), []int32{int32(stdin)})
	}
	if _, errno := sys.SendMsg(pr.ChannelFD, [][]byte{{command}}, control); errno != 0 {
		return errno
	}
	return nil
}

// requestBy is request that is sent by send.
func requestBy(p *child.Pool, body string, more io.Reader, send func(pr *child.Process, stdin int) error) (out string, pid int, result runtime.Result) {
	var stdout bytes.Buffer
	inv := &runtime.Invocation{Body: []byte(body), More: more, Stdout: &stdout}
	deadline := time.Now().Add(testenv.Patience())
	pr, result := p.Get(inv, deadline)
	if pr == nil {
		return "", 0, result
	}
	s := pr.State.(*child.Stdio)
	pr.Begin(inv, deadline)
	err := s.Start(pr, inv, func(stdin int) error { return send(pr, stdin) })
	if err == nil {
		_, err = io.ReadFull(pr.Channel, make([]byte, 1))
		err = s.Finish(pr, inv, err)
	}
	pid = pr.PID
	result = pr.End(err)
	p.Put(pr, err == nil && result.Reason == runtime.OK)
	return stdout.String(), pid, result
}

// One process serves them all: what a request leaves behind would show in the next.
func TestStdio(t *testing.T) {
	t.Parallel()
	p := stdioPool(t)
	long := strings.Repeat("long body ", 50_000)
	flood := string(make([]byte, floodBytes))
	first := 0
	for i, c := range []struct {
		name       string
		command    byte
		body, more string // more: streamed
		want       string
	}{
		{"a body", 'e', "hello", "", "hello"},
		{"a longer one", 'e', long, "", long},
		{"a shorter one", 'e', "short", "", "short"},
		{"none", 'e', "", "", ""},
		{"one after none", 'e', "again", "", "again"},
		{"more output than the pipe holds", 'f', "", "", flood},
		{"such output once more", 'f', "", "", flood},
		{"a streamed body", 'e', "begin", long, "begin" + long},
		{"a streamed body that is not read", 'f', long, long, flood},
		{"a body after streamed ones", 'e', "whole", "", "whole"},
		{"the file cannot be written to", 'w', "", "", "true"},
		{"the pipe blocks", 'b', "", "more", "true"},
	} {
		var more io.Reader
		if c.more != "" {
			more = strings.NewReader(c.more)
		}
		out, pid, result := request(p, c.command, c.body, more)
		if out != c.want || result != (runtime.Result{}) {
			t.Fatalf("%s: %.40q (%d bytes), %+v", c.name, out, len(out), result)
		}
		if i == 0 {
			first = pid
		}
		if pid != first {
			t.Errorf("%s: served by process %d, not by %d", c.name, pid, first)
		}
	}
}

// A body that breaks off ends the request and its process.
func TestStdioBodyBreaksOff(t *testing.T) {
	t.Parallel()
	p := stdioPool(t)
	_, _, result := request(p, 'e', "begin", iotest.ErrReader(errors.New("client has left")))
	if want := (runtime.Result{Reason: runtime.Cancelled, Detail: "client has left"}); result != want {
		t.Errorf("%+v, want %+v", result, want)
	}
	if out, _, result := request(p, 'e', "after", nil); out != "after" || result.Reason != runtime.OK {
		t.Errorf("afterwards: %q, %+v", out, result)
	}
}

// What cannot be sent leaves nothing to finish; TestMain looks for its goroutines.
func TestStdioNotSent(t *testing.T) {
	t.Parallel()
	p := stdioPool(t)
	deadline := time.Now().Add(testenv.Patience())
	inv := &runtime.Invocation{Stdout: io.Discard}
	pr, result := p.Get(inv, deadline)
	if pr == nil {
		t.Fatal(result)
	}
	pr.Begin(inv, deadline)
	s := pr.State.(*child.Stdio)
	refused := errors.New("refused")
	for _, more := range []io.Reader{nil, strings.NewReader("more")} {
		inv.More = more
		var borrowed int
		err := s.Start(pr, inv, func(stdin int) error {
			borrowed = stdin
			return refused
		})
		if !errors.Is(err, refused) || (borrowed >= 0) != (more != nil) {
			t.Errorf("streamed %v: descriptor %d, %v", more != nil, borrowed, err)
		}
	}
	if err := s.Finish(pr, inv, refused); !errors.Is(err, refused) {
		t.Errorf("finish: %v", err)
	}
	pr.Fail(runtime.Cancelled, "not sent")
	if got, want := pr.End(refused), (runtime.Result{Reason: runtime.Cancelled, Detail: "not sent"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	p.Put(pr, false)
}

// The pipe of a streamed body is closed at both ends when the request is over, however it ends. Not
// parallel: the collector, which would close what was forgotten, stands still meanwhile.
func TestStdioClosesThePipe(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	p := stdioPool(t)
	for _, c := range []struct {
		name string
		sent bool
		more io.Reader
	}{
		{"a request", true, strings.NewReader("more")},
		{"one that is not sent", false, strings.NewReader("more")},
		{"one whose body breaks off", true, iotest.ErrReader(errors.New("client has left"))},
	} {
		pipe := ""
		_, _, result := requestBy(p, "begin", c.more, func(pr *child.Process, stdin int) error {
			var err error
			if pipe, err = os.Readlink(fmt.Sprint("/proc/self/fd/", stdin)); err != nil || !c.sent {
				pr.Fail(runtime.Cancelled, "not sent")
				return errors.Join(err, errors.New("not sent"))
			}
			return sendCommand(pr, 'b', stdin)
		})
		if !strings.HasPrefix(pipe, "pipe:[") {
			t.Fatalf("%s: the body comes by %q, %+v", c.name, pipe, result)
		}
		testenv.Until(t, c.name+" has closed "+pipe, func() bool { return !slices.Contains(testenv.Descriptors(os.Getpid()), pipe) })
	}
}
