package prepare

import (
	"bytes"
	"errors"
	"fmt"
)

// Section identifiers, in the order in which they stand in a module.
const (
	secCustom    = 0
	secType      = 1
	secImport    = 2
	secFunction  = 3
	secTable     = 4
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secStart     = 8
	secElement   = 9
	secCode      = 10
	secData      = 11
	secDataCount = 12
)

// Kinds of imports and exports.
const (
	kindFunc   = 0
	kindTable  = 1
	kindMemory = 2
	kindGlobal = 3
)

// module is what the pass knows of a module. All slices are views of the
// module's bytes.
type module struct {
	sections [secDataCount + 1][]byte
	present  [secDataCount + 1]bool

	types       [][]byte // each: 0x60 params results, as encoded
	imports     []imported
	importFuncs int      // functions among imports; the other kinds likewise
	funcTypes   []uint32 // of the functions defined here
	globals     []global // imported ones first
	tables      []byte   // element type per table, imported ones first
	importTabs  int
	importGlobs int
	exports     []export
	start       int64    // -1: none
	bodies      [][]byte // locals and code of each function defined here
	data        []segment
	memory      bool // there is one, imported or not
}

type imported struct {
	module, name []byte
	kind         byte
	desc         []byte // the description as encoded, kind excluded
	typ          uint32 // of a function
}

type global struct {
	typ     byte
	mutable bool
	init    []byte // const expression with its end, of one defined here
}

type export struct {
	name  []byte
	kind  byte
	index uint32
}

type segment struct {
	passive bool
	memory  uint32
	offset  []byte // const expression with its end
	content []byte
	merged  bool // content is our own
}

// parse splits a module into what the pass needs. It accepts more than
// valid modules, never less, and its result is safe to walk.
func parse(b []byte) (*module, error) {
	if !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errors.New("not a WebAssembly module of version 1")
	}
	m := &module{start: -1}
	r := &reader{b: b, pos: 8}
	for r.more() {
		id := r.byte()
		content := r.bytes(r.u32())
		if r.err != nil {
			return nil, fmt.Errorf("section %d: %w", id, r.err)
		}
		if id == secCustom {
			continue
		}
		if id > secDataCount || m.present[id] {
			return nil, fmt.Errorf("section %d is unknown or stands twice", id)
		}
		m.present[id] = true
		m.sections[id] = content
	}
	steps := []struct {
		id byte
		f  func(*reader)
	}{
		{secType, m.parseTypes},
		{secImport, m.parseImports},
		{secFunction, func(r *reader) {
			m.funcTypes = make([]uint32, r.count())
			for i := range m.funcTypes {
				m.funcTypes[i] = r.u32()
			}
		}},
		{secTable, m.parseTables},
		{secMemory, func(r *reader) { m.memory = m.memory || r.count() > 0; r.pos = len(r.b) }},
		{secGlobal, m.parseGlobals},
		{secExport, m.parseExports},
		{secStart, func(r *reader) { m.start = int64(r.u32()) }},
		{secCode, m.parseCode},
		{secData, m.parseData},
	}
	for _, s := range steps {
		if !m.present[s.id] {
			continue
		}
		r := &reader{b: m.sections[s.id]}
		if s.f(r); r.err == nil && r.pos != len(r.b) {
			r.err = errors.New("bytes left over")
		}
		if r.err != nil {
			return nil, fmt.Errorf("section %d at byte %d: %w", s.id, r.pos, r.err)
		}
	}
	if len(m.bodies) != len(m.funcTypes) {
		return nil, fmt.Errorf("%d functions have %d bodies", len(m.funcTypes), len(m.bodies))
	}
	for _, t := range m.funcTypes {
		if int(t) >= len(m.types) {
			return nil, fmt.Errorf("function of unknown type %d", t)
		}
	}
	functions := m.importFuncs + len(m.funcTypes)
	for _, e := range m.exports {
		if e.kind == kindFunc && int(e.index) >= functions {
			return nil, fmt.Errorf("export of unknown function %d", e.index)
		}
	}
	if m.start >= int64(functions) {
		return nil, fmt.Errorf("start function %d is unknown", m.start)
	}
	return m, nil
}

func (m *module) parseTypes(r *reader) {
	n := r.count()
	for range n {
		start := r.pos
		if r.byte() != 0x60 && r.err == nil {
			r.fail(errors.New("type that is no function type"))
		}
		r.bytes(r.u32())
		r.bytes(r.u32())
		if r.err != nil {
			return
		}
		m.types = append(m.types, r.b[start:r.pos])
	}
}

// limits skips the limits of a table or memory.
func (r *reader) limits() (low, high uint32, bounded bool) {
	switch r.byte() {
	case 0:
		return r.u32(), 0, false
	case 1:
		return r.u32(), r.u32(), true
	default:
		r.fail(errors.New("unknown kind of limits"))
		return 0, 0, false
	}
}

func (m *module) parseImports(r *reader) {
	for range r.count() {
		im := imported{module: r.name(), name: r.name(), kind: r.byte()}
		start := r.pos
		switch im.kind {
		case kindFunc:
			im.typ = r.u32()
			if r.err == nil && int(im.typ) >= len(m.types) {
				r.fail(fmt.Errorf("import of unknown type %d", im.typ))
			}
			m.importFuncs++
		case kindTable:
			m.tables = append(m.tables, r.byte())
			r.limits()
			m.importTabs++
		case kindMemory:
			r.limits()
			m.memory = true
		case kindGlobal:
			g := global{typ: r.byte(), mutable: r.byte() == 1}
			m.globals = append(m.globals, g)
			m.importGlobs++
		default:
			r.fail(errors.New("unknown kind of import"))
		}
		if r.err != nil {
			return
		}
		im.desc = r.b[start:r.pos]
		m.imports = append(m.imports, im)
	}
}

func (m *module) parseTables(r *reader) {
	for range r.count() {
		m.tables = append(m.tables, r.byte())
		if r.limits(); r.err != nil {
			return
		}
	}
}

// constExpr returns a constant expression with its end.
func (r *reader) constExpr() []byte {
	start := r.pos
	for r.err == nil {
		if r.next().op == opEnd {
			break
		}
	}
	if r.err != nil {
		return nil
	}
	return r.b[start:r.pos]
}

func (m *module) parseGlobals(r *reader) {
	for range r.count() {
		g := global{typ: r.byte(), mutable: r.byte() == 1, init: r.constExpr()}
		if r.err != nil {
			return
		}
		m.globals = append(m.globals, g)
	}
}

func (m *module) parseExports(r *reader) {
	for range r.count() {
		e := export{name: r.name(), kind: r.byte(), index: r.u32()}
		if r.err != nil {
			return
		}
		m.exports = append(m.exports, e)
	}
}

func (m *module) parseCode(r *reader) {
	for range r.count() {
		body := r.bytes(r.u32())
		if r.err != nil {
			return
		}
		m.bodies = append(m.bodies, body)
	}
}

func (m *module) parseData(r *reader) {
	for range r.count() {
		var s segment
		switch flag := r.u32(); flag {
		case 0:
			s.offset = r.constExpr()
		case 1:
			s.passive = true
		case 2:
			s.memory = r.u32()
			s.offset = r.constExpr()
		default:
			r.fail(fmt.Errorf("unknown kind of data segment %d", flag))
		}
		s.content = r.name()
		if r.err != nil {
			return
		}
		m.data = append(m.data, s)
	}
}

// localsEnd returns where the code of a body begins, after its locals.
func localsEnd(body []byte) (int, error) {
	r := &reader{b: body}
	for range r.count() {
		r.u32()
		if r.byte(); r.err != nil {
			break
		}
	}
	return r.pos, r.err
}
