package gowrap

import (
	"encoding/json"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSourceIsFormattedGoOfThePackage(t *testing.T) {
	t.Parallel()
	src := Source("main")
	file, err := parser.ParseFile(token.NewFileSet(), FileName, src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if file.Name.Name != "main" {
		t.Errorf("package %s", file.Name.Name)
	}
	for name := range file.Scope.Objects {
		if !strings.HasPrefix(name, "batonHandle") {
			t.Errorf("top-level name %s may collide with the program's", name)
		}
	}
	formatted, err := format.Source(src)
	if err != nil || string(formatted) != string(src) {
		t.Errorf("not formatted (%v)", err)
	}
}

// What the module does when it runs is proven in runtime/wasm.
func TestWrappedProgramBuilds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds a Go program")
	}
	dir := t.TempDir()
	program, err := filepath.Abs("testdata/hello")
	if err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(dir, FileName)
	if err := os.WriteFile(wrapper, Source("main"), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(program, FileName): wrapper}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	args := BuildArgs(filepath.Join(dir, "hello.wasm"))
	args = append([]string{args[0], "-overlay=" + filepath.Join(dir, "overlay.json")}, args[1:]...)
	cmd := exec.Command("go", args...)
	cmd.Dir = program
	cmd.Env = append(os.Environ(), BuildEnv()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
