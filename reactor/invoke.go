package reactor

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"baton/httpparse"
	"baton/internal/sys"
	"baton/ipc"
	"baton/route"
	"baton/runtime"
)

const (
	// headRoom is kept free before a response's body, so that its head can be
	// put right before it and both go out with one write(2).
	headRoom = 768

	// scratchesFreeMax bounds the scratches kept for promotions.
	scratchesFreeMax = 4

	// loadAgain is how long a function that could not be loaded is answered for
	// without trying again, so that its requests cost neither work nor log.
	loadAgain = time.Second

	// heartbeatRequests is after how many requests the heart beats beside the tick:
	// at most this many slices on the loop, some 64 ms.
	heartbeatRequests = 64

	// bodyGrowBytes is the room that a body which has not come begins with.
	bodyGrowBytes = 4 << 10

	// bodyReadMax bounds what one event reads of one body, so that a fast
	// upload cannot hold the loop.
	bodyReadMax = 256 << 10
)

// run is the part of a call that a worker needs to run its function.
type run struct {
	inv      runtime.Invocation
	result   runtime.Result
	function *function
	log      logWriter
	started  int64 // loop clock
	env      environ
	out      output
	body     []byte // a chunked body, decoded
	chunks   httpparse.Chunks
	cancelIt atomic.Bool
	flow     flow
	flowNew  bool             // the flow is as reset left it: the call never left the loop
	broken   httpparse.Reason // what is wrong with a body that streams
	badHead  httpparse.CGIReason
	over     bool // the function of a streamed answer has ended
	ending   bool // … and its last bytes are on the way
	framing  framing
	spare    []byte // storage for the flow
	headLen  int
	cgi      httpparse.CGIHead // of the output
	promote  func()
	beside   func()               // the goroutine of an invocation beside the loop
	done     func(runtime.Result) // the end of one without a goroutine
	promoted *scratch             // the scratch that the request's bytes lie in
}

// cancel ends the function soon, also one that waits for bytes or for room.
func (r *run) cancel() {
	r.cancelIt.Store(true)
	r.flow.end(errClientLeft)
}

// output gathers a response behind headRoom bytes of space for its head, and
// streams it once it is longer than streamBytesMin. It is the function's side's
// until the function has ended.
type output struct {
	buf     []byte
	small   []byte // that buf was, before it came from the loop's storage
	call    *call
	streams bool
}

// Write implements io.Writer for the function's stdout.
func (o *output) Write(p []byte) (int, error) {
	if o.streams {
		return o.call.run.flow.write(p)
	}
	if len(o.buf)+len(p) > headRoom+streamBytesMin {
		return o.writeLarge(p)
	}
	o.append(p)
	return len(p), nil
}

// append keeps the first buffer, which is small and the call's own, aside as soon as it needs a large one.
func (o *output) append(p []byte) {
	s := &o.call.loop.storage
	switch need := len(o.buf) + len(p); {
	case need <= cap(o.buf) || need <= storageMin:
	case o.small == nil:
		o.small = o.buf
		o.buf = append(s.take(need), o.small...)
	default:
		o.buf = s.grow(o.buf, len(p))
	}
	o.buf = append(o.buf, p...)
}

// writeLarge begins to stream. On the loop's goroutine it waits for nobody: the
// function is promoted first.
func (o *output) writeLarge(p []byte) (int, error) {
	inv := &o.call.run.inv
	if promote := inv.Promote; promote != nil {
		inv.Promote = nil
		promote()
	}
	o.streams = true
	gathered := o.buf[headRoom:]
	o.buf, o.small = o.small, nil
	return o.call.run.flow.stream(gathered, p)
}

func (o *output) reset(k *call) {
	o.call, o.streams = k, false
	if cap(o.buf) == 0 {
		o.buf = make([]byte, headRoom, headRoom+2048)
	}
	o.buf = o.buf[:headRoom]
}

// release gives storage of the loop back. The answer is over.
func (o *output) release(s *storage) {
	if o.small != nil {
		s.give(o.buf)
		o.buf, o.small = o.small, nil
	}
}

func (o *output) body() []byte { return o.buf[headRoom:] }

// start admits a request and runs its function: at once when its body is all
// here, in the loop's scratch behind the head of n bytes, or when it has come.
func (b *Back) start(c *conn, k *call, p []byte, n int) (int, step) {
	if b.running >= runningMax {
		b.counters.TooBusy.Add(1)
		k.answer = answer{status: 503, reason: reasonCapacity, text: "this worker runs as many requests as it may", retry: true}
		return b.reply(c, k, p, n)
	}
	if !k.req.Chunked {
		length := max(k.req.ContentLength, 0)
		if int64(len(p)-n) >= length {
			return b.launch(c, k, p, n, n+int(length))
		}
		if length > bodyBufferMax {
			return b.launchStream(c, k, p, n)
		}
	}
	s := b.startBody(c, k, p, n)
	if s != stepNext {
		return 0, s
	}
	// A chunked body that was here whole, and its request was answered without
	// the function.
	left := len(c.in) - c.used
	b.drop(c)
	return len(p) - left, s
}

// startBody keeps what is here of a request whose body is not, or is chunked.
func (b *Back) startBody(c *conn, k *call, p []byte, n int) step {
	b.call = b.takeCall()
	c.call = k
	c.phase = phaseBody
	expect := k.req.ExpectContinue
	if k.req.Chunked {
		c.bodyNeed = 0
		b.keep(c, p[:n])
		k.run.body, k.run.chunks = nil, httpparse.Chunks{}
	} else {
		c.bodyNeed = n + int(k.req.ContentLength)
		c.in = append(make([]byte, 0, min(c.bodyNeed, len(p)+bodyGrowBytes)), p...)
	}
	k.run.headLen = n
	k.reparse(c.in[:n])
	if k.req.Chunked {
		if s, done := b.decodeBody(c, k, p[n:]); done {
			return s
		}
	}
	if expect && !b.sayContinue(c) {
		c.call = nil
		b.putCall(k)
		b.end(c)
		return stepWait
	}
	c.reading.begin(int64(b.timer.Body), b.now)
	b.setPace(c)
	_ = b.rearm(c)
	return stepWait
}

// sayContinue asks for the body. False: the client is gone. A full socket
// buffer has room enough for nothing, and its client waits a while and sends.
func (b *Back) sayContinue(c *conn) bool {
	n, errno := sys.Write(c.fd, continueAnswer)
	return errno == syscall.EAGAIN || errno == 0 && n == len(continueAnswer)
}

var continueAnswer = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// reparse makes k's views point into p, which holds the same head at a place
// where it stays.
func (k *call) reparse(p []byte) {
	if o, _, _ := httpparse.ParseHead(&k.req, p); o != httpparse.Complete {
		panic("reactor: a head parsed differently the second time")
	}
	k.rematch()
}

// onBodyRead reads on in a body.
func (b *Back) onBodyRead(c *conn) error {
	if c.bodyOpen {
		b.readFlow(c)
		return nil
	}
	k := c.call
	read := 0
	for read < bodyReadMax {
		to := b.scratch.in
		if c.bodyNeed > 0 {
			if len(c.in) == cap(c.in) {
				// A client gets the room that it fills, not what it announces. The
				// head's views stay with the old storage.
				c.in = append(make([]byte, 0, min(c.bodyNeed, 2*len(c.in))), c.in...)
			}
			to = c.in[len(c.in):min(cap(c.in), c.bodyNeed)]
		}
		n, errno := sys.Read(c.fd, to)
		if errno == syscall.EAGAIN {
			break
		}
		if errno != 0 || n == 0 {
			// The client left in the middle of its request.
			c.call = nil
			b.putCall(k)
			b.end(c)
			return nil
		}
		read += n
		s, done := stepWait, false
		if c.bodyNeed > 0 {
			c.in = c.in[:len(c.in)+n]
			if len(c.in) == c.bodyNeed {
				s, done = b.launchKept(c, k, c.bodyNeed), true
			}
		} else {
			s, done = b.decodeBody(c, k, to[:n])
		}
		if done {
			return b.proceed(c, s)
		}
	}
	b.bodyMoved(c, read)
	return nil
}

// proceed goes on with a connection after a request whose bytes were kept.
func (b *Back) proceed(c *conn, s step) error {
	switch s {
	case stepLeave:
		return errLeave
	case stepWait:
		return nil
	}
	in := b.scratch.in[:copy(b.scratch.in, c.in[c.used:])]
	c.in, c.used = c.in[:0], 0
	return b.process(c, in)
}

// decodeBody takes p, the next bytes of a chunked body. done: the request left
// phaseBody, with step s.
func (b *Back) decodeBody(c *conn, k *call, p []byte) (s step, done bool) {
	for len(p) > 0 {
		data, n, o, why := k.run.chunks.Next(p)
		if k.run.chunks.Declared() > k.fn.MaxBody {
			o, why = httpparse.Invalid, httpparse.ReasonBodyTooLarge
		}
		if o == httpparse.Invalid {
			c.call = nil
			b.refuse(c, k, why)
			b.putCall(k)
			return stepWait, true
		}
		k.run.body = append(k.run.body, data...)
		p = p[n:]
		switch {
		case o == httpparse.Complete:
			c.in = append(c.in[:k.run.headLen], p...)
			k.reparse(c.in[:k.run.headLen])
			return b.launchKept(c, k, k.run.headLen), true
		case len(k.run.body) > bodyBufferMax:
			return b.launchDecoded(c, k, p), true
		case n == 0:
			return stepWait, false
		}
	}
	return stepWait, false
}

// launchKept runs a request whose bytes lie in c.in, end of them.
func (b *Back) launchKept(c *conn, k *call, end int) step {
	c.call = nil
	c.phase = phaseHead
	c.reading = pace{}
	c.used = end
	// The table may have changed while the body came.
	v := b.decide(k)
	if v != verdictRun && v != verdictAnswer {
		v = b.decideNotFound(k)
	}
	s, ok := stepNext, false
	if v == verdictRun {
		s, ok = b.admit(c, k)
	}
	if !ok {
		s = b.replyTo(c, k, c.in[end:])
		b.putCall(k)
		return s
	}
	body := k.run.body
	if !k.req.Chunked {
		body = c.in[k.run.headLen:end]
	}
	b.hold(k)
	b.runBeside(c, k, body)
	return s
}

// admit enters the request into the limits and makes it visible on the board.
// False: k.answer says why not.
func (b *Back) admit(c *conn, k *call) (step, bool) {
	if !b.board.Enter(b.cfg.Worker, k.fn.Cell, k.fn.MaxInflight) {
		b.decideTooBusy(k)
		return stepNext, false
	}
	k.begin(&b.loop, c)
	k.run.started = b.now
	b.board.Conn(c.slot).SetRequest(k.id[:k.idLen], len(k.req.Method) == len("HEAD") && string(k.req.Method) == "HEAD")
	b.setState(c, ipc.Running)
	b.self.AddInflight(1)
	b.running++
	return stepWait, true
}

// launch runs a request that lies in the loop's scratch whole: p[:n] is its
// head, p[n:end] its body. A short function runs right here; its answer is
// written before launch returns. Others run beside the loop.
func (b *Back) launch(c *conn, k *call, p []byte, n, end int) (int, step) {
	if _, ok := b.admit(c, k); !ok {
		return b.reply(c, k, p, n)
	}
	f := b.hold(k)
	if f.loaded == nil || b.noInline || !f.loaded.Inline() {
		b.call = b.takeCall()
		b.keep(c, p)
		c.used = end
		k.reparse(c.in[:n])
		b.runBeside(c, k, c.in[n:end])
		return 0, stepWait
	}
	r := &k.run
	b.prepare(k, p[n:end])
	r.inv.Promote = r.promoteFunc(b, c, k, p[end:])
	r.result = f.loaded.Invoke(&r.inv)
	if r.promoted != nil {
		b.finish(k)
		return 0, stepLeave
	}
	b.leave(k)
	s := b.respond(c, k, p[end:])
	return end, s
}

// prepare fills k's invocation.
func (b *Back) prepare(k *call, body []byte) {
	r := &k.run
	r.out.reset(k)
	if !r.flowNew {
		r.flow.reset(b, k)
		r.flowNew = true
	}
	r.cancelIt.Store(false)
	r.promoted = nil
	r.over, r.ending, r.broken, r.badHead, r.spare = false, false, 0, 0, nil
	size := int64(len(body))
	if k.conn.bodyOpen {
		size = k.req.ContentLength
	}
	r.env.begin(k, size)
	r.result = runtime.Result{}
	inv := &r.inv
	inv.RequestID = k.id[:k.idLen]
	inv.Body, inv.More = body, nil
	inv.Env = &r.env
	inv.Stdout = &r.out
	r.log = logWriter{b, k, r.log.part[:0]}
	inv.Stderr = &r.log
	inv.Deadline = time.Time{}
	inv.Cancel = &r.cancelIt
	inv.Promote = nil
}

// promoteFunc returns what an executor calls when the function that it runs on
// the loop's goroutine has used its slice: another goroutine becomes the loop.
// One closure per call struct; the arguments of the moment lie in the call.
func (r *run) promoteFunc(b *Back, c *conn, k *call, rest []byte) func() {
	k.promoteConn, k.promoteRest = c, rest
	if r.promote == nil {
		r.promote = func() { b.promote(k) }
	}
	return r.promote
}

// promote runs on the loop's goroutine, inside a function's check. When it
// returns, this goroutine owns the call and its scratch, and nothing else.
func (b *Back) promote(k *call) {
	if k.run.promoted != nil {
		return // by the executor, and by its output
	}
	b.counters.Promoted.Add(1)
	b.sendHeld()
	k.run.flowNew = false
	c := k.promoteConn
	c.in = nil
	b.keep(c, k.promoteRest)
	c.used = 0
	c.phase = phaseRun
	c.call = k
	b.call = b.takeCall()
	k.run.promoted = b.scratch
	if n := len(b.scratches); n > 0 {
		b.scratch = b.scratches[n-1]
		b.scratches = b.scratches[:n-1]
	} else {
		b.scratch = newScratch()
	}
	c.deadline = 0
	_ = b.rearm(c)
	b.announceAgain()
	go b.run()
}

// runBeside runs a call on a goroutine of its own. Its request's bytes lie in
// c.in and stay there.
func (b *Back) runBeside(c *conn, k *call, body []byte) {
	c.phase = phaseRun
	c.call = k
	c.reading, c.writing = pace{}, pace{}
	c.deadline = 0
	if c.halfClosed {
		b.wheel.set(c, b.after(b.timer.Probe), b.now)
	}
	f := k.run.function
	b.prepare(k, body)
	k.run.flowNew = false
	if c.bodyOpen {
		k.run.inv.More = &k.run.flow
	}
	// A client that hangs up is noticed while the function runs.
	if !c.armed {
		b.watchFor(c, true, false)
	}
	switch {
	case f.loaded != nil:
		b.spawn(k)
	case f.failed != nil && b.now < f.again:
		k.run.result = runtime.Result{Reason: loadReason(f.failed), Detail: f.failed.Error()}
		b.finish(k)
	default:
		f.waiting = append(f.waiting, k)
		b.load(f)
	}
}

func (b *Back) spawn(k *call) {
	b.loading.Add(1)
	if starter, ok := k.run.function.loaded.(runtime.Starter); ok {
		if k.run.done == nil {
			k.run.done = func(r runtime.Result) {
				k.run.result = r
				b.finish(k) // k is the loop's then
				b.loading.Done()
			}
		}
		starter.Start(&k.run.inv, k.run.done)
		return
	}
	if k.run.beside == nil {
		k.run.beside = func() { k.runBeside(b) }
	}
	go k.run.beside()
}

// runBeside is the goroutine of one invocation. Run waits for it.
func (k *call) runBeside(b *Back) {
	defer b.loading.Done()
	k.run.result = k.run.function.loaded.Invoke(&k.run.inv)
	b.finish(k)
}

// finish hands a call that ran beside the loop back to it. Once the loop has
// stopped, the call is dropped: its connection is closed already.
func (b *Back) finish(k *call) {
	f := &b.finished
	f.mu.Lock()
	if !f.closed {
		f.calls = append(f.calls, k)
		if len(f.calls) == 1 {
			// Under the lock: the descriptor is closed only after f is.
			sys.EventfdSignal(b.wakefd)
		}
	}
	f.mu.Unlock()
}

// finishAll answers the calls that came back.
func (b *Back) finishAll() {
	f := &b.finished
	f.mu.Lock()
	calls := f.calls
	f.calls = f.spare[:0]
	kicks := f.kicks
	f.kicks = f.spareKicks[:0]
	f.mu.Unlock()
	for i, k := range kicks {
		kicks[i] = nil
		b.onKick(k)
	}
	for i, k := range calls {
		calls[i] = nil
		b.finishOne(k)
	}
	f.mu.Lock()
	f.spare, f.spareKicks = calls[:0], kicks[:0]
	f.mu.Unlock()
}

// kick has the loop look at a call that runs beside it. False: the loop has
// stopped.
func (b *Back) kick(k *call) bool {
	f := &b.finished
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.kicks = append(f.kicks, k)
	if len(f.kicks) == 1 {
		sys.EventfdSignal(b.wakefd)
	}
	return true
}

func (b *Back) finishOne(k *call) {
	c := k.conn
	b.leave(k)
	if s := k.run.promoted; s != nil {
		k.run.promoted = nil
		if len(b.scratches) < scratchesFreeMax {
			b.scratches = append(b.scratches, s)
		}
	}
	if c.hungUp {
		c.call = nil
		b.putCall(k)
		b.end(c)
		b.stopWhenEmpty()
		return
	}
	if c.phase == phaseStream {
		b.finishStream(c, k)
		return
	}
	c.call = nil
	c.phase = phaseHead
	if p, ok := k.run.flow.untake(); ok {
		// It ended before the loop came to send anything.
		k.run.out.reset(k)
		k.run.out.append(p)
	}
	b.closeBody(c)
	s := b.respond(c, k, c.in[c.used:])
	b.putCall(k)
	b.proceedLater(c, s)
}

// proceedLater goes on with a connection where nothing may be promoted: what
// comes next may want to be, and more than this event depends on this
// goroutine.
func (b *Back) proceedLater(c *conn, s step) {
	inline := b.noInline
	b.noInline = true
	if err := b.proceed(c, s); err != nil {
		panic("reactor: promoted where nothing may be")
	}
	b.noInline = inline
	if b.draining {
		b.stopWhenEmpty()
	}
}

// leave takes the request out of the limits.
func (b *Back) leave(k *call) {
	failed := k.run.result.Reason != runtime.OK
	b.logEnd(k)
	b.board.Leave(b.cfg.Worker, k.fn.Cell)
	cell := b.board.Cell(b.cfg.Worker, k.fn.Cell)
	cell.AddRequests(1)
	cell.SetCalled(b.now / int64(time.Millisecond))
	b.self.AddInflight(-1)
	b.self.AddRequests(1)
	if failed {
		cell.AddErrors(1)
		b.self.AddErrors(1)
	}
	b.running--
	if b.replies++; b.replies%heartbeatRequests == 0 {
		// One batch of events can hold thousands of pipelined requests, and the
		// tick is behind them: the loop turns all the same.
		b.self.SetHeartbeat(sys.ClockMonotonic() / int64(time.Millisecond))
	}
	b.unhold(k)
}

// function returns the version of f's cell that new requests run.
func (b *Back) function(f *route.Function) *function {
	have := b.place(f.Cell)
	if *have == nil {
		*have = &function{route: f}
	}
	return *have
}

// place is where the version of a cell is kept, until the next call.
func (b *Back) place(cell uint32) **function {
	for int(cell) >= len(b.functions) {
		b.functions = append(b.functions, make([]*function, max(64, len(b.functions)))...)
	}
	return &b.functions[cell]
}

// hold ties k to the version of its function that it runs; unhold, when it is
// over, lets that version go.
func (b *Back) hold(k *call) *function {
	f := b.function(k.fn)
	f.users++
	k.run.function = f
	return f
}

func (b *Back) unhold(k *call) {
	f := k.run.function
	k.run.function = nil
	f.users--
	if f.retired && f.users == 0 && !f.loading {
		b.close(f)
	}
}

// forget retires the version of a cell whose route has changed. Requests that
// run on it finish on it.
func (b *Back) forget(cell uint32) {
	if int(cell) >= len(b.functions) {
		return
	}
	f := b.functions[cell]
	b.functions[cell] = nil
	if f == nil {
		return
	}
	f.retired = true
	if f.users == 0 && !f.loading {
		b.close(f)
	}
}

func (b *Back) close(f *function) {
	loaded := f.loaded
	f.loaded = nil
	if loaded != nil {
		b.loading.Go(func() {
			if err := loaded.Close(); err != nil {
				b.log.Warn("close a retired function", "function", f.route.Name, "err", err)
			}
		})
	}
}

// load makes f runnable, beside the loop, and then runs who waits for it.
func (b *Back) load(f *function) {
	if f.loading {
		return
	}
	f.loading = true
	b.loading.Go(func() {
		loaded, err := b.cfg.Load(b.ctx, f.route)
		if e := b.post(func() { b.onLoaded(f, loaded, err) }); e != nil && loaded != nil {
			_ = loaded.Close()
		}
	})
}

func (b *Back) onLoaded(f *function, loaded runtime.Loaded, err error) {
	f.loading = false
	f.loaded = loaded
	waiting := f.waiting
	f.waiting = nil
	f.failed = err
	if err != nil {
		f.again = b.now + int64(loadAgain)
		b.log.Error("function cannot be loaded", "function", f.route.Name, "err", err)
	}
	for _, k := range waiting {
		if err != nil {
			k.run.result = runtime.Result{Reason: loadReason(err), Detail: err.Error()}
			b.finishOne(k)
			continue
		}
		b.spawn(k)
	}
	if f.retired && f.users == 0 {
		b.close(f)
	}
	b.onLoadedFirst(f)
}

func loadReason(err error) runtime.Reason {
	if errors.Is(err, runtime.ErrNotPrepared) {
		return runtime.NotPrepared
	}
	return runtime.Unavailable
}

func (b *Back) beginPosted(c *conn) {
	inline := b.noInline
	b.noInline = true
	if err := b.begin(c); err != nil {
		panic(fmt.Sprintf("reactor: promoted where nothing may be: %v", err))
	}
	b.noInline = inline
}
