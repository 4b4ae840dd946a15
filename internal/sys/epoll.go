package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// EpollEvent is what epoll_wait(2) says of one descriptor: Fd and Events.
type EpollEvent = unix.EpollEvent

// EpollWait fills events with what is ready of the set epfd, and returns how many.
// It waits until there is one, for millis milliseconds at most, or without limit when millis is
// negative. A signal may end a wait with a limit, and does not end one without. Hot.
//
// Source: epoll_wait(2).
func EpollWait(epfd int, events []EpollEvent, millis int) (n int, err error) {
	for {
		n, err := unix.EpollWait(epfd, events, millis)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, fmt.Errorf("epoll_wait: %w", err)
		}
		if millis >= 0 {
			return 0, nil
		}
	}
}
