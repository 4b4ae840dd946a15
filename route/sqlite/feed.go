package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Sink is who wants to know about rows. Its methods are called one at a time,
// on the goroutine of Run. An error ends Run.
type Sink interface {
	// Reset says all rows that there are; the slice is the sink's.
	Reset(rows []KV) error
	// Change says what some rows are now, each key once; the slice is the
	// sink's. One transaction's changes come together, as far as they fit into FeedOptions.Batch.
	Change(changes []KVChange) error
	// Trouble says that changes cannot be seen now, and why; nil, that they
	// can again. It is called once for each new kind of trouble, not for each
	// failed look. What was said before stays true to the best of our
	// knowledge.
	Trouble(err error)
}

// FeedOptions are a feed's. The zero value has the defaults.
type FeedOptions struct {
	// Poll is the time between two looks; 0: 20 ms. Less costs CPU (a look
	// that finds nothing takes some 20 µs), more delays changes.
	Poll time.Duration
	// Batch is the most entries of the change log that are read in one
	// transaction and given to the sink in one call; 0: 4096. Less splits
	// transactions of other processes into more calls, more makes each longer.
	Batch int
}

// The defaults and waits of a feed.
const (
	pollDefault  = 20 * time.Millisecond
	batchDefault = 4096
	backoffMax   = 500 * time.Millisecond // between two looks while there is trouble
	busyRead     = 250 * time.Millisecond // readers of a WAL wait for a recovery or an exclusive lock only
)

// Feed tells a Sink about every change of the rows in a file.
type Feed struct {
	path    string
	options FeedOptions
	wake    chan struct{}
	seq     atomic.Int64                  // all of the change log up to here is with the sink
	moved   atomic.Pointer[chan struct{}] // closed when seq changes

	// Owned by Run.
	sink    Sink
	h       *handle
	version *sql.Stmt // PRAGMA data_version
	data    int64     // its value at the last look
	schema  int64     // PRAGMA schema_version
	loaded  bool      // the sink has had all rows of this file
}

// OpenFeed prepares to watch the file at path, which need not exist yet.
func OpenFeed(path string, o FeedOptions) (*Feed, error) {
	if o.Poll == 0 {
		o.Poll = pollDefault
	}
	if o.Batch == 0 {
		o.Batch = batchDefault
	}
	if o.Poll < 0 || o.Batch < 0 {
		return nil, fmt.Errorf("open feed: negative poll %v or batch %d", o.Poll, o.Batch)
	}
	f := &Feed{path: path, options: o, wake: make(chan struct{}, 1)}
	moved := make(chan struct{})
	f.moved.Store(&moved)
	return f, nil
}

// Wake makes Run look at once, instead of at the next poll. Any goroutine may
// call it at any time.
func (f *Feed) Wake() {
	select {
	case f.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// Seq is how far into the change log the sink has come.
func (f *Feed) Seq() int64 { return f.seq.Load() }

// Await returns when the sink has had the change log up to seq, or ctx's error.
func (f *Feed) Await(ctx context.Context, seq int64) error {
	for {
		moved := *f.moved.Load() // before the look: what comes after it closes this one
		if f.Seq() >= seq {
			return nil
		}
		f.Wake()
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setSeq is called by Run's goroutine alone.
func (f *Feed) setSeq(seq int64) {
	f.seq.Store(seq)
	moved := make(chan struct{})
	close(*f.moved.Swap(&moved))
}

// Run reads all rows, calls Reset, and then watches until ctx ends or the sink
// answers an error, which is returned. It keeps trying when there is no file,
// or a locked or damaged one. It creates no file, but the tables, index and
// triggers that are missing in it.
//
// A changed schema (somebody dropped a trigger, or ran VACUUM) or another file
// at the path means Reset: changes may have gone by unseen.
//
// Call it once.
func (f *Feed) Run(ctx context.Context, sink Sink) error {
	f.sink = sink
	defer f.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var told trouble // to the sink; zero: none
	wait := f.options.Poll
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.wake:
		case <-timer.C:
		}
		err := f.look(ctx)
		var refused *sinkError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused):
			return refused.err
		case err == nil:
			wait = f.options.Poll
			if told != (trouble{}) {
				sink.Trouble(nil)
			}
			told = trouble{}
		default:
			wait = min(2*wait, max(backoffMax, f.options.Poll))
			if now := troubleOf(err); now != told {
				sink.Trouble(err)
				told = now
			}
		}
		timer.Reset(wait)
	}
}

// sinkError is the sink's own, on its way through look.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return "sink: " + e.err.Error() }

func toSink(err error) error {
	if err != nil {
		return &sinkError{err}
	}
	return nil
}

// trouble is a kind of trouble, to tell a new one from one that goes on. What
// has no sentinel is told apart by its words: that decides about a report only.
type trouble struct {
	kind  error
	words string
}

func troubleOf(err error) trouble {
	for _, kind := range []error{ErrMissing, ErrBusy, ErrCorrupt, ErrVersion} {
		if errors.Is(err, kind) {
			return trouble{kind: kind}
		}
	}
	return trouble{words: err.Error()}
}

func (f *Feed) close() {
	if f.h != nil {
		_ = f.version.Close()
		f.h.close()
		f.h = nil
	}
}

// look finds out whether anything has changed and tells the sink. After most
// errors the next look opens the file anew; a busy one stays open, and so does
// one whose name is gone, because the name may come back.
func (f *Feed) look(ctx context.Context) (err error) {
	defer func() {
		if err != nil && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrMissing) {
			f.close()
		}
	}()
	if f.h != nil {
		if err := f.h.current(); err == errReplaced {
			f.close()
		} else if err != nil {
			return err
		}
	}
	if f.h == nil {
		f.loaded = false
		h, err := openHandle(ctx, f.path, busyRead)
		if err != nil {
			return err
		}
		if f.version, err = h.conn.PrepareContext(ctx, "PRAGMA data_version"); err != nil {
			h.close()
			return classify(err)
		}
		f.h = h
	}
	// Before anything is read: a commit from now on changes it again.
	var data, schema int64
	if err := f.version.QueryRowContext(ctx).Scan(&data); err != nil {
		return classify(err)
	}
	if f.loaded && data == f.data {
		return nil
	}
	if err := f.h.conn.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&schema); err != nil {
		return classify(err)
	}
	if !f.loaded || schema != f.schema {
		err = f.reload(ctx)
	} else {
		err = f.advance(ctx)
	}
	if err == nil {
		f.data = data
	}
	return err
}

// reload repairs the schema and gives the sink all rows.
func (f *Feed) reload(ctx context.Context) error {
	f.loaded = false
	var c contents
	for whole := false; !whole; { // until nobody breaks it in between
		if err := f.h.ensureSchema(ctx); err != nil {
			return err
		}
		var err error
		if c, whole, err = f.h.contents(ctx); err != nil {
			return err
		}
	}
	if err := toSink(f.sink.Reset(c.rows)); err != nil {
		return err
	}
	f.schema, f.loaded = c.schema, true
	f.setSeq(c.seq)
	return nil
}

// contents are all rows, with the newest change that is in them and the version of the schema.
type contents struct {
	rows        []KV
	seq, schema int64
}

// contents reads everything at one time. whole is false, and nothing was read, when something of the schema is
// missing: a trigger that was dropped since ensureSchema would otherwise never be missed, because
// the version that is noted would be the one without it.
func (h *handle) contents(ctx context.Context) (c contents, whole bool, err error) {
	err = h.transact(ctx, "BEGIN", func() error {
		missing, err := h.missing(ctx)
		if err != nil || len(missing) > 0 {
			return err
		}
		whole = true
		if err := h.conn.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&c.schema); err != nil {
			return err
		}
		if c.seq, err = h.head(ctx); err != nil {
			return err
		}
		return h.query(ctx, func(r *sql.Rows) error {
			var kv KV
			if err := r.Scan(&kv.Key, &kv.Value); err != nil {
				return err
			}
			c.rows = append(c.rows, kv)
			return nil
		}, selectKV)
	})
	return c, whole, err
}

// advance gives the sink what the change log says since the last look, batch
// by batch.
func (f *Feed) advance(ctx context.Context) error {
	for {
		last, more, gap := f.seq.Load(), false, false
		var changes []KVChange
		err := f.h.transact(ctx, "BEGIN", func() error {
			var err error
			changes, last, more, gap, err = f.batch(ctx, last)
			return err
		})
		if err != nil {
			return err
		}
		if gap {
			return f.reload(ctx)
		}
		if len(changes) > 0 {
			if err := toSink(f.sink.Change(changes)); err != nil {
				return err
			}
		}
		f.setSeq(last)
		if !more {
			return nil
		}
	}
}

// batch reads one batch of the log after seq, and what its rows are now. gap
// says that entries are missing: the log was pruned too far, or emptied, or
// counts from the start again.
func (f *Feed) batch(ctx context.Context, seq int64) (changes []KVChange, last int64, more, gap bool, err error) {
	last = seq
	place := make(map[string]int) // of a key in changes
	err = f.h.query(ctx, func(r *sql.Rows) error {
		var at int64
		var key sql.NullString
		if err := r.Scan(&at, &key); err != nil {
			return err
		}
		gap = gap || at != last+1
		last = at
		if _, known := place[key.String]; key.Valid && !known {
			place[key.String] = len(changes)
			changes = append(changes, KVChange{KV: KV{Key: key.String}, Deleted: true})
		}
		return nil
	}, "SELECT seq, CASE typeof(k) WHEN 'text' THEN substr(k, 1, 4096) END FROM baton_changes WHERE seq > ? ORDER BY seq LIMIT ?", seq, f.options.Batch)
	if err != nil || gap {
		return nil, seq, false, gap, err
	}
	head, err := f.h.head(ctx)
	if err != nil {
		return nil, seq, false, false, err
	}
	err = f.h.query(ctx, func(r *sql.Rows) error {
		var kv KV
		if err := r.Scan(&kv.Key, &kv.Value); err != nil {
			return err
		}
		if i, ok := place[kv.Key]; ok {
			changes[i] = KVChange{KV: kv}
		}
		return nil
	}, selectKV+" AND k IN (SELECT k FROM baton_changes WHERE seq > ? AND seq <= ?)", seq, last)
	if err != nil {
		return nil, seq, false, false, err
	}
	// The end of the log is where the sequence stands: else its end is gone.
	full := last-seq == int64(f.options.Batch)
	return changes, last, last < head && full, head < last || last < head && !full, nil
}
