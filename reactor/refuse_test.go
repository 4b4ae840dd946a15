package reactor

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"baton/internal/testenv"
	"baton/ipc"
)

// What a worker wrote on the board before it died may be anything: an id that
// is none does not get into the answer.
func TestLostWorkersIDIsChecked(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"a\r\nInjected: 1", "a b", `a"`, "", strings.Repeat("x", ipc.RequestIDBytesMax+1), "\x00",
	} {
		w := newScripted(t, pairOptions{})
		c := testenv.Dial(t, w.p.addr())
		c.Send(t, post("/echo", "[1]"))
		d := w.take()
		w.p.board.Conn(d.Slot).SetRequest([]byte(id), false)
		w.set(d, ipc.Running)
		w.die()
		r := c.Response(t)
		want(t, r, 502, "worker_lost")
		got := r.Header.Get("X-Request-Id")
		wanted := len(id) > ipc.RequestIDBytesMax // cut, and valid
		if r.Header.Get("Injected") != "" || (got == id[:min(len(id), ipc.RequestIDBytesMax)]) != wanted || got == "" {
			t.Errorf("%q: %v", id, r.Header)
		}
		c.WantEnd(t)
	}
}

// RFC 9110 section 9.3.2: whoever answers for a lost worker, HEAD has no body.
func TestLostWorkersHead(t *testing.T) {
	t.Parallel()
	w := newScripted(t, pairOptions{})
	c := testenv.Dial(t, w.p.addr())
	c.Send(t, "HEAD /get HTTP/1.1\r\nHost: t\r\n\r\n")
	d := w.take()
	w.p.board.Conn(d.Slot).SetRequest([]byte("head-1"), true)
	w.set(d, ipc.Running)
	w.die()
	all, err := io.ReadAll(c.Conn)
	if text := string(all); err != nil || !strings.HasPrefix(text, "HTTP/1.1 502 ") || !strings.HasSuffix(text, "\r\n\r\n") ||
		!strings.Contains(text, "X-Request-Id: head-1\r\n") || strings.Contains(text, "Content-Length: 0\r\n") {
		t.Errorf("%q, %v", all, err)
	}
}

// The true worker says what it runs.
func TestWorkerSaysWhatItRuns(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{"gate": g.fake(false)}})
	for _, method := range []string{"HEAD", "GET", "HEAD", "POST"} {
		c := p.connect(t, true)
		c.Send(t, method+" /gate HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine\r\n\r\n")
		<-g.started
		slots := 0
		for slot := range uint32(p.board.Conns()) {
			s := p.board.Conn(slot)
			if s.Load().State() != ipc.Running {
				continue
			}
			slots++
			if id := s.AppendRequestID(nil); string(id) != "mine" || s.RequestIsHead() != (method == "HEAD") {
				t.Errorf("%s: the slot says %q, HEAD: %v", method, id, s.RequestIsHead())
			}
		}
		if slots != 1 {
			t.Errorf("%s: %d running", method, slots)
		}
		g.open <- struct{}{}
		if _, err := c.ReadResponse(method); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// One connection too many gets a whole answer, although it goes on sending, and
// counts for nothing; when one ends there is room again.
func TestOneConnectionTooMany(t *testing.T) {
	t.Parallel()
	const most = 3
	p := newPairWith(t, pairOptions{connsMax: most})
	var conns []*testenv.Conn
	for range most {
		conns = append(conns, p.connect(t, true))
	}
	for range 5 {
		c := testenv.Dial(t, p.addr())
		c.Send(t, post("/echo", strings.Repeat("x", 100_000)))
		r := c.Response(t)
		var body struct{ Error, Component, Reason, RequestID string }
		if err := json.Unmarshal(r.Body, &body); err != nil {
			t.Fatalf("%v in %q", err, r.Body)
		}
		if r.Status != 503 || body.Reason != "too_many_clients" || body.Component != "gateway" || body.RequestID == "" ||
			body.RequestID != r.Header.Get("X-Request-Id") || !r.Close || r.Header.Get("Retry-After") == "" || r.Header.Get("Date") == "" {
			t.Errorf("%d %v %s", r.Status, r.Header, r.Body)
		}
		c.WantEnd(t)
	}
	if n := p.front.Stats().Open; n != most {
		t.Errorf("%d are open, want %d", n, most)
	}
	for range overLingerMax + 10 {
		c := testenv.Dial(t, p.addr()) // stays: the most that linger
		if r := c.Response(t); r.Status != 503 {
			t.Fatalf("status %d", r.Status)
		}
	}
	for _, c := range conns {
		exchange(t, c, "[2]")
	}
	conns[0].Close()
	testenv.Until(t, "there is room", func() bool { return p.front.Stats().Open < most })
	c := p.connect(t, true)
	exchange(t, c, "[3]")
}

// Until the routes were read, nothing is known not to be there.
func TestBeforeTheTable(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{untabled: true})
	c := p.connect(t, false)
	c.Send(t, get("/readyz"))
	want(t, c.Response(t), 503, "no_table")
	c.Send(t, get("/healthz"))
	want(t, c.Response(t), 200, "ok")
	c.Send(t, get("/nowhere"))
	r := c.Response(t)
	want(t, r, 503, `"reason":"starting"`)
	if r.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	p.front.Tabled()
	c.Send(t, get("/readyz"))
	want(t, c.Response(t), 200, "ready")
	c.Send(t, get("/nowhere"))
	want(t, c.Response(t), 404, "route_not_found")
	exchange(t, c, "[1]")
}
