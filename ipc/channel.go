package ipc

import (
	"fmt"
	"io"
	"syscall"

	"baton/internal/fd"
	"baton/internal/sys"
)

const (
	// messageBytesMax is the size of the largest message: the reader's buffer.
	// 64 KiB is a multiple of what one read(2) of a client brings, and costs one
	// copy in and one out.
	messageBytesMax = 64 << 10

	// sendBufferBytes is asked for each end. The kernel doubles it and counts its
	// own overhead, about 1 KiB for a small message, so some 400 small messages
	// or 7 of the largest may wait. net.core.wmem_max, 208 KiB by default, cuts
	// it, which leaves 6 of the largest.
	sendBufferBytes = 256 << 10

	// sendBufferBytesMin is what the largest message takes, overhead included.
	// Below it the kernel would refuse such a message for ever (EMSGSIZE).
	sendBufferBytesMin = messageBytesMax + 8<<10
)

// NewChannel makes the two ends of a channel between the gateway and a worker,
// for donations or for frames: connected to nothing else, never blocking,
// close-on-exec. An error says that the system has no room for the largest
// message or for more descriptors.
//
// Only who was given an end can write to it: there is no name to connect to.
func NewChannel() (a, b fd.FD, err error) {
	m, n, err := sys.Socketpair()
	if err != nil {
		return fd.FD{}, fd.FD{}, fmt.Errorf("make channel: %w", err)
	}
	a, b = fd.New(m), fd.New(n)
	for _, end := range []int{m, n} {
		if err = widen(end); err != nil {
			_, _ = a.Close(), b.Close()
			return fd.FD{}, fd.FD{}, fmt.Errorf("make channel: %w", err)
		}
	}
	return a, b, nil
}

func widen(end int) error {
	if err := sys.SetSendBuffer(end, sendBufferBytes); err != nil {
		return err
	}
	got, err := sys.SendBuffer(end)
	if err != nil {
		return err
	}
	if got < sendBufferBytesMin {
		return fmt.Errorf("send buffer of %d bytes, want %d (net.core.wmem_max)", got, sendBufferBytesMin)
	}
	return nil
}

// receive reads one message. The error is ErrAgain, io.EOF or a system error;
// with an error, no descriptor was received.
//
// A peer that died with unread messages in its queue leaves us ECONNRESET, once,
// in front of what it had sent before. Reading it clears it, so the last words
// of a dead worker are heard; bounded, because only one is ever pending, and one
// more can arise while we look (unix(7), af_unix.c: unix_release_sock).
//
// An empty message is an end too: it cannot be told from one, and no peer of
// ours sends it. Descriptors that it may have carried are closed.
func receive(sock int, p, control []byte) (n, controlLen, flags int, err error) {
	for range 3 {
		n, controlLen, flags, errno := sys.RecvMsg(sock, p, control)
		switch {
		case errno == syscall.ECONNRESET:
			continue
		case errno == syscall.EAGAIN:
			return 0, 0, 0, ErrAgain
		case errno != 0:
			return 0, 0, 0, fmt.Errorf("receive: %w", errno)
		case n == 0:
			closeRights(control[:controlLen])
			return 0, 0, 0, io.EOF
		}
		return n, controlLen, flags, nil
	}
	return 0, 0, 0, io.EOF
}

// closeRights closes the descriptors of a received control buffer.
func closeRights(control []byte) {
	var room [sys.RightsMax]int32
	closeAll(sys.Rights(room[:0], control))
}

func closeAll(fds []int32) {
	for _, n := range fds {
		sys.CloseRaw(int(n))
	}
}

// CheckConn says whether n, which a peer has passed, is what a donation
// promises: a TCP connection, and not a listening socket, a file or a socket of
// another kind. The error names what it is instead. It allocates nothing when
// all is well.
func CheckConn(n int) error {
	domain, kind, listening, err := sys.SocketKind(n)
	if err != nil {
		return fmt.Errorf("check donated descriptor: %w", err)
	}
	if (domain != syscall.AF_INET && domain != syscall.AF_INET6) || kind != syscall.SOCK_STREAM || listening {
		return fmt.Errorf("check donated descriptor: want a TCP connection, got a socket of domain %d, type %d, listening %v", domain, kind, listening)
	}
	return nil
}
