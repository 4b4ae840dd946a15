package route

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"strings"
	"sync/atomic"
)

// Verdict is what a lookup found out.
type Verdict uint8

// The verdicts.
const (
	NotFound         Verdict = iota // no route has this path
	Found                           // Match.Function serves it
	MethodNotAllowed                // routes have this path, for the methods in Match.Allow only
)

// Param is one parameter of a matched path.
type Param struct {
	Name  string // as in the key
	Value []byte // as sent, a view of the request's path
}

// Match is the result of a lookup. The caller brings it and may use it again;
// its views die with the path given to Lookup.
type Match struct {
	Function *Function // set when Found
	// ScriptName and PathInfo are the path's two halves (RFC 3875 sections
	// 4.1.5 and 4.1.13): PathInfo is what a trailing {name...} took, with its
	// slash, and empty for any other route. Set when Found.
	ScriptName, PathInfo []byte
	Allow                Methods // set when MethodNotAllowed
	ParamCount           int     // set when Found
	Params               [ParamsMax]Param

	segments segments // scratch of one lookup: here, so that no lookup has to clear it
}

// Param is the value of the parameter called name; nil when there is none.
func (m *Match) Param(name string) []byte {
	for i := range m.Params[:m.ParamCount] {
		if m.Params[i].Name == name {
			return m.Params[i].Value
		}
	}
	return nil
}

// ErrShadowed is in the RowError of a route that differs from another one of
// the same method only in the names of its parameters. The lower key serves.
// This one is kept, and serves when the lower one is gone.
var ErrShadowed = errors.New("another key differs in parameter names only, and serves this path")

// shadowMax bounds the routes of one method that differ in parameter names
// only: they meet in one leaf of the index. One more is a RowError.
const shadowMax = 8

// Table is the route table of one generation. It is immutable; any number of
// goroutines may read it.
type Table struct {
	generation uint64
	seed       maphash.Seed
	secret     uint64 // of the seed: the start of each shape's hash

	plain    index[plain]     // routes without parameters, by path
	patterns index[*Function] // routes with parameters, by shape and plain segments
	shapes   shapes           // of patterns
	names    names
}

// plain is the slot of a route without parameters: one cache line, with all
// that decides about a match but for the end of a long path.
type plain struct {
	f      *Function
	size   uint16 // of the path, in bytes
	method Methods
	start  [plainStart]byte // of the path
}

const plainStart = 64 - 8 - 2 - 2

func plainOf(f *Function) (s plain) {
	if f != nil {
		s.f, s.size, s.method = f, f.pathLen, f.method
		copy(s.start[:], f.Path())
	}
	return s
}

// is says whether the slot's path is path.
func (s *plain) is(path []byte) bool {
	if int(s.size) != len(path) {
		return false
	}
	if len(path) <= plainStart {
		return string(s.start[:len(path)]) == string(path)
	}
	return string(s.start[:]) == string(path[:plainStart]) && s.f.Path() == string(path)
}

// Published is where readers find the newest table: nil until the first one is
// stored. One writer builds a table and stores it; a reader loads once per
// request and keeps that table to the request's end.
type Published struct{ atomic.Pointer[Table] }

// Build makes a table of rows. A row that is wrong is left out and reported; of
// a key given twice the last good row counts. rows are not kept.
func Build(generation uint64, rows []Row) (*Table, []RowError) {
	return new(Table).Rebuild(generation, rows)
}

// Rebuild makes a table of exactly rows, as Build does, but a wrong row whose
// key t serves keeps t's version of that route.
func (t *Table) Rebuild(generation uint64, rows []Row) (*Table, []RowError) {
	e := newEdit(newTable(generation), len(rows))
	for _, r := range rows {
		if !e.put(r) && t.Len() > 0 && e.find(r.Key) == nil {
			if f := t.Get(r.Key); f != nil {
				e.set(r.Key, f)
			}
		}
	}
	return e.table(generation)
}

// Apply makes the table that follows t when changes happen in their order. t
// itself stays as it is, and what did not change is shared between the two. A
// wrong row changes nothing and is reported, in the order of changes; deleting
// what is not there is no error. changes are not kept.
func (t *Table) Apply(generation uint64, changes []Change) (*Table, []RowError) {
	if len(t.plain.cells)+len(t.patterns.cells) == 0 {
		t = newTable(generation)
	}
	e := newEdit(t, len(changes))
	for _, c := range changes {
		if c.Op == OpDelete {
			e.set(c.Row.Key, nil)
		} else {
			e.put(c.Row)
		}
	}
	return e.table(generation)
}

func newTable(generation uint64) *Table {
	seed := maphash.MakeSeed()
	return &Table{generation: generation, seed: seed, secret: maphash.String(seed, "shape")}
}

// Generation is the number that the table was made with.
func (t *Table) Generation() uint64 { return t.generation }

// Len is the number of routes.
func (t *Table) Len() int { return t.plain.n + t.patterns.n }

// Get is the route of exactly that key, or nil.
func (t *Table) Get(key string) *Function {
	if t.Len() == 0 {
		return nil
	}
	method, path, _ := strings.Cut(key, ":")
	if kinds := shapeOf(path); kinds != "" {
		for f := range seq(&t.patterns, t.hashPattern(path, kinds)) {
			if f.method.String() == method && f.Path() == path {
				return f
			}
		}
		return nil
	}
	for s := range seq(&t.plain, maphash.String(t.seed, path)) {
		if s.method.String() == method && s.f.Path() == path {
			return s.f
		}
	}
	return nil
}

func (t *Table) hashPattern(path, kinds string) uint64 {
	var s segments
	s.cut(t.seed, []byte(path))
	return s.hashShape(t.secret, kinds)
}

// ByName is the function that /function/<name> calls, with any method; nil
// when no row has that name. Of several rows the one with the lowest key
// counts.
//
// Hot: allocates nothing.
func (t *Table) ByName(name []byte) *Function {
	if t.names.heads.n == 0 {
		return nil
	}
	for f := range seq(&t.names.heads, maphash.Bytes(t.seed, name)) {
		if f.Name == string(name) {
			return f
		}
	}
	return nil
}

// All goes over every route, in no order.
func (t *Table) All(yield func(*Function) bool) {
	more := true
	t.plain.all(func(s plain) bool { more = yield(s.f); return more })
	if more {
		t.patterns.all(yield)
	}
}

// Lookup finds the function of a request. path is the path as sent, without
// the query; the package comment says what fits it. m is set as its fields
// say; what it held before is gone or without meaning.
//
// Hot: allocates nothing.
func (t *Table) Lookup(m *Match, method, path []byte) Verdict {
	want := requestMethod(method)
	m.Function, m.Allow, m.ParamCount = nil, 0, 0
	f, known := t.lookupPlain(want, path)
	if f == nil && known {
		f = t.lookupOther(m, want, path)
	}
	if f != nil {
		m.Function, m.ScriptName, m.PathInfo = f, path, nil
		return Found
	}
	if len(t.shapes) > 0 {
		return t.lookupPattern(m, want, path)
	}
	return m.refusal()
}

// lookupPlain finds the route of exactly that method and plain path; known says
// that there are routes of the path at all.
func (t *Table) lookupPlain(want Methods, path []byte) (f *Function, known bool) {
	if t.plain.n == 0 {
		return nil, false
	}
	h := maphash.Bytes(t.seed, path)
	c := t.plain.leaf(h)
	g := firstGroup(h, len(c.tags))
	for range c.tags {
		tags, first := c.tags[g], int(c.first[g]) // side by side, both before the slot is known
		for marks := candidates(tags, tagOf(h)); marks != 0; marks &= marks - 1 {
			slot := &c.slots[first+bits.TrailingZeros64(marks)>>3]
			if !slot.is(path) {
				continue
			}
			if slot.method == want {
				return slot.f, true
			}
			known = true
		}
		if tags&tagPassed == 0 {
			break
		}
		if g++; g == len(c.tags) {
			g = 0
		}
	}
	return nil, known
}

// lookupOther finds the route of a plain path that serves the method without
// being of it, and gathers the methods that the path's routes are of. The
// rarer case, and a second search, so that the first one stays short.
//
//go:noinline
func (t *Table) lookupOther(m *Match, want Methods, path []byte) *Function {
	for s := range seq(&t.plain, maphash.Bytes(t.seed, path)) {
		if s.is(path) {
			m.consider(s.f, want)
		}
	}
	return m.Function
}

// consider takes f when it serves the method better than what m has: they are
// routes of one path.
func (m *Match) consider(f *Function, want Methods) {
	m.Allow |= f.method
	r := rank(want, f.method)
	if r == 0 {
		return
	}
	if b := m.Function; b == nil || rank(want, b.method) < r || b.method == f.method && f.Path() < b.Path() {
		m.Function = f
	}
}

// rank orders the routes of one path for a request's method; 0: not at all.
func rank(want, m Methods) int {
	switch {
	case m == want:
		return 3
	case want == Head && m == Get:
		return 2
	case m == Any:
		return 1
	}
	return 0
}

func (m *Match) refusal() Verdict {
	if m.Allow != 0 {
		return MethodNotAllowed
	}
	return NotFound
}

func (t *Table) lookupPattern(m *Match, want Methods, path []byte) Verdict {
	if len(path) == 0 || path[0] != '/' {
		return m.refusal()
	}
	s := &m.segments
	s.cut(t.seed, path)
	for i := range t.shapes {
		shape := &t.shapes[i]
		if !s.fits(shape) {
			continue
		}
		for f := range seq(&t.patterns, s.hashShape(t.secret, shape.kinds)) {
			if samePath(f.Path(), shape.kinds, path) {
				m.consider(f, want)
			}
		}
		if m.Function != nil {
			m.capture(path)
			return Found
		}
	}
	return m.refusal()
}

// capture fills in what m.Function's path takes of path.
func (m *Match) capture(path []byte) {
	m.ScriptName, m.PathInfo = path, nil
	pattern := m.Function.Path()
	for i, j := 1, 1; i <= len(pattern); {
		end, after := segmentEnd(pattern, i), segmentEnd(path, j)
		if i < end && pattern[i] == '{' {
			p := &m.Params[m.ParamCount]
			m.ParamCount++
			p.Name, p.Value = pattern[i+1:end-1], path[j:after]
			if rest, ok := strings.CutSuffix(p.Name, "..."); ok {
				p.Name, p.Value = rest, path[j:]
				m.ScriptName, m.PathInfo = path[:j-1], path[j-1:]
				return
			}
		}
		i, j = end+1, after+1
	}
}

// edit is a table in the making: what happens to each key, on top of base.
type edit struct {
	base    *Table
	changed map[string]*replacement
	grown   map[uint64]int // by how much a method's routes of one shape's hash are more than in base
	errs    []RowError
}

type replacement struct{ old, new *Function }

func newEdit(base *Table, n int) *edit {
	return &edit{base: base, changed: make(map[string]*replacement, n), grown: make(map[uint64]int)}
}

// find is the route of that key as it is by now.
func (e *edit) find(key string) *Function {
	if c := e.changed[key]; c != nil {
		return c.new
	}
	return e.base.Get(key)
}

// put makes r the route of its key; false when r is wrong.
func (e *edit) put(r Row) bool {
	f, err := newFunction(r)
	if err == nil {
		err = e.set(r.Key, f)
	}
	if err != nil {
		e.errs = append(e.errs, RowError{r.Key, err})
		return false
	}
	return true
}

// set makes f the route of key, or none when f is nil.
func (e *edit) set(key string, f *Function) error {
	c := e.changed[key]
	now := e.find(key)
	if f == now {
		return nil
	}
	if (f == nil) != (now == nil) {
		one := f
		if f == nil {
			one = now
		}
		if kinds := shapeOf(one.Path()); kinds != "" {
			h := e.base.hashPattern(one.Path(), kinds) ^ uint64(one.method)
			if f == nil {
				e.grown[h]--
			} else if e.meet(h^uint64(f.method), f.method)+e.grown[h] >= shadowMax {
				return fmt.Errorf("%d routes differ from this one in parameter names only; that is the most", shadowMax)
			} else {
				e.grown[h]++
			}
		}
	}
	if c == nil {
		c = &replacement{old: now}
		e.changed[key] = c
	}
	c.new = f
	return nil
}

// meet counts the method's routes in base that have a shape's hash, or nearly.
func (e *edit) meet(h uint64, method Methods) int {
	n := 0
	for f := range seq(&e.base.patterns, h) {
		if f.method == method {
			n++
		}
	}
	return n
}

// table is the end of the edit.
func (e *edit) table(generation uint64) (*Table, []RowError) {
	t := *e.base
	t.generation = generation
	var plains []swap[plain]
	var patterns []swap[*Function]
	names := make(map[string]*nameChange, len(e.changed))
	name := func(f *Function) *nameChange {
		c := names[f.Name]
		if c == nil {
			c = new(nameChange)
			names[f.Name] = c
		}
		return c
	}
	for key, c := range e.changed {
		if c.old == c.new {
			continue
		}
		_, path, _ := strings.Cut(key, ":")
		if kinds := shapeOf(path); kinds == "" {
			plains = append(plains, swap[plain]{maphash.String(t.seed, path), plainOf(c.old), plainOf(c.new)})
		} else {
			patterns = append(patterns, swap[*Function]{t.hashPattern(path, kinds), c.old, c.new})
		}
		if c.old != nil {
			n := name(c.old)
			n.gone = append(n.gone, c.old)
		}
		if c.new != nil {
			n := name(c.new)
			n.come = append(n.come, c.new)
		}
	}
	t.shapes = t.shapes.apply(patterns)
	t.plain = t.plain.apply(plains, func(s *plain) uint64 {
		if s.size <= plainStart {
			return maphash.Bytes(t.seed, s.start[:s.size])
		}
		return maphash.String(t.seed, s.f.Path())
	})
	t.patterns = t.patterns.apply(patterns, func(f **Function) uint64 {
		return t.hashPattern((*f).Path(), shapeOf((*f).Path()))
	})
	t.names = t.names.apply(names, func(name string) uint64 { return maphash.String(t.seed, name) })
	return &t, append(e.errs, t.shadowed(patterns)...)
}

// shadowed reports the new routes that another one, of a lower key, hides.
func (t *Table) shadowed(swaps []swap[*Function]) []RowError {
	var errs []RowError
	for _, s := range swaps {
		if s.new == nil {
			continue
		}
		for f := range seq(&t.patterns, s.hash) {
			if f.method == s.new.method && f.Path() < s.new.Path() && sameRoute(f.Path(), s.new.Path()) {
				errs = append(errs, RowError{s.new.Key(), fmt.Errorf("%w: %s", ErrShadowed, f.Key())})
				break
			}
		}
	}
	return errs
}
