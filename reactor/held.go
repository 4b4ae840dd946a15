package reactor

import (
	"time"

	"baton/internal/sys"
)

const (
	// heldMax is how many answers are held at most. More: fewer times a client on another processor
	// is woken for one answer; too many: the first waits for functions that have nothing to do with it.
	heldMax = 8
	// heldBytes bounds the answers that are held, all together: long ones are cheap to send alone.
	heldBytes = 8 << 10
	// heldFor is how long the first of them may be held while further short functions
	// run. A longer one ends it when it is promoted: see Back.promote.
	heldFor = int64(100 * time.Microsecond)
)

// held are answers of short functions that wait for others of the same turn, to be
// written together: a write(2) to a client that sleeps wakes it, often on another processor, and by the time
// the next answer is ready it sleeps again. A turn that brings one request holds nothing
// up. See RATIONALE.md, "Why are the answers of a turn written together?".
//
// A connection whose answer is held is in phaseHeld, and on the board it still runs: a
// client whose worker dies meanwhile is answered 502.
type held struct {
	conns []*conn
	ends  []int // of each one's bytes
	bytes []byte
	since int64 // the monotonic clock at the first
	limit int64 // heldFor
}

// holdAnswer keeps p, the whole answer to c's only request, until sendHeld. False: it is to
// be written at once.
func (l *loop) holdAnswer(c *conn, p []byte) bool {
	h := &l.held
	if c.closing || c.skip > 0 || len(h.bytes)+len(p) > heldBytes {
		return false
	}
	if len(h.conns) == 0 {
		h.since = sys.ClockMonotonic()
	}
	h.bytes = append(h.bytes, p...)
	h.conns, h.ends = append(h.conns, c), append(h.ends, len(h.bytes))
	c.phase = phaseHeld
	if len(h.conns) == heldMax || len(h.conns) > 1 && sys.ClockMonotonic()-h.since > h.limit {
		l.sendHeld()
	}
	return true
}

// sendHeld writes the answers that are held, the first first.
func (l *loop) sendHeld() {
	h := &l.held
	if len(h.conns) == 0 {
		return
	}
	at := 0
	for i, c := range h.conns {
		p := h.bytes[at:h.ends[i]]
		at = h.ends[i]
		c.phase = phaseHead
		if l.write(c, p, nil) == stepNext {
			_ = l.idle(c)
		}
	}
	clear(h.conns)
	h.conns, h.ends, h.bytes = h.conns[:0], h.ends[:0], h.bytes[:0]
}
