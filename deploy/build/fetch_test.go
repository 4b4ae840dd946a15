package build

import (
	"archive/zip"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"baton/sandbox"
)

// proxy makes a folder that serves one module as GOPROXY does.
//
// Source: go.dev/ref/mod, "GOPROXY protocol".
func proxy(t *testing.T) string {
	t.Helper()
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	const mod, text = "module example.com/word\n\ngo 1.24\n", "package word\n\nconst Word = \"fetched\"\n"
	for name, text := range map[string]string{"go.mod": mod, "word.go": text} {
		f, err := w.Create("example.com/word@v1.0.0/" + name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return folder(t, map[string]string{
		"example.com/word/@v/list": "v1.0.0\n", "example.com/word/@v/v1.0.0.info": `{"Version":"v1.0.0"}`,
		"example.com/word/@v/v1.0.0.mod": mod, "example.com/word/@v/v1.0.0.zip": archive.String(),
	})
}

// What go.mod requires is fetched in a step of its own, from where the machine's
// owner says; the build finds it in the cache, and a second one fetches nothing.
func TestFetch(t *testing.T) {
	need(t, "go", "golang-go")
	dir := proxy(t)
	if err := sandbox.Share(dir); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOPROXY", "file://"+dir)
	t.Setenv("GONOSUMDB", "*")
	files := map[string]string{"go.mod": "module x\n\ngo 1.24\n", "main.go": "package main\n\nimport \"example.com/word\"\n\nfunc main() { print(word.Word) }\n"}
	source := folder(t, files)
	tidy := exec.CommandContext(t.Context(), "go", "mod", "tidy")
	tidy.Dir = source
	tidy.Env = append(os.Environ(), "GOFLAGS=-modcacherw", "GOMODCACHE="+t.TempDir())
	if out, err := tidy.CombinedOutput(); err != nil {
		t.Fatalf("go mod tidy: %v\n%s", err, out)
	}
	// Nobody else uses it yet: the tests that run side by side come later.
	b := sharedBuilder(t)
	forget := func() { b.probes.mu.Lock(); defer b.probes.mu.Unlock(); b.probes.said = nil }
	forget() // what the owner's settings were
	t.Cleanup(forget)
	var states []string
	req := Request{Source: source, Runtime: "go", State: func(s string) { states = append(states, s) }}
	m, err := run(t.Context(), t, b, req)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(states, " "); got != StateFetching+" "+StateBuilding || !bytes.Contains(m.module(t), []byte("fetched")) {
		t.Errorf("states %q", got)
	}
	states = nil
	if err := os.WriteFile(filepath.Join(source, "more.go"), []byte("package main\n\nvar _ = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t.Context(), t, b, req); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(states, " "); got != StateBuilding {
		t.Errorf("the second time, states %q", got)
	}
}
