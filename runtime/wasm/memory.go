package wasm

import (
	"bytes"
	"fmt"
	goruntime "runtime"

	"baton/internal/fd"
	"baton/internal/sys"
)

// image is the memory that every invocation starts from: an anonymous file with what is not zero,
// mapped privately by each instance and read by put-back. Immutable; shared by the instances that start from it.
type image struct {
	file fd.FD
	view []byte          // of the file, read-only: only data is read, as reading a hole fills it
	size int             // of the memory, in bytes
	data []sys.PageRange // ascending, with gaps between; everything else is zeros
	// mapped is what instances map: all of a small image, because pages of zeros that were only read
	// are not always told from written ones; of a large one, data.
	mapped []sys.PageRange
}

// How an image is cut into data and zeros.
const (
	// gapMin is the shortest run of zeros that is left out, in bytes: each costs a mapping of
	// its own in every instance.
	gapMin = 64 << 10
	// extentsMax is the most ranges of data; with more of them, longer gaps are filled.
	extentsMax = 8
)

// newImage keeps a copy of mem, of which only the ranges touched may hold something else than zeros.
func newImage(mem []byte, touched []sys.PageRange) (*image, error) {
	n, err := sys.MemfdCreate("baton-image", int64(len(mem)))
	if err != nil {
		return nil, err
	}
	im := &image{file: fd.New(n), size: len(mem), data: extents(mem, touched)}
	if len(mem) == 0 {
		return im, nil
	}
	if im.mapped = im.data; im.size <= populateMax {
		im.mapped = []sys.PageRange{{Start: 0, End: im.size}}
	}
	for _, r := range im.data {
		if err := sys.WriteAt(n, mem[r.Start:r.End], int64(r.Start)); err != nil {
			_ = im.file.Close()
			return nil, err
		}
	}
	if im.view, err = sys.MmapRead(n, len(mem)); err != nil {
		_ = im.file.Close()
		return nil, err
	}
	for _, r := range im.data {
		sys.PopulateRead(im.view[r.Start:r.End])
	}
	return im, nil
}

// extents returns where mem is not zeros, in at most extentsMax ranges of pages.
func extents(mem []byte, touched []sys.PageRange) []sys.PageRange {
	var pages []sys.PageRange
	for _, r := range touched {
		for at := r.Start; at < r.End; at += sys.PageSize {
			if bytes.Equal(mem[at:at+sys.PageSize], zeroPage[:]) {
				continue
			}
			if n := len(pages); n > 0 && pages[n-1].End == at {
				pages[n-1].End += sys.PageSize
			} else {
				pages = append(pages, sys.PageRange{Start: at, End: at + sys.PageSize})
			}
		}
	}
	for gap := gapMin; ; gap *= 2 {
		var out []sys.PageRange
		for _, r := range pages {
			if n := len(out); n > 0 && r.Start-out[n-1].End < gap {
				out[n-1].End = r.End
			} else {
				out = append(out, r)
			}
		}
		if len(out) <= extentsMax {
			return out
		}
	}
}

var zeroPage [sys.PageSize]byte

// put makes dst, which begins at the offset at, as the image is there; zeros behind its end.
func (im *image) put(dst []byte, at int) {
	for _, r := range im.data {
		if r.End <= at {
			continue
		}
		if r.Start >= at+len(dst) {
			break
		}
		if n := r.Start - at; n > 0 {
			clear(dst[:n])
			dst, at = dst[n:], r.Start
		}
		n := copy(dst, im.view[at:r.End])
		dst, at = dst[n:], at+n
	}
	clear(dst)
}

// close unmaps the image. No instance may put back from it any more; those
// that still map the file are not disturbed.
func (im *image) close() {
	if len(im.view) > 0 {
		_ = sys.Munmap(im.view)
	}
	_ = im.file.Close()
}

// How put-back works (see restore).
const (
	// calmFirst and calmMax bound how many invocations in a row write no page that was not dirty before
	// the others are guarded: doubled each time the guard was broken.
	calmFirst, calmMax = 32, 4096
	// guardRanges is the most ranges of dirty pages that get a guard: each makes two mappings more.
	guardRanges = 32
	// dirtyFew: up to so many bytes of dirty pages are copied back for ever.
	// More, and the list is begun anew from time to time.
	dirtyFew = 256 << 10
	// scanQuick: to look through the page table of so many bytes takes less than 200 µs, and 3 ms when all
	// of it is dirty.
	scanQuick = 64 << 20
	// heavyMin: from so many bytes of dirty pages on, put-back is not for an event
	// loop's goroutine: about 50 µs.
	heavyMin = 1 << 20
	// restoreStep is how much is copied back before others get their turn.
	restoreStep = 1 << 20
	// populateMax: an image up to this size is mapped and entered into the page table with its
	// zeros, which saves a fault for each page that is read. A larger one would take
	// tens of milliseconds, and memory for its zeros.
	populateMax = 4 << 20
	// renewFirst and renewMax bound how many invocations lie between two
	// beginnings: doubled when the list comes out as long as before.
	renewFirst, renewMax = 16, 4096
)

// memory is the linear memory of one instance, in a mapping of its own whose
// address never changes. It implements experimental.LinearMemory.
//
// Which pages an invocation wrote is told by the page table, so nothing that
// writes (compiled code, our host functions, the kernel) has to say so: the
// mapping is a private view of the image, a page that was written is a private
// copy, and pages become private only by a fault, which the kernel counts. The
// private pages are put back after every invocation and stay private, so
// that the next one, which mostly writes the same pages, faults no more. See
// RATIONALE.md, "How does put-back know what an invocation wrote?".
//
// When the same pages are written each time, the others are made read-only, with a guard that a write
// to one of them breaks: while it holds, nobody has to ask the kernel.
//
// Invariant: outside of dirty, region[:image.size] reads as the image and the
// rest as zeros, when no invocation is running.
type memory struct {
	region []byte // limit bytes
	length int    // of what the module sees: a prefix of region
	high   int    // the longest it was since pages behind the image were discarded
	limit  int
	// refused is set when a growth was refused; the instance clears it.
	refused bool

	image   *image
	pagemap *sys.Pagemap
	dirty   []sys.PageRange
	bytes   int    // in dirty
	faults  uint64 // the process's count at the last look: no page of ours became private since; zero: unknown

	// The guard of what is not dirty.
	guard          *sys.Guard // nil: there was no occasion, or none to be had
	unguardable    bool       // the kernel writes to the memory
	calm, patience int        // invocations in a row without a new dirty page; how many are wanted

	// Renewal of dirty.
	age, renew int
	last       int // bytes in dirty before the last renewal
}

// newMemory reserves limit bytes of address space.
func newMemory(limit int, pagemap *sys.Pagemap) (*memory, error) {
	limit = max(limit, 1<<16)
	region, err := sys.MmapReserve(limit)
	if err != nil {
		return nil, err
	}
	return &memory{region: region, limit: limit, pagemap: pagemap, renew: renewFirst, patience: calmFirst}, nil
}

// Reallocate implements experimental.LinearMemory: nil above the limit.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(m.limit) {
		m.refused = true
		return nil
	}
	m.length = max(m.length, int(size))
	m.high = max(m.high, m.length)
	return m.region[:size:size]
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() {
	if m.guard != nil {
		m.guard.Close()
		m.guard = nil
	}
	if m.region != nil {
		_ = sys.Munmap(m.region)
		m.region = nil
	}
}

// snapshot keeps an image of the memory as it is. Nothing was mapped over it yet.
func (m *memory) snapshot() (*image, error) {
	touched, err := m.pagemap.Private(m.region[:m.length], nil)
	if err != nil {
		return nil, err
	}
	return newImage(m.region[:m.length], touched)
}

// adopt makes im what the memory is put back to, and puts it back.
func (m *memory) adopt(im *image) error {
	if im.size > m.limit {
		return fmt.Errorf("image of %d bytes in a memory of %d", im.size, m.limit)
	}
	if err := m.drop(); err != nil {
		return err
	}
	m.image, m.length, m.high = im, im.size, im.size
	for _, r := range im.mapped {
		if err := sys.MmapOverAt(m.region[r.Start:r.End], im.file.Borrow(), int64(r.Start)); err != nil {
			return err
		}
	}
	m.begun()
	return nil
}

// begun notes that no page is private.
func (m *memory) begun() {
	for _, r := range m.image.mapped {
		sys.PopulateRead(m.region[r.Start:r.End])
	}
	m.dirty, m.bytes, m.calm = m.dirty[:0], 0, 0
	m.faults = 0 // the next restore looks
}

// begin says that an invocation begins; faults is a count of the process's
// page faults that was read before.
func (m *memory) begin(faults uint64) {
	m.refused = false
	if m.faults != 0 {
		m.faults = max(m.faults, faults) // they were not ours
	}
}

// looks reports whether restore needs to know the count of page faults.
func (m *memory) looks() bool { return m.image != nil && !m.guarded() }

// guarded reports whether nothing was written outside of the dirty pages, as the guard knows.
func (m *memory) guarded() bool { return m.guard != nil && m.guard.Holds() }

// protect guards what is not dirty, once the same pages were written often enough.
func (m *memory) protect() {
	if m.calm++; m.calm < m.patience || m.unguardable || len(m.dirty) > guardRanges || m.bytes > dirtyFew {
		return
	}
	m.calm, m.patience = 0, min(2*m.patience, calmMax)
	if m.guard == nil {
		var err error
		if m.guard, err = sys.NewGuard(m.region); err != nil {
			return
		}
	}
	if m.guard.Protect(m.dirty) == nil {
		m.faults = 0 // when it is broken, the next restore looks
	}
}

// open lets the kernel write to the memory, which does not break the guard but fails.
func (m *memory) open() error {
	if m.guard == nil {
		return nil
	}
	return m.guard.Open()
}

// heavy reports whether restore may take longer than an event loop can wait. It looks
// through the page table of a small memory, as restore would; see there for faults.
func (m *memory) heavy(faults uint64) bool {
	if m.image == nil {
		return m.high > heavyMin // to be unmapped
	}
	if m.bytes > heavyMin {
		return true // what was dirty still is; restore looks for more, off the answer's way
	}
	if m.looks() && faults != m.faults {
		if m.high > scanQuick || m.look(faults) != nil {
			return true
		}
	}
	return m.bytes > heavyMin
}

// look lists the dirty pages anew unless no page can have become private.
func (m *memory) look(faults uint64) (err error) {
	if !m.looks() || faults == m.faults {
		return nil
	}
	if m.dirty, err = m.pagemap.Private(m.region[:m.high], m.dirty[:0]); err != nil {
		return err
	}
	m.faults = faults
	before := m.bytes
	m.bytes = 0
	for _, r := range m.dirty {
		m.bytes += r.End - r.Start
	}
	if m.bytes != before {
		m.calm = 0
	}
	return nil
}

// restore puts back what was written since adopt or the last restore. faults
// is the process's count of page faults, read after the last write; without
// meaning when looks is false.
func (m *memory) restore(faults uint64) error {
	if err := m.look(faults); err != nil {
		return err
	}
	copied := 0
	for _, r := range m.dirty {
		for r.Start < r.End {
			end := min(r.End, r.Start+restoreStep)
			m.image.put(m.region[r.Start:end], r.Start)
			copied += end - r.Start
			r.Start = end
			if copied >= restoreStep {
				copied = 0
				goruntime.Gosched() // never on an event loop: heavy
			}
		}
	}
	m.length = m.image.size
	if m.bytes > dirtyFew {
		return m.renewal()
	}
	if !m.guarded() {
		m.protect()
	}
	return nil
}

// drop drops the private pages. Nothing is guarded after it.
func (m *memory) drop() error {
	if err := m.open(); err != nil {
		return err
	}
	return sys.Discard(m.region[:m.high])
}

// discard makes the memory as adopt did.
func (m *memory) discard() error {
	if err := m.drop(); err != nil {
		return err
	}
	m.high = m.image.size
	m.begun()
	return nil
}

// renewal begins the list of dirty pages anew once in a while, so that one
// invocation that wrote much does not make all later ones expensive. It costs a page fault
// for each page that is then written again, which the doubling keeps rare.
func (m *memory) renewal() error {
	if m.age++; m.age < m.renew {
		return nil
	}
	if m.bytes > m.last/2 && m.last > 0 {
		m.renew = min(m.renew*2, renewMax)
	} else {
		m.renew = renewFirst
	}
	m.age, m.last = 0, m.bytes
	return m.discard()
}
