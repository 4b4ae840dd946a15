package sys

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// TimerSlackDefault is the kernel's own timer slack.
const TimerSlackDefault = 50 * time.Microsecond

// TimerSlack returns how late the kernel may wake the calling thread from a
// sleep, so that it wakes several at once.
//
// Source: PR_GET_TIMERSLACK(2const).
func TimerSlack() (time.Duration, error) {
	nanos, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("get timer slack: %w", err)
	}
	return time.Duration(nanos), nil
}

// SetTimerSlack sets it, for the calling thread, the threads and processes that it
// makes from here on, and the program that it becomes.
//
// Source: PR_SET_TIMERSLACK(2const).
func SetTimerSlack(slack time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	return nil
}
