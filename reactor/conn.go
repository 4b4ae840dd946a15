package reactor

import (
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/httpparse"
	"baton/internal/sys"
	"baton/ipc"
)

// phase says what a connection waits for. Only its loop changes it.
type phase uint8

const (
	phaseHead   phase = iota // between two requests, or inside a head
	phaseBody                // the head is complete, the body is not
	phaseRun                 // a function runs beside the loop
	phaseStream              // an answer goes out while its function runs, or after it
	phaseHeld                // an answer is held until the end of the turn: see holdAnswer
	phaseWrite               // bytes of an answer are unsent
	phaseSkip                // answered before its body had come: the rest of it is passed over
	phaseLinger              // answered for the last time: what still arrives is discarded
	phaseGone                // ended or given away; the struct is about to be reused
)

const (
	// skipBytesMax bounds the body of a refused request that is passed over so
	// that the connection may stay: about what the client has sent already when
	// the answer reaches it. A request with a longer body ends its connection.
	skipBytesMax = 64 << 10

	// lingerBytesMax bounds what is read and thrown away after a refusal so that
	// the answer is not destroyed by a reset (RFC 9112 section 9.6). A client
	// that sends more than this after it was refused may lose the answer. Many
	// send their whole body before they look for an answer: three times the
	// default max_body. RATIONALE.md, "What becomes of the body of a request that
	// is answered without it?".
	lingerBytesMax = 32 << 20

	// lingerTimes bounds the time of that: so often Timeouts.Linger, which a client
	// that sends on renews.
	lingerTimes = 10

	// keepBytes is the capacity of the storage that a connection with unread bytes
	// has at first: nearly every head fits. buffersFreeMax bounds what one loop
	// keeps of it for reuse: 256 KiB.
	keepBytes      = 2 << 10
	buffersFreeMax = 128

	// turnRequestsMax bounds the requests of one connection that are handled in
	// one turn: one read(2) can bring more than a thousand. The rest waits for the
	// next turn, behind the other connections that are ready.
	turnRequestsMax = 16

	// connsFreeMax bounds the connection structs that a loop keeps for reuse.
	connsFreeMax = 1024
)

// step is how handling one request ended, as far as the connection goes.
type step uint8

const (
	stepNext  step = iota // answered: go on with the bytes behind it
	stepWait              // the connection waits for an event, or is no longer ours
	stepLeave             // this goroutine is no longer the loop: touch nothing, return errLeave
)

// conn is one client connection that this loop owns.
type conn struct {
	// Immutable while the loop owns it.
	fd   int
	peer sys.Peer

	// Loop-owned.
	slot, generation uint32 // of the board; in the gateway only once donated
	state            ipc.State
	phase            phase
	armed            bool // in the poller's set
	wantWrite        bool // … for writing too
	muted            bool // … edge-triggered, so that unread bytes do not spin
	closing          bool // ends after the current answer
	lingering        bool // … after a bounded drain, because more may arrive
	queued           bool // in loop.later: its next requests are here and have their turn to come
	over             bool // above FrontConfig.ConnsMax: only to be refused
	inHead           bool // the first bytes of a head are here, the last is not
	halfClosed       bool // the client has sent its FIN while its function runs
	hungUp           bool // the client is gone; an answer has no reader
	requests         uint32

	// in holds unread bytes between two events, nil when there are none. While
	// a call runs on it, its first used bytes are that call's request and must
	// not move. Invariant: used <= len(in).
	in   []byte
	used int

	// out[sent:] is what an answer still has to write.
	out  []byte
	sent int

	lingerEnd int64 // loop clock: after that nothing more is discarded
	skip      int64 // bytes of an answered request's body that are still to come
	discarded int
	call      *call // phaseBody, phaseRun, phaseStream
	bodyNeed  int   // phaseBody: len(in) at which the request is whole; 0: chunked
	bodyOpen  bool  // the rest of the body streams to its function
	bodyLeft  int64 // … so many bytes of it; -1: chunked

	reading, writing     pace  // how late the client is with a body, and with taking an answer
	unacked              int   // bytes of an answer that the client had not taken at the last look
	deadline             int64 // monotonic nanoseconds; 0: none
	wheelTick            int64
	wheelPrev, wheelNext *conn
	wheelIn              bool
	nextFree             *conn
}

// role is what the front and the back do differently with a connection.
type role interface {
	// onRequest handles one request: b holds its head of n bytes and whatever
	// arrived behind it, all in the loop's scratch. It returns how many bytes of
	// b are done with, which counts only with stepNext.
	onRequest(c *conn, k *call, b []byte, n int) (done int, s step)
	// onBodyRead handles readiness in phaseBody, or while bodyOpen.
	onBodyRead(c *conn) error
	// onStream handles an event in phaseStream.
	onStream(c *conn, mask netpoll.IOEvent) error
	// onUnwatched ends c, which cannot be watched.
	onUnwatched(c *conn)
	// setState stores the connection's state on the board before the act that
	// it names.
	setState(c *conn, s ipc.State)
	// onBoundary is called when c is idle between two requests, with no byte of
	// the next one read. False: c is no longer this loop's.
	onBoundary(c *conn) bool
	// onEnd is called after c's descriptor was closed.
	onEnd(c *conn)
	// onHangup is called when the client of a running call is gone.
	onHangup(c *conn)
	// onExpire is called when c's deadline passes in a phase of the role's own.
	onExpire(c *conn)
}

// onConn handles one readiness event of a connection.
func (l *loop) onConn(c *conn, mask netpoll.IOEvent) error {
	switch c.phase {
	case phaseHead:
		if c.queued {
			return nil // level-triggered: announced again
		}
		return l.readHead(c)
	case phaseBody:
		return l.role.onBodyRead(c)
	case phaseWrite:
		return l.flush(c)
	case phaseSkip:
		return l.readSkip(c)
	case phaseLinger:
		l.discard(c)
	case phaseRun:
		if c.bodyOpen && !netpoll.IsErrorEvent(mask, 0) {
			return l.role.onBodyRead(c)
		}
		l.onConnBusy(c, mask)
	case phaseStream:
		return l.role.onStream(c, mask)
	}
	return nil
}

// onConnBusy handles an event of a connection that is not to be read now. The
// next request's bytes stay in the kernel; edge-triggered they do not spin.
//
// A FIN is a half-close, whose client still gets its answer, or a full close:
// on the wire they look the same. What is sent to a client that has fully
// closed is answered with a reset; so after a while onExpire sends an interim
// response, and the reset, which arrives here, says that an answer has no
// reader.
func (l *loop) onConnBusy(c *conn, mask netpoll.IOEvent) {
	if netpoll.IsErrorEvent(mask, 0) {
		l.disarm(c)
		c.hungUp = true
		l.role.onHangup(c)
		return
	}
	if !l.watchFor(c, false, false) {
		return
	}
	if mask&syscall.EPOLLRDHUP != 0 && !c.halfClosed {
		c.halfClosed = true
		l.wheel.set(c, l.after(l.timer.Probe), l.now)
	}
}

// setMuted notes that c is watched edge-triggered, or is not.
func (l *loop) setMuted(c *conn, on bool) {
	if c.muted == on {
		return
	}
	c.muted = on
	if on {
		l.muted++
	} else {
		l.muted--
	}
}

// disarm takes c out of the poller's set.
func (l *loop) disarm(c *conn) {
	_ = l.poller.Delete(c.fd)
	l.setMuted(c, false)
	c.armed, c.wantWrite = false, false
}

// announceAgain has every edge that was announced already announced once more,
// and the connections resumed that wait for their turn. A goroutine that stops
// being the loop in the middle of a batch of events drops the rest of the batch,
// and an edge is not repeated by itself.
func (l *loop) announceAgain() {
	if len(l.later) > 0 {
		l.needTurn()
	}
	if l.muted == 0 {
		return
	}
	for _, c := range l.conns {
		if c == nil || !c.muted {
			continue
		}
		pa := &netpoll.PollAttachment{FD: c.fd}
		if c.wantWrite {
			_ = l.poller.ModReadWrite(pa, true)
		} else {
			_ = l.poller.ModRead(pa, true)
		}
	}
}

// readHead reads once and handles every request that is complete.
func (l *loop) readHead(c *conn) error {
	in := l.scratch.in
	kept := copy(in, c.in)
	if kept == len(in) {
		// The parser's own bound on a head is far below; see scratchBytes.
		panic("reactor: a head larger than the parser allows was kept")
	}
	l.role.setState(c, ipc.Reading)
	n, errno := sys.Read(c.fd, in[kept:])
	switch {
	case errno == syscall.EAGAIN:
		if kept == 0 {
			l.role.setState(c, ipc.Idle)
		}
		return l.rearm(c)
	case errno != 0 || n == 0:
		// The client is gone, or has half-closed with no request outstanding.
		l.end(c)
		return nil
	}
	c.in = c.in[:0]
	return l.process(c, in[:kept+n])
}

// process handles the requests in b, which lies in the loop's scratch, until
// one is incomplete or makes the connection wait, or the connection has had its
// turn.
func (l *loop) process(c *conn, b []byte) error {
	for handled := 0; len(b) > 0; handled++ {
		if handled == turnRequestsMax {
			l.processLater(c, b)
			return nil
		}
		k := l.call
		outcome, n, why := httpparse.ParseHead(&k.req, b)
		switch outcome {
		case httpparse.Incomplete:
			if !c.inHead {
				// The deadline counts from a head's first byte: one byte at a
				// time does not move it.
				c.inHead = true
				l.wheel.set(c, l.after(l.timer.Head), l.now)
			}
			l.keep(c, b)
			return l.rearm(c)
		case httpparse.Invalid:
			l.refuse(c, k, why)
			return nil
		}
		c.inHead = false
		c.requests++
		done, s := l.role.onRequest(c, k, b, n)
		switch s {
		case stepWait:
			return nil
		case stepLeave:
			return errLeave
		}
		b = b[done:]
	}
	return l.idle(c)
}

// idle has a connection wait for its next request.
func (l *loop) idle(c *conn) error {
	l.drop(c)
	c.phase = phaseHead
	l.role.setState(c, ipc.Idle)
	l.wheel.set(c, l.after(l.timer.KeepAlive), l.now)
	if !l.role.onBoundary(c) {
		return nil
	}
	return l.rearm(c)
}

// processLater keeps b, which begins with a request, for the next turn.
func (l *loop) processLater(c *conn, b []byte) {
	l.keep(c, b)
	c.phase = phaseHead
	c.deadline = 0 // we are late, not the client
	l.role.setState(c, ipc.Reading)
	c.queued = true
	l.later = append(l.later, c)
	l.needTurn()
}

// resume has the connections go on that have waited for this turn. It is the
// last thing of a turn: a function may be promoted, and then the rest is the
// next goroutine's.
func (l *loop) resume() error {
	for range len(l.later) {
		if len(l.later) == 0 {
			break // ended meanwhile
		}
		c := l.later[0]
		l.later = l.later[:copy(l.later, l.later[1:])]
		c.queued = false
		b := l.scratch.in[:copy(l.scratch.in, c.in)]
		c.in = c.in[:0]
		if err := l.process(c, b); err != nil {
			return err
		}
	}
	return nil
}

// rearm announces c again when it is readable.
func (l *loop) rearm(c *conn) error {
	l.watchFor(c, true, false)
	return nil
}

// watchFor sets what c is watched for; a hang-up is always announced. Without
// read the bytes that arrive stay in the kernel: edge-triggered they do not
// spin. A connection that cannot be watched is ended: it would hang. False: it
// was.
func (l *loop) watchFor(c *conn, read, write bool) bool {
	if c.armed && c.muted == !read && c.wantWrite == write {
		return true
	}
	pa := &netpoll.PollAttachment{FD: c.fd}
	var err error
	switch {
	case c.armed && write:
		err = l.poller.ModReadWrite(pa, !read)
	case c.armed:
		err = l.poller.ModRead(pa, !read)
	case write:
		err = l.poller.AddReadWrite(pa, !read)
	default:
		err = l.poller.AddRead(pa, !read)
	}
	if err != nil {
		l.log.Error("a connection cannot be watched", "loop", l.name, "err", err)
		l.role.onUnwatched(c)
		return false
	}
	c.armed, c.wantWrite = true, write
	l.setMuted(c, !read)
	return true
}

// keep stores b, which may lie in the scratch or in c.in itself, as c's unread
// bytes.
func (l *loop) keep(c *conn, b []byte) {
	if n := len(l.buffers); n > 0 && cap(c.in) == 0 && len(b) <= keepBytes {
		c.in = l.buffers[n-1]
		l.buffers = l.buffers[:n-1]
	} else if cap(c.in) == 0 && len(b) <= keepBytes {
		c.in = make([]byte, 0, keepBytes)
	}
	c.in = append(c.in[:0], b...)
}

// drop gives c's storage for unread bytes back: an idle connection has none.
func (l *loop) drop(c *conn) {
	if cap(c.in) == keepBytes && len(l.buffers) < buffersFreeMax {
		l.buffers = append(l.buffers, c.in[:0])
	} else {
		l.storage.give(c.in)
	}
	c.in, c.used = nil, 0
}

// write sends p, and keeps what the kernel does not take. rest, which may lie
// in the scratch, is what arrived behind the answered request. The answer's
// last byte decides what happens next: see answered.
func (l *loop) write(c *conn, p, rest []byte) step {
	l.role.setState(c, ipc.Responding)
	if len(rest) > 0 && c.closing {
		c.lingering = true // the client sends on
	}
	n, errno := sys.Write(c.fd, p)
	if errno == syscall.EAGAIN {
		n, errno = 0, 0
	}
	if errno != 0 {
		l.end(c)
		return stepWait
	}
	if n == len(p) {
		return l.answered(c)
	}
	c.out = append(l.storage.grow(c.out[:0], len(p)-n), p[n:]...)
	c.sent = 0
	c.used = 0
	if len(rest) > 0 {
		l.keep(c, rest)
	} else {
		l.drop(c)
	}
	c.phase = phaseWrite
	c.reading = pace{}
	c.writing = pace{left: int64(l.timer.Write)}
	l.answerWaits(c, 0)
	l.watchFor(c, false, true)
	return stepWait
}

// flush goes on with an answer that did not fit the socket's buffer.
func (l *loop) flush(c *conn) error {
	before := c.sent
	for c.sent < len(c.out) {
		n, errno := sys.Write(c.fd, c.out[c.sent:])
		if errno == syscall.EAGAIN {
			l.answerWaits(c, c.sent-before)
			return nil
		}
		if errno != 0 {
			l.end(c)
			return nil
		}
		c.sent += n
	}
	l.storage.give(c.out)
	c.out, c.sent = nil, 0
	c.writing = pace{}
	if l.answered(c) != stepNext {
		return nil
	}
	c.phase = phaseHead
	b := l.scratch.in[:copy(l.scratch.in, c.in)]
	c.in = c.in[:0]
	return l.process(c, b)
}

// answered decides what follows an answer that is wholly written.
func (l *loop) answered(c *conn) step {
	if !c.closing {
		if c.skip == 0 {
			return stepNext
		}
		c.phase = phaseSkip
		c.reading.begin(int64(l.timer.Body), l.now)
		l.setPace(c)
		_ = l.rearm(c)
		return stepWait
	}
	// In the poller's set it has waited for something meanwhile, and the client
	// may have sent on: closing with that unread resets the answer on its way.
	if c.lingering || c.skip > 0 || c.armed && sys.Unread(c.fd) > 0 {
		l.linger(c)
	} else {
		l.end(c)
	}
	return stepWait
}

// readSkip passes over the rest of a body that nobody wants.
func (l *loop) readSkip(c *conn) error {
	n, errno := sys.Read(c.fd, l.scratch.in)
	switch {
	case errno == syscall.EAGAIN:
		return nil
	case errno != 0 || n == 0:
		l.end(c)
		return nil
	}
	passed := min(int64(n), c.skip)
	c.skip -= passed
	if c.skip > 0 {
		l.bodyMoved(c, n)
		return nil
	}
	c.reading = pace{}
	c.phase = phaseHead
	return l.process(c, l.scratch.in[passed:n])
}

// refuse answers a request that the parser or a policy does not let through,
// and ends the connection: where the next request would begin is unknown.
func (l *loop) refuse(c *conn, k *call, why httpparse.Reason) {
	k.begin(l, c)
	l.refuseBegun(c, k, why)
}

// refuseBegun is refuse for a request that has its id.
func (l *loop) refuseBegun(c *conn, k *call, why httpparse.Reason) {
	l.counters.Refused[why].Add(1)
	c.closing, c.lingering = true, true
	p := k.appendError(l.scratch.out[:0], why.Status(), componentGateway, why.String(), why.Text(), nil)
	l.scratch.out = p[:0]
	l.write(c, p, nil)
}

// linger ends the sending side and discards what the client still sends, so
// that the answer is not destroyed by a reset on its way.
func (l *loop) linger(c *conn) {
	if sys.Shutdown(c.fd, syscall.SHUT_WR) != nil {
		l.end(c)
		return
	}
	c.phase = phaseLinger
	l.drop(c)
	l.storage.give(c.out)
	c.out = nil
	c.discarded = 0
	c.lingerEnd = l.now + lingerTimes*int64(l.timer.Linger)
	l.wheel.set(c, l.after(l.timer.Linger), l.now)
	_ = l.rearm(c)
	if c.phase == phaseLinger {
		l.discard(c)
	}
}

func (l *loop) discard(c *conn) {
	for read := 0; c.discarded < lingerBytesMax; {
		n, errno := sys.Read(c.fd, l.scratch.in)
		if errno == 0 && n > 0 {
			c.discarded += n
			if read += n; read < bodyReadMax {
				continue
			}
		} else if errno != syscall.EAGAIN {
			break
		}
		if read > 0 {
			l.wheel.set(c, min(l.after(l.timer.Linger), c.lingerEnd), l.now)
		}
		return // announced again, behind the others
	}
	l.end(c)
}

// end closes c. The order matters while another process holds a duplicate of
// the descriptor: it would keep the epoll registration and the TCP connection
// alive. So: out of the poller, shutdown(2), close(2), report.
func (l *loop) end(c *conn) {
	if c.phase == phaseGone {
		panic("reactor: connection ended twice")
	}
	l.unregister(c)
	_ = sys.Shutdown(c.fd, syscall.SHUT_RDWR)
	l.role.setState(c, ipc.Ended)
	sys.CloseRaw(c.fd)
	l.role.onEnd(c)
	l.release(c)
}

// newConn returns a connection struct for fd, owned by this loop.
func (l *loop) newConn(fd int, peer sys.Peer) *conn {
	c := l.free
	if c != nil {
		l.free = c.nextFree
		l.freeCount--
		*c = conn{}
	} else {
		c = new(conn)
	}
	c.fd, c.peer = fd, peer
	l.register(c)
	return c
}

// release makes the struct of a connection that is no longer ours reusable.
func (l *loop) release(c *conn) {
	c.phase = phaseGone
	l.drop(c)
	l.storage.give(c.out)
	c.out, c.call = nil, nil
	if l.freeCount < connsFreeMax {
		c.nextFree = l.free
		l.free = c
		l.freeCount++
	}
}

// onDeadline is called by the wheel.
func (l *loop) onDeadline(c *conn) {
	switch c.phase {
	case phaseHead:
		if len(c.in) == 0 || string(c.in) == "\r\n" {
			// Nothing, or what old clients send behind a body: no request.
			l.endIdle(c)
			return
		}
		// What the call held is another request's.
		_, _, _ = httpparse.ParseHead(&l.call.req, c.in)
		l.refuse(c, l.call, httpparse.ReasonHeadTimeout)
	case phaseWrite:
		if l.answerWaits(c, 0); !c.writing.late(l.now) {
			return // it has taken some, and the kernel has not said so
		}
		l.counters.WriteTimeouts.Add(1)
		l.end(c)
	case phaseSkip:
		l.counters.BodyTimeouts.Add(1)
		l.end(c) // it was answered
	case phaseLinger:
		l.end(c)
	default:
		l.role.onExpire(c)
	}
}

// endIdle ends a connection that was idle for too long, unless a request has
// arrived this moment: then its event is on the way, and the next tick looks
// again. It is not read here, because a function cannot be promoted from here.
func (l *loop) endIdle(c *conn) {
	if ready, err := sys.Poll(c.fd, sys.PollIn, 0); err == nil && ready == sys.PollIn {
		l.wheel.set(c, l.after(tickInterval), l.now)
		return
	}
	l.counters.IdleClosed.Add(1)
	l.end(c)
}

func (l *loop) after(d time.Duration) int64 { return l.now + int64(d) }
