package sys

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another open file holds the lock.
var ErrLocked = errors.New("locked by another process")

// Flock takes the exclusive lock on the file behind fd, without waiting:
// ErrLocked when it is taken. The lock ends when the last descriptor of this
// open file is closed, so also when the process dies.
//
// Source: flock(2).
func Flock(fd int) error {
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return ErrLocked
		default:
			return fmt.Errorf("flock: %w", err)
		}
	}
}

// Nofile returns how many descriptors this process may open (the soft limit),
// and how far it may raise that (the hard limit).
//
// Source: getrlimit(2), RLIMIT_NOFILE.
func Nofile() (soft, hard uint64, err error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, 0, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	return r.Cur, r.Max, nil
}

// RaiseNofile raises the soft limit of descriptors to the hard limit and returns
// it. Children started afterwards inherit it: the Go runtime gives them the
// limit from before its own start otherwise. (A child written in Go raises its
// soft limit itself; the hard limit binds it.)
func RaiseNofile() (uint64, error) {
	_, hard, err := Nofile()
	if err != nil {
		return 0, err
	}
	return hard, SetNofile(hard)
}

// SetNofile sets the soft limit of descriptors. Those above it stay open.
func SetNofile(soft uint64) error {
	_, hard, err := Nofile()
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: hard}); err != nil {
		return fmt.Errorf("set RLIMIT_NOFILE to %d: %w", soft, err)
	}
	return nil
}

// Gettid returns the number of the calling thread. It means something only
// while the goroutine is locked to it.
func Gettid() int { return unix.Gettid() }
