package testenv

import (
	"bytes"
	order "encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
)

// Wire is a client connection as cheap as it can be, for tests that open tens of
// thousands: a blocking socket, without the runtime's poller. Reads and writes
// give up after four times Patience. Not for concurrent use.
type Wire struct {
	fd int
}

// DialWire connects to an IPv4 address. Whoever calls it closes the Wire.
func DialWire(addr netip.AddrPort) (Wire, error) {
	if !addr.Addr().Is4() {
		return Wire{-1}, fmt.Errorf("connect to %s: want an IPv4 address", addr)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return Wire{-1}, fmt.Errorf("socket: %w", err)
	}
	// Behind the connection's end nothing is waited for, and no port stays taken.
	err = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	// Not before connect(2), which a signal would interrupt then.
	patience := syscall.NsecToTimeval(int64(4 * Patience()))
	for _, option := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err == nil {
			err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, option, &patience)
		}
	}
	if err != nil {
		_ = syscall.Close(fd)
		return Wire{-1}, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return Wire{fd}, nil
}

// Send sends text, as far as the server takes it: it may have answered for the
// last time, and closed.
func (w Wire) Send(text string) {
	for b := []byte(text); len(b) > 0; {
		n, err := syscall.SendmsgN(w.fd, b, nil, nil, syscall.MSG_NOSIGNAL)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		b = b[n:]
	}
}

// EndSending ends the sending side, unless the connection has ended.
func (w Wire) EndSending() { _ = syscall.Shutdown(w.fd, syscall.SHUT_WR) }

// Read reads on from have until done says that it is enough, or to the end: then
// the error is nil, or that of a reset.
func (w Wire) Read(have []byte, done func([]byte) bool) ([]byte, error) {
	for b := make([]byte, 4<<10); done == nil || !done(have); {
		n, err := syscall.Read(w.fd, b)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return have, err
		case n == 0:
			return have, nil
		}
		have = append(have, b[:n]...)
	}
	return have, nil
}

// ReadUntil reads to the first suffix that ends what has come.
func (w Wire) ReadUntil(suffix string) error {
	have, err := w.Read(nil, func(have []byte) bool { return bytes.HasSuffix(have, []byte(suffix)) })
	if err == nil && !bytes.HasSuffix(have, []byte(suffix)) {
		err = errors.New("the connection ended")
	}
	if err != nil {
		return fmt.Errorf("%w after %q, want %q", err, have, suffix)
	}
	return nil
}

// Close closes the socket.
func (w Wire) Close() { _ = syscall.Close(w.fd) }

// Diag asks the kernel about the server's ends of Wires. Not for concurrent use.
type Diag struct {
	fd int
}

// OpenDiag opens a netlink socket. Whoever calls it closes the Diag.
func OpenDiag() (Diag, error) {
	const netlinkSockDiag = 4
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, netlinkSockDiag)
	if err != nil {
		return Diag{-1}, fmt.Errorf("socket for sock_diag: %w", err)
	}
	return Diag{fd}, nil
}

// Unread is how many bytes that w has sent lie in the kernel and were read by
// nobody, accepted or not. 0 too when the server's end is closed; open says
// whether there is one.
//
//	nlmsghdr      length u32, type u16 = 20, flags u16 = 1, sequence u32, port u32
//	inet_diag_req_v2  family u8, protocol u8, extensions u8, 0 u8, states u32, id
//	id            local port be16, remote port be16, local [16], remote [16], interface u32, cookie u64
//	inet_diag_msg family u8, state u8, timer u8, retransmits u8, id, expires u32, unread u32, …
//
// Source: sock_diag(7).
func (d Diag) Unread(w Wire) (unread int, open bool, err error) {
	local, err := syscall.Getpeername(w.fd) // the server's end is local to the server
	if errors.Is(err, syscall.ENOTCONN) {
		return 0, false, nil // it was reset
	}
	if err != nil {
		return 0, false, fmt.Errorf("getpeername: %w", err)
	}
	remote, err := syscall.Getsockname(w.fd)
	if err != nil {
		return 0, false, fmt.Errorf("getsockname: %w", err)
	}
	const head, id, idSize = 16, 16 + 8, 48
	var b [head + 8 + idSize]byte
	order.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	order.NativeEndian.PutUint16(b[4:], 20) // SOCK_DIAG_BY_FAMILY
	order.NativeEndian.PutUint16(b[6:], syscall.NLM_F_REQUEST)
	b[head], b[head+1] = syscall.AF_INET, syscall.IPPROTO_TCP
	order.NativeEndian.PutUint32(b[head+4:], ^uint32(0)) // in any state
	for i, end := range []syscall.Sockaddr{local, remote} {
		in, ok := end.(*syscall.SockaddrInet4)
		if !ok {
			return 0, false, fmt.Errorf("an address of type %T", end)
		}
		order.BigEndian.PutUint16(b[id+2*i:], uint16(in.Port))
		copy(b[id+4+16*i:], in.Addr[:])
	}
	order.NativeEndian.PutUint64(b[id+idSize-8:], ^uint64(0)) // no cookie
	if err := syscall.Sendto(d.fd, b[:], 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return 0, false, fmt.Errorf("send to sock_diag: %w", err)
	}
	var answer [1024]byte
	n, _, err := syscall.Recvfrom(d.fd, answer[:], 0)
	if err != nil {
		return 0, false, fmt.Errorf("receive from sock_diag: %w", err)
	}
	switch kind := order.NativeEndian.Uint16(answer[4:]); {
	case kind == syscall.NLMSG_ERROR && n >= head+4:
		errno := syscall.Errno(-int32(order.NativeEndian.Uint32(answer[head:])))
		if errno == syscall.ENOENT {
			return 0, false, nil
		}
		return 0, false, fmt.Errorf("sock_diag: %w", errno)
	case kind != 20 || n < head+4+idSize+8:
		return 0, false, fmt.Errorf("sock_diag: %d bytes of type %d", n, kind)
	}
	return int(order.NativeEndian.Uint32(answer[head+4+idSize+4:])), true, nil
}

// Close closes the socket.
func (d Diag) Close() { _ = syscall.Close(d.fd) }
