package reactor

import (
	"errors"
	"fmt"
	"reflect"
	goruntime "runtime"
	"sync"
	"time"

	"baton/internal/sys"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
)

const (
	// turnEventsMax bounds the events of one turn; the others wait for the next.
	turnEventsMax = 256

	// turnSoon is how long what needTurnSoon asks for may wait for more of its like.
	// Shorter, and each of a stream of short connections costs a message to another
	// process, and its wake-up; longer, and what waits for the message waits.
	turnSoon = int64(2 * time.Millisecond)
)

// ReserveProcessors gives each of n loops of this process a processor of Go's,
// beside those that there are, and returns what takes them back. A loop keeps its
// processor while it waits in the kernel; with fewer, one that wakes may find none,
// and waits for Go's monitor thread to take one from a loop that sleeps. See
// RATIONALE.md, "How many processors does Go get?".
func ReserveProcessors(n int) (release func()) {
	addProcessors(n)
	return func() { addProcessors(-n) }
}

var processorsMu sync.Mutex

func addProcessors(n int) {
	processorsMu.Lock()
	defer processorsMu.Unlock()
	goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(0) + n)
}

// epollOf returns the descriptor of p's epoll set, which stays p's.
//
// Source: gnet v2.10.0, pkg/netpoll/poller_epoll_default.go, type Poller.
func epollOf(p *netpoll.Poller) (int, error) {
	fd := reflect.ValueOf(p).Elem().FieldByName("fd")
	if !fd.IsValid() || !fd.CanInt() || fd.Int() <= 0 {
		return -1, errors.New("gnet's poller is not as it was in v2.10.0: it has no descriptor of its epoll set")
	}
	return int(fd.Int()), nil
}

// turns waits for events and handles them until onEvent says errLeave or
// errStop; another error concerns that event alone.
//
// It waits instead of Polling, which asks once more without waiting after every
// turn, and yields when nothing has come: Go then wakes another thread to look
// for work. See RATIONALE.md, "Why do loops not wait in gnet's Polling?".
func (l *loop) turns() error {
	events := make([]sys.EpollEvent, turnEventsMax) // this goroutine's: see promote
	for {
		// First, because a goroutine that was the loop may have left it undone.
		if err := l.endTurn(); err != nil {
			return err
		}
		if l.stopped {
			return errStop
		}
		n, err := sys.EpollWait(l.epfd, events, l.patience())
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		l.events += n
		for i := range events[:n] {
			err := l.onEvent(int(events[i].Fd), events[i].Events, 0)
			if err == nil {
				continue
			}
			if errors.Is(err, errLeave) || errors.Is(err, errStop) {
				return err
			}
		}
	}
}

// patience is how many milliseconds the next turn may wait for its events; -1:
// as long as it takes.
func (l *loop) patience() int {
	switch {
	case l.turn:
		return 0
	case l.turnBy != 0:
		return int(l.soon / int64(time.Millisecond))
	}
	return -1
}

// endTurn does what the events of a turn have left for its end: it writes the
// answers that are held, and, when it was asked for, sends what was gathered for
// other processes and has one request more handled of each connection that has
// several. Those that have further ones get the next turn, which does not wait.
// It returns errLeave when a function was promoted.
func (l *loop) endTurn() error {
	l.sendHeld()
	if !l.turn && (l.turnBy == 0 || sys.ClockMonotonic() < l.turnBy) {
		return nil
	}
	l.turn, l.turnBy = false, 0
	l.onTurn()
	return l.resume()
}
