package reactor

// A hashed timing wheel with one entry per connection and lazy deadlines.
// Moving a deadline is one store into the connection: its entry stays where it
// is, and when the entry comes up early the connection is put in again at its
// real deadline. Only a deadline that comes before the entry moves it. So a
// busy keep-alive connection costs the wheel nothing per request.
// Source: Varghese and Lauck, "Hashed and hierarchical timing wheels", scheme 6.

const (
	wheelSlots = 512 // times tickInterval: a round of 51 s; longer deadlines go round again
	tickNanos  = int64(tickInterval)
)

type wheel struct {
	slots [wheelSlots]*conn // doubly linked through conn.wheelNext, wheelPrev
	tick  int64             // the last tick that advance has handled
	count int
}

func (w *wheel) init() { w.tick = -1 }

// set makes c's deadline at (monotonic nanoseconds); now is the loop's clock.
func (w *wheel) set(c *conn, at, now int64) {
	if w.tick < 0 {
		w.tick = now / tickNanos
	}
	c.deadline = at
	due := at/tickNanos + 1 // never early
	if due <= w.tick {
		due = w.tick + 1
	}
	if c.wheelIn {
		if c.wheelTick <= due {
			return
		}
		w.remove(c)
	}
	c.wheelTick, c.wheelIn = due, true
	head := &w.slots[due%wheelSlots]
	c.wheelPrev, c.wheelNext = nil, *head
	if *head != nil {
		(*head).wheelPrev = c
	}
	*head = c
	w.count++
}

func (w *wheel) remove(c *conn) {
	if !c.wheelIn {
		return
	}
	if c.wheelPrev != nil {
		c.wheelPrev.wheelNext = c.wheelNext
	} else {
		w.slots[c.wheelTick%wheelSlots] = c.wheelNext
	}
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c.wheelPrev
	}
	c.wheelPrev, c.wheelNext, c.wheelIn = nil, nil, false
	w.count--
}

// advance calls expire for each connection whose deadline is at or before now.
// expire may end the connection or set a new deadline, also of others.
func (w *wheel) advance(now int64, expire func(*conn)) {
	last := now / tickNanos
	if w.tick < 0 || w.count == 0 {
		w.tick = last
		return
	}
	if last-w.tick > wheelSlots {
		w.tick = last - wheelSlots // a long stop: each slot once is enough
	}
	for w.tick < last {
		w.tick++
		var again *conn
		for c := w.slots[w.tick%wheelSlots]; c != nil; c = w.slots[w.tick%wheelSlots] {
			w.remove(c)
			switch {
			case c.deadline == 0:
			case c.deadline <= now:
				expire(c)
			default:
				c.wheelNext = again
				again = c
			}
		}
		for again != nil {
			c := again
			again = c.wheelNext
			c.wheelNext = nil
			w.set(c, c.deadline, now)
		}
	}
}
