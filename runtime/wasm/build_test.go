package wasm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"baton/runtime/wasm/gowrap"
)

// Modules for tests are built once per test process, into a directory that
// TestMain removes.
var built struct {
	mu    sync.Mutex
	dir   string
	files map[string]func() (string, error)
}

func TestMain(m *testing.M) {
	if arguments := os.Getenv(aloneVariable); arguments != "" {
		os.Exit(prepareAlone(arguments))
	}
	dir, err := os.MkdirTemp("", "baton-wasm-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	built.files = map[string]func() (string, error){}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// once builds the module called name, at most once.
func once(tb testing.TB, name string, build func(output string) error) string {
	tb.Helper()
	built.mu.Lock()
	f, ok := built.files[name]
	if !ok {
		output := filepath.Join(built.dir, name+".wasm")
		f = sync.OnceValues(func() (string, error) { return output, build(output) })
		built.files[name] = f
	}
	built.mu.Unlock()
	path, err := f()
	if err != nil {
		tb.Fatalf("build %s: %v", name, err)
	}
	return path
}

// need skips the test, by name, on a machine without the tool.
func need(tb testing.TB, tool string) {
	tb.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		tb.Skipf("needs %s", tool)
	}
}

// buildC compiles testdata/NAME.c; flags follow the usual ones.
func buildC(tb testing.TB, name string, flags ...string) string {
	tb.Helper()
	need(tb, "clang")
	need(tb, "wasm-ld")
	return once(tb, fmt.Sprint("c-", name, len(flags)), func(output string) error {
		args := append([]string{"--target=wasm32-wasi", "-O2", "-o", output, filepath.Join("testdata", name+".c")}, flags...)
		if out, err := exec.Command("clang", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// rustCompiler returns a compiler with a library for WASI, and its target's name.
var rustCompiler = sync.OnceValues(func() (compiler, target string) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		compiler := filepath.Join(dir, "rustc")
		for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} {
			lib, err := exec.Command(compiler, "--print", "target-libdir", "--target", target).Output()
			if err != nil {
				continue
			}
			if found, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(lib)), "libstd-*.rlib")); len(found) > 0 {
				return compiler, target
			}
		}
	}
	return "", ""
})

// buildRust compiles testdata/NAME.rs.
func buildRust(tb testing.TB, name string) string {
	tb.Helper()
	compiler, target := rustCompiler()
	if compiler == "" {
		tb.Skip("needs rustc with a library for WASI (apt install rustc libstd-rust-dev-wasm32)")
	}
	return once(tb, "rust-"+name, func(output string) error {
		cmd := exec.Command(compiler, "--edition", "2021", "--target", target, "-O", "-C", "panic=abort", "-o", output, filepath.Join("testdata", name+".rs"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// buildGo compiles the program in dir: with the generated wrapper, as baton
// does, or as a plain WASI command.
func buildGo(tb testing.TB, dir string, wrapped bool) string {
	tb.Helper()
	return once(tb, fmt.Sprintf("go-%s-%t", filepath.Base(dir), wrapped), func(output string) error {
		program, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		args := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", output, "."}
		if wrapped {
			wrapper := output + ".go"
			overlay := output + ".json"
			text, _ := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(program, gowrap.FileName): wrapper}})
			if err := os.WriteFile(wrapper, gowrap.Source("main"), 0o600); err != nil {
				return err
			}
			if err := os.WriteFile(overlay, text, 0o600); err != nil {
				return err
			}
			args = gowrap.BuildArgs(output)
			args = append([]string{args[0], "-overlay=" + overlay}, args[1:]...)
		}
		cmd := exec.Command("go", args...)
		cmd.Dir = program
		cmd.Env = append(os.Environ(), gowrap.BuildEnv()...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
}

// specDir returns where wazero's module keeps the suite.
func specDir(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
}
