package reactor

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"baton/internal/testenv"
	"baton/runtime"
)

// Whoever sends a thousand requests at once is not served before everybody
// else: the others have their turn in between.
func TestPipelinedRequestsTakeTurns(t *testing.T) {
	t.Parallel()
	var ran, before atomic.Int32
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{
		"many": {inline: true, run: func(inv *runtime.Invocation) runtime.Result { ran.Add(1); return echo(inv) }},
		"one":  {inline: true, run: func(inv *runtime.Invocation) runtime.Result { before.Store(ran.Load()); return echo(inv) }},
	}})
	back := p.backs[0].back
	greedy, modest := p.connect(t, true), p.connect(t, true)
	const many = 1000
	for _, last := range []string{"", "POST /many HTT"} { // what is left in the end is a part of a head, or nothing
		ran.Store(0)
		stopped, goOn := make(chan struct{}), make(chan struct{})
		if err := back.post(func() { close(stopped); <-goOn }); err != nil {
			t.Fatal(err)
		}
		<-stopped
		greedy.Send(t, strings.Repeat(post("/many", "[1]"), many)+last)
		modest.Send(t, post("/one", "[2]"))
		close(goOn)
		want(t, modest.Response(t), 200, "[2]")
		for i := range many {
			if r := greedy.Response(t); r.Status != 200 || string(r.Body) != "[1]" {
				t.Fatalf("request %d: %d %q", i, r.Status, r.Body)
			}
		}
		// Its event may be behind the other's in the first turn.
		if n := before.Load(); n > 2*turnRequestsMax {
			t.Errorf("%d requests of one connection ran before the other's first", n)
		}
		if last != "" {
			greedy.Send(t, strings.TrimPrefix(post("/many", "[3]"), last))
			want(t, greedy.Response(t), 200, "[3]")
		}
	}
}

// What waits for its turn is served behind a promoted function too, in order,
// and what ends while it waits is not looked at again.
func TestTurnsAndPromotion(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"promoted": g.fake(true)}})
	back := p.backs[0].back
	const clients, each = 8, 53 // more than three turns
	var conns []*testenv.Conn
	for range clients {
		conns = append(conns, p.connect(t, true))
	}
	stopped, goOn := make(chan struct{}), make(chan struct{})
	if err := back.post(func() { close(stopped); <-goOn }); err != nil {
		t.Fatal(err)
	}
	<-stopped
	for i, c := range conns {
		var all strings.Builder
		for n := range each {
			path := "/echo"
			if n%20 == 17 {
				path = "/promoted"
			}
			all.WriteString(post(path, fmt.Sprintf("[%d,%d]", i, n)))
		}
		c.Send(t, all.String())
	}
	gone := p.connect(t, false)
	gone.Send(t, strings.Repeat(post("/echo", "[1]"), 500))
	gone.Close()
	close(g.open)
	close(goOn)
	for n := range each {
		for i, c := range conns {
			want(t, c.Response(t), 200, fmt.Sprintf("[%d,%d]", i, n))
		}
	}
	testenv.Until(t, "the one that left is gone", func() bool { return p.front.Stats().Open == clients })
}

// order notes whose requests a front loop handles.
type order struct {
	*frontLoop
	paths []string
}

func (o *order) onRequest(c *conn, k *call, b []byte, n int) (int, step) {
	o.paths = append(o.paths, string(k.req.Path))
	return o.frontLoop.onRequest(c, k, b, n)
}

// The gateway's own answers are bounded in the same way.
func TestGatewayAnswersTakeTurns(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	l := p.front.loops[0]
	greedy, modest := testenv.Dial(t, p.addr()), testenv.Dial(t, p.addr())
	for _, c := range []*testenv.Conn{greedy, modest} {
		c.Send(t, get("/nowhere"))
		want(t, c.Response(t), 404, "route_not_found")
	}
	o := &order{frontLoop: l}
	stopped, goOn := make(chan struct{}), make(chan struct{})
	if err := l.post(func() { l.role = o; close(stopped); <-goOn }); err != nil {
		t.Fatal(err)
	}
	<-stopped
	const many = 1500
	greedy.Send(t, strings.Repeat(get("/nowhere"), many))
	modest.Send(t, get("/healthz"))
	close(goOn)
	want(t, modest.Response(t), 200, "ok")
	for range many {
		want(t, greedy.Response(t), 404, "route_not_found")
	}
	if err := l.ask(func() { l.role = l }); err != nil {
		t.Fatal(err)
	}
	if at := slices.Index(o.paths, "/healthz"); len(o.paths) != many+1 || at > 2*turnRequestsMax {
		t.Errorf("the other's request was number %d of %d", at, len(o.paths))
	}
}
