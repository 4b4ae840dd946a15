package wasm

import (
	"fmt"

	"baton/internal/fd"
	"baton/internal/sys"
)

// image is the memory that every invocation starts from: an anonymous file,
// mapped privately by each instance and read by put-back. Immutable; shared by the instances that start from it.
type image struct {
	file fd.FD
	view []byte // the whole image, read-only
}

// newImage keeps a copy of mem.
func newImage(mem []byte) (*image, error) {
	n, err := sys.MemfdCreate("baton-image", int64(len(mem)))
	if err != nil {
		return nil, err
	}
	im := &image{file: fd.New(n)}
	if len(mem) == 0 {
		return im, nil
	}
	// Pages of zeros stay holes of the file.
	for at := 0; at < len(mem); at += sys.PageSize {
		page := mem[at : at+sys.PageSize]
		if zero(page) {
			continue
		}
		if err := sys.WriteAt(n, page, int64(at)); err != nil {
			_ = im.file.Close()
			return nil, err
		}
	}
	if im.view, err = sys.MmapRead(n, len(mem)); err != nil {
		_ = im.file.Close()
		return nil, err
	}
	sys.PopulateRead(im.view)
	return im, nil
}

func zero(p []byte) bool {
	for _, c := range p {
		if c != 0 {
			return false
		}
	}
	return true
}

// close unmaps the image. No instance may put back from it any more; those
// that still map the file are not disturbed.
func (im *image) close() {
	if len(im.view) > 0 {
		_ = sys.Munmap(im.view)
	}
	_ = im.file.Close()
}

// How put-back keeps the list of dirty pages short (see restore).
const (
	// copyMax: a memory up to this size is copied back whole, which costs less than
	// asking the kernel whether anything happened.
	copyMax = 64 << 10
	// dirtyFew: up to so many bytes of dirty pages are copied back for ever.
	// More, and the list is begun anew from time to time.
	dirtyFew = 256 << 10
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
// Invariant: outside of dirty, region[:len(image)] reads as the image and the
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
	faults  uint64 // the process's count at the last look: no page of ours became private since

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
	return &memory{region: region, limit: limit, pagemap: pagemap, renew: renewFirst}, nil
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
	if m.region != nil {
		_ = sys.Munmap(m.region)
		m.region = nil
	}
}

// adopt makes im what the memory is put back to, and puts it back.
func (m *memory) adopt(im *image) error {
	if len(im.view) > m.limit {
		return fmt.Errorf("image of %d bytes in a memory of %d", len(im.view), m.limit)
	}
	if err := sys.Discard(m.region[:m.high]); err != nil {
		return err
	}
	m.image, m.length, m.high = im, len(im.view), len(im.view)
	if m.length <= copyMax {
		copy(m.region, im.view)
		m.dirty = append(m.dirty[:0], sys.PageRange{Start: 0, End: m.length})
		m.bytes = m.length
		return nil
	}
	if err := sys.MmapOver(m.region[:m.length], im.file.Borrow()); err != nil {
		return err
	}
	sys.PopulateRead(m.region[:m.length])
	m.dirty, m.bytes = m.dirty[:0], 0
	m.faults = 0 // unknown: the first restore looks
	return nil
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
func (m *memory) looks() bool { return m.high > len(m.image.view) || len(m.image.view) > copyMax }

// restore puts back what was written since adopt or the last restore. faults
// is the process's count of page faults, read after the last write; without
// meaning when looks is false.
func (m *memory) restore(faults uint64) error {
	if m.looks() {
		if faults != m.faults {
			m.faults = faults
			var err error
			if m.dirty, err = m.pagemap.Private(m.region[:m.high], m.dirty[:0]); err != nil {
				return err
			}
			m.bytes = 0
			for _, r := range m.dirty {
				m.bytes += r.End - r.Start
			}
		}
	}
	view := m.image.view
	for _, r := range m.dirty {
		if r.Start < len(view) {
			n := copy(m.region[r.Start:r.End], view[r.Start:])
			clear(m.region[r.Start+n : r.End])
		} else {
			clear(m.region[r.Start:r.End])
		}
	}
	m.length = len(view)
	if m.bytes > dirtyFew {
		return m.renewal()
	}
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
	view := len(m.image.view)
	for _, r := range m.dirty {
		if view <= copyMax && r.Start < view {
			if r.End <= view {
				continue // not mapped from the file: always copied
			}
			r.Start = view
		}
		if err := sys.Discard(m.region[r.Start:r.End]); err != nil {
			return err
		}
	}
	m.dirty, m.bytes = m.dirty[:0], 0
	m.high = view
	if view <= copyMax {
		m.dirty = append(m.dirty, sys.PageRange{Start: 0, End: view})
		m.bytes = view
	} else {
		sys.PopulateRead(m.region[:view])
	}
	m.faults = 0
	return nil
}
