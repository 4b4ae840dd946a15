package runtime

import "errors"

// ErrNotPrepared is returned by Load when the artifact's native code is
// missing, or was made by another version or for another processor.
var ErrNotPrepared = errors.New("module is not prepared for this version and processor")

// ErrOutputLimit is what Invocation.Stdout returns when the response is
// longer than it may be.
var ErrOutputLimit = errors.New("response is longer than its limit")

// Reason says why an invocation ended without an answer of its own. The zero
// Reason is OK and never travels inside an error.
type Reason uint8

// The reasons. String gives the documented name in error bodies and metrics,
// Status the HTTP status that answers it.
const (
	OK          Reason = iota // returned, or exited with 0
	Exit                      // exited with another code
	Trap                      // the function did what its machine forbids: unreachable, out of bounds, division by zero, stack overflow
	Memory                    // failed after it was refused memory
	Timeout                   // ran past its deadline
	Cancelled                 // the client went away, or the worker is past its drain limit
	OutputLimit               // response longer than its limit
	Unavailable               // no instance may be started: memory budget of the worker, or the function was closed
	NotPrepared               // see ErrNotPrepared
	Internal                  // a bug of ours
	Signal                    // a signal ended its process: Result.Detail names it
	// ReasonCount is the number of reasons, for arrays of counters.
	ReasonCount
)

// String returns the reason's documented name.
func (r Reason) String() string {
	switch r {
	case OK:
		return "ok"
	case Exit:
		return "function_exit"
	case Trap:
		return "function_trap"
	case Memory:
		return "oom"
	case Timeout:
		return "function_timeout"
	case Cancelled:
		return "client_disconnect"
	case OutputLimit:
		return "output_limit"
	case Unavailable:
		return "capacity_exceeded"
	case NotPrepared:
		return "function_not_prepared"
	case Signal:
		return "function_signal"
	default:
		return "internal_error"
	}
}

// Status returns the HTTP status that tells a client of r. Cancelled is 499,
// which no client sees: it is for logs and counters.
//
// Source: RFC 9110 sections 15.6.1 to 15.6.5; 499 is nginx's.
func (r Reason) Status() int {
	switch r {
	case OK:
		return 200
	case Exit, Trap, Memory, OutputLimit, Signal:
		return 502
	case Timeout:
		return 504
	case Cancelled:
		return 499
	case Unavailable, NotPrepared:
		return 503
	default:
		return 500
	}
}
