package reactor

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/internal/sys"
	"baton/ipc"
	"baton/sched"
)

const (
	// turnDonationsMax is how many donations to one worker travel together: the
	// most descriptors one message carries.
	turnDonationsMax = ipc.DonationConnsMax

	// waitingMax bounds the requests of one loop that wait because no worker has
	// room. Beyond it, and after FrontConfig.Wait, the answer is 503. What asks
	// for nothing (an idle connection) and what a lost worker had is not refused
	// for it: that is held already, and bounded by FrontConfig.ConnsMax.
	// RATIONALE.md, "Which connections may wait for a worker?".
	waitingMax  = 1024
	waitDefault = 20 * time.Second

	// keptFreeMax bounds the buffers of sent bytes that one loop keeps for reuse.
	keptFreeMax = 256
)

// dispatcher donates the connections of one loop to workers. Each gateway loop
// has one, with a socket of its own to each worker, so donating takes no lock.
// Loop-owned, but for the construction.
type dispatcher struct {
	loop     *loop
	ledger   *ledger
	board    *ipc.Board
	counters *Counters
	picker   sched.Picker
	ramp     sched.Options
	loads    []sched.Load
	donors   []donor
	pending  int // donations in writers, not yet sent

	// refuse answers and ends a connection that goes no further.
	refuse func(w *waiter, a answer)

	// sent are the slots whose bytes are kept until they are adopted, oldest
	// first, from sentFrom on.
	sent     []sentSlot
	sentFrom int
	kept     *keptBytes // free list
	keptFree int

	waitTime time.Duration
	waiting  []*waiter    // no worker had room; oldest first
	asking   int          // of those, the ones that waitingMax bounds
	depth    atomic.Int64 // len(waiting), for whoever wants to know
}

// donor is this loop's way to one worker.
type donor struct {
	sock       int // -1: none
	ready      bool
	full       bool  // watched for writing
	readySince int64 // loop clock
	writer     *ipc.DonationWriter
	pending    []sentSlot // what is in writer, in order
}

type sentSlot struct {
	slot, generation uint32
	kept             *keptBytes
}

// waiter is a connection that waits for a worker. Its slot is taken and its
// entry filled; the state on the board is Gateway.
type waiter struct {
	slot, generation uint32
	since            int64 // loop clock
	asks             bool  // counts in asking
}

func (d *dispatcher) open(l *loop, g *ledger, workers int, counters *Counters) {
	d.loop, d.ledger, d.board, d.counters = l, g, g.board, counters
	d.loads = make([]sched.Load, workers)
	d.donors = make([]donor, workers)
	for i := range d.donors {
		d.donors[i] = donor{sock: -1}
	}
	d.picker.Seed(uint64(l.now) ^ uint64(l.wakefd)<<32)
}

// attach makes sock the way to worker id. The dispatcher owns sock until
// detach.
func (d *dispatcher) attach(id, sock int) {
	if d.donors[id].sock != -1 {
		panic("reactor: a worker was attached twice")
	}
	d.donors[id] = donor{sock: sock, writer: ipc.NewDonationWriter(), pending: make([]sentSlot, 0, turnDonationsMax)}
}

func (d *dispatcher) setReady(id int, ready bool) {
	d.donors[id].ready = ready
	if ready {
		d.donors[id].readySince = d.loop.now
		d.retryWaiting()
	} else {
		d.flushTo(id)
	}
}

// detach forgets the way to a worker that is gone. What its writer still held
// is not sent; the walk over the lost worker's slots finds it as Donated.
func (d *dispatcher) detach(id int) {
	w := &d.donors[id]
	if w.sock == -1 {
		return
	}
	d.pending -= len(w.pending)
	if w.full {
		d.loop.unwatch(w.sock)
	}
	sys.CloseRaw(w.sock)
	*w = donor{sock: -1}
}

// donate gives the connection n, which the loop has taken out of its poller,
// to the best worker, under a slot that the caller took from the ledger. b is
// every byte read from it and not answered; table is the generation it was
// matched in. The descriptor is the ledger's from here on.
func (d *dispatcher) donate(slot, generation uint32, n int, peer sys.Peer, b []byte, table uint64) {
	e := &d.ledger.entries[slot]
	e.peer, e.table, e.waitSince, e.saved = peer, table, 0, false
	e.kept.Store(d.keep(b))
	e.fd.Store(int32(n))
	d.dispatch(slot, generation, 0)
}

// dispatch sends a filled entry to the best worker not in tried, or lets it
// wait.
func (d *dispatcher) dispatch(slot, generation uint32, tried uint64) {
	if id := d.pick(tried); id >= 0 {
		d.add(id, slot, generation, tried)
		return
	}
	d.wait(slot, generation)
}

// pick returns the best worker that is ready, not full and not in tried; -1
// when there is none.
func (d *dispatcher) pick(tried uint64) int {
	for i := range d.donors {
		w := &d.donors[i]
		load := &d.loads[i]
		load.Ready, load.Full = w.ready, w.full
		if w.ready && !w.full {
			readLoad(load, d.board.Worker(i), d.loop.now)
			load.Ramp = d.ramp.RampLeft(ticks(d.loop.now - w.readySince))
		}
	}
	if tried == 0 {
		return d.picker.Pick(d.loads)
	}
	return d.picker.Next(d.loads, tried)
}

// readLoad copies what the board says of a worker.
func readLoad(load *sched.Load, w *ipc.WorkerSlot, now int64) {
	number, score, millis := w.Score()
	load.Sample, load.Score = number, score
	if number == 0 {
		load.Score = -1
	}
	load.Age = ticks(now - millis*int64(time.Millisecond))
	load.Inflight, load.Pending, load.Conns = w.Inflight(), w.Pending(), w.Conns()
}

// ticks converts nanoseconds to ticks of sched.
func ticks(nanos int64) uint32 {
	return uint32(min(max(nanos/(sched.TickMillis*int64(time.Millisecond)), 0), 1<<31))
}

// add puts a connection into the message to worker id; the message goes when
// it is full or at the end of the turn.
func (d *dispatcher) add(id int, slot, generation uint32, tried uint64) {
	w := &d.donors[id]
	e := &d.ledger.entries[slot]
	k := e.kept.Load()
	donation := ipc.Donation{
		Slot: slot, Generation: generation, Table: e.table, Peer: e.peer, Bytes: k.b, FD: int(e.fd.Load()),
	}
	if !w.writer.Add(donation) {
		d.flushTo(id)
		if w.full || w.sock == -1 || !w.writer.Add(donation) {
			d.dispatch(slot, generation, tried|1<<id)
			return
		}
	}
	// From here on the entry is the worker's and the returns loop's: the store
	// orders what was read of it before whatever they do with it.
	e.fd.Store(int32(donation.FD))
	// The state comes before the act.
	d.board.Conn(slot).Store(ipc.MakeWord(generation, id, ipc.Donated))
	d.board.Worker(id).AddDonated(1)
	w.pending = append(w.pending, sentSlot{slot, generation, k})
	d.pending++
	if len(w.pending) == turnDonationsMax {
		d.flushTo(id)
	} else {
		d.loop.needTurn()
	}
}

// flushAll sends what this turn has gathered.
func (d *dispatcher) flushAll() {
	if d.pending == 0 {
		return
	}
	d.reclaim()
	for id := range d.donors {
		if len(d.donors[id].pending) > 0 {
			d.flushTo(id)
		}
	}
}

// flushTo sends the message to one worker. What does not go is tried at the
// next best: nothing was given away, for the gateway retains.
func (d *dispatcher) flushTo(id int) {
	w := &d.donors[id]
	if len(w.pending) == 0 {
		return
	}
	sent, err := w.writer.Flush(w.sock)
	d.counters.Donated.Add(uint64(sent))
	for _, p := range w.pending[:sent] {
		if p.kept.owner == d {
			d.sent = append(d.sent, p)
		}
	}
	left := len(w.pending) - sent
	d.pending -= len(w.pending)
	if left == 0 {
		w.pending = w.pending[:0]
		return
	}
	var again [turnDonationsMax]sentSlot
	n := copy(again[:], w.pending[sent:])
	w.pending = w.pending[:0]
	d.board.Worker(id).AddDonated(-left)
	switch {
	case errors.Is(err, ipc.ErrTooManyRefs):
		// No channel has room: the tick tries again.
		for _, p := range again[:n] {
			d.wait(p.slot, p.generation)
		}
		return
	case errors.Is(err, ipc.ErrFull):
		d.watchRoom(id)
	default:
		// Not ready any more; its pidfd or control channel says why, soon.
		w.ready = false
		d.loop.log.Warn("a worker takes no connections", "worker", id, "err", err)
	}
	for _, p := range again[:n] {
		d.counters.DonateFull.Add(1)
		d.dispatch(p.slot, p.generation, 1<<id)
	}
}

// watchRoom has the waiting connections retried when worker id's socket has
// room again.
func (d *dispatcher) watchRoom(id int) {
	w := &d.donors[id]
	if w.full {
		return
	}
	if err := d.loop.poller.AddWrite(&netpoll.PollAttachment{FD: w.sock}, false); err != nil {
		d.loop.log.Error("watch for room", "worker", id, "err", err)
		return // retried by the tick
	}
	w.full = true
	d.loop.sources[w.sock] = func() error {
		w := &d.donors[id]
		if w.full {
			d.loop.unwatch(w.sock)
			w.full = false
			d.retryWaiting()
		}
		return nil
	}
}

func (d *dispatcher) wait(slot, generation uint32) {
	d.board.Conn(slot).Store(ipc.MakeWord(generation, 0, ipc.Gateway))
	d.loop.setTicking(true) // first: a loop that did not tick has an old clock
	e := &d.ledger.entries[slot]
	if e.waitSince == 0 {
		e.waitSince = d.loop.now
	}
	// A connection that comes back from worker after worker has not begun to wait
	// anew.
	w := &waiter{slot: slot, generation: generation, since: e.waitSince}
	w.asks = !e.saved && len(e.kept.Load().b) > 0
	if w.asks && d.asking >= waitingMax || d.loop.now-w.since > int64(d.waitTime) {
		d.giveUp(w)
		return
	}
	d.counters.Queued.Add(1)
	if w.asks {
		d.asking++
	}
	d.setWaiting(append(d.waiting, w))
}

func (d *dispatcher) setWaiting(queue []*waiter) {
	d.waiting = queue
	d.depth.Store(int64(len(queue)))
}

// unwait takes the oldest that waits out of the queue.
func (d *dispatcher) unwait() *waiter {
	w := d.waiting[0]
	if w.asks {
		d.asking--
	}
	d.setWaiting(d.waiting[1:])
	return w
}

func (d *dispatcher) retryWaiting() {
	// As many as there are now: what comes back waits for the next time.
	for range len(d.waiting) {
		id := d.pick(0)
		if id < 0 {
			return
		}
		w := d.unwait()
		d.add(id, w.slot, w.generation, 0)
	}
}

func (d *dispatcher) giveUp(w *waiter) {
	d.counters.NoWorker.Add(1)
	d.refuse(w, answer{status: 503, reason: reasonNoWorker, text: "no worker took the request in time"})
}

// giveUpAll answers every waiting connection 503: the gateway stops.
func (d *dispatcher) giveUpAll() {
	for range len(d.waiting) {
		d.giveUp(d.unwait())
	}
}

// reclaim gives kept bytes back whose connections are adopted.
func (d *dispatcher) reclaim() {
	for d.sentFrom < len(d.sent) {
		s := d.sent[d.sentFrom]
		w := d.board.Conn(s.slot).Load()
		if w.Generation() == s.generation && (w.State() == ipc.Donated || w.State() == ipc.Gateway) {
			break // the rest is younger
		}
		// The entry is past needing these bytes; it may already hold others.
		d.ledger.entries[s.slot].kept.CompareAndSwap(s.kept, nil)
		d.reuse(s.kept)
		d.sentFrom++
	}
	if d.sentFrom == len(d.sent) {
		d.sent, d.sentFrom = d.sent[:0], 0
	} else if d.sentFrom > 1024 {
		d.sent = d.sent[:copy(d.sent, d.sent[d.sentFrom:])]
		d.sentFrom = 0
	}
}

// tick ends waits that took too long.
func (d *dispatcher) tick() {
	d.reclaim()
	d.retryWaiting()
	for len(d.waiting) > 0 && d.loop.now-d.waiting[0].since > int64(d.waitTime) {
		d.giveUp(d.unwait())
	}
}

// keep copies b for as long as the gateway may have to send it again.
func (d *dispatcher) keep(b []byte) *keptBytes {
	k := d.kept
	if k == nil {
		k = &keptBytes{owner: d}
	} else {
		d.kept = k.next
		d.keptFree--
		k.next = nil
	}
	k.b = append(k.b[:0], b...)
	return k
}

func (d *dispatcher) reuse(k *keptBytes) {
	if d.keptFree >= keptFreeMax || cap(k.b) > 4<<10 {
		return
	}
	k.next = d.kept
	d.kept = k
	d.keptFree++
}
