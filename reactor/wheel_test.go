package reactor

import (
	"math/rand/v2"
	"testing"
	"time"
)

// The wheel against its plain twin: a list that is searched at every tick.
func TestWheelAgainstList(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var w wheel
	w.init()
	conns := make([]conn, 200)
	at := make([]int64, len(conns)) // the twin: 0 means none
	now := int64(1 << 40)
	for range 3000 {
		switch i := r.IntN(len(conns)); r.IntN(4) {
		case 0, 1:
			at[i] = now + r.Int64N(int64(2*time.Minute))
			w.set(&conns[i], at[i], now)
		case 2:
			at[i] = 0
			w.remove(&conns[i])
		}
		now += r.Int64N(int64(3 * tickInterval))
		if r.IntN(50) == 0 {
			now += int64(time.Minute)
		}
		w.advance(now, func(c *conn) {
			for i := range conns {
				if &conns[i] == c {
					if at[i] == 0 || at[i] > now {
						t.Fatalf("connection %d expired %v early", i, time.Duration(at[i]-now))
					}
					at[i] = 0
				}
			}
		})
		for i := range at {
			if at[i] != 0 && at[i] < now-2*tickNanos {
				t.Fatalf("connection %d is %v late", i, time.Duration(now-at[i]))
			}
		}
	}
	count := 0
	for i := range at {
		if at[i] != 0 {
			count++
		}
	}
	if count != w.count {
		t.Errorf("%d entries, the twin has %d", w.count, count)
	}
}

// A deadline that moves later costs nothing until its entry comes up.
func TestWheelLaterDeadlineDoesNotMove(t *testing.T) {
	t.Parallel()
	var w wheel
	w.init()
	var c conn
	now := int64(time.Hour)
	w.set(&c, now+int64(time.Second), now)
	tick := c.wheelTick
	w.set(&c, now+int64(time.Minute), now)
	if c.wheelTick != tick {
		t.Error("a later deadline moved the entry")
	}
	expired := false
	w.advance(now+int64(30*time.Second), func(*conn) { expired = true })
	if expired {
		t.Error("expired at its old deadline")
	}
	w.set(&c, now+int64(31*time.Second), now+int64(30*time.Second))
	w.advance(now+int64(32*time.Second), func(*conn) { expired = true })
	if !expired {
		t.Error("an earlier deadline was missed")
	}
}
