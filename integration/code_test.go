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
		return codeMappings(t, s.Workers()[0]) == 1
	})
}

// codeMappings counts the files of native code that a process has mapped.
func codeMappings(t *testing.T, pid int) (n int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, " r-xp ") && strings.HasSuffix(strings.TrimSuffix(strings.TrimSpace(line), " (deleted)"), ".code") {
			n++
		}
	}
	return n
}

// A worker that has served twenty versions of a function has the code of the last one alone:
// after each, that of the one before is gone.
func TestReplacedVersionsLeaveNoCode(t *testing.T) {
	t.Parallel()
	const versions = 20
	s := testenv.Start(t, testenv.Options{Workers: 1})
	r, err := testenv.Get(s.Addr, "/ping") // which has the code of the demo functions loaded
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 200, "pong")
	others := codeMappings(t, s.Workers()[0])
	for n := range versions {
		source := fmt.Appendf(nil, "#include <stdio.h>\nint main(void) { printf(\"version %%d\", %d); return 0; }\n", n)
		deployed(t, s, []byte(`{"name":"replaced","runtime":"c","target":"wasm","path":"/replaced"}`), "main.c", source)
		r, err := testenv.Get(s.Addr, "/replaced")
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, 200, fmt.Sprint("version ", n))
		testenv.Until(t, fmt.Sprintf("the worker has the code of version %d alone", n), func() bool {
			return codeMappings(t, s.Workers()[0]) == others+1
		})
	}
}
