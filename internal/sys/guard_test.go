package sys

import (
	"errors"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
)

// guarded returns memory of so many pages, with a guard.
func guarded(t *testing.T, pages int) ([]byte, *Guard) {
	t.Helper()
	memory, err := MmapReserve(pages * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGuard(memory)
	if errors.Is(err, ErrNoGuard) && goruntime.GOARCH != "amd64" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		_ = Munmap(memory)
	})
	return memory, g
}

func TestGuardTellsOfWrites(t *testing.T) {
	t.Parallel()
	const pages = 8
	memory, g := guarded(t, pages)
	other, beside := guarded(t, 1)
	if err := beside.Protect(nil); err != nil {
		t.Fatal(err)
	}
	if g.Holds() {
		t.Error("holds before it protects")
	}
	writable := []PageRange{{PageSize, 2 * PageSize}, {4 * PageSize, 6 * PageSize}}
	isWritable := func(page int) bool { return page == 1 || page == 4 || page == 5 }
	for page := range pages {
		for _, at := range []int{0, PageSize - 1} {
			if err := g.Protect(writable); err != nil {
				t.Fatal(err)
			}
			before := memory[page*PageSize+at]
			if !g.Holds() {
				t.Fatalf("page %d: a read opened it", page)
			}
			memory[page*PageSize+at]++
			if g.Holds() != isWritable(page) {
				t.Errorf("page %d, byte %d: holds: %t", page, at, g.Holds())
			}
			if got := memory[page*PageSize+at]; got != before+1 {
				t.Errorf("page %d, byte %d: %d after %d", page, at, got, before)
			}
		}
	}
	// The whole of it at once, as Go's memmove and memclr write.
	for _, write := range []func(){func() { clear(memory) }, func() { copy(memory, make([]byte, len(memory))) }} {
		if err := g.Protect(writable); err != nil {
			t.Fatal(err)
		}
		write()
		if g.Holds() {
			t.Error("all of it was written, and it holds")
		}
	}
	if !beside.Holds() || other[0] != 0 {
		t.Error("another guard was opened")
	}
}

// A system call does not go through the handler: it fails, and nothing is written.
func TestGuardRefusesSystemCalls(t *testing.T) {
	t.Parallel()
	memory, g := guarded(t, 1)
	if err := g.Protect(nil); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Read(memory); !errors.Is(err, syscall.EFAULT) || !g.Holds() {
		t.Errorf("%v, holds: %t", err, g.Holds())
	}
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Read(memory); err != nil || n != len(memory) {
		t.Errorf("%d %v", n, err)
	}
}

// Faults elsewhere are Go's, as before.
func TestGuardLeavesOtherFaultsToGo(t *testing.T) {
	t.Parallel()
	memory, g := guarded(t, 2)
	if err := g.Protect(nil); err != nil {
		t.Fatal(err)
	}
	closed, gone := guarded(t, 1)
	if err := gone.Protect(nil); err != nil {
		t.Fatal(err)
	}
	gone.slot.size = 0 // as Close does, whose slot another test may get
	fault := func(what string, write func()) {
		defer func() {
			if err, ok := recover().(goruntime.Error); !ok {
				t.Errorf("%s: recovered %v", what, err)
			}
		}()
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		write()
		t.Errorf("%s: nothing happened", what)
	}
	var nothing *int
	fault("nil", func() { *nothing = 1 })
	fault("read-only memory without a guard", func() { closed[0] = 1 })
	if !g.Holds() {
		t.Error("it was opened")
	}
	memory[0] = 1
	if g.Holds() {
		t.Error("holds")
	}
}

func TestGuardsAreIndependent(t *testing.T) {
	t.Parallel()
	const goroutines, rounds = 8, 200
	var all sync.WaitGroup
	for range goroutines {
		memory, g := guarded(t, 4)
		all.Go(func() {
			for i := range rounds {
				page := i % 4
				if err := g.Protect([]PageRange{{page * PageSize, (page + 1) * PageSize}}); err != nil {
					t.Error(err)
					return
				}
				memory[page*PageSize]++
				if !g.Holds() {
					t.Error("opened by another")
				}
				memory[(page+1)%4*PageSize]++
				if g.Holds() {
					t.Error("holds")
				}
			}
		})
	}
	all.Wait()
}

func TestGuardsAreBounded(t *testing.T) {
	memory, g := guarded(t, 1)
	wide, many := guarded(t, 4096)
	var more []*Guard
	defer func() {
		for _, g := range more {
			g.Close()
		}
	}()
	for len(more) <= guardsMax {
		next, err := NewGuard(wide)
		if errors.Is(err, ErrNoGuard) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		more = append(more, next)
	}
	if len(more) >= guardsMax {
		t.Errorf("%d guards", len(more))
	}
	if err := g.Protect(nil); err != nil {
		t.Fatal(err)
	}
	memory[0] = 1
	if g.Holds() {
		t.Error("holds")
	}
	last := more[len(more)-1]
	last.Close()
	again, err := NewGuard(wide)
	if err != nil {
		t.Fatalf("after one was closed: %v", err)
	}
	more[len(more)-1] = again

	// So are the mappings they may make.
	var writable []PageRange
	for at := 0; at < len(wide); at += 2 * PageSize {
		writable = append(writable, PageRange{at, at + PageSize})
	}
	protected := 0
	for _, g := range append([]*Guard{many}, more...) {
		if err := g.Protect(writable); errors.Is(err, ErrNoGuard) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		protected++
	}
	if want := guardMappingsMax / (2*len(writable) + 1); protected != want {
		t.Errorf("%d guards with %d mappings each, want %d", protected, 2*len(writable)+1, want)
	}
}
