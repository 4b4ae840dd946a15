package sys

import (
	"syscall"
	"testing"
)

func TestCloseOnExecFrom(t *testing.T) {
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil { // without close-on-exec, on purpose
		t.Fatal(err)
	}
	defer CloseRaw(fds[0])
	defer CloseRaw(fds[1])
	if err := CloseOnExecFrom(3); err != nil {
		t.Fatal(err)
	}
	for _, n := range fds {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(n), syscall.F_GETFD, 0)
		if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d: flags %#x, %v; want FD_CLOEXEC", n, flags, errno)
		}
	}
}
