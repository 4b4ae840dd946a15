package reactor

import (
	"fmt"
	"testing"

	"baton/internal/testenv"
	"baton/ipc"
	"baton/route"
	"baton/runtime"
)

// says is a fake that answers text.
func says(text string) *fake {
	return &fake{inline: true, run: func(inv *runtime.Invocation) runtime.Result {
		_, _ = fmt.Fprintf(inv.Stdout, "[%q]", text)
		return runtime.Result{}
	}}
}

// become makes f what the function called name runs when it is loaded.
func (p *pair) become(name string, f *fake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fakes[name] = f
}

// change sends a table to the worker in which key runs the fake called handler, and
// returns the table, which the caller publishes when the worker has confirmed it.
func (p *pair) change(from uint64, key, handler string, cell uint32) *route.Table {
	p.t.Helper()
	return p.changeAll(from, []route.Change{put(key, handler, cell)})
}

// put makes key run the fake called handler.
func put(key, handler string, cell uint32) route.Change {
	value := fmt.Sprintf(`{"name":"f-%s","runtime":"wasm","module":"import/x.wasm","handler":"%s"}`, handler, handler)
	return route.Change{Op: route.OpPut, Row: route.Row{Key: key, Cell: cell, Value: value}}
}

// changeAll is change with any changes.
func (p *pair) changeAll(from uint64, changes []route.Change) *route.Table {
	p.t.Helper()
	old := p.table.Load()
	table, bad := old.Apply(from+1, changes)
	if len(bad) > 0 {
		p.t.Fatal(bad)
	}
	var payload []byte
	for _, c := range changes {
		payload = route.AppendChange(payload, c)
	}
	frame, err := ipc.TableDeltaFrame(ipc.TableDelta{From: from, To: from + 1, Payload: payload})
	if err != nil {
		p.t.Fatal(err)
	}
	defer frame.Close()
	if err := p.front.Send(0, frame); err != nil {
		p.t.Fatal(err)
	}
	return table
}

// confirmed reports whether the worker has confirmed a table.
func (p *pair) confirmed() bool {
	select {
	case <-p.applied:
		return true
	default:
		return false
	}
}

func TestNewVersionIsLoadedBeforeTheSwitch(t *testing.T) {
	t.Parallel()
	const key = "ANY:/version"
	gate := make(chan struct{})
	p := newPairWith(t, pairOptions{
		loadFirst: 8, gates: map[string]chan struct{}{"new": gate}, handlers: map[string]string{key: "old"},
		fakes: map[string]*fake{"old": says("old")},
	})
	p.become("new", says("new"))
	cell := p.table.Load().Get(key).Cell
	c := p.connect(t, true)
	c.Send(t, get("/version"))
	want(t, c.Response(t), 200, "old")

	// Its route was called just now: while the new version loads, the old one
	// answers, and the table is not confirmed.
	next := p.change(1, key, "new", cell)
	for range 20 {
		c.Send(t, get("/version"))
		want(t, c.Response(t), 200, "old")
	}
	p.settle()
	if p.confirmed() {
		t.Error("confirmed before the new version was loaded")
	}
	close(gate)
	testenv.Until(t, "the table is confirmed", p.confirmed)
	p.table.Store(next)
	c.Send(t, get("/version"))
	want(t, c.Response(t), 200, "new")
}

func TestNewRouteIsLoadedBeforeTheSwitch(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	p := newPairWith(t, pairOptions{loadFirst: 32, gates: map[string]chan struct{}{"fresh": gate}, fakes: map[string]*fake{"x": says("x")}})
	p.become("fresh", says("fresh"))
	c := p.connect(t, true)
	next := p.change(1, "ANY:/new", "fresh", 900)
	c.Send(t, get("/new"))
	want(t, c.Response(t), 404, "route_not_found")
	p.settle()
	if p.confirmed() {
		t.Error("confirmed before it was loaded")
	}
	close(gate)
	testenv.Until(t, "the table is confirmed", p.confirmed)
	p.table.Store(next)
	c.Send(t, get("/new"))
	want(t, c.Response(t), 200, "fresh")
}

// A new version of what nobody calls waits for its first request; and one that does
// not load in time, or at all, holds up no switch for ever.
func TestSwitchesThatWaitForNoLoad(t *testing.T) {
	t.Parallel()
	const key = "ANY:/version"
	gate, again := make(chan struct{}), make(chan struct{})
	p := newPairWith(t, pairOptions{
		loadFirst: 32, gates: map[string]chan struct{}{"slow": gate, "again": again}, handlers: map[string]string{key: "old"},
		fakes: map[string]*fake{"old": says("old")},
	})
	p.become("slow", says("slow"))
	cell := p.table.Load().Get(key).Cell
	next := p.change(1, key, "slow", cell)
	testenv.Until(t, "the table with what nobody calls is confirmed", p.confirmed)
	p.table.Store(next)

	c := p.connect(t, true)
	next = p.change(2, "ANY:/slow", "slow", 900)
	testenv.Until(t, "the table with what does not load is confirmed", p.confirmed)
	p.table.Store(next)
	c.Send(t, get("/slow"))
	close(gate)
	want(t, c.Response(t), 200, "slow")

	next = p.change(3, "ANY:/nothing", "no-such", 901)
	testenv.Until(t, "the table with what cannot be loaded is confirmed", p.confirmed)
	p.table.Store(next)
	c.Send(t, get("/nothing"))
	want(t, c.Response(t), 503, "function_not_prepared")

	// A second table while the first one loads: both are confirmed.
	p.become("again", says("again"))
	p.table.Store(p.change(4, "ANY:/again", "again", 902))
	next = p.change(5, "ANY:/other", "old", 903)
	testenv.Until(t, "the first of two tables is confirmed", p.confirmed)
	testenv.Until(t, "the second of two tables is confirmed", p.confirmed)
	p.table.Store(next)
	c.Send(t, get("/again"))
	close(again)
	want(t, c.Response(t), 200, "again")
}

// Where no function is loaded first, nothing waits.
func TestFunctionsBeyondTheBoundAreNotLoadedFirst(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	p := newPairWith(t, pairOptions{gates: map[string]chan struct{}{"fresh": gate}})
	p.become("fresh", says("fresh"))
	p.table.Store(p.change(1, "ANY:/new", "fresh", 900))
	testenv.Until(t, "the table is confirmed", p.confirmed)
	close(gate)
}

// Of a table with very many changes, the first are looked at and no more: a
// new route behind them is loaded at its first request, and nothing waits for it.
func TestChangesBeyondTheBoundAreNotLookedAt(t *testing.T) {
	t.Parallel()
	for _, before := range []int{firstLooksMax - 1, firstLooksMax} {
		gate := make(chan struct{})
		p := newPairWith(t, pairOptions{loadFirst: 32, gates: map[string]chan struct{}{"fresh": gate}})
		p.become("fresh", says("fresh"))
		var changes []route.Change
		for i := range before {
			changes = append(changes, route.Change{Op: route.OpDelete, Row: route.Row{Key: fmt.Sprintf("ANY:/gone/%d", i)}})
		}
		next := p.changeAll(1, append(changes, put("ANY:/new", "fresh", 900)))
		c := p.connect(t, true)
		c.Send(t, get("/new"))
		p.settle()
		if before < firstLooksMax {
			want(t, c.Response(t), 404, "route_not_found")
			close(gate)
			testenv.Until(t, "the table is confirmed", p.confirmed)
		} else {
			close(gate) // the request waits for the function, as the switch did not
			want(t, c.Response(t), 200, "fresh")
			testenv.Until(t, "the table is confirmed", p.confirmed)
		}
		p.table.Store(next)
		c.Send(t, get("/new"))
		want(t, c.Response(t), 200, "fresh")
	}
}
