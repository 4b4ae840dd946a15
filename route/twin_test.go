package route

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// twin is the plain twin of Table: a list of rows, searched from one end to
// the other, with every rule of the package comment spelt out.
type twin map[string]Row

func (w twin) apply(changes []Change) {
	for _, c := range changes {
		if c.Op == OpDelete {
			delete(w, c.Row.Key)
		} else if _, err := ParseRow(c.Row.Key, c.Row.Value); err == nil {
			w[c.Row.Key] = c.Row
		}
	}
}

// lookup is the key that serves and the methods that fit.
func (w twin) lookup(method, path string) (serves string, allow Methods) {
	var best string
	for key := range w {
		m, pattern, _ := strings.Cut(key, ":")
		if !twinFits(pattern, path) {
			continue
		}
		allow |= methodNumber(m)
		if twinRank(method, m) > 0 && (best == "" || twinLess(method, key, best)) {
			best = key
		}
	}
	return best, allow
}

func (w twin) byName(name string) (lowest string) {
	for key, row := range w {
		d, _ := ParseRow(key, row.Value)
		if d.Name == name && (lowest == "" || key < lowest) {
			lowest = key
		}
	}
	return lowest
}

func twinRank(request, method string) int {
	return 1 + slices.Index([]string{"ANY", "GET for HEAD", request}, strings.ReplaceAll(method, "GET", map[bool]string{true: "GET for HEAD", false: "GET"}[request == "HEAD"]))
}

// twinLess says whether a serves the method better than b.
func twinLess(method, a, b string) bool {
	methodA, a, _ := strings.Cut(a, ":")
	methodB, b, _ := strings.Cut(b, ":")
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := range min(len(x), len(y)) {
		if k, l := twinKind(x[i]), twinKind(y[i]); k != l {
			return k < l
		}
	}
	if methodA != methodB {
		return twinRank(method, methodA) > twinRank(method, methodB)
	}
	return a < b
}

func twinKind(seg string) int {
	switch {
	case strings.HasSuffix(seg, "...}"):
		return 2
	case strings.HasPrefix(seg, "{"):
		return 1
	}
	return 0
}

func twinDots(seg string) bool {
	seg = strings.ReplaceAll(strings.ReplaceAll(seg, "%2e", "."), "%2E", ".")
	return seg == "." || seg == ".."
}

func twinFits(pattern, path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	p, r := strings.Split(pattern, "/"), strings.Split(path, "/")
	for i, seg := range p {
		switch kind := twinKind(seg); {
		case i == len(r):
			return false
		case kind == 2:
			return !slices.ContainsFunc(r[i:], twinDots)
		case kind == 1 && (r[i] == "" || twinDots(r[i])):
			return false
		case kind == 0 && seg != r[i]:
			return false
		}
	}
	return len(p) == len(r)
}

// agree compares a table with its twin in one lookup, and checks the views.
func agree(t *testing.T, table *Table, w twin, method, path string) {
	t.Helper()
	var m Match
	v := table.Lookup(&m, []byte(method), []byte(path))
	serves, allow := w.lookup(method, path)
	switch {
	case serves != "":
		if v != Found || m.Function.Key() != serves {
			t.Fatalf("%s %s: %d %v, want %s", method, path, v, m.Function, serves)
		}
		if string(m.ScriptName)+string(m.PathInfo) != path {
			t.Fatalf("%s %s: %q and %q", method, path, m.ScriptName, m.PathInfo)
		}
		// The pattern with the parameters put in is the path.
		filled := m.Function.Path()
		for _, p := range m.Params[:m.ParamCount] {
			if bytes.ContainsAny(p.Value, "{}") {
				return
			}
			filled = strings.Replace(strings.Replace(filled, "{"+p.Name+"}", string(p.Value), 1), "{"+p.Name+"...}", string(p.Value), 1)
		}
		if filled != path {
			t.Fatalf("%s %s: %s with its parameters is %s", method, path, m.Function.Path(), filled)
		}
	case allow != 0:
		if v != MethodNotAllowed || m.Allow != allow || m.Function != nil {
			t.Fatalf("%s %s: %d %v, want allowed %v", method, path, v, m.Allow, allow)
		}
	default:
		if v != NotFound || m.Allow != 0 || m.Function != nil {
			t.Fatalf("%s %s: %d, want nothing", method, path, v)
		}
	}
}

var twinSegments = []string{"a", "b", "ab", "", ".", "..", "%2e", "{x}", "c.d", "...", "%2E.", "x%2Fy"}

func randomPath(r *rand.Rand) string {
	var s strings.Builder
	for range 1 + r.IntN(5) {
		s.WriteString("/" + twinSegments[r.IntN(len(twinSegments))])
	}
	return s.String()
}

// randomKey is mostly a good one.
func randomKey(r *rand.Rand) string {
	segments := 1 + r.IntN(4)
	key := methodNames[r.IntN(len(methodNames))] + ":"
	for i := range segments {
		switch k := r.IntN(10); {
		case k < 3:
			key += fmt.Sprintf("/{p%d}", r.IntN(2)*10+i)
		case k < 4 && i == segments-1:
			key += "/{rest...}"
		default:
			key += "/" + []string{"a", "b", "ab", "", "..."}[r.IntN(5)]
		}
	}
	return key
}

// TestTwin: random changes, and after each batch random lookups, in the table
// and in its twin.
func TestTwin(t *testing.T) {
	t.Parallel()
	for round := range 6 {
		seed := rand.Uint64()
		r := rand.New(rand.NewPCG(seed, 0))
		table, w := &Table{}, twin{}
		for batch := range 20 {
			var changes []Change
			for range 1 + r.IntN(40) {
				switch key := randomKey(r); r.IntN(10) {
				case 0, 1, 2:
					changes = append(changes, gone(key))
				case 3:
					changes = append(changes, put(key, "{"))
				default:
					changes = append(changes, put(key, named(string(rune('a'+r.IntN(8))))))
				}
			}
			before := maps(table)
			next, errs := table.Apply(uint64(batch), changes)
			if got := maps(table); !slices.Equal(got, before) {
				t.Fatalf("seed %d: an Apply changed the table before it", seed)
			}
			for _, e := range errs {
				if strings.Contains(e.Error(), "that is the most") {
					t.Fatalf("seed %d: %v", seed, e)
				}
			}
			table = next
			w.apply(changes)
			if table.Len() != len(w) {
				t.Fatalf("seed %d round %d: %d routes, want %d", seed, round, table.Len(), len(w))
			}
			for key := range w {
				if f := table.Get(key); f == nil || f.Key() != key {
					t.Fatalf("seed %d: %s is not there", seed, key)
				}
			}
			for range 100 {
				agree(t, table, w, []string{"GET", "HEAD", "POST", "OPTIONS", "BREW"}[r.IntN(5)], randomPath(r))
			}
			for c := 'a'; c < 'j'; c++ {
				got := ""
				if f := table.ByName([]byte(string(c))); f != nil {
					got = f.Key()
				}
				if want := w.byName(string(c)); got != want {
					t.Fatalf("seed %d: name %c is %q, want %q", seed, c, got, want)
				}
			}
		}
	}
}

// maps lists a table's keys and names.
func maps(t *Table) []string {
	var all []string
	for f := range t.All {
		all = append(all, f.Key()+" "+f.Name)
	}
	slices.Sort(all)
	return all
}

// FuzzLookup: the table agrees with its twin on any path and method.
func FuzzLookup(f *testing.F) {
	keys := []string{"GET:/a", "POST:/a", "GET:/a/{x}", "ANY:/a/b/{y}", "GET:/{p...}", "PUT:/a/{x}/c/{z...}", "GET:/", "GET:/a/{x}/{y}/", "HEAD:/a/b"}
	table, errs := Build(1, rows(keys...))
	if len(errs) > 0 {
		f.Fatal(errs)
	}
	w := twin{}
	for _, k := range keys {
		w[k] = Row{k, goodValue, 0}
	}
	for _, p := range []string{"/", "/a", "/a/b", "/a/b/c", "/a/q/c/", "/a/q/c/d/e", "//", "/..", "/a/%2e", "", "*", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z/1/2/3/4/5/6/7/.."} {
		f.Add("GET", p)
		f.Add("PUT", p)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		if method == "GET for HEAD" || method == "ANY" {
			return // words of the twin's own
		}
		agree(t, table, w, method, path)
	})
}
