//go:build !race

package reactor

import (
	"bytes"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/runtime"
)

// rawClient is a client that allocates nothing.
type rawClient struct {
	t    *testing.T
	addr syscall.SockaddrInet4
	fd   int
	in   []byte
}

func (c *rawClient) connect() {
	n, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Connect(n, &c.addr)
	}
	if err == nil {
		err = sys.SetNonblock(n, true)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.fd = n
}

// do sends a request and reads until the answer ends with tail.
func (c *rawClient) do(request, tail []byte) {
	for sent := 0; sent < len(request); {
		n, errno := sys.Write(c.fd, request[sent:])
		if errno == syscall.EAGAIN {
			if _, err := sys.Poll(c.fd, sys.PollOut, 10*time.Second); err != nil {
				c.t.Fatal(err)
			}
		} else if errno != 0 {
			c.t.Fatal(errno)
		}
		sent += max(n, 0)
	}
	for have := 0; ; {
		if _, err := sys.Poll(c.fd, sys.PollIn, 10*time.Second); err != nil {
			c.t.Fatal(err)
		}
		n, errno := sys.Read(c.fd, c.in[have:])
		if errno == syscall.EAGAIN {
			continue
		}
		if errno != 0 || n == 0 {
			c.t.Fatalf("%v after %q", errno, c.in[:have])
		}
		have += n
		if bytes.HasSuffix(c.in[:have], tail) {
			return
		}
	}
}

// The way of a request allocates nothing, from the client's bytes to the
// answer: parse, match, decide, run, respond and write on a worker's loop, and
// before that accept, parse, match, decide, donate and adopt. The count is that
// of the whole process per request, so it holds for every loop at once.
func TestAllocs(t *testing.T) {
	answer := []byte(`{"a":1}`)
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{
		"answer": {inline: true, run: func(inv *runtime.Invocation) runtime.Result {
			_, _ = inv.Stdout.Write(answer)
			return runtime.Result{}
		}},
		"cgi": {inline: true, run: func(inv *runtime.Invocation) runtime.Result {
			_, _ = inv.Stdout.Write(cgiAnswer)
			return runtime.Result{}
		}},
		"plain": {inline: true, run: func(inv *runtime.Invocation) runtime.Result {
			_, _ = inv.Stdout.Write(plain)
			return runtime.Result{}
		}},
	}})
	client := &rawClient{t: t, in: make([]byte, 64<<10)}
	client.addr = syscall.SockaddrInet4{Port: int(p.front.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}
	for _, test := range []struct {
		name, request, tail string
	}{
		{"an answer as it is", get("/answer"), `{"a":1}`},
		{"wrapped", get("/plain"), `"}`},
		{"a header block", get("/cgi"), "\r\n\r\nbody"},
		{"a body", post("/echo", `{"n":1}`), `{"n":1}`},
		{"a browser's head", "GET /answer?q=1 HTTP/1.1\r\nHost: t\r\n" + strings.Repeat("Accept-Language: en-GB,en;q=0.5\r\n", 9) + "\r\n", `{"a":1}`},
		{"not found", get("/nowhere"), `"}`},
		{"beside the loop", post("/beside", `{"n":1}`), `{"n":1}`},
		{"pipelined", get("/answer") + get("/nowhere") + get("/cgi"), "\r\n\r\nbody"},
	} {
		request, tail := []byte(test.request), []byte(test.tail)
		t.Run("kept alive: "+test.name, func(t *testing.T) {
			client.connect()
			defer sys.CloseRaw(client.fd)
			for range 10 {
				client.do(request, tail)
			}
			if n := testing.AllocsPerRun(500, func() { client.do(request, tail) }); n != 0 {
				t.Errorf("%v allocations per request", n)
			}
		})
		t.Run("donated: "+test.name, func(t *testing.T) {
			once := func() {
				client.connect()
				client.do(request, tail)
				sys.CloseRaw(client.fd)
			}
			for range 300 {
				once()
			}
			if n := testing.AllocsPerRun(500, once); n != 0 {
				t.Errorf("%v allocations per connection", n)
			}
		})
	}
}

// Large bodies and answers go through buffers that were there before.
func TestLargeBodiesAndAnswersAllocateLittle(t *testing.T) {
	piece := make([]byte, 16<<10)
	large := []byte(`["` + strings.Repeat("x", 100<<10) + `"]`)
	p := newPairWith(t, pairOptions{maxBody: 64 << 20, fakes: map[string]*fake{
		"large": {inline: true, run: func(inv *runtime.Invocation) runtime.Result {
			_, _ = inv.Stdout.Write(large)
			return runtime.Result{}
		}},
		"large-beside": {run: func(inv *runtime.Invocation) runtime.Result {
			_, _ = inv.Stdout.Write(large[:60<<10])
			_, _ = inv.Stdout.Write(large[60<<10:])
			return runtime.Result{}
		}},
		"count": {run: func(inv *runtime.Invocation) runtime.Result {
			for {
				if _, err := inv.More.Read(piece); err != nil {
					break
				}
			}
			_, _ = inv.Stdout.Write(cgiAnswer)
			return runtime.Result{}
		}},
	}})
	client := &rawClient{t: t, in: make([]byte, 1<<20)}
	client.addr = syscall.SockaddrInet4{Port: int(p.front.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}
	for _, test := range []struct {
		name, request, tail string
	}{
		{"an answer", get("/large"), `"]`},
		{"an answer in pieces, beside the loop", get("/large-beside"), `"]`},
		{"a body", post("/count", string(bytes.Repeat(large, 5))), "\r\n\r\nbody"},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, tail := []byte(test.request), []byte(test.tail)
			client.connect()
			defer sys.CloseRaw(client.fd)
			var before, after goruntime.MemStats
			const warm, requests = 20, 200
			for i := range warm + requests {
				if i == warm {
					goruntime.ReadMemStats(&before)
				}
				client.do(request, tail)
			}
			goruntime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) / requests; n > 8<<10 {
				t.Errorf("%d bytes a request", n)
			}
		})
	}
}

var (
	plain     = []byte("hello")
	cgiAnswer = []byte("Status: 201\r\nContent-Type: text/plain\r\nX-A: b\r\n\r\nbody")
)

// idleBytesMax is what an idle connection may cost its owner, of Go heap.
const idleBytesMax = 1536

// Ten thousand idle connections, each of which has had its request: what they
// cost the gateway, which retains them, and the worker, which owns them, both
// together.
func TestIdleConnectionMemory(t *testing.T) {
	limit, err := sys.RaiseNofile()
	if err != nil {
		t.Fatal(err)
	}
	// A connection is three descriptors here: the client's, the gateway's and
	// the worker's.
	n := min(10_000, int(limit-512)/3)
	heap := func() uint64 {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.GC()
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	fds := make([]int, 0, n)
	before := heap()
	p := newPairWith(t, pairOptions{conns: n + 1})
	client := &rawClient{t: t, in: make([]byte, 64<<10)}
	client.addr = syscall.SockaddrInet4{Port: int(p.front.Addr().Port()), Addr: [4]byte{127, 0, 0, 1}}
	request, tail := []byte(post("/echo", "[1]")), []byte("[1]")
	empty := heap()
	for range n {
		client.connect()
		fds = append(fds, client.fd)
		client.do(request, tail)
	}
	full := heap()
	if got := p.board.Worker(0).Conns(); got != int32(n) {
		t.Errorf("the worker owns %d connections, want %d", got, n)
	}
	t.Logf("%d connections: %d bytes each, and %d bytes for the ledger's room for each", n, (full-empty)/uint64(n), (empty-before)/uint64(n))
	if each := (full - before) / uint64(n); each > idleBytesMax {
		t.Errorf("%d bytes for each connection, want at most %d", each, idleBytesMax)
	}
	for _, fd := range fds {
		// A reset, so that no port stays behind in TIME_WAIT.
		_ = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		sys.CloseRaw(fd)
	}
	testenv.Until(t, "all have ended", func() bool { return p.front.Stats().Retained == 0 })
}
