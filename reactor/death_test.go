package reactor

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
)

// scripted is a worker that does what the test says: the far ends of the
// channels of worker 1, with nobody behind them. Worker 0 is a true one.
type scripted struct {
	t         *testing.T
	p         *pair
	control   fd.FD
	donations []fd.FD
	reader    *ipc.DonationReader
	adopted   []int
}

const scriptedID = 1

// newScripted makes a pair in which connections go to the scripted worker,
// until worker 0 is made ready again.
func newScripted(t *testing.T, o pairOptions) *scripted {
	t.Helper()
	o.slots = 2
	p := newPairWith(t, o)
	w := &scripted{t: t, p: p, reader: ipc.NewDonationReader()}
	var ours []fd.FD
	for range p.front.Loops() + 1 {
		a, b, err := ipc.NewChannel()
		if err != nil {
			t.Fatal(err)
		}
		if o.sendBuffer > 0 {
			if err := sys.SetSendBuffer(a.Borrow(), o.sendBuffer); err != nil {
				t.Fatal(err)
			}
		}
		ours, w.donations = append(ours, a), append(w.donations, b)
	}
	control, theirs, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	w.control = theirs
	if err := p.front.AttachWorker(scriptedID, control, ours); err != nil {
		t.Fatal(err)
	}
	p.front.WorkerReady(scriptedID)
	p.front.WorkerDraining(0)
	t.Cleanup(w.close)
	return w
}

// take receives one donation of the front loop, and copies its bytes.
func (w *scripted) take() ipc.Donation {
	w.t.Helper()
	sock := w.donations[0].Borrow()
	if _, err := sys.Poll(sock, sys.PollIn, testenv.Patience()); err != nil {
		w.t.Fatal(err)
	}
	all, err := w.reader.Read(sock)
	if err != nil || len(all) != 1 {
		w.t.Fatalf("%d donations, %v", len(all), err)
	}
	d := all[0]
	d.Bytes = append([]byte(nil), d.Bytes...)
	w.adopted = append(w.adopted, d.FD)
	w.p.board.Worker(scriptedID).AddAdopted(1)
	return d
}

func (w *scripted) set(d ipc.Donation, s ipc.State) {
	w.p.board.Conn(d.Slot).Store(ipc.MakeWord(d.Generation, scriptedID, s))
}

func (w *scripted) send(f ipc.Frame) {
	w.t.Helper()
	if err := ipc.WriteFrame(w.control.Borrow(), f); err != nil {
		w.t.Fatal(err)
	}
}

// die is the end of the worker: its descriptors close, then it is buried.
func (w *scripted) die() {
	w.close()
	w.p.front.WorkerLost(scriptedID, true)
}

func (w *scripted) close() {
	for _, n := range w.adopted {
		sys.CloseRaw(n)
	}
	w.adopted = nil
	_ = w.control.Close()
	for i := range w.donations {
		_ = w.donations[i].Close()
	}
}

func TestLostWorker(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		// act is what the worker did before it died. It may read from c.
		act func(t *testing.T, w *scripted, c *testenv.Conn)
		// then is what the client sees.
		then func(t *testing.T, c *testenv.Conn)
	}{
		{"donated, not received: served by the next", func(t *testing.T, w *scripted, _ *testenv.Conn) { w.p.settle() }, served},
		{"donated, received, not adopted: served by the next", func(t *testing.T, w *scripted, _ *testenv.Conn) { w.take() }, served},
		{"reading: closed", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			w.set(w.take(), ipc.Reading)
		}, closed},
		{"running: 502 with the request's id", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.p.board.Conn(d.Slot).SetRequest([]byte("running-1"), false)
			w.set(d, ipc.Running)
		}, func(t *testing.T, c *testenv.Conn) {
			r := c.Response(t)
			want(t, r, 502, `"reason":"worker_lost","requestId":"running-1"`)
			if r.Header.Get("X-Request-Id") != "running-1" || !r.Close {
				t.Errorf("502 with %v", r.Header)
			}
			c.WantEnd(t)
		}},
		{"responding: cut", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.set(d, ipc.Responding)
			if _, errno := sys.Write(d.FD, []byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[1]")); errno != 0 {
				t.Fatal(errno)
			}
		}, func(t *testing.T, c *testenv.Conn) {
			if r, err := c.ReadResponse("GET"); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d, %v", r.Status, err)
			}
		}},
		{"idle: the next request is served by the next", func(t *testing.T, w *scripted, c *testenv.Conn) {
			d := w.take()
			if _, errno := sys.Write(d.FD, []byte("HTTP/1.1 204 No Content\r\n\r\n")); errno != 0 {
				t.Fatal(errno)
			}
			w.set(d, ipc.Idle)
			if r := c.Response(t); r.Status != 204 {
				t.Fatal(r.Status)
			}
			c.Send(t, post("/echo", "[1]"))
		}, served},
		{"returned, and the message arrived: served by the next", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.set(d, ipc.Returned)
			w.send(ipc.ReturnedFrame(ipc.Return{
				Slot: d.Slot, Generation: d.Generation, Reason: ipc.ReturnDrain, Table: 1, Bytes: []byte(post("/echo", "[1]")),
			}))
		}, served},
		{"returned without a message: closed", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			w.set(w.take(), ipc.Returned)
		}, closed},
		{"donated again after it was read: closed", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.set(d, ipc.Reading)
			testenv.Until(t, "what was sent is not kept any more", func() bool { return w.p.front.ledger.entries[d.Slot].kept.Load() == nil })
			w.set(d, ipc.Donated)
			w.send(ipc.NotAdoptedFrame([]ipc.SlotRef{{Slot: d.Slot, Generation: d.Generation}}))
		}, closed},
		{"ended, not reported: closed", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.set(d, ipc.Ended)
			_ = sys.Shutdown(d.FD, syscall.SHUT_RDWR)
		}, closed},
		{"a false report of an end: answered 502", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.set(d, ipc.Running)
			w.send(ipc.EndedFrame([]ipc.SlotRef{{Slot: d.Slot, Generation: d.Generation}, {Slot: 1 << 30}, {Slot: d.Slot, Generation: d.Generation + 1}}))
		}, func(t *testing.T, c *testenv.Conn) { want(t, c.Response(t), 502, "worker_lost") }},
		{"not adopted: served by the next", func(t *testing.T, w *scripted, _ *testenv.Conn) {
			d := w.take()
			w.send(ipc.NotAdoptedFrame([]ipc.SlotRef{{Slot: d.Slot, Generation: d.Generation}}))
		}, served},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newScripted(t, pairOptions{})
			c := testenv.Dial(t, w.p.addr())
			c.Send(t, post("/echo", "[1]"))
			test.act(t, w, c)
			w.die()
			w.p.front.WorkerReady(0)
			test.then(t, c)
			c.Close()
			testenv.Until(t, "the slot is free", func() bool { return w.p.front.Stats().Retained == 0 })
		})
	}
}

func served(t *testing.T, c *testenv.Conn) {
	t.Helper()
	want(t, c.Response(t), 200, "[1]")
	exchange(t, c, "[2]")
}

func closed(t *testing.T, c *testenv.Conn) { c.WantEnd(t) }

// A worker that is alive and does not adopt gives its connections to others.
func TestNotAdopted(t *testing.T) {
	t.Parallel()
	w := newScripted(t, pairOptions{})
	c := testenv.Dial(t, w.p.addr())
	c.Send(t, post("/echo", "[1]"))
	d := w.take()
	w.p.front.WorkerReady(0)
	w.p.front.WorkerDraining(scriptedID)
	w.send(ipc.NotAdoptedFrame([]ipc.SlotRef{{Slot: d.Slot, Generation: d.Generation}}))
	served(t, c)
}

// fill opens connections until the scripted worker's socket is full and the
// last one waits: not since before last.
func (w *scripted) fill() (conns []*testenv.Conn, last time.Time) {
	w.t.Helper()
	for w.p.front.counters.Queued.Load() == 0 {
		if len(conns) == 200 {
			w.t.Fatal("200 donations fit")
		}
		c := testenv.Dial(w.t, w.p.addr())
		last = time.Now()
		c.Send(w.t, post("/echo", fmt.Sprintf("[%d]", len(conns))))
		w.p.settle()
		conns = append(conns, c)
	}
	return conns, last
}

// warm has worker 0 load its function: requests that wait for that run already,
// and only so many may.
func (w *scripted) warm() {
	w.t.Helper()
	w.p.front.WorkerReady(0)
	w.p.front.WorkerDraining(scriptedID)
	c := w.p.connect(w.t, true)
	c.Close()
	testenv.Until(w.t, "it is gone", func() bool { return w.p.front.Stats().Open == 0 })
	w.p.front.WorkerReady(scriptedID)
	w.p.front.WorkerDraining(0)
}

// More connections than requests may wait, of a worker that ends while no other
// one is ready: all of them go on with its successor. The bound is for requests
// that come.
func TestManyWait(t *testing.T) {
	t.Parallel()
	const conns = waitingMax + 200
	idle := func(t *testing.T, w *scripted, d ipc.Donation, c *testenv.Conn) {
		w.set(d, ipc.Idle)
		if _, errno := sys.Write(d.FD, []byte("HTTP/1.1 204 No Content\r\n\r\n")); errno != 0 {
			t.Fatal(errno)
		}
		if r := c.Response(t); r.Status != 204 {
			t.Fatal(r.Status)
		}
	}
	for _, test := range []struct {
		name string
		act  func(t *testing.T, w *scripted, d ipc.Donation, c *testenv.Conn)
		end  func(w *scripted, all []ipc.Donation)
		then string
	}{
		{"idle, and lost", idle, func(w *scripted, _ []ipc.Donation) { w.die() }, ""},
		{"donated, and lost", func(*testing.T, *scripted, ipc.Donation, *testenv.Conn) {}, func(w *scripted, _ []ipc.Donation) { w.die() }, "[1]"},
		{"idle, and returned", idle, func(w *scripted, all []ipc.Donation) {
			w.p.front.WorkerDraining(scriptedID)
			for i, d := range all {
				w.set(d, ipc.Returned)
				w.send(ipc.ReturnedFrame(ipc.Return{Slot: d.Slot, Generation: d.Generation, Reason: ipc.ReturnDrain, Table: 1}))
				if i%64 == 63 { // the channel holds a few hundred frames
					testenv.Until(w.t, "they have come back", func() bool { return w.p.front.counters.Returned.Load() == uint64(i+1) })
				}
			}
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newScripted(t, pairOptions{conns: conns, wait: testenv.Patience()})
			w.warm()
			all, donations := make([]*testenv.Conn, conns), make([]ipc.Donation, conns)
			for i := range all {
				all[i] = testenv.Dial(t, w.p.addr())
				all[i].Send(t, post("/echo", "[1]"))
				donations[i] = w.take()
				test.act(t, w, donations[i], all[i])
			}
			test.end(w, donations)
			testenv.Until(t, "all wait for a worker", func() bool { return w.p.front.Stats().Waiting == conns })
			w.p.front.WorkerReady(0)
			for _, c := range all {
				if test.then != "" {
					want(t, c.Response(t), 200, test.then)
				}
				exchange(t, c, "[2]")
			}
			if n := w.p.front.Stats().Waiting; n != 0 {
				t.Errorf("%d connections wait for a worker, want none", n)
			}
		})
	}
	t.Run("requests that come", func(t *testing.T) {
		t.Parallel()
		p := newPairWith(t, pairOptions{conns: conns, wait: testenv.Patience()})
		p.connect(t, true) // its function is loaded
		p.front.WorkerDraining(0)
		all := make([]*testenv.Conn, waitingMax+1)
		for i := range all {
			all[i] = testenv.Dial(t, p.addr())
			all[i].Send(t, post("/echo", "[1]"))
			if i < waitingMax {
				testenv.Until(t, "it waits", func() bool { return p.front.Stats().Waiting == i+1 })
			}
		}
		want(t, all[waitingMax].Response(t), 503, "no_worker")
		p.front.WorkerReady(0)
		for _, c := range all[:waitingMax] {
			want(t, c.Response(t), 200, "[1]")
		}
	})
}

func TestFullWorkers(t *testing.T) {
	t.Parallel()
	const wait = 300 * time.Millisecond
	t.Run("503 after the wait", func(t *testing.T) {
		t.Parallel()
		w := newScripted(t, pairOptions{wait: wait, sendBuffer: 4 << 10})
		conns, start := w.fill()
		last := conns[len(conns)-1]
		r := last.Response(t)
		want(t, r, 503, "no_worker")
		if r.Header.Get("Retry-After") == "" || !r.Close || time.Since(start) < wait-2*tickInterval {
			t.Errorf("after %v: %v", time.Since(start), r.Header)
		}
		last.WantEnd(t)
		if w.p.front.counters.DonateFull.Load() == 0 || w.p.front.counters.NoWorker.Load() != 1 {
			t.Error("the full socket or the refusal is not counted")
		}
	})
	t.Run("sent when there is room again", func(t *testing.T) {
		t.Parallel()
		w := newScripted(t, pairOptions{sendBuffer: 4 << 10})
		conns, _ := w.fill()
		for i := range conns {
			d := w.take()
			if !strings.HasSuffix(string(d.Bytes), fmt.Sprintf("[%d]", i)) {
				t.Fatalf("donation %d has %q", i, d.Bytes)
			}
		}
	})
	t.Run("the next best takes it, and nothing is lost", func(t *testing.T) {
		t.Parallel()
		w := newScripted(t, pairOptions{sendBuffer: 4 << 10})
		conns, _ := w.fill()
		w.p.front.WorkerReady(0)
		last := len(conns) - 1
		want(t, conns[last].Response(t), 200, fmt.Sprintf("[%d]", last))
		w.die()
		for i, c := range conns[:last] {
			want(t, c.Response(t), 200, fmt.Sprintf("[%d]", i))
		}
	})
	t.Run("an idle connection that nobody takes ends without an answer", func(t *testing.T) {
		t.Parallel()
		w := newScripted(t, pairOptions{wait: wait})
		c := testenv.Dial(t, w.p.addr())
		c.Send(t, post("/echo", "[1]"))
		d := w.take()
		w.p.front.WorkerDraining(scriptedID)
		w.set(d, ipc.Returned)
		w.send(ipc.ReturnedFrame(ipc.Return{Slot: d.Slot, Generation: d.Generation, Reason: ipc.ReturnDrain, Table: 1}))
		c.WantEnd(t)
	})
}

// A connection comes back at a request boundary and goes to another worker,
// which its client does not notice.
func TestReturns(t *testing.T) {
	t.Parallel()
	t.Run("drain", func(t *testing.T) {
		t.Parallel()
		g := newGate()
		p := newPairWith(t, pairOptions{workers: 2, fakes: map[string]*fake{"gate": g.fake(false)}})
		p.front.WorkerDraining(1)
		idle, busy, half := p.connect(t, true), p.connect(t, true), p.connect(t, true)
		busy.Send(t, post("/gate", "[1]")+post("/echo", "[2]"))
		<-g.started
		half.Send(t, post("/echo", "[3]")[:30])
		p.await(ipc.Idle, 1)
		p.await(ipc.Reading, 1)
		p.front.WorkerReady(1)
		p.front.WorkerDraining(0)
		if err := p.front.Send(0, ipc.DrainFrame(ipc.Drain{Limit: time.Minute})); err != nil {
			t.Fatal(err)
		}
		moved := func(n int32) {
			t.Helper()
			testenv.Until(t, fmt.Sprintf("%d connections have moved", n), func() bool { return p.board.Worker(1).Conns() == n })
		}
		moved(1)
		exchange(t, idle, "[9]")
		half.Send(t, post("/echo", "[3]")[30:])
		want(t, half.Response(t), 200, "[3]")
		moved(2)
		g.open <- struct{}{}
		want(t, busy.Response(t), 200, "[1]")
		want(t, busy.Response(t), 200, "[2]")
		moved(3)
		exchange(t, half, "[8]")
		exchange(t, busy, "[7]")
	})
	t.Run("balance", func(t *testing.T) {
		t.Parallel()
		p := newPairWith(t, pairOptions{workers: 2})
		p.front.WorkerDraining(1)
		c := p.connect(t, true)
		p.front.WorkerReady(1)
		back := p.backs[0].back
		if err := back.ask(func() { back.shed = 1 }); err != nil {
			t.Fatal(err)
		}
		exchange(t, c, "[1]")
		testenv.Until(t, "it has moved", func() bool { return p.board.Worker(1).Conns() == 1 })
		exchange(t, c, "[2]")
	})
}

// exchange has body echoed.
func exchange(t *testing.T, c *testenv.Conn, body string) {
	t.Helper()
	c.Send(t, post("/echo", body))
	want(t, c.Response(t), 200, body)
}
