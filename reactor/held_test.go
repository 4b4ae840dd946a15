package reactor

import (
	"fmt"
	goruntime "runtime"
	"testing"
	"time"

	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
	"baton/runtime"
)

// oneTurn sends requests, each on a connection that the only worker has, so that its loop
// finds all of them in one turn, in this order; and then last, if there is one.
func (p *pair) oneTurn(conns []*testenv.Conn, requests []string, last func()) {
	p.t.Helper()
	b := p.backs[0].back
	blocked, there := make(chan struct{}), make(chan bool, 1)
	err := b.post(func() {
		close(blocked)
		deadline := time.Now().Add(testenv.Patience())
		for {
			waiting := 0
			for _, c := range b.conns {
				if c != nil && sys.Unread(c.fd) > 0 {
					waiting++
				}
			}
			if waiting == len(conns) || time.Now().After(deadline) {
				there <- waiting == len(conns)
				break
			}
			goruntime.Gosched()
		}
		if last != nil {
			_ = b.post(last)
		}
	})
	if err != nil {
		p.t.Fatal(err)
	}
	<-blocked
	for i, c := range conns {
		c.Send(p.t, requests[i])
	}
	if !<-there {
		p.t.Fatal("the requests have not come")
	}
}

// connectTo opens a connection on which a function has answered, so that it is loaded.
func (p *pair) connectTo(path string) *testenv.Conn {
	p.t.Helper()
	c := p.connect(p.t, true)
	c.Send(p.t, post(path, "[0]"))
	want(p.t, c.Response(p.t), 200, "[0]")
	return c
}

// running counts the connections that run, as the board says: what the gateway would
// see if the worker died now.
func (p *pair) running() (n int) {
	for slot := range p.front.ledger.entries {
		if p.front.ledger.entries[slot].fd.Load() != -1 && p.board.Conn(uint32(slot)).Load().State() == ipc.Running {
			n++
		}
	}
	return n
}

// The answers of a turn are held, up to a number, and while one is held its connection
// runs; all are sent when the turn ends, and before anything but a request is looked at.
func TestAnswersOfATurnAreHeld(t *testing.T) {
	t.Parallel()
	seen := make(chan int, 1000) // running connections, at each invocation
	p := newPairWith(t, pairOptions{handlers: map[string]string{"ANY:/quick": "quick"}})
	p.become("quick", &fake{inline: true, run: func(inv *runtime.Invocation) runtime.Result {
		seen <- p.running()
		return echo(inv)
	}})
	const n = 2*heldMax + 3
	conns, requests := make([]*testenv.Conn, n), make([]string, n)
	for i := range conns {
		conns[i] = p.connectTo("/quick")
		requests[i] = post("/quick", fmt.Sprintf("[%d]", i))
		<-seen
	}
	if err := p.backs[0].back.ask(func() { p.backs[0].back.held.limit = int64(time.Hour) }); err != nil {
		t.Fatal(err)
	}
	left := make(chan int, 1)
	p.oneTurn(conns, requests, func() { left <- len(p.backs[0].back.held.conns) })
	for i, c := range conns {
		want(t, c.Response(t), 200, fmt.Sprintf("[%d]", i))
		if got := <-seen; got != i%heldMax+1 {
			t.Errorf("%d connections run at request %d, want %d: those whose answers are held, and it", got, i, i%heldMax+1)
		}
	}
	if n := <-left; n != 0 {
		t.Errorf("%d answers were held when the loop looked at its mail", n)
	}
	p.await(ipc.Idle, n)
}

// The first answer is not held longer than a short while, however many follow.
func TestAnswersAreHeldForAShortWhile(t *testing.T) {
	t.Parallel()
	seen := make(chan int, 10)
	p := newPairWith(t, pairOptions{handlers: map[string]string{"ANY:/quick": "quick"}})
	p.become("quick", &fake{inline: true, run: func(inv *runtime.Invocation) runtime.Result {
		seen <- p.running()
		return echo(inv)
	}})
	if err := p.backs[0].back.ask(func() { p.backs[0].back.held.limit = 0 }); err != nil {
		t.Fatal(err)
	}
	var conns []*testenv.Conn
	for range 3 {
		conns = append(conns, p.connectTo("/quick"))
		<-seen
	}
	p.oneTurn(conns, []string{post("/quick", "[0]"), post("/quick", "[1]"), post("/quick", "[2]")}, nil)
	for i, c := range conns {
		want(t, c.Response(t), 200, fmt.Sprintf("[%d]", i))
		if got, running := <-seen, i%2+1; got != running {
			t.Errorf("%d connections run at request %d, want %d", got, i, running)
		}
	}
}

// A function that takes long holds up nobody's answer: before another goroutine becomes the loop,
// what is held is sent.
func TestHeldAnswersDoNotWaitForAPromotedFunction(t *testing.T) {
	t.Parallel()
	open, held, after := make(chan struct{}), make(chan int, 1), make(chan int, 1)
	p := newPairWith(t, pairOptions{handlers: map[string]string{"ANY:/quick": "quick", "ANY:/long": "long"}})
	p.become("quick", &fake{inline: true, run: echo})
	p.become("long", &fake{inline: true, run: func(inv *runtime.Invocation) runtime.Result {
		if inv.Promote == nil {
			return echo(inv) // the first time, when it is not loaded yet
		}
		held <- p.running() - 1
		inv.Promote()
		after <- p.running() - 1
		<-open
		return echo(inv)
	}})
	conns := []*testenv.Conn{p.connectTo("/quick"), p.connectTo("/long")}
	p.oneTurn(conns, []string{post("/quick", "[1]"), post("/long", "[2]")}, nil)
	if n := <-held; n != 1 {
		t.Errorf("%d answers are held when the long function begins, want 1", n)
	}
	if n := <-after; n != 0 {
		t.Errorf("%d answers are held after the promotion", n)
	}
	want(t, conns[0].Response(t), 200, "[1]")
	close(open)
	want(t, conns[1].Response(t), 200, "[2]")
}

// An answer that does not fit the socket's buffer when it is sent at last goes out bit by
// bit like any other, and the connection lives on.
func TestHeldAnswerToASlowClient(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"quick": {inline: true, run: echo}}})
	conns := []*testenv.Conn{p.connectTo("/quick"), p.connectTo("/quick")}
	b := p.backs[0].back
	if err := b.ask(func() {
		for _, c := range b.conns {
			if c != nil {
				if err := sys.SetSendBuffer(c.fd, 1); err != nil {
					t.Error(err)
				}
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	long := "[" + fmt.Sprintf("%*d", heldBytes/3, 1) + "]"
	for range 200 {
		p.oneTurn(conns, []string{post("/quick", long), post("/quick", long)}, nil)
		for _, c := range conns {
			want(t, c.Response(t), 200, long)
		}
	}
}
