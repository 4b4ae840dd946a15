package reactor

import (
	"sync/atomic"

	"baton/httpparse"
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
