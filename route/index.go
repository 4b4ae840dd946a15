package route

import (
	"cmp"
	"math/bits"
	"slices"
)

// index is a persistent hash index: apply returns a new one that shares with
// the old one all it did not touch. Who reads an index needs no lock.
//
// It is extendible hashing over small packed leaves. The first bits of a
// slot's hash choose a cell; cells that a leaf does not tell apart hold the
// same leaf. Inside a leaf, the next bits choose a group to start from, and
// the last eight are the slot's tag:
//
//	hash   63 … 64-bits | … | 39 … 8      | 7 … 0
//	       cell               first group   tag
//
// S is what a user keeps of an element: a pointer, or with it what decides
// about a match, so that a search reads the cell and a group's tags, two bytes
// an element, which stay in the caches when the elements do not, and then ends
// or reads one slot. PERFORMANCE.md, "Route table". The zero S is none.
//
// The hash is seeded per table lineage and never leaves it, so nobody can
// choose keys that meet. Only elements of one and the same hash input can
// crowd a leaf, and each user of an index bounds those.
type index[S comparable] struct {
	cells []cell[S] // 1<<bits of them, or none
	shift uint8     // 64 - bits
	n     int       // slots
}

// cell is a leaf: all slots whose hash starts with the same depth bits. It is
// repeated in 1<<(bits-depth) neighbouring cells.
type cell[S comparable] struct {
	// One per group. Byte i of tags is that of slots[first+i], 0: none; the
	// last byte is tagPassed or 0.
	tags  []uint64
	first []uint16
	slots []S
	depth uint8
}

const (
	slotsPerGroup = 7
	tagPassed     = uint64(1) << 56 // a slot that starts here is in a later group
	tagOnes       = uint64(0x0101010101010101)
	tagLows       = uint64(0x7f7f7f7f7f7f7f7f)
	tagHighs      = uint64(0x0080808080808080) // of the slots

	leafMax  = 512 // more slots than this split a leaf: copying one takes some 10 µs
	leafMin  = 192 // two neighbours with no more than this together become one
	leafFill = 5   // a leaf has a group for each so many slots
	bitsMin  = 1
	bitsMax  = 30 // the bits below 40 are the groups'; 30 are never reached
)

// tagOf never is 0.
func tagOf(h uint64) uint64 {
	if t := h & 0xff; t != 0 {
		return t
	}
	return 0xff
}

// candidates has, for each slot with that tag, the high bit of its byte set.
func candidates(tags, tag uint64) uint64 {
	x := tags ^ tag*tagOnes
	return ^((x&tagLows + tagLows) | x) & tagHighs
}

func firstGroup(h uint64, groups int) int {
	return int(uint64(uint32(h>>8)) * uint64(groups) >> 32)
}

// leaf is where the slots with that hash are.
func (ix *index[S]) leaf(h uint64) *cell[S] {
	return &ix.cells[h>>(ix.shift&63)]
}

// each calls yield for every slot that may have that hash.
func (ix *index[S]) each(h uint64, yield func(S) bool) {
	if ix.n == 0 {
		return
	}
	c := ix.leaf(h)
	g := firstGroup(h, len(c.tags))
	for range c.tags {
		for marks := candidates(c.tags[g], tagOf(h)); marks != 0; marks &= marks - 1 {
			if !yield(c.slots[int(c.first[g])+bits.TrailingZeros64(marks)>>3]) {
				return
			}
		}
		if c.tags[g]&tagPassed == 0 {
			return
		}
		if g++; g == len(c.tags) {
			g = 0
		}
	}
}

// all calls yield for every slot.
func (ix *index[S]) all(yield func(S) bool) {
	for i := 0; i < len(ix.cells); i += ix.cells[i].width(ix.shift) {
		for _, s := range ix.cells[i].slots {
			if !yield(s) {
				return
			}
		}
	}
}

// width is the number of neighbouring cells that hold the leaf.
func (c *cell[S]) width(shift uint8) int { return 1 << (64 - shift - c.depth) }

// swap is one step of apply: old goes, new comes; either may be zero. Both have
// the hash.
type swap[S comparable] struct {
	hash     uint64
	old, new S
}

// element is a slot on its way into a leaf.
type element[S comparable] struct {
	hash uint64
	slot S
}

// apply makes the index that follows ix. No slot is in two swaps. swaps is
// reordered. hash is that of a slot.
func (ix *index[S]) apply(swaps []swap[S], hash func(*S) uint64) index[S] {
	if len(swaps) == 0 {
		return *ix
	}
	slices.SortFunc(swaps, func(a, b swap[S]) int { return cmp.Compare(a.hash, b.hash) })
	b := builder[S]{hash: hash}
	if next, ok := ix.patch(swaps, &b); ok {
		return next
	}
	if len(ix.cells) == 0 {
		b.split(b.change(&cell[S]{}, swaps), 0, 0)
	}
	for i := 0; i < len(ix.cells); {
		c := &ix.cells[i]
		start := uint64(i) << ix.shift
		k := c.covers(start, swaps)
		if k == 0 {
			b.push(*c, start)
		} else {
			b.split(b.change(c, swaps[:k]), start, c.depth)
		}
		swaps = swaps[k:]
		i += c.width(ix.shift)
	}
	return b.index()
}

// covers counts the first swaps that belong to c; none before start is left.
func (c *cell[S]) covers(start uint64, swaps []swap[S]) int {
	last := start | (1<<(64-c.depth) - 1)
	k := 0
	for k < len(swaps) && swaps[k].hash <= last {
		k++
	}
	return k
}

// patch is apply for the usual case, that each leaf stays one leaf: the cells
// are copied as they are, but for those of the leaves that change.
func (ix *index[S]) patch(swaps []swap[S], b *builder[S]) (next index[S], ok bool) {
	if len(ix.cells) == 0 {
		return next, false
	}
	next = index[S]{slices.Clone(ix.cells), ix.shift, ix.n}
	for len(swaps) > 0 {
		i := int(swaps[0].hash >> (ix.shift & 63))
		c := &ix.cells[i]
		i &^= c.width(ix.shift) - 1
		k := c.covers(uint64(i)<<ix.shift, swaps)
		elements := b.change(c, swaps[:k])
		if len(elements) > leafMax || len(elements) < len(c.slots) && len(elements) <= leafMin {
			return next, false // a leaf to split, or perhaps to join
		}
		leaf := newLeaf(elements, c.depth)
		for j := range c.width(ix.shift) {
			next.cells[i+j] = leaf
		}
		next.n += len(elements) - len(c.slots)
		swaps = swaps[k:]
	}
	return next, true
}

// builder lays leaves side by side, in the order of their hashes.
type builder[S comparable] struct {
	hash     func(*S) uint64
	leaves   []cell[S]
	starts   []uint64     // the lowest hash of each leaf
	elements []element[S] // of the leaf that changes
}

// change says what is in c after swaps; valid until the next call.
func (b *builder[S]) change(c *cell[S], swaps []swap[S]) []element[S] {
	var none S
	gone := make(map[S]bool)
	for i := range swaps {
		if swaps[i].old != none {
			gone[swaps[i].old] = true
		}
	}
	b.elements = b.elements[:0]
	for i := range c.slots {
		if len(gone) == 0 || !gone[c.slots[i]] {
			b.elements = append(b.elements, element[S]{b.hash(&c.slots[i]), c.slots[i]})
		}
	}
	for i := range swaps {
		if swaps[i].new != none {
			b.elements = append(b.elements, element[S]{swaps[i].hash, swaps[i].new})
		}
	}
	return b.elements
}

// split makes one leaf of the elements, or several when they are too many. The
// elements are reordered.
func (b *builder[S]) split(elements []element[S], start uint64, depth uint8) {
	if depth == bitsMax || depth >= bitsMin && len(elements) <= leafMax {
		b.push(newLeaf(elements, depth), start)
		return
	}
	half := uint64(1) << (63 - depth)
	low := 0
	for i := range elements {
		if elements[i].hash&half == 0 {
			elements[low], elements[i] = elements[i], elements[low]
			low++
		}
	}
	b.split(elements[:low], start, depth+1)
	b.split(elements[low:], start|half, depth+1)
}

// push adds a leaf after the ones before, and joins it with its neighbour, as
// long as both are the halves of one leaf and have few elements.
func (b *builder[S]) push(c cell[S], start uint64) {
	for len(b.leaves) > 0 && c.depth > bitsMin {
		before := &b.leaves[len(b.leaves)-1]
		half := uint64(1) << (64 - c.depth)
		if before.depth != c.depth || start&half == 0 || len(before.slots)+len(c.slots) > leafMin {
			break
		}
		var both []element[S]
		for _, slots := range [2][]S{before.slots, c.slots} {
			for i := range slots {
				both = append(both, element[S]{b.hash(&slots[i]), slots[i]})
			}
		}
		c = newLeaf(both, c.depth-1)
		start &^= half
		b.leaves = b.leaves[:len(b.leaves)-1]
		b.starts = b.starts[:len(b.starts)-1]
	}
	b.leaves = append(b.leaves, c)
	b.starts = append(b.starts, start)
}

// newLeaf packs elements. There is more room in the groups than elements, which
// bounds the walk to a free place.
func newLeaf[S comparable](elements []element[S], depth uint8) cell[S] {
	if len(elements) == 0 {
		return cell[S]{depth: depth}
	}
	groups := (len(elements) + leafFill - 1) / leafFill
	c := cell[S]{
		tags:  make([]uint64, groups),
		first: make([]uint16, groups),
		slots: make([]S, len(elements)),
		depth: depth,
	}
	type place struct{ group, slot int }
	places := make([]place, 0, leafMax)
	filled := make([]int, groups)
	for i := range elements {
		g := firstGroup(elements[i].hash, groups)
		for filled[g] == slotsPerGroup {
			c.tags[g] |= tagPassed
			if g++; g == groups {
				g = 0
			}
		}
		places = append(places, place{g, filled[g]})
		filled[g]++
	}
	first := 0
	for g := range c.first {
		c.first[g] = uint16(first)
		first += filled[g]
	}
	for i := range elements {
		p := places[i]
		c.tags[p.group] |= tagOf(elements[i].hash) << (8 * p.slot)
		c.slots[int(c.first[p.group])+p.slot] = elements[i].slot
	}
	return c
}

func (b *builder[S]) index() index[S] {
	bits, n := uint8(bitsMin), 0
	for i := range b.leaves {
		bits = max(bits, b.leaves[i].depth)
		n += len(b.leaves[i].slots)
	}
	if n == 0 {
		return index[S]{}
	}
	ix := index[S]{cells: make([]cell[S], 0, 1<<bits), shift: 64 - bits, n: n}
	for i := range b.leaves {
		for range 1 << (bits - b.leaves[i].depth) {
			ix.cells = append(ix.cells, b.leaves[i])
		}
	}
	return ix
}
