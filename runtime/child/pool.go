package child

import (
	"slices"
	"sync"
	"time"

	"baton/runtime"
	"baton/sandbox"
)

// Config is one function's pool.
type Config struct {
	// Name is the function's, for the log.
	Name string
	// Spec is what each process is and may do. Dir is set here.
	Spec sandbox.Spec
	// Max bounds the processes; zero: Options.ProcessesMax.
	Max int
	// Few is how many processes are started as soon as a request waits, before growAfter has a say; zero: one.
	Few int
	// Uses is how many requests a process serves before it is replaced; zero: any number.
	Uses int

	// Open runs before each start and may set Stdin, Output, Files and State of the process.
	// Ready runs once it is started, and returns when it takes requests; reads of its Channel
	// are bounded then. Free runs when the process is gone, also when Open or Ready has
	// failed. Each may be nil.
	Open  func(*Process) error
	Ready func(*Process) error
	Free  func(*Process)

	// Gone runs once, when a Function was closed and its processes are gone: it gives back what its
	// kind has made of it. May be nil.
	Gone func() error
}

// Pool holds the processes of one function.
type Pool struct {
	o     *Shared
	c     Config
	keeps bool // nothing leaves a process's group: Spec.KeepsProcesses

	background sync.WaitGroup // the watcher, starts and ends of processes
	out        sync.WaitGroup // processes between Get and Put
	done       chan struct{}  // closed by Close
	wake       chan struct{}  // holds one: the watcher has something to look at

	mu       sync.Mutex
	all      []*Process // guarded by mu; those that run
	idle     []*Process // guarded by mu; the last used last
	starting int        // guarded by mu
	waiters  []*waiter  // guarded by mu; the first to wait first
	closed   bool       // guarded by mu
	watching bool       // guarded by mu; the watcher runs
	asleep   bool       // guarded by mu; … and ticks slowly
	pause    time.Duration
	again    time.Time // guarded by mu; no start before
	failed   error     // guarded by mu; of the last start
	enough   int       // guarded by mu; see Enough; 0: any number
}

type waiter struct {
	inv      *runtime.Invocation
	deadline time.Time
	since    time.Time
	got      chan grant // holds one
	task     Task       // not nil: it is served, and nothing is got
}

// grant is what a waiter gets: a process, or a result.
type grant struct {
	p      *Process
	result runtime.Result
}

// NewPool makes a pool without processes.
func (o *Shared) NewPool(c Config) *Pool {
	if c.Max <= 0 {
		c.Max = o.ProcessesMax
	}
	c.Spec.Without = slices.Concat(c.Spec.Without, o.Without)
	return &Pool{o: o, c: c, keeps: c.Spec.KeepsProcesses(), done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// Get returns a process for inv, which is then the caller's until Put: an idle one, or the next that becomes
// free or is started. nil: there is none before the deadline, because starts do
// not succeed, or because inv was cancelled; the result says so.
func (p *Pool) Get(inv *runtime.Invocation, deadline time.Time) (*Process, runtime.Result) {
	pr, w, result := p.take(inv, deadline, nil)
	if w == nil {
		return pr, result
	}
	g := <-w.got // by Put, a start, the watcher, or Close
	return g.p, g.result
}

// take is Get without waiting: a waiter, a process, or neither and the result.
func (p *Pool) take(inv *runtime.Invocation, deadline time.Time, task Task) (*Process, *waiter, runtime.Result) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, runtime.Result{Reason: runtime.Unavailable, Detail: "function was closed"}
	}
	p.watch()
	for len(p.idle) > 0 {
		pr := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if pr.hasExited() {
			p.drop(pr)
			continue
		}
		p.out.Add(1)
		p.mu.Unlock()
		return pr, nil, runtime.Result{}
	}
	now := time.Now()
	if len(p.all)+p.starting == 0 {
		if now.Before(p.again) {
			err := p.failed
			p.mu.Unlock()
			return nil, nil, runtime.Result{Reason: runtime.Unavailable, Detail: "no process can be started: " + err.Error()}
		}
		p.grow()
	}
	if len(p.waiters) >= waitersMax {
		p.mu.Unlock()
		return nil, nil, runtime.Result{Reason: runtime.Unavailable, Detail: "too many requests wait for a process"}
	}
	w := &waiter{inv: inv, deadline: deadline, since: now, task: task}
	if task == nil {
		w.got = make(chan grant, 1)
	}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	return nil, w, runtime.Result{}
}

// Put gives a process back. One that is not reusable is ended.
func (p *Pool) Put(pr *Process, reusable bool) {
	p.put(pr, reusable, false)
}

// put is Put. With more, the caller serves the first task that waits, on the
// same process, instead of another goroutine.
func (p *Pool) put(pr *Process, reusable, more bool) (next Task) {
	defer p.out.Done()
	p.mu.Lock()
	reusable = reusable && !p.closed && (p.c.Uses <= 0 || pr.Requests < p.c.Uses)
	if reusable && p.enough > 0 && len(p.all) > p.enough && !p.wantsMore(time.Now()) {
		reusable = false
	}
	if reusable {
		if more && len(p.waiters) > 0 && p.waiters[0].task != nil {
			next = p.first().task
			p.out.Add(1)
		} else {
			p.hand(pr)
		}
		p.mu.Unlock()
		return next
	}
	p.drop(pr)
	if len(p.waiters) > 0 && len(p.all)+p.starting == 0 {
		p.grow()
	}
	p.mu.Unlock()
	return nil
}

// first takes out who waits first. mu is held, and somebody waits.
func (p *Pool) first() *waiter {
	w := p.waiters[0]
	p.waiters[0] = nil
	p.waiters = p.waiters[1:]
	return w
}

// hand gives a process to who waits first, or keeps it. mu is held.
func (p *Pool) hand(pr *Process) {
	if len(p.waiters) > 0 {
		p.out.Add(1)
		p.give(p.first(), grant{p: pr})
		return
	}
	pr.usedAt = time.Now()
	p.idle = append(p.idle, pr)
}

// drop takes a process out and ends it beside. mu is held.
func (p *Pool) drop(pr *Process) {
	p.all = slices.DeleteFunc(p.all, func(q *Process) bool { return q == pr })
	p.background.Go(pr.release)
}

// grow starts one more process beside. mu is held; Close waits for it.
func (p *Pool) grow() {
	p.starting++
	p.background.Go(func() {
		pr, err := p.start()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.starting--
		if err != nil {
			p.notStarted(err)
			return
		}
		p.pause, p.failed = 0, nil
		p.all = append(p.all, pr)
		if p.closed {
			p.drop(pr)
			return
		}
		p.hand(pr)
	})
}

// notStarted has everybody who waits for the first process answered, and makes
// a pause. mu is held.
func (p *Pool) notStarted(err error) {
	p.pause = min(max(2*p.pause, pauseFirst), pauseMax)
	p.again, p.failed = time.Now().Add(p.pause), err
	p.o.Log.Error("a function's process cannot be started", "function", p.c.Name, "err", err, "again", p.pause.String())
	if len(p.all)+p.starting > 0 {
		return
	}
	for _, w := range p.waiters {
		p.give(w, grant{result: runtime.Result{Reason: runtime.Unavailable, Detail: "no process can be started: " + err.Error()}})
	}
	p.waiters = nil
}

// watch has the watcher run, and tick. mu is held.
func (p *Pool) watch() {
	if !p.watching {
		p.watching = true
		p.background.Go(p.watcher)
		return
	}
	if p.asleep {
		p.asleep = false
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// slowTicks is how many ticks without anything to do it takes until the
// watcher ticks slowly.
const slowTicks = 10

// watcher looks after deadlines, cancellations, waiting requests and idle
// processes, until there are no processes, or Close.
func (p *Pool) watcher() {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for quiet := 0; ; {
		select {
		case <-p.done:
			return
		case <-p.wake:
			ticker.Reset(tickEvery)
			quiet = 0
			continue
		case <-ticker.C:
		}
		busy, over := p.look(time.Now())
		if over {
			return
		}
		if quiet++; busy {
			quiet = 0
		}
		if quiet == slowTicks {
			p.mu.Lock()
			p.asleep = true
			p.mu.Unlock()
			ticker.Reset(idleAfter / 4)
		}
	}
}

// look is one tick. over: there is nothing left to watch, and the watcher ends.
func (p *Pool) look(now time.Time) (busy, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, true
	}
	for _, pr := range p.all {
		if pr.look(now) {
			busy = true
		}
	}
	p.lookWaiters(now)
	p.lookIdle(now)
	busy = busy || len(p.waiters) > 0 || p.starting > 0
	if !busy && len(p.all) == 0 {
		p.watching, p.asleep = false, false
		return false, true
	}
	return busy, false
}

// lookWaiters answers who cannot wait any longer, and starts one more process
// for who has waited long enough. mu is held.
func (p *Pool) lookWaiters(now time.Time) {
	p.waiters = slices.DeleteFunc(p.waiters, func(w *waiter) bool {
		switch {
		case w.inv.Cancel != nil && w.inv.Cancel.Load():
			p.give(w, grant{result: runtime.Result{Reason: runtime.Cancelled, Detail: "cancelled"}})
		case now.After(w.deadline):
			p.give(w, grant{result: runtime.Result{Reason: runtime.Timeout, Detail: "no process was free before the deadline"}})
		default:
			return false
		}
		return true
	})
	if p.starting == 0 && len(p.all) < p.c.Max && !now.Before(p.again) && p.wantsMore(now) {
		p.grow()
	}
}

// wantsMore says whether somebody has waited for long enough to have one more
// process than there are, or to keep one above what is enough. mu is held.
func (p *Pool) wantsMore(now time.Time) bool {
	if len(p.waiters) == 0 {
		return false
	}
	if len(p.all) < p.c.Few {
		return true
	}
	after := growAfter * time.Duration(min(len(p.all), growMax))
	if p.enough > 0 && len(p.all) >= p.enough {
		after = enoughPatience
	}
	return now.Sub(p.waiters[0].since) >= after
}

// Enough says that n processes are enough from here on, because the requests of
// this function want the processor and seldom wait: with more of them at a time
// each finds the others' data in the caches. Those above n end as they come back, and more are started only
// when somebody has waited for enoughPatience, which a function that does begin to wait needs. Zero: any
// number up to Config.Max.
func (p *Pool) Enough(n int) {
	p.mu.Lock()
	p.enough = n
	p.mu.Unlock()
}

// lookIdle ends processes that were not used for long, and those that have
// ended by themselves. mu is held.
func (p *Pool) lookIdle(now time.Time) {
	p.idle = slices.DeleteFunc(p.idle, func(pr *Process) bool {
		if !pr.hasExited() && now.Sub(pr.usedAt) < idleAfter {
			return false
		}
		p.drop(pr)
		return true
	})
}

// Close ends all processes, also those that serve an invocation, which ends
// with Cancelled, and waits for everything that the pool has started, and until
// everybody has put back what Get gave.
func (p *Pool) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	close(p.done)
	for _, w := range p.waiters {
		p.give(w, grant{result: runtime.Result{Reason: runtime.Unavailable, Detail: "function was closed"}})
	}
	p.waiters = nil
	for _, pr := range p.idle {
		p.drop(pr)
	}
	p.idle = nil
	for _, pr := range p.all { // those that run are put back by who has them
		pr.Fail(runtime.Cancelled, "function was closed")
	}
	p.mu.Unlock()
	p.out.Wait()
	p.background.Wait()
}
