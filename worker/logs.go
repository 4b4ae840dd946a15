package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"baton/internal/jsontext"
	"baton/route"
)

const (
	// logBytesMax is the size at which a worker's segment is rotated; one older
	// segment is kept, so a worker's function logs take at most twice this.
	logBytesMax = 16 << 20

	// logLineMax bounds one line; the rest of a longer one is cut.
	logLineMax = 8 << 10

	// logQueueMax bounds the lines that wait to be written. What does not fit
	// is dropped and counted: a function that floods its log must not slow the
	// requests beside it.
	logQueueMax = 1024
)

// logs stores what functions write to stderr: one JSON object a line, in this
// worker's own segment under <data>/logs.
//
// Write may be called by any goroutine and does not block. One goroutine
// writes the file; Close ends it and waits.
type logs struct {
	path  string
	lines chan []byte
	ended chan struct{}

	mu      sync.Mutex
	closed  bool
	dropped uint64 // since the last line that said so
}

func openLogs(dir string, worker int) (*logs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of logs: %w", err)
	}
	l := &logs{
		path:  filepath.Join(dir, "functions-"+strconv.Itoa(worker)+".log"),
		lines: make(chan []byte, logQueueMax), ended: make(chan struct{}),
	}
	file, size, err := l.open()
	if err != nil {
		return nil, err
	}
	go l.run(file, size)
	return l, nil
}

func (l *logs) open() (*os.File, int64, error) {
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, 0, fmt.Errorf("size of log: %w", err)
	}
	return file, info.Size(), nil
}

// run writes lines until Close. A segment that cannot be written or rotated
// loses lines, not requests.
func (l *logs) run(file *os.File, size int64) {
	defer close(l.ended)
	for line := range l.lines {
		if size > logBytesMax {
			_ = os.Rename(l.path, l.path+".1")
			if next, n, err := l.open(); err == nil {
				_ = file.Close()
				file, size = next, n
			}
		}
		n, _ := file.Write(line)
		size += int64(n)
	}
	_ = file.Close()
}

// Write stores p, what a function has written to stderr in one piece.
func (l *logs) Write(f *route.Function, requestID, p []byte) {
	for len(p) > 0 {
		line := p
		for i, b := range p {
			if b == '\n' {
				line = p[:i]
				break
			}
		}
		p = p[min(len(p), len(line)+1):]
		if len(line) > 0 {
			l.line(f, requestID, line[:min(len(line), logLineMax)])
		}
	}
}

func (l *logs) line(f *route.Function, requestID, text []byte) {
	b := make([]byte, 0, 128+len(text))
	b = append(b, `{"time":"`...)
	b = time.Now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
	b = append(b, `","function":`...)
	b = strconv.AppendQuoteToASCII(b, f.Name) // names are plain ASCII
	b = append(b, `,"request":"`...)
	b = append(b, requestID...)
	b = append(b, `","text":`...)
	b = jsontext.Append(b, text)
	b = append(b, '}', '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.dropped > 0 {
		select {
		case l.lines <- fmt.Appendf(nil, "{\"time\":%q,\"dropped\":%d}\n", time.Now().UTC().Format(time.RFC3339Nano), l.dropped):
			l.dropped = 0
		default:
		}
	}
	select {
	case l.lines <- b:
	default:
		l.dropped++
	}
}

// Close writes what waits and ends.
func (l *logs) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return os.ErrClosed
	}
	close(l.lines)
	<-l.ended
	return nil
}
