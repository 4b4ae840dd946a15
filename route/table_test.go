package route

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const goodValue = `{"name":"hello","runtime":"wasm","module":"functions/u/1/module.wasm"}`

// rows makes rows of keys, all with the same good descriptor.
func rows(keys ...string) []Row {
	var all []Row
	for i, k := range keys {
		all = append(all, Row{k, goodValue, uint32(i + 1)})
	}
	return all
}

func mustBuild(t testing.TB, keys ...string) *Table {
	t.Helper()
	table, errs := Build(1, rows(keys...))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return table
}

// TestLookupLaw: one case per rule of the package comment.
func TestLookupLaw(t *testing.T) {
	t.Parallel()
	table := mustBuild(t, "GET:/ping", "POST:/ping", "GET:/", "PUT:/a/b", "GET:/a/{x}", "GET:/a/{x}/c", "GET:/a/b/d", "ANY:/any", "GET:/any",
		"GET:/files/{p...}", "GET:/files/{id}", "GET:/files/plain", "DELETE:/files/{id}", "ANY:/u/{id}/raw/{tail...}", "HEAD:/head", "GET:/head", "GET:/a%2Fb")
	for _, c := range []struct {
		law, method, path string
		verdict           Verdict
		want              string // key when Found, Allow when MethodNotAllowed
	}{
		{"plain path", "GET", "/ping", Found, "GET:/ping"},
		{"plain path, other method of two", "POST", "/ping", Found, "POST:/ping"},
		{"HEAD falls back to GET", "HEAD", "/ping", Found, "GET:/ping"},
		{"HEAD's own route wins", "HEAD", "/head", Found, "HEAD:/head"},
		{"another method is not allowed", "PUT", "/ping", MethodNotAllowed, "GET, HEAD, POST, OPTIONS"},
		{"an unknown method is not allowed", "BREW", "/ping", MethodNotAllowed, "GET, HEAD, POST, OPTIONS"},
		{"methods are case-sensitive", "get", "/ping", MethodNotAllowed, "GET, HEAD, POST, OPTIONS"},
		{"OPTIONS without a route: the caller answers from Allow", "OPTIONS", "/ping", MethodNotAllowed, "GET, HEAD, POST, OPTIONS"},
		{"the root may be taken", "GET", "/", Found, "GET:/"},
		{"ANY serves an unknown method", "BREW", "/any", Found, "ANY:/any"},
		{"a method wins over ANY", "GET", "/any", Found, "GET:/any"},
		{"HEAD: GET wins over ANY", "HEAD", "/any", Found, "GET:/any"},
		{"no merging of slashes", "GET", "//ping", NotFound, ""},
		{"no completing of slashes", "GET", "/ping/", NotFound, ""},
		{"no decoding", "GET", "/pin%67", NotFound, ""},
		{"an escape matches itself only", "GET", "/a%2Fb", Found, "GET:/a%2Fb"},
		{"an escape's case counts", "GET", "/a%2fb", NotFound, ""},
		{"text before parameter, if its method fits", "PUT", "/a/b", Found, "PUT:/a/b"},
		{"a less specific path with the right method serves", "GET", "/a/b", Found, "GET:/a/{x}"},
		{"a more specific start does not lose the match", "GET", "/a/b/c", Found, "GET:/a/{x}/c"},
		{"the more specific start where it fits", "GET", "/a/b/d", Found, "GET:/a/b/d"},
		{"allowed methods of all fitting paths", "POST", "/a/b", MethodNotAllowed, "GET, HEAD, PUT, OPTIONS"},
		{"a parameter is not empty", "GET", "/a/", NotFound, ""},
		{"text before parameter", "GET", "/files/plain", Found, "GET:/files/plain"},
		{"parameter before rest", "GET", "/files/x", Found, "GET:/files/{id}"},
		{"rest of one segment for the method that has only it", "DELETE", "/files/x", Found, "DELETE:/files/{id}"},
		{"rest of many", "GET", "/files/x/y", Found, "GET:/files/{p...}"},
		{"rest of none", "GET", "/files/", Found, "GET:/files/{p...}"},
		{"rest needs its slash", "GET", "/files", NotFound, ""},
		{"no dot segment in a rest", "GET", "/files/x/../y", NotFound, ""},
		{"no dot segment in a rest, encoded", "GET", "/files/x/%2e./y", NotFound, ""},
		{"no dot segment at the end of a rest", "GET", "/files/x/.", NotFound, ""},
		{"no dot segment as a parameter", "GET", "/a/..", NotFound, ""},
		{"no dot segment as a parameter, encoded", "GET", "/a/%2E%2e", NotFound, ""},
		{"three dots are a name", "GET", "/a/...", Found, "GET:/a/{x}"},
		{"ANY with parameter and rest", "PATCH", "/u/7/raw/a/b", Found, "ANY:/u/{id}/raw/{tail...}"},
		{"braces in a request are text", "GET", "/a/{x}", Found, "GET:/a/{x}"},
		{"no path at all", "GET", "", NotFound, ""},
		{"asterisk form", "OPTIONS", "*", NotFound, ""},
	} {
		var m Match
		v := table.Lookup(&m, []byte(c.method), []byte(c.path))
		got := ""
		switch v {
		case Found:
			got = m.Function.Key()
		case MethodNotAllowed:
			got = string(m.Allow.AppendAllow(nil))
		}
		if v != c.verdict || got != c.want {
			t.Errorf("%s: %s %s: %d %q, want %d %q", c.law, c.method, c.path, v, got, c.verdict, c.want)
		}
	}
}

// TestMatchViews: what a match says about the path.
func TestMatchViews(t *testing.T) {
	t.Parallel()
	table := mustBuild(t, "GET:/plain", "GET:/u/{id}/x/{other}", "GET:/files/{kind}/{tail...}", "GET:/{x}/")
	for _, c := range []struct {
		path, script, info string
		params             []string
	}{
		{"/plain", "/plain", "", nil},
		{"/u/7/x/a%2Fb", "/u/7/x/a%2Fb", "", []string{"id", "7", "other", "a%2Fb"}},
		{"/files/k/a/b/", "/files/k", "/a/b/", []string{"kind", "k", "tail", "a/b/"}},
		{"/files/k/", "/files/k", "/", []string{"kind", "k", "tail", ""}},
		{"/q/", "/q/", "", []string{"x", "q"}},
	} {
		var m Match
		m.ParamCount = 3
		if v := table.Lookup(&m, []byte("GET"), []byte(c.path)); v != Found {
			t.Errorf("%s: %d", c.path, v)
			continue
		}
		if string(m.ScriptName) != c.script || string(m.PathInfo) != c.info || m.ParamCount*2 != len(c.params) {
			t.Errorf("%s: %q %q %d", c.path, m.ScriptName, m.PathInfo, m.ParamCount)
			continue
		}
		for i := 0; i < len(c.params); i += 2 {
			if m.Params[i/2].Name != c.params[i] || string(m.Param(c.params[i])) != c.params[i+1] {
				t.Errorf("%s: parameter %q %q", c.path, m.Params[i/2].Name, m.Params[i/2].Value)
			}
		}
		if m.Param("none") != nil {
			t.Errorf("%s: a parameter out of nothing", c.path)
		}
	}
}

func put(key, value string) Change { return Change{OpPut, Row{key, value, 9}} }
func gone(key string) Change       { return Change{OpDelete, Row{Key: key}} }

func named(name string) string {
	return `{"name":"` + name + `","runtime":"wasm","module":"functions/u/1/module.wasm"}`
}

// serves is the name of the function that a GET of the path reaches.
func serves(t *Table, path string) string {
	var m Match
	if t.Lookup(&m, []byte("GET"), []byte(path)) != Found {
		return ""
	}
	return m.Function.Name
}

func TestApplyLaw(t *testing.T) {
	t.Parallel()
	base := mustBuild(t, "GET:/a", "GET:/p/{x}")
	for _, c := range []struct {
		law     string
		changes []Change
		path    string
		want    string
		errs    int
	}{
		{"a put of a new key adds", []Change{put("GET:/b", named("b"))}, "/b", "b", 0},
		{"a put of a known key replaces", []Change{put("GET:/a", named("b"))}, "/a", "b", 0},
		{"a delete removes", []Change{gone("GET:/a")}, "/a", "", 0},
		{"a delete of nothing is none", []Change{gone("GET:/zzz"), gone("nonsense"), gone("")}, "/a", "hello", 0},
		{"a bad row leaves the previous version", []Change{put("GET:/a", "{")}, "/a", "hello", 1},
		{"a bad row after a good one leaves the good one", []Change{put("GET:/a", named("b")), put("GET:/a", "{")}, "/a", "b", 1},
		{"a good row after a bad one counts", []Change{put("GET:/a", "{"), put("GET:/a", named("b"))}, "/a", "b", 1},
		{"a bad row after a delete adds nothing", []Change{gone("GET:/a"), put("GET:/a", "{")}, "/a", "", 1},
		{"put, delete: gone", []Change{put("GET:/b", named("b")), gone("GET:/b")}, "/b", "", 0},
		{"delete, put: there", []Change{gone("GET:/a"), put("GET:/a", named("b"))}, "/a", "b", 0},
		{"patterns too", []Change{put("GET:/p/{x}", named("b"))}, "/p/1", "b", 0},
		{"a pattern goes, and its shape", []Change{gone("GET:/p/{x}")}, "/p/1", "", 0},
		{"a key's method is that of its descriptor", []Change{put("GET:/b", `{"name":"b","runtime":"wasm","module":"import/m","method":"POST"}`)}, "/b", "", 1},
		{"a key's path is that of its descriptor", []Change{put("GET:/b", `{"name":"b","runtime":"wasm","module":"import/m","path":"/c"}`)}, "/b", "", 1},
		{"a row needs a module", []Change{put("GET:/b", `{"name":"b","runtime":"wasm"}`)}, "/b", "", 1},
		{"a lower key shadows", []Change{put("GET:/p/{w}", named("b"))}, "/p/1", "b", 0},
		{"a higher key is shadowed and reported", []Change{put("GET:/p/{y}", named("b"))}, "/p/1", "hello", 1},
		{"a shadowed route takes over", []Change{put("GET:/p/{y}", named("b")), gone("GET:/p/{x}")}, "/p/1", "b", 0},
	} {
		next, errs := base.Apply(2, c.changes)
		if got := serves(next, c.path); got != c.want || len(errs) != c.errs {
			t.Errorf("%s: %q %v", c.law, got, errs)
		}
		if next.Generation() != 2 || base.Generation() != 1 {
			t.Errorf("%s: generation", c.law)
		}
		if serves(base, "/a") != "hello" || serves(base, "/p/1") != "hello" || base.Len() != 2 {
			t.Fatalf("%s: the table before has changed", c.law)
		}
	}
}

func TestRebuild(t *testing.T) {
	t.Parallel()
	base := mustBuild(t, "GET:/a", "GET:/b", "GET:/c/{x}")
	next, errs := base.Rebuild(2, []Row{{"GET:/a", "{", 1}, {"GET:/c/{x}", "{", 1}, {"GET:/d", named("d"), 1}, {"GET:/e", "{", 1}})
	if len(errs) != 3 || next.Len() != 3 || serves(next, "/a") != "hello" || serves(next, "/b") != "" ||
		serves(next, "/c/1") != "hello" || serves(next, "/d") != "d" {
		t.Error(errs, next.Len())
	}
}

func TestByName(t *testing.T) {
	t.Parallel()
	table, _ := Build(1, []Row{{"POST:/b", named("x"), 1}, {"GET:/c", named("x"), 2}, {"GET:/b/{y}", named("x"), 3}, {"GET:/a", named("y"), 4}})
	name := func(n string) uint32 {
		if f := table.ByName([]byte(n)); f != nil {
			return f.Cell
		}
		return 0
	}
	if name("x") != 3 || name("y") != 4 || name("z") != 0 || name("") != 0 {
		t.Error(name("x"), name("y"), name("z"))
	}
	table, _ = table.Apply(2, []Change{gone("GET:/b/{y}"), gone("GET:/a"), put("DELETE:/z", named("z"))})
	if name("x") != 2 || name("y") != 0 || name("z") != 9 {
		t.Error(name("x"), name("y"), name("z"))
	}
	table, _ = table.Apply(3, []Change{gone("GET:/c")})
	table, _ = table.Apply(3, []Change{gone("POST:/b"), put("DELETE:/z", named("x"))})
	if name("x") != 9 || name("z") != 0 {
		t.Error(name("x"), name("z"))
	}
}

// TestShadowBound: rows that differ in parameter names only cannot crowd the
// index.
func TestShadowBound(t *testing.T) {
	t.Parallel()
	var all []Row
	for i := range 1000 {
		all = append(all, Row{fmt.Sprintf("GET:/p/{x%d}/y", i), goodValue, 0})
	}
	table, errs := Build(1, all)
	if table.Len() != shadowMax || len(errs) != 1000-1 {
		t.Error(table.Len(), len(errs))
	}
	if !errors.Is(errs[len(errs)-1].Err, ErrShadowed) || serves(table, "/p/1/y") != "hello" {
		t.Error(errs[len(errs)-1])
	}
}

func TestZeroTable(t *testing.T) {
	t.Parallel()
	var table Table
	var m Match
	if table.Lookup(&m, []byte("GET"), []byte("/")) != NotFound || table.ByName([]byte("x")) != nil || table.Get("GET:/") != nil || table.Len() != 0 {
		t.Error("a table of nothing has something")
	}
	for range table.All {
		t.Error("a table of nothing has something")
	}
	next, errs := table.Apply(1, []Change{put("GET:/", named("root"))})
	if len(errs) > 0 || serves(next, "/") != "root" {
		t.Error(errs)
	}
}

// TestFunctionRoundTrip: what a table keeps of a descriptor is all of it.
func TestFunctionRoundTrip(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		goodValue,
		`{"name":"a","runtime":"c++","module":"import/x","handler":"h\"\u00e9","memory":4096,"timeout":0.25,"method":"GET","path":"/x/{y}",
		"env":{"B":"2","A":"=1"},"files":"static/a","target":"wasm","network":true,"freeze":true,"processes":7,"max_body":0,"max_inflight":3}`,
		`{"name":"a","runtime":"c","module":"functions/u/2/module.bin","target":"native","memory":1,"timeout":3600}`,
		`{"name":"a","runtime":"wasm","module":"/data/functions/u/2/module.wasm","max_body":1099511627776,"max_inflight":1048576}`,
	} {
		d, err := ParseRow("GET:/x/{y}", value)
		if err != nil {
			t.Fatal(err)
		}
		f, err := newFunction(Row{"GET:/x/{y}", value, 77})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Descriptor(); !reflect.DeepEqual(got, d) {
			t.Errorf("%+v, want %+v", got, d)
		}
		row := f.Row()
		again, err := ParseRow(row.Key, row.Value)
		if err != nil || !reflect.DeepEqual(again, d) || row.Cell != 77 {
			t.Errorf("%s: %+v %v, want %+v", row.Value, again, err, d)
		}
	}
}

func TestFunctionSize(t *testing.T) {
	t.Parallel()
	if size := reflect.TypeFor[Function]().Size(); size != 64 {
		t.Errorf("a Function is %d bytes, more than a cache line", size)
	}
	if size := reflect.TypeFor[plain]().Size(); size != 64 {
		t.Errorf("a slot is %d bytes, more than a cache line", size)
	}
}

// TestLongPaths: a slot has the start of a path only; the rest decides too.
func TestLongPaths(t *testing.T) {
	t.Parallel()
	var keys, paths []string
	for n := plainStart - 2; n <= plainStart+2; n++ {
		for _, end := range []string{"a", "b"} {
			path := "/" + strings.Repeat("x", n-2) + end
			paths = append(paths, path)
			keys = append(keys, "GET:"+path)
		}
	}
	long := "/" + strings.Repeat("y", pathBytesMax-1)
	table := mustBuild(t, append(keys, "GET:"+long)...)
	var m Match
	for _, path := range append(paths, long) {
		if table.Lookup(&m, []byte("GET"), []byte(path)) != Found || m.Function.Path() != path {
			t.Errorf("%d bytes: not found", len(path))
		}
		for _, other := range []string{path + "a", path[:len(path)-1], path[:len(path)-1] + "c"} {
			if table.Lookup(&m, []byte("GET"), []byte(other)) == Found && m.Function.Path() != other {
				t.Errorf("%s found as %s", other, m.Function.Path())
			}
		}
		if v := table.Lookup(&m, []byte("PUT"), []byte(path)); v != MethodNotAllowed || m.Allow != Get {
			t.Errorf("%d bytes: %d", len(path), v)
		}
	}
	for _, path := range paths {
		table, _ = table.Apply(2, []Change{gone("GET:" + path)})
	}
	if table.Len() != 1 || table.Get("GET:"+long) == nil {
		t.Error(table.Len())
	}
}
