package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/control"
	"baton/route"
	"baton/route/sqlite"
)

func TestInit(t *testing.T) {
	t.Parallel()
	data := newData(t)
	first := baton(nil, "init", "--data", data)
	if first.code != exitOK || first.err != "" {
		t.Fatalf("init: %+v", first)
	}
	golden(t, "init.txt", data, first.out)
	for name, mode := range map[string]os.FileMode{
		".": os.ModeDir | 0o700, "functions": os.ModeDir | 0o700, "import": os.ModeDir | 0o700, "logs": os.ModeDir | 0o700,
		"cache": os.ModeDir | 0o700, "admin.token": 0o600, "faas_meta.db": 0o600,
	} {
		if info, err := os.Lstat(filepath.Join(data, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", name, info, err, mode)
		}
	}
	token, err := control.LoadToken(data)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(first.out, token) {
		t.Error("the token itself was printed")
	}

	db, err := sqlite.Open(filepath.Join(data, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for key, handler := range map[string]string{"POST:/resize": "resize", "GET:/ping": "ping", "POST:/api/hello": "hello", "GET:/api/info": "info", "GET:/python": "python"} {
		value, found, err := db.Get(t.Context(), key)
		if err != nil || !found {
			t.Errorf("row %s: found %v, %v", key, found, err)
			continue
		}
		d, err := route.ParseRow(key, value)
		if err != nil || d.Handler != handler || d.Runtime != "wasm" {
			t.Errorf("row %s: %v, %+v", key, err, d)
			continue
		}
		module, err := route.ResolveModule(data, d.Module)
		if err != nil {
			t.Errorf("row %s: %v", key, err)
		}
		if _, err := os.Stat(module); err != nil {
			t.Errorf("row %s: %v", key, err)
		}
	}

	// Again, with a row that somebody removed and one that somebody changed.
	if err := db.Delete(t.Context(), "GET:/python"); err != nil {
		t.Fatal(err)
	}
	mine := `{"name":"mine","runtime":"wasm","module":"import/mine.wasm"}`
	if err := db.Put(t.Context(), "GET:/ping", mine); err != nil {
		t.Fatal(err)
	}
	again := baton(nil, "init", "--json", "--data", data)
	var done initialised
	if err := json.Unmarshal([]byte(again.out), &done); err != nil || again.code != exitOK {
		t.Fatalf("init --json: %+v, %v", again, err)
	}
	if done.NewToken || len(done.Demo.Added) != 1 || done.Demo.Added[0] != "GET:/python" || len(done.Demo.Kept) != 4 {
		t.Errorf("the second time: %s", again.out)
	}
	if value, _, err := db.Get(t.Context(), "GET:/ping"); value != mine || err != nil {
		t.Errorf("a row of the user's own became %s, %v", value, err)
	}
	if same, err := control.LoadToken(data); same != token || err != nil {
		t.Errorf("the token changed, %v", err)
	}
}

func TestInitWithoutTheDemo(t *testing.T) {
	t.Parallel()
	missing := func(c *commands) { c.demo = func() ([]byte, error) { return nil, errNoDemo } }
	for _, law := range []struct {
		name   string
		change func(*commands)
		args   []string
		err    string
	}{
		{"not in the binary", missing, nil, "run `make`"},
		{"not wanted", missing, []string{"--demo=false"}, ""},
	} {
		data := newData(t)
		got := baton(law.change, append([]string{"init", "--data", data}, law.args...)...)
		if got.code != exitOK || !strings.Contains(got.err, law.err) || (got.err == "") != (law.err == "") {
			t.Errorf("%s: %+v", law.name, got)
		}
		if _, err := os.Stat(filepath.Join(data, databaseName)); err != nil {
			t.Errorf("%s: %v", law.name, err)
		}
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	open := newData(t)
	if err := os.MkdirAll(filepath.Join(open, "functions"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	file := newData(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, law := range [][2]string{{open, "chmod 700"}, {file, "make data directory"}} {
		if got := baton(nil, "init", "--data", law[0]); got.code != exitFailure || !strings.Contains(got.err, law[1]) {
			t.Errorf("%s: %+v, want %q", law[0], got, law[1])
		}
	}
}
