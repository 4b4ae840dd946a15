package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ended says whether the child behind a pidfd has ended. It does not wait and
// does not reap. A child that is not ours (any more) has ended.
//
// Source: waitid(2), WNOHANG and WNOWAIT.
func Ended(pidfd int) bool {
	type siginfo struct { // the part that waitid fills, on 64-bit machines
		signo, errno, code, _ int32
		pid                   int32
	}
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, pidfd, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		return err != nil || (*siginfo)(unsafe.Pointer(&info)).pid != 0
	}
}

// SignalName is the name of a signal ("SIGSEGV"); of a real-time one, "SIGRT" and its number.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	n := int(s)
	return "SIGRT" + string([]byte{byte('0' + n/10%10), byte('0' + n%10)})
}
