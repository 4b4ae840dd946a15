package logs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// BytesMaxDefault is how much all segments of a folder take together when
	// nobody says otherwise.
	BytesMaxDefault = 256 << 20

	// BytesMaxMin is the least that may be asked for: below it a segment would
	// not hold one buffer.
	BytesMaxMin = 1 << 20

	// segmentBytesMax is how long a segment may become. It is less where the
	// folder's bound is small: every worker has room for segmentsEach of them.
	segmentBytesMax = 4 << 20
	segmentsEach    = 4

	// bufferBytesMax bounds the lines that wait to be written, and flushPause is
	// how long the writing goroutine rests after it wrote: together they bound
	// what one worker writes to some 10 MiB a second, so that a function that
	// floods its log cannot take the disk from the requests beside it.
	bufferBytesMax = 512 << 10
	flushPause     = 50 * time.Millisecond

	// Lines of functions find the buffer full when it is filled to this part,
	// so that a flood of them leaves room for what the platform itself says.
	floodNumerator, floodDenominator = 3, 4
)

// Options describes a Writer.
type Options struct {
	Dir     string // the folder; made when it is missing
	Worker  int    // number of this worker
	Workers int    // how many there are: segments of others are history

	// BytesMax bounds what all segments in Dir take together; a folder that
	// several writers share must be given the same bound by all of them. Too
	// small: history is short. Zero means BytesMaxDefault; less than
	// BytesMaxMin is BytesMaxMin.
	BytesMax int64
}

// Writer appends to the segments of one worker. Line, Failure and Close may be
// called from any goroutine.
type Writer struct {
	// Immutable after NewWriter.
	options    Options
	segmentMax int64
	bufferMax  int
	wake       chan struct{} // a token: something waits
	stop       chan struct{} // closed by Close
	ended      chan struct{} // closed by the goroutine

	mu      sync.Mutex
	closed  bool
	buf     []byte // whole lines
	dropped uint64 // since the line that said so last

	// The goroutine's own.
	file   *os.File // nil: none could be opened
	now    segment
	size   int64
	torn   bool   // the file may end in the middle of a line
	lost   uint64 // lines that could not be written
	writes []byte // the other of two buffers
}

// NewWriter opens the newest segment of a worker, or makes the first, and starts
// the goroutine that writes it.
func NewWriter(o Options) (*Writer, error) {
	if o.BytesMax == 0 {
		o.BytesMax = BytesMaxDefault
	}
	o.BytesMax = max(o.BytesMax, BytesMaxMin)
	o.Workers = max(o.Workers, o.Worker+1)
	w := &Writer{options: o, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{})}
	w.segmentMax = min(segmentBytesMax, o.BytesMax/int64(segmentsEach*o.Workers))
	w.bufferMax = int(min(bufferBytesMax, w.segmentMax))
	if err := w.open(); err != nil {
		return nil, err
	}
	w.prune()
	go w.run()
	return w, nil
}

// Line stores text, what a function has written to stderr: one entry for each
// of its lines, none for empty ones. It does not block. version 0: none.
func (w *Writer) Line(function string, version int, request, text []byte) {
	if len(text) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at := time.Now() // under the lock: a segment's times ascend
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) == 0 {
			continue
		}
		cut := max(0, len(line)-TextBytesMax)
		start := len(w.buf)
		w.buf = appendHead(w.buf, at, w.options.Worker)
		w.buf = appendName(w.buf, function, version, request)
		w.buf = appendText(w.buf, line[:len(line)-cut], cut)
		w.keep(start, w.bufferMax/floodDenominator*floodNumerator)
	}
}

// Failure stores that an invocation failed. It does not block.
func (w *Writer) Failure(function string, version int, request []byte, f Failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	start := len(w.buf)
	w.buf = appendHead(w.buf, time.Now(), w.options.Worker)
	w.buf = appendName(w.buf, function, version, request)
	// Microseconds are what is meaningful of it.
	millis := float64(f.Duration.Microseconds()) / 1000
	w.buf = appendFailure(w.buf, f.Reason, f.Status, millis, f.Detail[:min(len(f.Detail), TextBytesMax)])
	w.keep(start, w.bufferMax)
}

// keep ends the line that begins at start, or takes it back when the buffer
// would be above limit. Called with mu held.
func (w *Writer) keep(start, limit int) {
	w.buf = append(w.buf, '\n')
	if w.closed || len(w.buf) > limit {
		w.buf = w.buf[:start]
		w.dropped++
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close writes what waits and ends the goroutine. Lines that come later are
// dropped. A second Close answers os.ErrClosed.
func (w *Writer) Close() error {
	w.mu.Lock()
	closed := w.closed
	w.closed = true
	w.mu.Unlock()
	if closed {
		return os.ErrClosed
	}
	close(w.stop)
	<-w.ended
	return nil
}

// run writes until Close. What cannot be written is lost and counted: it must
// not end the worker.
func (w *Writer) run() {
	defer close(w.ended)
	pause := time.NewTimer(flushPause)
	pause.Stop()
	defer pause.Stop()
	for stopped := false; ; {
		select {
		case <-w.wake:
		case <-w.stop:
			stopped = true
		}
		w.flush()
		if stopped {
			break
		}
		pause.Reset(flushPause)
		select {
		case <-pause.C:
		case <-w.stop:
		}
	}
	if w.file != nil {
		_ = w.file.Close()
	}
}

// flush writes what waits.
func (w *Writer) flush() {
	w.mu.Lock()
	lines, dropped := w.buf, w.dropped
	w.buf, w.dropped = w.writes[:0], 0
	w.mu.Unlock()
	w.writes = lines
	if dropped += w.lost; dropped > 0 {
		w.lost = 0
		e := Entry{Time: time.Now(), Worker: w.options.Worker, Dropped: dropped}
		lines = append(e.AppendJSON(lines), '\n')
	}
	if len(lines) > 0 {
		w.lost += w.write(lines) // a line that says how many counts as one
	}
}

// write appends whole lines to the segment, or to the next, and says how many
// could not be written.
func (w *Writer) write(lines []byte) (lost uint64) {
	if w.file == nil || w.size > 0 && w.size+int64(len(lines)) > w.segmentMax || w.removed() {
		if w.next() != nil && w.file == nil {
			return uint64(bytes.Count(lines, []byte{'\n'}))
		}
	}
	if w.torn {
		lines = append([]byte{'\n'}, lines...)
	}
	n, err := w.file.Write(lines)
	w.size += int64(n)
	if n > 0 {
		w.torn = lines[n-1] != '\n'
	}
	if err != nil {
		lost = uint64(bytes.Count(lines[n:], []byte{'\n'}))
	}
	return lost
}

// removed says whether somebody has removed the file that is written.
func (w *Writer) removed() bool {
	info, err := w.file.Stat()
	if err != nil {
		return true
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// open goes on with the newest segment, or begins the first.
func (w *Writer) open() error {
	if err := os.MkdirAll(w.options.Dir, 0o700); err != nil {
		return fmt.Errorf("folder of logs: %w", err)
	}
	all, err := listSegments(w.options.Dir)
	if err != nil {
		return err
	}
	s := segment{w.options.Worker, 1}
	for _, have := range all {
		if have.worker == s.worker {
			s = have
		}
	}
	return w.use(s)
}

// next begins the segment after this one and makes room for it.
func (w *Writer) next() error {
	if err := os.MkdirAll(w.options.Dir, 0o700); err != nil {
		return fmt.Errorf("folder of logs: %w", err)
	}
	err := w.use(segment{w.options.Worker, max(w.now.number+1, 1)})
	if err == nil {
		w.prune()
	}
	return err
}

// use opens one segment to append to it; what was open is closed.
func (w *Writer) use(s segment) error {
	path := filepath.Join(w.options.Dir, s.name())
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrInvalid
	}
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("open log: %w", err)
	}
	if w.file != nil {
		_ = w.file.Close()
	}
	w.file, w.now, w.size, w.torn = file, s, info.Size(), false
	if w.size > 0 {
		// A process that was killed may have left half a line.
		last := make([]byte, 1)
		_, err := file.ReadAt(last, w.size-1)
		w.torn = err != nil || last[0] != '\n'
	}
	return nil
}

// prune removes the oldest segments until the bound holds whatever the workers
// write before they rotate: the newest segment of each counts as a full one, and
// is never removed. Two workers that prune at once may remove one too many.
func (w *Writer) prune() {
	all, err := listSegments(w.options.Dir)
	if err != nil {
		return // the next rotation tries again
	}
	type old struct {
		path  string
		size  int64
		since time.Time
	}
	var olds []old
	total := int64(w.options.Workers) * w.segmentMax
	for i, s := range all {
		newest := i+1 == len(all) || all[i+1].worker != s.worker
		if newest && s.worker < w.options.Workers {
			continue
		}
		path := filepath.Join(w.options.Dir, s.name())
		info, err := os.Lstat(path)
		if err != nil {
			continue // removed by another
		}
		olds = append(olds, old{path, info.Size(), info.ModTime()})
		total += info.Size()
	}
	slices.SortFunc(olds, func(a, b old) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.path, b.path)) })
	for _, o := range olds {
		if total <= w.options.BytesMax {
			return
		}
		if err := os.Remove(o.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			total -= o.size
		}
	}
}
