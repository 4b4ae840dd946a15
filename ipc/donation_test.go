package ipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"syscall"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
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

// donation makes the i-th of a test, different from every other.
func donation(i, n int) ipc.Donation {
	return ipc.Donation{
		Slot: uint32(i), Generation: uint32(1000 + i), Table: uint64(1)<<40 + uint64(i), Flags: uint16(i * 3),
		Peer:  sys.PeerFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(40000+i))),
		Bytes: bytes.Repeat([]byte{byte(i + 1)}, i*10), FD: n,
	}
}

func expectDonation(t *testing.T, got, want ipc.Donation) {
	t.Helper()
	if !bytes.Equal(got.Bytes, want.Bytes) {
		t.Errorf("slot %d: %d bytes, want %d", want.Slot, len(got.Bytes), len(want.Bytes))
	}
	got.Bytes, want.Bytes, got.FD, want.FD = nil, nil, 0, 0
	if !reflect.DeepEqual(got, want) {
		t.Errorf("slot %d\n got %+v\nwant %+v", want.Slot, got, want)
	}
}

func mustAdd(t testing.TB, w *ipc.DonationWriter, d ipc.Donation) {
	t.Helper()
	if !w.Add(d) {
		t.Fatalf("no room for the donation of slot %d with %d bytes, behind %d others", d.Slot, len(d.Bytes), w.Len())
	}
}

func mustFlush(t testing.TB, w *ipc.DonationWriter, sock int) {
	t.Helper()
	want := w.Len()
	if sent, err := w.Flush(sock); sent != want || err != nil {
		t.Fatalf("Flush = %d, %v, want %d", sent, err, want)
	}
	if w.Len() != 0 {
		t.Fatalf("%d donations in a flushed writer", w.Len())
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
				mustAdd(t, w, donation(i, n))
			}
			mustFlush(t, w, a)
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
				expectDonation(t, got[i], donation(i, 0))
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

// TestRoomInAMessage: what Add takes and what it refuses.
func TestRoomInAMessage(t *testing.T) {
	t.Parallel()
	const alone = 16 << 10
	for _, c := range []struct {
		name  string
		sizes []int // bytes of each donation; all but the last are taken
		last  bool  // so is the last
	}{
		{"16 connections", make([]int, 16), true},
		{"a 17th connection", make([]int, 17), false},
		{"the most bytes, alone", []int{ipc.ConnBytesMax}, true},
		{"16 KiB behind others", []int{0, 0, alone}, true},
		{"more than 16 KiB behind others", []int{0, alone + 1}, false},
		{"anything behind more than 16 KiB", []int{alone + 1, 0}, false},
		{"three of 16 KiB and one that fills the message", []int{alone, alone, alone, alone - 16 - 4*48}, true},
		{"three of 16 KiB and one that is a byte too long", []int{alone, alone, alone, alone - 16 - 4*48 + 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := channel(t)
			fds, _ := files(t, 1)
			w, r := ipc.NewDonationWriter(), ipc.NewDonationReader()
			for i, size := range c.sizes {
				d := donation(i, fds[0])
				d.Bytes = bytes.Repeat([]byte{byte(i)}, size)
				if got, want := w.Add(d), c.last || i < len(c.sizes)-1; got != want {
					t.Fatalf("donation %d of %d bytes: taken %v, want %v", i, size, got, want)
				}
			}
			for w.Len() > 0 {
				count := w.Len()
				mustFlush(t, w, a)
				got, err := r.Read(b)
				if err != nil || len(got) != count {
					t.Fatalf("%d donations, %v, want %d", len(got), err, count)
				}
				for i := range got {
					sys.CloseRaw(got[i].FD)
					if len(got[i].Bytes) != c.sizes[i] || bytes.ContainsFunc(got[i].Bytes, func(r rune) bool { return r != rune(i) }) {
						t.Errorf("donation %d: %d bytes, want %d of its own", i, len(got[i].Bytes), c.sizes[i])
					}
				}
				if !c.last { // the one that was refused goes into the empty writer
					c.last = true
					last := len(c.sizes) - 1
					d := donation(0, fds[0])
					d.Bytes = bytes.Repeat([]byte{0}, c.sizes[last])
					c.sizes = c.sizes[last:]
					mustAdd(t, w, d)
				}
			}
		})
	}
}

func TestImpossibleDonationPanics(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]ipc.Donation{
		"without a descriptor": {FD: -1},
		"too many bytes":       {FD: 0, Bytes: make([]byte, ipc.ConnBytesMax+1)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			ipc.NewDonationWriter().Add(d)
		}()
	}
}

func TestFlushOfNothing(t *testing.T) {
	t.Parallel()
	if sent, err := ipc.NewDonationWriter().Flush(-1); sent != 0 || err != nil {
		t.Errorf("Flush = %d, %v, want nothing", sent, err)
	}
}

// TestAFullChannel: nothing is lost, nothing is closed, and there is room again
// once the worker reads.
func TestAFullChannel(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, ipc.ConnBytesMax} {
		t.Run(fmt.Sprint(size, " bytes each"), func(t *testing.T) {
			t.Parallel()
			a, b := channel(t)
			fds, inodes := files(t, 1)
			w, r := ipc.NewDonationWriter(), ipc.NewDonationReader()
			d := donation(0, fds[0])
			d.Bytes = make([]byte, size)
			sent := 0
			for {
				d.Slot = uint32(sent)
				mustAdd(t, w, d)
				n, err := w.Flush(a)
				if err == nil {
					sent += n
					continue
				}
				if !errors.Is(err, ipc.ErrFull) || n != 0 {
					t.Fatalf("Flush = %d, %v, want ErrFull", n, err)
				}
				break
			}
			// See sendBufferBytes: 64 KiB must always fit more than once.
			if want := 4; sent < want {
				t.Errorf("%d messages fill the channel, want at least %d", sent, want)
			}
			t.Logf("%d messages fill the channel", sent)
			if w.Len() != 0 {
				t.Errorf("the writer keeps %d donations", w.Len())
			}
			if inode(t, fds[0]) != inodes[0] {
				t.Error("the descriptor was closed")
			}
			for i := range sent {
				got, err := r.Read(b)
				if err != nil || len(got) != 1 || got[0].Slot != uint32(i) {
					t.Fatalf("message %d: %v, %v", i, got, err)
				}
				sys.CloseRaw(got[0].FD)
			}
			if happened, err := sys.Poll(a, sys.PollOut, 0); happened&sys.PollOut == 0 || err != nil {
				t.Errorf("an empty channel is not writable: %#x, %v", happened, err)
			}
			mustAdd(t, w, d)
			mustFlush(t, w, a)
			got, err := r.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			sys.CloseRaw(got[0].FD)
		})
	}
}

// TestADeadWorkersLastWords: a peer that dies with unread messages makes the
// kernel answer ECONNRESET once, in front of what the peer had sent. That must
// not hide it.
func TestADeadWorkersLastWords(t *testing.T) {
	t.Parallel()
	a, b, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, &a)
	closeLater(t, &b)
	copied, gone := watched(t)
	w := ipc.NewDonationWriter()
	mustAdd(t, w, donation(0, copied))
	mustFlush(t, w, a.Borrow())
	sys.CloseRaw(copied)
	if gone() {
		t.Fatal("a descriptor in flight is gone")
	}
	if err := ipc.WriteFrame(b.Borrow(), ipc.EndedFrame([]ipc.SlotRef{{Slot: 7, Generation: 9}})); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil { // the donation was not read
		t.Fatal(err)
	}
	r := ipc.NewFrameReader()
	f, err := r.Read(a.Borrow())
	if err != nil {
		t.Fatalf("the last words are not heard: %v", err)
	}
	heard := 0
	if err := f.EachEnded(func(slot, generation uint32) { heard += int(slot*10 + generation) }); err != nil || heard != 79 {
		t.Errorf("heard %d, %v", heard, err)
	}
	f.Close()
	for range 2 {
		expectEnd(t, readFrame(r, a.Borrow()))
	}
	expectGone(t, gone) // the queue of a dead worker takes its descriptors along
}

func TestDonatingToADeadWorker(t *testing.T) {
	t.Parallel()
	for _, unread := range []bool{false, true} {
		a, b, err := ipc.NewChannel()
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, &a)
		fds, _ := files(t, 1)
		w := ipc.NewDonationWriter()
		if unread {
			mustAdd(t, w, donation(0, fds[0]))
			mustFlush(t, w, a.Borrow())
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		flush := func() (int, error) {
			mustAdd(t, w, donation(0, fds[0]))
			return w.Flush(a.Borrow())
		}
		testenv.Until(t, "nobody holds the worker's end: see expectGone", func() bool {
			sent, err := flush()
			return sent == 0 && errors.Is(err, ipc.ErrPeerGone)
		})
		if sent, err := flush(); sent != 0 || !errors.Is(err, ipc.ErrPeerGone) {
			t.Errorf("unread %v: Flush = %d, %v, want ErrPeerGone", unread, sent, err)
		}
		expectEnd(t, readDonations(ipc.NewDonationReader(), a.Borrow()))
	}
}

// TestDonationsSurviveTheGateway: what was sent before the gateway died is
// adopted.
func TestDonationsSurviveTheGateway(t *testing.T) {
	t.Parallel()
	a, b, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, &b)
	fds, inodes := files(t, 1)
	w := ipc.NewDonationWriter()
	mustAdd(t, w, donation(3, fds[0]))
	mustFlush(t, w, a.Borrow())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	r := ipc.NewDonationReader()
	got, err := r.Read(b.Borrow())
	if err != nil || len(got) != 1 || inode(t, got[0].FD) != inodes[0] {
		t.Fatalf("%v, %v", got, err)
	}
	sys.CloseRaw(got[0].FD)
	expectEnd(t, readDonations(r, b.Borrow()))
}

func TestReadOfNoSocketIsASystemError(t *testing.T) {
	t.Parallel()
	fds, _ := files(t, 1)
	if _, err := ipc.NewDonationReader().Read(fds[0]); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("Read = %v, want ENOTSOCK", err)
	}
	if err := ipc.WriteFrame(fds[0], ipc.StopFrame()); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("WriteFrame = %v, want ENOTSOCK", err)
	}
}
