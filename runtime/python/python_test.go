package python_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/python"
	"baton/sandbox"
)

// TestMain is the sandbox step as well: the test's own binary stands in for
// baton.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sandbox" {
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	os.Exit(testenv.Main(m))
}

// files are a function's folder, by name. The file that is run comes first in
// load's argument.
type files map[string]string

// load makes an executor of its own and loads a function of these files.
func load(t testing.TB, main string, files files, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	l, _ := loadIn(t, main, files, f, without...)
	return l
}

// loadIn is load that also tells the data directory.
func loadIn(t testing.TB, main string, files files, f runtime.Function, without ...string) (runtime.Loaded, string) {
	t.Helper()
	testenv.Need(t, "python3")
	data := t.TempDir()
	dir := filepath.Join(data, "functions", "id", "1")
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	f.Module = filepath.Join(dir, main)
	if f.Name == "" {
		f.Name = "fn"
	}
	shared, err := child.New(child.Options{Data: data, Work: filepath.Join(data, "work"), Without: without, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	l, err := python.New(shared, searchPath()).Load(context.Background(), &f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, data
}

// searchPath is where the interpreter is looked for: BATON_TEST_PYTHON, a
// directory with a python3, comes first.
func searchPath() string {
	return os.Getenv("BATON_TEST_PYTHON") + string(os.PathListSeparator) + os.Getenv("PATH")
}

// call is one invocation with a query.
func call(l runtime.Loaded, query, body string) (out, log string, result runtime.Result) {
	var stdout, stderr bytes.Buffer
	result = l.Invoke(&runtime.Invocation{
		Body: []byte(body), Env: testenv.Variables{"QUERY_STRING=" + query, "REQUEST_METHOD=GET", "HTTP_X_REQUEST_ID=id"}, Stdout: &stdout, Stderr: &stderr,
		Deadline: time.Now().Add(testenv.Patience()),
	})
	return stdout.String(), stderr.String(), result
}

// ways are the ways in which a function may be confined, by name.
var ways = map[string][]string{
	"all layers":       nil,
	"no namespaces":    {sandbox.LayerRoot},
	"no uid":           {sandbox.LayerUID},
	"no seccomp":       {sandbox.LayerSeccomp},
	"neither":          {sandbox.LayerSeccomp, sandbox.LayerRoot},
	"without landlock": {sandbox.LayerLandlock, sandbox.LayerRoot},
}

// each runs a test in every way.
func each(t *testing.T, test func(t *testing.T, without []string)) {
	for name, without := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, without)
		})
	}
}
