package reactor

import "baton/internal/sys"

// paceBytesPerSecond is the slowest that a client may send a body or take an
// answer, averaged over the limit in time of that (Timeouts.Body and .Write): a
// byte now and then is not progress. Apache's mod_reqtimeout has this figure as
// its default for bodies; a telephone at the edge of a cell sends ten times as
// much. RATIONALE.md, "How slow may a client be?".
const paceBytesPerSecond = 500

const nanosPerByte = int64(1e9) / paceBytesPerSecond

// pace bounds how slow a client may be: a bucket of patience in nanoseconds.
// Waiting for the client empties it and each byte that moves refills it, never
// above the limit that it began with. While we do not wait for the client
// (its function reads nothing, or has written nothing) it stands still.
//
// So a client that moves nothing is late after the limit, one that moves fewer
// than paceBytesPerSecond soon after, and a body of n bytes takes at most the
// limit and n / paceBytesPerSecond seconds of waiting.
type pace struct {
	left  int64 // patience, as of since
	since int64 // loop clock; 0: it stands still
}

// begin fills the bucket, and starts the clock.
func (p *pace) begin(limit, now int64) { p.left, p.since = limit, now }

// moved counts bytes that the client has sent or taken since the last time.
func (p *pace) moved(bytes, limit, now int64) {
	p.left = min(p.left-(now-p.since)+bytes*nanosPerByte, limit)
	p.since = now
}

// pause stops the clock, resume starts it again.
func (p *pace) pause(now int64) {
	if p.since != 0 {
		p.left -= now - p.since
		p.since = 0
	}
}

func (p *pace) resume(now int64) {
	if p.since == 0 {
		p.since = now
	}
}

func (p *pace) runs() bool { return p.since != 0 }

// late says whether there is no patience left.
func (p *pace) late(now int64) bool { return p.runs() && p.end() <= now }

// end is when there is none left if nothing moves. It runs.
func (p *pace) end() int64 { return p.since + p.left }

// setPace makes c's deadline that of its paces.
func (l *loop) setPace(c *conn) {
	switch {
	case c.writing.runs() && (!c.reading.runs() || c.writing.end() < c.reading.end()):
		l.wheel.set(c, c.writing.end(), l.now)
	case c.reading.runs():
		l.wheel.set(c, c.reading.end(), l.now)
	default:
		c.deadline = 0
	}
}

// bodyMoved counts n bytes of a body that have come. c.reading runs.
func (l *loop) bodyMoved(c *conn, n int) {
	c.reading.moved(int64(n), int64(l.timer.Body), l.now)
	l.setPace(c)
}

// answerWaits counts what the client has taken of an answer since the last time:
// of wrote bytes that the kernel has taken meanwhile, and of what it held
// before. That a socket is not writable says little: the kernel calls it so
// until a third of a buffer of up to megabytes is free.
func (l *loop) answerWaits(c *conn, wrote int) {
	unacked := sys.Unacked(c.fd)
	if c.writing.runs() {
		c.writing.moved(int64(wrote+c.unacked-unacked), int64(l.timer.Write), l.now)
	} else {
		c.writing.resume(l.now)
	}
	c.unacked = unacked
	l.setPace(c)
}
