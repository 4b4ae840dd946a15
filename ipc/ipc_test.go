package ipc_test

import (
	"os"
	"testing"

	"baton/internal/fd"
	"baton/internal/testenv"
	"baton/ipc"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// channel makes a pair whose ends are closed with the test.
func channel(t testing.TB) (a, b int) {
	t.Helper()
	m, n, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, &m)
	closeLater(t, &n)
	return m.Borrow(), n.Borrow()
}

func closeLater(t testing.TB, f *fd.FD) {
	t.Cleanup(func() {
		if f.Valid() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
