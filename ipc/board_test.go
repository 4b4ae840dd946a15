package ipc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

func newBoard(t testing.TB, o ipc.BoardOptions) *ipc.Board {
	t.Helper()
	b, err := ipc.NewBoard(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// mapAgain maps b a second time, as another process would.
func mapAgain(t testing.TB, b *ipc.Board) *ipc.Board {
	t.Helper()
	n, err := sys.Dup(b.FD())
	if err != nil {
		t.Fatal(err)
	}
	m, err := ipc.MapBoard(fd.New(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestBoardIsShared(t *testing.T) {
	t.Parallel()
	here := newBoard(t, ipc.BoardOptions{Conns: 3, Workers: 2, Cells: 5})
	there := mapAgain(t, here)
	if there.Conns() != 3 || there.Workers() != 2 || there.Cells() != 5 || there.GatewayProcess() != 2 {
		t.Errorf("mapped: %d conns, %d workers, %d cells, gateway %d", there.Conns(), there.Workers(), there.Cells(), there.GatewayProcess())
	}
	for i := range uint32(3) {
		w := ipc.MakeWord(i+1, int(i), ipc.Running)
		here.Conn(i).Store(w)
		here.Conn(i).SetRequest(fmt.Appendf(nil, "id-%d", i), false)
		if got := there.Conn(i).Load(); got != w {
			t.Errorf("conn %d: %v, want %v", i, got, w)
		}
		if got := string(there.Conn(i).AppendRequestID([]byte("x"))); got != fmt.Sprint("xid-", i) {
			t.Errorf("conn %d: request id %q", i, got)
		}
	}
	here.Worker(1).AddDonated(5)
	there.Worker(1).AddAdopted(2)
	if here.Worker(1).Pending() != 3 || there.Worker(1).Pending() != 3 || here.Worker(0).Pending() != 0 {
		t.Errorf("pending %d, %d and %d", here.Worker(1).Pending(), there.Worker(1).Pending(), here.Worker(0).Pending())
	}
	there.Events(1).Add(3, 8)
	here.Worker(1).Reset()
	if n := here.Events(1).Count(3); n != 8 || here.Events(0).Count(3) != 0 {
		t.Errorf("%d events, want 8, also of a worker that is gone", n)
	}
	there.Cell(1, 4).AddRequests(7)
	if requests, _ := here.Totals(4); requests != 7 {
		t.Errorf("%d requests, want 7", requests)
	}
}

// TestBoardLayout: what the comments draw is where it is, so that a board can be
// read from a core dump, and no two parts overlap.
func TestBoardLayout(t *testing.T) {
	t.Parallel()
	page := os.Getpagesize()
	b := newBoard(t, ipc.BoardOptions{Conns: 100, Workers: 3, Cells: 300})
	size, err := sys.FileSize(b.FD())
	if err != nil {
		t.Fatal(err)
	}
	mem, err := sys.MmapRead(b.FD(), int(size))
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Munmap(mem)
	up := func(n int) int { return (n + page - 1) / page * page }
	workers := page
	events := workers + up(3*256)
	conns := events + up(3*1024)
	cells := conns + up(100*256)
	row := up(300 * 32)
	if want := cells + 4*row; int(size) != want {
		t.Fatalf("%d bytes, want %d", size, want)
	}
	if string(mem[:8]) != "batonBD\x03" {
		t.Errorf("magic %q", mem[:8])
	}
	expect := func(what string, offset int, want uint64, bytes int) {
		t.Helper()
		got := binary.NativeEndian.Uint64(mem[offset:])
		if bytes == 4 {
			got = uint64(binary.NativeEndian.Uint32(mem[offset:]))
		}
		if got != want {
			t.Errorf("%s at %d: %#x, want %#x", what, offset, got, want)
		}
	}
	b.Conn(99).Store(ipc.MakeWord(0xabcdef01, 0x1234, ipc.Idle))
	b.Conn(99).SetRequest([]byte("12345678"), true)
	slot := conns + 99*256
	expect("word", slot, 0xabcdef01_1234_0006, 8)
	expect("length of the id", slot+8, 8, 4)
	expect("HEAD", slot+12, 1, 4)
	expect("id", slot+16, binary.NativeEndian.Uint64([]byte("12345678")), 8)
	w := b.Worker(2)
	w.AddDonated(1)
	w.SetPid(2)
	w.SetSample(ipc.WorkerSample{Millis: 3, Status: 4})
	w.AddAdopted(5)
	w.AddInflight(6)
	w.AddConns(7)
	w.SetHeartbeat(8)
	w.AddRequests(9)
	w.AddErrors(10)
	for i, offset := range []int{0, 64, 104, 112, 128, 132, 136, 144, 152, 160} {
		want := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}[i]
		expect("worker's field", workers+2*256+offset, want, 4)
	}
	expect("number of samples", workers+2*256+68, 1, 4)
	b.Events(2).Add(ipc.EventsMax-1, 13)
	expect("events", events+3*1024-8, 13, 8)
	c := b.Cell(3, 299)
	c.AddRequests(11)
	c.AddErrors(12)
	c.SetCalled(13)
	if !b.Enter(3, 299, 1) {
		t.Error("not let in")
	}
	cell := cells + 3*row + 299*32
	expect("requests in flight", cell, 1, 4)
	expect("requests that ask", cell+4, 0, 4)
	expect("requests", cell+8, 11, 8)
	expect("errors", cell+16, 12, 8)
	expect("called", cell+24, 13, 8)
}

func TestBoardOptions(t *testing.T) {
	t.Parallel()
	good := ipc.BoardOptions{Conns: 1, Workers: 1, Cells: 1}
	for _, c := range []struct {
		name string
		set  func(o *ipc.BoardOptions)
	}{
		{"conns: want 1 to 16777216, got 0", func(o *ipc.BoardOptions) { o.Conns = 0 }},
		{"conns: want 1 to 16777216, got 16777217", func(o *ipc.BoardOptions) { o.Conns = ipc.BoardConnsMax + 1 }},
		{"workers: want 1 to 64, got 0", func(o *ipc.BoardOptions) { o.Workers = 0 }},
		{"workers: want 1 to 64, got 65", func(o *ipc.BoardOptions) { o.Workers = 65 }},
		{"cells: want 1 to 1048576, got 0", func(o *ipc.BoardOptions) { o.Cells = 0 }},
		{"cells: want 1 to 1048576, got 4294967295", func(o *ipc.BoardOptions) { o.Cells = 1<<32 - 1 }},
	} {
		o := good
		c.set(&o)
		if b, err := ipc.NewBoard(o); err == nil {
			b.Close()
			t.Errorf("%s: no error", c.name)
		} else if got := err.Error(); !strings.HasSuffix(got, c.name) {
			t.Errorf("error %q, want %q", got, c.name)
		}
	}
	// The largest costs address space only.
	b := newBoard(t, ipc.BoardOptions{Conns: 1 << 20, Workers: ipc.BoardWorkersMax, Cells: 1 << 16})
	b.Conn(1<<20 - 1).Store(1)
	b.Cell(b.GatewayProcess(), 1<<16-1).AddErrors(1)
}

func TestOutsideOfTheBoardPanics(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 3, Workers: 2, Cells: 5})
	for name, do := range map[string]func(){
		"connection":         func() { b.Conn(3) },
		"worker":             func() { b.Worker(2) },
		"negative worker":    func() { b.Worker(-1) },
		"process":            func() { b.Cell(3, 0) },
		"negative process":   func() { b.Cell(-1, 0) },
		"cell":               func() { b.Cell(0, 5) },
		"the gateway itself": func() { _ = b.DropProcess(2) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			do()
		}()
	}
}

// TestMapBoardRefuses: a wrong file is an error, never a fault.
func TestMapBoardRefuses(t *testing.T) {
	t.Parallel()
	good := newBoard(t, ipc.BoardOptions{Conns: 2, Workers: 2, Cells: 2})
	size, err := sys.FileSize(good.FD())
	if err != nil {
		t.Fatal(err)
	}
	const sealed = sys.SealShrink | sys.SealGrow
	header := make([]byte, 32)
	if _, err := syscall.Pread(good.FD(), header, 0); err != nil {
		t.Fatal(err)
	}
	put := func(offset int, value uint32) []byte {
		h := bytes.Clone(header)
		binary.NativeEndian.PutUint32(h[offset:], value)
		return h
	}
	for _, c := range []struct {
		name   string
		header []byte
		size   int64
		seals  int
		want   string
	}{
		{"a copy of a board", header, size, sealed, ""},
		{"not sealed", header, size, 0, "seals"},
		{"can shrink", header, size, sys.SealGrow, "seals"},
		{"empty", nil, 0, sealed, "size: want at least 32"},
		{"shorter than a header", header[:31], 31, sealed, "size: want at least 32"},
		{"a header only", header, 32, sealed, "size: want"},
		{"a page short", header, size - int64(os.Getpagesize()), sealed, "size: want"},
		{"a byte long", header, size + 1, sealed, "size: want"},
		{"another magic", put(0, 1), size, sealed, "magic"},
		{"another version", put(4, 0), size, sealed, "magic"},
		{"no conns", put(8, 0), size, sealed, "conns"},
		{"too many conns", put(8, 1<<31), size, sealed, "conns"},
		{"more conns than fit", put(8, 1000), size, sealed, "size: want"},
		{"too many workers", put(12, 65), size, sealed, "workers"},
		{"too many cells", put(16, 1<<30), size, sealed, "cells"},
		{"another page size", put(20, 8), size, sealed, "page size"},
	} {
		n, err := sys.MemfdCreate("test", c.size)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(sys.WriteAt(n, c.header, 0), sys.Seal(n, c.seals)); err != nil {
			t.Fatal(err)
		}
		b, err := ipc.MapBoard(fd.New(n))
		switch {
		case err == nil:
			b.Close()
			if c.want != "" {
				t.Errorf("%s: no error, want %q", c.name, c.want)
			}
		case c.want == "" || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	a, b, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, &b)
	if _, err := ipc.MapBoard(a); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a socket: %v, want EINVAL", err)
	}
	if _, err := ipc.MapBoard(fd.FD{}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("nothing: %v, want EBADF", err)
	}
}

func TestBoardSurvivesItsHeader(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 3, Workers: 2, Cells: 5})
	mem, err := sys.MmapShared(b.FD(), os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Munmap(mem)
	for i := range mem {
		mem[i] = 0xff // a worker that has lost its mind
	}
	if b.Conns() != 3 || b.Workers() != 2 || b.Inflight(4) != 0 {
		t.Error("the header is read again")
	}
	if err := syscall.Ftruncate(b.FD(), 0); err != syscall.EPERM {
		t.Errorf("truncating a board: %v, want EPERM", err)
	}
}

// TestForeignWords: whatever a process has written, reading it is bounded.
func TestForeignWords(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 1, Cells: 1})
	size, err := sys.FileSize(b.FD())
	if err != nil {
		t.Fatal(err)
	}
	mem, err := sys.MmapShared(b.FD(), int(size))
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Munmap(mem)
	for i := range mem {
		mem[i] = 0xff
	}
	if id := b.Conn(0).AppendRequestID(nil); len(id) != ipc.RequestIDBytesMax {
		t.Errorf("a request id of %d bytes", len(id))
	}
	if s := b.Conn(0).Load().State(); s <= ipc.Ended || s.String() != "state 255" {
		t.Errorf("a state without a name is %v", s)
	}
	w := b.Worker(0)
	if w.Inflight() < 0 || w.Conns() < 0 || w.Pending() < 0 || b.Inflight(0) < 0 {
		t.Errorf("negative counts: %d, %d, %d, %d", w.Inflight(), w.Conns(), w.Pending(), b.Inflight(0))
	}
	w.Sample()
	b.Leave(0, 0)
	if b.Enter(0, 0, 1) {
		t.Error("let in although 2^32 are in")
	}
	w.Reset()
	if w.Inflight() != 0 || w.Conns() != 0 || w.Pending() != 0 || w.Heartbeat() != 0 || w.Requests() != 0 || w.Errors() != 0 ||
		w.Pid() != 0 || w.Donated() != 0 || w.Adopted() != 0 || w.Sample() != (ipc.WorkerSample{}) {
		t.Error("something is left after Reset")
	}
}

func TestRequestIDIsCut(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 2, Workers: 1, Cells: 1})
	long := bytes.Repeat([]byte("x"), 200)
	b.Conn(0).SetRequest(long, false)
	if got := b.Conn(0).AppendRequestID(nil); !bytes.Equal(got, long[:128]) {
		t.Errorf("%d bytes, want 128", len(got))
	}
	if w := b.Conn(1).Load(); w != 0 {
		t.Errorf("the next slot is %v", w)
	}
	b.Conn(0).SetRequest(nil, false)
	if got := b.Conn(0).AppendRequestID(nil); len(got) != 0 {
		t.Errorf("%q, want none", got)
	}
}

func TestWord(t *testing.T) {
	t.Parallel()
	for s := ipc.Free; s <= ipc.Ended; s++ {
		for _, worker := range []int{0, 1, 63, 65535} {
			for _, generation := range []uint32{0, 1, 1<<32 - 1} {
				w := ipc.MakeWord(generation, worker, s)
				if w.Generation() != generation || w.Worker() != worker || w.State() != s {
					t.Errorf("%v: want %v, %d, %d", w, s, worker, generation)
				}
			}
		}
	}
	if got := ipc.MakeWord(3, 2, ipc.Idle).String(); got != "idle at worker 2, generation 3" {
		t.Error(got)
	}
	if ipc.Word(0).State() != ipc.Free {
		t.Error("a board of zeros is not free")
	}
}

func TestWorkerSample(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 1, Cells: 1})
	w := b.Worker(0)
	if number, _, _ := w.Score(); number != 0 {
		t.Errorf("%d samples before the first", number)
	}
	m := ipc.WorkerSample{Score: 12.5, CPU: 1, Memory: 2, IO: 3, Millis: 99, Status: ipc.MetricsBusy}
	w.SetSample(m)
	w.SetSample(m)
	m.Number = 2
	if got := w.Sample(); got != m {
		t.Errorf("%+v, want %+v", got, m)
	}
	if number, score, millis := w.Score(); number != 2 || score != 12.5 || millis != 99 {
		t.Errorf("%d, %v, %d", number, score, millis)
	}
}

// TestHandOverHammer: a connection goes back and forth between two mappings; who
// sees the word that gives it to him sees all that the other side did before.
func TestHandOverHammer(t *testing.T) {
	t.Parallel()
	const rounds = 1000
	here := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 1, Cells: 1})
	there := mapAgain(t, here)
	var wg sync.WaitGroup
	side := func(s *ipc.ConnSlot, mine, next ipc.State, first uint32) {
		var id []byte
		for g := first; g < rounds; g += 2 {
			for w := s.Load(); w != ipc.MakeWord(g, 0, mine); w = s.Load() {
				goruntime.Gosched()
			}
			if id = s.AppendRequestID(id[:0]); string(id) != strings.Repeat(string(rune('a'+g%26)), int(g%128)) {
				t.Errorf("generation %d came with the request id %q", g, id)
			}
			s.SetRequest(bytes.Repeat([]byte{'a' + byte((g+1)%26)}, int((g+1)%128)), false)
			s.Store(ipc.MakeWord(g+1, 0, next))
		}
	}
	here.Conn(0).Store(ipc.MakeWord(0, 0, ipc.Donated))
	wg.Go(func() { side(here.Conn(0), ipc.Donated, ipc.Returned, 0) })
	wg.Go(func() { side(there.Conn(0), ipc.Returned, ipc.Donated, 1) })
	wg.Wait()
	if w := here.Conn(0).Load(); w.Generation() != rounds {
		t.Errorf("ends as %v, want generation %d", w, rounds)
	}
}
