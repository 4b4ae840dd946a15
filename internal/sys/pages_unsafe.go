package sys

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageSize is the size of a page of memory in bytes on the machines baton runs on.
const PageSize = 4096

// MmapReserve maps size bytes of zeros for reading and writing, private.
// Pages cost memory only once they are touched, and count against no limit before. Unmap with
// Munmap.
//
// Source: mmap(2), MAP_NORESERVE.
func MmapReserve(size int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes: %w", size, err)
	}
	return b, nil
}

// MmapOverAt replaces the pages of b by a private view of the file behind fd,
// from offset at on, a multiple of PageSize: b reads as the file, and writing to b copies the page first.
// The address of b does not change. len(b) is a multiple of PageSize.
//
// Source: mmap(2), MAP_FIXED and MAP_PRIVATE.
func MmapOverAt(b []byte, fd int, at int64) error {
	if len(b) == 0 {
		return nil
	}
	if errno := mapOver(b, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_NORESERVE, fd, at); errno != 0 {
		return fmt.Errorf("map %d bytes over: %w", len(b), errno)
	}
	return nil
}

// MmapCodeOver replaces the pages of b, which must be a mapping of its own and not of
// Go's heap, by those of the file behind fd, from offset at on, for reading and executing: private, and
// shared with every process that does the same. The rest of the last page is the file's
// too. at is a multiple of PageSize; b that does not begin at a page is EINVAL.
//
// Source: mmap(2). EPERM: the file lies where nothing may be executed (noexec).
// When it fails nothing has changed.
func MmapCodeOver(b []byte, fd int, at int64) error {
	if errno := mapOver(b, unix.PROT_READ|unix.PROT_EXEC, 0, fd, at); errno != 0 {
		return fmt.Errorf("map %d bytes of code over: %w", len(b), errno)
	}
	return nil
}

// mapOver replaces the pages of b by a private mapping. EINVAL: b does not begin at a page.
func mapOver(b []byte, prot, flags, fd int, at int64) syscall.Errno {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	got, _, errno := unix.Syscall6(unix.SYS_MMAP, start, uintptr(len(b)),
		uintptr(prot), uintptr(unix.MAP_PRIVATE|unix.MAP_FIXED|flags), uintptr(fd), uintptr(at))
	if errno == 0 && got != start {
		panic("sys: mmap with MAP_FIXED moved")
	}
	return errno
}

// PopulateRead enters the pages of b into the page table as if they had been
// read, in one call instead of a fault each.
//
// Source: madvise(2), MADV_POPULATE_READ, Linux 5.14. Where the kernel does
// not know it, nothing happens: the faults come one by one.
func PopulateRead(b []byte) {
	if len(b) > 0 {
		_ = unix.Madvise(b, unix.MADV_POPULATE_READ)
	}
}

// Retire replaces the pages of b, which must be a mapping of its own, by address space that
// nobody can use: what they held is given back, and the addresses stay taken until
// whoever owns the mapping unmaps it.
//
// Source: mmap(2), MAP_FIXED.
func Retire(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if errno := mapOver(b, unix.PROT_NONE, unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, -1, 0); errno != 0 {
		return fmt.Errorf("retire %d bytes: %w", len(b), errno)
	}
	return nil
}

// Discard drops the private pages of b: they read as what is mapped below, or zeros.
//
// Source: madvise(2), MADV_DONTNEED.
func Discard(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("discard %d bytes: %w", len(b), err)
	}
	return nil
}

// Faults returns how many page faults this process has had: it grows with
// every page that is written for the first time. Hot.
//
// Source: getrusage(2), ru_minflt and ru_majflt of RUSAGE_SELF; every fault
// that succeeds is counted, mm_account_fault in mm/memory.c.
func Faults() uint64 {
	var usage syscall.Rusage
	_, _, errno := syscall.RawSyscall(syscall.SYS_GETRUSAGE, syscall.RUSAGE_SELF, uintptr(unsafe.Pointer(&usage)), 0)
	if errno != 0 {
		panic("sys: getrusage: " + errno.Error())
	}
	return uint64(usage.Minflt) + uint64(usage.Majflt)
}

// PageRange is a range of whole pages, as offsets in bytes into a mapping.
type PageRange struct{ Start, End int }

// Pagemap finds the pages of this process's mappings that are private copies.
// Safe for concurrent use.
type Pagemap struct {
	fd   int
	scan bool // the kernel has PAGEMAP_SCAN
}

// pageRegion is struct page_region, pageScan is struct pm_scan_arg.
//
// Source: include/uapi/linux/fs.h.
type pageRegion struct{ start, end, _ uint64 } // the last are the categories, of which one is asked for

type pageScan struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages, inverted, mask, anyof, ret uint64
}

const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsZero    = 1 << 5
)

// OpenPagemap opens the page table of this process for looking at. It must
// be called before the process loses its sight of /proc.
//
// Source: Documentation/admin-guide/mm/pagemap.rst. PAGEMAP_SCAN is Linux 6.7;
// before that, /proc/self/pagemap is read.
func OpenPagemap() (*Pagemap, error) {
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pagemap: %w", err)
	}
	p := &Pagemap{fd: fd, scan: true}
	probe, err := MmapReserve(PageSize)
	if err != nil {
		CloseRaw(fd)
		return nil, err
	}
	defer func() { _ = Munmap(probe) }()
	if _, err := p.Private(probe, nil); err != nil {
		p.scan = false
		if _, err := p.Private(probe, nil); err != nil {
			CloseRaw(fd)
			return nil, err
		}
	}
	return p, nil
}

// Close closes the page table; p is dead after it.
func (p *Pagemap) Close() { CloseRaw(p.fd) }

// Private appends to dst the ranges of b, ascending, whose pages are not
// (any more) those of the file below: what was ever written since the pages were
// mapped or discarded. It may name pages that were not written, never misses
// one that was. Pages of zeros that were only read are left out where the kernel tells them apart.
// b starts at a page.
func (p *Pagemap) Private(b []byte, dst []PageRange) ([]PageRange, error) {
	if !p.scan {
		return p.privateRead(b, dst)
	}
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	var regions [64]pageRegion
	// Not of a file, not the page of zeros; present or swapped out.
	arg := pageScan{
		start: base, end: base + uint64(len(b)), vec: uint64(uintptr(unsafe.Pointer(&regions))), vecLen: uint64(len(regions)),
		inverted: pageIsFile | pageIsZero, mask: pageIsFile | pageIsZero, anyof: pageIsPresent | pageIsSwapped,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	for arg.start < arg.end {
		n, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(p.fd), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return dst, fmt.Errorf("scan pages: %w", errno)
		}
		for _, r := range regions[:n] {
			dst = appendRange(dst, PageRange{int(r.start - base), int(r.end - base)})
		}
		arg.start = arg.walkEnd
	}
	return dst, nil
}

// privateRead is Private for kernels before 6.7.
func (p *Pagemap) privateRead(b []byte, dst []PageRange) ([]PageRange, error) {
	const present, swapped, file = 1 << 63, 1 << 62, 1 << 61
	base := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	var entries [512]uint64
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&entries)), len(entries)*8)
	for at := 0; at < len(b); at += len(entries) * PageSize {
		want := min(len(entries), (len(b)-at+PageSize-1)/PageSize)
		n, err := unix.Pread(p.fd, raw[:want*8], int64(base+uintptr(at))/PageSize*8)
		if err != nil {
			return dst, fmt.Errorf("read pagemap: %w", err)
		}
		if n != want*8 {
			return dst, fmt.Errorf("read pagemap: %d bytes of %d", n, want*8)
		}
		for i, e := range entries[:want] {
			if e&(present|swapped) != 0 && e&file == 0 {
				dst = appendRange(dst, PageRange{at + i*PageSize, at + (i+1)*PageSize})
			}
		}
	}
	return dst, nil
}

// appendRange appends r, joining it to the last range if they touch.
func appendRange(dst []PageRange, r PageRange) []PageRange {
	if n := len(dst); n > 0 && dst[n-1].End == r.Start {
		dst[n-1].End = r.End
		return dst
	}
	return append(dst, r)
}
