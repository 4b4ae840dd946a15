package sys

import (
	"fmt"
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

// AwaitEnd waits until the child pid has ended, and does not reap it: its number, and its group's,
// stay its own. The calling thread waits with it.
//
// Source: waitid(2), WNOWAIT.
func AwaitEnd(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("waitid %d: %w", pid, err)
		}
		return nil
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
