package php

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"baton/internal/sys"
)

// link is one of our connections with a process. Not for use by two at a time,
// but for file, which one may write to while another reads.
type link struct {
	file *os.File
	fd   int // of file; does not block
	raw  syscall.RawConn
	step func(uintptr) bool // l.do, made once

	// Of one ask.
	out  []byte // what is not written yet
	in   []byte
	sent bool
	n    int
	err  syscall.Errno
}

// open takes a descriptor that does not block.
func (l *link) open(fd int, name string) error {
	l.file, l.fd = os.NewFile(uintptr(fd), name), fd
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l.raw, l.step = raw, l.do
	return nil
}

func (l *link) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}

// ask writes out and waits for the first bytes that come back. It reads only once
// they are there: the answer is never as quick as the first read.
func (l *link) ask(out, in []byte) (int, error) {
	l.out, l.in, l.sent, l.n, l.err = out, in, false, 0, 0
	err := l.raw.Read(l.step)
	left := l.out
	l.out, l.in = nil, nil
	switch {
	case err != nil:
		return 0, err
	case l.err != 0:
		return 0, l.err
	case len(left) > 0: // the socket is full: the process is still to read
		if _, err := l.file.Write(left); err != nil {
			return 0, err
		}
		return l.file.Read(in)
	case l.n == 0:
		return 0, io.EOF
	}
	return l.n, nil
}

// do is what ask does when the connection may be ready. True: it is over.
func (l *link) do(fd uintptr) bool {
	if !l.sent {
		l.sent = true
		n, errno := sys.Write(int(fd), l.out)
		if errno != 0 && errno != syscall.EAGAIN {
			l.err = errno
			return true
		}
		l.out = l.out[n:]
		return len(l.out) > 0
	}
	l.n, l.err = sys.Read(int(fd), l.in)
	return l.err != syscall.EAGAIN
}
