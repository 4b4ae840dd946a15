//go:build !race

package reactor

import (
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
)

const (
	idleConns = 10_000
	// idleHeapMax bounds the Go heap that an idle connection costs its owner, in
	// bytes, a share of all that the loops hold at all included.
	idleHeapMax = 1536
)

// An idle connection costs little memory of its own: at the gateway, which
// has it until it asks for something, and at the worker that has answered it.
func TestIdleConnectionsAreCheap(t *testing.T) {
	conns := idleConns
	// Each is three descriptors here: the client's, the worker's, and the
	// gateway's, which retains it.
	need := uint64(3*conns + 1000)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < need {
		raised := syscall.Rlimit{Cur: need, Max: max(need, limit.Max)}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
			conns = (int(limit.Cur) - 1000) / 3
			t.Logf("%d connections: the limit on open files cannot be raised: %v", conns, err)
		} else {
			t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
		}
	}
	heap := func() int {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.GC() // what the first one found in pools
		goruntime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	clients := make([]rawClient, conns)
	for i := range clients {
		clients[i].fd = -1
	}
	in := make([]byte, 4<<10)
	before := heap()
	p := newPairWith(t, pairOptions{conns: conns + 1, connsMax: conns + 1, timeouts: Timeouts{
		Head: 4 * testenv.Patience(), KeepAlive: 4 * testenv.Patience(),
	}})
	defer func() {
		for i := range clients {
			if clients[i].fd >= 0 {
				sys.CloseRaw(clients[i].fd)
			}
		}
		testenv.Until(t, "all have ended", func() bool { return p.front.Stats().Open == 0 })
	}()
	addr := syscall.SockaddrInet4{Port: int(p.front.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}
	for i := range clients {
		clients[i] = rawClient{t: t, addr: addr, in: in}
		clients[i].connect()
	}
	testenv.Until(t, "all are accepted", func() bool { return p.front.Stats().Open == conns })
	p.settle()
	atGateway := (heap() - before) / conns
	request := []byte(post("/echo", "[1]"))
	for i := range clients {
		clients[i].do(request, []byte("[1]"))
	}
	testenv.Until(t, "all are idle at the worker", func() bool {
		idle := 0
		for slot := range uint32(p.board.Conns()) {
			if p.board.Conn(slot).Load().State() == ipc.Idle {
				idle++
			}
		}
		return idle == conns
	})
	// What was kept of their requests is let go at the next tick.
	testenv.Until(t, "nothing is kept", func() bool {
		kept := 0
		for i := range p.front.ledger.entries {
			if p.front.ledger.entries[i].kept.Load() != nil {
				kept++
			}
		}
		return kept == 0
	})
	atWorker := (heap() - before) / conns
	t.Logf("%d idle connections: %d bytes of heap each at the gateway, %d at the worker and the gateway together", conns, atGateway, atWorker)
	if atGateway > idleHeapMax || atWorker > idleHeapMax {
		t.Errorf("want at most %d", idleHeapMax)
	}
}

// A client gets the memory for the body that it sends, not for the one that it
// announces.
func TestAnnouncedBodiesAreCheap(t *testing.T) {
	// Of these bytes a call, with its head and its fields, is the greater part.
	const conns, most = 200, 24 << 10
	p := newPairWith(t, pairOptions{conns: conns + 1, connsMax: conns + 1})
	heap := func() int {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	clients := make([]*testenv.Conn, conns)
	for i := range clients {
		clients[i] = p.connect(t, true)
	}
	before := heap()
	body := strings.Repeat("x", bodyBufferMax)
	head := strings.TrimSuffix(post("/sink", body), body)
	for _, c := range clients {
		c.Send(t, head)
	}
	waiting := func(have int) {
		t.Helper()
		testenv.Until(t, "all wait for the rest", func() bool {
			n := 0
			_ = p.backs[0].back.ask(func() {
				for _, c := range p.backs[0].back.conns {
					if c != nil && c.phase == phaseBody && len(c.in) == len(head)+have {
						n++
					}
				}
			})
			return n == conns
		})
	}
	waiting(0)
	if n := (heap() - before) / conns; n > most {
		t.Errorf("%d bytes for each body of which nothing has come", n)
	}
	for have := 0; have < len(body); {
		n := min(10_000, len(body)-have)
		for _, c := range clients {
			c.Send(t, body[have:have+n])
		}
		if have += n; have < len(body) {
			waiting(have)
		}
	}
	for _, c := range clients {
		want(t, c.Response(t), 200, "[65536]")
	}
}
