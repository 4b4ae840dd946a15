//go:build !race

package sys_test

import (
	"net/netip"
	"testing"

	"baton/internal/sys"
)

// TestHotCallsAllocateNothing: the number is allocations per call.
func TestHotCallsAllocateNothing(t *testing.T) {
	a, b := pair(t)
	l, _ := listen(t, "127.0.0.1:0", sys.ListenOptions{})
	e, err := sys.Eventfd()
	owned(t, e, err)
	peer := sys.PeerFrom(netip.MustParseAddrPort("[2001:db8::1]:80"))
	p, room, text := make([]byte, 64), make([]byte, 128), make([]byte, 0, 64)
	parts := [][]byte{p[:8], p[8:16]}
	fds := make([]int32, 2)
	for _, c := range []struct {
		name string
		call func()
	}{
		{"Read", func() { sys.Read(a, p) }},
		{"Write and Read", func() { sys.Write(a, p[:4]); sys.Read(b, p) }},
		{"Accept4", func() { sys.Accept4(l) }},
		{"Shutdown", func() { _ = sys.Shutdown(l, 77) }},
		{"Eventfd", func() { sys.EventfdSignal(e); sys.EventfdDrain(e) }},
		{"SendMsg and RecvMsg", func() {
			fds[0], fds[1] = int32(a), int32(b)
			sys.SendMsg(a, parts, sys.PutRights(room, fds))
			_, m, _, _ := sys.RecvMsg(b, p, room)
			for _, n := range sys.Rights(fds[:0], room[:m]) {
				sys.CloseRaw(int(n))
			}
		}},
		{"Peer", func() { text = peer.AppendTo(text[:0]) }},
		{"ClockMonotonic", func() { sys.ClockMonotonic() }},
		{"SocketKind", func() { sys.SocketKind(a) }},
	} {
		if n := testing.AllocsPerRun(100, c.call); n != 0 {
			t.Errorf("%s: %v allocations, want 0", c.name, n)
		}
	}
}

func BenchmarkClockMonotonic(b *testing.B) {
	for b.Loop() {
		sys.ClockMonotonic()
	}
}
