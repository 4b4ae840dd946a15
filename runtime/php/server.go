package php

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/event"
)

const (
	// firstMax is how much of a request is written before anybody reads the answer, in
	// bytes: a socket takes 200 KB, so that write never waits. What is longer is written beside.
	firstMax = 64 << 10
	// readBytes is how much of an answer is read at a time.
	readBytes = 64 << 10
)

// server is what a process of the pool has beside it: its two connections and the buffers
// of the one request that it serves.
type server struct {
	conn   link // FastCGI
	side   link // the other end of its standard output
	loops  bool // it has the handler loaded: requests go over side
	events bool // … and takes an event

	switches int // of the process at the last look; 0: none yet

	out     []byte
	in      []byte
	scratch []byte
	event   event.Builder
	text    []byte // the event
	answer  answer
	records records
	replies replies
	writes  sync.WaitGroup // the goroutine that writes a body
}

// open makes the two connections of a process that is about to start. Its standard input is
// the listening socket, with our connection waiting in it.
func (e *Executor) open(p *child.Process) error {
	s := &server{in: make([]byte, readBytes)}
	p.State = s
	listener, err := e.listen(s)
	if err != nil {
		return err
	}
	p.Stdin = listener
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	p.Output = os.NewFile(uintptr(pair[1]), "standard output")
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		_ = syscall.Close(pair[0])
		return fmt.Errorf("socketpair: %w", err)
	}
	return s.side.open(pair[0], "side")
}

// listen makes a listening socket and connects to it. It has a name only
// meanwhile, in the worker's own folder.
func (e *Executor) listen(s *server) (*os.File, error) {
	dir, err := syscall.Open(e.Work, syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = syscall.Close(dir) }()
	name := "s" + strconv.FormatUint(e.serial.Add(1), 36)
	// A path of any length fits an address this way.
	address := &syscall.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name}
	server, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	listener := os.NewFile(uintptr(server), "listener")
	client := -1
	if err = syscall.Bind(server, address); err == nil {
		defer func() { _ = os.Remove(filepath.Join(e.Work, name)) }()
		err = syscall.Listen(server, 1)
	}
	if err == nil {
		client, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		err = syscall.Connect(client, address) // it waits for nobody: the queue has room
	}
	if err == nil {
		err = syscall.SetNonblock(client, true)
	}
	if err != nil {
		_ = listener.Close()
		if client >= 0 {
			_ = syscall.Close(client)
		}
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := s.conn.open(client, "FastCGI"); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

func free(p *child.Process) {
	s, ok := p.State.(*server)
	if !ok {
		return
	}
	s.conn.close()
	s.side.close()
}

// hangUp ends the connection.
func (s *server) hangUp() { _ = sys.Shutdown(s.conn.fd, syscall.SHUT_RDWR) }

// exchange sends the request that is in out, and the body, and gives the answer on.
func (s *server) exchange(p *child.Process, inv *runtime.Invocation) error {
	if inv.More == nil && len(s.out)+len(inv.Body) <= firstMax {
		s.out = appendRecord(appendStream(s.out, recordStdin, inv.Body), recordStdin, 0)
		n, err := s.conn.ask(s.out, s.in)
		if err != nil {
			return fmt.Errorf("one request: %w", err)
		}
		return s.readAnswer(p, inv, n)
	}
	if _, err := s.conn.file.Write(s.out); err != nil {
		return fmt.Errorf("send the request: %w", err)
	}
	s.writeBeside(p, inv, pieces{to: s.conn.file, head: func(b []byte, n int) []byte { return appendRecord(b, recordStdin, n) }}, inv.Body)
	err := s.readAnswer(p, inv, 0)
	s.writes.Wait()
	return err
}

// converse sends the frame that is in out, and the rest of the body when there is more, and gives the answer on.
func (s *server) converse(p *child.Process, inv *runtime.Invocation, rest []byte, more bool) (outcome, error) {
	if !more {
		n, err := s.side.ask(s.out, s.in)
		if err != nil {
			return outcome{}, fmt.Errorf("one request: %w", err)
		}
		return s.readReply(p, inv, n)
	}
	if _, err := s.side.file.Write(s.out); err != nil {
		return outcome{}, fmt.Errorf("send the request: %w", err)
	}
	s.writeBeside(p, inv, pieces{to: s.side.file, head: appendPiece}, rest)
	o, err := s.readReply(p, inv, 0)
	s.writes.Wait()
	return o, err
}

// writeBeside writes the body while the answer is read.
func (s *server) writeBeside(p *child.Process, inv *runtime.Invocation, w pieces, body []byte) {
	more := inv.More
	s.writes.Go(func() { // ends with the body or with the process
		err := w.write(body)
		if err == nil && more != nil {
			_, err = io.CopyBuffer(writerOnly{w}, more, make([]byte, readBytes))
		}
		if err == nil {
			_, err = w.to.Write(w.head(nil, 0))
		}
		if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			p.Fail(runtime.Cancelled, err.Error())
		}
	})
}

// pieces writes a body in pieces with a head each.
type pieces struct {
	to   *os.File
	head func(dst []byte, n int) []byte
}

func (w pieces) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), contentMax)
		if _, err := w.to.Write(append(w.head(make([]byte, 0, recordBytes+n), n), b[:n]...)); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// writerOnly hides what else io.Copy would find.
type writerOnly struct{ pieces }

func (w writerOnly) Write(b []byte) (int, error) { return len(b), w.write(b) }

// readAnswer gives the answer on until the request ends; the first n bytes of it are in s.in.
func (s *server) readAnswer(p *child.Process, inv *runtime.Invocation, n int) error {
	s.records = records{}
	for ended := false; ; n = 0 {
		if n == 0 {
			var err error
			if n, err = s.conn.file.Read(s.in); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
		}
		for b := s.in[:n]; ; {
			kind, piece, n, err := s.records.next(b)
			if err != nil {
				return err
			}
			b = b[n:]
			switch kind {
			case 0:
			case recordStdout:
				err = s.answer.write(p, inv, piece)
			case recordStderr: // php-cgi's own words; PHP's log is standard error
			case recordEnd:
				ended = true
			default:
				return fmt.Errorf("a FastCGI record of type %d", kind)
			}
			if err != nil {
				return fmt.Errorf("give the answer on: %w", err)
			}
			if ended && s.records.content == 0 && s.records.padding == 0 {
				return s.answer.end(p, inv)
			}
			if kind == 0 {
				break
			}
		}
	}
}

// readReply gives a handler's answer on until it is whole; the first n bytes of it are in s.in.
func (s *server) readReply(p *child.Process, inv *runtime.Invocation, n int) (outcome, error) {
	s.replies = replies{}
	for ; ; n = 0 {
		if n == 0 {
			var err error
			if n, err = s.side.file.Read(s.in); err != nil {
				return outcome{}, fmt.Errorf("read the answer: %w", err)
			}
		}
		for b := s.in[:n]; len(b) > 0; {
			kind, piece, whole, n := s.replies.next(b)
			b = b[n:]
			switch kind {
			case 0:
				continue
			case kindData, kindEnd, kindThrown, kindExit, kindFatal, kindMemory:
			default:
				return outcome{}, fmt.Errorf("an answer of kind %q", kind)
			}
			if len(piece) > 0 {
				if err := s.answer.write(p, inv, piece); err != nil {
					return outcome{}, fmt.Errorf("give the answer on: %w", err)
				}
			}
			if whole && kind != kindData {
				return outcome{kind: kind, ends: kind != kindEnd && kind != kindThrown}, s.answer.end(p, inv)
			}
		}
	}
}

// said takes what PHP has told of the script's end, which is written before
// the answer's: kinds.
func (s *server) said() (kinds []byte) {
	n, errno := sys.Read(s.side.fd, s.in)
	if errno != 0 || n == 0 {
		return nil // nothing (EAGAIN), or the process has ended, which others see
	}
	for rest := s.in[:n]; ; {
		_, after, ok := bytes.Cut(rest, []byte(mark))
		if !ok || len(after) == 0 {
			return kinds
		}
		kinds, rest = append(kinds, after[0]), after
	}
}
