package route

import (
	"fmt"
	"sync"
	"testing"
)

// TestPublishHammer: readers look up in whatever table is published while the
// writer goes on publishing. A route that is always there is always found, and
// one that changes is whole: its name and its cell are of one version.
func TestPublishHammer(t *testing.T) {
	t.Parallel()
	var published Published
	table := mustBuild(t, "GET:/always", "GET:/p/{x}")
	published.Store(table)
	done, start := make(chan struct{}), make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			<-start
			var m Match
			for {
				select {
				case <-done:
					return
				default:
				}
				now := published.Load()
				if now.Lookup(&m, []byte("GET"), []byte("/always")) != Found {
					t.Error("a route that is always there was not found")
					return
				}
				if now.Lookup(&m, []byte("GET"), []byte("/changing")) == Found && m.Function.Name != fmt.Sprintf("v%d", m.Function.Cell) {
					t.Errorf("cell %d has name %s", m.Function.Cell, m.Function.Name)
					return
				}
			}
		})
	}
	close(start)
	for i := range 1500 {
		changes := []Change{
			{OpPut, Row{"GET:/changing", named(fmt.Sprintf("v%d", i)), uint32(i)}},
			{OpPut, Row{fmt.Sprintf("GET:/other/%d", i), goodValue, uint32(i)}},
		}
		if i%7 == 0 {
			changes = append(changes, gone("GET:/changing"), gone(fmt.Sprintf("GET:/other/%d", i-7)))
		}
		table, _ = table.Apply(uint64(i), changes)
		published.Store(table)
	}
	close(done)
	readers.Wait()
}
