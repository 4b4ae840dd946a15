package sys

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPeerCred(t *testing.T) {
	t.Parallel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])

	pid, uid, err := PeerCred(pair[0])
	if err != nil || pid != os.Getpid() || int(uid) != os.Getuid() {
		t.Errorf("PeerCred = pid %d, uid %d, %v; want %d, %d", pid, uid, err, os.Getpid(), os.Getuid())
	}
	pidfd, err := PeerPidfd(pair[0])
	if errors.Is(err, unix.ENOPROTOOPT) {
		t.Log("this kernel is older than 6.5: no SO_PEERPIDFD")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if PidfdGone(pidfd) {
		t.Error("PidfdGone of this process")
	}
	flags, err := unix.FcntlInt(uintptr(pidfd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags of the pidfd = %#x, %v; want close-on-exec", flags, err)
	}
	if _, _, err := PeerCred(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("PeerCred(-1) = %v, want EBADF", err)
	}
}
