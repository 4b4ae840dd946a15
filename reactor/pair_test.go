package reactor

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/fd"
	"baton/internal/testenv"
	"baton/ipc"
	"baton/route"
	"baton/runtime"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// fake is an executor of Go functions: what runs is what the handler of the
// route's descriptor names.
type fake struct {
	run    func(inv *runtime.Invocation) runtime.Result
	inline bool
	starts bool // it is a runtime.Starter, which is never invoked
}

// starter is a fake that is started: at once done for an empty body, later
// otherwise.
type starter struct{ *fake }

func (starter) Invoke(*runtime.Invocation) runtime.Result { panic("a starter was invoked") }

func (s starter) Start(inv *runtime.Invocation, done func(runtime.Result)) {
	if len(inv.Body) == 0 {
		done(s.run(inv))
		return
	}
	go func() { done(s.run(inv)) }() // ends with the function, whose answer the test awaits
}

func (f *fake) Invoke(inv *runtime.Invocation) runtime.Result { return f.run(inv) }
func (f *fake) Inline() bool                                  { return f.inline }
func (f *fake) Close() error                                  { return nil }

func echo(inv *runtime.Invocation) runtime.Result {
	if _, err := inv.Stdout.Write(inv.Body); err != nil {
		return runtime.Result{Reason: runtime.OutputLimit}
	}
	if inv.More != nil {
		if _, err := io.Copy(struct{ io.Writer }{inv.Stdout}, inv.More); err != nil {
			return runtime.Result{Reason: runtime.Cancelled}
		}
	}
	return runtime.Result{}
}

// sink reads its body to the end and says how long it was.
func sink(inv *runtime.Invocation) runtime.Result {
	n := int64(len(inv.Body))
	if inv.More != nil {
		more, err := io.Copy(io.Discard, inv.More)
		if err != nil {
			return runtime.Result{Reason: runtime.Cancelled}
		}
		n += more
	}
	_, _ = fmt.Fprintf(inv.Stdout, "[%d]", n)
	return runtime.Result{}
}

// pair is a gateway's front and workers' backs in one process.
type pair struct {
	t       testing.TB
	options pairOptions
	board   *ipc.Board
	front   *Front
	table   *route.Published
	mu      sync.Mutex
	fakes   map[string]*fake // by handler
	backs   []*backProcess
	log     *slog.Logger

	controls chan string
	gone     chan int
	applied  chan ipc.Applied
}

// backProcess stands for a worker process.
type backProcess struct {
	id   int
	back *Back
	done chan struct{}
}

// pairOptions: zero fields are as newPair has them.
type pairOptions struct {
	loops, workers, conns int
	connsMax              int // 0: 256, or conns
	slots                 int // of the board, for workers; 0: workers
	sendBuffer            int // of a scripted worker's donation sockets
	maxBody               int
	timeouts              Timeouts
	untabled, unopened    bool
	wait                  time.Duration
	fakes                 map[string]*fake // each at the path of its name
	handlers              map[string]string
	control               func(c *ControlConn)
	limits                string // more members of every descriptor: `,"max_inflight":1`
	loadFirst             int
	gates                 map[string]chan struct{} // by handler: a load waits until it is closed
}

func newPair(t testing.TB, loops, workers int) *pair {
	t.Helper()
	return newPairWith(t, pairOptions{loops: loops, workers: workers})
}

func newPairWith(t testing.TB, o pairOptions) *pair {
	t.Helper()
	loops, workers := max(o.loops, 1), max(o.workers, 1)
	p := &pair{
		t: t, options: o, table: new(route.Published), fakes: map[string]*fake{}, controls: make(chan string, 100),
		gone: make(chan int, 100), applied: make(chan ipc.Applied, 100),
	}
	p.log = slog.New(slog.NewTextHandler(&testWriter{t: t}, nil))
	var err error
	if p.board, err = ipc.NewBoard(ipc.BoardOptions{Conns: uint32(max(o.conns, 512)), Workers: uint32(max(o.slots, workers)), Cells: 1024}); err != nil {
		t.Fatal(err)
	}
	p.fakes["echo"] = &fake{run: echo, inline: true}
	p.fakes["beside"] = &fake{run: echo}
	p.fakes["sink"] = &fake{run: sink, inline: true}
	p.fakes["starts"] = &fake{run: echo, starts: true}
	handlers := map[string]string{"ANY:/echo": "echo", "ANY:/beside": "beside", "ANY:/sink": "sink", "ANY:/starts": "starts", "GET:/get": "echo", "ANY:/absent": "absent"}
	for name, f := range o.fakes {
		p.fakes[name] = f
		handlers["ANY:/"+name] = name
	}
	maps.Copy(handlers, o.handlers)
	p.publish(1, handlers)
	ready := make(chan int, workers)
	p.front, err = NewFront(FrontConfig{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Loops: loops, Board: p.board, Table: p.table, ConnsMax: cmp.Or(o.connsMax, max(o.conns, 256)),
		Control: func(c *ControlConn) {
			if o.control != nil {
				o.control(c)
				return
			}
			p.control(c)
		},
		OnReady:   func(worker int, _ uint64) { ready <- worker },
		OnApplied: func(_ int, a ipc.Applied) { p.applied <- a },
		OnTrouble: func(int, string) {},
		OnGone:    func(worker int, _ error) { p.gone <- worker },
		Wait:      o.wait, Timeouts: o.timeouts, Logger: p.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range workers {
		p.startBack(id)
	}
	for range workers {
		p.front.WorkerReady(<-ready)
	}
	if !o.untabled {
		p.front.Tabled()
	}
	if !o.unopened {
		if err := p.front.Open(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.close)
	return p
}

type testWriter struct{ t testing.TB }

func (w *testWriter) Write(b []byte) (int, error) {
	_, err := os.Stderr.WriteString("  " + string(b))
	return len(b), err
}

func (p *pair) control(c *ControlConn) {
	b, err := io.ReadAll(c)
	p.controls <- fmt.Sprintf("%s %v", b, err)
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncontrol")
}

// publish makes a table in which each key runs the fake of that name.
func (p *pair) publish(generation uint64, handlers map[string]string) {
	p.t.Helper()
	var rows []route.Row
	for key, handler := range handlers {
		rows = append(rows, route.Row{Key: key, Cell: uint32(len(rows)), Value: fmt.Sprintf(
			`{"name":"f-%s","runtime":"wasm","module":"import/x.wasm","handler":"%s","max_body":%d%s}`, handler, handler, max(p.options.maxBody, 1_000_000), p.options.limits)})
	}
	table, bad := route.Build(generation, rows)
	if len(bad) > 0 {
		p.t.Fatal(bad)
	}
	p.table.Store(table)
}

func (p *pair) load(_ context.Context, f *route.Function) (runtime.Loaded, error) {
	if gate := p.options.gates[f.Descriptor().Handler]; gate != nil {
		<-gate
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	loaded := p.fakes[f.Descriptor().Handler]
	if loaded == nil {
		return nil, runtime.ErrNotPrepared
	}
	if loaded.starts {
		return starter{loaded}, nil
	}
	return loaded, nil
}

func (p *pair) startBack(id int) {
	p.t.Helper()
	channel := func() (fd.FD, fd.FD) {
		a, b, err := ipc.NewChannel()
		if err != nil {
			p.t.Fatal(err)
		}
		return a, b
	}
	control, theirs := channel()
	var ours, donations []fd.FD
	for range p.front.Loops() + 1 {
		a, b := channel()
		ours, donations = append(ours, a), append(donations, b)
	}
	var table route.Published
	empty, _ := route.Build(0, nil)
	table.Store(empty)
	p.board.Worker(id).SetPid(os.Getpid())
	back, err := NewBack(BackConfig{
		Worker: id, Board: p.board, Control: theirs, Donations: donations, Table: &table, Load: p.load, LoadFirst: p.options.loadFirst,
		Log: func(*route.Function, []byte, []byte) {}, Drain: time.Second,
		Timeouts: p.options.timeouts, Logger: p.log,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	b := &backProcess{id: id, back: back, done: make(chan struct{})}
	p.backs = append(p.backs, b)
	go func() {
		back.Run()
		close(b.done)
	}()
	if err := p.front.AttachWorker(id, control, ours); err != nil {
		p.t.Fatal(err)
	}
	var changes []byte
	for f := range p.table.Load().All {
		changes = route.AppendChange(changes, route.Change{Op: route.OpPut, Row: f.Row()})
	}
	frame, err := ipc.TableDeltaFrame(ipc.TableDelta{From: 0, To: p.table.Load().Generation(), Payload: changes})
	if err != nil {
		p.t.Fatal(err)
	}
	defer frame.Close()
	if err := p.front.Send(id, frame); err != nil {
		p.t.Fatal(err)
	}
}

// settle waits until the loops have handled everything that had arrived when
// it was called.
func (p *pair) settle() {
	for range 2 { // a donation is sent at the end of a turn
		for _, l := range p.front.loops {
			_ = l.ask(func() {})
		}
	}
	for _, b := range p.backs {
		_ = b.back.ask(func() {})
	}
}

// await waits until so many connections are in a state.
func (p *pair) await(s ipc.State, conns int) {
	p.t.Helper()
	testenv.Until(p.t, fmt.Sprintf("%d connections are in state %v", conns, s), func() bool {
		n := 0
		for slot := range p.front.ledger.entries {
			if p.front.ledger.entries[slot].fd.Load() != -1 && p.board.Conn(uint32(slot)).Load().State() == s {
				n++
			}
		}
		return n == conns
	})
}

// connect opens a connection; handed: to a worker, which has answered on it.
func (p *pair) connect(t testing.TB, handed bool) *testenv.Conn {
	t.Helper()
	c := testenv.Dial(t, p.addr())
	if handed {
		c.Send(t, post("/echo", "[0]"))
		want(t, c.Response(t), 200, "[0]")
	}
	return c
}

// onBoth runs a test on a fresh connection, whose head the gateway parses, and
// on one that a worker has.
func onBoth(t *testing.T, p *pair, test func(t *testing.T, c *testenv.Conn)) {
	t.Helper()
	for _, handed := range []bool{false, true} {
		name := "fresh"
		if handed {
			name = "handed over"
		}
		t.Run(name, func(t *testing.T) { test(t, p.connect(t, handed)) })
	}
}

func (p *pair) addr() string { return p.front.Addr().String() }

func (p *pair) close() {
	_ = p.front.StopAccepting()
	for _, b := range p.backs {
		_ = p.front.Send(b.id, ipc.StopFrame())
		<-b.done
		p.front.WorkerLost(b.id, true)
	}
	if err := p.front.Close(); err != nil {
		p.t.Error(err)
	}
	if n := p.front.open.Load(); n != 0 {
		p.t.Errorf("%d connections are counted open after Close", n)
	}
	if err := p.board.Close(); err != nil {
		p.t.Error(err)
	}
}

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: t\r\n\r\n" }

func want(t testing.TB, r testenv.Response, status int, part string) {
	t.Helper()
	if r.Status != status || !bytes.Contains(r.Body, []byte(part)) {
		t.Fatalf("status %d, body %.200q; want %d with %q", r.Status, r.Body, status, part)
	}
}

// What is done before Start has returned is answered like all else.
func TestStarterIsDoneAtOnce(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	c := testenv.Dial(t, p.addr())
	c.Send(t, get("/starts")+post("/starts", "[1]")+get("/starts"))
	if r := c.Response(t); r.Status != 502 { // nothing was written
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
	want(t, c.Response(t), 200, "[1]")
	if r := c.Response(t); r.Status != 502 {
		t.Errorf("status %d, %s", r.Status, r.Body)
	}
}

func TestPairServes(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/echo", "/beside", "/starts"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, 2, 2)
			c := testenv.Dial(t, p.addr())
			for i := range 5 {
				c.Send(t, post(path, fmt.Sprintf(`{"n":%d}`, i)))
				want(t, c.Response(t), 200, fmt.Sprintf(`{"n":%d}`, i))
			}
			c.Send(t, post(path, "[1]")+post(path, "[2]")+get("/nowhere")+post(path, "[3]"))
			want(t, c.Response(t), 200, "[1]")
			want(t, c.Response(t), 200, "[2]")
			want(t, c.Response(t), 404, "route_not_found")
			want(t, c.Response(t), 200, "[3]")
			big := "[" + strings.Repeat("1,", 200_000) + "1]"
			c.Send(t, post(path, big))
			if r := c.Response(t); string(r.Body) != big {
				t.Fatalf("%d of %d bytes came back", len(r.Body), len(big))
			}
			c.Send(t, get("/system/x")+"rest that is not read")
			want(t, c.Response(t), 200, "control")
			if got := <-p.controls; got != get("/system/x")+" <nil>" {
				t.Errorf("the control plane saw %q", got)
			}
		})
	}
}

func TestPairShortConnections(t *testing.T) {
	t.Parallel()
	p := newPair(t, 2, 2)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				r, err := testenv.Do(p.addr(), fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 4\r\n\r\n[%2d]", i))
				if err != nil || r.Status != 200 {
					t.Errorf("status %d, %v", r.Status, err)
					return
				}
			}
		})
	}
	wg.Wait()
	testenv.Until(t, "all slots are free", func() bool { return p.front.Stats().Retained == 0 })
}
