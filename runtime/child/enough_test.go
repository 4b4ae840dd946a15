package child

import (
	"testing"
	"time"
)

// When one more process is wanted, and when one too many is kept.
func TestWantsMore(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		name        string
		all, enough int
		few         int
		waited      time.Duration // of who waits first; negative: nobody waits
		want        bool
	}{
		{"nobody waits", 1, 0, 0, -1, false},
		{"the first one", 0, 0, 0, 0, true},
		{"not for long", 2, 0, 0, growAfter, false},
		{"for long enough", 2, 0, 0, 2 * growAfter, true},
		{"… for which there is a bound", 30, 0, 0, growMax * growAfter, true},
		{"fewer than a few", 1, 0, 2, 0, true},
		{"a few, which are enough", 2, 2, 2, growAfter, false},
		{"fewer than enough", 1, 2, 0, growAfter, true},
		{"as many as are enough", 2, 2, 0, 20 * growAfter, false},
		{"more than enough", 3, 2, 0, 20 * growAfter, false},
		{"a function that begins to wait", 2, 2, 0, enoughPatience, true},
		{"… and goes on", 9, 2, 0, enoughPatience, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &Pool{c: Config{Few: c.few}, all: make([]*Process, c.all)}
			p.Enough(c.enough)
			if c.waited >= 0 {
				p.waiters = []*waiter{{since: now.Add(-c.waited)}, {since: now}}
			}
			if got := p.wantsMore(now); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
