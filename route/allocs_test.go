//go:build !race

package route

import "testing"

// TestAllocs: the hot functions allocate nothing.
func TestAllocs(t *testing.T) {
	table := mustBuild(t, "GET:/ping", "GET:/u/{id}", "ANY:/files/{p...}", "POST:/post")
	var m Match
	get, head := []byte("GET"), []byte("HEAD")
	text := func(s string) []byte { return []byte(s) }
	ping, param, rest, none, post := text("/ping"), text("/u/7"), text("/files/a/b/c"), text("/nothing/at/all"), text("/post")
	for name, f := range map[string]func(){
		"plain":              func() { table.Lookup(&m, get, ping) },
		"plain, by HEAD":     func() { table.Lookup(&m, head, ping) },
		"parameter":          func() { table.Lookup(&m, get, param) },
		"rest":               func() { table.Lookup(&m, get, rest) },
		"not found":          func() { table.Lookup(&m, get, none) },
		"method not allowed": func() { table.Lookup(&m, get, post) },
		"by name":            func() { table.ByName([]byte("hello")) },
		"parameter's value":  func() { m.Param("id") },
		"reserved":           func() { Reserved([]byte("/system/functions")) },
		"function name":      func() { FunctionName([]byte("/function/hello/x")) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 { // objects per call
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
