package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"baton/control"
)

// progressPeriod is how often the line is drawn anew.
const progressPeriod = 200 * time.Millisecond

// progress tells how a deploy goes: a compiler's words as they come and, on a
// terminal, a line below them that says what is being done. Its methods may be
// called from any goroutine. One goroutine draws, until end.
type progress struct {
	to       io.Writer
	terminal bool
	now      func() time.Time
	ended    chan struct{}
	drawing  sync.WaitGroup

	mu    sync.Mutex // above all below; held while to is written
	state string
	since time.Time // of state
	sent  int64     // bytes
	total int64     // 0: not known
	line  string    // that stands there; empty: none
	log   strings.Builder
	open  bool // what was printed last did not end its line
	over  bool
}

func newProgress(to io.Writer, terminal bool, total int64, now func() time.Time) *progress {
	p := &progress{to: to, terminal: terminal, now: now, ended: make(chan struct{}), state: "uploading", since: now(), total: total}
	if terminal {
		p.drawing.Go(func() { // ended by end
			tick := time.NewTicker(progressPeriod)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-p.ended:
					return
				}
				p.mu.Lock()
				p.draw()
				p.mu.Unlock()
			}
		})
	}
	return p
}

// expect says how many bytes there are to be sent.
func (p *progress) expect(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = total
}

// packed says how many bytes of the files were read.
func (p *progress) packed(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = bytes
}

// tell takes what the client was told.
func (p *progress) tell(t control.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	if t.State != "" {
		p.state, p.since = t.State, p.now()
		p.draw()
	}
	if t.Log != "" {
		p.clear()
		p.log.WriteString(t.Log)
		text := plainLines(t.Log)
		_, _ = io.WriteString(p.to, text)
		p.open = !strings.HasSuffix(text, "\n")
		p.draw()
	}
}

// sentBytes is tell for code that is no folder: what was sent is what was read.
func (p *progress) sentBytes(t control.Progress) {
	if t.Sent > 0 {
		p.packed(t.Sent)
	}
	p.tell(t)
}

// draw shows the line. p.mu is held.
func (p *progress) draw() {
	if !p.terminal || p.over || p.open {
		return
	}
	line := plain(p.state)
	switch elapsed := p.now().Sub(p.since); {
	case p.state == "uploading" && p.total > 0:
		line = fmt.Sprintf("uploading, %s of %s", sizeText(min(p.sent, p.total)), sizeText(p.total))
	case elapsed >= time.Second:
		line = fmt.Sprintf("%s, %d s", line, int(elapsed.Seconds()))
	}
	if line += " ..."; line != p.line {
		_, _ = io.WriteString(p.to, "\r\x1b[K"+line)
		p.line = line
	}
}

// clear takes the line away. p.mu is held.
func (p *progress) clear() {
	if p.line != "" {
		_, _ = io.WriteString(p.to, "\r\x1b[K")
		p.line = ""
	}
}

// end stops the drawing and waits for it. It returns the last state and all that
// the compiler has said.
func (p *progress) end() (state, log string) {
	p.mu.Lock()
	if p.over {
		defer p.mu.Unlock()
		return p.state, p.log.String()
	}
	p.clear()
	if p.open {
		_, _ = io.WriteString(p.to, "\n")
	}
	p.over = true
	p.mu.Unlock()
	close(p.ended)
	p.drawing.Wait()
	return p.state, p.log.String()
}

// sizeText is a number of bytes for people.
func sizeText(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n)/(1<<10), "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if size < 1<<10 {
			break
		}
		size, unit = size/(1<<10), next
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", size), ".0") + " " + unit
}
