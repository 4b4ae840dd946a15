package prepare

import "slices"

// gapMax is the longest gap between two data segments that is filled with
// zeros to make one of them. Go's linker leaves out every few zeros, which
// makes twenty thousand segments, and code in Init for each.
const gapMax = 256

// merge joins active segments with constant, ascending offsets: the memory is
// the module's own and all zeros when they are applied. Their order, and so
// what a segment out of bounds leaves behind, does not change.
func (rw *rewriter) merge() {
	if rw.importsMemory() {
		return
	}
	numbered := rw.present[secDataCount] // instructions may name segments
	var out []segment
	last := -1 // the segment in out that may be extended
	end := uint64(0)
	for _, s := range rw.data {
		at, constant := constOffset(s.offset)
		if s.passive || s.memory != 0 || !constant {
			out = append(out, s)
			last = -1
			continue
		}
		start := uint64(at)
		if last >= 0 && start >= end && start-end <= gapMax {
			l := &out[last]
			if !l.merged {
				l.content, l.merged = slices.Clone(l.content), true
			}
			l.content = append(l.content, make([]byte, start-end)...)
			l.content = append(l.content, s.content...)
			end = start + uint64(len(s.content))
			if numbered {
				out = append(out, segment{passive: true})
			}
			continue
		}
		out = append(out, s)
		last, end = len(out)-1, start+uint64(len(s.content))
	}
	rw.data = out
}

func (rw *rewriter) importsMemory() bool {
	for _, im := range rw.imports {
		if im.kind == kindMemory {
			return true
		}
	}
	return false
}

// constOffset returns the value of an expression that is i32.const and end.
func constOffset(expr []byte) (uint32, bool) {
	if len(expr) < 3 || expr[0] != opI32Const {
		return 0, false
	}
	v, shift := int64(0), 0
	for i, c := range expr[1:] {
		v |= int64(c&0x7f) << shift
		shift += 7
		if c < 0x80 {
			if c&0x40 != 0 {
				v -= 1 << shift
			}
			return uint32(v), i+3 == len(expr) && expr[i+2] == opEnd
		}
		if shift >= 35 {
			break
		}
	}
	return 0, false
}
