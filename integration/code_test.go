package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// Native code beyond --code-memory is given back by who was called least recently,
// and loaded again at the next call.
func TestCodeMemoryIsBounded(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	s := testenv.Start(t, testenv.Options{Workers: 1, Args: []string{"--code-memory", "1"}})
	// Two modules, each of some megabytes of code.
	demo, err := os.ReadFile(filepath.Join(s.Data, demoModule(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.ReplaceAll(demo, []byte("pong"), []byte("pang"))
	if err := os.MkdirAll(filepath.Join(s.Data, "import"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Data, "import", "other.wasm"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	sql(t, s, `INSERT INTO functions(k,v,updated) VALUES('GET:/pang','{"name":"pang","runtime":"wasm","module":"import/other.wasm","handler":"ping"}',0);`)
	awaitRoute(t, s.Addr, "/pang", true)
	for range 3 {
		for _, word := range []string{"pong", "pang"} {
			r, err := testenv.Get(s.Addr, map[string]string{"pong": "/ping", "pang": "/pang"}[word])
			if err != nil {
				t.Fatal(err)
			}
			want(t, r, 200, word)
		}
	}
	testenv.Until(t, "the worker has the code of one module", func() bool {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", s.Workers()[0]))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(maps)) {
			if strings.Contains(line, " r-xp ") && strings.HasSuffix(strings.TrimSpace(line), ".code") {
				n++
			}
		}
		return n == 1
	})
}
