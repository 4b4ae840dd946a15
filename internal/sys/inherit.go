package sys

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// CloseOnExecFrom marks every open descriptor from first on close-on-exec: those
// that this process was started with (a shell's, make's job server) are not for
// the processes that it starts. Ours are marked from their birth.
//
// Source: close_range(2), CLOSE_RANGE_CLOEXEC, Linux 5.11.
func CloseOnExecFrom(first int) error {
	if err := unix.CloseRange(uint(first), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}
