package reactor

import (
	"testing"
	"time"

	"baton/internal/testenv"
)

// What waits in the backlog when a server stops is served, not refused: its
// client was accepted by the kernel.
func TestBacklogIsServedWhenStopping(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{unopened: true})
	conns := make([]*testenv.Conn, 20)
	for i := range conns {
		conns[i] = testenv.Dial(t, p.addr())
		conns[i].Send(t, post("/echo", "[1]"))
	}
	if err := p.front.StopAccepting(); err != nil {
		t.Fatal(err)
	}
	for _, c := range conns {
		want(t, c.Response(t), 200, "[1]")
	}
}

// A worker that has nothing open and is told to drain does not end before it has
// adopted what was donated to it.
func TestDrainAdoptsFirst(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	back := p.backs[0].back
	held, goOn := make(chan struct{}), make(chan struct{})
	if err := back.post(func() {
		close(held)
		<-goOn
		back.drain(true, time.Minute)
	}); err != nil {
		t.Fatal(err)
	}
	<-held
	c := testenv.Dial(t, p.addr())
	c.Send(t, post("/echo", "[1]"))
	testenv.Until(t, "it was donated", func() bool { return p.front.counters.Donated.Load() == 1 })
	close(goOn)
	r := c.Response(t)
	want(t, r, 200, "[1]")
	if !r.Close {
		t.Error("the answer of a draining worker does not say Connection: close")
	}
	c.WantEnd(t)
	testenv.Until(t, "the worker has ended", func() bool {
		select {
		case <-p.backs[0].done:
			return true
		default:
			return false
		}
	})
}

// A connection that asks for the health of a server that stops is told, and then
// holds up nobody.
func TestHealthWhileStopping(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	c := p.connect(t, false)
	c.Send(t, get("/readyz"))
	want(t, c.Response(t), 200, "ready")
	p.front.draining.Store(true)
	c.Send(t, get("/readyz"))
	want(t, c.Response(t), 503, "draining")
	c.WantEnd(t)
}
