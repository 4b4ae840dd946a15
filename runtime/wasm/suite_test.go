package wasm

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"baton/runtime"
)

// unpackSuite unpacks testdata/wasi-testsuite.tar.gz, which says in its README what it is.
func unpackSuite(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open("testdata/wasi-testsuite.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(z)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return dir
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		content, err := io.ReadAll(archive)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o700)
		}
		if err == nil {
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The WASI test suite's own cases, each called twice: the second time on what the
// first has left.
func TestWASISuite(t *testing.T) {
	t.Parallel()
	dir := unpackSuite(t)
	modules, err := filepath.Glob(filepath.Join(dir, "*", "*.wasm"))
	if err != nil || len(modules) != 29 {
		t.Fatalf("%d cases, %v; want 29", len(modules), err)
	}
	e := executor(t)
	for _, module := range modules {
		folder := filepath.Dir(module)
		t.Run(filepath.Base(folder)+"/"+strings.TrimSuffix(filepath.Base(module), ".wasm"), func(t *testing.T) {
			var want struct {
				Args   []string          `json:"args"`
				Env    map[string]string `json:"env"`
				Dirs   []string          `json:"dirs"`
				Stdout string            `json:"stdout"`
				Exit   int32             `json:"exit_code"`
			}
			text, err := os.ReadFile(strings.TrimSuffix(module, ".wasm") + ".json")
			if err == nil {
				err = json.Unmarshal(text, &want)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			f := &runtime.Function{Name: "suite", Module: module}
			switch { // a function sees its files as "/"
			case len(want.Args) > 0: // the directory's name
				f.Files, f.Handler = filepath.Join(folder, "fs-tests.dir"), "/"
				if err := os.MkdirAll(f.Files, 0o700); err != nil {
					t.Fatal(err)
				}
			case len(want.Dirs) > 0:
				f.Files = folder
			}
			var env []string
			for name, value := range want.Env {
				env = append(env, name+"="+value)
			}
			slices.Sort(env)
			l := load(t, e, f)
			for range 2 {
				out, res := call(l, "", env...)
				reason := runtime.OK
				if want.Exit != 0 {
					reason = runtime.Exit
				}
				if res.Reason != reason || res.Exit != want.Exit || want.Stdout != "" && out != want.Stdout {
					t.Errorf("%+v, output %q", res, out)
				}
			}
		})
	}
}
