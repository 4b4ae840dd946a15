package prepare

import "errors"

// Instructions that work on a range are uninterruptible in wazero and may
// take tens of milliseconds. Each is replaced by the call of a function that
// charges for the range's length and does memory's large ones in pieces.
const (
	// chunk is the longest piece in bytes: about 5 µs at the usual speed, less than a
	// millisecond when each of its pages is written for the first time and faults at 50 µs.
	chunk = 64 << 10
	// bytesShift: a unit of fuel pays for 1<<bytesShift bytes. At 4 bytes
	// for a unit, page faults of fresh memory are paid for, too.
	bytesShift = 2
	// elementsShift: a unit of fuel pays for 1<<elementsShift table elements.
	elementsShift = 2
)

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
		if int(w.a) >= len(rw.tables) {
			return 0, errors.New("unknown table")
		}
	}
	if index, ok := rw.wrappers[w]; ok {
		return index, nil
	}
	const i32 = typeI32
	params, results := []byte{i32, i32, i32}, []byte(nil)
	length := uint32(2) // the parameter that is the length
	tainting := true
	shift := byte(elementsShift)
	switch in.sub {
	case bulkTableFill:
		params[1] = rw.tables[w.a]
	case bulkTableGrow:
		params, results = []byte{rw.tables[w.a], i32}, []byte{i32}
		length = 1
	case bulkMemoryInit, bulkMemoryCopy, bulkMemoryFill:
		tainting = false
		shift = bytesShift
	}
	var c []byte
	if tainting {
		c = rw.taint(c)
	}
	locals := []byte{0}
	switch in.sub {
	case bulkMemoryInit:
		if int(w.a) >= len(rw.data) {
			return 0, errors.New("unknown data segment")
		}
		c = rw.pieces(c, b, in.sub, len(rw.data[w.a].content))
	case bulkMemoryCopy, bulkMemoryFill:
		c = rw.pieces(c, b, in.sub, 0)
	default:
		c = rw.charge(c, length, shift)
		for p := range params {
			c = appendU32(append(c, opLocalGet), uint32(p))
		}
		c = append(c, b...)
	}
	index := rw.add(rw.typeOf(params, results), locals, c, []byte{opEnd})
	rw.wrappers[w] = index
	return index, nil
}

// charge appends a check that charges for the length in a parameter.
func (rw *rewriter) charge(c []byte, length uint32, shift byte) []byte {
	if rw.o.NoChecks {
		return c
	}
	c = appendU32(append(c, opGlobalGet), rw.fuel)
	c = appendU32(append(c, opLocalGet), length)
	c = append(c, opI32Const, shift, opI32ShrU, opI32Sub)
	return rw.spent(c)
}

// pieces appends the body of (d, s, n) that does memory.copy, memory.fill or
// memory.init, of a segment of the given length, in pieces of at most chunk bytes:
//
//	if n > chunk and the ranges are in bounds:   (out of bounds: the plain instruction traps, having written nothing)
//	    if not copy, or d <= s:  while n > chunk: op(d, s, chunk); d += chunk; s += chunk (not fill); n -= chunk
//	    else:                    while n > chunk: n -= chunk; op(d+n, s+n, chunk)
//	op(d, s, n)
//
// A segment that was dropped has no bytes: its first piece traps.
func (rw *rewriter) pieces(c, op []byte, sub uint32, segment int) []byte {
	const d, s, n = 0, 1, 2
	copying := sub == bulkMemoryCopy
	get := func(local byte) { c = append(c, opLocalGet, local) }
	size := func() { c = appendS32(append(c, opI32Const), chunk) }
	step := func(local byte, by byte) { // local = local op chunk
		get(local)
		size()
		c = append(c, by, opLocalSet, local)
	}
	inBounds := func(local byte) { // u64(local) + u64(n) <= memory.size << 16
		get(local)
		c = append(c, opI64ExtendU)
		get(n)
		c = append(c, opI64ExtendU, opI64Add, opMemorySize, 0, opI64ExtendU, opI64Const, 16, opI64ShlOp)
		c = append(c, 0x58) // i64.le_u
	}
	large := func() {
		get(n)
		size()
		c = append(c, opI32GtU)
	}
	chunkCharge := func() {
		if rw.o.NoChecks {
			return
		}
		c = appendU32(append(c, opGlobalGet), rw.fuel)
		c = appendS32(append(c, opI32Const), chunk>>bytesShift)
		c = append(c, opI32Sub)
		c = rw.spent(c)
	}

	large()
	c = append(c, opIf, blockEmpty)
	inBounds(d)
	switch sub {
	case bulkMemoryCopy:
		inBounds(s)
		c = append(c, 0x71) // i32.and
	case bulkMemoryInit:
		get(s)
		c = append(c, opI64ExtendU)
		get(n)
		c = append(c, opI64ExtendU, opI64Add, opI64Const)
		c = appendS64(c, int64(segment))
		c = append(c, 0x58, 0x71) // i64.le_u, i32.and
	}
	c = append(c, opIf, blockEmpty)
	if copying {
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
	c = append(c, op...)
	step(d, opI32Add)
	if sub != bulkMemoryFill {
		step(s, opI32Add)
	}
	step(n, opI32Sub)
	large()
	c = append(c, opBrIf, 0, opEnd)
	if copying {
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
		c = append(c, op...)
		large()
		c = append(c, opBrIf, 0, opEnd, opEnd)
	}
	c = append(c, opEnd, opEnd)
	c = rw.charge(c, n, bytesShift)
	get(d)
	get(s)
	get(n)
	return append(c, op...)
}
