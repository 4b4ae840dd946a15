package prepare

import (
	"errors"
	"fmt"
)

// errTruncated ends the decoding of a module that stops in the middle.
var errTruncated = errors.New("unexpected end")

// reader decodes a module's bytes. The first error sticks; after it every
// read returns zero values, so a caller checks err where it loops.
type reader struct {
	b   []byte
	pos int
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
		r.pos = len(r.b)
	}
}

func (r *reader) more() bool { return r.err == nil && r.pos < len(r.b) }

func (r *reader) byte() byte {
	if r.pos >= len(r.b) {
		r.fail(errTruncated)
		return 0
	}
	c := r.b[r.pos]
	r.pos++
	return c
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if v > 1<<32-1 {
				break
			}
			return uint32(v)
		}
	}
	r.fail(errors.New("number longer than 32 bits"))
	return 0
}

// skipLEB passes over a LEB128 number of at most limit bytes.
func (r *reader) skipLEB(limit int) {
	for range limit {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail(errors.New("number too long"))
}

func (r *reader) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.pos) {
		r.fail(errTruncated)
		return nil
	}
	b := r.b[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

func (r *reader) name() []byte { return r.bytes(r.u32()) }

// count reads the length of a vector whose elements take at least one byte
// each, so that a forged length cannot make us allocate.
func (r *reader) count() int {
	n := r.u32()
	if uint64(n) > uint64(len(r.b)-r.pos) {
		r.fail(errTruncated)
		return 0
	}
	return int(n)
}

// appendU32 appends an unsigned LEB128 number.
func appendU32(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// appendS32 appends a signed LEB128 number.
func appendS32(dst []byte, v int32) []byte { return appendS64(dst, int64(v)) }

// appendS64 appends a signed LEB128 number.
func appendS64(dst []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(dst, c)
		}
		dst = append(dst, c|0x80)
	}
}

func appendName(dst []byte, name string) []byte {
	return append(appendU32(dst, uint32(len(name))), name...)
}

// appendSection appends a section with the given contents.
func appendSection(dst []byte, id byte, content []byte) []byte {
	dst = append(dst, id)
	dst = appendU32(dst, uint32(len(content)))
	return append(dst, content...)
}

// The opcodes that the pass treats by name.
const (
	opUnreachable  = 0x00
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableSet     = 0x26
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI32LtS       = 0x48
	opI32LtU       = 0x49
	opI32GtU       = 0x4b
	opI32LeU       = 0x4d
	opI32Eq        = 0x46
	opI32Ne        = 0x47
	opI32Add       = 0x6a
	opI32Sub       = 0x6b
	opI32And       = 0x71
	opI32Shl       = 0x74
	opI32ShrU      = 0x76
	opI32WrapI64   = 0xa7
	opI64LeU       = 0x58
	opI64LtU       = 0x54
	opI64GtU       = 0x56
	opI64Add       = 0x7c
	opI64ShlOp     = 0x86
	opI64ExtendU   = 0xad
	opMemorySize   = 0x3f
	opRefFunc      = 0xd2
	opBulk         = 0xfc // prefix: saturating truncation, bulk memory, tables
	opVector       = 0xfd // prefix: SIMD

	blockEmpty = 0x40
	typeI32    = 0x7f

	bulkMemoryInit = 8
	bulkDataDrop   = 9
	bulkMemoryCopy = 10
	bulkMemoryFill = 11
	bulkTableInit  = 12
	bulkElemDrop   = 13
	bulkTableCopy  = 14
	bulkTableGrow  = 15
	bulkTableSize  = 16
	bulkTableFill  = 17
)

// instruction is one decoded instruction: its bytes are b[start:r.pos].
type instruction struct {
	op    byte
	sub   uint32 // of opBulk and opVector
	start int
	index uint32 // immediate of call, ref.func, data index of memory.init and data.drop
}

// next decodes one instruction of WebAssembly 2.0 (as wazero's
// CoreFeaturesV2: no threads, tail calls or exceptions).
//
// Source: WebAssembly 2.0 core specification, section 5.4.
func (r *reader) next() instruction {
	in := instruction{start: r.pos}
	in.op = r.byte()
	switch op := in.op; {
	case op == opBlock || op == opLoop || op == opIf:
		r.skipLEB(5) // block type: empty, value type or type index (s33)
	case op == opBr || op == opBrIf:
		r.u32()
	case op == opBrTable:
		for range r.count() + 1 {
			if r.u32(); r.err != nil {
				break
			}
		}
	case op == opCall || op == opRefFunc:
		in.index = r.u32()
	case op == opCallIndirect:
		r.u32()
		r.u32()
	case op == 0x1c: // select with types
		for range r.count() {
			if r.byte(); r.err != nil {
				break
			}
		}
	case op >= opLocalGet && op <= opTableSet:
		r.u32()
	case op >= 0x28 && op <= 0x3e: // loads and stores: alignment, offset
		r.u32()
		r.u32()
	case op == opMemorySize || op == 0x40: // memory.size, memory.grow
		r.byte()
	case op == opI32Const:
		r.skipLEB(5)
	case op == opI64Const:
		r.skipLEB(10)
	case op == 0x43:
		r.bytes(4)
	case op == 0x44:
		r.bytes(8)
	case op == 0xd0: // ref.null
		r.skipLEB(5)
	case op == opBulk:
		in.sub = r.u32()
		switch {
		case in.sub < bulkMemoryInit: // saturating truncation
		case in.sub == bulkMemoryInit:
			in.index = r.u32()
			r.byte()
		case in.sub == bulkMemoryCopy:
			r.byte()
			r.byte()
		case in.sub == bulkMemoryFill:
			r.byte()
		case in.sub == bulkTableInit || in.sub == bulkTableCopy:
			r.u32()
			r.u32()
		case in.sub <= bulkTableFill: // data.drop, elem.drop, table.grow, size, fill
			in.index = r.u32()
		default:
			r.fail(fmt.Errorf("unknown instruction 0xfc %d", in.sub))
		}
	case op == opVector:
		in.sub = r.u32()
		switch {
		case in.sub <= 11 || in.sub == 92 || in.sub == 93: // loads, store, load zero
			r.u32()
			r.u32()
		case in.sub == 12 || in.sub == 13: // const, shuffle
			r.bytes(16)
		case in.sub >= 21 && in.sub <= 34: // lanes
			r.byte()
		case in.sub >= 84 && in.sub <= 91: // load and store of a lane
			r.u32()
			r.u32()
			r.byte()
		case in.sub <= 255:
		default:
			r.fail(fmt.Errorf("unknown instruction 0xfd %d", in.sub))
		}
	case op <= 0x01, op == opElse, op == opEnd, op == opReturn, op == 0x1a, op == 0x1b,
		op >= 0x45 && op <= 0xc4, op == 0xd1:
	default:
		r.fail(fmt.Errorf("unknown instruction 0x%02x", op))
	}
	return in
}
