package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// workers are the pids of the workers that are ready now.
func workers(t testing.TB, s *testenv.Server) map[int]bool {
	t.Helper()
	out, code := s.Baton(t, "status", "--json")
	if code != 0 {
		t.Fatalf("baton status: exit %d: %s", code, out)
	}
	var status struct {
		Workers []struct {
			Pid   int    `json:"pid"`
			State string `json:"state"`
		} `json:"workers"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatalf("baton status --json: %v in %s", err, out)
	}
	pids := map[int]bool{}
	for _, w := range status.Workers {
		if w.Pid != 0 && (w.State == "ready" || w.State == "idle" || w.State == "busy") {
			pids[w.Pid] = true
		}
	}
	return pids
}

func onlyWorker(t testing.TB, s *testenv.Server) int {
	t.Helper()
	pids := workers(t, s)
	if len(pids) != 1 {
		t.Fatalf("workers %v, want one", pids)
	}
	for pid := range pids {
		return pid
	}
	return 0
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill worker %d: %v", pid, err)
	}
	// A thread that runs dies only when the kernel gets hold of it: until then it
	// may still read a request.
	awaitProcess(t, pid, "ZX")
}

// awaitProcess waits until a process is in one of the states of proc(5), or gone:
// a signal takes effect when the kernel gets hold of the process, not before.
func awaitProcess(t testing.TB, pid int, states string) {
	t.Helper()
	testenv.Until(t, fmt.Sprintf("process %d is in one of the states %s", pid, states), func() bool {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return true
		}
		for _, thread := range threads {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread.Name()))
			if err != nil {
				continue
			}
			if i := strings.LastIndex(string(stat), ") "); i < 0 || !strings.ContainsRune(states, rune(stat[i+2])) {
				return false
			}
		}
		return true
	})
}

// Idle connections of a killed worker go on working on the same sockets: also
// more of them than requests may wait, while their only worker is replaced.
func TestKilledWorkerIdleConnections(t *testing.T) {
	t.Parallel()
	for _, n := range []int{100, 2000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := testenv.Start(t, testenv.Options{Workers: 1})
			conns := make([]*testenv.Conn, n)
			for i := range conns {
				conns[i] = testenv.Dial(t, s.Addr)
				conns[i].Send(t, get("/ping"))
				want(t, conns[i].Response(t), 200, "pong")
			}
			kill(t, onlyWorker(t, s))
			for i, c := range conns {
				c.Send(t, get("/ping"))
				r, err := c.ReadResponse("GET")
				if err != nil || r.Status != 200 {
					t.Fatalf("connection %d after the kill: status %d, %v", i, r.Status, err)
				}
			}
		})
	}
}

// A request that was running when its worker died is answered 502, with its id.
func TestKilledWorkerRunningRequest(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	c := testenv.Dial(t, s.Addr)
	head, _ := unhurried("X-Request-Id: running-1\r\n")
	c.Send(t, head)
	awaitInflight(t, s, 1)
	kill(t, onlyWorker(t, s))
	r := c.Response(t)
	want(t, r, 502, `"requestId":"running-1"`)
	want(t, r, 502, `"component":"worker"`)
	c.WantEnd(t)
	other := testenv.Dial(t, s.Addr)
	other.Send(t, get("/ping"))
	want(t, other.Response(t), 200, "pong")
}

// unhurried is a request that runs until its body comes, however slow the
// machine is: the body is longer than what is gathered before a function runs.
func unhurried(fields string) (head, body string) {
	body = `["` + strings.Repeat("b", 100_000) + `"]`
	return fmt.Sprintf("POST /p/echo HTTP/1.1\r\nHost: t\r\n%sContent-Length: %d\r\n\r\n", fields, len(body)), body
}

// awaitInflight waits until the workers run n requests in all.
func awaitInflight(t testing.TB, s *testenv.Server, n int) {
	t.Helper()
	testenv.Until(t, fmt.Sprintf("%d requests run", n), func() bool {
		out, _ := s.Baton(t, "status", "--json")
		var status struct {
			Workers []struct {
				Inflight int `json:"inflight"`
			} `json:"workers"`
		}
		if json.Unmarshal([]byte(out), &status) != nil {
			return false
		}
		sum := 0
		for _, w := range status.Workers {
			sum += w.Inflight
		}
		return sum == n
	})
}

// Connections that were donated to a worker which never adopts them are served
// by its successor.
func TestKilledWorkerDonatedConnections(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	pid := onlyWorker(t, s)
	stop(t, pid)
	conns := make([]*testenv.Conn, 20)
	for i := range conns {
		conns[i] = testenv.Dial(t, s.Addr)
		conns[i].Send(t, get("/ping"))
	}
	conns[0].WantSilence(t, 100*time.Millisecond)
	kill(t, pid)
	for i, c := range conns {
		r, err := c.ReadResponse("GET")
		if err != nil || r.Status != 200 {
			t.Fatalf("connection %d: status %d, %v", i, r.Status, err)
		}
	}
}

// A response that was half sent when its worker died is cut, not mixed.
func TestKilledWorkerRespondingRequest(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	c := testenv.Dial(t, s.Addr)
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	c.Send(t, get("/p/size?n=9000000"))
	first := make([]byte, 1000)
	if _, err := io.ReadFull(c.Conn, first); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(first), "HTTP/1.1 200 OK\r\n") {
		t.Fatalf("begin of the response: %.100q", first)
	}
	kill(t, onlyWorker(t, s))
	rest, err := io.ReadAll(c.Conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if len(rest) >= 9_000_000 {
		t.Error("the whole response arrived: the worker was not killed while responding")
	}
	if strings.Contains(string(rest), "HTTP/1.1") {
		t.Error("a second answer follows the cut one")
	}
}

// A request of which a part was read when its worker died is closed.
func TestKilledWorkerReadingRequest(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	c := testenv.Dial(t, s.Addr)
	c.Send(t, get("/ping"))
	want(t, c.Response(t), 200, "pong")
	pid := onlyWorker(t, s)
	other := testenv.Dial(t, s.Addr)
	c.Send(t, "GET /ping HTTP/1.1\r\nHo")
	// One loop reads what has come, the first to come first: when the other
	// connection is answered, the part was read.
	for range 3 {
		other.Send(t, get("/ping"))
		want(t, other.Response(t), 200, "pong")
	}
	kill(t, pid)
	c.WantEnd(t)
}

// A stopped worker is found by its heartbeat and replaced. It is wholly stopped
// before the request comes: a thread that still ran could take it up, and then
// 502 is the true answer.
func TestStalledWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1, Args: []string{"--stall", "3s"}})
	c := testenv.Dial(t, s.Addr)
	c.Send(t, get("/ping"))
	want(t, c.Response(t), 200, "pong")
	stop(t, onlyWorker(t, s))
	c.Send(t, get("/ping"))
	want(t, c.Response(t), 200, "pong")
}

// Short connections leave no descriptor behind in any process.
func TestShortConnectionsLeaveNothing(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 2})
	request := "GET /ping HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
	round := func(n int) {
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 8 {
			wg.Go(func() {
				for range n / 8 {
					if r, err := testenv.Do(s.Addr, request); err != nil || r.Status != 200 {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if failed.Load() > 0 {
			t.Fatalf("%d of %d requests failed", failed.Load(), n)
		}
	}
	count := func() map[int]int {
		n := map[int]int{s.Pid: len(testenv.Descriptors(s.Pid))}
		for pid := range workers(t, s) {
			n[pid] = len(testenv.Descriptors(pid))
		}
		return n
	}
	round(64)
	before := count()
	round(1000)
	testenv.Until(t, "the descriptors are as few as before", func() bool {
		for pid, n := range count() {
			if n > before[pid] {
				return false
			}
		}
		return true
	})
}

// A control request on a connection that a worker has: it comes back.
func TestControlRequestComesBack(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 2})
	auth := "GET /system/functions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer " + s.Token(t) + "\r\n\r\n"
	fresh := testenv.Dial(t, s.Addr)
	fresh.Send(t, auth)
	want(t, fresh.Response(t), 200, "/api/hello")
	fresh.WantEnd(t)
	later := testenv.Dial(t, s.Addr)
	later.Send(t, get("/ping")+get("/ping")+auth)
	want(t, later.Response(t), 200, "pong")
	want(t, later.Response(t), 200, "pong")
	want(t, later.Response(t), 200, "/api/hello")
	later.WantEnd(t)
	denied := testenv.Dial(t, s.Addr)
	denied.Send(t, get("/ping")+get("/system/functions"))
	want(t, denied.Response(t), 200, "pong")
	want(t, denied.Response(t), 401, "")
}

// /readyz says yes while a worker is ready, and at no other time; /healthz always.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	says := func(path string, status int) bool {
		r, err := testenv.Get(s.Addr, path)
		return err == nil && r.Status == status
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if !says(path, 200) {
			t.Errorf("%s: not 200", path)
		}
	}
	testenv.Until(t, "/readyz says no when the only worker is gone", func() bool {
		for _, pid := range s.Workers() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may just have ended
		}
		return says("/readyz", 503)
	})
	if !says("/healthz", 200) {
		t.Error("/healthz: not 200 without a worker")
	}
	testenv.Until(t, "/readyz says yes again", func() bool { return says("/readyz", 200) })
}

// accept(2) finds no descriptor: the gateway goes on, and serves who waits as
// soon as there are some again.
func TestDescriptorExhaustionAtAccept(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "prlimit")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	limit := func(n string) {
		t.Helper()
		if out, err := exec.Command("prlimit", "--pid", strconv.Itoa(s.Pid), "--nofile="+n+":").CombinedOutput(); err != nil {
			t.Fatalf("prlimit: %v: %s", err, out)
		}
	}
	// The limit is one of numbers, which have gaps: as many as leave 5 free ones.
	few := 0
	for free := 0; free < 5; few++ {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", s.Pid, few)); err != nil {
			free++
		}
	}
	start := time.Now()
	limit(strconv.Itoa(few))
	conns := make([]*testenv.Conn, 60)
	for i := range conns {
		conns[i] = testenv.Dial(t, s.Addr)
		conns[i].Send(t, get("/ping"))
	}
	testenv.Until(t, "the log names the error", func() bool { return strings.Contains(s.Log(), "no new connection can be accepted") })
	if s.Ended() {
		t.Fatal("the gateway has ended")
	}
	// It is tried again at every tick, and said now and then; on the admin socket
	// as well.
	admin, err := net.Dial("unix", filepath.Join(s.Data, "run", "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	testenv.Dial(t, s.Addr).WantSilence(t, 500*time.Millisecond)
	limit(strconv.Itoa(few + 1000))
	for _, c := range conns {
		want(t, c.Response(t), 200, "pong")
	}
	testenv.Until(t, "the control plane answers", func() bool { _, ok := statusOf(t, s); return ok })
	most := goruntime.NumCPU() * (1 + int(time.Since(start)/(10*time.Second)))
	if n := strings.Count(s.Log(), "no new connection can be accepted"); n > most {
		t.Errorf("the log has the error %d times in %v, want %d at most", n, time.Since(start), most)
	}
	if n := strings.Count(s.Log(), "accept on the admin socket"); n > most {
		t.Errorf("the log has the admin socket's error %d times in %v, want %d at most", n, time.Since(start), most)
	}
}

// The limit on open files is raised as far as it goes, in every process.
func TestOpenFilesLimit(t *testing.T) {
	t.Parallel()
	data := initialised(t, filepath.Join(t.TempDir(), "data"))
	addr := testenv.FreeAddr(t)
	cmd := exec.Command("sh", "-c", `ulimit -Sn 256; exec "$0" serve --data "$1" --listen "$2" --workers 1`, testenv.Binary(t), data, addr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ended: %v", err)
		}
	}()
	s := &testenv.Server{Addr: addr, Data: data, Pid: cmd.Process.Pid}
	testenv.Until(t, "the server serves", func() bool {
		r, err := testenv.Get(addr, "/readyz")
		return err == nil && r.Status == 200
	})
	for _, pid := range append(s.Workers(), s.Pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Error(err)
			continue
		}
		_, line, _ := strings.Cut(string(text), "Max open files")
		if f := strings.Fields(line); len(f) < 2 || f[0] != f[1] {
			t.Errorf("process %d: soft and hard limit are %v", pid, f[:min(len(f), 2)])
		}
	}
}

// More connections than there may be: those above are refused, and the others
// served.
func TestDescriptorExhaustion(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1, Env: []string{"BATON_CONNECTIONS=50"}})
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range 120 {
		c, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	refused := 0
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(testenv.Patience()))
		_, _ = io.WriteString(c, get("/ping"))
	}
	for _, c := range conns {
		b := make([]byte, 64)
		n, _ := c.Read(b)
		switch {
		case strings.HasPrefix(string(b[:n]), "HTTP/1.1 200"):
		default:
			refused++
		}
	}
	if refused < 70 || refused > 71 {
		t.Errorf("%d of 120 connections were refused with a limit of 50", refused)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	conns = nil
	testenv.Until(t, "new connections are served again", func() bool {
		r, err := testenv.Get(s.Addr, "/ping")
		return err == nil && r.Status == 200
	})
}

// The gateway's death ends nothing that runs; a new one starts at once.
func TestKilledGateway(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1, Args: []string{"--drain", "1m"}})
	pids := workers(t, s)
	running := testenv.Dial(t, s.Addr)
	head, body := unhurried("")
	running.Send(t, head)
	awaitInflight(t, s, 1)
	idle := testenv.Dial(t, s.Addr)
	idle.Send(t, get("/ping"))
	want(t, idle.Response(t), 200, "pong")
	if err := syscall.Kill(s.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Wait(t)
	second := testenv.Start(t, testenv.Options{Data: s.Data})
	idle.WantEnd(t) // the worker knows
	running.Send(t, body)
	r := running.Response(t)
	if r.Status != 200 || string(r.Body) != body {
		t.Fatalf("status %d, %d bytes, want the body back", r.Status, len(r.Body))
	}
	if !r.Close {
		t.Error("the answer of an orphaned worker does not say Connection: close")
	}
	for pid := range pids {
		testenv.Until(t, fmt.Sprintf("worker %d of the killed gateway has exited", pid), func() bool {
			return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		})
	}
	fresh, err := testenv.Get(second.Addr, "/ping")
	if err != nil || fresh.Status != 200 {
		t.Fatalf("the new gateway: %d, %v", fresh.Status, err)
	}
}

func TestSecondServeIsRefused(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	second := testenv.Launch(t, testenv.Options{Data: s.Data})
	if code := second.Wait(t); code == 0 {
		t.Error("a second serve on the same data exits with 0")
	}
	if log := second.Log(); !strings.Contains(log, fmt.Sprint(s.Pid)) {
		t.Errorf("the refusal does not name the holder %d:\n%s", s.Pid, log)
	}
}

// Stopping under load: every request of a connection that was accepted is
// answered by its function, of clients that keep their connections and of those
// that use each once.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 2})
	var wg sync.WaitGroup
	var answered, lost atomic.Int64
	stopped := make(chan struct{})
	var problems sync.Map
	fail := func(format string, args ...any) {
		problems.Store(fmt.Sprintf(format, args...), true)
		lost.Add(1)
	}
	for i := range 24 {
		request := get("/p/sleep?ms=5")
		if i%3 == 0 {
			request = "GET /p/sleep?ms=5 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
		}
		wg.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				c, err := testenv.Connect(s.Addr)
				if err != nil {
					return // refused: the server has stopped accepting
				}
				for {
					if _, err := io.WriteString(c.Conn, request); err != nil {
						fail("send: %v", err)
						break
					}
					r, err := c.ReadResponse("GET")
					if err != nil {
						fail("response: %v", err)
						break
					}
					if r.Status != 200 {
						fail("status %d", r.Status)
					}
					answered.Add(1)
					if r.Close {
						break
					}
				}
				_ = c.Close()
			}
		})
	}
	testenv.Until(t, "the load runs", func() bool { return answered.Load() > 500 })
	s.Signal(os.Interrupt)
	code := s.Wait(t)
	close(stopped)
	wg.Wait()
	if code != 0 {
		t.Errorf("exit code %d after a drain", code)
	}
	if lost.Load() > 0 {
		problems.Range(func(k, _ any) bool { t.Log(k); return true })
		t.Errorf("%d of %d requests were lost", lost.Load(), answered.Load())
	}
}

// A worker inherits nothing but its channel.
func TestWorkerDescriptors(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	for _, d := range testenv.Descriptors(onlyWorker(t, s)) {
		for _, bad := range []string{"faas_meta.db", "admin", "/lock", "TCP"} {
			if strings.Contains(d, bad) {
				t.Errorf("a worker has %s", d)
			}
		}
	}
}
