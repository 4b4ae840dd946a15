package route

import "testing"

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
