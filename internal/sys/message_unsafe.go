package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MessagePartsMax is the most pieces that one SendMsg gathers.
const MessagePartsMax = 20

// Flags of a received message.
const (
	// MessageTruncated: the message was longer than the buffer; the rest is lost.
	MessageTruncated = unix.MSG_TRUNC
	// ControlTruncated: descriptors were lost, because the control buffer was too
	// small or because this process may open no more. Those that did arrive are
	// the first ones, in order.
	ControlTruncated = unix.MSG_CTRUNC
)

// SendMsg sends parts, one behind the other, as one message, with control as
// its ancillary data (see PutRights). It does not block and raises no SIGPIPE.
// The parts and the control buffer are the caller's again when it returns. At
// most MessagePartsMax parts; more panics. Hot.
//
// Source: sendmsg(2).
func SendMsg(fd int, parts [][]byte, control []byte) (n int, errno syscall.Errno) {
	var iov [MessagePartsMax]syscall.Iovec
	if len(parts) > len(iov) {
		panic("sys: a message of too many parts")
	}
	used := 0
	for _, p := range parts {
		if len(p) > 0 {
			iov[used].Base = unsafe.SliceData(p)
			iov[used].SetLen(len(p))
			used++
		}
	}
	var msg syscall.Msghdr
	msg.Iov = &iov[0]
	msg.Iovlen = uint64(used)
	if len(control) > 0 {
		msg.Control = unsafe.SliceData(control)
		msg.SetControllen(len(control))
	}
	for {
		r, _, e := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		if e == 0 {
			return int(r), 0
		}
		if e != syscall.EINTR {
			return 0, e
		}
	}
}

// RecvMsg receives one message into p and its ancillary data into control,
// without blocking. n and controlLen are what is filled of each; received
// descriptors are close-on-exec and the caller's at once, also when flags
// (MessageTruncated, ControlTruncated) say that something is missing. Hot.
//
// Source: recvmsg(2).
func RecvMsg(fd int, p, control []byte) (n, controlLen, flags int, errno syscall.Errno) {
	var iov syscall.Iovec
	iov.Base = unsafe.SliceData(p)
	iov.SetLen(len(p))
	for {
		var msg syscall.Msghdr
		msg.Iov = &iov
		msg.Iovlen = 1
		if len(control) > 0 {
			msg.Control = unsafe.SliceData(control)
			msg.SetControllen(len(control))
		}
		r, _, e := syscall.RawSyscall(syscall.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), syscall.MSG_DONTWAIT|syscall.MSG_CMSG_CLOEXEC)
		if e == 0 {
			return int(r), int(msg.Controllen), int(msg.Flags) & (MessageTruncated | ControlTruncated), 0
		}
		if e != syscall.EINTR {
			return 0, 0, 0, e
		}
	}
}
