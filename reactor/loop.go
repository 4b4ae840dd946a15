package reactor

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"baton/httpparse"
	"baton/internal/sys"
	"baton/ipc"
	"baton/route"
)

const (
	// tickInterval is how often a loop with connections looks at its clock and
	// its deadlines. Deadlines are seconds, so a tenth of one is exact enough,
	// and an idle loop is woken ten times a second at most.
	tickInterval = 100 * time.Millisecond

	// scratchBytes is the size of a loop's read buffer: one read(2) takes at
	// most this much. It holds a whole head (httpparse.HeadBytesMax) with room
	// for pipelined requests or the begin of a body, and is exactly what travels
	// with one connection, so what one loop has read another can take.
	scratchBytes = ipc.ConnBytesMax

	// mailMax bounds the functions posted to a loop and not yet run. They come
	// from the supervisor and the publication of tables, a few per worker; a
	// fuller mailbox means a loop that no longer turns.
	mailMax = 4096
)

// What an event's handler returns to end turns: errLeave, this goroutine is no
// longer the loop; errStop, the loop ends.
var (
	errLeave = errors.New("another goroutine is the loop")
	errStop  = errors.New("the loop stops")
)

var errMailboxFull = errors.New("the event loop does not answer: its mailbox is full")

// scratch is the storage of the goroutine that is the loop right now. It is
// not the loop's: a promoted goroutine keeps its scratch until its function
// ends, and the goroutine that goes on as the loop has another.
type scratch struct {
	in  []byte // what the last read(2) delivered
	out []byte // the platform's own answers are built here
}

// loop is what front, returns and back loops have in common: a poller with its
// event sources, a coarse clock, deadlines, and a mailbox.
type loop struct {
	// Immutable after open.
	name     string
	log      *slog.Logger
	poller   *netpoll.Poller
	epfd     int // the poller's set; borrowed: see turns
	wakefd   int // eventfd: mail, finished invocations
	tickfd   int // timerfd
	role     role
	onTick   func()
	onTurn   func() // runs once at the end of a turn that asked for it (needTurn)
	onWake   func() // more to look at when woken
	timer    timeouts
	table    *route.Published
	board    *ipc.Board
	counters *Counters

	// Loop-owned.
	conns     []*conn              // by descriptor number
	sources   map[int]func() error // descriptors that are no client connections
	wheel     wheel
	now       int64 // coarse monotonic nanoseconds, refreshed by ticks
	unix      int64 // coarse wall clock in seconds, of date
	date      [httpparse.DateBytes]byte
	ticking   bool
	turn      bool  // the end of this turn is asked for: see endTurn
	turnBy    int64 // the monotonic clock at which it is asked for at the latest; 0: never
	soon      int64 // turnSoon
	scratch   *scratch
	call      *call // the request being parsed; see call.go
	ids       idSource
	draining  bool
	stopped   bool
	done      chan struct{}
	connsOpen int
	events    int // handled since the last tick
	muted     int // connections watched edge-triggered
	held      held
	storage   storage
	later     []*conn  // have requests here that wait for the next turn; the first to wait first
	buffers   [][]byte // for unread bytes, of keepBytes each, for reuse
	free      *conn    // structs for reuse
	freeCount int
	calls     *call // likewise
	callCount int

	mail mailbox
}

// mailbox is the door into a loop. A function in it is called once on the
// loop's goroutine, in the order of posting.
type mailbox struct {
	mu     sync.Mutex
	closed bool
	queue  []func()
	spare  []func()
}

// timeouts are the limits in time of one connection; each is counted on its
// own counter when it ends a connection.
type timeouts struct {
	Head      time.Duration // from the first byte of a head to its last
	Body      time.Duration // a client that sends nothing of its body, or too little: see pace
	KeepAlive time.Duration // idle between two requests
	Write     time.Duration // a client that takes nothing of its answer, or too little: see pace
	Linger    time.Duration // a client that sends nothing after a refusal; lingerTimes that in all
	Probe     time.Duration // from a client's FIN to the question whether it is still there, and between two
}

func (l *loop) open(name string, log *slog.Logger) (err error) {
	l.name, l.log = name, log
	l.wakefd, l.tickfd = -1, -1
	l.sources = make(map[int]func() error)
	l.done = make(chan struct{})
	l.scratch = newScratch()
	l.call = newCall()
	l.buffers = make([][]byte, 0, buffersFreeMax)
	l.held.limit = heldFor
	l.soon = turnSoon
	l.ids.seed()
	l.wheel.init()
	l.refreshClock()
	if l.poller, err = netpoll.OpenPoller(); err != nil {
		return fmt.Errorf("open poller of loop %s: %w", name, err)
	}
	if l.epfd, err = epollOf(l.poller); err != nil {
		l.closeDescriptors()
		return fmt.Errorf("loop %s: %w", name, err)
	}
	if l.wakefd, err = sys.Eventfd(); err != nil {
		l.closeDescriptors()
		return fmt.Errorf("wake-up of loop %s: %w", name, err)
	}
	if l.tickfd, err = sys.Timerfd(); err != nil {
		l.closeDescriptors()
		return fmt.Errorf("tick of loop %s: %w", name, err)
	}
	if err = l.watch(l.wakefd, l.onWakeup); err == nil {
		err = l.watch(l.tickfd, l.onTimer)
	}
	if err != nil {
		l.closeDescriptors()
		return fmt.Errorf("loop %s: %w", name, err)
	}
	return nil
}

func newScratch() *scratch {
	return &scratch{in: make([]byte, scratchBytes), out: make([]byte, 0, 4<<10)}
}

func (l *loop) closeDescriptors() {
	for _, fd := range []int{l.wakefd, l.tickfd} {
		if fd >= 0 {
			sys.CloseRaw(fd)
		}
	}
	l.wakefd, l.tickfd = -1, -1
	if l.poller != nil {
		_ = l.poller.Close()
	}
}

// watch calls f on the loop whenever fd is readable. The descriptor stays the
// caller's; unwatch before closing it.
func (l *loop) watch(fd int, f func() error) error {
	if err := l.poller.AddRead(&netpoll.PollAttachment{FD: fd}, false); err != nil {
		return fmt.Errorf("watch descriptor: %w", err)
	}
	l.sources[fd] = f
	return nil
}

func (l *loop) unwatch(fd int) {
	if _, ok := l.sources[fd]; ok {
		delete(l.sources, fd)
		_ = l.poller.Delete(fd)
	}
}

// run is the loop's goroutine: it turns until stop. A goroutine that was
// promoted away while a function ran on it returns, and another is the loop.
func (l *loop) run() {
	err := l.turns()
	switch {
	case errors.Is(err, errLeave):
		return
	case !errors.Is(err, errStop):
		// epoll_wait(2) fails only for reasons that are ours.
		panic(fmt.Sprintf("reactor: loop %s: epoll_wait: %v", l.name, err))
	}
	l.closeDescriptors()
	close(l.done)
}

// post runs f on the loop's goroutine, soon. It may be called from anywhere.
// An error says that f will not run: the loop has stopped or does not turn.
func (l *loop) post(f func()) error {
	l.mail.mu.Lock()
	if l.mail.closed {
		l.mail.mu.Unlock()
		return errLoopStopped
	}
	if len(l.mail.queue) >= mailMax {
		l.mail.mu.Unlock()
		return errMailboxFull
	}
	first := len(l.mail.queue) == 0
	l.mail.queue = append(l.mail.queue, f)
	if first {
		// Signalled under the lock: stop closes the descriptor after closing
		// the mailbox, so this number is still ours.
		sys.EventfdSignal(l.wakefd)
	}
	l.mail.mu.Unlock()
	return nil
}

var errLoopStopped = errors.New("the event loop has stopped")

// ask runs f on the loop and waits until it has run.
func (l *loop) ask(f func()) error {
	ran := make(chan struct{})
	if err := l.post(func() { f(); close(ran) }); err != nil {
		return err
	}
	select {
	case <-ran:
		return nil
	case <-l.done:
		return errLoopStopped
	}
}

// stop ends the loop at the end of its current event and waits for it.
func (l *loop) stop() {
	_ = l.post(func() {
		l.mail.mu.Lock()
		l.mail.closed = true
		l.mail.mu.Unlock()
		l.stopped = true
	})
	<-l.done
}

// onEvent is called by the poller for each ready descriptor. It returns errLeave
// or errStop to end turns.
func (l *loop) onEvent(fd int, mask netpoll.IOEvent, _ netpoll.IOFlags) error {
	if fd < len(l.conns) {
		if c := l.conns[fd]; c != nil {
			return l.onConn(c, mask)
		}
	}
	if f, ok := l.sources[fd]; ok {
		l.sendHeld() // what f finds, it finds at rest
		if err := f(); err != nil {
			return err
		}
		if l.stopped {
			l.sendHeld()
			return errStop
		}
		return nil
	}
	// A descriptor closed earlier in this batch. If it is still in the set we
	// forgot it there, and it would be announced for ever.
	_ = l.poller.Delete(fd)
	return nil
}

func (l *loop) onWakeup() error {
	sys.EventfdDrain(l.wakefd)
	l.mail.mu.Lock()
	queue := l.mail.queue
	l.mail.queue = l.mail.spare[:0]
	l.mail.mu.Unlock()
	for i, f := range queue {
		f()
		queue[i] = nil
	}
	l.mail.mu.Lock()
	l.mail.spare = queue[:0]
	l.mail.mu.Unlock()
	if l.onWake != nil {
		l.onWake()
	}
	return nil
}

// needTurn has onTurn called, and the connections resumed that wait for their
// turn, after the events of this one.
func (l *loop) needTurn() { l.turn = true }

// needTurnSoon has the same done after soon nanoseconds, or, when nothing else
// happens meanwhile, within twice that.
func (l *loop) needTurnSoon() {
	if l.turnBy == 0 {
		l.turnBy = sys.ClockMonotonic() + l.soon
	}
}

func (l *loop) onTimer() error {
	sys.TimerfdDrain(l.tickfd)
	l.refreshClock()
	l.wheel.advance(l.now, l.onDeadline)
	if l.onTick != nil {
		l.onTick()
	}
	l.events = 0
	if l.connsOpen == 0 && l.wheel.count == 0 && l.onTick == nil {
		l.setTicking(false)
	}
	return nil
}

func (l *loop) setTicking(on bool) {
	if l.ticking == on {
		return
	}
	l.ticking = on
	interval := time.Duration(0)
	if on {
		interval = tickInterval
		l.refreshClock()
	}
	if err := sys.TimerfdSet(l.tickfd, interval, interval); err != nil {
		panic(fmt.Sprintf("reactor: loop %s: timerfd_settime: %v", l.name, err))
	}
}

func (l *loop) refreshClock() {
	l.now = sys.ClockMonotonic()
	if unix := time.Now().Unix(); unix != l.unix {
		l.unix = unix
		httpparse.AppendDate(l.date[:0], unix)
	}
}

// register makes the loop the owner of c's descriptor and its events.
func (l *loop) register(c *conn) {
	for c.fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*conn, 1024)...)
	}
	if l.conns[c.fd] != nil {
		panic("reactor: descriptor registered twice")
	}
	l.conns[c.fd] = c
	l.connsOpen++
	l.setTicking(true)
}

// unregister gives c's descriptor up without closing it: it leaves the poller
// first, because epoll watches the description and not the number.
func (l *loop) unregister(c *conn) {
	if c.armed {
		l.disarm(c)
	}
	if c.queued {
		c.queued = false
		l.later = slices.DeleteFunc(l.later, func(q *conn) bool { return q == c })
	}
	l.conns[c.fd] = nil
	l.connsOpen--
	l.wheel.remove(c)
}
