package ipc_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
)

// childName is set in the environment of this test binary when a test has
// started it once more, and says which of children to be.
const childName = "BATON_IPC_TEST_CHILD"

// children are the other processes of the tests. What they print is what the
// test looks at; an error makes them fail. Descriptors that the test passes
// begin at 3.
var children = map[string]func() error{
	"adopt-few":     childAdoptFew,
	"hello-few":     childHelloFew,
	"too-many":      childTooMany,
	"serve":         childServe,
	"enter-leave":   childEnterLeave,
	"hold":          childHold,
	"adopt-and-end": childAdoptAndEnd,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(childName); name != "" {
		if err := children[name](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(testenv.Main(m))
}

// again prepares this test binary as the child called name, with descriptors.
func again(t testing.TB, name string, fds ...int) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childName+"="+name)
	for _, n := range fds {
		d, err := sys.Dup(n)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(d), "passed")
		t.Cleanup(func() { f.Close() })
		c.ExtraFiles = append(c.ExtraFiles, f)
	}
	return c
}

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

// watched returns a descriptor to pass and a function that says whether every
// copy of it, in whatever process, is closed. The descriptor is the caller's to
// close.
func watched(t testing.TB) (n int, gone func() bool) {
	t.Helper()
	a, b, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	f := fd.New(a)
	closeLater(t, &f)
	return b, func() bool {
		happened, err := sys.Poll(a, sys.PollIn, 0)
		if err != nil {
			t.Fatal(err)
		}
		return happened&sys.PollHup != 0
	}
}

// expectGone waits until all are. A process that another test forks at this
// moment holds a copy until it execs, so nobody may look once.
func expectGone(t testing.TB, gone ...func() bool) {
	t.Helper()
	for i, f := range gone {
		testenv.Until(t, fmt.Sprintf("descriptor %d is closed everywhere", i), f)
	}
}

// expectEnd waits until read says io.EOF; until then it may say ErrAgain only:
// see expectGone.
func expectEnd(t testing.TB, read func() error) {
	t.Helper()
	testenv.Until(t, "the end of the channel is heard", func() bool {
		err := read()
		if err != io.EOF && !errors.Is(err, ipc.ErrAgain) {
			t.Fatalf("at the end of the channel: %v, want io.EOF", err)
		}
		return err == io.EOF
	})
}

// readFrame and readDonations are reads of which only the error matters.
func readFrame(r *ipc.FrameReader, n int) func() error {
	return func() error { _, err := r.Read(n); return err }
}

func readDonations(r *ipc.DonationReader, n int) func() error {
	return func() error { _, err := r.Read(n); return err }
}
