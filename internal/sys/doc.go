// Package sys is the one door to the kernel: thin wrappers around the system
// calls that baton needs and the standard library does not offer, or offers
// only with an allocation or a hand-over to the scheduler.
//
// # Two kinds of calls
//
// Calls that are named hot (Read, Write, Accept4, SendMsg, RecvMsg, Shutdown,
// CloseRaw, EventfdSignal, EventfdDrain, TimerfdDrain) enter the kernel without
// telling the Go scheduler. They allocate nothing, and must only be used on
// descriptors that do not block: while one runs, its processor runs nothing
// else, and a collection waits for it. Everything else is for start and stop.
//
// # Errors
//
// Hot calls return the bare syscall.Errno, zero for success, because EAGAIN is
// an outcome there and not an error. The others wrap it: errors.Is finds it.
// EINTR never leaves this package: the call is repeated.
//
// # Descriptors
//
// A descriptor travels as its number here; package fd adds ownership. Every
// descriptor made here is close-on-exec from birth.
//
// # Goroutines, locks
//
// None. All functions may be called from anywhere; two calls on one descriptor
// are ordered by the kernel.
package sys
