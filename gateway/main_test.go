package gateway

import (
	"os"
	"testing"

	"baton/internal/sys"
	"baton/internal/testenv"
)

// TestMain is also the processes that tests start: this binary again. See
// fakeWorker and fakeHolder.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakeWorkerName {
		fakeWorker(os.Args[2:])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == fakeHolderName {
		fakeHolder(os.Args[2])
	}
	if err := sys.CloseOnExecFrom(3); err != nil { // as open does
		panic(err)
	}
	os.Exit(testenv.Main(m))
}
