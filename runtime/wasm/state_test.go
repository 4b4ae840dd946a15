package wasm

import (
	"os"
	"path/filepath"
	"testing"

	"baton/runtime"
)

// State that compilers hardly use: each module checks that it is as the
// module was made, traps if not, and then changes it.
func TestGlobalsTablesAndSegmentsArePristine(t *testing.T) {
	t.Parallel()
	const unreachable, end = 0x00, 0x0b
	unless := func(cond ...byte) []byte { // traps if cond is not 0
		return append(cond, 0x04, 0x40, unreachable, end)
	}
	types := section(1, vec(voidType()))
	functions := section(3, vec([]byte{0}))
	start := section(7, vec(cat(str("_start"), []byte{0, 0})))
	cases := []struct {
		name   string
		module []byte
		reused bool // the same instance serves all invocations
	}{
		{"numeric globals", assemble(types, functions,
			section(6, vec(
				[]byte{0x7f, 1, 0x41, 7, end},
				[]byte{0x7e, 1, 0x42, 7, end},
				[]byte{0x7d, 1, 0x43, 0, 0, 0, 0, end},
				[]byte{0x7c, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, end})),
			start,
			section(10, vec(fn(cat(
				unless(0x23, 0, 0x41, 7, 0x47),
				unless(0x23, 1, 0x42, 7, 0x52),
				unless(0x23, 2, 0xbc),             // i32.reinterpret_f32
				unless(0x23, 3, 0xbd, 0x50, 0x45), // i64.reinterpret_f64, eqz, eqz
				[]byte{0x41, 1, 0x24, 0, 0x42, 1, 0x24, 1, 0x43, 1, 2, 3, 4, 0x24, 2, 0x44, 1, 2, 3, 4, 5, 6, 7, 8, 0x24, 3})...)))), true},
		{"vector and reference globals", assemble(types, functions,
			section(6, vec(
				cat([]byte{0x7b, 1, 0xfd, 12}, make([]byte, 16), []byte{end}),
				[]byte{0x70, 1, 0xd0, 0x70, end})),
			start,
			section(9, vec([]byte{3, 0, 1, 0})), // declares function 0 for ref.func
			section(10, vec(fn(cat(
				unless(0x23, 0, 0xfd, 0x53),          // v128.any_true
				unless(0x23, 1, 0xd1, 0x45),          // ref.is_null, eqz
				[]byte{0x41, 1, 0xfd, 0x11, 0x24, 0}, // i32x4.splat
				[]byte{0xd2, 0, 0x24, 1})...)))), true},
		{"table.set", assemble(types, functions, section(4, vec([]byte{0x70, 0, 2})), start, section(9, vec([]byte{3, 0, 1, 0})),
			section(10, vec(fn(cat(unless(0x41, 1, 0x25, 0, 0xd1, 0x45), []byte{0x41, 1, 0xd2, 0, 0x26, 0})...)))), false},
		{"table.grow", assemble(types, functions, section(4, vec([]byte{0x70, 0, 2})), start,
			section(10, vec(fn(cat(unless(0xfc, 0x10, 0, 0x41, 2, 0x47), []byte{0xd0, 0x70, 0x41, 3, 0xfc, 0x0f, 0, 0x1a})...)))), false},
		{"data.drop", assemble(types, functions, section(5, vec([]byte{0, 1})), start, section(12, []byte{1}),
			section(10, vec(fn(0x41, 0, 0x41, 0, 0x41, 4, 0xfc, 0x08, 0, 0, 0xfc, 0x09, 0))), section(11, vec(cat([]byte{1}, str("data"))))), false},
		{"elem.drop", assemble(types, functions, section(4, vec([]byte{0x70, 0, 2})), start, section(9, vec([]byte{1, 0, 1, 0})),
			section(10, vec(fn(0x41, 0, 0x41, 0, 0x41, 1, 0xfc, 0x0c, 0, 0, 0xfc, 0x0d, 0)))), false},
		{"memory.fill and growth", assemble(types, functions, section(5, vec([]byte{0, 3})), start,
			section(10, vec(fn(cat(
				unless(0x3f, 0, 0x41, 3, 0x47),
				unless(0x41, 0, 0x28, 2, 0x10),                                        // i32.load 16
				[]byte{0x41, 20, 0x40, 0, 0x1a},                                       // memory.grow 20
				unless(0x41, 0, 0x28, 2, 0x80, 0x80, 0x20),                            // i32.load 0x80000, in what was grown
				[]byte{0x41, 0, 0x41, 9, 0x41, 0x80, 0x80, 0xc0, 0x00, 0xfc, 0x0b, 0}, // memory.fill 0, 9, 1 MiB
			)...)))), true},
	}
	e := executor(t)
	for _, c := range cases {
		l := load(t, e, &runtime.Function{Name: "state", Module: writeNamed(t, c.name, c.module), MemoryMB: 4})
		for i := range 5 {
			if _, res := call(l, ""); res.Reason != runtime.OK {
				t.Errorf("%s: call %d: %+v", c.name, i, res)
			}
		}
		if reused := l.(*loaded).pool.ready(); reused != c.reused {
			t.Errorf("%s: instance kept: %t", c.name, reused)
		}
	}
}

func writeNamed(tb testing.TB, name string, module []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name+".wasm")
	if err := os.WriteFile(path, module, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// A function sees its own directory, read-only, and nothing beside it.
func TestFunctionSeesItsFilesOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"greeting": "hello from a file", "sub/inner": "inner"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, "files", name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "files", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", filepath.Join(dir, "files", "link")); err != nil {
		t.Fatal(err)
	}
	module := buildC(t, "files")
	with := load(t, executor(t), &runtime.Function{Name: "files", Module: module, Files: filepath.Join(dir, "files")})
	without := load(t, executor(t), &runtime.Function{Name: "files", Module: module})
	for range 3 {
		for path, want := range map[string]string{
			"/greeting": "hello from a file", "/sub/inner": "inner",
			"/link": "no", "/../outside": "no", "/missing": "no", "+/new": "no", "+/greeting": "no",
		} {
			if out, res := call(with, path); res.Reason != runtime.OK || out != want {
				t.Errorf("%s: %q %+v, want %q", path, out, res, want)
			}
			if out, res := call(without, path); res.Reason != runtime.OK || out != "no" {
				t.Errorf("without files, %s: %q %+v", path, out, res)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "files", "new")); err == nil {
		t.Error("the function made a file")
	}
}
