package sys_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
)

// child is set in the environment of this test binary when a test has started
// it once more, and says what to do.
const child = "BATON_SYS_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "exit":
		os.Exit(37)
	case "wait":
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "nofile":
		os.Exit(childNofile())
	case "clock":
		fmt.Print(sys.ClockMonotonic())
		os.Exit(0)
	}
	os.Exit(testenv.Main(m))
}

func again(t *testing.T, what string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), child+"="+what)
	return c
}

// owned closes n with the test.
func owned(t testing.TB, n int, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	f := fd.New(n)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func pair(t testing.TB) (a, b int) {
	t.Helper()
	a, b, err := sys.Socketpair()
	return owned(t, a, err), owned(t, b, err)
}

func flags(t testing.TB, n int) (nonblocking, closeOnExec bool) {
	t.Helper()
	fl, _, e1 := syscall.Syscall(syscall.SYS_FCNTL, uintptr(n), syscall.F_GETFL, 0)
	fdfl, _, e2 := syscall.Syscall(syscall.SYS_FCNTL, uintptr(n), syscall.F_GETFD, 0)
	if e1 != 0 || e2 != 0 {
		t.Fatal(e1, e2)
	}
	return fl&syscall.O_NONBLOCK != 0, fdfl&syscall.FD_CLOEXEC != 0
}

// awaitHangUp waits until nobody holds the other end of fd: after a close, the
// child of another test may have a copy until its exec.
func awaitHangUp(t *testing.T, fd int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		events, err := sys.Poll(fd, 0, time.Until(deadline))
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("wait for the hang-up: %#x, %v", events, err)
		}
		if events&sys.PollHup != 0 {
			return
		}
	}
}

func TestReadAndWrite(t *testing.T) {
	t.Parallel()
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := owned(t, p[0], nil), fd.New(p[1])
	defer w.Close()
	b := make([]byte, 8)
	if n, errno := sys.Read(r, b); n != 0 || errno != syscall.EAGAIN {
		t.Errorf("read of nothing: %d, %v, want EAGAIN", n, errno)
	}
	if n, errno := sys.Write(w.Borrow(), []byte("baton")); n != 5 || errno != 0 {
		t.Errorf("write: %d, %v", n, errno)
	}
	if n, errno := sys.Read(r, nil); n != 0 || errno != 0 {
		t.Errorf("read into nothing: %d, %v", n, errno)
	}
	if n, errno := sys.Read(r, b); string(b[:n]) != "baton" || errno != 0 {
		t.Errorf("read: %q, %v", b[:n], errno)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	awaitHangUp(t, r)
	if n, errno := sys.Read(r, b); n != 0 || errno != 0 {
		t.Errorf("read at the end: %d, %v", n, errno)
	}
	if n, errno := sys.Write(r, b); n != 0 || errno != syscall.EBADF {
		t.Errorf("write into the reading end: %d, %v, want EBADF", n, errno)
	}
}

func TestWriteWithoutReaderIsAnError(t *testing.T) {
	t.Parallel()
	a, b, err := sys.Socketpair()
	owned(t, a, err)
	sys.CloseRaw(b)
	awaitHangUp(t, a)
	if n, errno := sys.Write(a, []byte("x")); n != 0 || errno != syscall.EPIPE {
		t.Errorf("write: %d, %v, want EPIPE", n, errno)
	}
	if _, errno := sys.SendMsg(a, [][]byte{[]byte("x")}, nil); errno != syscall.EPIPE {
		t.Errorf("send: %v, want EPIPE", errno)
	}
}

// Not parallel: another test could open the same number in between.
func TestCloseRawOfAClosedNumberPanics(t *testing.T) {
	a, b, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	sys.CloseRaw(a)
	sys.CloseRaw(b)
	defer func() {
		if recover() == nil {
			t.Error("closing a closed number did not panic")
		}
	}()
	sys.CloseRaw(b)
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := sys.Shutdown(a, syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, errno := sys.Read(b, make([]byte, 1)); n != 0 || errno != 0 {
		t.Errorf("read after the peer's shutdown: %d, %v, want the end", n, errno)
	}
	f, err := sys.MemfdCreate("test", 0)
	owned(t, f, err)
	if err := sys.Shutdown(f, syscall.SHUT_WR); !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("shutdown of a file: %v, want ENOTSOCK", err)
	}
}

func TestMessageOfPartsWithDescriptors(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	f, err := sys.MemfdCreate("test", 0)
	owned(t, f, err)
	control := sys.PutRights(make([]byte, 64), []int32{int32(f), int32(a), int32(f)})
	if len(control) != sys.RightsSpace(3) {
		t.Errorf("control of %d bytes, want %d", len(control), sys.RightsSpace(3))
	}
	n, errno := sys.SendMsg(a, [][]byte{[]byte("one"), nil, []byte("two"), {}}, control)
	if n != 6 || errno != 0 {
		t.Fatalf("send: %d, %v", n, errno)
	}
	p, room := make([]byte, 16), make([]byte, 64)
	n, m, what, errno := sys.RecvMsg(b, p, room)
	if string(p[:n]) != "onetwo" || what != 0 || errno != 0 {
		t.Fatalf("received %q, flags %#x, %v", p[:n], what, errno)
	}
	got := sys.Rights(nil, room[:m])
	if len(got) != 3 {
		t.Fatalf("%d descriptors, want 3", len(got))
	}
	for i, want := range []int{f, a, f} {
		d1, i1, _ := sys.FileIdentity(want)
		d2, i2, _ := sys.FileIdentity(int(got[i]))
		if d1 != d2 || i1 != i2 {
			t.Errorf("descriptor %d: %d:%d, want %d:%d", i, d2, i2, d1, i1)
		}
		if _, closeOnExec := flags(t, int(got[i])); !closeOnExec {
			t.Errorf("descriptor %d survives exec", i)
		}
		sys.CloseRaw(int(got[i]))
	}
	if _, _, _, errno := sys.RecvMsg(b, p, room); errno != syscall.EAGAIN {
		t.Errorf("receive of nothing: %v, want EAGAIN", errno)
	}
}

func TestMessageThatDoesNotFitIsMarked(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if _, errno := sys.SendMsg(a, [][]byte{make([]byte, 9)}, nil); errno != 0 {
		t.Fatal(errno)
	}
	if n, _, what, errno := sys.RecvMsg(b, make([]byte, 8), nil); n != 8 || what&sys.MessageTruncated == 0 || errno != 0 {
		t.Errorf("received %d bytes, flags %#x, %v", n, what, errno)
	}
	control := sys.PutRights(make([]byte, 64), []int32{int32(a), int32(a), int32(a)})
	if _, errno := sys.SendMsg(a, [][]byte{{1}}, control); errno != 0 {
		t.Fatal(errno)
	}
	room := make([]byte, sys.RightsSpace(2))
	_, m, what, errno := sys.RecvMsg(b, make([]byte, 8), room)
	got := sys.Rights(nil, room[:m])
	if len(got) != 2 || what&sys.ControlTruncated == 0 || errno != 0 {
		t.Errorf("%d descriptors, flags %#x, %v, want 2 and the mark", len(got), what, errno)
	}
	for _, n := range got {
		sys.CloseRaw(int(n))
	}
}

func TestTooManyPartsPanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	sys.SendMsg(-1, make([][]byte, sys.MessagePartsMax+1), nil)
}

// TestControlAlignment: pitfall "CMSG alignment can let in more than asked".
func TestControlAlignment(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if _, errno := sys.SendMsg(a, [][]byte{{1}}, sys.PutRights(make([]byte, 64), []int32{int32(a), int32(a)})); errno != 0 {
		t.Fatal(errno)
	}
	room := make([]byte, sys.RightsSpace(1))
	_, m, _, errno := sys.RecvMsg(b, make([]byte, 1), room)
	got := sys.Rights(nil, room[:m])
	if len(got) != 2 || errno != 0 {
		t.Errorf("room for 1 brought %d descriptors, %v; 2 are known to fit", len(got), errno)
	}
	for _, n := range got {
		sys.CloseRaw(int(n))
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := sys.SetPassCred(b, true); err != nil {
		t.Fatal(err)
	}
	if _, errno := sys.SendMsg(a, [][]byte{{1}}, nil); errno != 0 {
		t.Fatal(errno)
	}
	room := make([]byte, sys.CredentialsSpace)
	_, m, what, errno := sys.RecvMsg(b, make([]byte, 1), room)
	pid, uid, gid, ok := sys.Credentials(room[:m])
	if errno != 0 || what != 0 || !ok || pid != os.Getpid() || uid != os.Getuid() || gid != os.Getgid() {
		t.Errorf("credentials %d, %d, %d, %v, flags %#x, %v", pid, uid, gid, ok, what, errno)
	}
	if _, _, _, ok := sys.Credentials(nil); ok {
		t.Error("credentials out of nothing")
	}
}

// FuzzControl: whatever the buffer holds, parsing it ends and stays inside.
func FuzzControl(f *testing.F) {
	f.Add([]byte{})
	f.Add(sys.PutRights(make([]byte, 64), []int32{3, 4, 5}))
	f.Add(append(sys.PutRights(make([]byte, 64), []int32{3}), sys.PutRights(make([]byte, 64), []int32{4, 5})...))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Add(append([]byte{16}, make([]byte, 15)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := sys.Rights(nil, b); len(got)*4 > len(b) {
			t.Errorf("%d descriptors out of %d bytes", len(got), len(b))
		}
		sys.Credentials(b)
	})
}

func TestRightsOfTwoMessages(t *testing.T) {
	t.Parallel()
	b := append(sys.PutRights(make([]byte, 64), []int32{3}), sys.PutRights(make([]byte, 64), []int32{4, 5})...)
	if got := sys.Rights(nil, b); fmt.Sprint(got) != "[3 4 5]" {
		t.Errorf("descriptors %v, want [3 4 5]", got)
	}
}

func TestEventfd(t *testing.T) {
	t.Parallel()
	n, err := sys.Eventfd()
	owned(t, n, err)
	expectReadable(t, n, false)
	sys.EventfdSignal(n)
	sys.EventfdSignal(n)
	expectReadable(t, n, true)
	sys.EventfdDrain(n)
	expectReadable(t, n, false)
	sys.EventfdDrain(n) // does not block
}

func expectReadable(t *testing.T, n int, want bool) {
	t.Helper()
	got, err := sys.Poll(n, sys.PollIn, 0)
	if err != nil {
		t.Fatal(err)
	}
	if (got&sys.PollIn != 0) != want {
		t.Errorf("readable %v, want %v", !want, want)
	}
}

func TestTimerfd(t *testing.T) {
	t.Parallel()
	n, err := sys.Timerfd()
	owned(t, n, err)
	expectReadable(t, n, false)
	begin := sys.ClockMonotonic()
	if err := sys.TimerfdSet(n, 20*time.Millisecond, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := sys.WaitReadable(n, testenv.Patience()); err != nil {
			t.Fatal(err)
		}
		if passed := time.Duration(sys.ClockMonotonic() - begin); passed < 20*time.Millisecond {
			t.Errorf("expired after %v, want 20 ms", passed)
		}
		sys.TimerfdDrain(n)
	}
	if err := sys.TimerfdSet(n, 0, 0); err != nil {
		t.Fatal(err)
	}
	sys.TimerfdDrain(n)
	expectReadable(t, n, false)
}

func TestWaitReadableEndsInTime(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	if err := sys.WaitReadable(a, 10*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wait: %v, want os.ErrDeadlineExceeded", err)
	}
}

// TestClockIsTheMachines: another process reads the same clock.
func TestClockIsTheMachines(t *testing.T) {
	t.Parallel()
	before := sys.ClockMonotonic()
	out, err := again(t, "clock").Output()
	after := sys.ClockMonotonic()
	if err != nil {
		t.Fatal(err)
	}
	var there int64
	if _, err := fmt.Sscan(string(out), &there); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if slack := int64(time.Millisecond); there < before-slack || there > after+slack {
		t.Errorf("the child read %d between %d and %d", there, before, after)
	}
}

func TestSealedMemfd(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	n, err := sys.MemfdCreate("test", int64(4*page))
	owned(t, n, err)
	if err := sys.WriteAt(n, []byte("baton"), int64(page)); err != nil {
		t.Fatal(err)
	}
	if err := sys.Seal(n, sys.SealShrink|sys.SealGrow); err != nil {
		t.Fatal(err)
	}
	if seals, err := sys.Seals(n); err != nil || seals != sys.SealShrink|sys.SealGrow {
		t.Errorf("seals %#x, %v", seals, err)
	}
	for _, size := range []int64{0, int64(8 * page)} {
		if err := syscall.Ftruncate(n, size); err != syscall.EPERM {
			t.Errorf("truncate to %d: %v, want EPERM", size, err)
		}
	}
	if size, err := sys.FileSize(n); size != int64(4*page) || err != nil {
		t.Errorf("size %d, %v", size, err)
	}
	b, err := sys.MmapShared(n, 4*page)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sys.MmapRead(n, 4*page)
	if err != nil {
		t.Fatal(err)
	}
	if string(r[page:page+5]) != "baton" {
		t.Errorf("mapped %q", r[page:page+5])
	}
	from, to, ok, err := sys.NextData(n, 0)
	if from != int64(page) || to != int64(2*page) || !ok || err != nil {
		t.Errorf("data at %d to %d, %v, %v, want the second page", from, to, ok, err)
	}
	b[3*page] = 1
	if from, _, ok, err = sys.NextData(n, to); from != int64(3*page) || !ok || err != nil {
		t.Errorf("data at %d, %v, %v, want the fourth page", from, ok, err)
	}
	if err := sys.PunchHole(n, int64(3*page), int64(page)); err != nil {
		t.Fatal(err)
	}
	if b[3*page] != 0 {
		t.Error("a punched page is not zero")
	}
	if err := errors.Join(sys.Munmap(b), sys.Munmap(r)); err != nil {
		t.Error(err)
	}
	a, _ := pair(t)
	if _, err := sys.Seals(a); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("seals of a socket: %v, want EINVAL", err)
	}
}

func TestPeer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, ip, whole string }{
		{"192.0.2.1:80", "192.0.2.1", "192.0.2.1:80"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1", "192.0.2.1:80"},
		{"[2001:db8::1]:65535", "2001:db8::1", "[2001:db8::1]:65535"},
		{"[::]:1", "::", "[::]:1"},
	} {
		p := sys.PeerFrom(netip.MustParseAddrPort(c.in))
		if got := string(p.AppendIP(nil)); got != c.ip {
			t.Errorf("%s: IP %s, want %s", c.in, got, c.ip)
		}
		if got := string(p.AppendTo(nil)); got != c.whole || p.Addr().String() != c.whole {
			t.Errorf("%s: %s and %s, want %s", c.in, got, p.Addr(), c.whole)
		}
	}
	if sys.PeerFrom(netip.AddrPort{}) != (sys.Peer{}) {
		t.Error("no address is not the zero Peer")
	}
}

func listen(t *testing.T, addr string, o sys.ListenOptions) (int, netip.AddrPort) {
	t.Helper()
	n, err := sys.ListenTCP(netip.MustParseAddrPort(addr), o)
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		testenv.NeedFeature(t, "IPv6", false, err)
	}
	owned(t, n, err)
	at, err := sys.LocalAddr(n)
	if err != nil {
		t.Fatal(err)
	}
	return n, at
}

func accept(t *testing.T, l int) (int, sys.Peer) {
	t.Helper()
	if err := sys.WaitReadable(l, testenv.Patience()); err != nil {
		t.Fatal(err)
	}
	n, peer, errno := sys.Accept4(l)
	if errno != 0 {
		t.Fatal(errno)
	}
	return owned(t, n, nil), peer
}

func TestAcceptTellsThePeer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, listen, dial string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 on a socket for both families", "[::]:0", "127.0.0.1"},
		{"IPv6 on a socket for both families", "[::]:0", "::1"},
		{"an IPv4 address in IPv6 form", "[::ffff:127.0.0.1]:0", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, at := listen(t, c.listen, sys.ListenOptions{})
			if _, _, errno := sys.Accept4(l); errno != syscall.EAGAIN {
				t.Errorf("accept of nobody: %v, want EAGAIN", errno)
			}
			client, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(c.dial), at.Port()).String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			n, peer := accept(t, l)
			if want := client.LocalAddr().String(); peer.Addr().String() != want {
				t.Errorf("peer %s, want %s", peer.Addr(), want)
			}
			if named, err := sys.Getpeername(n); named != peer || err != nil {
				t.Errorf("getpeername %v, %v, want %v", named, err, peer)
			}
			if nonblocking, closeOnExec := flags(t, n); !nonblocking || !closeOnExec {
				t.Errorf("non-blocking %v, close-on-exec %v, want both", nonblocking, closeOnExec)
			}
			if on, err := syscall.GetsockoptInt(n, syscall.IPPROTO_TCP, syscall.TCP_NODELAY); on == 0 || err != nil {
				t.Errorf("TCP_NODELAY %d, %v, want inherited", on, err)
			}
		})
	}
}

func TestListenWithoutIPIsEveryAddress(t *testing.T) {
	t.Parallel()
	n, err := sys.ListenTCP(netip.AddrPort{}, sys.ListenOptions{})
	owned(t, n, err)
	at, err := sys.LocalAddr(n)
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()).String())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}

func TestListenOnATakenPort(t *testing.T) {
	t.Parallel()
	_, at := listen(t, "127.0.0.1:0", sys.ListenOptions{})
	if _, err := sys.ListenTCP(at, sys.ListenOptions{}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second socket: %v, want EADDRINUSE", err)
	}
	_, at = listen(t, "127.0.0.1:0", sys.ListenOptions{ReusePort: true})
	n, err := sys.ListenTCP(at, sys.ListenOptions{ReusePort: true})
	owned(t, n, err)
	if _, err := sys.ListenTCP(netip.MustParseAddrPort("[fe80::1%nosuch]:0"), sys.ListenOptions{}); err == nil {
		t.Error("a zone that does not exist was accepted")
	}
}

// TestDropAllFilter: connections that wait are still accepted and work, new ones
// are not established.
func TestDropAllFilter(t *testing.T) {
	t.Parallel()
	l, at := listen(t, "127.0.0.1:0", sys.ListenOptions{})
	client, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := sys.WaitReadable(l, testenv.Patience()); err != nil {
		t.Fatal(err)
	}
	if err := sys.DropAllFilter(l); err != nil {
		t.Fatal(err)
	}
	late, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
	if err == nil {
		late.Close()
		t.Error("a connection was established behind the filter")
	}
	n, _ := accept(t, l)
	if _, err := client.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if err := sys.WaitReadable(n, testenv.Patience()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if m, errno := sys.Read(n, b); string(b[:m]) != "late" || errno != 0 {
		t.Errorf("the accepted connection brought %q, %v", b[:m], errno)
	}
	if _, _, errno := sys.Accept4(l); errno != syscall.EAGAIN {
		t.Errorf("accept behind the filter: %v, want EAGAIN", errno)
	}
}

func TestSocketOptions(t *testing.T) {
	t.Parallel()
	l, _ := listen(t, "127.0.0.1:0", sys.ListenOptions{})
	if err := errors.Join(sys.SetNoDelay(l, false), sys.SetDeferAccept(l, 1), sys.SetReusePort(l, true),
		sys.SetReuseAddr(l, true), sys.SetNonblock(l, true)); err != nil {
		t.Error(err)
	}
	a, _ := pair(t)
	if err := sys.SetSendBuffer(a, 20<<10); err != nil {
		t.Error(err)
	}
	if n, err := sys.SendBuffer(a); n != 40<<10 || err != nil {
		t.Errorf("send buffer %d, %v, want twice 20 KiB", n, err)
	}
	if n, err := sys.SocketError(a); n != 0 || err != nil {
		t.Errorf("pending error %d, %v", n, err)
	}
	if err := sys.SetNoDelay(a, true); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("TCP_NODELAY of a Unix socket: %v, want EOPNOTSUPP", err)
	}
	domain, kind, listening, err := sys.SocketKind(l)
	if domain != syscall.AF_INET || kind != syscall.SOCK_STREAM || !listening || err != nil {
		t.Errorf("listener: %d, %d, %v, %v", domain, kind, listening, err)
	}
	domain, kind, listening, err = sys.SocketKind(a)
	if domain != syscall.AF_UNIX || kind != syscall.SOCK_SEQPACKET || listening || err != nil {
		t.Errorf("pair: %d, %d, %v, %v", domain, kind, listening, err)
	}
	d, err := sys.Dup(a)
	owned(t, d, err)
	if _, closeOnExec := flags(t, d); !closeOnExec {
		t.Error("a duplicate survives exec")
	}
}

func TestPidfd(t *testing.T) {
	t.Parallel()
	start := func(what string) (*exec.Cmd, int, io.Closer) {
		c := again(t, what)
		stdin, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		n, err := sys.PidfdOpen(c.Process.Pid)
		return c, owned(t, n, err), stdin
	}
	end := func(c *exec.Cmd, n int) sys.Exit {
		if err := sys.WaitReadable(n, testenv.Patience()); err != nil {
			t.Fatal(err)
		}
		e, err := sys.WaitPidfd(n)
		if err != nil {
			t.Fatal(err)
		}
		if e.Pid != c.Process.Pid {
			t.Errorf("pid %d, want %d", e.Pid, c.Process.Pid)
		}
		_ = c.Process.Release()
		return e
	}
	c, n, stdin := start("exit")
	if e := end(c, n); e.Code != 37 || e.Signal != 0 || e.Dumped {
		t.Errorf("exit: %+v, want code 37", e)
	}
	stdin.Close()
	if err := sys.PidfdSignal(n, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("signal to a reaped process: %v, want ESRCH", err)
	}
	if _, err := sys.WaitPidfd(n); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("second wait: %v, want ECHILD", err)
	}
	c, n, stdin = start("wait")
	expectReadable(t, n, false)
	if err := sys.PidfdSignal(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := end(c, n); e.Signal != syscall.SIGKILL || e.Code != 0 {
		t.Errorf("kill: %+v, want SIGKILL", e)
	}
	stdin.Close()
	if _, err := sys.PidfdOpen(1 << 22); !errors.Is(err, syscall.ESRCH) && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("pidfd of nobody: %v", err)
	}
}

func TestFlock(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	first, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := sys.Flock(int(first.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := sys.Flock(int(second.Fd())); !errors.Is(err, sys.ErrLocked) {
		t.Errorf("second lock: %v, want ErrLocked", err)
	}
	first.Close()
	if err := sys.Flock(int(second.Fd())); err != nil {
		t.Errorf("lock after the first was closed: %v", err)
	}
}

func TestNofile(t *testing.T) {
	t.Parallel()
	out, err := again(t, "nofile").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if want := "10 77"; !strings.Contains(string(out), want) {
		t.Errorf("child says %q, want %q", out, want)
	}
}

// childNofile runs in a process of its own, because the limit is the process's.
func childNofile() int {
	hard, err := sys.RaiseNofile()
	soft, max, err2 := sys.Nofile()
	if err != nil || err2 != nil || soft != max || hard != max {
		fmt.Println("raise:", hard, soft, max, err, err2)
		return 1
	}
	if err := sys.SetNofile(10); err != nil {
		fmt.Println(err)
		return 1
	}
	opened := 0
	for {
		if _, err := sys.Dup(0); err != nil {
			if !errors.Is(err, syscall.EMFILE) {
				fmt.Println(err)
				return 1
			}
			break
		}
		opened++
	}
	if opened > 7 {
		fmt.Println("opened", opened, "under a limit of 10")
		return 1
	}
	soft, _, _ = sys.Nofile()
	fmt.Print(soft, " ")
	if err := sys.SetNofile(77); err != nil {
		fmt.Println(err)
		return 1
	}
	c := exec.Command("sh", "-c", "ulimit -n")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func TestGettid(t *testing.T) {
	t.Parallel()
	if sys.Gettid() <= 0 {
		t.Error("no thread number")
	}
}

func TestUnackedAndUnread(t *testing.T) {
	t.Parallel()
	l, at := listen(t, "127.0.0.1:0", sys.ListenOptions{})
	client, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	n, _ := accept(t, l)
	if got := sys.Unacked(n); got != 0 {
		t.Errorf("%d bytes before the first", got)
	}
	sent := 0
	for block := make([]byte, 64<<10); ; {
		w, errno := sys.Write(n, block)
		if errno == syscall.EAGAIN {
			break
		}
		if errno != 0 || sent > 1<<30 {
			t.Fatal(errno, sent)
		}
		sent += w
	}
	if got := sys.Unread(n); got != 0 {
		t.Errorf("%d bytes are unread before the first", got)
	}
	if _, err := client.Write([]byte("12345")); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "five bytes are unread", func() bool { return sys.Unread(n) == 5 })
	full := sys.Unacked(n)
	if full <= 0 || full > sent {
		t.Errorf("%d bytes of %d", full, sent)
	}
	if _, err := io.ReadFull(client, make([]byte, sent)); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "all is acknowledged", func() bool { return sys.Unacked(n) == 0 })
	a, _ := pair(t)
	if got := sys.Unacked(a) + sys.Unacked(-1) + sys.Unread(-1); got != 0 {
		t.Errorf("%d bytes of what is no TCP socket", got)
	}
}
