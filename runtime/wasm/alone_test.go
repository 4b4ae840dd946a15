package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// aloneVariable makes this test program a process that prepares one module.
const aloneVariable = "BATON_TEST_PREPARE_ALONE"

// prepareAlone is that process: "module cache bytes".
func prepareAlone(arguments string) int {
	f := strings.Fields(arguments)
	memoryMax, err := strconv.ParseInt(f[2], 10, 64)
	if err == nil {
		_, err = PrepareAlone(context.Background(), f[0], f[1], memoryMax)
	}
	var r *RefusedError
	switch {
	case errors.As(err, &r):
		fmt.Println(err)
		return 3
	case err != nil:
		fmt.Println(err)
		return 1
	}
	return 0
}

// A compile bomb is refused with the bound it breaks, and what is within
// the bound is not.
func TestPreparingIsBoundedInMemory(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	module := buildGo(t, "testdata/gohello", true)
	for _, c := range []struct {
		memoryMax int64
		exit      int
		text      string
	}{
		{24 << 20, 3, "more than 24 MiB of memory"},
		{PrepareMemoryMax, 0, ""},
	} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), fmt.Sprint(aloneVariable, "=", module, " ", filepath.Join(t.TempDir(), "cache"), " ", c.memoryMax))
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if exit := cmd.ProcessState.ExitCode(); exit != c.exit || !strings.Contains(string(out), c.text) {
			t.Errorf("%d bytes: exit code %d, %q", c.memoryMax, exit, out)
		}
	}
}
