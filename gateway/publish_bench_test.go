package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"baton/ipc"
	"baton/route"
	"baton/route/sqlite"
)

// echo is a worker that confirms at once.
type echo struct {
	p  *publisher
	id int
}

func (e echo) send(ipc.Frame) error {
	e.p.confirmed(e.id, e.p.table.Generation(), true)
	return nil
}

// BenchmarkPublish: one changed row of many, from the feed's call to the stored
// table, over four workers that confirm at once.
func BenchmarkPublish(b *testing.B) {
	for _, routes := range []int{100, 100_000} {
		b.Run(fmt.Sprintf("routes=%d", routes), func(b *testing.B) {
			data := b.TempDir()
			if err := os.Mkdir(filepath.Join(data, "import"), 0o700); err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(data, "import", "m.wasm"), nil, 0o600); err != nil {
				b.Fatal(err)
			}
			var published route.Published
			p := newPublisher(publisherConfig{
				data: data, published: &published, prepares: 1,
				preparer: preparerFunc(func(context.Context, Artifact) error { return nil }),
				cells:    cells{max: cellsMax, busy: func(uint32) bool { return false }},
				counted:  func(uint32) (uint64, uint64) { return 0, 0 },
				log:      slog.New(slog.DiscardHandler),
				late:     func(_ int, err error) { b.Error(err) },
				current:  func(int, uint64) {},
			})
			ctx, cancel := context.WithCancel(b.Context())
			var running sync.WaitGroup
			running.Go(func() { p.run(ctx) })
			defer running.Wait()
			defer cancel()
			var rows []sqlite.KV
			for i := range routes {
				rows = append(rows, sqlite.KV{Key: fmt.Sprintf("GET:/some/path/%d", i), Value: row1("f", "import/m.wasm")})
			}
			_ = p.Reset(rows)
			settle(b, p)
			for id := range 4 {
				p.subscribe(id, echo{p, id})
			}
			b.ResetTimer()
			for i := range b.N {
				_ = p.Change([]sqlite.KVChange{{KV: sqlite.KV{Key: rows[i%routes].Key, Value: row1(fmt.Sprintf("f%d", i), "import/m.wasm")}}})
				settle(b, p)
			}
		})
	}
}

func settle(b *testing.B, p *publisher) {
	b.Helper()
	if err := p.settle(b.Context()); err != nil {
		b.Fatal(err)
	}
}
