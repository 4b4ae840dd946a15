package reactor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"baton/httpparse"
	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
	"baton/route"
	"baton/runtime"
	"baton/sched"
)

const (
	// runningMax bounds the functions that one worker runs at one time; beyond
	// it the answer is 503. It bounds goroutines and response buffers.
	runningMax = 1024

	// endedBatchMax is how many ended connections one report holds at most. More:
	// the gateway keeps more descriptors of connections that are over.
	endedBatchMax = 32

	// idleGrace is how long an idle connection is kept while draining, so that a
	// request that is on its way already is answered and not cut.
	idleGrace = 300 * time.Millisecond

	// adoptMessagesMax bounds the donation messages read from one socket in one
	// turn.
	adoptMessagesMax = 4
)

// BackConfig describes a worker's loop. All fields without a note must be set.
type BackConfig struct {
	Worker    int // number of this worker: its slot and its cells on the board
	Board     *ipc.Board
	Control   fd.FD   // the worker's end of its control channel; the back's from here on
	Donations []fd.FD // the worker's ends; likewise
	Table     *route.Published

	// Load makes a function runnable. Called beside the loop, for one function
	// at a time by one goroutine, but for several at once.
	Load func(ctx context.Context, f *route.Function) (runtime.Loaded, error)
	// Log takes what a function writes to stderr, in whole lines but for a last
	// one without an end; any goroutine may call it, and it must not block. p
	// dies with the call.
	Log func(f *route.Function, requestID, p []byte)
	// Failed takes an invocation that did not succeed; nil: nobody does. Called
	// on the loop: it must not block.
	Failed func(f *route.Function, requestID []byte, failure Failure)
	// LoadFirst is how many of a new table's functions are loaded before the table is
	// published here; see switching. Too small: their first requests wait for
	// the load; too large: they all wait for the switch.
	LoadFirst int

	Drain    time.Duration // how long running functions may go on once the gateway is gone
	Timeouts Timeouts      // zero fields: the defaults
	Logger   *slog.Logger
}

// Back is a worker's side of the reactor: one loop over adopted connections.
type Back struct {
	loop
	cfg     BackConfig
	self    *ipc.WorkerSlot
	control fd.FD
	frames  *ipc.FrameReader
	outbox  []ipc.Frame // frames that found no room; oldest first
	adopter *ipc.DonationReader

	functions []*function // by cell
	switching *switching  // a table that was sent and is not yet published here
	ready     bool        // the gateway was told so
	running   int
	replies   uint32 // answered requests, for the heartbeat
	published [countersCount]uint64
	noInline  bool          // nothing may be promoted now: more than this event depends on this goroutine
	ended     []ipc.SlotRef // not yet reported
	orphan    bool          // the gateway is gone
	handBack  bool          // draining, and the gateway takes connections back
	drainEnd  int64         // loop clock at which a drain is over
	shed      int           // connections to give back because another worker has less to do
	loads     []sched.Load
	scratches []*scratch
	shedder   sched.Shedder

	finished finishedCalls
	loading  sync.WaitGroup // goroutines that load or run functions
	ctx      context.Context
	cancel   context.CancelFunc
}

// function is one version of one route's function, as this worker runs it.
// Loop-owned; what loading finds comes through the mailbox.
type function struct {
	route   *route.Function
	loaded  runtime.Loaded
	loading bool
	first   *switching // waits for this to be loaded
	retired bool       // a newer version has its cell; closed when users is 0
	users   int        // calls that hold it
	again   int64      // loop clock: a load that went wrong is not tried before
	failed  error      // … and this is what went wrong
	waiting []*call    // for the load; they are in phaseRun
}

// finishedCalls is the door through which invocations that ran beside the loop
// come back to it.
type finishedCalls struct {
	mu     sync.Mutex
	closed bool
	calls  []*call
	spare  []*call
	// kicks are calls that still run and whose flow wants the loop: see flow.
	kicks, spareKicks []*call
}

// NewBack makes the loop. Run runs it.
func NewBack(cfg BackConfig) (*Back, error) {
	cfg.Timeouts.setDefaults()
	b := &Back{cfg: cfg, control: cfg.Control, frames: ipc.NewFrameReader(), adopter: ipc.NewDonationReader()}
	if err := b.open(fmt.Sprintf("worker-%d", cfg.Worker), cfg.Logger); err != nil {
		return nil, err
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.self = cfg.Board.Worker(cfg.Worker)
	b.role, b.onTick, b.onTurn, b.onWake = b, b.tick, b.report, b.finishAll
	b.table, b.board, b.counters, b.timer = cfg.Table, cfg.Board, new(Counters), cfg.Timeouts
	b.loads = make([]sched.Load, cfg.Board.Workers())
	err := b.watch(b.control.Borrow(), b.onControl)
	for i := range cfg.Donations {
		if err != nil {
			break
		}
		sock := cfg.Donations[i].Borrow()
		err = b.watch(sock, func() error { return b.onDonations(sock) })
	}
	if err != nil {
		b.closeDescriptors()
		return nil, err
	}
	b.setTicking(true)
	return b, nil
}

// Run turns the loop on the calling goroutine's behalf until the worker has
// drained or was told to stop. Functions that still run are cancelled then.
func (b *Back) Run() {
	go b.run()
	<-b.done
	b.cancel()
	_ = b.control.Close()
	for i := range b.cfg.Donations {
		_ = b.cfg.Donations[i].Close()
	}
	b.loading.Wait()
}

// Post runs f on the loop.
func (b *Back) Post(f func()) error { return b.post(f) }

// ---- from the gateway

// onControl handles the frames that the gateway has sent.
func (b *Back) onControl() error {
	if len(b.outbox) > 0 {
		b.sendOutbox()
	}
	for {
		frame, err := b.frames.Read(b.control.Borrow())
		switch {
		case errors.Is(err, ipc.ErrAgain):
			return nil
		case err != nil:
			b.orphaned(err)
			return nil
		}
		err = b.onFrame(frame)
		frame.Close()
		if err != nil {
			b.log.Error("the gateway's message is not understood", "err", err)
			b.orphaned(err)
			return nil
		}
		if b.stopped {
			return nil
		}
	}
}

func (b *Back) onFrame(frame ipc.Frame) error {
	switch frame.Kind {
	case ipc.KindTableDelta:
		m, err := frame.TableDelta()
		if err != nil {
			return err
		}
		return b.applyTable(m)
	case ipc.KindDrain:
		m, err := frame.Drain()
		if err != nil {
			return err
		}
		b.drain(m.Final, m.Limit)
	case ipc.KindStop:
		b.stopNow()
	default:
		return fmt.Errorf("frame of kind %d, which only a worker sends", frame.Kind)
	}
	return nil
}

// sayReady tells the gateway that connections may come.
func (b *Back) sayReady() {
	if b.ready || b.table.Load().Generation() == 0 {
		return
	}
	b.ready = true
	b.self.SetHeartbeat(b.now / int64(time.Millisecond))
	b.send(ipc.ReadyFrame(b.table.Load().Generation()))
}

// orphaned: the gateway is gone. Nothing that runs ends for that.
func (b *Back) orphaned(err error) {
	if b.orphan {
		return
	}
	b.orphan = true
	if !errors.Is(err, io.EOF) {
		b.log.Warn("the gateway's channel broke", "err", err)
	}
	b.unwatch(b.control.Borrow())
	for i := range b.cfg.Donations {
		b.unwatch(b.cfg.Donations[i].Borrow())
	}
	b.drain(true, b.cfg.Drain)
}

// drain ends the worker's work: running functions finish, and idle
// connections go back to the gateway or, when it stops too (final), are closed
// after a grace in which a request on its way is still answered.
func (b *Back) drain(final bool, limit time.Duration) {
	if b.draining && b.handBack == !final {
		return
	}
	b.draining = final
	b.handBack = !final
	b.drainEnd = b.now + int64(limit)
	for _, c := range b.conns {
		if c == nil {
			continue
		}
		if c.phase == phaseHead && len(c.in) == 0 {
			if b.handBack {
				b.giveBack(c, ipc.ReturnDrain, nil)
				continue
			}
			b.wheel.set(c, b.now+int64(idleGrace), b.now)
		}
	}
	b.stopWhenEmpty()
}

// stopWhenEmpty ends the loop once a drain has nothing left to wait for.
func (b *Back) stopWhenEmpty() {
	if !b.draining && !b.handBack {
		return
	}
	if b.handBack && !b.orphan {
		return // the gateway says Stop when it has no more connections for us
	}
	// What was donated before the drain is in our sockets, and is ours to serve.
	coming := !b.orphan && b.self.Pending() > 0
	if b.connsOpen == 0 && b.running == 0 && !coming || b.now > b.drainEnd {
		b.stopNow()
	}
}

// stopNow ends the loop; what is still open is cut.
func (b *Back) stopNow() {
	if b.stopped {
		return
	}
	for _, c := range b.conns {
		if c == nil {
			continue
		}
		if k := c.call; k != nil {
			k.run.cancel()
		}
		if c.phase == phaseRun || c.phase == phaseStream && !c.call.run.over {
			// Its call may still run: the struct stays the call's.
			b.unregister(c)
			_ = sys.Shutdown(c.fd, syscall.SHUT_RDWR)
			b.setState(c, ipc.Ended)
			sys.CloseRaw(c.fd)
			b.onEnd(c)
			continue
		}
		b.end(c)
	}
	b.publishCounters()
	b.report()
	b.finished.mu.Lock()
	b.finished.closed = true
	b.finished.mu.Unlock()
	b.mail.mu.Lock()
	b.mail.closed = true
	b.mail.mu.Unlock()
	b.stopped = true
}

// onDonations adopts the connections that one gateway loop has sent.
func (b *Back) onDonations(sock int) error {
	for range adoptMessagesMax {
		donations, err := b.adopter.Read(sock)
		switch {
		case errors.Is(err, ipc.ErrAgain):
			return nil
		case err != nil:
			// The control channel ends with the gateway too; it decides.
			b.unwatch(sock)
			if !errors.Is(err, io.EOF) {
				b.log.Error("donations end", "err", err)
			}
			return nil
		}
		// The reader's storage is reused by the next Read, so every one is taken
		// over or given back before anything runs: a function may be promoted in
		// between, and then the rest of this batch is another goroutine's.
		var batch [ipc.DonationConnsMax]*conn
		n := 0
		for i := range donations {
			if c := b.adopt(&donations[i]); c != nil {
				batch[n] = c
				n++
			}
		}
		for i, c := range batch[:n] {
			if err := b.begin(c); err != nil {
				if errors.Is(err, errLeave) {
					b.beginLater(batch[i+1 : n])
				}
				return err
			}
		}
	}
	return nil
}

// adopt makes a donated connection ours. Its state is stored before anything
// is done with it.
func (b *Back) adopt(d *ipc.Donation) *conn {
	b.self.AddAdopted(1)
	if d.FD < 0 {
		// This process is out of descriptors: the gateway still has both the
		// connection and the bytes.
		b.send(ipc.NotAdoptedFrame([]ipc.SlotRef{{Slot: d.Slot, Generation: d.Generation}}))
		return nil
	}
	if d.Table > b.table.Load().Generation() {
		// The changes were sent before the gateway published them.
		_ = b.onControl()
		if b.switching != nil {
			b.switchNow()
		}
	}
	if err := ipc.CheckConn(d.FD); err != nil {
		b.log.Error("what was donated is no connection", "slot", d.Slot, "err", err)
		sys.CloseRaw(d.FD)
		b.send(ipc.NotAdoptedFrame([]ipc.SlotRef{{Slot: d.Slot, Generation: d.Generation}}))
		return nil
	}
	c := b.newConn(d.FD, d.Peer)
	c.slot, c.generation = d.Slot, d.Generation
	b.self.AddConns(1)
	b.setState(c, ipc.Reading)
	b.keep(c, d.Bytes)
	return c
}

// begin handles what an adopted connection brought along.
func (b *Back) begin(c *conn) error {
	if len(c.in) == 0 {
		b.setState(c, ipc.Idle)
		b.wheel.set(c, b.after(b.timer.KeepAlive), b.now)
		return b.rearm(c)
	}
	in := b.scratch.in[:copy(b.scratch.in, c.in)]
	c.in = c.in[:0]
	return b.process(c, in)
}

// beginLater hands connections to the goroutine that is the loop now. Called
// on the one that just stopped being it.
func (b *Back) beginLater(rest []*conn) {
	for _, c := range rest {
		if err := b.post(func() { b.beginPosted(c) }); err != nil {
			panic(fmt.Sprintf("reactor: an adopted connection was lost: %v", err))
		}
	}
}

// ---- to the gateway

// send puts a frame on the control channel, or keeps it until there is room.
func (b *Back) send(frame ipc.Frame) {
	if b.orphan {
		return
	}
	if len(b.outbox) == 0 {
		err := ipc.WriteFrame(b.control.Borrow(), frame)
		if err == nil {
			return
		}
		if !errors.Is(err, ipc.ErrFull) {
			b.orphaned(err)
			return
		}
	}
	kept, err := frame.Clone()
	if err != nil {
		b.orphaned(err)
		return
	}
	// Bounded by what this worker has: connections to end or return, and one
	// confirmation per table.
	b.outbox = append(b.outbox, kept)
}

func (b *Back) sendOutbox() {
	for len(b.outbox) > 0 && !b.orphan {
		err := ipc.WriteFrame(b.control.Borrow(), b.outbox[0])
		if errors.Is(err, ipc.ErrFull) {
			return
		}
		b.outbox[0].Close()
		b.outbox = b.outbox[1:]
		if err != nil {
			b.orphaned(err)
		}
	}
}

// report tells the gateway which connections have ended, so that it lets its
// duplicates go.
func (b *Back) report() {
	for len(b.ended) > 0 {
		n := min(len(b.ended), endedBatchMax)
		b.send(ipc.EndedFrame(b.ended[:n]))
		b.ended = b.ended[:copy(b.ended, b.ended[n:])]
	}
}

// giveBack returns a connection to the gateway at a request boundary. rest is
// what was read of the next request. The descriptor is closed without a
// shutdown: the gateway goes on with its duplicate.
func (b *Back) giveBack(c *conn, why ipc.ReturnReason, rest []byte) {
	b.unregister(c)
	sys.CloseRaw(c.fd)
	b.setState(c, ipc.Returned)
	b.send(ipc.ReturnedFrame(ipc.Return{
		Slot: c.slot, Generation: c.generation, Reason: why, Table: b.table.Load().Generation(), Bytes: rest,
	}))
	b.self.AddConns(-1)
	b.release(c)
}

// ---- role

// setState stores c's state on the board: before the act it names.
func (b *Back) setState(c *conn, s ipc.State) {
	if c.state == s {
		return
	}
	c.state = s
	b.board.Conn(c.slot).Store(ipc.MakeWord(c.generation, b.cfg.Worker, s))
}

func (b *Back) onEnd(c *conn) {
	b.self.AddConns(-1)
	b.ended = append(b.ended, ipc.SlotRef{Slot: c.slot, Generation: c.generation})
	if len(b.ended) >= endedBatchMax {
		b.report()
	} else {
		b.needTurnSoon()
	}
}

// onBoundary gives an idle connection back when this worker drains or another
// one has clearly less to do.
func (b *Back) onBoundary(c *conn) bool {
	switch {
	case b.handBack:
		b.giveBack(c, ipc.ReturnDrain, nil)
		return false
	case b.draining:
		b.wheel.set(c, b.now+int64(idleGrace), b.now)
	case b.shed > 0:
		b.shed--
		b.giveBack(c, ipc.ReturnBalance, nil)
		return false
	}
	return true
}

func (b *Back) onHangup(c *conn) {
	b.counters.Hangups.Add(1)
	if k := c.call; k != nil {
		// 499 is nginx's number for it.
		b.log.Info("the client left", "function", k.fn.Name, "request", string(k.id[:k.idLen]), "status", 499)
		k.run.cancel()
	}
}

// probe asks whether a client that has sent its FIN is still there: see
// onConnBusy. HTTP/1.0 has no interim responses (RFC 9110 section 15.2), so
// its clients are not asked.
func (b *Back) probe(c *conn) {
	if c.call.req.Minor == 0 {
		return
	}
	switch n, errno := sys.Write(c.fd, continueAnswer); {
	case errno == syscall.EAGAIN:
	case errno != 0 || n < len(continueAnswer):
		b.hangUp(c)
		return
	}
	b.wheel.set(c, b.after(b.timer.Probe), b.now)
}

// hangUp notes that c's client is gone while its function runs: the function
// is cancelled, and c ends with it.
func (b *Back) hangUp(c *conn) {
	if c.hungUp {
		return
	}
	b.disarm(c)
	c.hungUp = true
	c.deadline = 0
	b.onHangup(c)
}

func (b *Back) onUnwatched(c *conn) {
	if c.phase == phaseRun || c.phase == phaseStream {
		b.hangUp(c)
		return
	}
	b.end(c)
}

func (b *Back) onExpire(c *conn) {
	switch {
	case c.hungUp:
	case c.bodyOpen && c.reading.late(b.now):
		b.counters.BodyTimeouts.Add(1)
		b.breakBody(c, httpparse.ReasonBodyTimeout)
	case c.phase == phaseStream:
		if c.writing.runs() {
			b.answerWaits(c, 0)
		}
		if !c.writing.late(b.now) {
			b.setPace(c)
			return
		}
		b.counters.WriteTimeouts.Add(1)
		b.cutStream(c)
	case c.phase == phaseRun && c.halfClosed && !c.bodyOpen:
		b.probe(c)
	case c.phase == phaseBody:
		b.counters.BodyTimeouts.Add(1)
		k := c.call
		c.call = nil
		b.refuse(c, k, httpparse.ReasonBodyTimeout)
		b.putCall(k)
	}
}

// onRequest runs the function, or gives the connection to whom the request is
// for.
func (b *Back) onRequest(c *conn, k *call, p []byte, n int) (int, step) {
	v := b.decide(k)
	switch v {
	case verdictRun:
		return b.start(c, k, p, n)
	case verdictAnswer:
		return b.reply(c, k, p, n)
	}
	if b.orphan || b.draining {
		// Nobody is there to take it.
		b.counters.Drained.Add(1)
		k.answer = answerDraining
		return b.reply(c, k, p, n)
	}
	if v == verdictHealth {
		return b.replyHealth(c, k, p, n, "") // a worker that serves is ready
	}
	b.giveBack(c, ipc.ReturnControl, p)
	return 0, stepWait
}

func (b *Back) tick() {
	b.self.SetHeartbeat(b.now / int64(time.Millisecond))
	b.publishCounters()
	if len(b.outbox) > 0 {
		b.sendOutbox()
	}
	if s := b.switching; s != nil && b.now >= s.until {
		b.switchNow()
	}
	if b.draining || b.handBack {
		b.stopWhenEmpty()
		return
	}
	b.balance()
}

// balance decides how many connections to give back at their next boundary.
func (b *Back) balance() {
	for i := range b.loads {
		w := b.board.Worker(i)
		readLoad(&b.loads[i], w, b.now)
		b.loads[i].Ready = w.Pid() != 0
	}
	if n := b.shedder.Tick(b.loads, b.cfg.Worker); n > 0 {
		b.shed = n
	}
}
