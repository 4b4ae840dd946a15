package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"baton/ipc"
	"baton/route"
	"baton/route/sqlite"
)

const (
	// confirmDefault is how long a worker may take to confirm a table before it
	// is lost. Source: design, section 3 point 6.
	confirmDefault = 5 * time.Second

	// publishRetry is the pause after a table could not be made.
	publishRetry = time.Second

	// problemBytesMax bounds what is kept of one row's fault.
	problemBytesMax = 1 << 10

	// problemLinesMax bounds the faults logged of one batch of rows.
	problemLinesMax = 16

	// buildRowsMin is the number of rows from which a first table is built
	// whole and not as a change of the empty one.
	buildRowsMin = 16
)

// Preparer makes artifacts loadable by workers. Calls are concurrent, each with
// another artifact. An error that wraps ErrTemporary says nothing about the
// artifact; with any other, rows that name it are bad until the file changes.
type Preparer interface {
	Prepare(ctx context.Context, a Artifact) error
}

// link takes frames to one worker, in order. It does not wait for the worker;
// an error says that the worker is to be lost. The frame stays the caller's.
type link interface {
	send(frame ipc.Frame) error
}

// Problem is a row that is not served as it is written.
type Problem struct {
	Key   string
	Text  string
	Since time.Time
	// Shadowed: the row is in the table, and another one serves its path.
	Shadowed bool
}

type publisherConfig struct {
	data      string // absolute path of the data directory
	published *route.Published
	preparer  Preparer
	prepares  int // at one time; positive
	confirm   time.Duration
	cells     cells
	counted   func(cell uint32) (requests, errors uint64) // on the board, whoever had the cell
	log       *slog.Logger

	// Called on the publisher's goroutine; must not block.
	late    func(worker int, err error)         // to be lost: it has not confirmed, or confirmed what it cannot have
	current func(worker int, generation uint64) // is at the published generation: may be picked
	tabled  func()                              // all rows that there are were handed in and are published or bad; once
}

// publisher turns rows into published tables: the sink of the change feed.
//
// A row goes through these steps, each row at its own pace: it is parsed; its
// artifact is prepared; it waits for the next table; the table with it is sent
// to every worker, confirmed by all that are ready, and stored. A newer value
// of the same key overtakes an older one at any step, and never the other way
// round. One table at a time is on its way; rows that become ready meanwhile
// travel together in the next. A bad row changes nothing: the version before it
// goes on serving.
//
// What it guarantees: a worker that is picked has confirmed a generation that
// is not older than the published one; and when a table is published, every
// worker that is picked has it.
//
// One goroutine owns all but the inbox and the view, and is the one writer of
// published. Feeds, workers' frames and the supervisor reach it through the
// inbox, which is bounded by the number of keys and workers.
type publisher struct {
	publisherConfig

	mu   sync.Mutex
	box  inbox
	view view

	wake     chan struct{} // 1: something is in the inbox
	stopped  chan struct{} // closed when run has returned
	prepared chan prepared

	// The publisher's goroutine only.
	rows      map[string]*row
	artifacts map[Artifact]*artifact
	queue     []*artifact // to be prepared, the oldest first
	running   int         // being prepared
	failed    []*artifact // looked at again every lookPeriod
	ready     []*row      // for the next table, in order
	table     *route.Table
	flight    *flight   // the table that is on its way, nil: none
	notBefore time.Time // when the next table may be made, after one could not be
	workers   map[int]*subscriber
	snapshot  ipc.Frame // of table, for workers that start
	snapped   bool      // it is made
	loaded    bool      // the feed has delivered rows or trouble
	whole     bool      // it has delivered all rows
	hasTable  bool      // … and they were published or bad once: tabled was called
	waiters   []chan<- struct{}
	keyed     []*keysWaiter // wait for single rows
	lines     int           // faults logged since the inbox was last emptied
}

// inbox is what others hand to the publisher. Guarded by mu.
type inbox struct {
	rows    []rowInput     // newest value of each key, oldest key first
	at      map[string]int // key → place in rows
	reset   bool           // rows are the whole database
	trouble *troubleInput
	ops     []func()
	applied map[int]appliedInput
}

type rowInput struct {
	value string
	key   string
	gone  bool
}

type troubleInput struct{ err error }

type appliedInput struct {
	generation uint64
	ready      bool // it was a Ready
}

// view is what others may ask. Guarded by mu.
type view struct {
	problems map[string]Problem
	trouble  string // of the database; empty: none
	since    time.Time
	waiting  int               // artifacts that are being prepared or will be
	counts   map[uint32]counts // of a cell when its route got it; none: zero
}

// counts is what a cell has counted.
type counts struct{ requests, errors uint64 }

type rowState uint8

const (
	rowSettled   rowState = iota // served, bad or gone: nothing is to be done
	rowPreparing                 // waits for its artifact
	rowReady                     // goes into the next table
	rowSent                      // is in the table on its way
)

// row is one key of the database. Owned by the publisher's goroutine.
type row struct {
	key      string
	state    rowState
	gone     bool // deleted from the database
	queued   bool // is in ready
	hasCell  bool
	cell     uint32
	value    string // newest; empty once it is in a table
	want     digest // of value, with the stamp of its artifact
	served   digest // of what the newest table has; zero: nothing
	artifact *artifact
}

// digest names a value together with the content of its artifact.
type digest [16]byte

func digestOf(value string, s stamp) digest {
	h := sha256.New()
	var b [40]byte
	for i, v := range [...]uint64{s.dev, s.ino, uint64(s.size), uint64(s.mtime), uint64(s.ctime)} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	h.Write(b[:])
	h.Write([]byte(value))
	return digest(h.Sum(nil)[:16])
}

// flight is a table that was sent and is not yet confirmed by all.
type flight struct {
	table   *route.Table
	rows    []*row
	deletes bool
	began   time.Time
	waiting map[int]time.Time // worker → until when it must confirm
}

// subscriber is a worker that gets tables.
type subscriber struct {
	link    link
	sent    uint64
	applied uint64
	said    bool // it has said that it is ready: publications wait for it
	picked  bool // current was called
	late    bool // late was called
}

type prepared struct {
	a   *artifact
	err error
}

func newPublisher(c publisherConfig) *publisher {
	if c.confirm <= 0 {
		c.confirm = confirmDefault
	}
	c.prepares = max(c.prepares, 1)
	if c.tabled == nil {
		c.tabled = func() {}
	}
	empty, _ := route.Build(1, nil)
	c.published.Store(empty)
	return &publisher{
		publisherConfig: c,
		box:             inbox{at: make(map[string]int), applied: make(map[int]appliedInput)},
		view:            view{problems: make(map[string]Problem), counts: make(map[uint32]counts)},
		wake:            make(chan struct{}, 1),
		stopped:         make(chan struct{}),
		prepared:        make(chan prepared, c.prepares),
		rows:            make(map[string]*row),
		artifacts:       make(map[Artifact]*artifact),
		table:           empty,
		workers:         make(map[int]*subscriber),
	}
}

// Doors: called by other goroutines.

// Reset implements sqlite.Sink: rows are the whole database. Like the other
// two it never fails and does not wait.
func (p *publisher) Reset(rows []sqlite.KV) error {
	p.mu.Lock()
	p.box.reset = true
	p.box.rows = make([]rowInput, 0, len(rows))
	clear(p.box.at)
	for _, kv := range rows {
		p.box.put(rowInput{key: kv.Key, value: kv.Value})
	}
	p.box.trouble = &troubleInput{}
	p.mu.Unlock()
	p.poke()
	return nil
}

// Change implements sqlite.Sink.
func (p *publisher) Change(changes []sqlite.KVChange) error {
	p.mu.Lock()
	for _, c := range changes {
		p.box.put(rowInput{key: c.Key, value: c.Value, gone: c.Deleted})
	}
	p.mu.Unlock()
	p.poke()
	return nil
}

// put keeps the newest value of a key only, so the inbox holds no more than
// the database.
func (b *inbox) put(in rowInput) {
	if i, ok := b.at[in.key]; ok {
		b.rows[i] = in
		return
	}
	b.at[in.key] = len(b.rows)
	b.rows = append(b.rows, in)
}

// Trouble implements sqlite.Sink: the database cannot be read, or with nil it
// can be again. The published table stays as it is.
func (p *publisher) Trouble(err error) {
	p.mu.Lock()
	p.box.trouble = &troubleInput{err}
	p.mu.Unlock()
	p.poke()
}

// subscribe starts a worker's tables: it is sent the newest one, and from then
// on every change. l is used on the publisher's goroutine until leave returns.
func (p *publisher) subscribe(worker int, l link) {
	p.ask(func() { p.onSubscribe(worker, l) })
}

// leave says that the worker's process is gone. Until then a publication that
// it has not confirmed waits: a process that only seems dead could still answer
// with what it has.
func (p *publisher) leave(worker int) {
	p.ask(func() { p.onLeave(worker) })
}

// confirmed says that the worker has applied a generation; ready, that it is
// ready to run functions at it. Does not block.
func (p *publisher) confirmed(worker int, generation uint64, ready bool) {
	p.mu.Lock()
	in := p.box.applied[worker]
	in.generation = max(in.generation, generation)
	in.ready = in.ready || ready
	p.box.applied[worker] = in
	p.mu.Unlock()
	p.poke()
}

// settle waits until the database was read (or found unreadable) and every row
// that was handed in is served, bad or gone.
func (p *publisher) settle(ctx context.Context) error {
	c := make(chan struct{}, 1)
	p.post(func() { p.waiters = append(p.waiters, c) })
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.stopped:
		return context.Canceled
	}
}

// problems lists the rows that are not served as written, by key.
func (p *publisher) problems() []Problem {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.view.problems))
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b Problem) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// trouble says what is wrong with the database and since when; "" is nothing.
func (p *publisher) trouble() (string, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.view.trouble, p.view.since
}

// preparing is the number of artifacts that are being prepared or will be.
func (p *publisher) preparing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.view.waiting
}

// totals is how many requests the route with that cell has answered, and how
// many of them were errors.
func (p *publisher) totals(cell uint32) (requests, errors uint64) {
	requests, errors = p.counted(cell)
	p.mu.Lock()
	before := p.view.counts[cell]
	p.mu.Unlock()
	return requests - min(before.requests, requests), errors - min(before.errors, errors)
}

func (p *publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *publisher) post(op func()) {
	p.mu.Lock()
	p.box.ops = append(p.box.ops, op)
	p.mu.Unlock()
	p.poke()
}

// ask posts op and waits until it was done or never will be.
func (p *publisher) ask(op func()) {
	c := make(chan struct{})
	p.post(func() { op(); close(c) })
	select {
	case <-c:
	case <-p.stopped:
	}
}

// run works until ctx ends, and then until no preparation runs any more.
func (p *publisher) run(ctx context.Context) {
	defer close(p.stopped)
	ctx, cancel := context.WithCancel(ctx)
	var preparing sync.WaitGroup
	defer preparing.Wait()
	defer cancel()
	defer p.forgetSnapshot()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		p.take(now)
		p.prepare(ctx, &preparing)
		p.begin(now)
		p.finish()
		p.tellKeyed()
		p.tellSettled()
		timer.Reset(p.pause(now))
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case done := <-p.prepared:
			p.onPrepared(done, time.Now())
		case <-timer.C:
			now := time.Now()
			p.take(now) // a confirmation that is there already is not late
			p.onTime(now)
		}
	}
}

// take empties the inbox.
func (p *publisher) take(now time.Time) {
	p.mu.Lock()
	box := p.box
	p.box = inbox{at: make(map[string]int), applied: make(map[int]appliedInput)}
	p.mu.Unlock()
	p.lines = 0
	if box.trouble != nil {
		p.onTrouble(box.trouble.err, now)
	}
	for _, in := range box.rows {
		p.onRow(in, now)
	}
	if box.reset {
		p.whole = true
		// Last: a new row may name the artifact of one that is gone.
		for key := range p.rows {
			if _, still := box.at[key]; !still {
				p.onRow(rowInput{key: key, gone: true}, now)
			}
		}
	}
	if p.lines > problemLinesMax {
		p.log.Warn("more rows are not served as written", "count", p.lines-problemLinesMax)
	}
	for worker, in := range box.applied {
		p.onConfirmed(worker, in, now)
	}
	for _, op := range box.ops {
		op()
	}
}

func (p *publisher) onTrouble(err error, now time.Time) {
	p.loaded = true
	text := ""
	if err != nil {
		text = bounded(err.Error())
	}
	p.mu.Lock()
	before := p.view.trouble
	p.view.trouble = text
	if before != text {
		p.view.since = now
	}
	p.mu.Unlock()
	switch {
	case text == before:
	case text == "":
		p.log.Info("the database can be read again")
	case p.hasTable:
		p.log.Error("the database cannot be read; the last good table serves", "err", err)
	default:
		p.log.Error("the database cannot be read, and there is no table yet: nothing is served until it can be", "err", err)
	}
}

// onRow takes the newest value of one row.
func (p *publisher) onRow(in rowInput, now time.Time) {
	r := p.rows[in.key]
	if r == nil {
		if in.gone {
			return
		}
		r = &row{key: strings.Clone(in.key)}
		p.rows[r.key] = r
	}
	// Last, so that an artifact that the new value names too is not forgotten.
	defer p.release(r.artifact)
	p.cease(r)
	p.clearProblem(r)
	r.value, r.gone = in.value, in.gone
	if r.gone {
		if r.served == (digest{}) {
			p.drop(r)
			return
		}
		p.makeReady(r)
		return
	}
	d, err := route.ParseRow(r.key, r.value)
	if err != nil {
		p.bad(r, err, now)
		return
	}
	path, err := route.ResolveModule(p.data, d.Module)
	if err != nil {
		p.bad(r, err, now)
		return
	}
	a := artifactOf(d, path)
	if r.artifact = p.artifacts[a]; r.artifact == nil {
		r.artifact = &artifact{Artifact: a}
		p.artifacts[a] = r.artifact
	}
	r.artifact.uses++
	p.await(r, now)
}

// await has r served as soon as its artifact is ready.
func (p *publisher) await(r *row, now time.Time) {
	a := r.artifact
	s, err := stampOf(a.Path)
	if err != nil {
		if a.state != artifactRunning {
			a.state, a.stamp, a.pause = artifactFailed, stamp{}, 0
			a.err = fmt.Errorf("module %s: %w", a.Path, err)
		}
		a.rows = append(a.rows, r)
		p.look(a)
		p.bad(r, fmt.Errorf("module %s: %w", a.Path, err), now)
		return
	}
	r.want = digestOf(r.value, s)
	switch {
	case r.want == r.served:
		r.state, r.value = rowSettled, ""
		return
	case a.stamp == s && a.state == artifactReady:
		p.makeReady(r)
		return
	case a.stamp == s && a.state == artifactFailed:
		a.rows = append(a.rows, r)
		p.look(a)
		p.bad(r, a.err, now)
		return
	}
	a.rows = append(a.rows, r)
	r.state = rowPreparing
	if a.stamp != s && a.state != artifactRunning {
		a.pause = 0
		p.enqueue(a, s)
	}
}

// enqueue has the content s of a prepared. a is not being prepared.
func (p *publisher) enqueue(a *artifact, s stamp) {
	a.stamp, a.state = s, artifactNew
	if !a.queued {
		a.queued = true
		p.queue = append(p.queue, a)
	}
}

// cease ends what an older value of r waits for.
func (p *publisher) cease(r *row) {
	if a := r.artifact; a != nil {
		if i := slices.Index(a.rows, r); i >= 0 {
			a.rows = slices.Delete(a.rows, i, i+1)
		}
		r.artifact = nil
	}
}

// release says that an older value of a row named a; nil: nothing.
func (p *publisher) release(a *artifact) {
	if a != nil {
		a.uses--
		p.forget(a)
	}
}

// forget drops an artifact that no row names any more.
func (p *publisher) forget(a *artifact) {
	if a.uses > 0 || a.state == artifactRunning {
		return
	}
	delete(p.artifacts, a.Artifact)
	if a.queued {
		i := slices.Index(p.queue, a)
		p.queue = slices.Delete(p.queue, i, i+1)
		a.queued = false
	}
	if a.looked {
		p.failed = slices.DeleteFunc(p.failed, func(b *artifact) bool { return a == b })
		a.looked = false
	}
}

// drop forgets a row that is neither in the database nor in a table.
func (p *publisher) drop(r *row) {
	delete(p.rows, r.key)
	r.state, r.value = rowSettled, ""
	if r.hasCell {
		r.hasCell = false
		p.cells.give(r.cell)
	}
}

func (p *publisher) makeReady(r *row) {
	r.state = rowReady
	if !r.queued {
		r.queued = true
		p.ready = append(p.ready, r)
	}
}

// bad says why r is not served as it is written.
func (p *publisher) bad(r *row, err error, now time.Time) {
	r.state = rowSettled
	if r.artifact == nil {
		r.value = ""
	}
	p.problem(Problem{Key: r.key, Text: err.Error(), Since: now})
	text := "a row is not served"
	if r.served != (digest{}) {
		text = "a row is not served as written; its previous version serves"
	}
	if p.lines++; p.lines <= problemLinesMax {
		p.log.Warn(text, "route", r.key, "err", bounded(err.Error()))
	}
}

func (p *publisher) problem(pr Problem) {
	pr.Text = bounded(pr.Text)
	p.mu.Lock()
	p.view.problems[pr.Key] = pr
	p.mu.Unlock()
}

func (p *publisher) clearProblem(r *row) {
	p.mu.Lock()
	delete(p.view.problems, r.key)
	p.mu.Unlock()
}

func bounded(text string) string {
	if len(text) <= problemBytesMax {
		return text
	}
	return strings.ToValidUTF8(text[:problemBytesMax], "") + "…"
}

// prepare starts preparations up to the limit.
func (p *publisher) prepare(ctx context.Context, preparing *sync.WaitGroup) {
	for p.running < p.prepares && len(p.queue) > 0 {
		a := p.queue[0]
		p.queue = p.queue[1:]
		a.queued, a.state = false, artifactRunning
		p.running++
		// Ends by itself or with ctx; run waits for it. The channel has room for
		// every one that runs.
		preparing.Go(func() { p.prepared <- prepared{a, p.preparer.Prepare(ctx, a.Artifact)} })
	}
}

func (p *publisher) onPrepared(done prepared, now time.Time) {
	a := done.a
	p.running--
	s, err := stampOf(a.Path)
	switch {
	case err == nil && s != a.stamp:
		// Replaced while it was being prepared.
		a.state, a.pause = artifactNew, 0
		if a.uses > 0 {
			p.enqueue(a, s)
			return
		}
	case err != nil:
		a.state, a.err, a.stamp = artifactFailed, fmt.Errorf("module %s: %w", a.Path, err), stamp{}
	case done.err != nil:
		a.state, a.err = artifactFailed, done.err
		if errors.Is(done.err, ErrTemporary) {
			a.pause = min(max(2*a.pause, retryFirst), retryMax)
			a.retryAt = now.Add(a.pause)
		} else {
			a.pause = 0
		}
	default:
		a.state, a.err, a.pause = artifactReady, nil, 0
	}
	a.tellHeld()
	if a.uses == 0 {
		p.forget(a)
		return
	}
	rows := a.rows
	a.rows = nil
	for _, r := range rows {
		if a.state == artifactReady {
			p.clearProblem(r)
			r.want = digestOf(r.value, a.stamp)
			if r.want == r.served {
				r.state, r.value = rowSettled, ""
				continue
			}
			p.makeReady(r)
			continue
		}
		a.rows = append(a.rows, r)
		p.bad(r, a.err, now)
	}
	if a.state == artifactFailed {
		p.look(a)
	}
}

// look has a failed or missing artifact looked at again.
func (p *publisher) look(a *artifact) {
	if !a.looked {
		a.looked = true
		p.failed = append(p.failed, a)
	}
}

// lookAgain looks at artifacts that rows wait for in vain: whether the file
// has come or changed, or the pause after a temporary failure is over.
func (p *publisher) lookAgain(now time.Time) {
	for range min(len(p.failed), looksMax) {
		a := p.failed[0]
		p.failed = p.failed[1:]
		s, err := stampOf(a.Path)
		if a.state != artifactFailed || len(a.rows) == 0 {
			a.looked = false // on its way again, or nobody waits for it
			continue
		}
		changed := err == nil && s != a.stamp
		again := err == nil && a.pause > 0 && !now.Before(a.retryAt)
		if !changed && !again {
			p.failed = append(p.failed, a)
			continue
		}
		if changed {
			a.pause = 0
		}
		a.looked = false
		for _, r := range a.rows {
			r.state = rowPreparing
		}
		p.enqueue(a, s)
	}
}

// begin makes the next table of the rows that are ready and sends it.
func (p *publisher) begin(now time.Time) {
	if p.flight != nil || len(p.ready) == 0 || now.Before(p.notBefore) {
		return
	}
	ready := p.ready
	p.ready = nil
	generation := p.table.Generation() + 1
	changes := make([]route.Change, 0, len(ready))
	rows := make([]*row, 0, len(ready))
	for _, r := range ready {
		r.queued = false
		if r.state != rowReady {
			continue // overtaken by a newer value that is not ready
		}
		if r.gone {
			changes = append(changes, route.Change{Op: route.OpDelete, Row: route.Row{Key: r.key, Cell: r.cell}})
			rows = append(rows, r)
			continue
		}
		if !r.hasCell && !p.takeCell(r) {
			p.bad(r, fmt.Errorf("there are %d routes already, and no room for more", p.cells.max), now)
			continue
		}
		changes = append(changes, route.Change{Op: route.OpPut, Row: route.Row{Key: r.key, Value: r.value, Cell: r.cell}})
		rows = append(rows, r)
	}
	table, errs := p.apply(generation, changes)
	changes, rows = p.refused(changes, rows, errs, now)
	if len(rows) == 0 {
		return
	}
	var encoded []byte
	for _, c := range changes {
		encoded = route.AppendChange(encoded, c)
	}
	base := p.table.Generation()
	frame, err := ipc.TableDeltaFrame(ipc.TableDelta{From: base, To: generation, Payload: encoded})
	if err != nil {
		p.postpone(rows, err, now)
		return
	}
	defer frame.Close()
	f := &flight{table: table, rows: rows, began: time.Now(), waiting: make(map[int]time.Time)}
	for _, r := range rows {
		r.state, r.value, r.served = rowSent, "", r.want
		if r.gone {
			r.served, f.deletes = digest{}, true
		}
	}
	p.forgetSnapshot()
	p.table, p.flight = table, f
	for id, w := range p.workers {
		if w.late {
			f.waiting[id] = now // until leave
			continue
		}
		if w.said {
			f.waiting[id] = now.Add(p.confirm)
		}
		w.sent = generation
		if err := w.link.send(frame); err != nil {
			p.lose(id, w, fmt.Errorf("send table %d: %w", generation, err))
			f.waiting[id] = now
		}
	}
}

// postpone puts rows back whose table could not be made: this process has no
// descriptor or no memory left.
func (p *publisher) postpone(rows []*row, err error, now time.Time) {
	p.log.Error("a table cannot be published; it is tried again", "err", err, "changes", len(rows))
	for _, r := range rows {
		p.makeReady(r)
	}
	p.notBefore = now.Add(publishRetry)
}

// takeCell gives r a cell. A cell that another route had goes on counting from
// where it is.
func (p *publisher) takeCell(r *row) bool {
	if r.cell, r.hasCell = p.cells.take(); !r.hasCell {
		return false
	}
	var c counts
	c.requests, c.errors = p.counted(r.cell)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c == (counts{}) {
		delete(p.view.counts, r.cell)
	} else {
		p.view.counts[r.cell] = c
	}
	return true
}

func (p *publisher) apply(generation uint64, changes []route.Change) (*route.Table, []route.RowError) {
	if p.table.Len() > 0 || len(changes) < buildRowsMin {
		return p.table.Apply(generation, changes)
	}
	rows := make([]route.Row, 0, len(changes))
	for _, c := range changes {
		if c.Op == route.OpPut {
			rows = append(rows, c.Row)
		}
	}
	return route.Build(generation, rows)
}

// refused takes the rows that the table has not taken out of a batch. A row
// that is only shadowed by another one is in the table and stays.
func (p *publisher) refused(changes []route.Change, rows []*row, errs []route.RowError, now time.Time) ([]route.Change, []*row) {
	if len(errs) == 0 {
		return changes, rows
	}
	why := make(map[string]error, len(errs))
	for _, e := range errs {
		why[e.Key] = e.Err
	}
	left := 0
	for i, r := range rows {
		err := why[r.key]
		switch {
		case err == nil:
		case errors.Is(err, route.ErrShadowed):
			p.problem(Problem{Key: r.key, Text: err.Error(), Since: now, Shadowed: true})
		default:
			p.bad(r, err, now)
			if r.served == (digest{}) && r.hasCell {
				r.hasCell = false
				p.cells.give(r.cell)
			}
			continue
		}
		rows[left], changes[left] = r, changes[i]
		left++
	}
	return changes[:left], rows[:left]
}

// finish publishes the table that is on its way once every worker has it.
func (p *publisher) finish() {
	f := p.flight
	if f == nil || len(f.waiting) > 0 {
		return
	}
	p.flight = nil
	p.published.Store(f.table)
	for _, r := range f.rows {
		if r.state != rowSent {
			continue // a newer value is on its way already
		}
		r.state = rowSettled
		if r.gone {
			p.drop(r)
		}
	}
	if f.deletes {
		p.unshadow()
	}
	p.log.Debug("table published", "generation", f.table.Generation(), "changes", len(f.rows),
		"routes", f.table.Len(), "took", time.Since(f.began).String())
	for id, w := range p.workers {
		p.pick(id, w)
	}
	p.poke() // what became ready meanwhile goes next
}

// unshadow clears the fault of routes that took over from a deleted one.
func (p *publisher) unshadow() {
	for _, key := range p.shadowed() {
		r, f := p.rows[key], p.table.Get(key)
		if r == nil || f == nil {
			continue
		}
		_, errs := p.table.Apply(p.table.Generation(), []route.Change{{Op: route.OpPut, Row: f.Row()}})
		if len(errs) == 0 {
			p.clearProblem(r)
		}
	}
}

func (p *publisher) shadowed() (keys []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, pr := range p.view.problems {
		if pr.Shadowed {
			keys = append(keys, key)
		}
	}
	return keys
}

// tellSettled wakes who waits for the rows to be settled.
func (p *publisher) tellSettled() {
	waiting := len(p.queue) + p.running
	p.mu.Lock()
	p.view.waiting = waiting
	empty := len(p.box.rows) == 0 && !p.box.reset
	p.mu.Unlock()
	if !p.loaded || !empty || waiting > 0 || len(p.ready) > 0 || p.flight != nil {
		return
	}
	if p.whole && !p.hasTable {
		p.hasTable = true
		p.tabled()
	}
	for _, c := range p.waiters {
		c <- struct{}{}
	}
	p.waiters = nil
}

// Workers.

func (p *publisher) onSubscribe(id int, l link) {
	if p.workers[id] != nil {
		panic("gateway: a worker subscribed twice")
	}
	w := &subscriber{link: l, sent: p.table.Generation()}
	p.workers[id] = w
	err := p.makeSnapshot()
	if err == nil {
		err = l.send(p.snapshot)
	}
	if err != nil {
		p.lose(id, w, fmt.Errorf("send table %d: %w", w.sent, err))
	}
}

// makeSnapshot makes the frame that turns the table of a worker that starts,
// which is empty and of generation 0, into the newest one.
func (p *publisher) makeSnapshot() error {
	if p.snapped {
		return nil
	}
	var encoded []byte
	for f := range p.table.All {
		encoded = route.AppendChange(encoded, route.Change{Op: route.OpPut, Row: f.Row()})
	}
	var err error
	p.snapshot, err = ipc.TableDeltaFrame(ipc.TableDelta{To: p.table.Generation(), Payload: encoded})
	p.snapped = err == nil
	return err
}

func (p *publisher) forgetSnapshot() {
	if p.snapped {
		p.snapshot.Close()
		p.snapshot, p.snapped = ipc.Frame{}, false
	}
}

func (p *publisher) onLeave(id int) {
	delete(p.workers, id)
	if p.flight != nil {
		delete(p.flight.waiting, id)
	}
}

func (p *publisher) onConfirmed(id int, in appliedInput, now time.Time) {
	w := p.workers[id]
	if w == nil || w.late {
		return // of a process that is gone, or will be
	}
	if in.generation > w.sent {
		p.lose(id, w, fmt.Errorf("confirmed table %d, and was sent %d last", in.generation, w.sent))
		return
	}
	w.applied = max(w.applied, in.generation)
	w.said = w.said || in.ready
	if f := p.flight; f != nil {
		if w.applied >= f.table.Generation() {
			delete(f.waiting, id)
		} else if _, waited := f.waiting[id]; w.said && !waited {
			// From its first word on a publication waits for it too, or it
			// might never catch up.
			f.waiting[id] = now.Add(p.confirm)
		}
	}
	p.pick(id, w)
}

// pick says that a worker is current, once.
func (p *publisher) pick(id int, w *subscriber) {
	if w.picked || w.late || !w.said || w.applied < p.published.Load().Generation() {
		return
	}
	w.picked = true
	p.current(id, w.applied)
}

// lose says that a worker must be lost, once.
func (p *publisher) lose(id int, w *subscriber, err error) {
	if !w.late {
		w.late = true
		p.late(id, err)
	}
}

// pause is the time to the next thing that time brings.
func (p *publisher) pause(now time.Time) time.Duration {
	next := time.Hour
	if len(p.failed) > 0 {
		next = lookPeriod
	}
	if len(p.ready) > 0 && p.flight == nil {
		next = min(next, p.notBefore.Sub(now))
	}
	if p.flight != nil {
		for id, at := range p.flight.waiting {
			if w := p.workers[id]; w != nil && !w.late {
				next = min(next, at.Sub(now))
			}
		}
	}
	return max(next, 0)
}

func (p *publisher) onTime(now time.Time) {
	p.lines = 0
	p.lookAgain(now)
	if p.flight == nil {
		return
	}
	for id, at := range p.flight.waiting {
		if w := p.workers[id]; w != nil && !w.late && !now.Before(at) {
			p.lose(id, w, fmt.Errorf("not confirmed table %d within %v", p.flight.table.Generation(), p.confirm))
		}
	}
}
