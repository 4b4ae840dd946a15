package reactor

import (
	"errors"
	"fmt"
	"reflect"

	"baton/internal/sys"

	"github.com/panjf2000/gnet/v2/pkg/netpoll"
)

// turnEventsMax bounds the events of one turn; the others wait for the next.
const turnEventsMax = 256

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
		n, err := sys.EpollWait(l.epfd, events)
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		for i := range events[:n] {
			err := l.onEvent(int(events[i].Fd), events[i].Events, 0)
			if err == nil {
				continue
			}
			if errors.Is(err, errLeave) || errors.Is(err, errStop) {
				return err
			}
		}
		l.sendHeld()
	}
}
