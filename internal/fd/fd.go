// Package fd gives a descriptor an owner.
//
// A descriptor is a number, and a number can be copied, closed twice, or used
// after it was given away, when it already names something else. An FD is the
// one place that owns it: Borrow looks, Donate gives it away, Close ends it.
// After the last two the FD is dead and says so instead of touching a stranger.
//
// Goroutines and locks: none. An FD belongs to one goroutine at a time.
package fd

import (
	"fmt"
	"os"
	"syscall"
)

// FD owns a descriptor, or is dead. The zero value is dead.
//
// Assigning an FD moves it: from then on only the new variable may be used.
// Nothing enforces that; keep an FD in one struct field and pass it once.
type FD struct {
	n int32 // the descriptor plus one, so that zero is dead
}

// New takes ownership of the open descriptor n. A negative n panics.
func New(n int) FD {
	if n < 0 || n >= 1<<31-1 {
		panic(fmt.Sprintf("fd: %d is no descriptor", n))
	}
	return FD{int32(n) + 1}
}

// Valid says whether f owns a descriptor.
func (f *FD) Valid() bool { return f.n > 0 }

// Borrow returns the descriptor for use while f lives; the borrower never
// closes it. -1 when f is dead, which the kernel answers with EBADF.
func (f *FD) Borrow() int { return int(f.n) - 1 }

// Donate gives the descriptor to the caller, who closes it from here on. f is
// dead afterwards; -1 when it was before.
func (f *FD) Donate() int {
	n := f.Borrow()
	f.n = 0
	return n
}

// Close closes the descriptor; f is dead afterwards, whatever is returned.
// os.ErrClosed when it was before: somebody else thought to own it.
//
// Source: close(2): on Linux the number is free even when an error is reported,
// so it must never be tried again.
func (f *FD) Close() error {
	n := f.Donate()
	if n < 0 {
		return os.ErrClosed
	}
	if err := syscall.Close(n); err != nil && err != syscall.EINTR {
		return fmt.Errorf("close descriptor %d: %w", n, err)
	}
	return nil
}
