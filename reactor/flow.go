package reactor

import (
	"errors"
	"io"
	"sync"

	"baton/runtime"
)

const (
	// bodyBufferMax is the largest body that is gathered before its function
	// runs, in bytes. A larger one, or a chunked one of which so much has come
	// without its end, runs the function at once, and the rest streams to it.
	bodyBufferMax = 64 << 10

	// flowBytesMax bounds what waits in each direction between a function and the
	// loop: of a body, the loop stops reading the connection; of an answer, the
	// function's write waits.
	flowBytesMax = 256 << 10

	// streamBytesMin is how much of an answer is gathered before it streams. A
	// shorter answer goes out whole, with its length.
	streamBytesMin = 512 << 10

	// streamBytesMax bounds a streamed answer, in bytes: far above what a
	// function's timeout lets it write, and below what a count can hold. Beyond
	// it the function ends with output_limit and the connection is cut.
	streamBytesMax = 1 << 40
)

// flow is the door between a function that runs beside the loop and the loop:
// the rest of a large body one way, a large answer the other. The function's
// side blocks; the loop's side never does. Each direction holds flowBytesMax at
// most.
type flow struct {
	back *Back
	call *call

	mu    sync.Mutex
	moved sync.Cond // of mu: something changed that the function's side waits for

	// body[bodyAt:] has arrived and was not read; bodyEnd: nothing follows.
	// bodyFull: the loop has stopped reading and is to be told of room.
	body              []byte
	bodyAt            int
	bodyEnd, bodyFull bool

	// out was written and not yet taken by the loop. streaming: the answer goes
	// this way, from its first byte.
	out       []byte
	outTotal  int64
	streaming bool

	ended  error // both directions fail with it: the client is gone, or the worker stops
	kicked bool  // the call is in finishedCalls.kicks
}

var errClientLeft = errors.New("the client has left, or the worker stops")

// reset makes the flow ready for the next call of its struct.
func (f *flow) reset(b *Back, k *call) {
	f.mu.Lock()
	f.back, f.call = b, k
	f.moved.L = &f.mu
	f.body, f.bodyAt, f.bodyEnd, f.bodyFull = f.body[:0], 0, false, false
	f.out, f.outTotal, f.streaming, f.ended = nil, 0, false, nil
	f.mu.Unlock()
}

// release gives the loop's storage back. The function has ended.
func (f *flow) release(s *storage) {
	f.mu.Lock()
	s.give(f.body)
	s.give(f.out)
	f.body, f.out = nil, nil
	f.mu.Unlock()
}

// Read implements io.Reader for the function's side: the rest of the body.
func (f *flow) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.bodyAt == len(f.body) && !f.bodyEnd && f.ended == nil {
		f.moved.Wait()
	}
	switch {
	case f.ended != nil:
		return 0, f.ended
	case f.bodyAt == len(f.body):
		return 0, io.EOF
	}
	n := copy(p, f.body[f.bodyAt:])
	f.bodyAt += n
	if f.bodyAt == len(f.body) {
		f.body, f.bodyAt = f.body[:0], 0
	}
	if f.bodyFull && len(f.body)-f.bodyAt <= flowBytesMax/2 {
		f.bodyFull = false
		f.kick()
	}
	return n, nil
}

// put is the loop's side of Read: it appends p, for which room has said yes.
func (f *flow) put(p []byte) {
	f.mu.Lock()
	f.body = append(f.back.storage.grow(f.body, len(p)), p...)
	f.moved.Broadcast()
	f.mu.Unlock()
}

// room says how many bytes put may append now. At 0 the loop is kicked when
// there is room again.
func (f *flow) room() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bodyAt > 0 {
		f.body = f.body[:copy(f.body, f.body[f.bodyAt:])]
		f.bodyAt = 0
	}
	n := flowBytesMax - len(f.body)
	f.bodyFull = n <= 0
	return max(n, 0)
}

// endBody says that the body has arrived whole.
func (f *flow) endBody() {
	f.mu.Lock()
	f.bodyEnd = true
	f.moved.Broadcast()
	f.mu.Unlock()
}

// end makes both directions fail, also for who waits in them.
func (f *flow) end(err error) {
	f.mu.Lock()
	if f.ended == nil {
		f.ended = err
		f.moved.Broadcast()
	}
	f.mu.Unlock()
}

// write is the function's side of an answer that streams.
func (f *flow) write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writeHeld(p)
}

// stream begins an answer that streams with what was gathered of it, which is
// the flow's from here on, and p behind that. What the loop sees first is both,
// as far as there is room: enough to tell whether it starts with a header block.
func (f *flow) stream(gathered, p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.streaming = true
	f.out = gathered
	f.outTotal = int64(len(gathered))
	return f.writeHeld(p)
}

// writeHeld is write with f.mu held.
func (f *flow) writeHeld(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		for len(f.out) >= flowBytesMax && f.ended == nil {
			f.kick()
			f.moved.Wait()
		}
		switch {
		case f.ended != nil:
			return written, f.ended
		case f.outTotal >= streamBytesMax:
			return written, runtime.ErrOutputLimit
		}
		n := min(len(p), flowBytesMax-len(f.out))
		f.out = append(f.back.storage.grow(f.out, n), p[:n]...)
		f.outTotal += int64(n)
		written += n
		p = p[n:]
		f.kick()
	}
	return written, nil
}

// take is the loop's side of write: what is there, which is the caller's until
// it gives it back as spare.
func (f *flow) take(spare []byte) []byte {
	f.mu.Lock()
	p := f.out
	f.out = spare[:0]
	f.moved.Broadcast()
	f.mu.Unlock()
	return p
}

// takeStreamed is take for the first piece; nil when the answer does not
// stream.
func (f *flow) takeStreamed() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.streaming {
		return nil
	}
	p := f.out
	f.out = nil
	f.moved.Broadcast()
	return p
}

// kickAgain is kick for the loop's side.
func (f *flow) kickAgain() {
	f.mu.Lock()
	f.kick()
	f.mu.Unlock()
}

// untake ends the streaming of an answer of which nothing was sent, and
// returns all of it; ok is false when it does not stream.
func (f *flow) untake() (p []byte, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ok = f.streaming
	p = f.out
	f.out, f.streaming = nil, false
	return p, ok
}

// kick has the loop look at the call. f.mu is held.
func (f *flow) kick() {
	if !f.kicked {
		f.kicked = f.back.kick(f.call)
	}
}

// seen says that the loop looks at the call now.
func (f *flow) seen() {
	f.mu.Lock()
	f.kicked = false
	f.mu.Unlock()
}
