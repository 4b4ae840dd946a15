package prepare

// Small loops without calls are unrolled, with one check for all copies of
// the body: what the check costs is shared, and wazero, which does not unroll,
// makes better code of the copies. See RATIONALE.md, "How are functions interrupted?".
const (
	// unrolledMax bounds the copies of a body together, in bytes of WebAssembly,
	// and by it the growth of the code.
	unrolledMax = 512
	// copiesMax is the most copies.
	copiesMax = 4
)

// copies returns how often the loop's body is written down.
func (l *loop) copies() int {
	size := l.end - l.start
	if !l.plain || l.kind == 0 || size <= 0 {
		return 1
	}
	return min(copiesMax, unrolledMax/size)
}

// unroll appends a loop with n copies of its body and one check:
//
//	block T                      where T is the loop's type
//	  loop T
//	    check
//	    block  body  br 2  end   n-1 times: "continue" is the end of the block, the body's end leaves both
//	    body                     here "continue" is the loop
//	  end
//	end
//
// Inside a body the label of the loop keeps its number; labels outside are
// two further away, in the last body one.
func (rw *rewriter) unroll(dst, body []byte, l *loop, n int) ([]byte, error) {
	dst = append(dst, opBlock, l.kind, opLoop, l.kind)
	dst = rw.check(dst, weight(uint32(min(uint64(l.instructions)*uint64(n), weightMax*unitInstructions))))
	for i := range n {
		shift := uint32(1)
		if i < n-1 {
			shift = 2
			dst = append(dst, opBlock, blockEmpty)
		}
		depth := uint32(0)
		r := &reader{b: body}
		label := func(v uint32) uint32 {
			if v > depth {
				v += shift
			}
			return v
		}
		for r.more() {
			in := r.next()
			rw.info.Instructions++
			if r.err != nil {
				break
			}
			switch in.op {
			case opBlock, opIf:
				depth++
			case opEnd:
				depth--
			case opBr, opBrIf:
				at := &reader{b: body, pos: in.start + 1}
				dst = appendU32(append(dst, in.op), label(at.u32()))
				continue
			case opBrTable:
				at := &reader{b: body, pos: in.start + 1}
				count := at.u32()
				dst = appendU32(append(dst, in.op), count)
				for range count + 1 {
					dst = appendU32(dst, label(at.u32()))
				}
				continue
			}
			dst = append(dst, body[in.start:r.pos]...)
		}
		if r.err != nil {
			return nil, r.err
		}
		if i < n-1 {
			dst = append(dst, opBr, 2, opEnd)
		}
	}
	return append(dst, opEnd, opEnd), nil
}
