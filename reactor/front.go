package reactor

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/httpparse"
	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
	"baton/route"
)

const (
	// acceptBatch bounds the connections accepted in one turn, so that a flood
	// of new ones cannot starve those that are open.
	acceptBatch = 64

	// acceptComplaint is how often a loop logs that it cannot accept: it tries
	// again every tick.
	acceptComplaint = 10 * time.Second

	// headGrace is how long a server that stops waits for requests on connections
	// whose head has not come: silent ones are closed after idleGrace, and the
	// rest of a head that has begun is not waited for as long as usual.
	headGrace = 2 * idleGrace

	// listenBacklog is what listen(2) is asked for; net.core.somaxconn caps it.
	listenBacklog = 4096

	// controlMax bounds the control requests that run at one time; beyond it
	// the answer is 503.
	controlMax = 256

	// gatherEvents is how many events between two ticks make a loop gather: some
	// hundred connections a second. Fewer, and clients of a busy machine wait for a
	// gateway that has nothing to gather; more, and their connections are
	// handed over one by one.
	gatherEvents = 100

	// overLingerMax bounds the connections above ConnsMax that are kept until
	// their clients have seen the refusal; one more is closed at once, and its
	// client may see a reset in place of the answer.
	overLingerMax = 64
)

// FrontConfig describes the gateway's side. All fields without a note must be
// set.
type FrontConfig struct {
	Listen netip.AddrPort // port 0: the kernel chooses
	Loops  int            // event loops that accept
	Board  *ipc.Board
	Table  *route.Published

	// ConnsMax bounds the connections that are open at one time, donated ones
	// included; one more is answered 503 and closed. It must stay below the
	// limit on open files by what the rest of the process needs, and by
	// overLingerMax; it is at most
	// the number of the board's connection slots.
	ConnsMax int

	// Control takes a control request over, on a goroutine of its own. It owns
	// c and closes it.
	Control func(c *ControlConn)
	// Called on the returns loop; must not block.
	OnReady   func(worker int, generation uint64)
	OnApplied func(worker int, a ipc.Applied)
	OnTrouble func(worker int, text string)
	OnGone    func(worker int, err error)

	// Wait is how long a connection waits for a worker with room before it is
	// answered 503. Too short: bursts are refused. Too long: clients give up
	// first. Zero: waitDefault.
	Wait     time.Duration
	Timeouts Timeouts // zero fields: the defaults
	Logger   *slog.Logger
}

// Timeouts are the limits in time of connections. Zero is the default.
type Timeouts = timeouts

func (t *timeouts) setDefaults() {
	for _, f := range []struct {
		v *time.Duration
		d time.Duration
	}{
		{&t.Head, 10 * time.Second}, {&t.Body, 30 * time.Second}, {&t.KeepAlive, 75 * time.Second},
		{&t.Write, 30 * time.Second}, {&t.Linger, 2 * time.Second}, {&t.Probe, time.Second},
	} {
		if *f.v <= 0 {
			*f.v = f.d
		}
	}
}

// Front is the gateway's side of the reactor: the loops that accept, read and
// donate, and the returns loop.
type Front struct {
	cfg      FrontConfig
	addr     netip.AddrPort
	ledger   *ledger
	counters Counters
	loops    []*frontLoop
	returns  *returnsLoop

	open     atomic.Int64 // connections, donated ones included
	over     atomic.Int64 // connections above ConnsMax that are being refused
	controls atomic.Int64 // control requests that run
	ready    atomic.Int64 // workers that are picked
	tabled   atomic.Bool  // Tabled was called
	draining atomic.Bool
	wg       sync.WaitGroup // loops and control requests
}

// gatewayLoop is what front loops and the returns loop have in common. It has a
// thread of its own.
type gatewayLoop struct {
	loop
	front    *Front
	dispatch dispatcher
	gathers  bool // see gather
	noGather bool // the kernel refuses it, and is not asked again
}

type frontLoop struct {
	gatewayLoop
	listener fd.FD
	paused   bool // accept(2) found no descriptor: not tried until the next tick

	complainAt int64 // loop clock: not logged before; see acceptComplaint
}

// NewFront binds the port and starts the loops. Nothing is accepted before
// Open.
func NewFront(cfg FrontConfig) (*Front, error) {
	cfg.Timeouts.setDefaults()
	if cfg.Wait <= 0 {
		cfg.Wait = waitDefault
	}
	f := &Front{cfg: cfg, ledger: newLedger(cfg.Board, uint32(cfg.ConnsMax))}
	var err error
	if f.returns, err = newReturnsLoop(f); err != nil {
		return nil, err
	}
	if err := checkFree(cfg.Listen); err != nil {
		f.abandon()
		return nil, err
	}
	listen := cfg.Listen
	for i := range cfg.Loops {
		l := &frontLoop{}
		if err := l.init(f, fmt.Sprintf("front-%d", i)); err != nil {
			f.abandon()
			return nil, err
		}
		n, err := sys.ListenTCP(listen, sys.ListenOptions{ReusePort: true, Backlog: listenBacklog})
		if err != nil {
			l.closeDescriptors()
			f.abandon()
			return nil, fmt.Errorf("listen on %s: %w", listen, err)
		}
		l.listener = fd.New(n)
		l.onTick, l.onTurn, l.role = l.tick, l.dispatch.flushAll, l
		if listen, err = sys.LocalAddr(n); err != nil {
			l.closeDescriptors()
			f.abandon()
			return nil, fmt.Errorf("address of the listening socket: %w", err)
		}
		f.loops = append(f.loops, l)
	}
	f.addr = listen
	f.start(&f.returns.gatewayLoop)
	for _, l := range f.loops {
		f.start(&l.gatewayLoop)
	}
	return f, nil
}

// checkFree says whether the port is another process's. The loops' sockets share
// the port (SO_REUSEPORT) and would share it with any process of the same user,
// which then gets a part of the connections: so it is tried without, first.
func checkFree(addr netip.AddrPort) error {
	if addr.Port() == 0 {
		return nil
	}
	n, err := sys.ListenTCP(addr, sys.ListenOptions{})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	sys.CloseRaw(n)
	return nil
}

// abandon releases what a failed NewFront has acquired; no loop runs yet.
func (f *Front) abandon() {
	for _, l := range f.loops {
		_ = l.listener.Close()
		l.closeDescriptors()
	}
	if f.returns != nil {
		f.returns.closeDescriptors()
	}
}

func (f *Front) start(g *gatewayLoop) {
	f.wg.Go(func() {
		goruntime.LockOSThread() // and not unlocked: the thread ends with the loop
		g.run()
	})
}

func (g *gatewayLoop) init(f *Front, name string) error {
	if err := g.open(name, f.cfg.Logger); err != nil {
		return err
	}
	g.front, g.table, g.board, g.counters, g.timer = f, f.cfg.Table, f.cfg.Board, &f.counters, f.cfg.Timeouts
	g.dispatch.open(&g.loop, f.ledger, f.cfg.Board.Workers(), &f.counters)
	g.dispatch.refuse = g.refuseWaiter
	g.dispatch.waitTime = f.cfg.Wait
	return nil
}

// Addr is the address that the port is bound to.
func (f *Front) Addr() netip.AddrPort { return f.addr }

// Loops is the number of loops that accept. A worker is attached with one
// donation socket for each, and one for the returns loop.
func (f *Front) Loops() int { return len(f.loops) }

// Open starts accepting.
func (f *Front) Open() error {
	for _, l := range f.loops {
		var err error
		if e := l.ask(func() { err = l.watch(l.listener.Borrow(), l.onAccept) }); e != nil {
			return e
		}
		if err != nil {
			return fmt.Errorf("accept on loop %s: %w", l.name, err)
		}
	}
	return nil
}

// Tabled says that the published table holds all routes that there are to serve.
// Until then a path that is not in it is answered 503 and not 404, and /readyz
// says no.
func (f *Front) Tabled() { f.tabled.Store(true) }

// StopAccepting ends the acceptance of new connections without losing one that
// is established: the listening sockets drop every further packet, what waits
// in the backlogs is accepted, and then they are closed.
//
// Requests that are here or on their way go to workers as before, which must
// not drain yet: it returns when no connection is held that may bring one, after
// headGrace at most. From then on requests on connections that the gateway holds
// are answered 503. RATIONALE.md, "In which order does a server stop?".
func (f *Front) StopAccepting() error {
	f.draining.Store(true)
	for _, l := range f.loops {
		err := l.ask(func() {
			n := l.listener.Borrow()
			if n < 0 {
				return
			}
			if err := sys.DropAllFilter(n); err != nil {
				l.log.Warn("new connections may be reset while stopping", "err", err)
			}
			l.unwatch(n)
			for l.accept(1<<20) == nil {
			}
			_ = l.listener.Close()
			// Whoever says nothing now has nothing to wait for, but a request that
			// is on its way is still answered.
			for _, c := range l.conns {
				if c != nil && c.phase == phaseHead && len(c.in) == 0 {
					l.wheel.set(c, l.now+int64(idleGrace), l.now)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	f.awaitHeads()
	for _, l := range f.loops {
		if err := l.ask(func() { l.draining = true; l.dispatch.flushAll() }); err != nil {
			return err
		}
	}
	return f.returns.ask(func() { f.returns.draining = true; f.returns.dispatch.flushAll() })
}

// awaitHeads waits until no loop holds a connection that may bring a request.
func (f *Front) awaitHeads() {
	limit := time.NewTimer(headGrace)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		held := 0
		for _, l := range f.loops {
			_ = l.ask(func() {
				for _, c := range l.conns {
					if c != nil && c.phase == phaseHead {
						held++
					}
				}
			})
		}
		if held == 0 {
			return
		}
		select {
		case <-limit.C:
			return
		case <-tick.C:
		}
	}
}

// Drain waits until no connection is open any more, and returns how many are
// when done is closed first.
func (f *Front) Drain(done <-chan struct{}) int {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for f.open.Load() > 0 {
		select {
		case <-done:
			return int(f.open.Load())
		case <-tick.C:
		}
	}
	return 0
}

// Close ends the loops and every connection that the gateway still holds. The
// workers must be gone, or their connections are cut.
func (f *Front) Close() error {
	for _, l := range f.loops {
		_ = l.ask(func() {
			l.dispatch.giveUpAll()
			if n := l.listener.Borrow(); n >= 0 {
				l.unwatch(n)
				_ = l.listener.Close()
			}
			l.endAll()
			l.dispatch.detachAll()
		})
		l.stop()
	}
	_ = f.returns.ask(func() {
		f.returns.dispatch.giveUpAll()
		f.returns.closeWorkers()
		f.returns.endAll()
	})
	f.returns.stop()
	for slot := range f.ledger.entries {
		if n := f.ledger.entries[slot].fd.Load(); n >= 0 {
			_ = sys.Shutdown(int(n), syscall.SHUT_RDWR)
			f.ledger.close(uint32(slot))
			f.open.Add(-1)
		}
	}
	f.wg.Wait()
	return nil
}

// endAll closes every connection that the loop owns.
func (l *loop) endAll() {
	for _, c := range l.conns {
		if c != nil {
			l.end(c)
		}
	}
}

// Open connections, and other numbers of the moment.
type FrontStats struct {
	Open, Retained, Controls, Ready int
	Waiting                         int  // for a worker with room
	Tabled                          bool // see Front.Tabled
}

// Stats returns numbers of the moment; they are not of one instant.
func (f *Front) Stats() FrontStats {
	waiting := f.returns.dispatch.depth.Load()
	for _, l := range f.loops {
		waiting += l.dispatch.depth.Load()
	}
	return FrontStats{
		Waiting: int(waiting), Tabled: f.tabled.Load(),
		Open: int(f.open.Load()), Retained: f.ledger.inUse(), Controls: int(f.controls.Load()), Ready: int(f.ready.Load()),
	}
}

func (l *frontLoop) tick() {
	if l.paused && l.listener.Valid() {
		l.paused = false
		if err := l.watch(l.listener.Borrow(), l.onAccept); err != nil {
			l.paused = true
		}
	}
	l.gatewayLoop.tick()
}

func (g *gatewayLoop) tick() {
	g.gather(g.events >= gatherEvents)
	g.dispatch.tick()
}

// gather has the loop's thread wait, when it is woken, until whoever has the
// processor has done with it. Where clients, or their packets, are handled on the
// same processor, what comes from several is found together then, and one message hands several
// connections over, instead of each client being interrupted for its own. A loop
// that has little to do is woken at once. See RATIONALE.md, "When does the gateway
// not wake at once?".
func (g *gatewayLoop) gather(on bool) {
	if g.gathers == on || g.noGather {
		return
	}
	g.gathers = on
	if err := sys.SetBatch(on); err != nil {
		g.noGather = true
		g.log.Warn("short connections take more of the processor", "loop", g.name, "err", err)
	}
}

var errBacklogDry = errors.New("no connection waits")

func (l *frontLoop) onAccept() error {
	_ = l.accept(acceptBatch)
	return nil
}

// accept takes up to most connections and reads each once: a client usually
// sends its request together with the end of the handshake, and a connection
// that can be donated at once never enters the poller.
func (l *frontLoop) accept(most int) error {
	listener := l.listener.Borrow()
	for range most {
		n, peer, errno := sys.Accept4(listener)
		switch errno {
		case 0:
		case syscall.EAGAIN:
			return errBacklogDry
		case syscall.ECONNABORTED, syscall.EINTR, syscall.EPROTO:
			continue
		default:
			// EMFILE, ENFILE, ENOBUFS, ENOMEM: no resource for one more. It
			// stays in the backlog, readable, so stop looking until the tick.
			l.counters.AcceptErrors.Add(1)
			if l.now >= l.complainAt {
				l.complainAt = l.now + int64(acceptComplaint)
				l.log.Warn("no new connection can be accepted", "err", errno)
			}
			if _, watched := l.sources[listener]; watched {
				l.unwatch(listener)
				l.paused = true
				l.setTicking(true)
			}
			return errno
		}
		l.counters.Accepted.Add(1)
		if l.front.open.Add(1) > int64(l.front.cfg.ConnsMax) {
			l.front.open.Add(-1)
			l.refuseOver(n, peer)
			continue
		}
		c := l.newConn(n, peer)
		l.wheel.set(c, l.after(l.timer.Head), l.now)
		_ = l.readHead(c)
	}
	return nil
}

// refuseOver answers a connection that is one too many, before its request is
// read, and ends it. It is not counted as open. As long as there are few of
// them its client may send on until it has seen the answer.
func (l *frontLoop) refuseOver(n int, peer sys.Peer) {
	l.counters.OverLimit.Add(1)
	k := l.call
	k.parseKept(nil)
	c := l.newConn(n, peer)
	c.over = true
	k.begin(&l.loop, c)
	c.closing, c.lingering = true, l.front.over.Add(1) <= overLingerMax
	k.extra = append(k.extra[:0], "Retry-After: 1\r\n"...)
	p := k.appendError(l.scratch.out[:0], 503, componentGateway, reasonTooManyClients, "too many connections are open", k.extra)
	l.scratch.out = p[:0]
	l.write(c, p, nil)
}

// onRequest donates the connection whose request is a function's, and answers
// what needs none.
func (l *frontLoop) onRequest(c *conn, k *call, b []byte, n int) (int, step) {
	v := l.decide(k)
	if l.draining && v != verdictAnswer {
		l.counters.Drained.Add(1)
		k.answer = answerDraining
		v = verdictAnswer
	}
	if v == verdictAnswer && k.answer.reason == reasonNoRoute && !l.front.tabled.Load() {
		k.answer = answer{status: 503, reason: reasonStarting, text: "the routes of this server were not read yet", retry: true}
	}
	switch v {
	case verdictRun:
		return l.give(c, k, b, n)
	case verdictControl:
		return l.takeOver(c, k, b, n)
	case verdictHealth:
		ready := ""
		switch {
		case l.front.draining.Load():
			ready = `{"status":"draining"}`
		case !l.front.tabled.Load():
			ready = `{"status":"no_table"}`
		case l.front.ready.Load() == 0:
			ready = `{"status":"starting"}`
		}
		return l.replyHealth(c, k, b, n, ready)
	}
	return l.reply(c, k, b, n)
}

func (l *frontLoop) give(c *conn, k *call, b []byte, n int) (int, step) {
	slot, generation, ok := l.dispatch.ledger.take()
	if !ok {
		// ConnsMax is the ledger's size, so this is our own miscount.
		panic("reactor: fewer slots than connections")
	}
	l.unregister(c)
	l.dispatch.donate(slot, generation, c.fd, c.peer, b, k.table.Generation())
	l.release(c)
	return 0, stepWait
}

// refuseWaiter answers a connection that is retained and goes no further, and
// ends it.
func (g *gatewayLoop) refuseWaiter(w *waiter, a answer) {
	e := &g.dispatch.ledger.entries[w.slot]
	kept := e.kept.Load()
	n := int(e.fd.Swap(-1))
	c := g.newConn(n, e.peer)
	if len(kept.b) == 0 {
		// Idle: nobody has asked, and an answer would be taken for that of the
		// client's next request.
		g.dispatch.ledger.release(w.slot)
		g.end(c)
		return
	}
	k := g.call
	k.parseKept(kept.b)
	k.begin(&g.loop, c)
	c.closing, c.lingering = true, true
	k.extra = append(k.extra[:0], "Retry-After: 1\r\n"...)
	p := k.appendError(g.scratch.out[:0], a.status, componentGateway, a.reason, a.text, k.extra)
	g.scratch.out = p[:0]
	// Not before: another loop may own kept and reuses it once the slot is free.
	g.dispatch.ledger.release(w.slot)
	g.write(c, p, nil)
}

// parseKept parses a head again that was complete once; b may be empty, for a
// connection whose next request has not begun.
func (k *call) parseKept(b []byte) {
	if o, _, _ := httpparse.ParseHead(&k.req, b); o != httpparse.Complete {
		k.req.Method, k.req.RequestID, k.req.Minor = nil, nil, 1
	}
}

// The gateway's part of role. A front connection is not on the board before it
// is donated.

func (g *gatewayLoop) setState(*conn, ipc.State) {}
func (g *gatewayLoop) onBodyRead(*conn) error    { panic("reactor: the gateway reads no body") }
func (g *gatewayLoop) onUnwatched(c *conn)       { g.end(c) }
func (g *gatewayLoop) onStream(*conn, netpoll.IOEvent) error {
	panic("reactor: the gateway streams no answer")
}

// onBoundary lets nobody who says nothing hold up a server that stops.
func (g *gatewayLoop) onBoundary(c *conn) bool {
	if g.front.draining.Load() {
		g.wheel.set(c, g.now+int64(idleGrace), g.now)
	}
	return true
}
func (g *gatewayLoop) onEnd(c *conn) {
	if c.over {
		g.front.over.Add(-1)
		return
	}
	g.front.open.Add(-1)
}
func (g *gatewayLoop) onHangup(*conn) { panic("reactor: the gateway runs nothing") }
func (g *gatewayLoop) onExpire(*conn) { panic("reactor: a gateway connection in a worker's phase") }

// takeOver gives the connection to the control plane.
func (g *gatewayLoop) takeOver(c *conn, k *call, b []byte, n int) (int, step) {
	if g.front.controls.Add(1) > controlMax {
		g.front.controls.Add(-1)
		g.counters.TooBusy.Add(1)
		k.answer = answerControlBusy
		return g.reply(c, k, b, n)
	}
	g.unregister(c)
	g.front.control(c.fd, c.peer, b)
	g.release(c)
	return 0, stepWait
}

// control runs one control request on a goroutine of its own; Close waits for
// it. fd is given away here.
func (f *Front) control(n int, peer sys.Peer, b []byte) {
	f.counters.TakenOver.Add(1)
	c, err := newControlConn(n, peer, b, f.cfg.Timeouts.Probe)
	if err != nil {
		f.cfg.Logger.Error("control request cut", "err", err)
		f.controls.Add(-1)
		f.open.Add(-1)
		return
	}
	f.wg.Go(func() {
		defer func() {
			_ = c.Close()
			f.controls.Add(-1)
			f.open.Add(-1)
		}()
		f.cfg.Control(c)
	})
}

var _ net.Conn = (*ControlConn)(nil)
