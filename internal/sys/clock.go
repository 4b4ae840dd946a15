package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockBase ties the Go runtime's reading of CLOCK_MONOTONIC, which is cheap but
// only offered relative to another reading, to the clock's own count, which is
// the same in every process of the machine. Immutable after start.
var clockBase, clockBaseNanos = tieClocks()

// ClockMonotonic returns CLOCK_MONOTONIC in nanoseconds, without a system call.
// Values of two processes of one machine can be compared, to within a few
// microseconds.
//
// Source: clock_gettime(2); package time: time.Since uses the monotonic reading,
// which on Linux is CLOCK_MONOTONIC.
func ClockMonotonic() int64 { return clockBaseNanos + int64(time.Since(clockBase)) }

// tieClocks reads both clocks, the one between two readings of the other, until
// the two were close together, or ten times.
func tieClocks() (base time.Time, nanos int64) {
	gapBest := int64(1) << 62
	for range 10 {
		before := readMonotonic()
		now := time.Now()
		after := readMonotonic()
		if gap := after - before; gap < gapBest {
			gapBest, base, nanos = gap, now, before+gap/2
		}
		if gapBest < int64(2*time.Microsecond) {
			break
		}
	}
	return base, nanos
}

func readMonotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("sys: CLOCK_MONOTONIC cannot be read: " + err.Error())
	}
	return ts.Nano()
}
