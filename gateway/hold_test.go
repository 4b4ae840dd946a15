package gateway

import (
	"context"
	"errors"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/route/sqlite"
)

// artifacts is how many files the publisher knows.
func (b *publishBench) artifacts() (n int) {
	b.ask(func() { n = len(b.publisher.artifacts) })
	return n
}

func TestHold(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, 0)
	m := b.artifact("a.wasm", "1")
	b.reset("GET:/old", row1("old", m))
	b.settled()

	next := b.artifact("b.wasm", "1")
	release, err := b.publisher.hold(t.Context(), Artifact{Runtime: "wasm", Path: b.path("b.wasm")})
	if err != nil {
		t.Fatal(err)
	}
	// A route that moves is never gone: what is held is in the same table.
	generation := b.table.Load().Generation()
	_ = b.Change([]sqlite.KVChange{{KV: sqlite.KV{Key: "GET:/old"}, Deleted: true}, {KV: sqlite.KV{Key: "GET:/new", Value: row1("new", next)}}})
	if err := b.publisher.served(t.Context(), []string{"GET:/old", "GET:/new"}); err != nil {
		t.Error(err)
	}
	b.want("GET:/new", "new")
	b.want("GET:/old", "")
	if got := b.table.Load().Generation(); got != generation+1 {
		t.Errorf("the move took %d tables", got-generation)
	}
	if n := b.prepared("b.wasm"); n != 1 {
		t.Errorf("prepared %d times", n)
	}
	release()
	if n := b.artifacts(); n != 1 {
		t.Errorf("%d artifacts are known, one is named by a row", n)
	}
	b.gone("GET:/new")
	b.settled()
	if n := b.artifacts(); n != 0 {
		t.Errorf("%d artifacts are known, none is named or held", n)
	}

	t.Run("two hold one", func(t *testing.T) {
		a := Artifact{Runtime: "wasm", Path: b.path("b.wasm")}
		first, err1 := b.publisher.hold(t.Context(), a)
		second, err2 := b.publisher.hold(t.Context(), a)
		if err1 != nil || err2 != nil || b.prepared("b.wasm") != 2 {
			t.Errorf("%v, %v, prepared %d times", err1, err2, b.prepared("b.wasm"))
		}
		first()
		if b.artifacts() != 1 {
			t.Error("one of two has let go, and it is forgotten")
		}
		second()
		if b.artifacts() != 0 {
			t.Error("nobody holds it, and it is known")
		}
	})
	t.Run("the preparer's error is the holder's", func(t *testing.T) {
		b.artifact("bad.wasm", "1")
		b.mu.Lock()
		b.verdict[b.path("bad.wasm")] = errors.New("no module")
		b.mu.Unlock()
		if _, err := b.publisher.hold(t.Context(), Artifact{Runtime: "wasm", Path: b.path("bad.wasm")}); err == nil || err.Error() != "no module" {
			t.Errorf("hold: %v", err)
		}
	})
	t.Run("no file", func(t *testing.T) {
		if _, err := b.publisher.hold(t.Context(), Artifact{Runtime: "wasm", Path: b.path("none.wasm")}); err == nil {
			t.Error("hold of nothing")
		}
	})
	t.Run("who goes away holds nothing", func(t *testing.T) {
		b.artifact("slow.wasm", "1")
		wait := make(chan struct{})
		b.mu.Lock()
		b.block[b.path("slow.wasm")] = wait
		b.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := b.publisher.hold(ctx, Artifact{Runtime: "wasm", Path: b.path("slow.wasm")})
			ended <- err
		}()
		testenv.Until(t, "the preparation runs", func() bool { return b.prepared("slow.wasm") == 1 })
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("hold: %v", err)
		}
		b.mu.Lock()
		delete(b.block, b.path("slow.wasm"))
		b.mu.Unlock()
		close(wait)
	})
	testenv.Until(t, "no artifact is known any more", func() bool { return b.artifacts() == 0 })
}

func TestServed(t *testing.T) {
	t.Parallel()
	b := newPublishBench(t, time.Hour)
	m := b.artifact("a.wasm", "1")
	b.reset("GET:/a", row1("a", m))
	b.settled()
	l := b.join(0)
	l.ready()
	if err := b.publisher.served(t.Context(), []string{"GET:/a", "GET:/none"}); err != nil {
		t.Errorf("what is there, and what never was: %v", err)
	}
	b.put("GET:/bad", "{")
	var row *errRow
	if err := b.publisher.served(t.Context(), []string{"GET:/bad"}); !errors.As(err, &row) || row.Key != "GET:/bad" {
		t.Errorf("a bad row: %v", err)
	}
	// A worker that does not confirm holds it up, until it is gone.
	l.setDeaf(true)
	b.put("GET:/b", row1("b", m))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.publisher.served(ctx, []string{"GET:/b"}) }()
	testenv.Until(t, "the table is with the worker", func() bool { return l.generation() > b.table.Load().Generation() })
	select {
	case err := <-ended:
		t.Fatalf("served before the worker has confirmed: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("who goes away: %v", err)
	}
	go func() { ended <- b.publisher.served(t.Context(), []string{"GET:/b"}) }()
	b.leave(0)
	if err := <-ended; err != nil {
		t.Errorf("when the worker is gone: %v", err)
	}
	b.want("GET:/b", "b")
}

func TestSameShape(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"GET:/a/{x}", "GET:/a/{y}", true},
		{"GET:/a/{x}/b/{y...}", "GET:/a/{long}/b/{z...}", true},
		{"GET:/a/{x}", "GET:/a/{x...}", false},
		{"GET:/a/{x}", "PUT:/a/{x}", false},
		{"GET:/a/{x}", "GET:/a/b", false},
		{"GET:/a/{x}/b", "GET:/a/{x}/c", false},
		{"GET:/a", "GET:/a", true},
	} {
		if sameShape(c.a, c.b) != c.want || sameShape(c.b, c.a) != c.want {
			t.Errorf("%s and %s: want %v", c.a, c.b, c.want)
		}
	}
}
