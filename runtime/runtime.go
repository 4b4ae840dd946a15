// Package runtime says what an executor is: the thing that runs a function
// for one request, whatever language the function was written in. The kinds
// live in sub-packages (runtime/wasm, …), one folder each.
//
// The package has no goroutines and no state. A worker holds one Executor per
// kind, loads functions through it when its table changes, and calls
// Loaded.Invoke once per request: that call is the hot one, and allocates
// nothing of its own.
package runtime

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// Function is what an executor must know of a function: the part of a
// descriptor that is left when everything about routes is taken away. It is
// immutable once it was given to Load; a changed descriptor is a new Function.
type Function struct {
	// ID names the function on the board (its cell) and in logs.
	ID uint32
	// Name is argv[0] of every invocation.
	Name string
	// Kind selects the executor: "wasm", "php", "native", "python".
	Kind string
	// Module is the absolute path of the artifact.
	Module string
	// Handler, when not empty, is argv[1] and the variable _HANDLER.
	Handler string
	// MemoryMB bounds what one invocation may use, in MiB (2^20 bytes). Too
	// small: the function's allocations fail (its answer is 502, reason oom).
	// Too large: fewer instances fit the worker's memory budget. Zero means
	// MemoryMBDefault.
	MemoryMB int
	// Timeout bounds one invocation from the start of Invoke. Zero means
	// TimeoutDefault.
	Timeout time.Duration
	// Env holds the descriptor's own variables, "NAME=value".
	Env []string
	// Files is the absolute path of a directory that the function sees,
	// read-only, as "/"; empty: it sees no file system.
	Files string
	// Processes is how many further processes an invocation may start; zero: none.
	Processes int
	// Network says that it may open network connections.
	Network bool
	// Freeze says that the state at the function's first read of its input
	// may be kept and shared by all invocations (see runtime/wasm).
	Freeze bool
}

// Defaults of a descriptor that does not say otherwise (see design of the
// descriptor in README.md).
const (
	// MemoryMBDefault is the memory of a function that names none, in MiB.
	MemoryMBDefault = 128
	// TimeoutDefault is the timeout of a function that names none.
	TimeoutDefault = 30 * time.Second
)

// Memory returns the bound of the function's memory in bytes.
func (f *Function) Memory() int64 {
	if f.MemoryMB <= 0 {
		return MemoryMBDefault << 20
	}
	return int64(f.MemoryMB) << 20
}

// Limit returns the longest that one invocation may take.
func (f *Function) Limit() time.Duration {
	if f.Timeout <= 0 {
		return TimeoutDefault
	}
	return f.Timeout
}

// Environ gives the request's variables (CGI and WAGI) to a function that
// asks for its environment, and to no other: nothing is built before Sizes is
// called. All methods must describe the same variables while an invocation
// runs.
type Environ interface {
	// Sizes returns the number of variables and their total size in bytes,
	// one NUL after each "NAME=value" included.
	Sizes() (count, bytes int)
	// AppendTo appends the variables, each "NAME=value" followed by NUL, and
	// returns the longer slice. It appends exactly the bytes Sizes named.
	AppendTo(dst []byte) []byte
	// Starts returns where each variable begins in what AppendTo appends. A
	// view, valid while the invocation runs; never written.
	Starts() []uint32
}

// Invocation is one call of a function. The caller owns it and may use it
// again for the next call; the executor keeps nothing of it after Invoke.
type Invocation struct {
	// RequestID goes with every line of the function's log. A view.
	RequestID []byte

	// Body holds the bytes of the request's body that are in memory; they are
	// read first. A view, valid until Invoke returns; never written.
	Body []byte
	// More is the rest of the body, nil when Body is all of it. Reads may
	// block, so More is set only when Promote is nil (not on a loop). An error other than
	// io.EOF ends the invocation with Cancelled.
	More io.Reader

	// Env holds the request's variables; nil: none.
	Env Environ

	// Stdout takes the response. A Write that returns ErrOutputLimit ends the
	// invocation with OutputLimit, any other error ends it with Cancelled.
	// The slice given to Write is the function's memory: valid during the call only.
	Stdout io.Writer
	// Stderr takes the function's log; errors are ignored. The slice is valid during
	// the call only. nil discards.
	Stderr io.Writer

	// Deadline is when the invocation ends with Timeout; zero: the
	// function's Limit from the start of Invoke.
	Deadline time.Time

	// Cancel, when not nil, ends the invocation with Cancelled soon after it
	// becomes true (client gone, drain limit reached). Any goroutine may set it.
	Cancel *atomic.Bool

	// Promote is not nil when Invoke is called on an event loop's goroutine.
	// The executor calls it at most once, from inside Invoke and on the same
	// goroutine, when the invocation has used its slice (Slice) or is about
	// to block. When Promote returns, this goroutine is the loop no longer
	// and may take as long as the deadline allows.
	Promote func()
}

// Slice is how long an invocation may keep an event loop's goroutine before
// it is promoted. Source: design, "The wasm engine": long enough for nearly
// all short functions, short against what a client notices.
const Slice = time.Millisecond

// Result says how an invocation ended.
type Result struct {
	// Reason is the zero OK when the function returned or exited with 0.
	Reason Reason
	// Exit is the function's exit code: set for OK (0) and Exit, and for Signal
	// (128 and the signal's number, as a shell says it).
	Exit int32
	// Detail is for the log, not for a client: what trapped, where. Empty
	// for OK and Exit. For Signal it is the signal's name ("SIGSEGV"), which a
	// client may see.
	Detail string
}

// Executor loads functions of one kind. Safe for concurrent use.
type Executor interface {
	// Load makes f ready to run. It may take milliseconds and must not be
	// called on an event loop. Loading what is loaded is cheap: what two
	// functions have in common (the same artifact) is shared.
	//
	// ErrNotPrepared: the artifact has no matching native code; the builder
	// must prepare it first.
	Load(ctx context.Context, f *Function) (Loaded, error)
	// Close ends what the executor started. Every Loaded must be closed
	// before and no Invoke may be running.
	Close() error
}

// Loaded is a function that is ready to run.
type Loaded interface {
	// Invoke runs the function once and returns when it has ended. Safe for
	// concurrent use with distinct inv.
	Invoke(inv *Invocation) Result
	// Inline reports whether Invoke may be called on an event loop's
	// goroutine now: it can promote itself, and lately this function was
	// short. Cheap; may change from call to call.
	Inline() bool
	// Close gives back what the function holds once running invocations have
	// ended. Invoke after Close answers Unavailable.
	Close() error
}

// Starter is what a Loaded may be as well: its invocations need no goroutine of
// the caller's while they wait for a process of the function's.
type Starter interface {
	// Start is Invoke without waiting, so it may be called on a loop. done is called with the
	// result, once, on any goroutine, maybe before Start returns. It must not block.
	Start(inv *Invocation, done func(Result))
}
