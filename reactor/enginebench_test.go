package reactor_test

// The measurement behind RATIONALE.md, "Do the gateway's loops run on gnet's
// engine or on its poller?". It builds the gateway's front in several ways, with
// the same work, and runs wrk against them in rotation:
//
//	go test ./reactor -run '^$' -bench EngineOrPoller -benchtime 15x
//
// -benchtime Nx is the number of rounds. Nothing here uses the reactor's own
// code: it compares what that code could stand on.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/panjf2000/gnet/v2"
	gneterrors "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/internal/sys"
	"baton/internal/testenv"
)

const (
	benchLoops   = 2
	benchSinks   = 2
	benchSlots   = 1 << 14 // more connections than wrk opens
	benchBatch   = 16      // descriptors in one message
	benchScratch = 48 << 10

	benchChildEnv = "BATON_ENGINEBENCH_CHILD"
)

// benchWays are the ways to build the front.
//
//	engine  gnet's engine; the retained duplicate is a dup(2), because the engine
//	        closes its own descriptor; a turn's donations are flushed by a task
//	        queued on the loop
//	poller  gnet/pkg/netpoll with the same steps: accept, watch, read when
//	        announced, stop watching, keep the descriptor; an eventfd ends the turn
//	eager   as poller, but a new connection is read at once, and watched only when
//	        its request is not there yet
//	defer   as eager, and the kernel announces a connection with its first bytes
//	        (TCP_DEFER_ACCEPT)
var benchWays = []string{"engine", "poller", "eager", "defer"}

var benchAnswers = [2][]byte{
	[]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"pong\":true}"),
	[]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"pong\":true}"),
}

var (
	benchEmptyLine = []byte("\r\n\r\n")
	benchClose     = []byte("Connection: close")
)

// TestEngineBenchChild is not a test: it is what a re-executed test binary runs
// as front or as sink.
func TestEngineBenchChild(t *testing.T) {
	role, way, _ := strings.Cut(os.Getenv(benchChildEnv), " ")
	var err error
	switch role {
	case "":
		t.Skip("only the child processes of BenchmarkEngineOrPoller run this")
	case "sink":
		err = benchSink()
	case "front":
		err = benchFront(way)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The sink: a worker without a runtime. Descriptors 3 to 3+benchLoops-1 are the
// sockets from the front's loops, the next one goes back to the returns loop.

type benchSinkConn struct {
	slot uint32
	live bool
}

type benchSinkState struct {
	poller *netpoll.Poller
	conns  []benchSinkConn // by descriptor
	ended  []byte          // slots to report, 4 bytes each
	back   int
	in     []byte
	parts  [1][]byte
	// endOfTurn is an eventfd, edge-triggered and so never read: written when
	// there is something to report, announced behind the ready descriptors.
	endOfTurn int
}

func benchSink() error {
	poller, err := netpoll.OpenPoller()
	if err != nil {
		return err
	}
	s := &benchSinkState{poller: poller, conns: make([]benchSinkConn, 1<<16), back: 3 + benchLoops, in: make([]byte, 64<<10)}
	if s.endOfTurn, err = benchTurnfd(poller); err != nil {
		return err
	}
	for i := range benchLoops {
		if err := sys.SetNonblock(3+i, true); err != nil {
			return err
		}
		if err := poller.AddRead(&netpoll.PollAttachment{FD: 3 + i}, false); err != nil {
			return err
		}
	}
	if err := sys.SetNonblock(s.back, true); err != nil {
		return err
	}
	control := make([]byte, sys.RightsSpace(benchBatch+1))
	fds := make([]int32, 0, benchBatch+1)
	err = poller.Polling(func(fd int, _ netpoll.IOEvent, _ netpoll.IOFlags) error {
		switch {
		case fd < s.back:
			for {
				n, c, _, errno := sys.RecvMsg(fd, s.in, control)
				if errno == syscall.EAGAIN {
					return nil
				}
				if errno != 0 || n == 0 {
					return gneterrors.ErrEngineShutdown // the front is gone
				}
				fds = sys.Rights(fds[:0], control[:c])
				s.adopt(s.in[:n], fds)
			}
		case fd == s.endOfTurn:
			return s.report()
		case s.conns[fd].live:
			n, errno := sys.Read(fd, s.in)
			if errno == syscall.EAGAIN {
				return nil
			}
			if errno != 0 || n == 0 {
				_ = poller.Delete(fd)
				s.end(fd)
				return nil
			}
			s.answer(fd, s.in[:n], true)
		}
		return nil
	})
	if errors.Is(err, gneterrors.ErrEngineShutdown) {
		return nil
	}
	return err
}

// adopt takes a message: per connection a slot, a length and so many bytes.
func (s *benchSinkState) adopt(b []byte, fds []int32) {
	for _, fd := range fds {
		slot, n := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint32(b[4:]))
		s.conns[fd] = benchSinkConn{slot: slot, live: true}
		s.answer(int(fd), b[8:8+n], false)
		b = b[8+n:]
	}
}

// answer answers the requests in b (wrk does not pipeline, so there is one).
func (s *benchSinkState) answer(fd int, b []byte, watched bool) {
	last := bytes.Contains(b, benchClose)
	which := 0
	if last {
		which = 1
	}
	_, errno := sys.Write(fd, benchAnswers[which])
	switch {
	case last || errno != 0:
		if watched {
			_ = s.poller.Delete(fd)
		}
		s.end(fd)
	case !watched:
		if err := s.poller.AddRead(&netpoll.PollAttachment{FD: fd}, false); err != nil {
			s.end(fd)
		}
	}
}

// end ends a connection that is not watched (any more).
func (s *benchSinkState) end(fd int) {
	_ = sys.Shutdown(fd, syscall.SHUT_RDWR)
	sys.CloseRaw(fd)
	s.conns[fd].live = false
	if len(s.ended) == 0 {
		sys.EventfdSignal(s.endOfTurn)
	}
	s.ended = binary.LittleEndian.AppendUint32(s.ended, s.conns[fd].slot)
}

func (s *benchSinkState) report() error {
	s.parts[0] = s.ended
	if _, errno := sys.SendMsg(s.back, s.parts[:], nil); errno != 0 {
		return fmt.Errorf("report ended connections: %w", errno)
	}
	s.ended = s.ended[:0]
	return nil
}

// benchTurnfd is an eventfd that poller announces once per write, without ever
// being read.
func benchTurnfd(poller *netpoll.Poller) (int, error) {
	fd, err := sys.Eventfd()
	if err != nil {
		return -1, err
	}
	return fd, poller.AddRead(&netpoll.PollAttachment{FD: fd}, true)
}

// The front, common to all ways. Descriptors: 3 + sink*benchLoops + loop are the
// sockets to the sinks, then one per sink from it.

// benchLedger holds the retained descriptors.
type benchLedger struct {
	mu   sync.Mutex
	free []uint32

	fds      []atomic.Int32
	donated  atomic.Int64
	messages atomic.Int64
	ended    atomic.Int64
}

func newBenchLedger() *benchLedger {
	l := &benchLedger{fds: make([]atomic.Int32, benchSlots)}
	for i := range benchSlots {
		l.free = append(l.free, uint32(i))
	}
	return l
}

func (l *benchLedger) take(fd int) uint32 {
	l.mu.Lock()
	if len(l.free) == 0 {
		panic("more connections than wrk opens: they are not reported back")
	}
	slot := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	l.mu.Unlock()
	l.fds[slot].Store(int32(fd))
	return slot
}

// returnsLoop closes the duplicates of what the sinks report.
func (l *benchLedger) returnsLoop() error {
	poller, err := netpoll.OpenPoller()
	if err != nil {
		return err
	}
	for i := range benchSinks {
		fd := 3 + benchSinks*benchLoops + i
		if err := sys.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := poller.AddRead(&netpoll.PollAttachment{FD: fd}, false); err != nil {
			return err
		}
	}
	b := make([]byte, 4*benchSlots)
	return poller.Polling(func(fd int, _ netpoll.IOEvent, _ netpoll.IOFlags) error {
		for {
			n, _, _, errno := sys.RecvMsg(fd, b, nil)
			if errno == syscall.EAGAIN {
				return nil
			}
			if errno != 0 || n == 0 {
				_ = poller.Delete(fd)
				return nil
			}
			l.mu.Lock()
			for i := 0; i < n; i += 4 {
				slot := binary.LittleEndian.Uint32(b[i:])
				sys.CloseRaw(int(l.fds[slot].Load()))
				l.free = append(l.free, slot)
			}
			l.mu.Unlock()
			l.ended.Add(int64(n / 4))
		}
	})
}

// benchDonor gathers one loop's donations, by sink.
type benchDonor struct {
	ledger *benchLedger
	socks  [benchSinks]int
	next   int
	frames [benchSinks][]byte
	fds    [benchSinks][]int32

	control [256]byte
	parts   [1][]byte
	pending int
}

func newBenchDonor(l *benchLedger, loop int) (*benchDonor, error) {
	d := &benchDonor{ledger: l}
	for i := range benchSinks {
		d.socks[i] = 3 + i*benchLoops + loop
		if err := sys.SetNonblock(d.socks[i], true); err != nil {
			return nil, err
		}
		d.frames[i] = make([]byte, 0, 64<<10)
		d.fds[i] = make([]int32, 0, benchBatch)
	}
	return d, nil
}

// donate queues fd, of which b is all that was read. It reports whether the
// caller must have flush called at the end of the turn.
func (d *benchDonor) donate(fd int, b []byte) (first bool) {
	slot := d.ledger.take(fd)
	i := d.next
	d.next = (d.next + 1) % benchSinks
	d.frames[i] = binary.LittleEndian.AppendUint32(d.frames[i], slot)
	d.frames[i] = binary.LittleEndian.AppendUint32(d.frames[i], uint32(len(b)))
	d.frames[i] = append(d.frames[i], b...)
	d.fds[i] = append(d.fds[i], int32(fd))
	d.pending++
	if len(d.fds[i]) == benchBatch {
		d.flushTo(i)
		return false
	}
	return d.pending == 1
}

func (d *benchDonor) flush() {
	for i := range d.fds {
		if len(d.fds[i]) > 0 {
			d.flushTo(i)
		}
	}
}

func (d *benchDonor) flushTo(i int) {
	d.parts[0] = d.frames[i]
	if _, errno := sys.SendMsg(d.socks[i], d.parts[:], sys.PutRights(d.control[:], d.fds[i])); errno != 0 {
		panic(fmt.Sprintf("donate to sink %d: %v", i, errno)) // 64 connections never fill the queue
	}
	d.ledger.donated.Add(int64(len(d.fds[i])))
	d.ledger.messages.Add(1)
	d.pending -= len(d.fds[i])
	d.frames[i], d.fds[i] = d.frames[i][:0], d.fds[i][:0]
}

// benchReport is what a front says of itself at the end.
type benchReport struct {
	Donated, Ended int64
	Messages       int64
	Micros         int64 // processor time, user and system
	Mallocs        uint64
}

// benchFront serves until its standard input ends.
func benchFront(way string) error {
	ledger := newBenchLedger()
	go func() {
		if err := ledger.returnsLoop(); err != nil {
			panic(err)
		}
	}()
	var addr netip.AddrPort
	var err error
	if way == "engine" {
		addr, err = benchEngine(ledger)
	} else {
		addr, err = benchPoller(ledger, way)
	}
	if err != nil {
		return err
	}
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	start := benchMicros()
	fmt.Println("front", addr)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	r := benchReport{
		Donated: ledger.donated.Load(), Ended: ledger.ended.Load(), Messages: ledger.messages.Load(), Micros: benchMicros() - start,
	}
	goruntime.ReadMemStats(&after)
	r.Mallocs = after.Mallocs - before.Mallocs
	b, err := json.Marshal(r)
	fmt.Println("report", string(b))
	return err
}

func benchMicros() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano()/1000 + u.Stime.Nano()/1000
}

// The front on gnet's engine.

type benchEngineFront struct {
	gnet.BuiltinEventEngine
	ledger *benchLedger
	booted chan struct{}

	mu    sync.Mutex
	loops sync.Map // gnet.EventLoop → *benchEngineLoop
	count int
}

// benchEngineLoop is the state of one of the engine's loops. It is what the
// engine runs at the end of a turn.
type benchEngineLoop struct{ *benchDonor }

func (l *benchEngineLoop) Run(context.Context) error {
	l.flush()
	return nil
}

func benchEngine(ledger *benchLedger) (netip.AddrPort, error) {
	// The engine does not say which port it got, so one is found for it.
	lfd, err := sys.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), sys.ListenOptions{})
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := sys.LocalAddr(lfd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	sys.CloseRaw(lfd)
	f := &benchEngineFront{ledger: ledger, booted: make(chan struct{})}
	failed := make(chan error, 1)
	go func() {
		failed <- gnet.Run(f, "tcp://"+addr.String(),
			gnet.WithNumEventLoop(benchLoops), gnet.WithReusePort(true), gnet.WithReuseAddr(true), gnet.WithReadBufferCap(benchScratch))
	}()
	select {
	case <-f.booted:
		return addr, nil
	case err := <-failed:
		return addr, fmt.Errorf("the engine ended: %w", err)
	}
}

func (f *benchEngineFront) OnBoot(gnet.Engine) gnet.Action {
	close(f.booted)
	return gnet.None
}

func (f *benchEngineFront) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	l, ok := f.loops.Load(c.EventLoop())
	if !ok {
		l = f.onOpenFirst(c.EventLoop())
	}
	c.SetContext(l)
	return nil, gnet.None
}

// onOpenFirst gives a loop its state with its first connection: the engine has
// no place where a loop's state could be made.
func (f *benchEngineFront) onOpenFirst(el gnet.EventLoop) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := newBenchDonor(f.ledger, f.count)
	if err != nil {
		panic(err)
	}
	f.count++
	l := &benchEngineLoop{d}
	f.loops.Store(el, l)
	return l
}

func (f *benchEngineFront) OnTraffic(c gnet.Conn) gnet.Action {
	b, err := c.Peek(-1)
	if err != nil || !bytes.Contains(b, benchEmptyLine) {
		return gnet.None
	}
	l := c.Context().(*benchEngineLoop)
	fd, err := sys.Dup(c.Fd())
	if err != nil {
		panic(err)
	}
	if l.donate(fd, b) {
		if err := c.EventLoop().Execute(context.Background(), l); err != nil {
			panic(err)
		}
	}
	return gnet.Close
}

// The front on gnet's poller.

type benchPollerLoop struct {
	*benchDonor
	poller   *netpoll.Poller
	listener int
	turnfd   int
	eager    bool
	conns    []*benchPollerConn // by descriptor
	free     []*benchPollerConn
	in       []byte
	att      netpoll.PollAttachment
}

// benchPollerConn is a connection whose request is not complete.
type benchPollerConn struct {
	fd   int
	part []byte
}

func benchPoller(ledger *benchLedger, way string) (netip.AddrPort, error) {
	addr := netip.MustParseAddrPort("127.0.0.1:0")
	for i := range benchLoops {
		d, err := newBenchDonor(ledger, i)
		if err != nil {
			return addr, err
		}
		l := &benchPollerLoop{benchDonor: d, eager: way != "poller", conns: make([]*benchPollerConn, 1<<16), in: make([]byte, benchScratch)}
		if l.listener, err = sys.ListenTCP(addr, sys.ListenOptions{ReusePort: true}); err != nil {
			return addr, err
		}
		if way == "defer" {
			if err := sys.SetDeferAccept(l.listener, 1); err != nil {
				return addr, err
			}
		}
		if addr, err = sys.LocalAddr(l.listener); err != nil {
			return addr, err
		}
		if l.poller, err = netpoll.OpenPoller(); err != nil {
			return addr, err
		}
		if l.turnfd, err = benchTurnfd(l.poller); err != nil {
			return addr, err
		}
		if err := l.watch(l.listener); err != nil {
			return addr, err
		}
		go func() { panic(l.poller.Polling(l.onEvent)) }()
	}
	return addr, nil
}

func (l *benchPollerLoop) watch(fd int) error {
	l.att.FD = fd
	return l.poller.AddRead(&l.att, false)
}

func (l *benchPollerLoop) onEvent(fd int, _ netpoll.IOEvent, _ netpoll.IOFlags) error {
	switch {
	case fd == l.listener:
		l.onAccept()
	case fd == l.turnfd:
		l.flush()
	case l.conns[fd] != nil:
		l.onReadable(l.conns[fd])
	}
	return nil
}

func (l *benchPollerLoop) onAccept() {
	for range benchBatch {
		fd, _, errno := sys.Accept4(l.listener)
		if errno != 0 {
			break // EAGAIN; anything else is announced again
		}
		if l.eager {
			n, errno := sys.Read(fd, l.in)
			if errno == 0 && n > 0 && bytes.Contains(l.in[:n], benchEmptyLine) {
				l.donate(fd, l.in[:n])
				continue
			}
			if errno != syscall.EAGAIN && n == 0 {
				sys.CloseRaw(fd)
				continue
			}
			l.onAcceptWatch(fd, l.in[:n])
			continue
		}
		l.onAcceptWatch(fd, nil)
	}
	if l.eager {
		l.flush() // what was accepted together travels together: no end of turn needed
	}
}

func (l *benchPollerLoop) onAcceptWatch(fd int, part []byte) {
	var c *benchPollerConn
	if n := len(l.free); n > 0 {
		c, l.free = l.free[n-1], l.free[:n-1]
	} else {
		c = new(benchPollerConn)
	}
	c.fd, c.part = fd, append(c.part[:0], part...)
	l.conns[fd] = c
	if err := l.watch(fd); err != nil {
		panic(err)
	}
}

func (l *benchPollerLoop) onReadable(c *benchPollerConn) {
	n, errno := sys.Read(c.fd, l.in)
	if errno == syscall.EAGAIN {
		return
	}
	b := l.in[:n]
	if len(c.part) > 0 {
		c.part = append(c.part, b...)
		b = c.part
	}
	ended := errno != 0 || n == 0
	if !ended && !bytes.Contains(b, benchEmptyLine) {
		if len(c.part) == 0 {
			c.part = append(c.part, b...)
		}
		return
	}
	_ = l.poller.Delete(c.fd)
	l.conns[c.fd] = nil
	if ended {
		sys.CloseRaw(c.fd)
	} else if l.donate(c.fd, b) {
		sys.EventfdSignal(l.turnfd)
	}
	l.free = append(l.free, c)
}

// The measurement.

// benchResult is one run of one way.
type benchResult struct {
	perSecond float64 // requests
	micros    float64 // the front's processor time per connection
	mallocs   float64 // the front's, per connection
	batch     float64 // connections per message
}

// BenchmarkEngineOrPoller prints, per way, the median of the rounds, and of the
// ratios to the engine within each round, with their quartiles.
func BenchmarkEngineOrPoller(b *testing.B) {
	testenv.Need(b, "wrk")
	for _, mode := range []struct {
		name string
		args []string
	}{
		{"close", []string{"-H", "Connection: close"}},
		{"keepalive", nil},
	} {
		b.Run(mode.name, func(b *testing.B) {
			ways := benchWays
			if b.N == 1 { // a smoke test, or the first try of the framework
				ways = benchWays[:2]
			}
			rounds := map[string][]benchResult{}
			for round := range b.N {
				for i := range ways { // in rotation, so that no way always follows the same
					way := ways[(i+round)%len(ways)]
					rounds[way] = append(rounds[way], benchRun(b, way, mode.args))
				}
			}
			if b.N == 1 {
				return
			}
			engine := rounds[ways[0]]
			for _, way := range ways {
				var rates, micros, mallocs, batches, rateRatios, microRatios []float64
				for i, r := range rounds[way] {
					rates, micros, mallocs = append(rates, r.perSecond), append(micros, r.micros), append(mallocs, r.mallocs)
					batches = append(batches, r.batch)
					rateRatios = append(rateRatios, r.perSecond/engine[i].perSecond)
					microRatios = append(microRatios, r.micros/engine[i].micros)
				}
				b.Logf("%s: %s requests/s, ratio to the engine's %s; of the front per connection: %s µs, ratio %s; %s allocations; %s connections/message",
					way, benchSpread(rates, 0), benchSpread(rateRatios, 2), benchSpread(micros, 1), benchSpread(microRatios, 2),
					benchSpread(mallocs, 2), benchSpread(batches, 2))
				b.ReportMetric(benchMedian(rateRatios), way+"/engine")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchMedian(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}

// benchSpread is the median, with the first and the third quartile.
func benchSpread(v []float64, digits int) string {
	v = slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%.*f (%.*f to %.*f)", digits, benchMedian(v), digits, v[len(v)/4], digits, v[(3*len(v)-1)/4])
}

var (
	benchRate  = regexp.MustCompile(`Requests/sec:\s*([0-9.]+)`)
	benchWrong = regexp.MustCompile(`(?m)^\s*(Non-2xx.*|Socket errors: connect [1-9].*)$`)
)

// benchRun starts sinks and a front, runs wrk, and ends them.
func benchRun(b *testing.B, way string, args []string) benchResult {
	b.Helper()
	binary, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := func(role string, files []*os.File) *exec.Cmd {
		c := exec.Command(binary, "-test.run=^TestEngineBenchChild$")
		c.Env = append(os.Environ(), benchChildEnv+"="+role)
		if strings.HasPrefix(role, "sink") {
			c.Env = append(c.Env, "GOMAXPROCS=1")
		}
		c.ExtraFiles = files
		c.Stderr = os.Stderr
		return c
	}
	var toSinks, fromSinks []*os.File // the front's ends
	var sinks []*exec.Cmd
	for range benchSinks {
		var ends []*os.File
		for i := range benchLoops + 1 {
			x, y, err := sys.Socketpair()
			if err != nil {
				b.Fatal(err)
			}
			if i < benchLoops {
				toSinks = append(toSinks, os.NewFile(uintptr(x), "donate"))
			} else {
				fromSinks = append(fromSinks, os.NewFile(uintptr(x), "returns"))
			}
			ends = append(ends, os.NewFile(uintptr(y), "sink"))
		}
		s := child("sink", ends)
		if err := s.Start(); err != nil {
			b.Fatal(err)
		}
		sinks = append(sinks, s)
		benchCloseAll(ends)
	}
	front := child("front "+way, append(slices.Clone(toSinks), fromSinks...))
	stdin, err := front.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := front.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := front.Start(); err != nil {
		b.Fatal(err)
	}
	benchCloseAll(toSinks)
	benchCloseAll(fromSinks)
	lines := bufio.NewScanner(stdout)
	addr := benchLine(b, lines, "front ")

	args = append([]string{"-t2", "-c64", "-d1s"}, args...)
	out, err := exec.Command("wrk", append(args, "http://"+addr+"/ping")...).CombinedOutput()
	if err != nil {
		b.Fatalf("wrk: %v\n%s", err, out)
	}
	rate := benchRate.FindSubmatch(out)
	if rate == nil || benchWrong.Match(out) {
		b.Fatalf("%s: %s", way, out)
	}
	stdin.Close()
	var report benchReport
	if err := json.Unmarshal([]byte(benchLine(b, lines, "report ")), &report); err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, stdout)
	if err := front.Wait(); err != nil {
		b.Fatal(err)
	}
	for _, s := range sinks {
		if err := s.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	// wrk breaks off what is open at its end.
	if report.Donated == 0 || report.Donated-report.Ended > 64 {
		b.Fatalf("%s: %+v", way, report)
	}
	r := benchResult{
		micros:  float64(report.Micros) / float64(report.Donated),
		mallocs: float64(report.Mallocs) / float64(report.Donated),
		batch:   float64(report.Donated) / float64(report.Messages),
	}
	if r.perSecond, err = strconv.ParseFloat(string(rate[1]), 64); err != nil {
		b.Fatal(err)
	}
	return r
}

func benchCloseAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// benchLine returns what follows prefix in the next line that has it.
func benchLine(b *testing.B, lines *bufio.Scanner, prefix string) string {
	b.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
			return rest
		}
	}
	b.Fatalf("the front ended before it said %q", prefix)
	return ""
}
