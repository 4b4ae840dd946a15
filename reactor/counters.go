package reactor

import (
	"sync/atomic"

	"baton/httpparse"
	"baton/ipc"
)

// Counters count what a process's loops did, for metrics and status. All of a
// process's loops share one; the hot path adds only to what it must, the rare
// outcomes have the rest. Each is monotonic; read them at any time.
type Counters struct {
	Accepted      atomic.Uint64 // connections accepted
	OverLimit     atomic.Uint64 // connections closed at once: connsMax reached
	AcceptErrors  atomic.Uint64 // accept(2) failed for want of a resource
	Donated       atomic.Uint64 // connections sent to a worker, each time
	DonateFull    atomic.Uint64 // a worker's socket was full and the next was tried
	Queued        atomic.Uint64 // connections that waited for a worker
	NoWorker      atomic.Uint64 // … and were answered 503
	Returned      atomic.Uint64 // connections that came back from a worker
	TakenOver     atomic.Uint64 // control requests
	LostRedonated atomic.Uint64 // connections of a lost worker that were saved
	LostAnswered  atomic.Uint64 // … that were answered 502
	LostClosed    atomic.Uint64 // … that were closed
	NotFound      atomic.Uint64
	NotAllowed    atomic.Uint64 // 405
	TooBusy       atomic.Uint64 // 429 and 503 for want of room
	Drained       atomic.Uint64 // 503 while draining
	IdleClosed    atomic.Uint64
	BodyTimeouts  atomic.Uint64
	WriteTimeouts atomic.Uint64
	Hangups       atomic.Uint64 // clients that left while their function ran (499)
	Promoted      atomic.Uint64 // functions that outlived their slice on the loop
	Refused       [httpparse.ReasonCount]atomic.Uint64
}

// counterNames are the names in metrics and status, in the order of list.
var counterNames = [...]string{
	"accepted", "over_limit", "accept_errors", "donated", "donate_full", "queued", "no_worker", "returned", "taken_over",
	"lost_saved", "lost_answered", "lost_closed", "not_found", "method_not_allowed", "too_busy", "drained", "idle_closed",
	"body_timeouts", "write_timeouts", "hangups", "promoted",
}

// countersCount is the number of counters: those with a name of their own, and
// one for each reason of a refusal.
const countersCount = len(counterNames) + int(httpparse.ReasonCount) - 1

// A worker has room on the board for each.
var _ [ipc.EventsMax - countersCount]struct{}

// list returns all counters in a fixed order, which is also that of the board.
func (c *Counters) list() (all [countersCount]*atomic.Uint64) {
	n := copy(all[:], []*atomic.Uint64{
		&c.Accepted, &c.OverLimit, &c.AcceptErrors, &c.Donated, &c.DonateFull, &c.Queued, &c.NoWorker, &c.Returned, &c.TakenOver,
		&c.LostRedonated, &c.LostAnswered, &c.LostClosed, &c.NotFound, &c.NotAllowed, &c.TooBusy, &c.Drained, &c.IdleClosed,
		&c.BodyTimeouts, &c.WriteTimeouts, &c.Hangups, &c.Promoted,
	})
	for i := range c.Refused[1:] {
		all[n+i] = &c.Refused[1+i]
	}
	return all
}

// EachCounter calls do with every counter's name and its sum over the gateway
// and all workers, dead ones included. A worker's part is as of its last tick.
func (f *Front) EachCounter(do func(name string, value uint64)) {
	for i, own := range f.counters.list() {
		name := ""
		if i < len(counterNames) {
			name = counterNames[i]
		} else {
			name = "refused_" + httpparse.Reason(i-len(counterNames)+1).String()
		}
		sum := own.Load()
		for worker := range f.cfg.Board.Workers() {
			sum += f.cfg.Board.Events(worker).Count(i)
		}
		do(name, sum)
	}
}

// publishCounters adds to the board what was counted since the last time. The
// counters themselves stay in the worker's own memory: the hot path shares no
// line with whoever reads.
func (b *Back) publishCounters() {
	events := b.board.Events(b.cfg.Worker)
	for i, own := range b.counters.list() {
		if n := own.Load(); n != b.published[i] {
			events.Add(i, n-b.published[i])
			b.published[i] = n
		}
	}
}
