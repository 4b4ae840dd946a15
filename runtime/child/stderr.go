package child

import (
	"bytes"
	"io"
	"os"
	"sync"
	"syscall"

	"baton/internal/sys"
)

const (
	// lineMax bounds a line of a log; a longer one is given on in pieces.
	lineMax = 8 << 10
	// tailMax is how much of what belongs to no invocation is kept: the reason
	// of a start that did not succeed.
	tailMax = 2 << 10
)

// stderrLog gives the lines of a process's standard error to the invocation
// that it serves. Its goroutine reads what comes while a function runs; end reads what is
// left, so that the last line of a request is that request's.
type stderrLog struct {
	file *os.File
	fd   int // of file; does not block

	mu   sync.Mutex
	to   io.Writer // guarded by mu; nil: between invocations
	line []byte    // guarded by mu; the start of a line
	last []byte    // guarded by mu; the last bytes that were nobody's
	buf  [4 << 10]byte
	shut bool // guarded by mu; the pipe has ended
}

// run reads until the pipe ends or is closed.
func (l *stderrLog) run() {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(uintptr) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.read()
		return l.shut
	})
}

// read takes what is there. mu is held.
func (l *stderrLog) read() {
	for !l.shut {
		n, errno := sys.Read(l.fd, l.buf[:])
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 || n == 0 {
			l.shut = true
			return
		}
		l.take(l.buf[:n])
		if n < len(l.buf) {
			return
		}
	}
}

// take gives complete lines on. mu is held.
func (l *stderrLog) take(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			l.line = append(l.line, p...)
			if len(l.line) >= lineMax {
				l.flush()
			}
			return
		}
		if len(l.line) > 0 {
			l.line = append(l.line, p[:end+1]...)
			l.flush()
		} else {
			l.give(p[:end+1])
		}
		p = p[end+1:]
	}
}

// flush gives on what has no end of line yet. mu is held.
func (l *stderrLog) flush() {
	if len(l.line) > 0 {
		l.give(l.line)
		l.line = l.line[:0]
	}
}

func (l *stderrLog) give(p []byte) {
	if l.to != nil {
		_, _ = l.to.Write(p)
		return
	}
	l.last = append(l.last, p...)
	if over := len(l.last) - tailMax; over > 0 {
		l.last = append(l.last[:0], l.last[over:]...)
	}
}

func (l *stderrLog) begin(to io.Writer) {
	l.mu.Lock()
	l.to = to
	if to == nil {
		l.to = io.Discard
	}
	l.mu.Unlock()
}

// end reads what is left, and ends the invocation's part.
func (l *stderrLog) end() {
	l.mu.Lock()
	l.read()
	l.flush()
	l.to = nil
	l.last = l.last[:0]
	l.mu.Unlock()
}

// drain reads what is left.
func (l *stderrLog) drain() {
	l.mu.Lock()
	l.read()
	l.flush()
	l.mu.Unlock()
}

// tail is the end of what belongs to no invocation.
func (l *stderrLog) tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.last)
}
