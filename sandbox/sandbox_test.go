package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/testenv"
	"baton/sandbox"
)

// TestMain is the step as well: the test's own binary stands in for baton.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sandbox" {
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	os.Exit(testenv.Main(m))
}

func step(t testing.TB) []string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{name, "sandbox"}
}

// run runs a program under s and returns what it has written and how it ended.
func run(t testing.TB, s sandbox.Spec, files ...*os.File) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience())
	defer cancel()
	c, err := sandbox.Command(ctx, step(t), s, files...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	starter := sandbox.NewStarter()
	defer starter.Close()
	if err := starter.Start(c); err != nil {
		t.Fatal(err)
	}
	err = c.Wait()
	return out.String(), err
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestSpecIsWhatTheProgramGets(t *testing.T) {
	t.Parallel()
	out, err := run(t, sandbox.Spec{Argv: shell("echo $0 $1 $FOO; pwd; ulimit -n"), Env: []string{"FOO=bar"}, Dir: t.TempDir(), OpenFiles: 17})
	if err != nil || !strings.HasPrefix(out, "/bin/sh bar\n") || !strings.HasSuffix(out, "\n17\n") {
		t.Errorf("got %q, %v", out, err)
	}
}

var _ = exec.Command
var _ = filepath.Join
