package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SetPipeSize sets how much a pipe holds, in bytes. EPERM: above the limit of
// this user; EBUSY: it holds more.
//
// Source: fcntl(2), F_SETPIPE_SZ; pipe(7).
func SetPipeSize(n, size int) error {
	if _, err := unix.FcntlInt(uintptr(n), unix.F_SETPIPE_SZ, size); err != nil {
		return fmt.Errorf("set the size of a pipe: %w", err)
	}
	return nil
}
