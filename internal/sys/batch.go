package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SetBatch makes the calling thread one of the policy SCHED_BATCH, or with false
// one of SCHED_OTHER, which is the usual; its nice value stays. A batch
// thread that is woken does not take the processor from the one that runs: it
// waits for that one's sleep, or for the end of its slice, some milliseconds. It
// needs no rights. The thread must be the caller's own (runtime.LockOSThread).
//
// Source: sched(7), sched_setattr(2).
func SetBatch(on bool) error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return fmt.Errorf("sched_getattr: %w", err)
	}
	attr.Policy = unix.SCHED_NORMAL
	if on {
		attr.Policy = unix.SCHED_BATCH
	}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("sched_setattr: %w", err)
	}
	return nil
}
