package build

import (
	"os"
	"testing"

	"baton/internal/testenv"
)

func TestMain(m *testing.M) {
	code := testenv.Main(m)
	remove()
	os.Exit(code)
}
