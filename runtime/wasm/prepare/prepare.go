// Package prepare rewrites a WebAssembly module, once and before it is
// compiled, so that the engine (the parent folder) can interrupt it, put it
// back to a pristine state after each request, and start it from an image of
// its memory. It is a pure function from bytes to bytes: no files, no
// goroutines, no state.
//
// What the rewritten module has in addition (names in names.go):
//
//   - checks: at every loop header, and at the entry of every function that
//     lies on a cycle of the call graph or runs long without a loop, some
//     fuel is taken from a global; when it is used up, the host is called,
//     which looks at the clock and fills it up again. Instructions that work on
//     a range (memory.fill, table.copy, …) go through functions that charge
//     for its length, the large ones piece by piece.
//   - a mark: instructions that change what cannot be put back (tables,
//     dropped segments) first set the global Tainted.
//   - entries: Init applies the data segments and runs the start function,
//     which no longer happen at instantiation; Save remembers the mutable
//     globals, Run puts them back, fills up the fuel and calls the function.
//
// A module means the same before and after: the tests of the parent folder
// run the core specification's test suite both ways.
package prepare

import (
	"errors"
	"fmt"
	"slices"
)

// Names of what the pass imports and exports. A module that uses an export
// name of these itself is refused.
const (
	// HostModule is the module name of the imports.
	HostModule = "baton"
	// Check is the import that is called when the fuel is used up: () → (). It
	// sets the global Fuel.
	Check = "check"
	// Enter is the import that Run calls first when Frozen is set: () → (i32).
	// The host may take or restore a snapshot of the call in it. Run goes on when it
	// answers 0 and returns at once otherwise.
	Enter = "enter"

	Fuel    = "baton:fuel"    // mutable i32: what is left before Check
	Tainted = "baton:tainted" // mutable i32: not 0 after a change that cannot be put back
	Frozen  = "baton:frozen"  // mutable i32: not 0 makes Run call Enter
	Memory  = "baton:memory"  // the memory, if there is one
	Init    = "baton:init"    // () → (): what instantiation used to do, then _initialize if exported
	Save    = "baton:save"    // () → (): remembers the globals
	Run     = "baton:run"     // () → (): puts the globals back and runs the function once
	// GlobalPrefix and a number from 0 name the remembered globals (mutable).
	GlobalPrefix = "baton:global:"
)

// FuelRefill is what Check should set Fuel to: at about 0.2 ns for an
// instruction at the least, between 0.1 and 0.3 ms.
const FuelRefill = 200_000

// Options say what to do beyond the checks.
type Options struct {
	// Redirect lists functions imported from From that are to come from
	// HostModule. A function in Split is called at HostModule first, and at From
	// when that answers NotMine.
	From     string
	Redirect []string
	Split    []string
	// TableMax bounds the elements of tables, and of segments; zero: TableMax.
	TableMax uint32
	Unroll   int
	// NoChecks leaves the interruption checks out, to measure them.
	NoChecks bool
}

// NotMine is what a split function's first half returns to have the second
// called (not an errno of WASI, which are below 128).
const NotMine = 0xffff

// Again is what a split function's first half returns to be called again
// with the same arguments.
const Again = 0xfffe

// Bounds of tables.
const (
	// TableMax is the most elements of all tables together at the start, and of all segments for them: 1 MiB of
	// references each. Making an instance takes 0.1 µs for each element of a segment and cannot be interrupted. The
	// largest artifact, 64 MiB, has some 50,000 when Go made it, and fewer from others.
	TableMax = 1 << 17
	// TableGrowMax is the most elements that a table can grow to: table.grow may move 256 KiB, which
	// takes 3 ms when each page is written for the first time and faults at 50 µs. One that begins larger does not grow.
	TableGrowMax = 1 << 15
	// tablesMax is the most tables.
	tablesMax = 256
)

// Info is what the engine must know of a module.
type Info struct {
	Memory       bool   // it has one of its own
	MemoryMin    uint32 // pages of 64 KiB
	Elements     int    // of its tables at the start and of the segments for them: references that each instance holds
	Runnable     bool   // exports _start or handle
	Command      bool   // runs by _start, otherwise by handle
	Initialize   bool   // exports _initialize
	Globals      []byte // value types of the remembered globals
	Opaque       bool   // some of them cannot be read from outside (vectors, references)
	Foreign      bool   // imports something that is no function
	Imports      []Import
	Functions    int // defined here
	Checks       int // inserted
	BytesBefore  int
	BytesAfter   int
	Instructions uint64
}

// Import is one imported function after redirection.
type Import struct{ Module, Name string }

// errors of the format that have no other place.
var (
	errUnknownFunction = errors.New("call of an unknown function")
	errAfterEnd        = errors.New("bytes after the end of a function")
)

// rewriter holds the state of one Rewrite.
type rewriter struct {
	*module
	o    Options
	info Info

	types     [][]byte // additional ones
	added     []addedImport
	funcs     []uint32 // type indices of additional functions
	code      [][]byte // their bodies
	remap     []uint32 // old function index → new
	nFuncs    uint32   // next index of an additional function
	fuel      uint32   // index of the global
	tainted   uint32
	frozen    uint32
	enter     uint32 // index of the import
	slow      uint32 // index of the function that calls Check
	globals   []byte // additional globals, encoded
	nGlobals  uint32
	wrappers  map[wrapper]uint32
	functions []function
	segments  []int // elements of each element segment
}

type addedImport struct {
	name string
	typ  uint32
}

// wrapper names a function that charges for a range.
type wrapper struct{ op, a, b uint32 }

// Rewrite returns the prepared module. The result shares no memory with b.
//
// Errors are about the module: malformed, or using what the engine does not
// have. A module that is not valid may come back without an error, not valid;
// whoever compiles it will see.
func Rewrite(b []byte, o Options) ([]byte, *Info, error) {
	m, err := parse(b)
	if err != nil {
		return nil, nil, err
	}
	if o.TableMax == 0 {
		o.TableMax = TableMax
	}
	rw := &rewriter{module: m, o: o, wrappers: map[wrapper]uint32{}}
	rw.info.BytesBefore = len(b)
	out, err := rw.rewrite(len(b))
	if err != nil {
		return nil, nil, err
	}
	rw.info.BytesAfter = len(out)
	return out, &rw.info, nil
}

func (rw *rewriter) rewrite(size int) ([]byte, error) {
	for _, e := range rw.exports {
		if len(e.name) > 6 && string(e.name[:6]) == "baton:" {
			return nil, fmt.Errorf("export name %q is reserved", e.name)
		}
	}
	if err := rw.numbers(); err != nil {
		return nil, err
	}

	// Find out about every body, then write the code: the weights need all
	// of the call graph.
	rw.functions = make([]function, len(rw.bodies))
	for i, body := range rw.bodies {
		f, err := rw.analyse(body)
		if err != nil {
			return nil, fmt.Errorf("function %d: %w", i+rw.importFuncs, err)
		}
		rw.functions[i] = f
	}
	elements, taken, err := rw.elements()
	if err != nil {
		return nil, err
	}
	weigh(rw.functions, taken)
	if rw.present[secDataCount] {
		r := &reader{b: rw.sections[secDataCount]}
		if n := r.u32(); r.err != nil || int(n) != len(rw.data) || r.pos != len(r.b) {
			return nil, errors.New("data count does not match the data")
		}
	}
	rw.merge()
	code := make([]byte, 0, size+size/2)
	var body []byte
	for i := range rw.bodies {
		body, err = rw.body(body[:0], i)
		if err != nil {
			return nil, fmt.Errorf("function %d: %w", i+rw.importFuncs, err)
		}
		code = appendU32(code, uint32(len(body)))
		code = append(code, body...)
	}
	exports, err := rw.entries()
	if err != nil {
		return nil, err
	}
	for _, c := range rw.code {
		code = appendU32(code, uint32(len(c)))
		code = append(code, c...)
	}
	return rw.assemble(size, code, elements, exports)
}

// numbers decides the numbers of everything that is added.
func (rw *rewriter) numbers() error {
	void := rw.typeOf(nil, nil)
	rw.added = append(rw.added, addedImport{Check, void}, addedImport{Enter, rw.typeOf(nil, []byte{typeI32})})
	rw.enter = uint32(rw.importFuncs) + 1
	split := map[string]uint32{} // position among added imports, plus 1
	for _, im := range rw.imports {
		if im.kind == kindFunc && string(im.module) == rw.o.From && slices.Contains(rw.o.Split, string(im.name)) {
			if _, ok := split[string(im.name)]; !ok {
				rw.added = append(rw.added, addedImport{string(im.name), im.typ})
				split[string(im.name)] = uint32(len(rw.added))
			}
		}
	}
	imports := uint32(rw.importFuncs)
	shift := uint32(len(rw.added))
	rw.remap = make([]uint32, rw.importFuncs+len(rw.funcTypes))
	for i := range rw.remap {
		rw.remap[i] = uint32(i)
		if i >= rw.importFuncs {
			rw.remap[i] += shift
		}
	}
	rw.nFuncs = imports + shift + uint32(len(rw.funcTypes))

	// The function that the checks call.
	rw.slow = rw.add(void, nil, []byte{opCall}, appendU32(nil, imports), []byte{opEnd})

	index := uint32(0)
	for _, im := range rw.imports {
		if im.kind != kindFunc {
			continue
		}
		if at := split[string(im.name)]; at != 0 && string(im.module) == rw.o.From {
			params, results := rw.signature(im.typ)
			if len(results) != 1 || results[0] != typeI32 {
				return fmt.Errorf("import %s.%s does not return an errno", im.module, im.name)
			}
			var c []byte
			get := func() {
				for p := range params {
					c = appendU32(append(c, opLocalGet), uint32(p))
				}
			}
			local := uint32(len(params))
			c = append(c, opLoop, blockEmpty)
			get()
			c = appendU32(append(c, opCall), imports+at-1)
			c = appendU32(append(c, opLocalTee), local)
			c = appendS32(append(c, opI32Const), Again)
			c = append(c, opI32Eq, opBrIf, 0, opEnd)
			c = appendU32(append(c, opLocalGet), local)
			c = appendS32(append(c, opI32Const), NotMine)
			c = append(c, opI32Eq, opIf, blockEmpty)
			get()
			c = appendU32(append(c, opCall), index)
			c = appendU32(append(c, opLocalSet), local)
			c = append(c, opEnd)
			c = appendU32(append(c, opLocalGet), local)
			c = append(c, opEnd)
			rw.remap[index] = rw.add(im.typ, []byte{1, 1, typeI32}, c)
		}
		index++
	}

	rw.nGlobals = uint32(len(rw.module.globals))
	rw.fuel = rw.addGlobal(typeI32)
	rw.tainted = rw.addGlobal(typeI32)
	rw.frozen = rw.addGlobal(typeI32)
	return nil
}

// add adds a function with the given encoded locals (nil: none) and code.
func (rw *rewriter) add(typ uint32, locals []byte, code ...[]byte) uint32 {
	if locals == nil {
		locals = []byte{0}
	}
	rw.funcs = append(rw.funcs, typ)
	rw.code = append(rw.code, slices.Concat(append([][]byte{locals}, code...)...))
	rw.nFuncs++
	return rw.nFuncs - 1
}

// addGlobal adds a mutable global of the given type with a zero value.
func (rw *rewriter) addGlobal(typ byte) uint32 {
	rw.globals = append(rw.globals, typ, 1)
	switch typ {
	case typeI32:
		rw.globals = append(rw.globals, opI32Const, 0)
	case 0x7e:
		rw.globals = append(rw.globals, opI64Const, 0)
	case 0x7d:
		rw.globals = append(rw.globals, 0x43, 0, 0, 0, 0)
	case 0x7c:
		rw.globals = append(rw.globals, 0x44, 0, 0, 0, 0, 0, 0, 0, 0)
	case 0x7b:
		rw.globals = append(rw.globals, opVector, 12)
		rw.globals = append(rw.globals, make([]byte, 16)...)
	default:
		rw.globals = append(rw.globals, 0xd0, typ)
	}
	rw.globals = append(rw.globals, opEnd)
	rw.nGlobals++
	return rw.nGlobals - 1
}

// typeOf returns the index of a function type, adding it if need be.
func (rw *rewriter) typeOf(params, results []byte) uint32 {
	t := append([]byte{0x60}, appendU32(nil, uint32(len(params)))...)
	t = append(t, params...)
	t = appendU32(t, uint32(len(results)))
	t = append(t, results...)
	for i, have := range rw.module.types {
		if string(have) == string(t) {
			return uint32(i)
		}
	}
	for i, have := range rw.types {
		if string(have) == string(t) {
			return uint32(len(rw.module.types) + i)
		}
	}
	rw.types = append(rw.types, t)
	return uint32(len(rw.module.types) + len(rw.types) - 1)
}

// signature splits a type of the module.
func (rw *rewriter) signature(typ uint32) (params, results []byte) {
	r := &reader{b: rw.module.types[typ], pos: 1}
	return r.bytes(r.u32()), r.bytes(r.u32())
}

// elements returns the element section with functions renumbered, and
// whose address is taken anywhere: by an element segment, ref.func or an export.
func (rw *rewriter) elements() ([]byte, []bool, error) {
	taken := make([]bool, len(rw.bodies))
	take := func(index uint32) (uint32, error) {
		if int(index) >= len(rw.remap) {
			return 0, errUnknownFunction
		}
		if int(index) >= rw.importFuncs {
			taken[int(index)-rw.importFuncs] = true
		}
		return rw.remap[index], nil
	}
	for _, e := range rw.exports {
		if e.kind == kindFunc && int(e.index) >= rw.importFuncs {
			taken[int(e.index)-rw.importFuncs] = true // the host may call it from inside a call
		}
	}
	for i := range rw.functions {
		for _, index := range rw.functions[i].refs {
			if _, err := take(index); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, g := range rw.module.globals {
		r := &reader{b: g.init}
		for r.more() {
			if in := r.next(); in.op == opRefFunc && r.err == nil {
				if _, err := take(in.index); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	if !rw.present[secElement] {
		return nil, taken, nil
	}
	r := &reader{b: rw.sections[secElement]}
	n := r.count()
	left := int(rw.o.TableMax) // for all segments together
	out := appendU32(nil, uint32(n))
	for range n {
		flag := r.u32()
		if flag > 7 {
			r.fail(fmt.Errorf("unknown kind of element segment %d", flag))
		}
		out = appendU32(out, flag)
		active, explicit, exprs := flag&1 == 0, flag&2 != 0, flag&4 != 0
		if active && explicit {
			out = appendU32(out, r.u32()) // table
		}
		if active {
			expr, err := rw.expr(r.constExpr())
			if err != nil {
				return nil, nil, err
			}
			out = append(out, expr...)
		}
		if explicit || !active {
			out = append(out, r.byte()) // element kind or type
		}
		count := r.count()
		if left -= count; left < 0 {
			return nil, nil, fmt.Errorf("more than the %d elements that are allowed in all element segments", rw.o.TableMax)
		}
		rw.segments = append(rw.segments, count)
		rw.info.Elements += count
		out = appendU32(out, uint32(count))
		for range count {
			if exprs {
				e := r.constExpr()
				for x := (&reader{b: e}); x.more(); {
					if in := x.next(); in.op == opRefFunc && x.err == nil {
						if _, err := take(in.index); err != nil {
							return nil, nil, err
						}
					}
				}
				expr, err := rw.expr(e)
				if err != nil {
					return nil, nil, err
				}
				out = append(out, expr...)
			} else {
				index, err := take(r.u32())
				if err != nil && r.err == nil {
					r.fail(err)
				}
				out = appendU32(out, index)
			}
			if r.err != nil {
				break
			}
		}
		if r.err != nil {
			return nil, nil, fmt.Errorf("element section: %w", r.err)
		}
	}
	if r.pos != len(r.b) {
		return nil, nil, errors.New("element section: bytes left over")
	}
	return out, taken, nil
}

// expr renumbers the functions of a constant expression.
func (rw *rewriter) expr(b []byte) ([]byte, error) {
	var out []byte
	r := &reader{b: b}
	for r.more() {
		in := r.next()
		if in.op == opRefFunc && r.err == nil {
			if int(in.index) >= len(rw.remap) {
				return nil, errUnknownFunction
			}
			out = appendU32(append(out, opRefFunc), rw.remap[in.index])
		} else {
			out = append(out, b[in.start:r.pos]...)
		}
	}
	return out, r.err
}

// check appends a check that charges n units.
func (rw *rewriter) check(dst []byte, n int32) []byte {
	if rw.o.NoChecks {
		return dst
	}
	rw.info.Checks++
	dst = appendU32(append(dst, opGlobalGet), rw.fuel)
	dst = appendS32(append(dst, opI32Const), n)
	dst = append(dst, opI32Sub)
	return rw.spent(dst)
}

// spent appends what stores the fuel on top of the stack and calls the host
// when it is used up.
func (rw *rewriter) spent(dst []byte) []byte {
	dst = appendU32(append(dst, opGlobalSet), rw.fuel)
	dst = append(dst, opBlock, blockEmpty)
	dst = appendU32(append(dst, opGlobalGet), rw.fuel)
	dst = append(dst, opI32Const, 0, 0x4e, opBrIf, 0)
	dst = appendU32(append(dst, opCall), rw.slow)
	return append(dst, opEnd)
}

// body appends function i with its checks.
func (rw *rewriter) body(dst []byte, i int) ([]byte, error) {
	body, f := rw.bodies[i], &rw.functions[i]
	at, err := localsEnd(body)
	if err != nil {
		return nil, err
	}
	dst = append(dst, body[:at]...)
	if f.entry {
		dst = rw.check(dst, weight(f.straight))
	}
	r := &reader{b: body, pos: at}
	loops := 0
	copied := at // body[copied:] is not in dst yet
	flush := func(in instruction) {
		dst = append(dst, body[copied:in.start]...)
		copied = r.pos
	}
	for r.more() {
		in := r.next()
		rw.info.Instructions++
		switch in.op {
		case opLoop:
			l := &f.loops[loops]
			loops++
			if n := l.copies(); n > 1 && !rw.o.NoChecks {
				dst = append(dst, body[copied:in.start]...)
				if dst, err = rw.unroll(dst, body[l.start:l.end], l, n); err != nil {
					return nil, err
				}
				r.pos = l.end
				if r.next().op != opEnd {
					return nil, errAfterEnd
				}
				copied = r.pos
				continue
			}
			dst = append(dst, body[copied:r.pos]...)
			copied = r.pos
			dst = rw.check(dst, weight(l.instructions))
		case opCall, opRefFunc:
			if r.err != nil || int(in.index) >= len(rw.remap) {
				return nil, errUnknownFunction
			}
			flush(in)
			dst = appendU32(append(dst, in.op), rw.remap[in.index])
		case opTableSet:
			flush(in)
			dst = rw.taint(dst)
			dst = append(dst, body[in.start:r.pos]...)
		case opBulk:
			if in.sub < bulkMemoryInit || in.sub == bulkTableSize || r.err != nil {
				continue
			}
			flush(in)
			switch in.sub {
			case bulkDataDrop, bulkElemDrop:
				dst = rw.taint(dst)
				dst = append(dst, body[in.start:r.pos]...)
			default:
				index, err := rw.bulk(body[in.start:r.pos])
				if err != nil {
					return nil, err
				}
				dst = appendU32(append(dst, opCall), index)
			}
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return append(dst, body[copied:]...), nil
}

func (rw *rewriter) taint(dst []byte) []byte {
	dst = append(dst, opI32Const, 1)
	return appendU32(append(dst, opGlobalSet), rw.tainted)
}

// entries adds the functions that the engine calls, and returns the export
// section.
func (rw *rewriter) entries() ([]byte, error) {
	void := rw.typeOf(nil, nil)
	find := func(name string) int64 {
		for _, e := range rw.exports {
			if e.kind == kindFunc && string(e.name) == name {
				return int64(e.index)
			}
		}
		return -1
	}

	// Save and Run: a second global for each mutable one.
	var save, run []byte
	var exports []byte
	n := 0
	put := func(name string, kind byte, index uint32) {
		exports = appendName(exports, name)
		exports = appendU32(append(exports, kind), index)
		n++
	}
	for i, g := range rw.module.globals {
		if !g.mutable {
			continue
		}
		shadow := rw.addGlobal(g.typ)
		save = appendU32(append(save, opGlobalGet), uint32(i))
		save = appendU32(append(save, opGlobalSet), shadow)
		run = appendU32(append(run, opGlobalGet), shadow)
		run = appendU32(append(run, opGlobalSet), uint32(i))
		put(fmt.Sprintf("%s%d", GlobalPrefix, len(rw.info.Globals)), kindGlobal, shadow)
		rw.info.Globals = append(rw.info.Globals, g.typ)
		if g.typ == 0x7b || g.typ == 0x70 || g.typ == 0x6f {
			rw.info.Opaque = true
		}
	}
	refill := appendU32(append(appendS32([]byte{opI32Const}, FuelRefill), opGlobalSet), rw.fuel)
	run = append(run, refill...)

	handle := find("handle")
	start := find("_start")
	initialize := find("_initialize")
	rw.info.Initialize = initialize >= 0
	entry := handle
	if handle < 0 || start >= 0 && initialize < 0 {
		entry = start
		rw.info.Command = start >= 0
	}
	call := func(c []byte, index int64) ([]byte, error) {
		if rw.typeOfFunction(uint32(index)) != string(rw.typeBytes(void)) {
			return nil, errors.New("_start, _initialize and handle must have no parameters and no results")
		}
		return appendU32(append(c, opCall), rw.remap[index]), nil
	}
	var err error
	rw.info.Runnable = entry >= 0
	run = appendU32(append(run, opGlobalGet), rw.frozen)
	run = appendU32(append(run, opIf, blockEmpty, opCall), rw.enter)
	run = append(run, opIf, blockEmpty, opReturn, opEnd, opEnd)
	if entry >= 0 {
		if run, err = call(run, entry); err != nil {
			return nil, err
		}
	}

	// Init: data segments, start function, _initialize.
	init := slices.Clone(refill)
	for i, s := range rw.data {
		if s.passive {
			continue
		}
		if s.memory != 0 {
			return nil, errors.New("data segment for a second memory")
		}
		if _, err := rw.expr(s.offset); err != nil {
			return nil, err
		}
		init = append(init, s.offset[:len(s.offset)-1]...)
		init = append(init, opI32Const, 0)
		init = appendS32(append(init, opI32Const), int32(len(s.content)))
		init = appendU32(append(init, opBulk, bulkMemoryInit), uint32(i))
		init = append(init, 0)
		init = appendU32(append(init, opBulk, bulkDataDrop), uint32(i))
	}
	if rw.start >= 0 {
		if init, err = call(init, rw.start); err != nil {
			return nil, err
		}
	}
	if initialize >= 0 && entry == handle && entry >= 0 {
		if init, err = call(init, initialize); err != nil {
			return nil, err
		}
	}

	put(Init, kindFunc, rw.add(void, nil, init, []byte{opEnd}))
	put(Save, kindFunc, rw.add(void, nil, save, []byte{opEnd}))
	put(Run, kindFunc, rw.add(void, nil, run, []byte{opEnd}))
	put(Fuel, kindGlobal, rw.fuel)
	put(Tainted, kindGlobal, rw.tainted)
	put(Frozen, kindGlobal, rw.frozen)
	if rw.memory {
		put(Memory, kindMemory, 0)
	}
	out := appendU32(nil, uint32(n+len(rw.exports)))
	for _, e := range rw.exports {
		index := e.index
		if e.kind == kindFunc {
			index = rw.remap[index]
		}
		out = appendName(out, string(e.name))
		out = appendU32(append(out, e.kind), index)
	}
	return append(out, exports...), nil
}

// typeOfFunction returns the encoded type of a function of the module.
func (rw *rewriter) typeOfFunction(index uint32) string {
	if int(index) >= rw.importFuncs {
		return string(rw.typeBytes(rw.funcTypes[int(index)-rw.importFuncs]))
	}
	for _, im := range rw.imports {
		if im.kind == kindFunc {
			if index == 0 {
				return string(rw.typeBytes(im.typ))
			}
			index--
		}
	}
	return ""
}

func (rw *rewriter) typeBytes(index uint32) []byte {
	if int(index) < len(rw.module.types) {
		return rw.module.types[index]
	}
	return rw.types[int(index)-len(rw.module.types)]
}

// assemble writes the sections in their order.
func (rw *rewriter) assemble(size int, code, elements, exports []byte) ([]byte, error) {
	out := make([]byte, 0, size+len(code)/4)
	out = append(out, "\x00asm\x01\x00\x00\x00"...)
	vector := func(n int, content []byte) []byte { return append(appendU32(nil, uint32(n)), content...) }

	types := slices.Concat(slices.Concat(rw.module.types...), slices.Concat(rw.types...))
	out = appendSection(out, secType, vector(len(rw.module.types)+len(rw.types), types))

	// Imports: functions keep their numbers, so the added ones come last.
	var imports []byte
	for _, im := range rw.imports {
		from := string(im.module)
		if im.kind != kindFunc {
			rw.info.Foreign = true
		} else {
			if from == rw.o.From && slices.Contains(rw.o.Redirect, string(im.name)) {
				from = HostModule
			}
			rw.info.Imports = append(rw.info.Imports, Import{from, string(im.name)})
		}
		imports = appendName(imports, from)
		imports = appendName(imports, string(im.name))
		imports = append(append(imports, im.kind), im.desc...)
	}
	for _, a := range rw.added {
		imports = appendName(appendName(imports, HostModule), a.name)
		imports = appendU32(append(imports, kindFunc), a.typ)
		rw.info.Imports = append(rw.info.Imports, Import{HostModule, a.name})
	}
	out = appendSection(out, secImport, vector(len(rw.imports)+len(rw.added), imports))

	var funcs []byte
	for _, t := range rw.funcTypes {
		funcs = appendU32(funcs, t)
	}
	for _, t := range rw.funcs {
		funcs = appendU32(funcs, t)
	}
	out = appendSection(out, secFunction, vector(len(rw.funcTypes)+len(rw.funcs), funcs))

	if rw.present[secTable] {
		tables, err := rw.tableSection()
		if err != nil {
			return nil, err
		}
		out = appendSection(out, secTable, tables)
	}
	if rw.present[secMemory] {
		r := &reader{b: rw.sections[secMemory]}
		if r.count() > 0 {
			rw.info.Memory = true
			rw.info.MemoryMin, _, _ = r.limits()
		}
		out = appendSection(out, secMemory, rw.sections[secMemory])
	}

	var globals []byte
	for i, g := range rw.module.globals {
		if i < rw.importGlobs {
			continue
		}
		mutable := byte(0)
		if g.mutable {
			mutable = 1
		}
		init, err := rw.expr(g.init)
		if err != nil {
			return nil, err
		}
		globals = append(append(globals, g.typ, mutable), init...)
	}
	out = appendSection(out, secGlobal, vector(int(rw.nGlobals)-rw.importGlobs, append(globals, rw.globals...)))

	out = appendSection(out, secExport, exports)
	if elements != nil {
		out = appendSection(out, secElement, elements)
	}
	if rw.present[secData] || rw.present[secDataCount] {
		out = appendSection(out, secDataCount, appendU32(nil, uint32(len(rw.data))))
	}
	out = appendSection(out, secCode, vector(len(rw.bodies)+len(rw.code), code))
	if rw.present[secData] {
		data := appendU32(nil, uint32(len(rw.data)))
		for _, s := range rw.data {
			data = append(data, 1) // passive
			data = appendU32(data, uint32(len(s.content)))
			data = append(data, s.content...)
		}
		out = appendSection(out, secData, data)
	}
	return out, nil
}

// tableSection bounds the tables.
func (rw *rewriter) tableSection() ([]byte, error) {
	r := &reader{b: rw.sections[secTable]}
	n := r.count()
	if n > tablesMax {
		return nil, fmt.Errorf("%d tables, at most %d are allowed", n, tablesMax)
	}
	out := appendU32(nil, uint32(n))
	left := rw.o.TableMax // for all tables together
	for range n {
		out = append(out, r.byte())
		low, high, bounded := r.limits()
		if bounded && high < low {
			return nil, errors.New("table's maximum is below its minimum")
		}
		if low > left {
			return nil, fmt.Errorf("table of %d elements, at most %d are allowed in all tables", low, rw.o.TableMax)
		}
		left -= low
		rw.info.Elements += int(low)
		// (The room to grow is shared evenly: what several tables get together stays below twice TableMax.)
		room := max(low, min(low+rw.o.TableMax/uint32(n), TableGrowMax))
		if !bounded || high > room {
			high = room
		}
		out = appendU32(appendU32(append(out, 1), low), high)
	}
	return out, r.err
}
