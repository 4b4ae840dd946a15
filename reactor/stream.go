package reactor

import (
	"strconv"
	"syscall"
	"unicode/utf8"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/httpparse"
	"baton/internal/jsontext"
	"baton/internal/sys"
	"baton/ipc"
	"baton/runtime"
)

// Large bodies and answers, which stream between the connection and a function
// that runs beside the loop: the loop's side of flow.

// streamTurnsMax bounds how often one event fills and empties a streamed
// answer's buffer, so that one fast reader cannot hold the loop.
const streamTurnsMax = 8

// framing is how a streamed answer goes out.
type framing struct {
	chunked bool // else the connection's end delimits it (HTTP/1.0)
	discard bool // an answer without body: HEAD, 204, 304
	wrapped bool // plain text, as a JSON string
	carry   [utf8.UTFMax]byte
	carried int // bytes of a character that the last piece has begun
}

// launchStream runs a request at once whose body is large and not all here:
// p[:n] is its head, behind it the begin of the body.
func (b *Back) launchStream(c *conn, k *call, p []byte, n int) (int, step) {
	expect := k.req.ExpectContinue
	if _, ok := b.admit(c, k); !ok {
		return b.reply(c, k, p, n)
	}
	b.hold(k)
	b.call = b.takeCall()
	c.in = append(b.storage.take(len(p)), p...)
	c.used = len(p)
	k.reparse(c.in[:n])
	k.run.headLen = n
	b.openBody(c, k, k.req.ContentLength-int64(len(p)-n), c.in[n:], expect)
	return 0, stepWait
}

// launchDecoded runs a request with a chunked body of which much has come and
// not the end. p is what has arrived of it and is not decoded.
func (b *Back) launchDecoded(c *conn, k *call, p []byte) step {
	c.call = nil
	c.phase = phaseHead
	c.reading = pace{}
	c.used = len(c.in)
	if _, ok := b.admit(c, k); !ok {
		c.closing, c.lingering = true, true
		s := b.replyTo(c, k, nil)
		b.putCall(k)
		return s
	}
	b.hold(k)
	b.openBody(c, k, -1, k.run.body, false)
	if len(p) > 0 && b.decodeFlow(c, k, p) {
		b.watchBody(c, k)
	}
	return stepWait
}

// openBody runs k beside the loop with body as the begin of its body, of which
// left bytes are still to come; -1: until the last chunk.
func (b *Back) openBody(c *conn, k *call, left int64, body []byte, expect bool) {
	c.bodyOpen, c.bodyLeft = true, left
	b.runBeside(c, k, body)
	c.reading.begin(int64(b.timer.Body), b.now)
	if expect && !b.sayContinue(c) {
		b.hangUp(c)
		return
	}
	b.watchBody(c, k)
}

// watchBody has c read when there is room for what comes, and only then.
func (b *Back) watchBody(c *conn, k *call) (room int) {
	if !c.bodyOpen || c.hungUp {
		return 0
	}
	room = k.run.flow.room()
	unsent := len(c.out) > c.sent
	if !b.watchFor(c, room > 0, unsent) {
		return 0
	}
	if room > 0 {
		c.reading.resume(b.now)
	} else {
		c.reading.pause(b.now) // the function's own limit counts
	}
	b.setPace(c)
	return room
}

// readFlow reads on in a body that streams.
func (b *Back) readFlow(c *conn) {
	k := c.call
	for read := 0; read < bodyReadMax && c.bodyOpen; {
		room := b.watchBody(c, k)
		if room == 0 {
			return
		}
		to := b.scratch.in[:min(room, len(b.scratch.in))]
		if c.bodyLeft >= 0 {
			to = to[:min(int64(len(to)), c.bodyLeft)]
		}
		n, errno := sys.Read(c.fd, to)
		if errno == syscall.EAGAIN {
			return
		}
		if errno != 0 || n == 0 {
			b.hangUp(c) // in the middle of its request
			return
		}
		read += n
		b.bodyMoved(c, n)
		if c.bodyLeft < 0 {
			if !b.decodeFlow(c, k, to[:n]) {
				return
			}
			continue
		}
		k.run.flow.put(to[:n])
		if c.bodyLeft -= int64(n); c.bodyLeft == 0 {
			b.endBody(c, k)
		}
	}
}

// decodeFlow passes on p, the next bytes of a chunked body. False: nothing more
// is to be read of it.
func (b *Back) decodeFlow(c *conn, k *call, p []byte) bool {
	for len(p) > 0 {
		data, n, o, why := k.run.chunks.Next(p)
		if k.run.chunks.Declared() > k.fn.MaxBody {
			o, why = httpparse.Invalid, httpparse.ReasonBodyTooLarge
		}
		if o == httpparse.Invalid {
			b.breakBody(c, why)
			return false
		}
		if len(data) > 0 {
			k.run.flow.put(data)
		}
		p = p[n:]
		if o == httpparse.Complete {
			c.in = append(c.in, p...)
			b.endBody(c, k)
			return false
		}
		if n == 0 {
			break
		}
	}
	return true
}

// endBody: the body has arrived whole. What comes now is the next request's.
func (b *Back) endBody(c *conn, k *call) {
	c.bodyOpen = false
	k.run.flow.endBody()
	c.reading = pace{}
	unsent := len(c.out) > c.sent
	if b.watchFor(c, !unsent, unsent) {
		b.setPace(c)
	}
}

// breakBody ends a body that breaks a rule, and its function. The answer says
// why, unless a part of another answer was sent.
func (b *Back) breakBody(c *conn, why httpparse.Reason) {
	k := c.call
	c.bodyOpen = false
	c.reading, c.writing = pace{}, pace{}
	c.deadline = 0
	k.run.broken = why
	k.run.cancel()
	b.watchFor(c, false, false)
}

// closeBody settles what becomes of a body that its function has not waited
// for: a short rest is passed over, a long one ends the connection.
func (b *Back) closeBody(c *conn) {
	if !c.bodyOpen {
		return
	}
	c.bodyOpen = false
	c.reading = pace{}
	if c.bodyLeft >= 0 && c.bodyLeft <= skipBytesMax {
		c.skip = c.bodyLeft
		return
	}
	c.closing, c.lingering = true, true
}

// onKick looks at the flow of a call that runs beside the loop, or has run.
func (b *Back) onKick(k *call) {
	k.run.flow.seen()
	c := k.conn
	if c == nil || c.call != k || c.hungUp {
		return // over, and perhaps another's by now
	}
	if c.bodyOpen {
		b.readFlow(c)
	}
	if c.hungUp || k.run.broken != 0 || k.run.badHead != 0 {
		return
	}
	if c.phase == phaseRun {
		p := k.run.flow.takeStreamed()
		if p == nil {
			return
		}
		if !b.beginStream(c, k, p) {
			return
		}
	}
	if c.phase == phaseStream {
		b.proceedLater(c, b.pump(c, k))
	}
}

// beginStream sends the head of an answer that streams, of which p is the
// begin. False: its head is not valid, and nothing was sent.
func (b *Back) beginStream(c *conn, k *call, p []byte) bool {
	if b.draining {
		c.closing = true
	}
	k.run.framing = framing{chunked: k.req.Minor > 0}
	f := &k.run.framing
	if !f.chunked {
		c.closing = true
	}
	status, kind := 200, "application/json"
	fields := b.scratch.out[:0]
	block, n, why := httpparse.ParseCGI(&k.run.cgi, p)
	switch {
	case why != 0:
		k.run.badHead = why
		k.run.cancel()
		return false
	case block:
		status, kind = k.run.cgi.Status, ""
		fields = appendCGIFields(fields, &k.run.cgi, true)
		p = p[n:]
	case p[0] != '{' && p[0] != '[':
		f.wrapped = true
	}
	f.discard = k.noBody(status)
	head := k.appendHead(c.out[:0], status)
	if kind != "" {
		head = append(append(append(head, "Content-Type: "...), kind...), "\r\n"...)
	}
	head = append(head, fields...)
	switch {
	case status == 204, status == 304:
	case status == 205:
		head = httpparse.AppendContentLength(head, 0)
	case f.chunked:
		head = append(head, "Transfer-Encoding: chunked\r\n"...)
	}
	head = append(head, "\r\n"...)
	b.scratch.out = fields[:0]
	b.setState(c, ipc.Responding)
	c.phase = phaseStream
	c.writing = pace{left: int64(b.timer.Write)}
	b.setPace(c)
	c.out, c.sent = head, 0
	if f.wrapped {
		b.frame(c, f, []byte(`{"result":"`), false)
	}
	b.frame(c, f, p, f.wrapped)
	return true
}

// frame appends p, a part of the answer's body, to what is to be sent.
func (b *Back) frame(c *conn, f *framing, p []byte, escape bool) {
	if f.discard || len(p) == 0 {
		return
	}
	if escape {
		p = f.escape(p)
		if len(p) == 0 {
			return
		}
	}
	if f.chunked {
		c.out = strconv.AppendInt(c.out, int64(len(p)), 16)
		c.out = append(c.out, "\r\n"...)
	}
	c.out = append(b.storage.grow(c.out, len(p)+len("\r\n")), p...)
	if f.chunked {
		c.out = append(c.out, "\r\n"...)
	}
}

// escape returns p as a part of a JSON string. A character that p only begins
// is kept for the next piece.
func (f *framing) escape(p []byte) []byte {
	text := append(append(make([]byte, 0, f.carried+len(p)), f.carry[:f.carried]...), p...)
	f.carried = 0
	for i := 1; i <= min(utf8.UTFMax-1, len(text)); i++ {
		if tail := text[len(text)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				f.carried = copy(f.carry[:], tail)
				text = text[:len(text)-i]
			}
			break
		}
	}
	quoted := jsontext.Append(nil, text)
	return quoted[1 : len(quoted)-1]
}

// pump sends what there is of an answer that streams. stepNext: all of it was
// sent, and the connection goes on.
func (b *Back) pump(c *conn, k *call) step {
	f := &k.run.framing
	wrote := 0
	for range streamTurnsMax {
		for c.sent < len(c.out) {
			n, errno := sys.Write(c.fd, c.out[c.sent:])
			if errno == syscall.EAGAIN {
				if b.watchFor(c, c.bodyOpen && !c.muted, true) {
					b.answerWaits(c, wrote)
				}
				return stepWait
			}
			if errno != 0 {
				b.loseStream(c, k)
				return stepWait
			}
			c.sent += n
			wrote += n
		}
		c.out, c.sent = c.out[:0], 0
		if c.writing.runs() {
			// The kernel has all of it: nobody waits for the client.
			c.writing.moved(int64(wrote), int64(b.timer.Write), b.now)
			c.writing.pause(b.now)
			b.setPace(c)
		}
		p := k.run.flow.take(k.run.spare)
		k.run.spare = p
		if len(p) > 0 {
			b.frame(c, f, p, f.wrapped)
			continue
		}
		if !k.run.over {
			b.rest(c, k)
			return stepWait
		}
		if k.run.ending {
			return b.endStream(c, k)
		}
		k.run.ending = true
		if f.wrapped {
			if f.carried > 0 {
				text := f.carry[:f.carried]
				f.carried = 0
				quoted := jsontext.Append(nil, text)
				b.frame(c, f, quoted[1:len(quoted)-1], false)
			}
			b.frame(c, f, []byte(`"}`), false)
		}
		if f.chunked && !f.discard {
			c.out = append(c.out, "0\r\n\r\n"...)
		}
	}
	// Others are to be served too.
	k.run.flow.kickAgain()
	return stepWait
}

// rest: all that the function has written was sent, and it runs on.
func (b *Back) rest(c *conn, k *call) {
	if c.bodyOpen {
		b.watchBody(c, k)
		return
	}
	b.watchFor(c, false, false)
}

// endStream goes on behind an answer that was sent whole.
func (b *Back) endStream(c *conn, k *call) step {
	c.call = nil
	b.storage.give(c.out)
	c.out = nil
	c.writing = pace{}
	c.phase = phaseHead
	b.putCall(k)
	return b.answered(c)
}

// finishStream: the function of an answer that streams has ended.
func (b *Back) finishStream(c *conn, k *call) {
	if k.run.result.Reason != runtime.OK || k.run.broken != 0 {
		// What was sent is a part of an answer that nobody will end: the client
		// must see that.
		b.log.Warn("a streamed answer was cut", "function", k.fn.Name, "request", string(k.id[:k.idLen]),
			"reason", k.run.result.Reason.String())
		c.call = nil
		b.putCall(k)
		b.end(c)
		b.stopWhenEmpty()
		return
	}
	k.run.over = true
	b.closeBody(c)
	b.proceedLater(c, b.pump(c, k))
}

// loseStream: the client of an answer that streams is gone.
func (b *Back) loseStream(c *conn, k *call) {
	if !k.run.over {
		b.hangUp(c)
		return
	}
	b.counters.Hangups.Add(1)
	c.call = nil
	b.putCall(k)
	b.end(c)
}

// cutStream ends an answer whose client does not read it.
func (b *Back) cutStream(c *conn) {
	_ = sys.Shutdown(c.fd, syscall.SHUT_RDWR)
	b.loseStream(c, c.call)
}

// onStream implements role: an event in phaseStream.
func (b *Back) onStream(c *conn, mask netpoll.IOEvent) error {
	k := c.call
	if netpoll.IsErrorEvent(mask, 0) {
		b.loseStream(c, k)
		return nil
	}
	if c.bodyOpen {
		b.readFlow(c)
		if c.hungUp || k.run.broken != 0 {
			return nil
		}
	} else if netpoll.IsReadEvent(mask) && !c.muted {
		if !b.watchFor(c, false, c.wantWrite) {
			return nil
		}
	}
	if s := b.pump(c, k); s != stepWait {
		return b.proceed(c, s)
	}
	return nil
}
