package reactor

import (
	"fmt"
	"time"

	"baton/ipc"
	"baton/route"
)

const (
	// switchWait is how long a new table waits for the functions that are loaded before it is
	// published. Too small: requests of a function that is slow to load wait for it; too
	// large: the gateway, which waits 5 s for a confirmation, takes the worker for lost.
	switchWait = 2 * time.Second

	// calledLately: a function that was called by any worker within this time is loaded
	// before the switch to its new version.
	calledLately = time.Minute

	// firstLooksMax bounds the changes of a table that are considered: each is a look at the cells of
	// all processes, and a page of the board that nobody has touched costs memory from the first look on.
	firstLooksMax = 4096
)

// switching is a table that was sent and is not yet published here: requests
// run at the one before, until what the new one needs at once is loaded. That
// is what is new, and the new versions of what was called lately.
type switching struct {
	table     *route.Table
	problems  int
	cells     []uint32 // of the routes that change
	functions []*function
	loading   int   // of functions
	until     int64 // loop clock
}

// applyTable begins the switch to a new generation.
func (b *Back) applyTable(m ipc.TableDelta) error {
	changes, err := route.ParseChanges(m.Payload)
	if err != nil {
		return fmt.Errorf("changes of table %d: %w", m.To, err)
	}
	if b.switching != nil {
		b.switchNow() // the gateway does not wait for it, so neither do we
	}
	old := b.table.Load()
	if m.From != old.Generation() {
		return fmt.Errorf("changes of table %d are for generation %d, this worker is at %d", m.To, m.From, old.Generation())
	}
	t, bad := old.Apply(m.To, changes)
	s := &switching{table: t, problems: len(bad), until: b.now + int64(switchWait)}
	for i := range changes {
		s.cells = append(s.cells, changes[i].Row.Cell)
	}
	b.switching = s
	b.loadFirst(s, old, changes, true)
	b.loadFirst(s, old, changes, false)
	if s.loading == 0 {
		b.switchNow()
	}
	return nil
}

// loadFirst has functions loaded before the switch: those that were called
// lately, or those that were not and are new.
func (b *Back) loadFirst(s *switching, old *route.Table, changes []route.Change, called bool) {
	lately := b.now/int64(time.Millisecond) - calledLately.Milliseconds()
	for i := range changes[:min(len(changes), firstLooksMax)] {
		c := &changes[i]
		if len(s.functions) >= b.cfg.LoadFirst {
			return
		}
		if c.Op != route.OpPut || int64(c.Row.Cell) >= int64(b.board.Cells()) {
			continue
		}
		last := b.board.Called(c.Row.Cell)
		if was := last > 0 && last >= lately; was != called || !was && old.Get(c.Row.Key) != nil {
			continue
		}
		f := s.table.Get(c.Row.Key)
		if f == nil {
			continue // a row that the table has refused
		}
		next := &function{route: f, first: s}
		s.functions = append(s.functions, next)
		s.loading++
		b.load(next)
	}
}

// onLoadedFirst makes the switch when f is the last one that it waits for.
func (b *Back) onLoadedFirst(f *function) {
	s := f.first
	f.first = nil
	if s == nil {
		return
	}
	if s.loading--; s.loading == 0 && b.switching == s {
		b.switchNow()
	}
}

// switchNow publishes the table that was sent last and confirms it. What is not
// loaded yet goes on loading, and its requests wait.
func (b *Back) switchNow() {
	s := b.switching
	b.switching = nil
	for _, cell := range s.cells {
		b.forget(cell)
	}
	for _, next := range s.functions {
		*b.place(next.route.Cell) = next
	}
	b.table.Store(s.table)
	if !b.ready {
		b.sayReady()
		return
	}
	// The gateway has built the same table: what it could apply, we can.
	b.send(ipc.AppliedFrame(ipc.Applied{Generation: s.table.Generation(), Problems: s.problems}))
}
