package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
)

// fakeFront keeps the gateway's ends and reports what workers say, as the
// reactor does. Its goroutine is the returns loop.
type fakeFront struct {
	s    *supervisor
	log  []string // "attach 1", "ready 1", "lost 1 ready"
	mu   sync.Mutex
	ends map[int]*fakeEnd
	done chan struct{}
	wait sync.WaitGroup
}

type fakeEnd struct {
	control   fd.FD
	donations []fd.FD
	reader    *ipc.FrameReader
	gone      bool
}

func (f *fakeFront) Loops() int { return 2 }

func (f *fakeFront) note(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

func (f *fakeFront) AttachWorker(id int, control fd.FD, donations []fd.FD) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("attach %d", id)
	if f.ends[id] != nil || len(donations) != 3 {
		panic("attached twice, or without its sockets")
	}
	f.ends[id] = &fakeEnd{control: control, donations: donations, reader: ipc.NewFrameReader()}
	return nil
}

func (f *fakeFront) Send(id int, frame ipc.Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.ends[id]
	if e == nil {
		return errors.New("not attached")
	}
	return ipc.WriteFrame(e.control.Borrow(), frame)
}

func (f *fakeFront) WorkerReady(id int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("ready %d", id)
}

func (f *fakeFront) WorkerLost(id int, ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.ends[id]
	if e == nil {
		return
	}
	// The process is gone: its end of the channel must be too.
	if _, err := syscall.Write(e.control.Borrow(), []byte{0}); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		f.note("worker %d was called lost and lives: %v", id, err)
	}
	if ready {
		f.note("lost %d ready", id)
	} else {
		f.note("lost %d", id)
	}
	closeAll([]fd.FD{e.control}, e.donations)
	delete(f.ends, id)
}

func (f *fakeFront) story() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// turn reads what workers have said, as the returns loop does.
func (f *fakeFront) turn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, e := range f.ends {
		for !e.gone {
			frame, err := e.reader.Read(e.control.Borrow())
			if errors.Is(err, ipc.ErrAgain) {
				break
			}
			if err == nil {
				switch frame.Kind {
				case ipc.KindReady:
					g, _ := frame.Ready()
					f.s.onReady(id, g)
				case ipc.KindApplied:
					a, _ := frame.Applied()
					f.s.onApplied(id, a)
				}
				continue
			}
			e.gone = true
			f.s.onGone(id, err)
		}
	}
}

type superBench struct {
	*supervisor
	*publishBench
	front *fakeFront
	t     *testing.T
}

// newSuperBench starts a supervisor over fake workers.
func newSuperBench(t *testing.T, c supervisorConfig, confirm time.Duration, args ...string) *superBench {
	t.Helper()
	b := &superBench{t: t, publishBench: newPublishBench(t, confirm)}
	board, err := ipc.NewBoard(ipc.BoardOptions{Conns: 16, Workers: uint32(c.workers), Cells: 100})
	if err != nil {
		t.Fatal(err)
	}
	b.front = &fakeFront{ends: map[int]*fakeEnd{}, done: make(chan struct{})}
	c.front, c.board, c.publisher = b.front, board, b.publisher
	c.argv = append([]string{"/proc/self/exe", fakeWorkerName}, args...)
	c.env = []string{"GORACE=halt_on_error=1"}
	c.output, c.log = 2, slog.New(slog.DiscardHandler)
	b.supervisor = newSupervisor(c)
	b.front.s = b.supervisor
	b.publishBench.setHooks(b.supervisor.lose, b.supervisor.onCurrent)
	b.front.wait.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.front.turn()
			case <-b.front.done:
				return
			}
		}
	})
	b.reset("GET:/x", row1("x", b.artifact("m.wasm", "1")))
	b.settled()
	b.begin()
	t.Cleanup(func() {
		b.supervisor.stop(10 * time.Second)
		close(b.front.done)
		b.front.wait.Wait()
		if err := board.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *superBench) allReady() {
	b.t.Helper()
	testenv.Until(b.t, "all workers are ready", func() bool { return b.supervisor.ready() == len(b.keepers) })
}

func (b *superBench) pid(id int) int { return b.pidOf(id) }

func TestWorkerIsStartedClean(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 2}, 0)
	b.allReady()
	ours := map[string]bool{}
	for _, link := range testenv.Descriptors(os.Getpid()) {
		ours[link] = true
	}
	sockets := map[string]int{}
	for id := range 2 {
		pid := b.pid(id)
		if pgid, err := syscall.Getpgid(pid); err != nil || pgid != pid {
			t.Errorf("worker %d is of process group %d, %v; want its own, %d", id, pgid, err, pid)
		}
		environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if want := strings.Join(b.supervisor.env, "\x00") + "\x00"; err != nil || string(environ) != want {
			t.Errorf("worker %d has the environment %q, %v; want %q", id, environ, err, want)
		}
		// One control channel, three donation sockets; the board's memfd is closed
		// or mapped, and none of what this process has open otherwise.
		n := 0
		for _, link := range testenv.Descriptors(pid) {
			if !strings.HasPrefix(link, "socket:") {
				continue
			}
			n++
			sockets[link]++
			if ours[link] {
				t.Errorf("worker %d has %s, which is an end of the gateway's", id, link)
			}
		}
		if n != 4 {
			t.Errorf("worker %d has %d sockets, want 4: %v", id, n, testenv.Descriptors(pid))
		}
	}
	for link, n := range sockets {
		if n > 1 {
			t.Errorf("two workers have %s", link)
		}
	}
}

func TestStartedProcessHasExactlyItsDescriptors(t *testing.T) {
	t.Parallel()
	output, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	a, b, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	p, err := startProcess([]string{"/bin/sleep", "100"}, nil, int(output.Fd()), b.Borrow())
	if err != nil {
		t.Fatal(err)
	}
	// exec(2) closes one after the other, and is seen to have succeeded when the
	// first of them is.
	testenv.Until(t, "four descriptors are open", func() bool { return len(testenv.Descriptors(p.pid)) == 4 })
	dir := fmt.Sprintf("/proc/%d/fd/", p.pid)
	want, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", b.Borrow()))
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	for n, link := range []string{"/dev/null", output.Name(), output.Name(), want} {
		if got, err := os.Readlink(dir + strconv.Itoa(n)); err != nil || got != link {
			t.Errorf("descriptor %d is %s, %v; want %s", n, got, err, link)
		}
	}
	p.kill(slog.New(slog.DiscardHandler))
	<-p.exited
	if p.exit.Signal != syscall.SIGKILL {
		t.Errorf("exit: %+v", p.exit)
	}
	p.close()
}

func TestProcessGroupEndsWithItsLeader(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	output, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	script := fmt.Sprintf("sleep 100 & echo $! > %s.tmp; mv %s.tmp %s; wait", file, file, file)
	p, err := startProcess([]string{"/bin/sh", "-c", script}, []string{"PATH=/bin:/usr/bin"}, int(output.Fd()), int(output.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "the grandchild runs", func() bool { _, err := os.Stat(file); return err == nil })
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	p.kill(slog.New(slog.DiscardHandler))
	<-p.exited
	p.close()
	testenv.Until(t, "the grandchild is gone", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestKilledWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 2}, 0)
	b.allReady()
	before := b.pid(1)
	b.board.Cell(1, 7).AddRequests(3)
	if !b.board.Enter(1, 7, 1) {
		t.Fatal("not let in")
	}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "another process is in the slot", func() bool { pid := b.pid(1); return pid != 0 && pid != before })
	b.allReady()
	if n := b.board.Inflight(7); n != 0 {
		t.Errorf("%d requests of the dead worker are in flight", n)
	}
	if n, _ := b.board.Totals(7); n != 3 {
		t.Errorf("%d requests are counted, want the 3 that the dead worker answered", n)
	}
	k := b.keepers[1]
	if k.restarts.Load() != 1 || k.crashes.Load() != 1 || b.keepers[0].restarts.Load() != 0 {
		t.Errorf("restarts %d, crashes %d; other worker's restarts %d", k.restarts.Load(), k.crashes.Load(), b.keepers[0].restarts.Load())
	}
	var story []string
	for _, line := range b.front.story() {
		if strings.Contains(line, " 1") {
			story = append(story, line)
		}
	}
	want := []string{"attach 1", "ready 1", "lost 1 ready", "attach 1", "ready 1"}
	if !slices.Equal(story, want) {
		t.Errorf("the front was told %q, want %q", story, want)
	}
	if !b.started(b.pid(1)) || b.started(before) || b.started(0) || b.started(os.Getpid()) {
		t.Error("started does not tell workers from others")
	}
}

func TestStoppedWorkerIsReplaced(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 2, stall: time.Second}, 0)
	b.allReady()
	before := b.pid(0)
	if err := syscall.Kill(before, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "another process is in the slot", func() bool { pid := b.pid(0); return pid != 0 && pid != before })
	b.allReady()
}

func TestWorkerThatMisbehavesIsReplaced(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit", "silent", "liar", "babble"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			once := "once=" + filepath.Join(t.TempDir(), "once")
			start := time.Duration(0)
			if how == "silent" {
				start = 10 * time.Second // the next one must be ready within it too
			}
			b := newSuperBench(t, supervisorConfig{workers: 1, start: start}, 0, once, how)
			b.allReady()
			if n := b.keepers[0].crashes.Load(); n != 1 {
				t.Errorf("%d crashes, want 1", n)
			}
		})
	}
}

func TestTableGoesOutThoughAWorkerHangs(t *testing.T) {
	t.Parallel()
	once := "once=" + filepath.Join(t.TempDir(), "once")
	// The other one must confirm in time, on any machine.
	b := newSuperBench(t, supervisorConfig{workers: 2}, 5*time.Second, once, "deaf")
	b.allReady()
	b.put("GET:/x", row1("y", "import/m.wasm"))
	b.settled()
	b.want("GET:/x", "y")
	testenv.Until(t, "the hung worker is replaced", func() bool {
		return b.keepers[0].restarts.Load()+b.keepers[1].restarts.Load() >= 1
	})
	b.allReady()
	b.put("GET:/x", row1("z", "import/m.wasm"))
	b.settled()
	b.want("GET:/x", "z")
}

// Whatever happens to workers while rows change, every worker that is picked
// has the published table, and every change arrives.
func TestTablesWhileWorkersDie(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 3}, 500*time.Millisecond)
	b.allReady()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	stop, checked := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			for id, k := range b.keepers {
				published := b.publishBench.table.Load().Generation()
				pid := b.pid(id)
				if pid == 0 || *k.state.Load() != stateReady {
					continue
				}
				has := b.board.Worker(id).Errors()
				if has < published && b.pid(id) == pid && *k.state.Load() == stateReady {
					t.Errorf("worker %d is picked with table %d, and %d is published", id, has, published)
				}
				n++
			}
			select {
			case <-stop:
				checked <- n
				return
			case <-time.After(50 * time.Microsecond):
			}
		}
	}()
	want := map[string]string{}
	for i := range 60 {
		key, name := fmt.Sprintf("GET:/%d", random.IntN(5)), fmt.Sprintf("f%d", i)
		if random.IntN(4) == 0 {
			b.gone(key)
			name = ""
		} else {
			b.put(key, row1(name, "import/m.wasm"))
		}
		want[key] = name
		signal := []syscall.Signal{0, 0, 0, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCONT}[random.IntN(6)]
		if pid := b.pid(random.IntN(3)); pid != 0 && signal != 0 {
			_ = syscall.Kill(pid, signal)
		}
		if random.IntN(3) == 0 {
			b.settled()
		}
	}
	b.settled()
	close(stop)
	if n := <-checked; n == 0 {
		t.Error("nothing was checked")
	}
	for key, name := range want {
		b.want(key, name)
	}
	for id := range 3 {
		if pid := b.pid(id); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	b.put("GET:/last", row1("last", "import/m.wasm"))
	b.settled()
	b.want("GET:/last", "last")
}

func TestDrainingWorkersAreNotReplaced(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 2}, 0)
	b.allReady()
	b.drain(time.Second)
	testenv.Until(t, "all are gone", func() bool { return b.pid(0) == 0 && b.pid(1) == 0 })
	b.supervisor.stop(time.Minute)
	if n := b.keepers[0].crashes.Load() + b.keepers[1].crashes.Load(); n != 0 {
		t.Errorf("%d crashes, for an end that was asked for", n)
	}
}

func TestWorkerThatDoesNotStopIsKilled(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 1}, 0, "stubborn")
	b.allReady()
	pid := b.pid(0)
	b.supervisor.stop(50 * time.Millisecond)
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
		t.Error("the worker is there still")
	}
}

func TestStopWhileWorkersStart(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 3}, 0, "silent")
	b.supervisor.stop(50 * time.Millisecond)
	for id := range 3 {
		if b.pid(id) != 0 {
			t.Errorf("worker %d is there still", id)
		}
	}
}

func TestCrashingWorkerIsNotStartedInAStorm(t *testing.T) {
	t.Parallel()
	b := newSuperBench(t, supervisorConfig{workers: 1}, 0, "exit")
	began := time.Now()
	testenv.Until(t, "it has crashed four times", func() bool { return b.keepers[0].crashes.Load() >= 4 })
	if took, least := time.Since(began), 3*backoffFirst; took < least {
		t.Errorf("four crashes within %v, want pauses of %v together at least", took, least)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	var b backoff
	want := []time.Duration{0, backoffFirst, 2 * backoffFirst, 4 * backoffFirst, 8 * backoffFirst, 16 * backoffFirst, backoffSlow, backoffSlow}
	for i, pause := range want {
		if got := b.failed(time.Second); got != pause {
			t.Errorf("failure %d: pause %v, want %v", i+1, got, pause)
		}
		if got := b.broken(); got != (i >= backoffGiveUp) {
			t.Errorf("failure %d: broken is %v", i+1, got)
		}
	}
	if got := b.failed(backoffHealthy); got != 0 || b.broken() {
		t.Errorf("after a healthy minute: pause %v, broken %v", got, b.broken())
	}
}

func TestOldLookIsNotOldHeartbeat(t *testing.T) {
	t.Parallel()
	w := heartWatch{stall: 8 * time.Second}
	now := int64(time.Hour)
	second := int64(time.Second)
	for range 5 {
		if now += second; !w.trust(now) {
			t.Fatal("a regular look is not trusted")
		}
	}
	// This process was stopped for a minute, and with it perhaps the workers.
	now += 60 * second
	if w.trust(now) {
		t.Error("a look after a stop is trusted")
	}
	for range 7 {
		if now += second; w.trust(now) {
			t.Error("a look is trusted before the workers had a stall's time")
		}
	}
	if now += second; !w.trust(now) {
		t.Error("looks are not trusted any more")
	}
}

func TestEnding(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]sys.Exit{
		"exit code 3":          {Code: 3},
		"killed":               {Signal: syscall.SIGKILL},
		"aborted, core dumped": {Signal: syscall.SIGABRT, Dumped: true},
	} {
		if got := ending(e); got != want {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
}
