//go:build !race

package ipc_test

import (
	"net"
	"net/netip"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
)

// TestHotFunctionsAllocateNothing: the number is allocations per call. A message
// of 16 donations, sent, received and closed, is one call.
func TestHotFunctionsAllocateNothing(t *testing.T) {
	a, b := channel(t)
	fds, _ := files(t, ipc.DonationConnsMax)
	w, r := ipc.NewDonationWriter(), ipc.NewDonationReader()
	var donations [ipc.DonationConnsMax]ipc.Donation
	for i, n := range fds {
		donations[i] = donation(i, n)
	}
	board := newBoard(t, ipc.BoardOptions{Conns: 10, Workers: 4, Cells: 10})
	frames := ipc.NewFrameReader()
	refs := []ipc.SlotRef{{Slot: 1, Generation: 2}, {Slot: 3, Generation: 4}}
	back := ipc.Return{Slot: 1, Reason: ipc.ReturnControl, Bytes: []byte("GET /healthz HTTP/1.1\r\n")}
	id, room := []byte("0123456789abcdef"), make([]byte, 0, 200)
	conn := acceptedConn(t)
	sum := uint32(0)
	each := func(slot, generation uint32) { sum += slot }
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		call func()
	}{
		{"donate and adopt", func() {
			for i := range donations {
				if !w.Add(donations[i]) {
					t.Fatal("no room")
				}
			}
			_, err := w.Flush(a)
			check(err)
			got, err := r.Read(b)
			check(err)
			for i := range got {
				sys.CloseRaw(got[i].FD)
			}
		}},
		{"nothing to adopt", func() {
			if _, err := r.Read(b); err != ipc.ErrAgain {
				t.Fatal(err)
			}
		}},
		{"CheckConn", func() { check(ipc.CheckConn(conn)) }},
		{"report ended connections", func() {
			check(ipc.WriteFrame(a, ipc.EndedFrame(refs)))
			f, err := frames.Read(b)
			check(err)
			check(f.EachEnded(each))
			f.Close()
		}},
		{"return a connection", func() {
			check(ipc.WriteFrame(a, ipc.ReturnedFrame(back)))
			f, err := frames.Read(b)
			check(err)
			_, err = f.Returned()
			check(err)
			f.Close()
		}},
		{"nothing reported", func() {
			if _, err := frames.Read(b); err != ipc.ErrAgain {
				t.Fatal(err)
			}
		}},
		{"states of a connection", func() {
			s := board.Conn(3)
			s.SetRequest(id, false)
			s.Store(ipc.MakeWord(s.Load().Generation()+1, 2, ipc.Running))
			room = s.AppendRequestID(room[:0])
		}},
		{"counts of a worker", func() {
			s := board.Worker(2)
			s.AddDonated(1)
			s.AddAdopted(1)
			s.AddRequests(1)
			s.SetHeartbeat(1)
			s.Score()
			sum += uint32(s.Pending() + s.Inflight())
		}},
		{"enter and leave", func() {
			if !board.Enter(1, 5, 3) || board.Inflight(5) != 1 {
				t.Fatal("refused")
			}
			board.Leave(1, 5)
		}},
	} {
		if n := testing.AllocsPerRun(100, c.call); n != 0 {
			t.Errorf("%s: %v allocations, want 0", c.name, n)
		}
	}
}

// acceptedConn returns the accepted end of a TCP connection.
func acceptedConn(t testing.TB) int {
	t.Helper()
	l, err := sys.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), sys.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	listener := fd.New(l)
	closeLater(t, &listener)
	at, err := sys.LocalAddr(l)
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := sys.WaitReadable(l, testenv.Patience()); err != nil {
		t.Fatal(err)
	}
	n, _, errno := sys.Accept4(l)
	if errno != 0 {
		t.Fatal(errno)
	}
	conn := fd.New(n)
	closeLater(t, &conn)
	return n
}
