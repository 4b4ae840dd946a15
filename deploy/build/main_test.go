package build

import (
	"fmt"
	"os"
	"testing"

	"baton/internal/testenv"
	"baton/sandbox"
)

// TestMain is the sandbox's step as well: the test's own binary stands in for baton.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sandbox" {
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	code := testenv.Main(m)
	remove()
	os.Exit(code)
}
