package reactor

import (
	"testing"

	"baton/httpparse"
	"baton/internal/testenv"
)

// count is a counter as /metrics shows it.
func (p *pair) count(name string) (value uint64) {
	p.t.Helper()
	found := 0
	p.front.EachCounter(func(have string, v uint64) {
		if have == name {
			value = v
			found++
		}
	})
	if found != 1 {
		p.t.Fatalf("%d counters are called %q", found, name)
	}
	return value
}

// What either process refuses, answers itself or loses is in the one sum.
func TestCountersOfAllProcesses(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 2)
	for r := httpparse.ReasonNone + 1; r < httpparse.ReasonCount; r++ {
		if n := p.count("refused_" + r.String()); n != 0 {
			t.Errorf("%s: %d before the first request", r, n)
		}
	}
	for _, test := range []struct{ counter, request string }{
		{"refused_missing_host", "GET / HTTP/1.1\r\n\r\n"},
		{"refused_bad_chunk_size", chunked + "x\r\n"},
		{"refused_body_too_large", "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000001\r\n\r\n"},
		{"not_found", "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"},
		{"method_not_allowed", post("/get", "")},
	} {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, test.request)
			if r := c.Response(t); r.Status < 400 {
				t.Errorf("%s: status %d", test.counter, r.Status)
			}
			c.WantEnd(t)
		})
		testenv.Until(t, test.counter+" is 2", func() bool { return p.count(test.counter) == 2 })
	}
}

// A worker's last counts are there when it has ended.
func TestCountersOutliveTheirWorker(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	c := p.connect(t, true)
	back := p.backs[0].back
	_ = back.ask(func() {
		// Behind the last tick: only the end is left to tell it.
		back.onTick = func() {}
		back.counters.Promoted.Add(7)
	})
	c.Close()
	_ = back.post(back.stopNow)
	<-p.backs[0].done
	p.board.Worker(0).Reset()
	if n := p.count("promoted"); n != 7 {
		t.Errorf("%d are counted", n)
	}
}
