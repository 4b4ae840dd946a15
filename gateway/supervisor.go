package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

// WorkersMax bounds the workers: the slots of the board.
const WorkersMax = 64

const (
	// startDefault is how long a worker may take from its start to ready. It
	// loads functions, at some 50 ms each, before it says so.
	startDefault = 60 * time.Second

	// stallDefault is how old a heartbeat may be before its worker is lost.
	stallDefault = 10 * time.Second

	// stopPatience is how long a worker that was told to stop may take before
	// it is killed. It has nothing left to wait for.
	stopPatience = 2 * time.Second

	// deathGrace is how long a process may take to end after its control channel
	// has, before it is killed. The kernel closes the one on the way to the other.
	deathGrace = 100 * time.Millisecond

	// troubleMax bounds the lines that one worker may have logged per
	// troublePeriod; the rest is counted.
	troubleMax    = 16
	troublePeriod = 10 * time.Second

	// killComplaint is how often it is said that a killed process does not end.
	killComplaint = 10 * time.Second
)

// front is what the supervisor needs of the reactor's gateway side.
type front interface {
	Loops() int
	// AttachWorker takes the gateway's ends over, also on error.
	AttachWorker(id int, control fd.FD, donations []fd.FD) error
	// Send queues a frame; its descriptors stay the caller's.
	Send(id int, frame ipc.Frame) error
	WorkerReady(id int)
	WorkerLost(id int, ready bool)
}

type supervisorConfig struct {
	workers   int
	front     front
	board     *ipc.Board
	publisher *publisher
	argv, env []string // of a worker
	output    int      // its standard output and error; borrowed
	config    workerConfig
	start     time.Duration // zero: startDefault
	stall     time.Duration // zero: stallDefault
	log       *slog.Logger
}

// workerConfig is what a worker is told first, as JSON in the Hello frame:
// package worker's Config.
type workerConfig struct {
	Worker   int           `json:"worker"`
	Data     string        `json:"data"`
	Drain    time.Duration `json:"drain"`
	Metrics  string        `json:"metrics"`
	Debug    bool          `json:"debug,omitempty"`
	Without  []string      `json:"without,omitempty"`
	LogBytes int64         `json:"logBytes,omitempty"`
	CodeMB   int           `json:"codeMB,omitempty"`
}

// States of a worker slot, as `baton status` shows them.
const (
	stateStarting = "starting"
	stateReady    = "ready"
	stateDraining = "draining"
	stateLost     = "lost"
)

// supervisor keeps one process alive per worker slot. One goroutine per slot, a
// keeper, goes through its life: start, ready, lost, reaped, and again. One
// goroutine more reads the heartbeats.
type supervisor struct {
	supervisorConfig
	keepers []*keeper
	running sync.WaitGroup // keepers and the heartbeat's reader

	stopping chan struct{} // closed: what ends is not started again
	stopOnce sync.Once
	changed  chan struct{} // 1: a worker became ready or was lost
}

// keeper keeps one slot. run is its goroutine; the rest of the process reaches
// it through lose, onCurrent and the atomic fields.
type keeper struct {
	*supervisor
	id  int
	log *slog.Logger

	// Shared: atomic; written by run, read by status and the heartbeat.
	state    atomic.Pointer[string]
	pid      atomic.Int64
	restarts atomic.Uint64 // processes after the first
	crashes  atomic.Uint64 // … that were not asked for
	unsaid   atomic.Uint64 // troubles that were not logged

	mu   sync.Mutex
	life *life // the process that is in the slot now; nil: none. Guarded by mu
}

// life is one process of a slot.
type life struct {
	process *process
	lost    chan error    // 1: somebody found that it must be lost
	current chan struct{} // 1: it is ready at the published generation
	trouble chan string   // troubleMax: what it says that is for the log
	ready   atomic.Bool   // it is picked, and its heart must beat
	since   time.Time     // when it became ready; the keeper's goroutine only
}

func newSupervisor(c supervisorConfig) *supervisor {
	if c.start <= 0 {
		c.start = startDefault
	}
	if c.stall <= 0 {
		c.stall = stallDefault
	}
	s := &supervisor{supervisorConfig: c, stopping: make(chan struct{}), changed: make(chan struct{}, 1)}
	for id := range c.workers {
		k := &keeper{supervisor: s, id: id, log: c.log.With("worker", id)}
		k.setState(stateStarting)
		s.keepers = append(s.keepers, k)
	}
	return s
}

// begin starts the workers. stop ends what it started.
func (s *supervisor) begin() {
	for _, k := range s.keepers {
		s.running.Go(k.run)
	}
	s.running.Go(s.watchHearts)
}

// Doors: called on the returns loop or the publisher's goroutine; none blocks.

// onCurrent says that a worker is ready at the published generation.
func (s *supervisor) onCurrent(id int, _ uint64) {
	if l := s.keepers[id].now(); l != nil {
		select {
		case l.current <- struct{}{}:
		default:
		}
	}
}

// lose says that the process in a slot must end and be replaced.
func (s *supervisor) lose(id int, why error) {
	if l := s.keepers[id].now(); l != nil {
		select {
		case l.lost <- why:
		default: // somebody was faster
		}
	}
}

func (s *supervisor) onReady(id int, generation uint64) { s.publisher.confirmed(id, generation, true) }

func (s *supervisor) onApplied(id int, a ipc.Applied) {
	if a.Problems > 0 {
		s.onTrouble(id, fmt.Sprintf("%d rows of table %d are refused here, and not by the gateway", a.Problems, a.Generation))
	}
	s.publisher.confirmed(id, a.Generation, false)
}

// onTrouble has what a worker says logged by its keeper, up to a limit: a log
// that does not take it must hold up nobody else, nor be filled by one worker.
func (s *supervisor) onTrouble(id int, text string) {
	k := s.keepers[id]
	if l := k.now(); l != nil {
		select {
		case l.trouble <- bounded(text):
		default:
			k.unsaid.Add(1)
		}
	}
}

// errChannelEnded: the worker has closed its end, or died.
var errChannelEnded = errors.New("its control channel ended")

func (s *supervisor) onGone(id int, err error) {
	if err == nil {
		err = errChannelEnded
	}
	s.lose(id, err)
}

// ready counts the workers that are picked.
func (s *supervisor) ready() int {
	n := 0
	for _, k := range s.keepers {
		if *k.state.Load() == stateReady {
			n++
		}
	}
	return n
}

// awaitReady waits until all workers are ready, or until one is and some is
// over, or until most is over; it returns how many are.
func (s *supervisor) awaitReady(ctx context.Context, some, most time.Duration) int {
	first, last := time.NewTimer(some), time.NewTimer(most)
	defer first.Stop()
	defer last.Stop()
	enough := len(s.keepers)
	for {
		n := s.ready()
		if n >= enough {
			return n
		}
		select {
		case <-s.changed:
		case <-first.C:
			enough = 1
		case <-last.C:
			return n
		case <-ctx.Done():
			return n
		}
	}
}

// pidOf is the process of a worker; 0: there is none, or no such worker.
func (s *supervisor) pidOf(worker int) int {
	if worker < 0 || worker >= len(s.keepers) {
		return 0
	}
	return int(s.keepers[worker].pid.Load())
}

// started says whether pid is a worker's.
func (s *supervisor) started(pid int) bool {
	for _, k := range s.keepers {
		if pid > 0 && k.pid.Load() == int64(pid) {
			return true
		}
	}
	return false
}

// drain tells every worker that the gateway stops: no worker is started any
// more, running requests finish within limit, and what is idle is closed.
func (s *supervisor) drain(limit time.Duration) {
	s.stopOnce.Do(func() { close(s.stopping) })
	for _, k := range s.keepers {
		l := k.now()
		if l == nil {
			continue
		}
		if l.ready.Load() {
			k.setState(stateDraining)
		}
		if err := s.front.Send(k.id, ipc.DrainFrame(ipc.Drain{Final: true, Limit: limit})); err != nil {
			k.log.Warn("tell a worker to drain", "err", err)
		}
	}
}

// stop ends every worker: told to stop, killed after patience, reaped. Returns
// when none is left and all goroutines of the supervisor have ended.
func (s *supervisor) stop(patience time.Duration) {
	s.stopOnce.Do(func() { close(s.stopping) })
	for _, k := range s.keepers {
		if l := k.now(); l != nil {
			// One that has drained is gone already: no news.
			_ = s.front.Send(k.id, ipc.StopFrame())
		}
	}
	ended := make(chan struct{})
	go func() { // ends when the keepers do
		s.running.Wait()
		close(ended)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-timer.C:
	}
	for _, k := range s.keepers {
		if l := k.now(); l != nil {
			k.log.Warn("a worker that was told to stop is killed", "pid", l.process.pid, "after", patience.String())
			s.lose(k.id, fmt.Errorf("not stopped within %v", patience))
		}
	}
	<-ended
}

func (s *supervisor) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

func (s *supervisor) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// watchHearts has workers lost whose loop does not turn.
func (s *supervisor) watchHearts() {
	tick := time.NewTicker(max(s.stall/8, time.Millisecond))
	defer tick.Stop()
	watch := heartWatch{stall: s.stall}
	for {
		select {
		case <-s.stopping:
			return
		case <-tick.C:
		}
		now := sys.ClockMonotonic()
		if !watch.trust(now) {
			continue
		}
		for _, k := range s.keepers {
			l := k.now()
			if l == nil || !l.ready.Load() {
				continue // a start has a limit of its own
			}
			if age := time.Duration(now) - heartbeat(s.board.Worker(k.id)); age > s.stall {
				s.lose(k.id, fmt.Errorf("its loop has not turned for %v", age.Round(time.Millisecond)))
			}
		}
	}
}

// heartWatch tells old heartbeats from an old look: when this process itself
// did not run (it was stopped, the machine was overloaded), the workers may not
// have run either, and have a stall's time to show that they do.
type heartWatch struct {
	stall  time.Duration
	last   int64 // when trust was last asked, ns
	resume int64 // until when no heartbeat is judged
}

func (w *heartWatch) trust(now int64) bool {
	if w.last != 0 && now-w.last > int64(w.stall)/2 {
		w.resume = now + int64(w.stall)
	}
	w.last = now
	return now >= w.resume
}

// Keeper.

func (k *keeper) now() *life {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.life
}

func (k *keeper) setState(state string) { k.state.Store(&state) }

// run keeps the slot until the supervisor stops and its process is gone.
func (k *keeper) run() {
	var b backoff
	for first := true; !k.isStopping(); first = false {
		if !first {
			k.restarts.Add(1)
		}
		k.setState(stateStarting)
		up, err := k.live()
		k.setState(stateLost)
		k.poke()
		if k.isStopping() {
			return
		}
		k.crashes.Add(1)
		pause := b.failed(up)
		switch {
		case b.broken():
			k.log.Error("a worker keeps failing; it is tried again, slowly", "err", err,
				"up", up.String(), "failures", b.failures, "pause", pause.String())
		default:
			k.log.Error("a worker was lost and is replaced", "err", err, "up", up.Round(time.Millisecond).String(), "pause", pause.String())
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-k.stopping:
			timer.Stop()
			return
		}
	}
}

// live starts a process and returns when it is reaped and what it had has new
// owners. up is how long it was ready.
func (k *keeper) live() (up time.Duration, err error) {
	l, err := k.birth()
	if err != nil {
		return 0, err
	}
	why := k.watch(l)
	if l.ready.Load() {
		up = time.Since(l.since)
	}
	exit := k.death(l)
	if why == nil {
		why = fmt.Errorf("worker %d ended: %s", l.process.pid, exit)
	} else {
		why = fmt.Errorf("worker %d: %w", l.process.pid, why)
	}
	return up, why
}

// birth starts a process, attaches it and sends it the table.
func (k *keeper) birth() (*life, error) {
	slot := k.board.Worker(k.id)
	slot.Reset()
	ours, theirs, err := k.sockets()
	if err != nil {
		return nil, err
	}
	// The first frame waits in the channel when the process begins to read.
	cfg := k.config
	cfg.Worker = k.id
	text, err := json.Marshal(cfg)
	if err != nil {
		panic("gateway: a worker's configuration cannot be written: " + err.Error())
	}
	var donations []int
	for i := range theirs[1:] {
		donations = append(donations, theirs[1+i].Borrow())
	}
	if err := ipc.WriteFrame(ours[0].Borrow(), ipc.HelloFrame(text, k.board.FD(), donations)); err != nil {
		closeAll(ours, theirs)
		return nil, fmt.Errorf("write the first frame: %w", err)
	}
	p, err := startProcess(k.argv, k.env, k.output, theirs[0].Borrow())
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	k.pid.Store(int64(p.pid))
	slot.SetPid(p.pid)
	l := &life{process: p, lost: make(chan error, 1), current: make(chan struct{}, 1), trouble: make(chan string, troubleMax)}
	k.mu.Lock()
	k.life = l
	k.mu.Unlock()
	if err := k.front.AttachWorker(k.id, ours[0], ours[1:]); err != nil {
		l.lost <- fmt.Errorf("attach: %w", err)
		return l, nil
	}
	k.publisher.subscribe(k.id, workerLink{k.front, k.id})
	if k.isStopping() {
		// stop may have looked for processes before this one was there.
		_ = k.front.Send(k.id, ipc.StopFrame())
	}
	k.log.Debug("worker started", "pid", p.pid)
	return l, nil
}

// sockets makes the control channel and one donation socket for each loop and
// the returns loop, both ends.
func (k *keeper) sockets() (ours, theirs []fd.FD, err error) {
	for range 1 + k.front.Loops() + 1 {
		a, b, err := ipc.NewChannel()
		if err != nil {
			closeAll(ours, theirs)
			return nil, nil, fmt.Errorf("sockets of a worker: %w", err)
		}
		ours, theirs = append(ours, a), append(theirs, b)
	}
	return ours, theirs, nil
}

func closeAll(lists ...[]fd.FD) {
	for _, list := range lists {
		for i := range list {
			if err := list[i].Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				panic("gateway: close a socket: " + err.Error())
			}
		}
	}
}

// watch makes the process one that is picked as soon as it is ready, and
// returns why it is no longer wanted; nil: it has ended.
func (k *keeper) watch(l *life) error {
	limit := time.NewTimer(k.start)
	defer limit.Stop()
	troubles := time.NewTicker(troublePeriod)
	defer troubles.Stop()
	stopping, trouble, said := k.stopping, l.trouble, 0
	for {
		select {
		case text := <-trouble:
			k.log.Warn("a worker has trouble", "pid", l.process.pid, "text", text)
			if said++; said == troubleMax {
				trouble = nil // until the next period
			}
		case <-troubles.C:
			trouble, said = l.trouble, 0
			if n := k.unsaid.Swap(0); n > 0 {
				k.log.Warn("a worker has more trouble", "pid", l.process.pid, "lines", n)
			}
		case <-l.process.exited:
			return nil
		case why := <-l.lost:
			if errors.Is(why, errChannelEnded) && l.process.gone(deathGrace) {
				return nil // it ended by itself: how, is the better answer
			}
			return why
		case <-limit.C:
			if !l.ready.Load() {
				return fmt.Errorf("not ready within %v", k.start)
			}
		case <-stopping:
			// drain and stop speak to it; what remains is to see it end.
			stopping = nil
			limit.Stop()
		case <-l.current:
			if k.isStopping() {
				continue
			}
			k.front.WorkerReady(k.id)
			l.since = time.Now()
			l.ready.Store(true)
			k.setState(stateReady)
			k.poke()
			k.log.Info("worker ready", "pid", l.process.pid, "took", time.Since(l.process.started).Round(time.Millisecond).String())
		}
	}
}

// death ends the process, waits until it is gone, and then finds new owners
// for what it had. The order matters: nothing it shares may change any more
// when its slots are walked.
func (k *keeper) death(l *life) (exit string) {
	p := l.process
	if !k.isStopping() {
		k.setState(stateLost)
	}
	p.kill(k.log)
	complaint := time.NewTicker(killComplaint)
	defer complaint.Stop()
	for gone := false; !gone; {
		select {
		case <-p.exited:
			gone = true
		case <-complaint.C:
			k.log.Error("a killed worker does not end", "pid", p.pid)
		}
	}
	k.pid.Store(0)
	k.publisher.leave(k.id)
	k.front.WorkerLost(k.id, l.ready.Load())
	if err := k.board.DropProcess(k.id); err != nil {
		k.log.Warn("drop the counts of a worker that is gone", "err", err)
	}
	// From here on nobody speaks of this process.
	k.mu.Lock()
	k.life = nil
	k.mu.Unlock()
	p.close()
	return ending(p.exit)
}
