package reactor

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/httpparse"
	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

// controlQueueMax bounds the frames that wait for room in one worker's control
// channel. A worker that lets so many wait does not turn: it counts as lost.
const controlQueueMax = 4096

// returnsLoop receives all that workers send, donates again what comes back,
// and saves what can be saved when a worker is lost. Connections are its own
// only to be answered for the last time (502, 503) and closed.
type returnsLoop struct {
	gatewayLoop
	workers []workerChannel
}

// workerChannel is the gateway's end of one worker's control channel.
// Loop-owned.
type workerChannel struct {
	sock   fd.FD
	reader *ipc.FrameReader
	queue  []ipc.Frame // frames that found no room
	gone   bool        // reported to OnGone
}

func newReturnsLoop(f *Front) (*returnsLoop, error) {
	r := &returnsLoop{workers: make([]workerChannel, f.cfg.Board.Workers())}
	if err := r.init(f, "returns"); err != nil {
		return nil, err
	}
	r.onTick, r.onTurn, r.role = r.tick, r.dispatch.flushAll, r
	return r, nil
}

// AttachWorker makes worker id known: control is the gateway's end of its
// control channel, donations one end per loop and one for the returns loop.
// The descriptors are the front's from here on, also on error. The worker is
// not picked before WorkerReady.
func (f *Front) AttachWorker(id int, control fd.FD, donations []fd.FD) error {
	closeAll := func() {
		_ = control.Close()
		for i := range donations {
			_ = donations[i].Close()
		}
	}
	if len(donations) != len(f.loops)+1 {
		closeAll()
		return fmt.Errorf("attach worker %d: %d donation sockets, want %d", id, len(donations), len(f.loops)+1)
	}
	r := f.returns
	var err error
	if e := r.ask(func() {
		w := &r.workers[id]
		if w.sock.Valid() {
			panic("reactor: a worker was attached twice")
		}
		*w = workerChannel{sock: control, reader: ipc.NewFrameReader()}
		err = r.watch(control.Borrow(), func() error { r.readFrames(id); return nil })
		r.dispatch.attach(id, donations[len(f.loops)].Donate())
	}); e != nil {
		closeAll()
		return e
	}
	for i, l := range f.loops {
		n := donations[i].Donate()
		if e := l.ask(func() { l.dispatch.attach(id, n) }); e != nil {
			return e
		}
	}
	return err
}

// Send puts a frame on worker id's control channel, in the order of calls of
// one goroutine. The frame's descriptors stay the caller's until Send returns.
// An error says that the worker is not there or does not read: it is lost.
func (f *Front) Send(id int, frame ipc.Frame) error {
	var err error
	if e := f.returns.ask(func() { err = f.returns.send(id, frame) }); e != nil {
		return e
	}
	return err
}

func (r *returnsLoop) send(id int, frame ipc.Frame) error {
	w := &r.workers[id]
	if !w.sock.Valid() {
		return fmt.Errorf("send to worker %d: %w", id, errWorkerGone)
	}
	if len(w.queue) == 0 {
		err := ipc.WriteFrame(w.sock.Borrow(), frame)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ipc.ErrFull) {
			return fmt.Errorf("send to worker %d: %w", id, err)
		}
	}
	if len(w.queue) >= controlQueueMax {
		return fmt.Errorf("send to worker %d: %w", id, ipc.ErrFull)
	}
	kept, err := frame.Clone()
	if err != nil {
		return fmt.Errorf("send to worker %d: %w", id, err)
	}
	w.queue = append(w.queue, kept)
	if len(w.queue) == 1 {
		// The channel is in the poller already, for reading.
		if err := r.poller.ModReadWrite(&netpoll.PollAttachment{FD: w.sock.Borrow()}, false); err != nil {
			return fmt.Errorf("send to worker %d: %w", id, err)
		}
	}
	return nil
}

var errWorkerGone = errors.New("the worker is not attached")

func (r *returnsLoop) sendQueued(id int) {
	w := &r.workers[id]
	for len(w.queue) > 0 {
		err := ipc.WriteFrame(w.sock.Borrow(), w.queue[0])
		if errors.Is(err, ipc.ErrFull) {
			return
		}
		w.queue[0].Close()
		w.queue = w.queue[1:]
		if err != nil {
			r.reportGone(id, err)
			return
		}
	}
	w.queue = nil
	_ = r.poller.ModRead(&netpoll.PollAttachment{FD: w.sock.Borrow()}, false)
}

// readFrames handles what worker id has sent. The bound keeps one worker from
// holding the loop.
func (r *returnsLoop) readFrames(id int) {
	w := &r.workers[id]
	r.setTicking(true) // what a tick does is due once there is work
	if len(w.queue) > 0 {
		r.sendQueued(id)
	}
	for range 64 {
		if !w.sock.Valid() || w.gone {
			return
		}
		frame, err := w.reader.Read(w.sock.Borrow())
		if errors.Is(err, ipc.ErrAgain) {
			return
		}
		if err == nil {
			err = r.onFrame(id, frame)
			frame.Close()
		}
		if err != nil {
			r.reportGone(id, err)
			return
		}
	}
}

// reportGone tells the supervisor that worker id is lost: its channel ended or
// what it sent is not to be trusted. Nothing more is read from it until
// WorkerLost.
func (r *returnsLoop) reportGone(id int, err error) {
	w := &r.workers[id]
	if w.gone {
		return
	}
	w.gone = true
	r.unwatch(w.sock.Borrow())
	if errors.Is(err, io.EOF) {
		err = nil
	}
	r.front.cfg.OnGone(id, err)
}

// onFrame handles one frame of worker id. An error is the worker's fault.
func (r *returnsLoop) onFrame(id int, frame ipc.Frame) error {
	switch frame.Kind {
	case ipc.KindEnded:
		return frame.EachEnded(func(slot, generation uint32) {
			if e := r.dispatch.ledger.held(id, slot, generation); e != nil && r.state(slot) == ipc.Ended {
				r.dispatch.ledger.close(slot)
				r.front.open.Add(-1)
			}
		})
	case ipc.KindReturned:
		m, err := frame.Returned()
		if err != nil {
			return err
		}
		r.onReturned(id, m)
	case ipc.KindNotAdopted:
		return frame.EachNotAdopted(func(slot, generation uint32) {
			// No kept bytes: it has read, whatever it says.
			if e := r.dispatch.ledger.held(id, slot, generation); e != nil && r.state(slot) == ipc.Donated && e.kept.Load() != nil {
				r.dispatch.wait(slot, generation)
			}
		})
	case ipc.KindReady:
		generation, err := frame.Ready()
		if err != nil {
			return err
		}
		r.front.cfg.OnReady(id, generation)
	case ipc.KindApplied:
		m, err := frame.Applied()
		if err != nil {
			return err
		}
		r.front.cfg.OnApplied(id, m)
	case ipc.KindTrouble:
		text, err := frame.Trouble()
		if err != nil {
			return err
		}
		r.front.cfg.OnTrouble(id, text)
	default:
		return fmt.Errorf("worker %d sent a frame of kind %d, which only the gateway sends", id, frame.Kind)
	}
	return nil
}

func (r *returnsLoop) state(slot uint32) ipc.State { return r.board.Conn(slot).Load().State() }

// onReturned takes a connection back at a request boundary.
func (r *returnsLoop) onReturned(id int, m ipc.Return) {
	e := r.dispatch.ledger.held(id, m.Slot, m.Generation)
	if e == nil || r.state(m.Slot) != ipc.Returned {
		return
	}
	r.counters.Returned.Add(1)
	e.waitSince, e.saved = 0, false
	// Gateway first: a front loop must not take the new bytes for old ones.
	r.board.Conn(m.Slot).Store(ipc.MakeWord(m.Generation, 0, ipc.Gateway))
	if m.Reason == ipc.ReturnControl {
		if r.front.controls.Add(1) > controlMax {
			r.front.controls.Add(-1)
			r.counters.TooBusy.Add(1)
			e.kept.Store(r.dispatch.keep(m.Bytes))
			r.refuseWaiter(&waiter{slot: m.Slot, generation: m.Generation}, answerControlBusy)
			return
		}
		n, peer := int(e.fd.Swap(-1)), e.peer // the slot is another's once it is released
		r.dispatch.ledger.release(m.Slot)
		r.front.control(n, peer, m.Bytes)
		return
	}
	e.kept.Store(r.dispatch.keep(m.Bytes))
	if r.draining {
		if len(m.Bytes) > 0 {
			r.counters.Drained.Add(1)
			r.refuseWaiter(&waiter{slot: m.Slot, generation: m.Generation}, answerDraining)
		} else {
			r.cut(m.Slot)
		}
		return
	}
	r.dispatch.dispatch(m.Slot, m.Generation, 1<<id)
}

// cut ends a retained connection without an answer.
func (r *returnsLoop) cut(slot uint32) {
	_ = sys.Shutdown(int(r.dispatch.ledger.entries[slot].fd.Load()), syscall.SHUT_RDWR)
	r.dispatch.ledger.close(slot)
	r.front.open.Add(-1)
}

// onRequest: the returns loop owns connections only to end them.
func (r *returnsLoop) onRequest(c *conn, k *call, b []byte, n int) (int, step) {
	panic("reactor: the returns loop parses no requests")
}

// WorkerReady makes worker id one that is picked.
func (f *Front) WorkerReady(id int) {
	f.ready.Add(1)
	f.eachDispatcher(func(d *dispatcher) { d.setReady(id, true) })
}

// WorkerDraining has worker id picked no more; its connections come back.
func (f *Front) WorkerDraining(id int) {
	f.ready.Add(-1)
	f.eachDispatcher(func(d *dispatcher) { d.setReady(id, false) })
}

// WorkerLost saves what can be saved of a worker that is gone: call it once,
// and only after the process was reaped, so that nothing it shares changes any
// more. ready says whether it was picked (WorkerReady without
// WorkerDraining). Returns when every connection of it has a new owner or was
// ended: design.md, section 3, point 4.
func (f *Front) WorkerLost(id int, ready bool) {
	if ready {
		f.ready.Add(-1)
	}
	// First nobody adds to what it has; then its last words; then the walk.
	for _, l := range f.loops {
		_ = l.ask(func() { l.dispatch.detach(id) })
	}
	_ = f.returns.ask(func() { f.returns.bury(id) })
}

func (f *Front) eachDispatcher(do func(*dispatcher)) {
	for _, l := range f.loops {
		_ = l.ask(func() { do(&l.dispatch) })
	}
	_ = f.returns.ask(func() { do(&f.returns.dispatch) })
}

// bury reads the last words of worker id and finds new owners for what it had.
func (r *returnsLoop) bury(id int) {
	w := &r.workers[id]
	if !w.sock.Valid() {
		return
	}
	r.dispatch.detach(id)
	if !w.gone {
		w.gone = true // EOF is no news now
		r.unwatch(w.sock.Borrow())
	}
	for {
		frame, err := w.reader.Read(w.sock.Borrow())
		if err != nil {
			break // EOF; or nonsense, behind which nothing can be understood
		}
		err = r.onFrame(id, frame)
		frame.Close()
		if err != nil {
			break
		}
	}
	for i := range w.queue {
		w.queue[i].Close()
	}
	_ = w.sock.Close()
	*w = workerChannel{}
	for slot := range r.dispatch.ledger.entries {
		r.inherit(id, uint32(slot))
	}
	r.dispatch.flushAll()
}

// inherit decides about one connection of a lost worker by the state that was
// stored before the worker's last act on it.
func (r *returnsLoop) inherit(id int, slot uint32) {
	g := r.dispatch.ledger
	e := &g.entries[slot]
	word := r.board.Conn(slot).Load()
	generation, state := e.generation.Load(), word.State()
	if e.fd.Load() == -1 || word.Worker() != id || word.Generation() != generation {
		return
	}
	if state == ipc.Donated && e.kept.Load() == nil {
		state = ipc.Reading // it was, once: the bytes are not kept any more
	}
	switch state {
	case ipc.Free, ipc.Gateway:
		return
	case ipc.Donated:
		// Never read by the worker: everything it would have had is kept.
		r.counters.LostRedonated.Add(1)
		r.board.Conn(slot).Store(ipc.MakeWord(generation, 0, ipc.Gateway))
		e.saved = true
		r.dispatch.dispatch(slot, generation, 0)
	case ipc.Idle:
		// No byte of a request was in the worker's memory.
		r.counters.LostRedonated.Add(1)
		r.board.Conn(slot).Store(ipc.MakeWord(generation, 0, ipc.Gateway))
		e.kept.Store(r.dispatch.keep(nil))
		e.waitSince, e.saved = 0, true
		r.dispatch.dispatch(slot, generation, 0)
	case ipc.Running:
		// No byte of an answer was sent: the client gets one from here.
		r.counters.LostAnswered.Add(1)
		r.answerLost(slot)
	case ipc.Ended:
		g.close(slot)
		r.front.open.Add(-1)
	default:
		// Reading: bytes of a request died with the worker. Responding: a part
		// of an answer may be with the client. Returned, with no message: the
		// bytes that belong to it are lost. The client sees its connection end.
		r.counters.LostClosed.Add(1)
		r.cut(slot)
	}
}

// answerLost answers 502 for a request whose worker died, with its id.
func (r *returnsLoop) answerLost(slot uint32) {
	g := r.dispatch.ledger
	e := &g.entries[slot]
	k := r.call
	k.parseKept(nil)
	c := r.newConn(int(e.fd.Swap(-1)), e.peer)
	k.req.KeepAlive = false
	k.begin(&r.loop, c)
	// What a worker wrote may be anything.
	var id [ipc.RequestIDBytesMax]byte
	s := r.board.Conn(slot)
	if id := s.AppendRequestID(id[:0]); httpparse.ValidRequestID(id) {
		k.idLen = copy(k.id[:], id)
	}
	if s.RequestIsHead() {
		k.req.Method = methodHead
	}
	g.release(slot)
	c.closing, c.lingering = true, true
	p := k.appendError(r.scratch.out[:0], 502, componentWorker, reasonWorkerLost,
		"the worker that ran this request ended before it answered", nil)
	r.scratch.out = p[:0]
	r.write(c, p, nil)
}

var methodHead = []byte("HEAD")

func (d *dispatcher) detachAll() {
	for id := range d.donors {
		d.detach(id)
	}
}

// closeWorkers closes the channels of workers that were never buried.
func (r *returnsLoop) closeWorkers() {
	for id := range r.workers {
		w := &r.workers[id]
		if !w.sock.Valid() {
			continue
		}
		if !w.gone {
			r.unwatch(w.sock.Borrow())
		}
		for i := range w.queue {
			w.queue[i].Close()
		}
		_ = w.sock.Close()
		*w = workerChannel{}
	}
	r.dispatch.detachAll()
}
