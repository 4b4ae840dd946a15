package child

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/runtime"
)

// stdoutBytes is what the pipe of a process's output holds: what a request
// writes without anybody reading yet. Answers up to 512 KiB do not stream anyway.
const stdoutBytes = 1 << 20

// Stdio is standard input and output of a fork server's requests: of a process that makes, for each
// request, a child which reads the body from its descriptor 0 and writes the answer to descriptor 1, and says
// on the channel that the child has ended.
//
// A body that is there is put into a file in memory, at whose start the child begins to read. One
// whose end has not come goes by a pipe, the descriptor of which is sent with the request. The
// output is read when the child has ended; by a goroutine beside when it runs for longer than that (Process.Slow).
//
// A request is Start, waiting for the server's word, and Finish, all between Process.Begin and
// Process.End. Not for use by two at a time.
type Stdio struct {
	body   int    // descriptor of the file in memory; ours alone, until Close
	length int    // of what is in it
	buf    []byte // the caller's of OpenStdio; read into by Finish alone

	pumps   sync.WaitGroup // goroutines of the request
	pumping bool           // the output is being pumped; written with the process's lock held, or before the watcher knows
}

// OpenStdio is for Config.Open: it makes the file in memory, and Process.Stdin of it. buf
// is what the output is read into: Finish alone uses it. Config.Free calls Close.
func OpenStdio(p *Process, buf []byte) (*Stdio, error) {
	n, f, err := InMemory("body", nil)
	if err != nil {
		return nil, err
	}
	p.Stdin = f
	return &Stdio{body: n, buf: buf}, nil
}

// Ready is for Config.Ready: it makes the pipe of the output wide.
func (s *Stdio) Ready(p *Process) {
	_ = sys.SetPipeSize(p.StdoutFD, stdoutBytes) // a smaller one holds less, and is read sooner
}

// Close gives back what OpenStdio has made, but for Process.Stdin, which is the process's.
func (s *Stdio) Close() { _ = syscall.Close(s.body) }

// InMemory makes a file in memory that holds b. n is its descriptor, the
// caller's to close; f is another opening of it, at its start, which can only read: its flags
// are not n's.
func InMemory(name string, b []byte) (n int, f *os.File, err error) {
	n, err = sys.Memfd(name)
	if err != nil {
		return -1, nil, err
	}
	if err = sys.WriteAt(n, b, 0); err == nil {
		f, err = os.OpenFile("/proc/self/fd/"+strconv.Itoa(n), os.O_RDONLY, 0)
	}
	if err != nil {
		_ = syscall.Close(n)
		return -1, nil, fmt.Errorf("open a file in memory: %w", err)
	}
	return n, f, nil
}

// Start gives the invocation's body to the request that send sends. stdin is -1, or the read end of a pipe for the
// request's descriptor 0, which blocks and is borrowed: it is closed when send returns. After an
// error nothing of the request is left to finish.
func (s *Stdio) Start(p *Process, inv *runtime.Invocation, send func(stdin int) error) error {
	s.pumping = false
	if inv.More != nil {
		return s.startStream(p, inv, send)
	}
	if err := s.setBody(inv.Body); err != nil {
		return err
	}
	if err := send(-1); err != nil {
		return err
	}
	p.Slow(func() { s.pump(p, inv) })
	return nil
}

// startStream is Start with a body of which the end has not come.
func (s *Stdio) startStream(p *Process, inv *runtime.Invocation, send func(stdin int) error) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe of the body: %w", err)
	}
	raw, err := read.SyscallConn()
	if err == nil {
		if e := raw.Control(func(n uintptr) {
			_ = syscall.SetNonblock(int(n), false)
			err = send(int(n))
		}); e != nil {
			err = e
		}
	}
	_ = read.Close()
	if err != nil {
		_ = write.Close()
		return err
	}
	s.pumps.Go(func() { // ends when the child, the only reader, is gone, or the body is over or its reader fails
		if err := PumpIn(write, inv); err != nil {
			p.Fail(runtime.Cancelled, err.Error())
		}
		_ = write.Close()
	})
	s.pump(p, inv)
	return nil
}

// setBody puts the body into the file.
func (s *Stdio) setBody(body []byte) error {
	if len(body) < s.length {
		if err := syscall.Ftruncate(s.body, int64(len(body))); err != nil {
			return fmt.Errorf("body: %w", err)
		}
	}
	if err := sys.WriteAt(s.body, body, 0); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	s.length = len(body)
	return nil
}

// Finish is the end of what Start has begun: the server has said that the child has ended, or, with
// err, has not. It waits for the goroutines of the request and, without err, gives on what is left of the output. Its
// error is err, or that of the output.
func (s *Stdio) Finish(p *Process, inv *runtime.Invocation, err error) error {
	p.Slow(nil)
	if s.pumping {
		// Nobody writes any more: what is not read yet is in the pipe.
		_ = p.Stdout.SetReadDeadline(time.Unix(1, 0))
	}
	s.pumps.Wait()
	if s.pumping {
		_ = p.Stdout.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return err
	}
	return s.drain(p, inv)
}

// drain gives on what is left in the pipe of the output.
func (s *Stdio) drain(p *Process, inv *runtime.Invocation) error {
	for {
		n, errno := sys.Read(p.StdoutFD, s.buf)
		if errno == syscall.EAGAIN || errno == 0 && n == 0 {
			return nil
		}
		if errno != 0 {
			return fmt.Errorf("read the output: %w", errno)
		}
		if err := p.Write(inv, s.buf[:n]); err != nil {
			return err
		}
		if n < len(s.buf) {
			return nil // all writers are dead
		}
	}
}

// pump reads the output while the child runs. It is called by the watcher,
// with the process's lock held, or before that could.
func (s *Stdio) pump(p *Process, inv *runtime.Invocation) {
	s.pumping = true
	s.pumps.Go(func() { // ends by the deadline that Finish sets, or with the process
		_ = p.PumpOut(p.Stdout, inv) // a fault of it ends the process, which the channel tells
	})
}
