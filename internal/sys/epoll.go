package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// EpollEvent is what epoll_wait(2) says of one descriptor: Fd and Events.
type EpollEvent = unix.EpollEvent

// EpollWait waits until a descriptor of the set epfd is ready, and fills events
// with at least one. A signal does not end the wait. Hot.
//
// Source: epoll_wait(2).
func EpollWait(epfd int, events []EpollEvent) (n int, err error) {
	for {
		n, err := unix.EpollWait(epfd, events, -1)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, fmt.Errorf("epoll_wait: %w", err)
		}
	}
}
