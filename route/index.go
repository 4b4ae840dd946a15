package route

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
)

// index is a persistent hash index: apply returns a new one that shares with
// the old one all it did not touch. Who reads an index needs no lock.
//
// It is extendible hashing over small packed leaves. The first bits of an
// element's hash choose a cell; cells that a leaf does not tell apart hold the
// same leaf. Inside a leaf, the next bits choose a group to start from, and
// the last eight are the element's tag:
//
//	hash   63 … 64-bits | … | 39 … 8      | 7 … 0
//	       cell               first group   tag
//
// A search reads the cell and a group's tags, two bytes an element, which stay
// in the caches when the elements do not, and then ends, or reads where the
// key is, the key, and the element's address beside it; it never waits for the
// element itself. PERFORMANCE.md, "Route table".
//
// The hash is seeded per table lineage and never leaves it, so nobody can
// choose keys that meet. Only elements of one and the same hash input can
// crowd a leaf, and each user of an index bounds those.
type index[E any] struct {
	cells []cell[E] // 1<<bits of them, or none
	shift uint8     // 64 - bits
	n     int       // elements
}

// cell is a leaf: all elements whose hash starts with the same depth bits. It
// is repeated in 1<<(bits-depth) neighbouring cells.
type cell[E any] struct {
	tags   []uint64 // one per group; byte i: tag of slot i, 0: free; then tagPassed or 0
	groups []group
	// keys has each element's key, at a multiple of keyUnit: its length and the
	// user's meta (2 bytes each, little endian), then its bytes.
	keys     []byte
	elements []*E
	depth    uint8
}

// group is seven slots. Slot i is elements[first+i].
type group struct {
	keys  [slotsPerGroup]uint16 // where the slot's key is, in units of keyUnit
	first uint16
}

const (
	slotsPerGroup = 7
	keyHead       = 4 // bytes of length and meta
	keyUnit       = 8

	tagPassed = uint64(1) << 56 // an element that starts here is in a later group
	tagOnes   = uint64(0x0101010101010101)
	tagLows   = uint64(0x7f7f7f7f7f7f7f7f)
	tagHighs  = uint64(0x0080808080808080) // of the slots

	leafMax      = 512       // more elements than this split a leaf
	leafBytesMax = 384 << 10 // more bytes of keys than this, too: a place must fit group.keys
	leafMin      = 192       // two neighbours with no more than this together become one
	leafFill     = 5         // a leaf has a group for each so many elements
	bitsMin      = 1
	bitsMax      = 30 // the bits below 40 are the groups'; 30 are never reached
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

// leaf is where the elements with that hash are.
func (ix *index[E]) leaf(h uint64) *cell[E] {
	return &ix.cells[h>>(ix.shift&63)]
}

// each calls yield for every element that may have that hash.
func (ix *index[E]) each(h uint64, yield func(*E) bool) {
	if ix.n == 0 {
		return
	}
	c := ix.leaf(h)
	g := firstGroup(h, len(c.tags))
	for range c.tags {
		for marks := candidates(c.tags[g], tagOf(h)); marks != 0; marks &= marks - 1 {
			if !yield(c.elements[int(c.groups[g].first)+bits.TrailingZeros64(marks)>>3]) {
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

// all calls yield for every element.
func (ix *index[E]) all(yield func(*E) bool) {
	for i := 0; i < len(ix.cells); i += ix.cells[i].width(ix.shift) {
		for _, e := range ix.cells[i].elements {
			if !yield(e) {
				return
			}
		}
	}
}

// width is the number of neighbouring cells that hold the leaf.
func (c *cell[E]) width(shift uint8) int { return 1 << (64 - shift - c.depth) }

// described is what an index asks of its elements. A kept key spares the
// elements a look when their leaf changes.
type described[E any] struct {
	// key is kept in the leaf, with two bytes of the user's choice. In an index
	// whose user looks at the element anyway, all keys are empty and meta is 0.
	key func(*E) (key string, meta uint16)
	// hash is that of the key, or of the element when its key is empty.
	hash func(e *E, key []byte) uint64
}

// swap is one step of apply: old goes, new comes; either may be nil. Both have
// the hash.
type swap[E any] struct {
	hash     uint64
	old, new *E
}

// element is one on its way into a leaf.
type element[E any] struct {
	hash uint64
	e    *E
	key  []byte // may be a view of another leaf's
	meta uint16
}

// keySize is what the key takes in a leaf.
func (e *element[E]) keySize() int {
	if len(e.key) == 0 {
		return 0
	}
	return (keyHead + len(e.key) + keyUnit - 1) &^ (keyUnit - 1)
}

// apply makes the index that follows ix. No element is in two swaps. swaps is
// reordered.
func (ix *index[E]) apply(swaps []swap[E], d described[E]) index[E] {
	if len(swaps) == 0 {
		return *ix
	}
	slices.SortFunc(swaps, func(a, b swap[E]) int { return cmp.Compare(a.hash, b.hash) })
	b := builder[E]{described: d}
	if next, ok := ix.patch(swaps, &b); ok {
		return next
	}
	if len(ix.cells) == 0 {
		b.split(b.change(&cell[E]{}, swaps), 0, 0)
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
func (c *cell[E]) covers(start uint64, swaps []swap[E]) int {
	last := start | (1<<(64-c.depth) - 1)
	k := 0
	for k < len(swaps) && swaps[k].hash <= last {
		k++
	}
	return k
}

// patch is apply for the usual case, that each leaf stays one leaf: the cells
// are copied as they are, but for those of the leaves that change.
func (ix *index[E]) patch(swaps []swap[E], b *builder[E]) (next index[E], ok bool) {
	if len(ix.cells) == 0 {
		return next, false
	}
	next = index[E]{slices.Clone(ix.cells), ix.shift, ix.n}
	for len(swaps) > 0 {
		i := int(swaps[0].hash >> (ix.shift & 63))
		c := &ix.cells[i]
		i &^= c.width(ix.shift) - 1
		k := c.covers(uint64(i)<<ix.shift, swaps)
		elements := b.change(c, swaps[:k])
		if !fitsLeaf(elements) || len(elements) < len(c.elements) && len(elements) <= leafMin {
			return next, false // a leaf to split, or perhaps to join
		}
		leaf := newLeaf(elements, c.depth)
		for j := range c.width(ix.shift) {
			next.cells[i+j] = leaf
		}
		next.n += len(elements) - len(c.elements)
		swaps = swaps[k:]
	}
	return next, true
}

// builder lays leaves side by side, in the order of their hashes.
type builder[E any] struct {
	described[E]
	leaves   []cell[E]
	starts   []uint64     // the lowest hash of each leaf
	elements []element[E] // of the leaf that changes
}

// change says what is in c after swaps; valid until the next call.
func (b *builder[E]) change(c *cell[E], swaps []swap[E]) []element[E] {
	b.elements = b.gather(b.elements[:0], c)
	gone := make(map[*E]bool)
	for _, s := range swaps {
		if s.old != nil {
			gone[s.old] = true
		}
	}
	if len(gone) > 0 {
		b.elements = slices.DeleteFunc(b.elements, func(e element[E]) bool { return gone[e.e] })
	}
	for _, s := range swaps {
		if s.new != nil {
			key, meta := b.key(s.new)
			b.elements = append(b.elements, element[E]{s.hash, s.new, []byte(key), meta})
		}
	}
	return b.elements
}

// gather appends what is in c.
func (b *builder[E]) gather(to []element[E], c *cell[E]) []element[E] {
	for g, tags := range c.tags {
		for slot := 0; slot < slotsPerGroup && tags>>(8*slot)&0xff != 0; slot++ {
			e := element[E]{e: c.elements[int(c.groups[g].first)+slot]}
			if len(c.keys) > 0 {
				key := c.keys[int(c.groups[g].keys[slot])*keyUnit:]
				e.meta = binary.LittleEndian.Uint16(key[2:])
				e.key = key[keyHead:][:binary.LittleEndian.Uint16(key)]
			}
			e.hash = b.hash(e.e, e.key)
			to = append(to, e)
		}
	}
	return to
}

// split makes one leaf of the elements, or several when they are too many. The
// elements are reordered.
func (b *builder[E]) split(elements []element[E], start uint64, depth uint8) {
	if depth == bitsMax || depth >= bitsMin && fitsLeaf(elements) {
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
func (b *builder[E]) push(c cell[E], start uint64) {
	for len(b.leaves) > 0 && c.depth > bitsMin {
		before := &b.leaves[len(b.leaves)-1]
		half := uint64(1) << (64 - c.depth)
		if before.depth != c.depth || start&half == 0 || len(before.elements)+len(c.elements) > leafMin {
			break
		}
		both := b.gather(b.gather(nil, before), &c)
		if !fitsLeaf(both) {
			break
		}
		c = newLeaf(both, c.depth-1)
		start &^= half
		b.leaves = b.leaves[:len(b.leaves)-1]
		b.starts = b.starts[:len(b.starts)-1]
	}
	b.leaves = append(b.leaves, c)
	b.starts = append(b.starts, start)
}

func fitsLeaf[E any](elements []element[E]) bool {
	return len(elements) <= leafMax && keyBytes(elements) <= leafBytesMax
}

func keyBytes[E any](elements []element[E]) int {
	n := 0
	for i := range elements {
		n += elements[i].keySize()
	}
	return n
}

// newLeaf packs elements. There are more slots than elements, which bounds the
// walk to a free one.
func newLeaf[E any](elements []element[E], depth uint8) cell[E] {
	if len(elements) == 0 {
		return cell[E]{depth: depth}
	}
	groups := (len(elements) + leafFill - 1) / leafFill
	c := cell[E]{
		tags:     make([]uint64, groups),
		groups:   make([]group, groups),
		keys:     make([]byte, keyBytes(elements)),
		elements: make([]*E, len(elements)),
		depth:    depth,
	}
	type place struct{ group, slot int }
	places := make([]place, 0, leafMax)
	filled := make([]int, groups)
	for _, e := range elements {
		g := firstGroup(e.hash, groups)
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
	for g := range c.groups {
		c.groups[g].first = uint16(first)
		first += filled[g]
	}
	at := 0
	for i := range elements {
		e := &elements[i]
		group, slot := &c.groups[places[i].group], places[i].slot
		c.tags[places[i].group] |= tagOf(e.hash) << (8 * slot)
		group.keys[slot] = uint16(at / keyUnit)
		c.elements[int(group.first)+slot] = e.e
		if len(e.key) > 0 {
			binary.LittleEndian.PutUint16(c.keys[at:], uint16(len(e.key)))
			binary.LittleEndian.PutUint16(c.keys[at+2:], e.meta)
			copy(c.keys[at+keyHead:], e.key)
			at += e.keySize()
		}
	}
	return c
}

func (b *builder[E]) index() index[E] {
	bits, n := uint8(bitsMin), 0
	for i := range b.leaves {
		bits = max(bits, b.leaves[i].depth)
		n += len(b.leaves[i].elements)
	}
	if n == 0 {
		return index[E]{}
	}
	ix := index[E]{cells: make([]cell[E], 0, 1<<bits), shift: 64 - bits, n: n}
	for i := range b.leaves {
		for range 1 << (bits - b.leaves[i].depth) {
			ix.cells = append(ix.cells, b.leaves[i])
		}
	}
	return ix
}
