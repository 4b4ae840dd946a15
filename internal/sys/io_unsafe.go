package sys

import (
	"syscall"
	"unsafe"
)

// Read reads at most len(p) bytes from fd, which must not block.
//
// n is 0 with errno 0 at the end of the stream, and when p is empty. Hot.
//
// Source: read(2).
func Read(fd int, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e == 0 {
			return int(r), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// Write writes at most len(p) bytes to fd, which must not block. n may be less
// than len(p): the caller keeps the rest. Hot.
//
// EPIPE says that nobody reads at the other end; the SIGPIPE that comes with it
// ends in the Go runtime's handler, which ignores it.
//
// Source: write(2), package os/signal on SIGPIPE.
func Write(fd int, p []byte) (n int, errno syscall.Errno) {
	for {
		r, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e == 0 {
			return int(r), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// CloseRaw closes fd. What close(2) reports about a descriptor that is gone
// anyway helps nobody, so it is not returned; closing a number that is not open
// is a mistake of ours and panics, because the next one might hit a descriptor
// of somebody else. Hot.
//
// Source: close(2): the descriptor is released even on EINTR and EIO.
func CloseRaw(fd int) {
	_, _, e := syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0)
	if e == syscall.EBADF {
		panic("sys: a descriptor was closed that is not open")
	}
}

// Shutdown ends one or both directions (syscall.SHUT_RD, SHUT_WR, SHUT_RDWR) of
// the connection behind fd, for every descriptor of it in every process. The
// error is a syscall.Errno; ENOTCONN says that the peer has ended it. Hot.
//
// Source: shutdown(2).
func Shutdown(fd, how int) error {
	_, _, e := syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
	if e != 0 {
		return e
	}
	return nil
}
