package route

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
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

// Function is one route's function, as the table serves it. All its fields are
// read-only. Its identity over time is Cell or Key, never its address.
type Function struct {
	Name        string
	MaxBody     int64         // bytes of a request's body; 0: no body
	Timeout     time.Duration // of one invocation
	Cell        uint32        // Row.Cell
	MaxInflight int32         // requests at a time; 0: no limit

	method Methods
	path   string
	d      *Descriptor
}

// Key is the row's key; it allocates.
func (f *Function) Key() string { return f.method.String() + ":" + f.path }

// Method is the key's method: one of the constants.
func (f *Function) Method() Methods { return f.method }

// Path is the key's path, parameters as written.
func (f *Function) Path() string { return f.path }

// Descriptor is a new copy of what the row says, the caller's to keep. Method
// and Path are those of the key.
func (f *Function) Descriptor() *Descriptor { d := *f.d; return &d }

// Row is a row that means the same as the one that f came from: its key and
// cell, and the descriptor in the form of AppendJSON.
func (f *Function) Row() Row {
	return Row{f.Key(), string(f.d.AppendJSON(nil)), f.Cell}
}

// ErrShadowed is in the RowError of a route that differs from another one only
// in the names of its parameters: the other, lower key serves.
var ErrShadowed = errors.New("route: another key differs only in parameter names and serves this path")

// Table is the route table of one generation. It is immutable.
type Table struct {
	generation uint64
	all        map[string]*Function
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
// key t serves keeps t's version.
func (t *Table) Rebuild(generation uint64, rows []Row) (*Table, []RowError) {
	next := &Table{generation, make(map[string]*Function)}
	var errs []RowError
	for _, r := range rows {
		f, err := newFunction(r)
		if err != nil {
			errs = append(errs, RowError{r.Key, err})
			if f = t.all[r.Key]; f == nil || next.all[r.Key] != nil {
				continue
			}
		}
		next.all[r.Key] = f
	}
	return next, errs
}

// Apply makes the table that follows t when changes happen in their order. t
// itself stays as it is, and what did not change is shared between the two. A
// wrong row changes nothing and is reported; deleting what is not there is no
// error.
func (t *Table) Apply(generation uint64, changes []Change) (*Table, []RowError) {
	next := &Table{generation, maps.Clone(t.all)}
	var errs []RowError
	for _, c := range changes {
		if c.Op == OpDelete {
			delete(next.all, c.Row.Key)
			continue
		}
		f, err := newFunction(c.Row)
		if err != nil {
			errs = append(errs, RowError{c.Row.Key, err})
			continue
		}
		next.all[c.Row.Key] = f
	}
	return next, errs
}

func newFunction(r Row) (*Function, error) {
	d, err := ParseRow(r.Key, r.Value)
	if err != nil {
		return nil, err
	}
	return &Function{d.Name, d.MaxBody, d.Timeout, r.Cell, int32(d.MaxInflight), methodNumber(d.Method), d.Path, d}, nil
}

// Generation is the number that the table was made with.
func (t *Table) Generation() uint64 { return t.generation }

// Len is the number of routes.
func (t *Table) Len() int { return len(t.all) }

// Get is the route of that key, or nil.
func (t *Table) Get(key string) *Function { return t.all[key] }

// ByName is the function that /function/<name> calls, with any method; nil
// when no row has that name. Of several rows the one with the lowest path
// counts, then the lowest key.
//
// Hot: allocates nothing.
func (t *Table) ByName(name []byte) *Function {
	var best *Function
	for _, f := range t.all {
		if f.Name == string(name) && (best == nil || less(f, best)) {
			best = f
		}
	}
	return best
}

// All goes over every route, in no order.
func (t *Table) All(yield func(*Function) bool) {
	for _, f := range t.all {
		if !yield(f) {
			return
		}
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
	for _, f := range t.all {
		if !fits(f.path, path) {
			continue
		}
		m.Allow |= f.method
		if rank(want, f.method) == 0 {
			continue
		}
		if b := m.Function; b == nil || specific(f.path, b.path) < 0 || specific(f.path, b.path) == 0 &&
			(rank(want, f.method) > rank(want, b.method) || f.method == b.method && f.path < b.path) {
			m.Function = f
		}
	}
	if m.Function == nil {
		if m.Allow != 0 {
			return MethodNotAllowed
		}
		return NotFound
	}
	m.capture(path)
	return Found
}

// capture fills in what m.Function's path took of path.
func (m *Match) capture(path []byte) {
	m.ScriptName, m.PathInfo = path, nil
	pattern, rest := m.Function.path[1:], path[1:]
	for {
		seg, patternRest, more := strings.Cut(pattern, "/")
		name, kind := parameter(seg)
		if kind == segmentRest {
			m.Params[m.ParamCount] = Param{name, rest}
			m.ParamCount++
			at := len(path) - len(rest) - 1
			m.ScriptName, m.PathInfo = path[:at], path[at:]
			return
		}
		value, after, _ := bytes.Cut(rest, []byte("/"))
		if kind == segmentParam {
			m.Params[m.ParamCount] = Param{name, value}
			m.ParamCount++
		}
		if !more {
			return
		}
		pattern, rest = patternRest, after
	}
}

func less(a, b *Function) bool {
	return a.path < b.path || a.path == b.path && a.method < b.method
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

func fits(pattern string, path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	p, r := strings.Split(pattern[1:], "/"), bytes.Split(path[1:], []byte("/"))
	for i, seg := range p {
		_, kind := parameter(seg)
		switch {
		case kind == segmentRest:
			return i < len(r) && !slices.ContainsFunc(r[i:], dots)
		case i == len(r):
			return false
		case kind == segmentParam && (len(r[i]) == 0 || dots(r[i])):
			return false
		case kind == segmentStatic && seg != string(r[i]):
			return false
		}
	}
	return len(p) == len(r)
}

func specific(a, b string) int {
	x, y := strings.Split(a[1:], "/"), strings.Split(b[1:], "/")
	for i := range min(len(x), len(y)) {
		_, k := parameter(x[i])
		_, l := parameter(y[i])
		if k != l {
			return int(k) - int(l)
		}
	}
	return 0
}

// AppendDecoded appends v with its %XX decoded; false when a % is not followed
// by two hexadecimal digits or the result would hold a NUL byte.
func AppendDecoded(dst, v []byte) ([]byte, bool) {
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '%' {
			if len(v) < i+3 || !isHex(v[i+1]) || !isHex(v[i+2]) {
				return dst, false
			}
			c = unhex(v[i+1])<<4 | unhex(v[i+2])
			i += 2
		}
		if c == 0 {
			return dst, false
		}
		dst = append(dst, c)
	}
	return dst, true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
