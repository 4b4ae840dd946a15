package deploy

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"baton/route"
)

// memoryRows is a functions table in memory.
type memoryRows map[string]string

func (m memoryRows) Get(_ context.Context, key string) (string, bool, error) {
	v, ok := m[key]
	return v, ok, nil
}

func (m memoryRows) Put(_ context.Context, key, value string) error { m[key] = value; return nil }

const wasmMagic = "\x00asm\x01\x00\x00\x00"

func seed(t *testing.T, rows Rows, module string) Seed {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if err := MakeTree(data); err != nil {
		t.Fatal(err)
	}
	return Seed{Data: data, Module: []byte(module), Rows: rows, Descriptors: fstest.MapFS{
		"ping.json":  {Data: []byte(`{"name":"ping","runtime":"wasm","module":"demo.wasm","handler":"ping","method":"GET","path":"/ping","memory":64,"timeout":5}`)},
		"hello.json": {Data: []byte(`{"name":"hello","runtime":"wasm","module":"demo.wasm","handler":"hello","method":"POST","path":"/api/hello"}`)},
	}}
}

func TestPlant(t *testing.T) {
	t.Parallel()
	rows := memoryRows{}
	s := seed(t, rows, wasmMagic)
	done, err := s.Plant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(done.Added, []string{"GET:/ping", "POST:/api/hello"}) || len(done.Updated)+len(done.Kept) > 0 {
		t.Errorf("first time: %+v, want both rows added", done)
	}
	name := filepath.Join(s.Data, filepath.FromSlash(done.Module))
	content, err := os.ReadFile(name)
	if err != nil || string(content) != wasmMagic {
		t.Errorf("artifact: %q, %v", content, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("artifact's mode: %v, %v; want 0600", info.Mode(), err)
	}
	for key, value := range rows {
		d, err := route.ParseRow(key, value)
		if err != nil || d.Module != done.Module {
			t.Errorf("row %s: %v, module %s; want a good row with %s", key, err, d.Module, done.Module)
		}
		if _, err := route.ResolveModule(s.Data, d.Module); err != nil {
			t.Errorf("row %s: %v", key, err)
		}
	}

	before := maps.Clone(rows)
	again, err := s.Plant(t.Context())
	if err != nil || len(again.Kept) != 2 || again.Module != done.Module || !maps.Equal(rows, before) {
		t.Errorf("second time: %+v, %v; want nothing changed", again, err)
	}
}

func TestPlantLeavesForeignRowsAlone(t *testing.T) {
	t.Parallel()
	rows := memoryRows{}
	s := seed(t, rows, wasmMagic)
	if _, err := s.Plant(t.Context()); err != nil {
		t.Fatal(err)
	}
	mine := strings.Replace(rows["GET:/ping"], `"timeout":5`, `"timeout":6`, 1)
	if mine == rows["GET:/ping"] {
		t.Fatalf("no timeout in %s", mine)
	}
	for _, law := range []struct{ name, value string }{
		{"a changed descriptor", mine},
		{"a module of the user's own", `{"name":"ping","runtime":"wasm","module":"import/ping.wasm","handler":"ping","method":"GET","path":"/ping","memory":64,"timeout":5}`},
		{"a bad row", `{`},
	} {
		rows["GET:/ping"] = law.value
		s.Module = []byte(wasmMagic + law.name)
		done, err := s.Plant(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if rows["GET:/ping"] != law.value || !slices.Equal(done.Kept, []string{"GET:/ping"}) {
			t.Errorf("%s: %+v, row %s; want it kept", law.name, done, rows["GET:/ping"])
		}
		if !slices.Equal(done.Updated, []string{"POST:/api/hello"}) || !strings.Contains(rows["POST:/api/hello"], done.Module) {
			t.Errorf("%s: %+v; want the row beside it to name the new artifact", law.name, done)
		}
	}
}

func TestPlantRefuses(t *testing.T) {
	t.Parallel()
	rows := memoryRows{}
	s := seed(t, rows, "#!/bin/sh\n")
	if _, err := s.Plant(t.Context()); err == nil {
		t.Error("an artifact that is no WebAssembly module was planted")
	}
	s = seed(t, rows, wasmMagic)
	s.Descriptors = fstest.MapFS{"x.json": {Data: []byte(`{"name":"x","runtime":"wasm"}`)}}
	if _, err := s.Plant(t.Context()); err == nil {
		t.Error("a descriptor without method and path was planted")
	}
	s.Descriptors = fstest.MapFS{"x.json": {Data: []byte(`{"nam":"x"}`)}}
	var field *route.FieldError
	if _, err := s.Plant(t.Context()); !errors.As(err, &field) {
		t.Errorf("a wrong descriptor: %v, want a FieldError", err)
	}
	if len(rows) > 0 {
		t.Errorf("rows %v were written", rows)
	}
}

func TestArtifactID(t *testing.T) {
	t.Parallel()
	// Fixed: it is part of paths on users' disks.
	if id := artifactID([]byte(wasmMagic)); id != "3c2571e5-129c-5d95-9082-83cedb36c43a" {
		t.Errorf("artifactID = %s", id)
	}
	if artifactID([]byte("a")) == artifactID([]byte("b")) {
		t.Error("two artifacts, one id")
	}
}

func TestMakeTree(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "a", "data")
	for range 2 {
		if err := MakeTree(data); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	entries, err := os.ReadDir(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s: mode %v, %v; want a directory with 0700", e.Name(), info.Mode(), err)
		}
		names = append(names, e.Name())
	}
	if want := []string{"cache", "functions", "import", "logs"}; !reflect.DeepEqual(names, want) {
		t.Errorf("folders %v, want %v", names, want)
	}

	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := MakeTree(open); err != nil {
		t.Errorf("an empty directory: %v, want it made private", err)
	}
	if info, err := os.Stat(open); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", info.Mode(), err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := MakeTree(open); err == nil {
		t.Error("a directory that others can reach, with something in it, was accepted")
	}
}
