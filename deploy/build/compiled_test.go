package build

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"baton/runtime/native"
)

const (
	cMain    = "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n"
	cppMain  = "#include <iostream>\n#include <vector>\nint main() { std::vector<int> v{1}; std::cout << \"hello\\n\"; }\n"
	rustMain = "use std::io::Read;\nfn main() { let mut s = String::new(); std::io::stdin().read_to_string(&mut s).unwrap(); println!(\"hello\"); }\n"
)

// A toolchain that is missing skips, by the package's name; what is wrong with
// one that is there does not.
func builtOrSkip(t *testing.T, err error) {
	t.Helper()
	if reasonOf(err) == ToolchainMissing {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestBuildToWasm(t *testing.T) {
	t.Parallel()
	crate := map[string]string{
		"Cargo.toml":  "[package]\nname = \"hello\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\ntext = { path = \"text\" }\n",
		"src/main.rs": "fn main() { println!(\"{}\", text::hello()); }\n", "text/src/lib.rs": "pub fn hello() -> &'static str { \"hello\" }\n",
		"text/Cargo.toml": "[package]\nname = \"text\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
	}
	for _, c := range []struct {
		name, runtime, target string
		files                 map[string]string
	}{
		{"c", "c", "wasm", map[string]string{"hello.c": cMain}},
		{"c, a folder", "c", "wasm", map[string]string{"main.c": "#include \"text.h\"\n#include <stdio.h>\nint main(void) { puts(hello()); }\n", "src/text.c": "#include \"text.h\"\nconst char *hello(void) { return \"hello\"; }\n", "include/text.h": "const char *hello(void);\n"}},
		{"c++", "cpp", "wasm", map[string]string{"hello.cpp": cppMain}},
		{"c++ with c", "c++", "wasm", map[string]string{"main.cc": "#include <iostream>\nextern \"C\" int one(void);\nint main() { std::cout << one(); }\n", "one.c": "int one(void) { int class = 1; return class; }\n"}},
		{"rust, one file", "rust", "", map[string]string{"hello.rs": rustMain}},
		{"rust, a crate", "rust", "", crate},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, c.files), Runtime: c.runtime, Target: c.target})
			builtOrSkip(t, err)
			module := m.module(t)
			if m.Module != "module.wasm" || !bytes.HasPrefix(module, wasmModule) || !bytes.Contains(module, []byte("\x06_start\x00")) {
				t.Errorf("%s is no WASI command", m.Module)
			}
		})
	}
}

func TestBuildToNative(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, runtime string
		files         map[string]string
	}{
		{"c", "c", map[string]string{"hello.c": cMain}},
		{"c, with names of the entry's", "c", map[string]string{"hello.c": "#include <stdio.h>\nint serve, sweep, again, answer;\nint main(void) { puts(\"hello\"); return serve; }\n"}},
		{"c, with a file of the entry's name", "c", map[string]string{"entry.c": cMain, "entry.h": "#error never\n"}},
		{"c++", "cpp", map[string]string{"hello.cpp": cppMain}},
		{"c++ with c", "cpp", map[string]string{"main.cc": "#include <iostream>\nextern \"C\" const char *hello(void);\nint main() { std::cout << hello() << std::endl; }\n", "a.c": "const char *hello(void) { const char *class = \"hello\"; return class; }\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, c.files), Runtime: c.runtime})
			builtOrSkip(t, err)
			out, err := exec.CommandContext(t.Context(), filepath.Join(m.dir, m.Module)).Output()
			if err != nil || string(out) != "hello\n" {
				t.Errorf("%q, %v", out, err)
			}
			if !native.Linked(filepath.Join(m.dir, m.Module)) {
				t.Error("it would be started per request: it is not linked with the entry")
			}
		})
	}
}

func TestCompilersReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ runtime, target, file, text, want string }{
		{"c", "", "x.c", "int main(void) { return y; }\n", "x.c:1:"},
		{"c", "wasm", "x.c", "int main(void) { return y; }\n", "x.c:1:"},
		{"cpp", "wasm", "x.cpp", "int main() { throw 1; }\n", "exceptions"},
		{"rust", "", "x.rs", "fn main() { y }\n", "x.rs:1:"},
	} {
		t.Run(c.runtime+c.target, func(t *testing.T) {
			t.Parallel()
			_, err := run(t.Context(), t, sharedBuilder(t), Request{Source: folder(t, map[string]string{c.file: c.text}), Runtime: c.runtime, Target: c.target})
			if reasonOf(err) == ToolchainMissing {
				t.Skipf("%v", err)
			}
			if reasonOf(err) != CompileFailed || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), tempPrefix) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestToolchainMissing(t *testing.T) {
	t.Parallel()
	b := builder(t, Options{Path: t.TempDir()})
	for _, c := range []struct{ runtime, target, file, want string }{
		{"go", "", "x.go", "golang-go"}, {"tinygo", "", "x.go", "tinygo.org"}, {"rust", "", "x.rs", "libstd-rust-dev-wasm32"},
		{"c", "", "x.c", "gcc"}, {"cpp", "", "x.cpp", "g++"}, {"c", "wasm", "x.c", "wasi-libc"}, {"cpp", "wasm", "x.cpp", "libc++-dev-wasm32"},
		{"php", "", "x.php", "php-cgi"}, {"python", "", "x.py", "python3"},
	} {
		_, err := run(t.Context(), t, b, Request{Source: folder(t, map[string]string{c.file: "package main"}), Runtime: c.runtime, Target: c.target})
		if reasonOf(err) != ToolchainMissing || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s%s: %v, want %s", c.runtime, c.target, err, c.want)
		}
	}
}

// TinyGo's command line, as it is recorded in place of the command.
func TestTinyGoCommandLine(t *testing.T) {
	t.Parallel()
	need(t, "go", "golang-go")
	dir := t.TempDir()
	script := `#!/bin/sh
[ "$1" = version ] && { echo tinygo version 0.0.0; exit; }
echo "$@"
while [ "$1" != -o ]; do shift; done
printf '\0asm\1\0\0\0' >"$2"
`
	if err := os.WriteFile(filepath.Join(dir, "tinygo"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	b := builder(t, Options{Path: dir + ":" + os.Getenv("PATH")})
	m, err := run(t.Context(), t, b, Request{Source: folder(t, map[string]string{"main.go": goMain}), Runtime: "tinygo"})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("build -target=wasi -opt=2 -no-debug -o module.wasm .")
	if !slices.Equal(strings.Fields(m.log), want) || !bytes.Equal(m.module(t), wasmModule) {
		t.Errorf("ran %q, want %q", m.log, want)
	}
}

// A newer compiler from elsewhere that stands first in the path, without the
// library for WASI, is passed over for Debian's that has it.
func TestRustWithoutTheLibraryIsPassedOver(t *testing.T) {
	t.Parallel()
	// As rustup leaves a toolchain: a proxy that names the sysroot, and there
	// the compiler and the library of this machine alone.
	dir := t.TempDir()
	sysroot := filepath.Join(dir, "toolchain")
	for _, made := range []string{"bin", "lib/rustlib/x86_64-unknown-linux-gnu/lib"} {
		if err := os.MkdirAll(filepath.Join(sysroot, made), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	used := filepath.Join(dir, "used")
	for name, script := range map[string]string{
		"rustc": "#!/bin/sh\n[ \"$1 $2\" = '--print sysroot' ] && exec echo " + sysroot + "\necho used >>" + used + "\nexit 1\n",
		"cargo": "#!/bin/sh\necho used >>" + used + "\nexit 1\n",
	} {
		for _, place := range []string{filepath.Join(dir, name), filepath.Join(sysroot, "bin", name)} {
			if err := os.WriteFile(place, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	source := Request{Source: folder(t, map[string]string{"hello.rs": rustMain}), Runtime: "rust"}
	_, err := run(t.Context(), t, builder(t, Options{Path: dir}), source)
	if reasonOf(err) != ToolchainMissing || !strings.Contains(err.Error(), "libstd-rust-dev-wasm32") || !strings.Contains(err.Error(), "rustup target add wasm32-wasip1") {
		t.Errorf("with that compiler alone: %v", err)
	}
	m, err := run(t.Context(), t, builder(t, Options{Path: dir + ":/usr/bin:/bin"}), source)
	if text, _ := os.ReadFile(used); len(text) > 0 {
		t.Error("the compiler without the library was asked to compile")
	}
	builtOrSkip(t, err)
	if module := m.module(t); !bytes.HasPrefix(module, wasmModule) {
		t.Error("it is no module")
	}
}
