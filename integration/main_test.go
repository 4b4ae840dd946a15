package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/deploy/gomodule"
	"baton/internal/testenv"
	"baton/route/sqlite"
)

func TestMain(m *testing.M) { os.Exit(mainTest(m)) }

func mainTest(m *testing.M) int {
	dir, err := os.MkdirTemp("", "baton-integration-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	probe.path = filepath.Join(dir, "probe.wasm")
	return testenv.Main(m)
}

// probe is the test's own function, compiled once.
var probe struct {
	once sync.Once
	path string
	err  error
}

func probeModule(t testing.TB) string {
	t.Helper()
	probe.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		probe.err = gomodule.Module{Source: "testdata/probe", Output: probe.path}.Build(ctx)
	})
	if probe.err != nil {
		t.Fatal(probe.err)
	}
	return probe.path
}

// start starts a server with the probe's functions: /p/<handler>, any method.
func start(t *testing.T, o testenv.Options) *testenv.Server {
	t.Helper()
	module := probeModule(t)
	s := testenv.Start(t, o)
	importModule(t, s, module)
	db := open(t, s)
	for _, handler := range []string{"echo", "sleep", "spin", "size", "exit", "nothing", "text", "panic", "stderr", "cgi", "inject", "env"} {
		put(t, db, "ANY:/p/"+handler, row{"name": "probe-" + handler, "handler": handler})
	}
	awaitRoute(t, s.Addr, "/p/nothing", true)
	awaitRoute(t, s.Addr, "/p/env", true)
	return s
}

func importModule(t testing.TB, s *testenv.Server, module string) {
	t.Helper()
	b, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.Data, "import"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Data, "import", "probe.wasm"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Prepare(t, s.Data, module)
}

func open(t testing.TB, s *testenv.Server) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(s.Data, "faas_meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

type row map[string]any

// put deploys one route of the probe by its row; fields override.
func put(t testing.TB, db *sqlite.DB, key string, fields row) {
	t.Helper()
	d := row{"runtime": "wasm", "module": "import/probe.wasm", "timeout": 10}
	for k, v := range fields {
		d[k] = v
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Put(context.Background(), key, string(b)); err != nil {
		t.Fatal(err)
	}
}

// awaitRoute waits until a path is served by a function, or is not any more.
func awaitRoute(t testing.TB, addr, path string, served bool) {
	t.Helper()
	testenv.Until(t, fmt.Sprintf("%s is served: %v", path, served), func() bool {
		r, err := testenv.Do(addr, "OPTIONS "+path+" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
		return err == nil && (r.Status != 404) == served
	})
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: t\r\n\r\n" }

func post(path, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: t\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// want checks one response's status and that its body contains part.
func want(t testing.TB, r testenv.Response, status int, part string) {
	t.Helper()
	if r.Status != status || !strings.Contains(string(r.Body), part) {
		t.Fatalf("status %d, body %.300q; want %d with %q", r.Status, r.Body, status, part)
	}
}
