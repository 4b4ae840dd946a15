package prepare

import "math"

// How much a check charges. One unit of fuel stands for about unitInstructions instructions,
// so that a tight loop pays the smallest step and the fuel's range is not
// used up by one large body.
const (
	unitInstructions = 4
	// leafMax is the most instructions that a function may run without a
	// check of its own; what it costs is then charged where it is called.
	leafMax = 256
	// importInstructions is what a call of the host counts as: 50 to 100 ns at the least.
	importInstructions = 200
	// weightMax bounds one charge, so that fuel cannot overflow: fuel is
	// below 2^30 and at most one charge is outstanding.
	weightMax = 1 << 20
)

// function holds what the analysis finds out about a body.
type function struct {
	straight uint32 // instructions outside loops
	loops    []loop // in order of appearance
	calls    []site
	refs     []uint32 // functions whose address it takes
	covered  bool     // its first loop header is reached on every call, before anything else
	entry    bool     // gets a check at its entry
	cost     uint32
}

type loop struct {
	instructions uint32
	start, end   int  // its body in the function's bytes, without loop, block type and end
	plain        bool // no loop, call or instruction that is rewritten inside
	kind         byte // block type: blockEmpty or a value type; 0: another
}

// site is one call, in the straight part (loop -1) or directly in a loop.
type site struct {
	loop     int32
	target   uint32 // function defined here, in their own numbering; or one of the two below
	indirect bool
}

// analyse decodes a body once and notes what the weights need.
func (m *module) analyse(body []byte) (function, error) {
	var f function
	at, err := localsEnd(body)
	if err != nil {
		return f, err
	}
	r := &reader{b: body, pos: at}
	stack := make([]int32, 1, 16) // the innermost loop of each open block
	stack[0] = -1
	opening := true // nothing but straight code so far
	for len(stack) > 0 {
		in := r.next()
		if r.err != nil {
			return f, r.err
		}
		inner := stack[len(stack)-1]
		if inner < 0 {
			f.straight++
		} else {
			f.loops[inner].instructions++
		}
		if inner >= 0 && in.rewritten() {
			f.loops[inner].plain = false
		}
		switch in.op {
		case opBlock:
			stack = append(stack, inner)
		case opIf:
			stack = append(stack, inner)
			opening = false
		case opLoop:
			if inner >= 0 {
				f.loops[inner].plain = false
			}
			l := loop{start: r.pos, plain: true}
			if t := body[in.start+1]; r.pos == in.start+2 && t >= 0x40 && t < 0x80 {
				l.kind = t
			}
			f.loops = append(f.loops, l)
			stack = append(stack, int32(len(f.loops)-1))
			if opening && len(f.loops) == 1 {
				f.covered = true
			}
			opening = false
		case opEnd:
			stack = stack[:len(stack)-1]
			if inner >= 0 && (len(stack) == 0 || stack[len(stack)-1] != inner) {
				f.loops[inner].end = in.start
			}
		case opBr, opBrIf, opBrTable, opReturn, 0x00:
			opening = false
		case opCall:
			opening = false
			if int(in.index) >= m.importFuncs+len(m.funcTypes) {
				return f, errUnknownFunction
			}
			switch {
			case int(in.index) >= m.importFuncs:
				f.calls = append(f.calls, site{loop: inner, target: in.index - uint32(m.importFuncs)})
			case inner < 0:
				f.straight += importInstructions
			default:
				f.loops[inner].instructions += importInstructions
			}
		case opRefFunc:
			f.refs = append(f.refs, in.index)
		case opCallIndirect:
			opening = false
			f.calls = append(f.calls, site{loop: inner, indirect: true})
		}
	}
	if r.pos != len(body) {
		return f, errAfterEnd
	}
	return f, nil
}

// weigh decides which functions get a check at their entry, and adds what
// the calls cost to where they stand. taken says of each function whether its
// address is taken, so that call_indirect may reach it.
//
// After it, between two checks that run one after the other the module runs
// at most the instructions that the first one charged for.
func weigh(functions []function, taken []bool) {
	cyclic := cycles(functions, taken)

	// Costs of callees before callers: the graph without its cyclic
	// functions, whose cost to a caller is 0 as they check for themselves.
	const (
		fresh = iota
		open
		done
	)
	n := len(functions)
	state := make([]uint8, n+1) // the last one stands for every call_indirect
	indirectCost := uint32(0)
	var targets []uint32
	for i, t := range taken {
		if t {
			targets = append(targets, uint32(i))
		}
	}
	costOf := func(s site) uint32 {
		if s.indirect {
			return indirectCost
		}
		return functions[s.target].cost
	}
	finish := func(i int) {
		if i == n {
			for _, t := range targets {
				indirectCost = max(indirectCost, functions[t].cost)
			}
			return
		}
		f := &functions[i]
		total := uint64(f.straight)
		for _, s := range f.calls {
			if s.loop < 0 {
				total += uint64(costOf(s))
			} else {
				l := &f.loops[s.loop]
				l.instructions = uint32(min(uint64(l.instructions)+uint64(costOf(s)), math.MaxInt32))
			}
		}
		f.straight = uint32(min(total, math.MaxInt32))
		f.entry = cyclic[i] || total > leafMax
		if f.entry {
			f.cost = 0
		} else {
			f.cost = f.straight
		}
		if f.entry && f.covered {
			// The header of its first loop is the check, and pays for both.
			f.entry = false
			l := &f.loops[0]
			l.instructions = uint32(min(uint64(l.instructions)+total, math.MaxInt32))
		}
	}
	type frame struct{ node, edge int }
	var stack []frame
	visit := func(root int) {
		if state[root] != fresh {
			return
		}
		state[root] = open
		stack = append(stack[:0], frame{root, 0})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			next := -1
			if top.node == n {
				if top.edge < len(targets) {
					next = int(targets[top.edge])
				}
			} else if calls := functions[top.node].calls; top.edge < len(calls) {
				next = int(calls[top.edge].target)
				if calls[top.edge].indirect {
					next = n
				}
			}
			top.edge++
			switch {
			case next < 0:
				finish(top.node)
				state[top.node] = done
				stack = stack[:len(stack)-1]
			case state[next] == fresh && (next == n || !cyclic[next]):
				// (A callee on a cycle costs its caller nothing: no need to wait for it.)
				state[next] = open
				stack = append(stack, frame{next, 0})
			}
		}
	}
	for i := range functions {
		if !cyclic[i] {
			visit(i)
		}
	}
	visit(n)
	for i := range functions {
		if cyclic[i] {
			finish(i)
		}
	}
}

// cycles returns which functions lie on a cycle of the call graph; the last
// entry stands for call_indirect, which may call every function whose
// address is taken. Tarjan's strongly connected components, without recursion.
func cycles(functions []function, taken []bool) []bool {
	n := len(functions)
	cyclic := make([]bool, n+1)
	index := make([]int32, n+1) // 0: not visited
	low := make([]int32, n+1)
	on := make([]bool, n+1)
	var order []int32
	var targets []int32
	for i, t := range taken {
		if t {
			targets = append(targets, int32(i))
		}
	}
	edge := func(node, i int) (int, bool) {
		if node == n {
			if i < len(targets) {
				return int(targets[i]), true
			}
			return 0, false
		}
		calls := functions[node].calls
		if i >= len(calls) {
			return 0, false
		}
		if calls[i].indirect {
			return n, true
		}
		return int(calls[i].target), true
	}
	type frame struct{ node, edge int }
	var stack []frame
	counter := int32(0)
	for root := range n + 1 {
		if index[root] != 0 {
			continue
		}
		push := func(v int) {
			counter++
			index[v], low[v], on[v] = counter, counter, true
			order = append(order, int32(v))
			stack = append(stack, frame{v, 0})
		}
		push(root)
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			v := top.node
			if w, ok := edge(v, top.edge); ok {
				top.edge++
				if w == v {
					cyclic[v] = true
				}
				if index[w] == 0 {
					push(w)
				} else if on[w] {
					low[v] = min(low[v], index[w])
				}
				continue
			}
			stack = stack[:len(stack)-1]
			if len(stack) > 0 {
				parent := stack[len(stack)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if low[v] == index[v] {
				size := 0
				for i := len(order) - 1; ; i-- {
					size++
					if int(order[i]) == v {
						break
					}
				}
				for _, w := range order[len(order)-size:] {
					on[w] = false
					if size > 1 {
						cyclic[w] = true
					}
				}
				order = order[:len(order)-size]
			}
		}
	}
	return cyclic
}

// weight is what a check charges for so many instructions.
func weight(instructions uint32) int32 {
	return int32(min(1+instructions/unitInstructions, weightMax))
}

// rewritten reports whether the pass replaces or renumbers the instruction.
func (in instruction) rewritten() bool {
	switch in.op {
	case opCall, opCallIndirect, opRefFunc, opTableSet:
		return true
	case opBulk:
		return in.sub >= bulkMemoryInit
	}
	return false
}
