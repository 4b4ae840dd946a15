package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"baton/internal/fd"
	"baton/internal/testenv"
	"baton/ipc"
	"baton/route"
	"baton/route/sqlite"
)

// bench is a publisher with a preparer and workers made of nothing.
type publishBench struct {
	*publisher
	t     *testing.T
	table *route.Published

	mu       sync.Mutex
	late     map[int]error
	current  map[int]uint64
	prepares map[string]int // path → calls
	verdict  map[string]error
	block    map[string]chan struct{} // a preparation waits for it to be closed
	inflight map[uint32]bool

	onLate    func(int, error)
	onCurrent func(int, uint64)
}

func (b *publishBench) setHooks(late func(int, error), current func(int, uint64)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onLate, b.onCurrent = late, current
}

func newPublishBench(t *testing.T, confirm time.Duration) *publishBench {
	b := &publishBench{
		t: t, table: new(route.Published), late: map[int]error{}, current: map[int]uint64{},
		prepares: map[string]int{}, verdict: map[string]error{}, block: map[string]chan struct{}{}, inflight: map[uint32]bool{},
	}
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "import"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.publisher = newPublisher(publisherConfig{
		data: data, published: b.table, preparer: b, prepares: 2, confirm: confirm,
		cells:   cells{max: 100, busy: func(c uint32) bool { b.mu.Lock(); defer b.mu.Unlock(); return b.inflight[c] }},
		counted: func(uint32) (uint64, uint64) { return 0, 0 },
		log:     slog.New(slog.DiscardHandler),
		late: func(id int, err error) {
			b.mu.Lock()
			b.late[id] = err
			hook := b.onLate
			b.mu.Unlock()
			if hook != nil {
				hook(id, err)
			}
		},
		current: func(id int, generation uint64) {
			b.mu.Lock()
			b.current[id] = generation
			hook := b.onCurrent
			b.mu.Unlock()
			if hook != nil {
				hook(id, generation)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.run(ctx) })
	t.Cleanup(func() {
		b.mu.Lock()
		for path, c := range b.block {
			close(c)
			delete(b.block, path)
		}
		b.mu.Unlock()
		cancel()
		running.Wait()
	})
	return b
}

func (b *publishBench) Prepare(ctx context.Context, a Artifact) error {
	b.mu.Lock()
	b.prepares[a.Path]++
	wait, err := b.block[a.Path], b.verdict[a.Path]
	b.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// artifact writes a file under import and returns its name in a descriptor.
func (b *publishBench) artifact(name, content string) string {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return "import/" + name
}

func (b *publishBench) path(name string) string { return filepath.Join(b.data, "import", name) }

func (b *publishBench) hold(name string) (release func()) {
	c := make(chan struct{})
	b.mu.Lock()
	b.block[b.path(name)] = c
	b.mu.Unlock()
	return func() {
		b.mu.Lock()
		delete(b.block, b.path(name))
		b.mu.Unlock()
		close(c)
	}
}

func (b *publishBench) judge(name string, err error) {
	b.mu.Lock()
	b.verdict[b.path(name)] = err
	b.mu.Unlock()
}

func (b *publishBench) prepared(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prepares[b.path(name)]
}

// reset takes keys and values in turn.
func (b *publishBench) reset(rows ...string) {
	var all []sqlite.KV
	for i := 0; i < len(rows); i += 2 {
		all = append(all, sqlite.KV{Key: rows[i], Value: rows[i+1]})
	}
	_ = b.Reset(all)
}

func (b *publishBench) put(key, value string) {
	_ = b.Change([]sqlite.KVChange{{KV: sqlite.KV{Key: key, Value: value}}})
}

func (b *publishBench) gone(key string) {
	_ = b.Change([]sqlite.KVChange{{KV: sqlite.KV{Key: key}, Deleted: true}})
}

func (b *publishBench) settled() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), testenv.Patience())
	defer cancel()
	if err := b.settle(ctx); err != nil {
		b.t.Fatalf("the rows do not settle: %v; problems %v", err, b.problems())
	}
}

func (b *publishBench) served(key string) string {
	f := b.table.Load().Get(key)
	if f == nil {
		return ""
	}
	return f.Descriptor().Name
}

func (b *publishBench) want(key, name string) {
	b.t.Helper()
	if got := b.served(key); got != name {
		b.t.Errorf("%s is served by %q, want %q; problems %v", key, got, name, b.problems())
	}
}

func (b *publishBench) problem(key string) string {
	for _, p := range b.problems() {
		if p.Key == key {
			return p.Text
		}
	}
	return ""
}

func row1(name, module string) string {
	return fmt.Sprintf(`{"name":%q,"runtime":"wasm","module":%q}`, name, module)
}

// listener is a worker: it applies what it is sent as a worker does, and
// confirms it unless it is deaf.
type listener struct {
	b            *publishBench
	id           int
	ours, theirs fd.FD
	reader       *ipc.FrameReader

	mu    sync.Mutex
	table *route.Table
	deaf  bool
	fail  error
}

func (b *publishBench) join(id int) *listener {
	b.t.Helper()
	empty, _ := route.Build(0, nil)
	l := &listener{b: b, id: id, table: empty, reader: ipc.NewFrameReader()}
	var err error
	if l.ours, l.theirs, err = ipc.NewChannel(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _, _ = l.ours.Close(), l.theirs.Close() })
	b.subscribe(id, l)
	return l
}

// send implements link: the frame goes through a channel, and is applied at
// once.
func (l *listener) send(frame ipc.Frame) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	if err := ipc.WriteFrame(l.ours.Borrow(), frame); err != nil {
		return err
	}
	frame, err := l.reader.Read(l.theirs.Borrow())
	if err != nil {
		l.b.t.Errorf("worker %d: %v", l.id, err)
		return err
	}
	defer frame.Close()
	m, err := frame.TableDelta()
	if err != nil {
		l.b.t.Errorf("worker %d: %v", l.id, err)
		return err
	}
	if m.From != l.table.Generation() {
		l.b.t.Errorf("worker %d at table %d was sent a change of table %d", l.id, l.table.Generation(), m.From)
	}
	changes, err := route.ParseChanges(m.Payload)
	if err != nil {
		l.b.t.Errorf("worker %d: %v", l.id, err)
	}
	var errs []route.RowError
	l.table, errs = l.table.Apply(m.To, changes)
	for _, e := range errs {
		if !errors.Is(e.Err, route.ErrShadowed) {
			l.b.t.Errorf("worker %d refuses what the gateway has sent: %v", l.id, e)
		}
	}
	if !l.deaf {
		l.b.confirmed(l.id, m.To, false)
	}
	return nil
}

func (l *listener) ready() { l.b.confirmed(l.id, l.generation(), true) }

func (l *listener) generation() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.Generation()
}

func (l *listener) setDeaf(deaf bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = deaf
}

func TestRowsBecomeTables(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("a.wasm", "1")
	b.reset("GET:/a", row1("a", m), "GET:/b", row1("b", m), "GET:/c", `{"nope":1}`)
	b.settled()
	b.want("GET:/a", "a")
	b.want("GET:/b", "b")
	b.want("GET:/c", "")
	if n := b.prepared("a.wasm"); n != 1 {
		t.Errorf("one artifact of two rows was prepared %d times", n)
	}
	if got := b.problem("GET:/c"); !strings.Contains(got, "nope") {
		t.Errorf("the bad row's problem is %q", got)
	}

	b.put("GET:/c", row1("c", m))
	b.gone("GET:/a")
	b.settled()
	b.want("GET:/a", "")
	b.want("GET:/b", "b")
	b.want("GET:/c", "c")
	if got := b.problems(); len(got) != 0 {
		t.Errorf("problems are left: %v", got)
	}

	t.Run("a bad value leaves the version before it", func(t *testing.T) {
		b.put("GET:/c", `{`)
		b.settled()
		b.want("GET:/c", "c")
		if b.problem("GET:/c") == "" {
			t.Error("a bad row has no problem")
		}
	})
	t.Run("a reset is the whole database", func(t *testing.T) {
		b.reset("GET:/c", row1("c2", m))
		b.settled()
		b.want("GET:/b", "")
		b.want("GET:/c", "c2")
		if len(b.problems()) != 0 {
			t.Errorf("problems are left: %v", b.problems())
		}
	})
	t.Run("what has not changed is not published again", func(t *testing.T) {
		before := b.table.Load().Generation()
		b.reset("GET:/c", row1("c2", m))
		b.put("GET:/c", row1("c2", m))
		b.settled()
		if now := b.table.Load().Generation(); now != before {
			t.Errorf("generation %d became %d", before, now)
		}
	})
	t.Run("the same value with another artifact is", func(t *testing.T) {
		before := b.table.Load().Generation()
		b.artifact("a.wasm", "two")
		b.put("GET:/c", row1("c2", m))
		b.settled()
		if now := b.table.Load().Generation(); now != before+1 {
			t.Errorf("generation %d became %d", before, now)
		}
		if n := b.prepared("a.wasm"); n != 2 {
			t.Errorf("the artifact was prepared %d times, want 2", n)
		}
	})
}

func TestSlowArtifactHoldsNobodyBack(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	slow, fast := b.artifact("slow.wasm", "1"), b.artifact("fast.wasm", "1")
	release := b.hold("slow.wasm")
	b.reset("GET:/slow", row1("slow", slow), "GET:/fast", row1("fast", fast))
	testenv.Until(t, "the fast row is served", func() bool { return b.served("GET:/fast") == "fast" })
	b.want("GET:/slow", "")

	t.Run("a newer value overtakes the one that waits", func(t *testing.T) {
		b.put("GET:/slow", row1("newer", fast))
		testenv.Until(t, "the newer value is served", func() bool { return b.served("GET:/slow") == "newer" })
	})
	release()
	b.settled()
	b.want("GET:/slow", "newer")
}

func TestNewerValueNeverLosesToOlder(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	old, next := b.artifact("old.wasm", "1"), b.artifact("next.wasm", "1")
	releaseNext := b.hold("next.wasm")
	b.reset()
	b.put("GET:/x", row1("old", old))
	testenv.Until(t, "the old value is served", func() bool { return b.served("GET:/x") == "old" })
	b.put("GET:/x", row1("next", next))
	testenv.Until(t, "the next one is being prepared", func() bool { return b.prepared("next.wasm") == 1 })
	// While next is being prepared it is deleted: nothing of it may appear.
	b.gone("GET:/x")
	testenv.Until(t, "the row is gone", func() bool { return b.served("GET:/x") == "" })
	releaseNext()
	b.settled()
	b.want("GET:/x", "")
}

func TestArtifactThatCannotBePrepared(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	good, bad := b.artifact("good.wasm", "1"), b.artifact("bad.wasm", "1")
	b.judge("bad.wasm", errors.New("no module"))
	b.reset("GET:/x", row1("good", good))
	b.settled()
	b.put("GET:/x", row1("bad", bad))
	b.put("GET:/y", row1("bad", bad))
	b.settled()
	b.want("GET:/x", "good")
	b.want("GET:/y", "")
	for _, key := range []string{"GET:/x", "GET:/y"} {
		if got := b.problem(key); got != "no module" {
			t.Errorf("the problem of %s is %q", key, got)
		}
	}
	if n := b.prepared("bad.wasm"); n != 1 {
		t.Errorf("the verdict was asked for %d times, want 1", n)
	}

	t.Run("until the file changes", func(t *testing.T) {
		b.judge("bad.wasm", nil)
		b.artifact("bad.wasm", "better")
		testenv.Until(t, "both rows are served", func() bool {
			return b.served("GET:/x") == "bad" && b.served("GET:/y") == "bad"
		})
		b.settled()
		if len(b.problems()) != 0 {
			t.Errorf("problems are left: %v", b.problems())
		}
	})
}

func TestRowMayComeBeforeItsArtifact(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	b.reset("GET:/x", row1("x", "import/later.wasm"))
	b.settled()
	if got := b.problem("GET:/x"); !strings.Contains(got, fs.ErrNotExist.Error()) {
		t.Errorf("the problem is %q", got)
	}
	b.artifact("later.wasm", "1")
	testenv.Until(t, "the row is served", func() bool { return b.served("GET:/x") == "x" })
	b.settled()
	if len(b.problems()) != 0 {
		t.Errorf("problems are left: %v", b.problems())
	}
}

func TestTemporaryFailureIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	b.judge("m.wasm", fmt.Errorf("no process: %w", ErrTemporary))
	b.reset("GET:/x", row1("x", m))
	b.settled()
	b.judge("m.wasm", nil)
	testenv.Until(t, "the row is served", func() bool { return b.served("GET:/x") == "x" })
}

func TestArtifactReplacedWhileItIsPrepared(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	release := b.hold("m.wasm")
	b.reset("GET:/x", row1("x", m))
	testenv.Until(t, "it is being prepared", func() bool { return b.prepared("m.wasm") == 1 })
	b.artifact("m.wasm", "second")
	release()
	b.settled()
	b.want("GET:/x", "x")
	if n := b.prepared("m.wasm"); n != 2 {
		t.Errorf("prepared %d times, want 2: the content that is there now too", n)
	}
}

func TestPublicationWaitsForEveryReadyWorker(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	one, two, starting := b.join(1), b.join(2), b.join(3)
	one.ready()
	two.ready()
	b.reset("GET:/x", row1("x", m))
	b.settled()
	b.mu.Lock()
	if len(b.current) != 2 {
		t.Errorf("current workers: %v", b.current)
	}
	b.mu.Unlock()

	starting.setDeaf(true)
	b.put("GET:/x", row1("y", m))
	b.settled() // a worker that has not said that it is ready is not waited for
	two.setDeaf(true)
	b.put("GET:/x", row1("z", m))
	testenv.Until(t, "both workers have it", func() bool { return one.generation() == two.generation() && two.generation() == 4 })
	b.want("GET:/x", "y")
	two.setDeaf(false)
	b.confirmed(2, 4, false)
	b.settled()
	b.want("GET:/x", "z")

	t.Run("one that starts is current only at the published table", func(t *testing.T) {
		b.confirmed(3, 2, true)
		b.ask(func() {})
		b.mu.Lock()
		if _, is := b.current[3]; is {
			t.Error("a worker that is behind was picked")
		}
		b.mu.Unlock()
		starting.setDeaf(false)
		b.confirmed(3, 4, false)
		testenv.Until(t, "it is current", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			_, is := b.current[3]
			return is
		})
	})
	t.Run("a worker that is gone is not waited for", func(t *testing.T) {
		one.setDeaf(true)
		b.put("GET:/x", row1("w", m))
		testenv.Until(t, "it was sent", func() bool { return one.generation() == 5 })
		b.want("GET:/x", "z")
		b.leave(1)
		b.settled()
		b.want("GET:/x", "w")
	})
}

func TestWorkerThatDoesNotConfirm(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 20*time.Millisecond)
	m := b.artifact("m.wasm", "1")
	one, hung := b.join(1), b.join(2)
	one.ready()
	hung.ready()
	b.reset("GET:/x", row1("x", m))
	b.settled()
	hung.setDeaf(true)
	b.put("GET:/x", row1("y", m))
	testenv.Until(t, "the hung worker is called lost", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.late[2] != nil
	})
	b.want("GET:/x", "x") // it may still answer with what it has
	b.leave(2)
	b.settled()
	b.want("GET:/x", "y")
	b.mu.Lock()
	if b.late[1] != nil {
		t.Errorf("a worker that confirmed was called lost: %v", b.late[1])
	}
	b.mu.Unlock()
}

func TestWorkerWithFullChannelIsLost(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	full := b.join(1)
	full.ready()
	b.reset()
	b.settled()
	full.mu.Lock()
	full.fail = errors.New("full")
	full.mu.Unlock()
	b.put("GET:/x", row1("x", m))
	testenv.Until(t, "it is called lost", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.late[1] != nil
	})
	b.want("GET:/x", "")
	b.leave(1)
	b.settled()
	b.want("GET:/x", "x")
}

func TestWorkerThatConfirmsWhatItCannotHave(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	l := b.join(1)
	l.ready()
	b.confirmed(1, 1<<40, false)
	testenv.Until(t, "it is called lost", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.late[1] != nil
	})
	b.leave(1)
}

func TestSnapshotAndChangesMakeTheSameTable(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	var rows []string
	for i := range 60 {
		rows = append(rows, fmt.Sprintf("GET:/%d", i), row1(fmt.Sprintf("f%d", i), m))
	}
	b.reset(rows...)
	b.settled()
	early := b.join(1)
	early.ready()
	for i := range 30 {
		b.gone(fmt.Sprintf("GET:/%d", i))
		b.put(fmt.Sprintf("GET:/%d", i+30), row1("again", m))
	}
	b.settled()
	later := b.join(2)
	want := b.table.Load()
	for _, l := range []*listener{early, later} {
		l.mu.Lock()
		if l.table.Generation() != want.Generation() || l.table.Len() != want.Len() {
			t.Errorf("worker %d: table %d of %d routes, want %d of %d", l.id,
				l.table.Generation(), l.table.Len(), want.Generation(), want.Len())
		}
		for f := range want.All {
			g := l.table.Get(f.Key())
			if g == nil || g.Cell != f.Cell || g.Descriptor().Name != f.Descriptor().Name {
				t.Errorf("worker %d: %s differs", l.id, f.Key())
			}
		}
		l.mu.Unlock()
	}
}

func TestShadowedRouteTakesOver(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	b.reset("GET:/u/{a}", row1("a", m), "GET:/u/{b}", row1("b", m))
	b.settled()
	if _, errs := route.Build(1, []route.Row{{Key: "GET:/u/{a}", Value: row1("a", m)}, {Key: "GET:/u/{b}", Value: row1("b", m)}}); len(errs) == 0 {
		t.Skip("the table reports no shadowed routes")
	}
	if b.problem("GET:/u/{b}") == "" {
		t.Error("a shadowed route has no problem")
	}
	b.gone("GET:/u/{a}")
	b.settled()
	if got := b.problem("GET:/u/{b}"); got != "" {
		t.Errorf("the route has taken over, and still has a problem: %s", got)
	}
}

func TestTroubleOfTheDatabase(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	b.Trouble(errors.New("database is locked"))
	b.settled()
	if got, _ := b.trouble(); got != "database is locked" {
		t.Errorf("trouble is %q", got)
	}
	m := b.artifact("m.wasm", "1")
	b.reset("GET:/x", row1("x", m))
	b.settled()
	if got, _ := b.trouble(); got != "" {
		t.Errorf("trouble is %q after rows came", got)
	}
	b.Trouble(errors.New("database is corrupt"))
	b.settled()
	b.want("GET:/x", "x")
}

func TestRoomForCells(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("m.wasm", "1")
	b.reset()
	for i := range 101 {
		b.put(fmt.Sprintf("GET:/%d", i), row1("f", m))
	}
	b.settled()
	if n := b.table.Load().Len(); n != 100 {
		t.Errorf("%d routes are served, want 100", n)
	}
	seen := map[uint32]bool{}
	for f := range b.table.Load().All {
		if seen[f.Cell] || f.Cell >= 100 {
			t.Errorf("cell %d is given twice or beyond the bound", f.Cell)
		}
		seen[f.Cell] = true
	}
	if n := len(b.problems()); n != 1 {
		t.Errorf("%d problems, want 1", n)
	}
}

// A change of a prepared artifact is published without any wait of ours.
func TestPublicationHasNoPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPublishBench(t, 0)
		m := b.artifact("m.wasm", "1")
		l := b.join(1)
		l.ready()
		began := time.Now()
		b.reset("GET:/x", row1("x", m))
		for i := range 100 {
			b.put("GET:/x", row1(fmt.Sprintf("x%d", i), m))
			b.settled()
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the fake clock moved by %v", took)
		}
	})
}
