package reactor

import (
	"bytes"
	"time"

	"baton/internal/sys"
	"baton/runtime"
)

// logPartMax bounds what is kept of a line that a function has only begun.
const logPartMax = 8 << 10

// logWriter is a function's stderr. It gives on whole lines: many programs write
// one in several pieces.
type logWriter struct {
	back *Back
	k    *call
	part []byte // of a line that has not ended
}

// Write implements io.Writer.
func (w *logWriter) Write(p []byte) (int, error) {
	whole := bytes.LastIndexByte(p, '\n') + 1
	if len(w.part) == 0 && whole > 0 {
		w.back.cfg.Log(w.k.fn, w.k.id[:w.k.idLen], p[:whole])
		w.part = append(w.part, p[whole:]...)
	} else {
		w.part = append(w.part, p[:whole]...)
		if whole > 0 {
			w.flush()
		}
		w.part = append(w.part, p[whole:]...)
	}
	if len(w.part) > logPartMax {
		w.flush()
	}
	return len(p), nil
}

// flush gives on what there is of a line: it ends where the function does.
func (w *logWriter) flush() {
	if len(w.part) == 0 {
		return
	}
	w.back.cfg.Log(w.k.fn, w.k.id[:w.k.idLen], w.part)
	w.part = w.part[:0]
	if cap(w.part) > 2*logPartMax {
		w.part = nil
	}
}

// Failure is an invocation that did not succeed, for the function's log.
type Failure struct {
	Reason   string        // as in the answer's error body
	Status   int           // … which may have found nobody any more
	Duration time.Duration // since the request was admitted, to a turn of the loop
	Detail   string        // what trapped, where; may be empty
}

// logEnd ends a call's log: the rest of its last line and, when it failed, that.
// What is wrong with an output that could still be answered is found later.
func (b *Back) logEnd(k *call) {
	k.run.log.flush()
	switch r := &k.run.result; {
	case k.run.broken != 0:
		b.logFailure(k, k.run.broken.String(), k.run.broken.Status())
	case k.run.badHead != 0 || r.Reason == runtime.OK:
	case r.Reason == runtime.Cancelled && !k.conn.hungUp:
		b.logFailure(k, r.Reason.String(), 503) // by a drain
	default:
		b.logFailure(k, r.Reason.String(), r.Reason.Status())
	}
}

func (b *Back) logFailure(k *call, reason string, status int) {
	if b.cfg.Failed == nil {
		return
	}
	b.cfg.Failed(k.fn, k.id[:k.idLen], Failure{reason, status, time.Duration(sys.ClockMonotonic() - k.run.started), k.run.result.Detail})
}
