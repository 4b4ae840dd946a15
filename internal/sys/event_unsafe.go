package sys

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Eventfd makes a counter that a loop can wait for: EventfdSignal makes it
// readable, EventfdDrain makes it unreadable again. It does not block. The
// descriptor is the caller's.
//
// Source: eventfd(2).
func Eventfd() (fd int, err error) {
	fd, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	return fd, nil
}

// EventfdSignal makes fd readable. It cannot be lost: the counter is full only
// after 2^64-2 signals, and then fd is readable already. Hot.
func EventfdSignal(fd int) {
	one := uint64(1)
	_, _ = Write(fd, (*[8]byte)(unsafe.Pointer(&one))[:])
}

// EventfdDrain takes all signals at once. Hot.
func EventfdDrain(fd int) {
	var b [8]byte
	_, _ = Read(fd, b[:])
}

// Timerfd makes a timer of the monotonic clock that a loop can wait for. It
// does not block and is not set. The descriptor is the caller's.
//
// Source: timerfd_create(2).
func Timerfd() (fd int, err error) {
	fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("timerfd_create: %w", err)
	}
	return fd, nil
}

// TimerfdSet makes fd readable after first, and every interval from then on; an
// interval of zero means once, a first of zero turns the timer off.
//
// Source: timerfd_settime(2).
func TimerfdSet(fd int, first, interval time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(first)), Interval: unix.NsecToTimespec(int64(interval))}
	_, _, e := syscall.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("timerfd_settime: %w", e)
	}
	return nil
}

// TimerfdDrain makes fd unreadable until it expires again. Hot.
func TimerfdDrain(fd int) {
	var b [8]byte
	_, _ = Read(fd, b[:])
}
