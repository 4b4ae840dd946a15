package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Seals of a memfd: what can never be done to it again.
//
// Source: fcntl(2), "File Sealing".
const (
	SealSeal   = unix.F_SEAL_SEAL   // no further seals
	SealShrink = unix.F_SEAL_SHRINK // no shorter file: a mapping cannot fault
	SealGrow   = unix.F_SEAL_GROW   // no longer file
	SealWrite  = unix.F_SEAL_WRITE  // no other content; no writable mapping exists
)

// MemfdCreate makes an anonymous file of size bytes of zeros, which can be
// sealed. Pages cost memory only once they are touched. The name shows up in
// /proc. The descriptor is the caller's.
//
// Source: memfd_create(2), Linux 3.17.
func MemfdCreate(name string, size int64) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create %s: %w", name, err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		CloseRaw(fd)
		return -1, fmt.Errorf("size memfd %s: %w", name, err)
	}
	return fd, nil
}

// Seal adds seals to the memfd.
func Seal(fd, seals int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal memfd: %w", err)
	}
	return nil
}

// Seals returns the seals of the memfd. EINVAL says that fd is none.
func Seals(fd int) (int, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("read seals: %w", err)
	}
	return seals, nil
}

// MmapShared maps the first size bytes of fd for reading and writing, shared
// with every other mapping of it. Unmap with Munmap.
//
// Source: mmap(2). Touching a page behind the file's end is a SIGBUS, which
// cannot be handled: check the size and the seals of a foreign file first.
func MmapShared(fd, size int) ([]byte, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap %d bytes: %w", size, err)
	}
	return b, nil
}

// MmapRead maps the first size bytes of fd for reading. See MmapShared.
func MmapRead(fd, size int) ([]byte, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("mmap %d bytes: %w", size, err)
	}
	return b, nil
}

// Munmap removes a mapping; touching it afterwards ends the process.
func Munmap(b []byte) error {
	if err := unix.Munmap(b); err != nil {
		return fmt.Errorf("munmap: %w", err)
	}
	return nil
}

// PunchHole gives the pages of [from, from+size) of the file back to the system;
// they read as zeros. from and size are multiples of the page size.
//
// Source: fallocate(2), FALLOC_FL_PUNCH_HOLE.
func PunchHole(fd int, from, size int64) error {
	for {
		err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, size)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("punch hole: %w", err)
		}
		return nil
	}
}

// NextData returns the first range of the file, from offset at on, whose pages
// are there; ok is false when only holes follow. It moves the file's offset,
// which all descriptors of one open file share.
//
// Source: lseek(2), SEEK_DATA and SEEK_HOLE.
func NextData(fd int, at int64) (from, to int64, ok bool, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return 0, 0, false, nil
	}
	if err == nil {
		to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	}
	if err != nil {
		return 0, 0, false, fmt.Errorf("find data: %w", err)
	}
	return from, to, true, nil
}

// FileSize returns the size of the file behind fd in bytes.
func FileSize(fd int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("fstat: %w", err)
	}
	return st.Size, nil
}

// FileIdentity returns what names the open file behind fd on this machine, so
// that two descriptors can be told to be the same thing.
func FileIdentity(fd int) (device, inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, 0, fmt.Errorf("fstat: %w", err)
	}
	return uint64(st.Dev), st.Ino, nil
}

// WriteAt writes all of p into the file behind fd, from offset at on.
//
// Source: pwrite(2).
func WriteAt(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("pwrite: %w", err)
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}
