package sys

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Socketpair makes two connected ends of a channel of messages: each arrives
// whole or not at all, in order, and descriptors travel with them. Neither end
// blocks. The descriptors are the caller's.
//
// Source: socketpair(2), unix(7) on SOCK_SEQPACKET.
func Socketpair() (a, b int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socketpair: %w", err)
	}
	return pair[0], pair[1], nil
}

// ListenOptions are the choices of ListenTCP. The zero value is usable.
type ListenOptions struct {
	// ReusePort lets several sockets share the address; the kernel spreads the
	// connections over them.
	ReusePort bool
	// Backlog is how many established connections may wait to be accepted;
	// more get no answer to their handshake and try again. Zero: 4096, the
	// kernel's own default limit (net.core.somaxconn), which also cuts it.
	Backlog int
}

const backlogDefault = 4096

// ListenTCP makes a listening socket that does not block. The address may be in
// use by connections of an earlier process (SO_REUSEADDR). Accepted connections
// send small writes at once: they inherit TCP_NODELAY.
//
// An address without IP (only a port) means every address of the machine, of
// both families where IPv6 is there. The descriptor is the caller's.
//
// Source: ip(7), ipv6(7), tcp(7), socket(7).
func ListenTCP(addr netip.AddrPort, o ListenOptions) (fd int, err error) {
	if !addr.Addr().IsValid() {
		fd, err = listenTCP(netip.AddrPortFrom(netip.IPv6Unspecified(), addr.Port()), o)
		if !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fd, err
		}
		addr = netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
	}
	return listenTCP(addr, o)
}

func listenTCP(addr netip.AddrPort, o ListenOptions) (int, error) {
	ip := addr.Addr().Unmap()
	family := unix.AF_INET6
	var sa unix.Sockaddr
	if ip.Is4() {
		family = unix.AF_INET
		sa = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}
	} else {
		zone, err := zoneOf(ip)
		if err != nil {
			return -1, err
		}
		sa = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16(), ZoneId: zone}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	backlog := o.Backlog
	if backlog == 0 {
		backlog = backlogDefault
	}
	type option struct {
		name              string
		level, key, value int
		wanted            bool
	}
	for _, s := range []option{
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, true},
		{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, o.ReusePort},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, true},
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0, family == unix.AF_INET6 && ip.IsUnspecified()},
	} {
		if !s.wanted {
			continue
		}
		if err := unix.SetsockoptInt(fd, s.level, s.key, s.value); err != nil {
			CloseRaw(fd)
			return -1, fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		CloseRaw(fd)
		return -1, fmt.Errorf("bind %s: %w", addr, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		CloseRaw(fd)
		return -1, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return fd, nil
}

// LocalAddr returns the address that fd is bound to.
func LocalAddr(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("getsockname: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("getsockname: address of another family than IP: %T", sa)
}

// DropAllFilter has the kernel drop every further packet for the socket fd.
// On a listening socket it ends the arrival of connections while those in the
// backlog can still be accepted, untouched: what the kernel has not established
// yet gets no answer, and the client tries again, at the next listener.
//
// Source: socket(7), SO_ATTACH_FILTER; connections established later would
// inherit the filter, those in the backlog do not have it.
func DropAllFilter(fd int) error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop}); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return nil
}

// SetNoDelay has small writes sent at once (tcp(7), TCP_NODELAY).
func SetNoDelay(fd int, on bool) error {
	return setOption(fd, "TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, boolInt(on))
}

// SetDeferAccept has a listening socket announce a connection only when its
// first bytes are there, or after about so many seconds (tcp(7)).
func SetDeferAccept(fd, seconds int) error {
	return setOption(fd, "TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)
}

// SetReusePort lets several sockets share an address (socket(7)).
func SetReusePort(fd int, on bool) error {
	return setOption(fd, "SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, boolInt(on))
}

// SetReuseAddr lets an address be bound that old connections still use.
func SetReuseAddr(fd int, on bool) error {
	return setOption(fd, "SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, boolInt(on))
}

// SetPassCred has the kernel add the sender's credentials to every message that
// fd receives; see Credentials (unix(7), SO_PASSCRED).
func SetPassCred(fd int, on bool) error {
	return setOption(fd, "SO_PASSCRED", unix.SOL_SOCKET, unix.SO_PASSCRED, boolInt(on))
}

// SetSendBuffer asks for room for size bytes of sent and unread messages. The
// kernel counts its own overhead too, doubles size for that, and cuts it to
// net.core.wmem_max; SendBuffer returns what came of it.
//
// Source: socket(7), SO_SNDBUF.
func SetSendBuffer(fd, size int) error {
	return setOption(fd, "SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, size)
}

// SendBuffer returns the room for sent and unread bytes, overhead included.
func SendBuffer(fd int) (int, error) { return getOption(fd, "SO_SNDBUF", unix.SO_SNDBUF) }

// Unacked returns how many sent bytes the peer of a TCP socket has not
// acknowledged, those that were not sent yet included; 0 for what is no TCP
// socket. Hot enough: one system call.
//
// Source: tcp(7), SIOCOUTQ.
func Unacked(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// Unread returns how many bytes have arrived at a socket and were not read; 0
// where that cannot be told.
//
// Source: tcp(7), SIOCINQ.
func Unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// SocketError returns and clears the pending error of fd, 0 for none.
func SocketError(fd int) (int, error) { return getOption(fd, "SO_ERROR", unix.SO_ERROR) }

// SocketKind returns what sort of socket fd is: its domain (AF_INET, …), its
// type (SOCK_STREAM, …), and whether it listens. The error is ENOTSOCK for
// anything else. It allocates nothing unless it fails.
func SocketKind(fd int) (domain, kind int, listening bool, err error) {
	if domain, err = getOption(fd, "SO_DOMAIN", unix.SO_DOMAIN); err != nil {
		return 0, 0, false, err
	}
	if kind, err = getOption(fd, "SO_TYPE", unix.SO_TYPE); err != nil {
		return 0, 0, false, err
	}
	n, err := getOption(fd, "SO_ACCEPTCONN", unix.SO_ACCEPTCONN)
	return domain, kind, n != 0, err
}

func setOption(fd int, name string, level, key, value int) error {
	if err := unix.SetsockoptInt(fd, level, key, value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

func getOption(fd int, name string, key int) (int, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, key)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}

func boolInt(on bool) int {
	if on {
		return 1
	}
	return 0
}

// Events of Poll.
const (
	PollIn  = unix.POLLIN
	PollOut = unix.POLLOUT
	PollHup = unix.POLLHUP
	PollErr = unix.POLLERR
)

// Poll waits until one of events happens at fd, at most timeout; negative means
// for ever. It returns what happened, 0 for the timeout. It blocks its thread:
// not for loops.
//
// Source: poll(2).
func Poll(fd int, events int16, timeout time.Duration) (int16, error) {
	set := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	end := ClockMonotonic() + int64(timeout)
	for {
		millis := -1
		if timeout >= 0 {
			left := time.Duration(max(0, end-ClockMonotonic()))
			millis = int((left + time.Millisecond - 1) / time.Millisecond)
		}
		_, err := unix.Poll(set[:], millis)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("poll: %w", err)
		}
		return set[0].Revents, nil
	}
}

// Dup returns another descriptor of what is behind fd, close-on-exec. It is the
// caller's.
func Dup(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("dup: %w", err)
	}
	return n, nil
}

// SetNonblock says whether calls on fd, and on every duplicate of it, return
// EAGAIN instead of waiting.
func SetNonblock(fd int, on bool) error {
	if err := unix.SetNonblock(fd, on); err != nil {
		return fmt.Errorf("set O_NONBLOCK: %w", err)
	}
	return nil
}

// WaitReadable waits until fd can be read or has ended, at most timeout:
// os.ErrDeadlineExceeded then. It blocks its thread: not for loops.
func WaitReadable(fd int, timeout time.Duration) error {
	happened, err := Poll(fd, PollIn, timeout)
	if err != nil {
		return err
	}
	if happened == 0 {
		return os.ErrDeadlineExceeded
	}
	return nil
}
