package ipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"syscall"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

// files opens n different things and returns them with what identifies each.
func files(t testing.TB, n int) (fds []int, inodes []uint64) {
	t.Helper()
	for range n {
		f, err := sys.MemfdCreate("test", 0)
		if err != nil {
			t.Fatal(err)
		}
		owner := fd.New(f)
		closeLater(t, &owner)
		fds, inodes = append(fds, f), append(inodes, inode(t, f))
	}
	return fds, inodes
}

func inode(t testing.TB, n int) uint64 {
	t.Helper()
	device, ino, err := sys.FileIdentity(n)
	if err != nil {
		t.Fatal(err)
	}
	return device<<48 ^ ino
}

func donation(i, n int) ipc.Donation {
	b := bytes.Repeat([]byte{byte(i + 1)}, i*10)
	return ipc.Donation{
		Slot: uint32(i), Generation: uint32(1000 + i), Table: uint64(1)<<40 + uint64(i), Flags: uint16(i * 3),
		Peer:  sys.PeerFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(40000+i))),
		Bytes: b, FD: n,
	}
}

func TestDonationsArriveAsTheyWereAdded(t *testing.T) {
	t.Parallel()
	for count := 1; count <= ipc.DonationConnsMax; count++ {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			a, b := channel(t)
			fds, inodes := files(t, count)
			w, r := ipc.NewDonationWriter(), ipc.NewDonationReader()
			for i, n := range fds {
				if !w.Add(donation(i, n)) {
					t.Fatalf("no room for donation %d", i)
				}
			}
			if sent, err := w.Flush(a); sent != count || err != nil {
				t.Fatalf("Flush = %d, %v, want %d", sent, err, count)
			}
			got, err := r.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != count {
				t.Fatalf("%d donations, want %d", len(got), count)
			}
			for i := range got {
				if ino := inode(t, got[i].FD); ino != inodes[i] {
					t.Errorf("donation %d: inode %d, want %d", i, ino, inodes[i])
				}
				if !closeOnExec(t, got[i].FD) {
					t.Errorf("donation %d: the descriptor survives exec", i)
				}
				sys.CloseRaw(got[i].FD)
				want := donation(i, got[i].FD)
				if len(want.Bytes) == 0 {
					got[i].Bytes, want.Bytes = nil, nil
				}
				if !reflect.DeepEqual(got[i], want) {
					t.Errorf("donation %d\n got %+v\nwant %+v", i, got[i], want)
				}
			}
			if _, err := r.Read(b); err != ipc.ErrAgain {
				t.Errorf("read of an empty channel: %v, want ErrAgain", err)
			}
		})
	}
}

func closeOnExec(t testing.TB, n int) bool {
	t.Helper()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(n), syscall.F_GETFD, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return flags&syscall.FD_CLOEXEC != 0
}

func TestReadAfterThePeerIsGone(t *testing.T) {
	t.Parallel()
	a, b, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	closeLater(t, &b)
	if _, err := ipc.NewDonationReader().Read(b.Borrow()); err != io.EOF {
		t.Errorf("Read = %v, want io.EOF", err)
	}
	w := ipc.NewDonationWriter()
	fds, _ := files(t, 1)
	w.Add(donation(0, fds[0]))
	if sent, err := w.Flush(b.Borrow()); sent != 0 || !errors.Is(err, ipc.ErrPeerGone) {
		t.Errorf("Flush = %d, %v, want ErrPeerGone", sent, err)
	}
}
