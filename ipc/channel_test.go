package ipc_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

func TestChannelEndsNeverBlockAndStayHere(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	for _, end := range []int{a, b} {
		flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(end), syscall.F_GETFL, 0)
		if errno != 0 || flags&syscall.O_NONBLOCK == 0 || !closeOnExec(t, end) {
			t.Errorf("end %d: flags %#x, close-on-exec %v", end, flags, closeOnExec(t, end))
		}
		if n, err := sys.SendBuffer(end); n < 72<<10 || err != nil {
			t.Errorf("end %d: send buffer of %d bytes, %v", end, n, err)
		}
	}
}

// TestAnEmptyMessageIsTheEnd: it cannot be told from one; what it carried is
// closed.
func TestAnEmptyMessageIsTheEnd(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	n, gone := watched(t)
	if _, errno := sys.SendMsg(a, nil, sys.PutRights(make([]byte, 64), []int32{int32(n)})); errno != 0 {
		t.Fatal(errno)
	}
	sys.CloseRaw(n)
	expectEnd(t, readFrame(ipc.NewFrameReader(), b))
	expectGone(t, gone)
}

// TestCheckConn: pitfall "type and domain of what arrived checked".
func TestCheckConn(t *testing.T) {
	t.Parallel()
	expect := func(name string, n int, want bool) {
		t.Helper()
		if err := ipc.CheckConn(n); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	own := func(n int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f := fd.New(n)
		closeLater(t, &f)
		return n
	}
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := sys.ListenTCP(netip.MustParseAddrPort(listen), sys.ListenOptions{})
		if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
			continue // a machine without IPv6
		}
		own(l, err)
		expect("a listening socket", l, false)
		at, err := sys.LocalAddr(l)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := sys.WaitReadable(l, 1e9); err != nil {
			t.Fatal(err)
		}
		n, _, errno := sys.Accept4(l)
		if errno != 0 {
			t.Fatal(errno)
		}
		expect("a TCP connection", own(n, nil), true)
	}
	udp, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	expect("a UDP socket", own(udp, err), false)
	stream, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	expect("a Unix stream", own(stream[0], err), false)
	own(stream[1], nil)
	a, _ := channel(t)
	expect("a channel of ours", a, false)
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	expect("a file", int(f.Fd()), false)
	expect("nothing", -1, false)
}
