package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accept4 takes one established connection from the listening socket lfd, which
// must not block. The connection does not block either, and is close-on-exec.
//
// EAGAIN says that none waits; EMFILE, ENFILE, ENOBUFS and ENOMEM that there is
// no resource for it, and it goes on waiting. ECONNABORTED says that this one
// is gone already. The descriptor is the caller's. Hot.
//
// Source: accept4(2).
func Accept4(lfd int) (fd int, peer Peer, errno syscall.Errno) {
	var sa unix.RawSockaddrInet6 // as long as an Inet4, and longer
	for {
		size := uint32(unsafe.Sizeof(sa))
		r, _, e := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(lfd), uintptr(unsafe.Pointer(&sa)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if e == 0 {
			return int(r), peerOf(&sa), 0
		}
		if e != syscall.EINTR {
			return -1, Peer{}, e
		}
	}
}

// Getpeername returns the other end's address of the connected socket fd.
//
// Source: getpeername(2).
func Getpeername(fd int) (Peer, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := syscall.RawSyscall(syscall.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return Peer{}, e
	}
	return peerOf(&sa), nil
}

// peerOf reads an address as the kernel stores it: port and address in network
// byte order. An address of another family (a Unix socket) is the zero Peer.
func peerOf(sa *unix.RawSockaddrInet6) (p Peer) {
	switch sa.Family {
	case unix.AF_INET:
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		p.IP = [16]byte{10: 0xff, 11: 0xff}
		copy(p.IP[12:], in4.Addr[:])
		p.V4 = true
	case unix.AF_INET6:
		p.IP = sa.Addr
		p.V4 = isMapped(&sa.Addr)
	default:
		return Peer{}
	}
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	p.Port = uint16(port[0])<<8 | uint16(port[1])
	return p
}

// isMapped says whether ip is ::ffff:0:0/96, an IPv4 address on a socket that
// serves both families (RFC 4291 section 2.5.5.2).
func isMapped(ip *[16]byte) bool {
	return [12]byte(ip[:12]) == [12]byte{10: 0xff, 11: 0xff}
}
