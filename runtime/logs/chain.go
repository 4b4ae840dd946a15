package logs

import (
	"bytes"
	"context"
	"io"
	"os"
)

// blockBytes is read at a time. A chain holds one block and one line.
const blockBytes = 64 << 10

// chain is the segments of one worker as one sequence of lines, read forward.
//
// Its place is after the last line that was given: seg, at offset. The bytes
// behind that which were read already are buf[used:], and so
// 0 <= used <= len(buf).
type chain struct {
	dir      string
	filter   *filter
	worker   int
	segments []uint64 // what is known to be there, ascending; those before seg are past

	seg   uint64   // 0: before the first
	file  *os.File // of seg; nil: not open
	read  int64    // the file's bytes that were read
	buf   []byte
	used  int
	over  bool // inside a line that is too long
	newer bool // the next segment was known before the last read found the end

	endSeg  uint64 // the snapshot: reading up to it ends in this segment,
	endRead int64  // … after so many bytes
}

// openChains finds the chains of a folder and takes the snapshot of each.
func openChains(dir string, f *filter) ([]*chain, error) {
	var chains []*chain
	if err := refresh(dir, f, &chains); err != nil {
		return nil, err
	}
	for _, c := range chains {
		c.endSeg = c.segments[len(c.segments)-1]
		if file, err := openSegment(dir, segment{c.worker, c.endSeg}); err == nil {
			if info, err := file.Stat(); err == nil {
				c.endRead = info.Size()
			}
			_ = file.Close()
		}
	}
	return chains, nil
}

// refresh adds what is new in the folder to the chains.
func refresh(dir string, f *filter, chains *[]*chain) error {
	all, err := listSegments(dir)
	if err != nil {
		return err
	}
	for _, s := range all {
		var c *chain
		for _, have := range *chains {
			if have.worker == s.worker {
				c = have
			}
		}
		if c == nil {
			c = &chain{dir: dir, filter: f, worker: s.worker}
			*chains = append(*chains, c)
		}
		if n := len(c.segments); n == 0 || c.segments[n-1] < s.number {
			c.segments = append(c.segments, s.number)
		}
	}
	for _, c := range *chains {
		c.forget()
	}
	return nil
}

// forget drops the segments before the one that is read.
func (c *chain) forget() {
	for len(c.segments) > 1 && c.segments[0] < c.seg {
		c.segments = c.segments[1:]
	}
}

func (c *chain) close() {
	if c.file != nil {
		_ = c.file.Close()
		c.file = nil
	}
}

// skip moves to the snapshot, after its last whole line.
func (c *chain) skip() {
	c.open(c.endSeg)
	c.read = 0
	for at := c.endRead; at > 0 && c.file != nil; {
		block := make([]byte, min(at, blockBytes))
		at -= int64(len(block))
		n, _ := c.file.ReadAt(block, at)
		if i := bytes.LastIndexByte(block[:n], '\n'); i >= 0 {
			c.read = at + int64(i) + 1
			return
		}
	}
}

// next gives the next entry that the filter wants. False: there is none now.
// bounded: nor beyond the snapshot.
func (c *chain) next(bounded bool) (Entry, bool) {
	for {
		for {
			line, ok := c.line()
			if !ok {
				break
			}
			if e, ok := c.filter.parse(line); ok {
				return e, true
			}
		}
		if !c.fill(bounded) {
			return Entry{}, false
		}
	}
}

// line takes the next whole line out of buf; it dies with the next fill.
func (c *chain) line() ([]byte, bool) {
	for {
		rest := c.buf[c.used:]
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			if len(rest) > lineBytesMax {
				c.over = true
				c.used = len(c.buf)
			}
			return nil, false
		}
		c.used += i + 1
		if c.over || i > lineBytesMax {
			c.over = false
			continue
		}
		return rest[:i], true
	}
}

// fill reads more, from this segment or the next.
func (c *chain) fill(bounded bool) bool {
	for {
		if c.file != nil {
			want := int64(blockBytes)
			if bounded && c.seg == c.endSeg {
				want = min(want, c.endRead-c.read)
			}
			if want > 0 && c.fillFrom(int(want)) {
				return true
			}
		}
		if bounded && c.seg >= c.endSeg {
			return false
		}
		after, ok := c.after()
		if !ok {
			return false
		}
		if c.file != nil && !c.newer && !bounded {
			// The next segment was made after the last write to this one, and
			// that may have been after the read that found the end: once more.
			c.newer = true
			continue
		}
		c.open(after)
	}
}

func (c *chain) fillFrom(want int) bool {
	kept := copy(c.buf, c.buf[c.used:])
	if cap(c.buf) < kept+want {
		grown := make([]byte, kept, kept+blockBytes)
		copy(grown, c.buf[:kept])
		c.buf = grown
	}
	c.buf, c.used = c.buf[:kept], 0
	n, err := c.file.ReadAt(c.buf[kept:kept+want], c.read)
	if err != nil && err != io.EOF {
		return false
	}
	c.buf = c.buf[:kept+n]
	c.read += int64(n)
	return n > 0
}

// after is the segment after seg.
func (c *chain) after() (uint64, bool) {
	for _, n := range c.segments {
		if n > c.seg {
			return n, true
		}
	}
	return 0, false
}

// open begins a segment; what was torn at the end of the one before is dropped.
// One that cannot be opened is passed over, having no file.
func (c *chain) open(number uint64) {
	c.close()
	c.seg, c.read, c.buf, c.used, c.over, c.newer = number, 0, c.buf[:0], 0, false, false
	if file, err := openSegment(c.dir, segment{c.worker, number}); err == nil {
		c.file = file
	}
}

// backward reads a chain's lines from its snapshot to its first.
type backward struct {
	dir      string
	filter   *filter
	worker   int
	segments []uint64 // those still to be read, ascending
	end      int64    // bytes of the last of them; -1: all

	file *os.File
	at   int64 // buf is the file's bytes from here to the last line's begin
	buf  []byte
	torn bool // what is behind the last newline is no line
	over bool // the line that ends buf is too long
}

func (c *chain) backward() backward {
	b := backward{dir: c.dir, filter: c.filter, worker: c.worker, end: c.endRead}
	for _, n := range c.segments {
		if n <= c.endSeg {
			b.segments = append(b.segments, n)
		}
	}
	return b
}

func (b *backward) close() {
	if b.file != nil {
		_ = b.file.Close()
		b.file = nil
	}
}

// next gives the entry before the last that was given. False: there is none, or
// ctx has ended.
func (b *backward) next(ctx context.Context) (Entry, bool) {
	for {
		for {
			line, ok := b.line()
			if !ok {
				break
			}
			if e, ok := b.filter.parse(line); ok {
				return e, true
			}
		}
		if ctx.Err() != nil || !b.fill() {
			return Entry{}, false
		}
	}
}

// line takes the last line out of buf, when its begin is known.
func (b *backward) line() ([]byte, bool) {
	for b.file != nil {
		i := bytes.LastIndexByte(b.buf, '\n')
		if i < 0 && b.at > 0 {
			if len(b.buf) > lineBytesMax {
				b.over, b.buf = true, b.buf[:0]
			}
			return nil, false
		}
		line := b.buf[i+1:]
		skip := b.torn || b.over || len(line) > lineBytesMax
		b.torn, b.over = false, false
		if i < 0 {
			b.close() // the file's first line
		} else {
			b.buf = b.buf[:i]
		}
		if !skip {
			return line, true
		}
	}
	return nil, false
}

// fill reads the block before, of this segment or of the one before.
func (b *backward) fill() bool {
	for {
		if b.file != nil {
			n := min(b.at, blockBytes)
			block := make([]byte, int(n), int(n)+len(b.buf))
			got, err := b.file.ReadAt(block, b.at-n)
			if err == nil || err == io.EOF && int64(got) == n {
				b.at -= n
				b.buf = append(block, b.buf...)
				return true
			}
			b.close() // it became shorter: what was before is lost to us
		}
		last := len(b.segments) - 1
		if last < 0 {
			return false
		}
		file, err := openSegment(b.dir, segment{b.worker, b.segments[last]})
		end := b.end
		b.segments, b.end = b.segments[:last], -1
		if err != nil {
			continue
		}
		if end < 0 {
			info, err := file.Stat()
			if err != nil {
				_ = file.Close()
				continue
			}
			end = info.Size()
		}
		b.file, b.at, b.buf, b.torn, b.over = file, end, nil, true, false
		if end == 0 {
			b.close()
		}
	}
}
