package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// load is clients that send requests with a token each and hold every answer
// against it: one right answer, or a documented error, or a connection that
// ends visibly. Anything else is a fault.
type load struct {
	addr    string
	stopped chan struct{}
	clients sync.WaitGroup

	right   atomic.Int64 // 200 with the token
	refused atomic.Int64 // 502 or 503, as documented
	cut     atomic.Int64 // connections that ended before an answer
	unheard atomic.Int64 // connections that were not accepted: the gateway was gone

	mu     sync.Mutex
	faults []string
}

// faultsMax bounds the faults that are kept: the first ones tell.
const faultsMax = 10

func (l *load) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < faultsMax {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

func (l *load) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.faults) > 0
}

func (l *load) isStopped() bool {
	select {
	case <-l.stopped:
		return true
	default:
		return false
	}
}

// startLoad starts clients that keep their connections and send up to four
// requests at once, and others that use each connection once.
func startLoad(addr string, keeping, short int, seed uint64) *load {
	l := &load{addr: addr, stopped: make(chan struct{})}
	for i := range keeping + short {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		l.clients.Go(func() {
			for n := 0; !l.isStopped(); n++ {
				l.connection(fmt.Sprintf("%d-%d", i, n), random, i < keeping)
			}
		})
	}
	return l
}

// stop ends the load and reports its faults.
func (l *load) stop(t *testing.T) {
	t.Helper()
	close(l.stopped)
	l.clients.Wait()
	t.Logf("%d right answers, %d documented errors, %d connections cut, %d not accepted",
		l.right.Load(), l.refused.Load(), l.cut.Load(), l.unheard.Load())
	for _, fault := range l.faults {
		t.Error(fault)
	}
}

// connection uses one connection until it ends, the load stops, or after one
// batch of requests when it is not kept.
func (l *load) connection(name string, random *rand.Rand, kept bool) {
	c, err := testenv.Connect(l.addr)
	if err != nil {
		l.unheard.Add(1)
		<-time.After(20 * time.Millisecond) // nobody listens: no busy loop of refused connections
		return
	}
	defer c.Close()
	for batch := 0; ; batch++ {
		n := 1 + random.IntN(4)
		last := !kept || l.isStopped()
		var requests strings.Builder
		for i := range n {
			token := fmt.Sprintf("%s-%d-%d", name, batch, i)
			closing := ""
			if last && i == n-1 {
				closing = "Connection: close\r\n"
			}
			body := `{"name":"` + token + `"}`
			fmt.Fprintf(&requests, "POST /api/hello HTTP/1.1\r\nHost: t\r\nX-Request-Id: %s\r\n%sContent-Length: %d\r\n\r\n%s",
				token, closing, len(body), body)
		}
		text := requests.String()
		// In two pieces, cut anywhere: a request may be half here when its worker
		// is lost.
		at := random.IntN(len(text))
		_ = c.SetDeadline(time.Now().Add(testenv.Patience()))
		if _, err := io.WriteString(c.Conn, text[:at]); err == nil {
			_, _ = io.WriteString(c.Conn, text[at:])
		}
		for i := range n {
			if !l.answer(c, fmt.Sprintf("%s-%d-%d", name, batch, i), last && i == n-1) {
				return
			}
		}
		if last {
			return
		}
	}
}

// answer checks one answer; false: the connection is over.
func (l *load) answer(c *testenv.Conn, token string, closing bool) bool {
	r, err := c.ReadResponse("POST")
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.fault("%s: neither an answer nor an end within %v", token, testenv.Patience())
		return false
	case err != nil:
		l.cut.Add(1) // EOF, a reset, or a response that was cut
		return false
	}
	id := r.Header.Get("X-Request-Id")
	switch r.Status {
	case 200:
		if want := `{"message":"Hello, ` + token + `","runtime":"wasm","endpoint":"/api/hello"}`; string(r.Body) != want || id != token {
			l.fault("%s: the answer of another request: %q with id %q", token, r.Body, id)
			return false
		}
		l.right.Add(1)
	case 502, 503:
		var e struct{ Reason, RequestID string }
		if err := json.Unmarshal(r.Body, &e); err != nil || e.RequestID != id ||
			!slices.Contains([]string{"worker_lost", "no_worker", "draining", "capacity_exceeded"}, e.Reason) {
			l.fault("%s: %d with %q", token, r.Status, r.Body)
			return false
		}
		if id != token {
			l.fault("%s: %d for the request %q", token, r.Status, id)
			return false
		}
		l.refused.Add(1)
		if !r.Close {
			return true
		}
	default:
		l.fault("%s: status %d, %.200q", token, r.Status, r.Body)
		return false
	}
	if !r.Close {
		return !closing
	}
	// Behind the last answer comes the end, and nothing else: not two answers.
	if rest, err := c.ReadResponse("POST"); err == nil {
		l.fault("%s: a second answer behind the last: %d %.200q", token, rest.Status, rest.Body)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		l.fault("%s: the connection does not end after `Connection: close`", token)
	}
	return false
}

// processes are the workers that `baton status` shows, and what they have.
type processes struct {
	Connections int `json:"connections"`
	Queued      int `json:"queued"`
	Workers     []struct {
		Pid      int    `json:"pid"`
		State    string `json:"state"`
		Inflight int    `json:"inflight"`
		Conns    int    `json:"conns"`
		Restarts int    `json:"restarts"`
	} `json:"workers"`
}

func statusOf(t testing.TB, s *testenv.Server) (p processes, ok bool) {
	t.Helper()
	out, code := s.Baton(t, "status", "--json")
	return p, code == 0 && json.Unmarshal([]byte(out), &p) == nil
}

// awaitRest waits until nothing is open and nothing runs, all n workers are
// ready, and no process has more descriptors than idle has for its kind.
func awaitRest(t testing.TB, s *testenv.Server, n int, idle idleDescriptors) {
	t.Helper()
	var last string
	ok := false
	for end := time.Now().Add(2 * testenv.Patience()); !ok && time.Now().Before(end); {
		last, ok = restless(t, s, n, idle)
	}
	if !ok {
		t.Fatalf("the server does not come to rest: %s", last)
	}
}

// idleDescriptors are how many a gateway and a worker have at rest.
type idleDescriptors struct{ gateway, worker int }

func restless(t testing.TB, s *testenv.Server, n int, idle idleDescriptors) (why string, rest bool) {
	t.Helper()
	p, ok := statusOf(t, s)
	if !ok || len(p.Workers) != n || p.Connections != 0 || p.Queued != 0 {
		return fmt.Sprintf("status %+v", p), false
	}
	if gateway := testenv.Descriptors(s.Pid); idle.gateway > 0 && len(gateway) > idle.gateway {
		return fmt.Sprintf("the gateway has %d descriptors, %d at first: %q", len(gateway), idle.gateway, gateway), false
	}
	for _, w := range p.Workers {
		switch {
		case w.Pid == 0 || w.State == "starting" || w.State == "lost" || w.Inflight != 0 || w.Conns != 0:
			return fmt.Sprintf("worker %+v", w), false
		case idle.worker > 0 && len(testenv.Descriptors(w.Pid)) > idle.worker:
			return fmt.Sprintf("worker %d has %q, %d at first", w.Pid, testenv.Descriptors(w.Pid), idle.worker), false
		}
	}
	return "", true
}

// atRest measures a server that has served a few requests and rests.
func atRest(t testing.TB, s *testenv.Server, workers int) idleDescriptors {
	t.Helper()
	l := startLoad(s.Addr, 4, 2, 1)
	testenv.Until(t, "the server is warm", func() bool { return l.right.Load() > 50 })
	close(l.stopped)
	l.clients.Wait()
	awaitRest(t, s, workers, idleDescriptors{})
	idle := idleDescriptors{gateway: len(testenv.Descriptors(s.Pid))}
	for pid := range workersOf(t, s) {
		idle.worker = max(idle.worker, len(testenv.Descriptors(pid)))
	}
	return idle
}

func workersOf(t testing.TB, s *testenv.Server) map[int]bool {
	t.Helper()
	pids := map[int]bool{}
	if p, ok := statusOf(t, s); ok {
		for _, w := range p.Workers {
			if w.Pid != 0 {
				pids[w.Pid] = true
			}
		}
	}
	return pids
}

func planSeed(t testing.TB) (uint64, *rand.Rand) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return seed, rand.New(rand.NewPCG(seed, 0))
}

// Workers die at random moments of a load of kept, pipelined and short
// connections. Every request gets one right answer, or an end that its client
// sees, and afterwards nothing is left of it.
func TestChaosKilledWorkers(t *testing.T) {
	t.Parallel()
	const kills, workers, keeping, short = 10, 3, 12, 4
	seed, random := planSeed(t)
	s := testenv.Start(t, testenv.Options{Workers: workers})
	idle := atRest(t, s, workers)
	l := startLoad(s.Addr, keeping, short, seed)
	for range kills {
		// A number of answers and not a time: the plan means the same on a slow
		// machine.
		goal := l.right.Load() + 50 + random.Int64N(400)
		testenv.Until(t, "the load goes on", func() bool { return l.right.Load() >= goal || l.failed() })
		pids := slices.Sorted(maps.Keys(workersOf(t, s)))
		if len(pids) == 0 {
			continue // all are being replaced
		}
		_ = syscall.Kill(pids[random.IntN(len(pids))], syscall.SIGKILL) // it may just be gone: ESRCH
	}
	l.stop(t)
	// A worker's death ends at most the connections that had a request there.
	if most := int64(kills * (keeping + short)); l.cut.Load()+l.refused.Load() > most {
		t.Errorf("%d connections cut and %d errors: more than the %d that %d kills can cost",
			l.cut.Load(), l.refused.Load(), most, kills)
	}
	if l.unheard.Load() > 0 {
		t.Errorf("%d connections were not accepted although the gateway lives", l.unheard.Load())
	}
	awaitRest(t, s, workers, idle)
	r, err := testenv.Get(s.Addr, "/ping")
	if err != nil || r.Status != 200 {
		t.Errorf("afterwards: %d, %v", r.Status, err)
	}
}

// The gateway is killed at a random moment under load, and at once another one
// serves the same data at the same address.
func TestChaosKilledGateways(t *testing.T) {
	t.Parallel()
	const rounds, workers = 3, 2
	seed, random := planSeed(t)
	s := testenv.Start(t, testenv.Options{Workers: workers})
	l := startLoad(s.Addr, 6, 3, seed)
	for range rounds {
		goal := l.right.Load() + 50 + random.Int64N(300)
		testenv.Until(t, "the load goes on", func() bool { return l.right.Load() >= goal || l.failed() })
		orphans := workersOf(t, s)
		s.Signal(syscall.SIGKILL)
		s.Wait(t)
		s = testenv.Start(t, testenv.Options{Data: s.Data, Listen: s.Addr, Workers: workers})
		for pid := range orphans {
			testenv.Until(t, fmt.Sprintf("worker %d of the killed gateway has exited", pid), func() bool {
				return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
			})
		}
	}
	goal := l.right.Load() + 50
	testenv.Until(t, "the last one serves", func() bool { return l.right.Load() >= goal })
	l.stop(t)
	awaitRest(t, s, workers, idleDescriptors{})
}

// Many short connections, some of which leave without a word, in the middle of
// a request, with a reset, or half-closed.
func TestChaosRudeClients(t *testing.T) {
	t.Parallel()
	const workers, clients = 2, 8
	each := 600
	seed, _ := planSeed(t)
	s := testenv.Start(t, testenv.Options{Workers: workers})
	idle := atRest(t, s, workers)
	var wg sync.WaitGroup
	var half, halfAnswered atomic.Int64
	for i := range clients {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for range each {
				c, err := net.DialTimeout("tcp", s.Addr, testenv.Patience())
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				tcp := c.(*net.TCPConn)
				_ = c.SetDeadline(time.Now().Add(testenv.Patience()))
				request := post("/api/hello", `{"name":"rude"}`)
				switch random.IntN(5) {
				case 0: // not a word
				case 1: // a part of a request
					_, _ = io.WriteString(c, request[:random.IntN(len(request))])
				case 2: // a request, and gone with a reset
					_, _ = io.WriteString(c, request)
					_ = tcp.SetLinger(0)
				case 3: // a request, and gone in order
					_, _ = io.WriteString(c, request+request)
				case 4: // half-closed: an answer is due
					_, _ = io.WriteString(c, request)
					_ = tcp.CloseWrite()
					half.Add(1)
					if answer, err := io.ReadAll(c); err == nil && strings.Contains(string(answer), "Hello, rude") {
						halfAnswered.Add(1)
					}
				}
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	if half.Load() != halfAnswered.Load() {
		t.Errorf("%d of %d half-closed requests were answered", halfAnswered.Load(), half.Load())
	}
	awaitRest(t, s, workers, idle)
}
