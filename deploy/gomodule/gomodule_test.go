package gomodule

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/runtime/wasm/gowrap"
)

// These tests share TMPDIR to see what a build leaves behind, so they are not
// parallel.

// sources writes files into a new folder and returns it.
func sources(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build builds dir and checks that nothing but the output stays, whatever the
// outcome.
func build(ctx context.Context, t *testing.T, dir string) (module []byte, err error) {
	t.Helper()
	temp, out := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	output := filepath.Join(out, "module.wasm")
	err = Module{Source: dir, Output: output}.Build(ctx)
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("the build left %v behind", left)
	}
	names, _ := os.ReadDir(out)
	if err != nil {
		if len(names) > 0 {
			t.Errorf("a failed build wrote %v", names)
		}
		return nil, err
	}
	if len(names) != 1 {
		t.Errorf("beside the module there is %v", names)
	}
	module, err = os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	return module, nil
}

const mainOnly = "package main\n\nfunc main() { println(42) }\n"

func TestGoModuleExportsHandle(t *testing.T) {
	module, err := build(t.Context(), t, sources(t, map[string]string{
		"main.go":       mainOnly,
		"main_test.go":  "this is not Go, and not copied\n",
		".hidden/x.go":  "neither is this\n",
		"text/greet.go": "package text\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(module, []byte("\x00asm\x01\x00\x00\x00")) {
		t.Fatalf("no WebAssembly module: % x", module[:8])
	}
	// In the export section: the name's length, the name, kind 0 (a function).
	for _, name := range []string{"handle", "_initialize"} {
		entry := append([]byte{byte(len(name))}, name...)
		if !bytes.Contains(module, append(entry, 0)) {
			t.Errorf("%q is not exported", name)
		}
	}
}

func TestGoModuleReproduces(t *testing.T) {
	files := map[string]string{"main.go": mainOnly}
	first, err := build(t.Context(), t, sources(t, files))
	if err != nil {
		t.Fatal(err)
	}
	second, err := build(t.Context(), t, sources(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same sources in two folders made two modules")
	}
}

func TestGoModuleReportsTheCompiler(t *testing.T) {
	_, err := build(t.Context(), t, sources(t, map[string]string{"main.go": "package main\n\nfunc main() { x }\n"}))
	var refused *BuildError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a BuildError", err)
	}
	if !strings.Contains(refused.Output, "./main.go:3:15: undefined: x") {
		t.Errorf("output %q lacks place and reason", refused.Output)
	}
	if strings.Contains(refused.Output, "baton-go-") {
		t.Errorf("output %q names the private folder", refused.Output)
	}
}

func TestGoModuleDoesNotFollowLinks(t *testing.T) {
	dir := sources(t, map[string]string{"main.go": "package main\n\nimport _ \"embed\"\n\n//go:embed secret.txt\nvar s string\n\nfunc main() { println(s) }\n"})
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "secret.txt")); err != nil {
		t.Fatal(err)
	}
	_, err := build(t.Context(), t, dir)
	var refused *BuildError
	if !errors.As(err, &refused) || !strings.Contains(refused.Output, "no matching files") {
		t.Errorf("got %v, want an embed that finds nothing", err)
	}
}

func TestGoModuleKeepsItsOwnFileName(t *testing.T) {
	_, err := build(t.Context(), t, sources(t, map[string]string{"main.go": mainOnly, gowrap.FileName: "package main\n"}))
	var refused *BuildError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), gowrap.FileName) {
		t.Errorf("got %v, want a BuildError that names %s", err, gowrap.FileName)
	}
}

func TestGoModuleBoundsTheSource(t *testing.T) {
	dir := sources(t, map[string]string{"main.go": mainOnly, "big.bin": ""})
	if err := os.Truncate(filepath.Join(dir, "big.bin"), sourceBytesMax+1); err != nil {
		t.Fatal(err)
	}
	if _, err := build(t.Context(), t, dir); !errors.Is(err, ErrSourceTooLarge) {
		t.Errorf("got %v, want ErrSourceTooLarge", err)
	}
}

func TestGoModuleEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := build(ctx, t, sources(t, map[string]string{"main.go": mainOnly})); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestGoDefaults(t *testing.T) {
	for _, tc := range []struct{ name, version, want string }{
		{"a release", "go1.26.0", "1.26"},
		{"a release candidate", "go1.27rc1", "1.27rc1"},
		{"a development version", "devel go1.27-abcdef", goVersionDefault},
	} {
		t.Run(tc.name, func(t *testing.T) {
			script := filepath.Join(t.TempDir(), "go")
			text := "#!/bin/sh\nprintf '%s\\n%s\\n' '" + tc.version + "' /cache\n"
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			version, cache, err := goDefaults(t.Context(), script)
			if err != nil || version != tc.want || cache != "/cache" {
				t.Errorf("got %q, %q, %v; want %q, /cache", version, cache, err, tc.want)
			}
		})
	}
}
