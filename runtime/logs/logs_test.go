package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// open makes a writer that is closed at the test's end.
func open(t testing.TB, o Options) *Writer {
	t.Helper()
	w, err := NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// read collects what a query gives.
func read(t testing.TB, dir string, q Query) []Entry {
	t.Helper()
	var all []Entry
	if err := Read(t.Context(), dir, q, func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func texts(entries []Entry) string {
	var all []string
	for _, e := range entries {
		switch {
		case e.Dropped > 0:
			all = append(all, fmt.Sprintf("(%d dropped)", e.Dropped))
		case e.Failure != "":
			all = append(all, "!"+e.Failure)
		default:
			all = append(all, e.Text)
		}
	}
	return strings.Join(all, " ")
}

// segmentFile writes one segment as it stands.
func segmentFile(t testing.TB, dir string, worker int, number uint64, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, segment{worker, number}.name()), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// stored is the line of an entry at second s.
func stored(worker, s int, text string) string {
	e := Entry{Time: time.Date(2026, 1, 2, 3, 4, s, 0, time.UTC), Worker: worker, Function: "f", Request: "r", Text: text}
	return string(e.AppendJSON(nil)) + "\n"
}

func TestWriterStoresWhatItIsGiven(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	before := time.Now().UTC().Truncate(time.Microsecond)
	w := open(t, Options{Dir: dir, Worker: 3, Workers: 4})
	w.Line("hello", 7, []byte("id-1"), []byte("one\r\n\ntwo \"quoted\" \x00\xff\nrest"))
	w.Line("hello", 7, []byte("id-1"), nil)
	w.Failure("hello", 0, []byte("id-2"), Failure{Reason: "function_timeout", Status: 504, Duration: 1500500 * time.Nanosecond, Detail: "deadline"})
	w.Line("long", 1, []byte("id-3"), bytes.Repeat([]byte{'x'}, TextBytesMax+5))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a second Close: %v", err)
	}
	w.Line("hello", 7, []byte("late"), []byte("late"))
	got := read(t, dir, Query{})
	for i := range got {
		if at := got[i].Time; at.Before(before) || at.After(time.Now()) || i > 0 && at.Before(got[i-1].Time) {
			t.Errorf("entry %d is of %v", i, at)
		}
		got[i].Time = time.Time{}
	}
	want := []Entry{
		{Worker: 3, Function: "hello", Version: 7, Request: "id-1", Text: "one"},
		{Worker: 3, Function: "hello", Version: 7, Request: "id-1", Text: "two \"quoted\" \x00\ufffd"},
		{Worker: 3, Function: "hello", Version: 7, Request: "id-1", Text: "rest"},
		{Worker: 3, Function: "hello", Request: "id-2", Failure: "function_timeout", Status: 504, DurationMS: 1.5, Detail: "deadline"},
		{Worker: 3, Function: "long", Version: 1, Request: "id-3", Text: strings.Repeat("x", TextBytesMax), Cut: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "functions-3-00000001.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("segment: %v, %v", info, err)
	}
}

// A worker that was killed may leave half a line; its successor goes on in the
// same segment, and one line is lost.
func TestWriterGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	segmentFile(t, dir, 0, 4, stored(0, 1, "a")+stored(0, 2, "b")[:20])
	w := open(t, Options{Dir: dir})
	w.Line("f", 0, nil, []byte("c"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := texts(read(t, dir, Query{})); got != "a c" {
		t.Errorf("got %s, want a c", got)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("%d segments, want the one that there was", len(names))
	}
}

func TestWriterBounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	total := func() (n int64) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	// What a worker left that there is none of any more counts, and goes first.
	segmentFile(t, dir, 9, 1, strings.Repeat(stored(9, 1, "old"), 5000))
	past := time.Unix(0, 0)
	if err := os.Chtimes(filepath.Join(dir, segment{9, 1}.name()), past, past); err != nil {
		t.Fatal(err)
	}
	// A foreign file is nobody's to remove.
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := quiet(t, Options{Dir: dir, Worker: 0, Workers: 2, BytesMax: BytesMaxMin})
	b := quiet(t, Options{Dir: dir, Worker: 1, Workers: 2, BytesMax: BytesMaxMin})
	line := bytes.Repeat([]byte{'x'}, 1000)
	for n := range 3000 {
		a.Line("f", 0, nil, line)
		a.flush()
		if n%10 == 0 {
			b.Line("f", 0, nil, line)
			b.flush()
		}
		if n%100 == 0 {
			if got := total(); got > BytesMaxMin {
				t.Fatalf("after %d lines the folder holds %d bytes, bound %d", n, got, BytesMaxMin)
			}
		}
	}
	if got := total(); got > BytesMaxMin || got < BytesMaxMin/2 {
		t.Errorf("the folder holds %d bytes at the end, bound %d", got, BytesMaxMin)
	}
	all, err := listSegments(dir)
	if err != nil || slices.ContainsFunc(all, func(s segment) bool { return s.worker == 9 }) {
		t.Errorf("%v, %v: the oldest is still there", all, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error(err)
	}
}

// A flood of one function's lines is dropped and counted; a failure still finds
// room.
func TestWriterDropsAndSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := quiet(t, Options{Dir: dir})
	line := bytes.Repeat([]byte{'x'}, 4000)
	const flood = 1000
	for range flood {
		w.Line("noisy", 0, nil, line)
	}
	w.Failure("other", 0, nil, Failure{Reason: "oom", Status: 502})
	if len(w.buf) > bufferBytesMax {
		t.Errorf("%d bytes wait, bound %d", len(w.buf), bufferBytesMax)
	}
	w.flush()
	w.Line("noisy", 0, nil, []byte("after"))
	w.flush()
	got := read(t, dir, Query{})
	kept, dropped := 0, uint64(0)
	for _, e := range got {
		if e.Text != "" && e.Text != "after" {
			kept++
		}
		dropped += e.Dropped
	}
	if uint64(kept)+dropped != flood || dropped == 0 {
		t.Errorf("%d kept and %d dropped of %d", kept, dropped, flood)
	}
	if n := len(got); got[n-3].Failure != "oom" || got[n-2].Dropped == 0 || got[n-1].Text != "after" {
		t.Errorf("the end is %s", texts(got[n-3:]))
	}
	// Lost lines may have been anybody's.
	if got := texts(read(t, dir, Query{Function: "other"})); got != fmt.Sprintf("!oom (%d dropped)", dropped) {
		t.Errorf("of the other function: %s", got)
	}
	if got := texts(read(t, dir, Query{Request: "r"})); got != "" {
		t.Errorf("of a request: %s", got)
	}
}

// quiet is a writer whose goroutine has ended: the test flushes.
func quiet(t testing.TB, o Options) *Writer {
	t.Helper()
	w := open(t, o)
	close(w.stop)
	<-w.ended
	w.stop, w.ended = make(chan struct{}), make(chan struct{})
	close(w.ended)
	if err := w.use(w.now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.file.Close() })
	return w
}

// Somebody removes the folder: what is written later is in a new one.
func TestWriterOutlivesItsFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	w := quiet(t, Options{Dir: dir})
	w.Line("f", 0, nil, []byte("a"))
	w.flush()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.Line("f", 0, nil, []byte("b"))
	w.flush()
	if got := texts(read(t, dir, Query{})); got != "b" {
		t.Errorf("got %s, want b", got)
	}
}

func TestReadMerges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	segmentFile(t, dir, 0, 1, stored(0, 1, "a")+stored(0, 5, "e"))
	segmentFile(t, dir, 0, 2, stored(0, 7, "g"))
	segmentFile(t, dir, 0, 9, stored(0, 9, "i")+"half a li")
	segmentFile(t, dir, 1, 3, stored(1, 2, "b")+stored(1, 5, "f")+"not JSON\n{}\n\n"+stored(1, 8, "h"))
	segmentFile(t, dir, 7, 1, strings.Repeat("y", 3*blockBytes)+"\n"+stored(7, 3, "c")+strings.Repeat("z", lineBytesMax+1)+"\n"+
		stored(7, 4, "d")+`{"time":"0001-01-01T00:00:00Z","text":"no time"}`+"\n")
	for _, name := range []string{"functions-0-1.log", "functions-00-00000001.log", "functions-0-00000003.log.gz", "x.log", "functions-1024-00000001.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(stored(0, 0, "foreign")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "x.log"), filepath.Join(dir, segment{2, 1}.name())); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, segment{3, 1}.name()), 0o700); err != nil {
		t.Fatal(err)
	}
	at := func(s int) time.Time { return time.Date(2026, 1, 2, 3, 4, s, 0, time.UTC) }
	for _, law := range []struct {
		name string
		q    Query
		want string
	}{
		{"everything", Query{}, "a b c d e f g h i"},
		{"the last ones", Query{Tail: 4}, "f g h i"},
		{"more than there are", Query{Tail: TailMax}, "a b c d e f g h i"},
		{"since, inclusive", Query{Since: at(5)}, "e f g h i"},
		{"the last ones since", Query{Since: at(8), Tail: 5}, "h i"},
		{"another function", Query{Function: "g"}, ""},
		{"this function", Query{Function: "f", Tail: 1}, "i"},
		{"another request", Query{Request: "r2"}, ""},
		{"this request", Query{Request: "r", Tail: 2}, "h i"},
	} {
		if got := texts(read(t, dir, law.q)); got != law.want {
			t.Errorf("%s: got %q, want %q", law.name, got, law.want)
		}
	}
	if err := Read(t.Context(), dir, Query{Tail: TailMax + 1}, nil); !errors.Is(err, ErrQuery) {
		t.Errorf("too long a tail: %v", err)
	}
	stop := errors.New("stop")
	if err := Read(t.Context(), dir, Query{}, func(Entry) error { return stop }); err != stop {
		t.Errorf("each's error became %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, q := range []Query{{}, {Tail: 1}, {Follow: true}} {
		if err := Read(ended, dir, q, func(Entry) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%+v with an ended context: %v", q, err)
		}
	}
	if got := read(t, filepath.Join(dir, "none"), Query{}); got != nil {
		t.Errorf("a folder that is not there holds %v", got)
	}
}

// A follower gets every line once, in each worker's order, across rotations and
// workers that come later.
func TestFollow(t *testing.T) {
	t.Parallel()
	for _, tail := range []int{0, 2} {
		dir := t.TempDir()
		segmentFile(t, dir, 0, 1, stored(0, 1, "x")+stored(0, 2, "y")+stored(0, 3, "z"))
		const workers, lines = 3, 4000
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var wg sync.WaitGroup
		done := errors.New("done")
		got := make([][]int, workers)
		n := 0
		begun := make(chan struct{}) // the follower has given what was there
		wg.Go(func() {
			old := 0
			err := Read(ctx, dir, Query{Tail: tail, Follow: true}, func(e Entry) error {
				if strings.Contains("xyz", e.Text) {
					if old++; e.Text == "z" {
						close(begun)
						if tail == 0 && old != 3 || tail != 0 && old != tail {
							t.Errorf("tail %d: %d old lines", tail, old)
						}
					}
					return nil
				}
				if e.Dropped > 0 {
					t.Errorf("%d lines were dropped", e.Dropped)
				}
				var i int
				if _, err := fmt.Sscanf(e.Text, "line %d", &i); err != nil {
					t.Errorf("%q: %v", e.Text, err)
				}
				got[e.Worker] = append(got[e.Worker], i)
				if n++; n == workers*lines {
					return done
				}
				return nil
			})
			if err != done {
				t.Errorf("Read: %v", err)
			}
		})
		<-begun
		for worker := range workers {
			w := quiet(t, Options{Dir: dir, Worker: worker, Workers: workers, BytesMax: 4 << 20})
			wg.Go(func() {
				pad := strings.Repeat("p", 100)
				for i := range lines {
					w.Line("f", 0, nil, fmt.Appendf(nil, "line %d %s", i, pad))
					if i%50 == 49 {
						w.flush()
					}
				}
				w.flush()
				if w.now.number < 2 {
					t.Errorf("worker %d never rotated", worker)
				}
			})
		}
		wg.Wait()
		for worker, seen := range got {
			for i, n := range seen {
				if i != n {
					t.Errorf("tail %d, worker %d: line %d in place %d", tail, worker, n, i)
					break
				}
			}
		}
	}
}

// TestTailIsTheEndOfAll: reading backward is an optimisation; reading all and
// keeping the last is its twin.
func TestTailIsTheEndOfAll(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	for worker := range 3 {
		second := 0
		for number := range 3 {
			var text strings.Builder
			for range r.IntN(300) {
				second += r.IntN(2)
				line := stored(worker, second, strings.Repeat("w", r.IntN(TextBytesMax)))
				switch r.IntN(20) {
				case 0:
					line = line[:r.IntN(len(line))]
				case 1:
					line = strings.Repeat(line, 1+r.IntN(30)) // may be too long when its newlines go
					line = strings.ReplaceAll(line, "\n", " ") + "\n"
				}
				text.WriteString(line)
			}
			segmentFile(t, dir, worker, uint64(number+1), text.String())
		}
	}
	all := read(t, dir, Query{})
	for _, n := range []int{1, 2, 10, 100, len(all), len(all) + 1} {
		if n == 0 {
			continue
		}
		got := read(t, dir, Query{Tail: n})
		if want := all[max(0, len(all)-n):]; !reflect.DeepEqual(got, want) {
			t.Errorf("tail %d of %d entries differs", n, len(all))
		}
	}
}

func TestParseSegment(t *testing.T) {
	t.Parallel()
	for _, s := range []segment{{0, 1}, {63, 12345678}, {workersMax - 1, 1 << 40}} {
		if got, ok := parseSegment(s.name()); !ok || got != s {
			t.Errorf("%s: %v, %v", s.name(), got, ok)
		}
	}
	for _, name := range []string{"", "functions-", "functions--1-00000001.log", "functions-1-00000000.log", "functions-1--0000001.log", "functions-1-00000001", "functions-1-000000001.log", "functions-+1-00000001.log"} {
		if got, ok := parseSegment(name); ok {
			t.Errorf("%q is %v", name, got)
		}
	}
}

// FuzzRead: whatever is in a segment, both directions give the same entries,
// each of which can be stored and read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(stored(0, 1, "a")+stored(0, 2, "b")), []byte(stored(0, 3, "c")), 2)
	f.Add([]byte(stored(0, 2, "a")+stored(0, 1, "b")+"half"), []byte("\n\n"+stored(0, 3, "c")+"{"), 1)
	f.Add([]byte(`{"time":"2026-01-02T03:04:05+14:00","worker":-1,"dropped":3}`+"\n"), []byte(`{"time":"9999-12-31T23:59:59-01:00"}`+"\n"), 9)
	f.Add([]byte(`{"time":"2026-01-02T03:04:05.123456789Z","function":"f","failure":"x","status":-5,"duration_ms":1e300}`+"\n"), []byte{0, '\n'}, 100)
	f.Fuzz(func(t *testing.T, first, second []byte, tail int) {
		dir := t.TempDir()
		segmentFile(t, dir, 5, 1, string(first))
		segmentFile(t, dir, 5, 2, string(second))
		all := read(t, dir, Query{})
		for _, e := range all {
			var again Entry
			var ok bool
			if again, ok = new(filter).parse(e.AppendJSON(nil)); !ok {
				t.Fatalf("%+v cannot be read again: %s", e, e.AppendJSON(nil))
			}
			if e.Dropped == 0 && e.Failure == "" {
				e.Status, e.DurationMS, e.Detail = 0, 0, ""
			} else {
				e.Text, e.Cut = "", 0
			}
			if e.Dropped > 0 {
				e = Entry{Time: e.Time, Worker: e.Worker, Dropped: e.Dropped}
			}
			if e.Cut < 0 {
				e.Cut = 0
			}
			if again != e {
				t.Fatalf("%+v became %+v", e, again)
			}
		}
		if tail = 1 + (tail&0xff+0xff)%0xff; tail > 0 {
			if got := read(t, dir, Query{Tail: tail}); !reflect.DeepEqual(got, append([]Entry(nil), all[max(0, len(all)-tail):]...)) {
				t.Fatalf("the last %d: %+v of %+v", tail, got, all)
			}
		}
	})
}
