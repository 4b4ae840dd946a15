package ipc

import (
	"errors"
	"fmt"
	"syscall"
)

// What a caller of the channels branches on.
var (
	// ErrAgain: nothing has arrived. Wait until the socket is readable.
	ErrAgain = errors.New("nothing has arrived")
	// ErrFull: the peer lets too much wait. Nothing was sent; the socket becomes
	// writable when three quarters of it have been read.
	ErrFull = errors.New("the channel is full")
	// ErrTooManyRefs: this user has more descriptors in flight than one process
	// may open. Nothing was sent, and no other channel has room either; no event
	// tells when, so try again at the next tick. Source: unix(7), ETOOMANYREFS.
	ErrTooManyRefs = errors.New("too many descriptors are in flight")
	// ErrPeerGone: nobody reads at the other end any more. Nothing was sent.
	ErrPeerGone = errors.New("the other end of the channel is gone")
)

// FrameError says that a peer sent something that is none of our frames: the
// peer is broken or hostile, and nothing behind it can be understood.
type FrameError struct {
	Pid   int    // of the sender, as the reader was told; 0: not known
	Frame string // kind of the frame as far as it is known, "donation", "ended", …
	What  string // the field or rule
	Want  string
	Got   uint64
}

func (e *FrameError) Error() string {
	from := "a peer"
	if e.Pid != 0 {
		from = fmt.Sprintf("process %d", e.Pid)
	}
	return fmt.Sprintf("%s frame from %s: %s: want %s, got %d", e.Frame, from, e.What, e.Want, e.Got)
}

// DescriptorError says that a frame came without (all of) its descriptors
// because this process may open no more. The frame is lost; nobody is at fault.
// errors.Is finds syscall.EMFILE.
type DescriptorError struct {
	Kind      FrameKind
	Want, Got int
}

func (e *DescriptorError) Error() string {
	return fmt.Sprintf("%s frame: this process is out of descriptors: %d of %d arrived", e.Kind, e.Got, e.Want)
}

// Unwrap returns the errno that the kernel would have given.
func (e *DescriptorError) Unwrap() error { return syscall.EMFILE }

// sendError maps what sendmsg(2) says.
func sendError(errno syscall.Errno) error {
	switch errno {
	case syscall.EAGAIN:
		return ErrFull
	case syscall.ETOOMANYREFS:
		return ErrTooManyRefs
	case syscall.EPIPE, syscall.ECONNRESET, syscall.ENOTCONN, syscall.ECONNREFUSED:
		return ErrPeerGone
	}
	return fmt.Errorf("send: %w", errno)
}
