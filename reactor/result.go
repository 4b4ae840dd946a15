package reactor

import (
	"strings"

	"baton/httpparse"
	"baton/internal/jsontext"
	"baton/runtime"
)

// respond writes the answer that k's function has made. rest is what arrived
// behind the request.
func (b *Back) respond(c *conn, k *call, rest []byte) step {
	if b.draining {
		c.closing = true // it began before the drain did
	}
	if k.run.broken != 0 {
		b.refuseBegun(c, k, k.run.broken)
		return stepWait
	}
	out := &k.run.out
	if k.run.badHead != 0 {
		return b.respondBadHead(c, k, rest, k.run.badHead)
	}
	if k.run.result.Reason != runtime.OK {
		return b.respondFailed(c, k, rest)
	}
	body := out.body()
	if len(body) == 0 {
		return b.respondFailed(c, k, rest)
	}
	status, kind := 200, "application/json"
	fields := b.scratch.out[:0]
	cgi := &k.run.cgi
	block, n, why := httpparse.ParseCGI(cgi, body)
	switch {
	case why != 0:
		return b.respondBadHead(c, k, rest, why)
	case block:
		status = cgi.Status
		kind = ""
		fields = appendCGIFields(fields, cgi, len(body) > n)
		body = body[n:]
	case body[0] != '{' && body[0] != '[':
		// The predecessor's rule: what is not JSON already is wrapped.
		wrapped := append(k.body[:0], `{"result":`...)
		wrapped = jsontext.Append(wrapped, body)
		wrapped = append(wrapped, '}')
		k.body = wrapped[:0]
		body = wrapped
	}
	head := k.head[:0]
	head = k.appendHead(head, status)
	if kind != "" {
		head = append(head, "Content-Type: "...)
		head = append(head, kind...)
		head = append(head, "\r\n"...)
	}
	head = append(head, fields...)
	if status == 205 {
		body = nil // to HEAD and GET alike: RFC 9110 section 15.3.6
	}
	if status != 204 && status != 304 {
		head = httpparse.AppendContentLength(head, int64(len(body)))
	}
	head = append(head, "\r\n"...)
	k.head = head[:0]
	b.scratch.out = fields[:0]
	if k.noBody(status) {
		body = nil
	}
	p := k.join(head, body)
	// Of a function that ran right here, for a connection with nothing else to do.
	if c.phase == phaseHead && len(rest) == 0 && b.holdAnswer(c, p) {
		return stepWait
	}
	return b.write(c, p, rest)
}

// join returns head and body in one piece. The usual body lies at the end of
// the output, with room before it, and is not copied.
func (k *call) join(head, body []byte) []byte {
	out := k.run.out.buf
	if at := len(out) - len(body); len(body) > 0 && &out[at:][0] == &body[0] && at >= len(head) {
		copy(out[at-len(head):], head)
		return out[at-len(head):]
	}
	return append(head, body...)
}

// appendCGIFields appends the fields of a CGI header block.
func appendCGIFields(dst []byte, h *httpparse.CGIHead, hasBody bool) []byte {
	if len(h.ContentType) > 0 {
		dst = append(append(append(dst, "Content-Type: "...), h.ContentType...), "\r\n"...)
	} else if hasBody {
		dst = append(dst, "Content-Type: text/plain; charset=utf-8\r\n"...)
	}
	if len(h.Location) > 0 {
		dst = append(append(append(dst, "Location: "...), h.Location...), "\r\n"...)
	}
	for _, f := range h.Fields {
		dst = append(dst, f.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, f.Value...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// respondFailed answers for a function that did not succeed, in the form of
// the predecessor with the platform's members beside it.
func (b *Back) respondFailed(c *conn, k *call, rest []byte) step {
	r := &k.run.result
	reason, status := r.Reason, r.Reason.Status()
	component := componentFunction
	switch reason {
	case runtime.OK:
		reason, status = runtime.Exit, 502 // exit code 0, but no output
		b.logFailure(k, failedReason(r), status)
	case runtime.Unavailable, runtime.NotPrepared, runtime.Internal, runtime.Cancelled:
		component = componentWorker
		if reason == runtime.Cancelled {
			status = 503 // by a drain: a client that left is not answered
		}
	}
	if r.Detail != "" {
		b.log.Debug("invocation failed", "function", k.fn.Name, "request", string(k.id[:k.idLen]), "reason", reason.String(), "detail", r.Detail)
	}
	out := k.run.out.body()
	body := append(k.body[:0], `{"error":"Function failed","exit_code":`...)
	body = appendInt(body, int64(r.Exit))
	body = append(body, `,"output_bytes":`...)
	body = appendInt(body, int64(len(out)))
	body = append(body, `,"output":`...)
	body = jsontext.Append(body, out[:min(len(out), outputQuoteMax)])
	body = append(body, `,"component":"`...)
	body = append(body, component...)
	body = append(body, `","reason":"`...)
	body = append(body, failedReason(r)...)
	if r.Reason == runtime.Signal && isSignal(r.Detail) {
		body = append(body, `","signal":"`...)
		body = append(body, r.Detail...)
	}
	body = append(body, `","requestId":"`...)
	body = append(body, k.id[:k.idLen]...)
	body = append(body, `"}`...)
	k.body = body[:0]
	head := k.appendHead(k.head[:0], status)
	head = append(head, "Content-Type: application/json\r\nX-Baton-Error: "...)
	head = append(head, component...)
	head = append(head, "\r\n"...)
	if status == 503 {
		head = append(head, "Retry-After: 1\r\n"...)
	}
	head = httpparse.AppendContentLength(head, int64(len(body)))
	head = append(head, "\r\n"...)
	k.head = head[:0]
	if k.noBody(status) {
		body = nil
	}
	return b.write(c, append(head, body...), rest)
}

// outputQuoteMax bounds the part of a failed function's output that its error
// quotes.
const outputQuoteMax = 4 << 10

func failedReason(r *runtime.Result) string {
	if r.Reason == runtime.OK {
		return "no_output"
	}
	return r.Reason.String()
}

// respondBadHead answers for a function whose CGI header block is refused.
func (b *Back) respondBadHead(c *conn, k *call, rest []byte, why httpparse.CGIReason) step {
	b.logFailure(k, why.String(), 502)
	p := k.appendError(b.scratch.out[:0], 502, componentFunction, why.String(), "the function's header block is not valid", nil)
	b.scratch.out = p[:0]
	return b.write(c, p, rest)
}

// signalNameMax is longer than any signal's name: "SIGVTALRM", "SIGRTMIN+12".
const signalNameMax = 16

// isSignal says whether text is the name of a signal, and nothing else that an
// executor says for the log alone.
func isSignal(text string) bool {
	if len(text) > signalNameMax || !strings.HasPrefix(text, "SIG") {
		return false
	}
	for _, c := range []byte(text) {
		if !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '-') {
			return false
		}
	}
	return true
}
