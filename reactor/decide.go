package reactor

import (
	"baton/httpparse"
	"baton/route"
)

// verdict is what is to be done with a request whose head is complete.
type verdict uint8

const (
	verdictRun     verdict = iota // run k.fn
	verdictControl                // belongs to the control plane
	verdictHealth                 // /healthz or /readyz
	verdictAnswer                 // answer with k.answer: the request goes no further
)

// answer is an answer that needs no function.
type answer struct {
	status int
	reason string // of the error's JSON body; empty: not an error
	text   string
	allow  route.Methods // Allow field, when not empty
	retry  bool          // Retry-After: 1
	ends   bool          // the connection ends with it, as with what the parser refuses
}

// Reasons of the policies, as the documented list of conventions.md has them.
const (
	reasonNoRoute          = "route_not_found"
	reasonMethodNotAllowed = "method_not_allowed"
	reasonBodyTooLarge     = "body_too_large"
	reasonCapacity         = "capacity_exceeded"
	reasonDraining         = "draining"
	reasonNoWorker         = "no_worker"
	reasonStarting         = "starting"
	reasonWorkerLost       = "worker_lost"
	reasonTooManyClients   = "too_many_clients"
)

// Answers that more than one place gives.
var (
	answerDraining    = answer{status: 503, reason: reasonDraining, text: "this server is stopping", retry: true}
	answerControlBusy = answer{status: 503, reason: reasonCapacity, text: "too many control requests run", retry: true, ends: true}
)

// decide finds what k's request is for. It is the one place where a request
// meets the route table and the policies that need no body, in either process.
// The table is loaded once; k keeps that generation to its end.
func (l *loop) decide(k *call) verdict {
	r := &k.req
	k.fn = nil
	if r.Form == httpparse.AsteriskForm {
		k.answer = answer{status: 204, allow: route.Get | route.Post | route.Put | route.Patch | route.Delete | route.Options}
		return verdictAnswer
	}
	t := l.table.Load()
	k.table = t
	switch route.Reserved(r.Path) {
	case route.AreaHealth:
		switch string(r.Method) {
		case "GET", "HEAD":
			return verdictHealth
		}
		return l.decideMethod(k, route.Get)
	case route.AreaControl:
		return l.decideControl(k)
	case route.AreaFunction:
		if !k.matchName() {
			return l.decideNotFound(k)
		}
		return l.decidePolicies(k)
	}
	switch t.Lookup(&k.match, r.Method, r.Path) {
	case route.Found:
		k.fn = k.match.Function
		return l.decidePolicies(k)
	case route.MethodNotAllowed:
		return l.decideMethod(k, k.match.Allow)
	}
	if len(r.Path) == 1 {
		return l.decideControl(k) // the page at /, as long as no function has taken it
	}
	return l.decideNotFound(k)
}

// decideMethod answers for a path that is served, but not for k's method.
// Source: RFC 9110 sections 9.3.7 and 15.5.6; RATIONALE.md, "Which answers of
// the platform end the connection?".
func (l *loop) decideMethod(k *call, allow route.Methods) verdict {
	if string(k.req.Method) == "OPTIONS" {
		k.answer = answer{status: 204, allow: allow}
		return verdictAnswer
	}
	l.counters.NotAllowed.Add(1)
	k.answer = answer{
		status: 405, reason: reasonMethodNotAllowed, allow: allow,
		text: "this path is served, but not for this method", ends: true,
	}
	return verdictAnswer
}

// rematch makes the views of k's match point into its request again, after
// that was parsed anew at a place where it stays.
func (k *call) rematch() {
	r := &k.req
	if route.Reserved(r.Path) == route.AreaFunction {
		k.matchName()
		return
	}
	k.table.Lookup(&k.match, r.Method, r.Path)
}

// matchName matches /function/<name>.
func (k *call) matchName() (found bool) {
	r := &k.req
	name, info := route.FunctionName(r.Path)
	if k.fn = k.table.ByName(name); k.fn == nil {
		return false
	}
	k.match.Function, k.match.ParamCount = k.fn, 0
	k.match.ScriptName, k.match.PathInfo = r.Path[:len(r.Path)-len(info)], info
	return true
}

func (l *loop) decideNotFound(k *call) verdict {
	l.counters.NotFound.Add(1)
	k.answer = answer{status: 404, reason: reasonNoRoute, text: "no function is deployed at this path"}
	return verdictAnswer
}

// decidePolicies applies the limits that need no body. The limit on requests
// in flight is only looked at here; the worker that runs the request enters it.
func (l *loop) decidePolicies(k *call) verdict {
	if k.req.ContentLength > k.fn.MaxBody {
		return l.decideTooLarge(k, "the body is larger than this function's max_body")
	}
	if most := k.fn.MaxInflight; most > 0 && l.board.Inflight(k.fn.Cell) >= most {
		return l.decideTooBusy(k)
	}
	return verdictRun
}

func (l *loop) decideTooLarge(k *call, text string) verdict {
	l.counters.Refused[httpparse.ReasonBodyTooLarge].Add(1)
	k.answer = answer{status: 413, reason: reasonBodyTooLarge, text: text, ends: true}
	return verdictAnswer
}

// decideControl lets a request through to the control plane, which has limits
// of its own below this one.
func (l *loop) decideControl(k *call) verdict {
	if k.req.ContentLength > controlBodyMax {
		return l.decideTooLarge(k, "the body is larger than the control plane takes")
	}
	return verdictControl
}

func (l *loop) decideTooBusy(k *call) verdict {
	l.counters.TooBusy.Add(1)
	k.answer = answer{
		status: 429, reason: reasonCapacity, retry: true,
		text: "as many requests of this function run as its max_inflight allows",
	}
	return verdictAnswer
}

// passBody settles what becomes of the body of a request that is answered
// without it: whatever of it is in b behind the head of n bytes, and what is
// still to come, is passed over, or the connection ends after the answer. The
// choice looks at the head alone, so it is the same wherever the bytes were
// cut. It returns how many bytes of b are done with. To be called before the
// answer's head is made.
func (l *loop) passBody(c *conn, r *httpparse.Request, b []byte, n int) (done int) {
	length := max(r.ContentLength, 0)
	switch have := int64(len(b) - n); {
	case r.Chunked, length > skipBytesMax, r.ExpectContinue && length > 0:
		// Its end is far or unknown, or the client may never send it: RFC 9110
		// section 10.1.1.
		c.closing, c.lingering = true, true
		return len(b)
	case length > have:
		c.skip = length - have
		return len(b)
	}
	return n + int(length)
}

// reply writes k.answer to the request whose head is b[:n].
func (l *loop) reply(c *conn, k *call, b []byte, n int) (done int, s step) {
	done = l.passBody(c, &k.req, b, n)
	return done, l.replyTo(c, k, b[done:])
}

// replyTo writes k.answer.
func (l *loop) replyTo(c *conn, k *call, rest []byte) step {
	a := &k.answer
	k.begin(l, c)
	if a.ends {
		c.closing, c.lingering = true, true
	}
	k.extra = k.extra[:0]
	if a.allow != 0 {
		k.extra = append(k.extra, "Allow: "...)
		k.extra = a.allow.AppendAllow(k.extra)
		k.extra = append(k.extra, "\r\n"...)
	}
	if a.retry {
		k.extra = append(k.extra, "Retry-After: 1\r\n"...)
	}
	p := l.scratch.out[:0]
	if a.reason == "" {
		p = k.appendHead(p, a.status)
		p = append(p, k.extra...)
		if a.status != 204 {
			p = httpparse.AppendContentLength(p, 0)
		}
		p = append(p, "\r\n"...)
	} else {
		p = k.appendError(p, a.status, componentGateway, a.reason, a.text, k.extra)
	}
	l.scratch.out = p[:0]
	return l.write(c, p, rest)
}

// replyHealth answers /healthz and /readyz on the loop. ready is what /readyz
// says; empty: yes.
func (l *loop) replyHealth(c *conn, k *call, b []byte, n int, ready string) (int, step) {
	done := l.passBody(c, &k.req, b, n)
	k.begin(l, c)
	status, text := 200, `{"status":"ok"}`
	if string(k.req.Path) == "/readyz" {
		text = `{"status":"ready"}`
		if ready != "" {
			status, text = 503, ready
		}
	}
	p := k.appendPlain(l.scratch.out[:0], status, text)
	l.scratch.out = p[:0]
	return done, l.write(c, p, b[done:])
}
