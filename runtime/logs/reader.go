package logs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"baton/internal/jsontext"
)

const (
	// TailMax bounds Query.Tail: so many entries are held in memory.
	TailMax = 10_000

	// pollPeriod is how often a follower looks for new lines. A poll that finds
	// nothing costs one read of the folder and one of each worker's segment.
	pollPeriod = 100 * time.Millisecond

	// batchMax is how many entries of one worker are merged with those of the
	// others at once while following.
	batchMax = 256
)

// ErrQuery says that a Query cannot be answered; the text says why.
var ErrQuery = errors.New("logs cannot be read")

// Query says which entries are wanted. The zero value is all there are.
type Query struct {
	Function string    // of this function only; empty: of all
	Request  string    // of this request only; empty: of all
	Since    time.Time // not before
	Tail     int       // the last so many of those that are there; 0: all; at most TailMax
	Follow   bool      // then go on with what is written, until the context ends
}

// Read calls each for the entries in a folder that a query wants, ascending by
// time, and by worker where that is the same. It stops at each's first error and
// returns it as it is.
//
// Without Follow it reads what was there when it was called, and returns nil.
// With Follow it then goes on with what is written, and returns when ctx ends,
// with its error: what is written by several workers within 100 ms is sorted,
// later entries may be older than that by as much. Rotation loses nothing that
// is still there to be read. Entries of lost lines (Dropped) name no function,
// and are given to whoever asks for one.
//
// Lines that are damaged, and segments that cannot be opened, are passed over.
// Errors are those of the folder, of ctx, and ErrQuery.
func Read(ctx context.Context, dir string, q Query, each func(Entry) error) error {
	if q.Tail < 0 || q.Tail > TailMax {
		return fmt.Errorf("%w: tail is %d, want 0 (all) to %d", ErrQuery, q.Tail, TailMax)
	}
	f := filter{Query: q}
	if q.Function != "" {
		f.function = appendNameKey(functionKey, q.Function)
	}
	if q.Request != "" {
		f.request = appendNameKey(requestKey, q.Request)
	}
	chains, err := openChains(dir, &f)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range chains {
			c.close()
		}
	}()
	if q.Tail > 0 {
		err = readTail(ctx, chains, q.Tail, each)
	} else {
		err = readAll(ctx, chains, each)
	}
	if err != nil || !q.Follow {
		return err
	}
	return follow(ctx, dir, &f, &chains, each)
}

func appendNameKey(key, name string) []byte { return jsontext.Append([]byte(key), name) }

// filter is a query and the texts that a line must hold for it to be worth
// parsing.
type filter struct {
	Query
	function, request []byte
}

// parse reads one line; false: it is damaged, or not wanted.
func (f *filter) parse(line []byte) (e Entry, ok bool) {
	lost := f.request == nil && bytes.Contains(line, []byte(droppedKey))
	if !lost && (!bytes.Contains(line, f.function) || !bytes.Contains(line, f.request)) {
		return e, false
	}
	if json.Unmarshal(line, &e) != nil {
		return e, false
	}
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	if year := e.Time.Year(); year < 1970 || 9999 < year {
		return e, false // none, or damage
	}
	if e.Dropped > 0 {
		return e, f.request == nil && !e.Time.Before(f.Since)
	}
	return e, (f.Function == "" || e.Function == f.Function) && (f.Request == "" || e.Request == f.Request) &&
		!e.Time.Before(f.Since)
}

// readAll merges what the chains hold up to their snapshots, oldest first. It
// leaves them there.
func readAll(ctx context.Context, chains []*chain, each func(Entry) error) error {
	heads := make([]*Entry, len(chains))
	advance := func(i int) {
		heads[i] = nil
		if e, ok := chains[i].next(true); ok {
			heads[i] = &e
		}
	}
	for i := range chains {
		advance(i)
	}
	for n := 0; ; n++ {
		if n%batchMax == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		oldest := -1
		for i, e := range heads {
			if e != nil && (oldest < 0 || compare(e, heads[oldest]) < 0) {
				oldest = i
			}
		}
		if oldest < 0 {
			return ctx.Err()
		}
		if err := each(*heads[oldest]); err != nil {
			return err
		}
		advance(oldest)
	}
}

// readTail merges what the chains hold before their snapshots, newest first, and
// gives the last n in their order. It leaves the chains at their snapshots.
func readTail(ctx context.Context, chains []*chain, n int, each func(Entry) error) error {
	backs := make([]backward, len(chains))
	heads := make([]*Entry, len(chains))
	defer func() {
		for i := range backs {
			backs[i].close()
		}
	}()
	advance := func(i int) {
		heads[i] = nil
		if e, ok := backs[i].next(ctx); ok {
			heads[i] = &e
		}
	}
	for i, c := range chains {
		backs[i] = c.backward()
		c.skip()
		advance(i)
	}
	var tail []Entry
	for len(tail) < n {
		newest := -1
		for i, e := range heads {
			if e != nil && (newest < 0 || compare(e, heads[newest]) >= 0) {
				newest = i
			}
		}
		if newest < 0 || ctx.Err() != nil {
			break
		}
		tail = append(tail, *heads[newest])
		advance(newest)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, e := range slices.Backward(tail) {
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// follow gives what comes until ctx ends.
func follow(ctx context.Context, dir string, f *filter, chains *[]*chain, each func(Entry) error) error {
	timer := time.NewTimer(pollPeriod)
	defer timer.Stop()
	var batch []Entry
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := refresh(dir, f, chains); err != nil {
			return err
		}
		batch = batch[:0]
		more := false
		for _, c := range *chains {
			n := 0
			for ; n < batchMax; n++ {
				e, ok := c.next(false)
				if !ok {
					break
				}
				batch = append(batch, e)
			}
			more = more || n == batchMax
		}
		slices.SortStableFunc(batch, func(a, b Entry) int { return compare(&a, &b) })
		for _, e := range batch {
			if err := each(e); err != nil {
				return err
			}
		}
		if more {
			continue
		}
		timer.Reset(pollPeriod)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

func compare(a, b *Entry) int {
	return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Worker, b.Worker))
}
