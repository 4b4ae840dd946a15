package prepare

import (
	"errors"
	"slices"
)

// Instructions that work on a range are uninterruptible in wazero and may
// take tens of milliseconds. Each is replaced by the call of a function that
// charges for the range's length and does large ones in pieces; only table.grow is
// done at once, so how far a table may grow is bounded (TableGrowMax).
const (
	// chunk is the longest piece in bytes: about 5 µs at the usual speed, less than a
	// millisecond when each of its pages is written for the first time and faults at 50 µs.
	chunk = 64 << 10
	// bytesShift: a unit of fuel pays for 1<<bytesShift bytes. At 4 bytes
	// for a unit, page faults of fresh memory are paid for, too.
	bytesShift = 2
	// elementShift: an element of a table is a reference of 1<<elementShift bytes.
	elementShift = 3
	// growUnits is what table.grow costs beside the bytes: it is a call of wazero's own host.
	growUnits = importInstructions / unitInstructions
	// elementsMask bounds the elements that are charged for, so that fuel cannot overflow: an
	// instruction on more of them traps or fails.
	elementsMask = 1<<19 - 1
)

// span is what an instruction with the parameters d, s and n does: it writes n
// bytes or elements from d on.
type span struct {
	op    []byte // the instruction
	shift byte   // its unit is 1<<shift bytes
	to    []byte // code that puts the size of what it writes to on the stack, an i64
	from  []byte // the same of what it reads, from s on; nil: it reads nothing, s is the value
	// moves: both may be the same, so that a range that is moved up is done from its end.
	moves bool
}

// bulk returns the function that stands for the instruction b (with its
// immediates), adding it if need be.
func (rw *rewriter) bulk(b []byte) (uint32, error) {
	r := &reader{b: b}
	in := r.next()
	w := wrapper{op: in.sub}
	imm := &reader{b: b, pos: 1}
	imm.u32()
	switch in.sub {
	case bulkMemoryInit:
		w.a = in.index
	case bulkTableInit, bulkTableCopy:
		w.a, w.b = imm.u32(), imm.u32()
	case bulkTableGrow, bulkTableFill:
		w.a = imm.u32()
	}
	if index, ok := rw.wrappers[w]; ok {
		return index, nil
	}
	const i32 = typeI32
	params, results := []byte{i32, i32, i32}, []byte(nil)
	var c []byte
	var err error
	memorySize := []byte{opMemorySize, 0, opI64ExtendU, opI64Const, 16, opI64ShlOp}
	segmentSize := func(n int) []byte { return appendS64([]byte{opI64Const}, int64(n)) }
	tableSize := func(table uint32) []byte {
		if int(table) >= len(rw.tables) {
			err = errors.New("unknown table")
		}
		return append(appendU32(appendU32([]byte{opBulk}, bulkTableSize), table), opI64ExtendU)
	}
	switch in.sub {
	case bulkMemoryInit:
		if int(w.a) >= len(rw.data) {
			return 0, errors.New("unknown data segment")
		}
		c = rw.pieces(c, span{op: b, to: memorySize, from: segmentSize(len(rw.data[w.a].content))})
	case bulkMemoryCopy:
		c = rw.pieces(c, span{op: b, to: memorySize, from: memorySize, moves: true})
	case bulkMemoryFill:
		c = rw.pieces(c, span{op: b, to: memorySize})
	case bulkTableInit:
		if int(w.a) >= len(rw.segments) {
			return 0, errors.New("unknown element segment")
		}
		c = rw.pieces(rw.taint(c), span{op: b, shift: elementShift, to: tableSize(w.b), from: segmentSize(rw.segments[w.a])})
	case bulkTableCopy:
		c = rw.pieces(rw.taint(c), span{op: b, shift: elementShift, to: tableSize(w.a), from: tableSize(w.b), moves: true})
	case bulkTableFill:
		c = rw.pieces(rw.taint(c), span{op: b, shift: elementShift, to: tableSize(w.a)})
		if err == nil {
			params[1] = rw.tables[w.a]
		}
	case bulkTableGrow:
		c = rw.grow(rw.taint(c), b, tableSize(w.a))
		if err == nil {
			params, results = []byte{rw.tables[w.a], i32}, []byte{i32}
		}
	}
	if err != nil {
		return 0, err
	}
	index := rw.add(rw.typeOf(params, results), []byte{0}, c, []byte{opEnd})
	rw.wrappers[w] = index
	return index, nil
}

// charge appends a check that charges for the units that the given code puts on the stack, an i32.
func (rw *rewriter) charge(c, units []byte) []byte {
	if rw.o.NoChecks {
		return c
	}
	c = appendU32(append(c, opGlobalGet), rw.fuel)
	c = append(append(c, units...), opI32Sub)
	return rw.spent(c)
}

// elementUnits turns a number of elements on the stack into units of fuel.
func elementUnits(c []byte) []byte {
	c = append(appendS32(append(c, opI32Const), elementsMask), opI32And)
	return append(c, opI32Const, elementShift-bytesShift, opI32Shl)
}

// grow appends the body of (value, n) → old size, or -1, that does table.grow. wazero may move
// all of the table when it grows, which is charged for then.
func (rw *rewriter) grow(c, op, size []byte) []byte {
	const value, n = 0, 1
	c = rw.charge(c, appendS32([]byte{opI32Const}, growUnits))
	c = append(append(c, opLocalGet, value, opLocalGet, n), op...)
	c = append(c, opLocalTee, n, opI32Const, 0x7f, opI32Ne, opIf, blockEmpty) // 0x7f: -1
	c = rw.charge(c, elementUnits(append(slices.Clone(size), opI32WrapI64)))
	return append(c, opEnd, opLocalGet, n)
}

// pieces appends the body of (d, s, n) that does o in pieces of at most chunk bytes:
//
//	if n > chunk and the ranges are in bounds:   (out of bounds: the plain instruction traps, having written nothing)
//	    if not moves, or d <= s:  while n > chunk: op(d, s, chunk); d += chunk; s += chunk (if it reads); n -= chunk
//	    else:                     while n > chunk: n -= chunk; op(d+n, s+n, chunk)
//	op(d, s, n)
//
// A segment that was dropped is empty: its first piece traps.
func (rw *rewriter) pieces(c []byte, o span) []byte {
	const d, s, n = 0, 1, 2
	get := func(local byte) { c = append(c, opLocalGet, local) }
	size := func() { c = appendS32(append(c, opI32Const), chunk>>o.shift) }
	step := func(local byte, by byte) { // local = local op chunk
		get(local)
		size()
		c = append(c, by, opLocalSet, local)
	}
	inBounds := func(local byte, size []byte) { // u64(local) + u64(n) <= size
		get(local)
		c = append(c, opI64ExtendU)
		get(n)
		c = append(append(c, opI64ExtendU, opI64Add), size...)
		c = append(c, opI64LeU)
	}
	large := func() {
		get(n)
		size()
		c = append(c, opI32GtU)
	}
	chunkCharge := func() { c = rw.charge(c, appendS32([]byte{opI32Const}, chunk>>bytesShift)) }

	large()
	c = append(c, opIf, blockEmpty)
	inBounds(d, o.to)
	if o.from != nil {
		inBounds(s, o.from)
		c = append(c, opI32And)
	}
	c = append(c, opIf, blockEmpty)
	if o.moves {
		get(d)
		get(s)
		c = append(c, opI32LeU, opIf, blockEmpty)
	}
	// Forward.
	c = append(c, opLoop, blockEmpty)
	chunkCharge()
	get(d)
	get(s)
	size()
	c = append(c, o.op...)
	step(d, opI32Add)
	if o.from != nil {
		step(s, opI32Add)
	}
	step(n, opI32Sub)
	large()
	c = append(c, opBrIf, 0, opEnd)
	if o.moves {
		// Backward.
		c = append(c, opElse, opLoop, blockEmpty)
		chunkCharge()
		step(n, opI32Sub)
		get(d)
		get(n)
		c = append(c, opI32Add)
		get(s)
		get(n)
		c = append(c, opI32Add)
		size()
		c = append(c, o.op...)
		large()
		c = append(c, opBrIf, 0, opEnd, opEnd)
	}
	c = append(c, opEnd, opEnd)
	if o.shift == 0 {
		c = rw.charge(c, []byte{opLocalGet, n, opI32Const, bytesShift, opI32ShrU})
	} else {
		c = rw.charge(c, elementUnits([]byte{opLocalGet, n}))
	}
	get(d)
	get(s)
	get(n)
	return append(c, o.op...)
}
