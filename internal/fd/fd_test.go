package fd_test

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"baton/internal/fd"
)

func open(t *testing.T) int {
	t.Helper()
	n, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func isOpen(n int) bool {
	var st syscall.Stat_t
	return syscall.Fstat(n, &st) == nil
}

func TestZeroValueIsDead(t *testing.T) {
	var f fd.FD
	if f.Valid() || f.Borrow() != -1 || f.Donate() != -1 {
		t.Error("the zero FD owns something")
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close of a dead FD: %v, want os.ErrClosed", err)
	}
}

// Not parallel, like every test here that asks whether a number is open: the
// number may be reused by whoever opens something next.
func TestCloseIsFinal(t *testing.T) {
	n := open(t)
	f := fd.New(n)
	if !f.Valid() || f.Borrow() != n {
		t.Fatalf("FD of %d: valid %v, borrows %d", n, f.Valid(), f.Borrow())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if isOpen(n) {
		t.Error("the descriptor is open after Close")
	}
	if f.Valid() || f.Borrow() != -1 {
		t.Error("the FD lives after Close")
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v, want os.ErrClosed", err)
	}
}

func TestDonatedIsTheReceivers(t *testing.T) {
	n := open(t)
	f := fd.New(n)
	if got := f.Donate(); got != n {
		t.Fatalf("Donate = %d, want %d", got, n)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("close after Donate: %v, want os.ErrClosed", err)
	}
	if !isOpen(n) {
		t.Fatal("the donor closed what it gave away")
	}
	if err := syscall.Close(n); err != nil {
		t.Fatal(err)
	}
}

func TestDescriptorZeroIsADescriptor(t *testing.T) {
	t.Parallel()
	f := fd.New(0)
	if !f.Valid() || f.Borrow() != 0 || f.Donate() != 0 || f.Valid() {
		t.Error("descriptor 0 is treated as none")
	}
}

func TestNewRefusesNegative(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("New(-1) did not panic")
		}
	}()
	fd.New(-1)
}

func TestCloseOfAStrangerIsReported(t *testing.T) {
	n := open(t)
	f, twin := fd.New(n), fd.New(n)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := twin.Close(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("close of a closed number: %v, want EBADF", err)
	}
}
