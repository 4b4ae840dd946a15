package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// PeerCred tells who connected to the Unix stream socket n: the process and
// its user as they were at connect(2). The process may have ended since, and
// its id may be another's by now; PeerPidfd tells.
//
// Source: unix(7), SO_PEERCRED.
func PeerCred(n int) (pid int, uid uint32, err error) {
	for {
		cred, err := unix.GetsockoptUcred(n, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, 0, os.NewSyscallError("getsockopt SO_PEERCRED", err)
		}
		return int(cred.Pid), cred.Uid, nil
	}
}

// PeerPidfd opens the process that connected to the Unix stream socket n. The
// caller owns the result, which is close-on-exec. A kernel before 6.5 answers
// ENOPROTOOPT; ESRCH and EINVAL say that the process is gone.
func PeerPidfd(n int) (int, error) {
	for {
		pidfd, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, os.NewSyscallError("getsockopt SO_PEERPIDFD", err)
		}
		return pidfd, nil
	}
}

// PidfdGone says whether the process behind a pidfd has ended and been reaped,
// so that its id may be another's.
func PidfdGone(pidfd int) bool {
	for {
		err := unix.PidfdSendSignal(pidfd, 0, nil, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return errors.Is(err, unix.ESRCH)
	}
}
