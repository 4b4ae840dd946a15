package sys

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PidfdOpen returns a descriptor of the process pid, which names that process
// and no later one with the same number, and is readable once it has ended. The
// descriptor is the caller's. ESRCH: there is no such process.
//
// Source: pidfd_open(2), Linux 5.3.
func PidfdOpen(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	return fd, nil
}

// PidfdSignal sends a signal to the process behind the pidfd. ESRCH: it has
// ended and was reaped.
//
// Source: pidfd_send_signal(2), Linux 5.1.
func PidfdSignal(fd int, sig syscall.Signal) error {
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return fmt.Errorf("pidfd_send_signal: %w", err)
	}
	return nil
}

// Exit says how a child ended.
type Exit struct {
	Pid    int
	Code   int            // exit status, when Signal is 0
	Signal syscall.Signal // the signal that ended it, or 0
	Dumped bool           // … and there is a core dump
}

// WaitPidfd waits until the child behind the pidfd has ended, and reaps it.
// ECHILD: it is no child of ours, or was reaped already.
//
// Source: waitid(2), P_PIDFD, Linux 5.4.
func WaitPidfd(fd int) (Exit, error) {
	// The part of siginfo_t that waitid fills, on 64-bit machines.
	type siginfo struct {
		signo, errno, code, _ int32
		pid, uid, status      int32
	}
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Exit{}, fmt.Errorf("waitid: %w", err)
		}
		s := (*siginfo)(unsafe.Pointer(&info))
		e := Exit{Pid: int(s.pid)}
		if s.code == cldExited {
			e.Code = int(s.status)
		} else {
			e.Signal = syscall.Signal(s.status)
			e.Dumped = s.code == cldDumped
		}
		return e, nil
	}
}

// si_code of a child that ended: sigaction(2).
const (
	cldExited = 1
	cldDumped = 3
)
