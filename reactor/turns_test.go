package reactor

import (
	"bytes"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// Connections that end are reported together, when there are many of them or some
// time has passed; the gateway lets its descriptors go then.
func TestEndsAreReportedTogether(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	back := p.backs[0].back
	var soon int64
	if err := back.ask(func() { soon = back.soon; back.soon = int64(testenv.Patience()) * 10 }); err != nil {
		t.Fatal(err)
	}
	conns := make([]*testenv.Conn, endedBatchMax)
	for i := range conns {
		conns[i] = p.connect(t, true)
	}
	for i, c := range conns {
		_ = c.Close()
		left := len(conns) - i - 1
		testenv.Until(t, "the worker has seen the end", func() bool {
			n := -1
			_ = back.ask(func() { n = back.connsOpen })
			return n == left
		})
		if n := p.front.ledger.inUse(); left > 0 && n != len(conns) {
			t.Fatalf("%d descriptors are retained after %d ends, want %d", n, i+1, len(conns))
		}
	}
	retained := func() bool { return p.front.ledger.inUse() == 0 }
	testenv.Until(t, "a full report has come", retained)

	_ = back.ask(func() { back.soon, back.turnBy = soon, 0 })
	_ = p.connect(t, true).Close()
	testenv.Until(t, "a report of one end has come", retained)
}

// A gateway's loop that has many events lets others have the processor when it is
// woken, and one that has few does not.
func TestBusyLoopsGather(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, 1)
	_ = p.connect(t, true).Close() // both have had work
	loops := map[string]*gatewayLoop{"front": &p.front.loops[0].gatewayLoop, "returns": &p.front.returns.gatewayLoop}
	policies := func() (all []string) {
		for name, l := range loops {
			policy := ""
			if err := l.ask(func() {
				stat, err := os.ReadFile("/proc/thread-self/stat")
				if err != nil {
					t.Errorf("policy of %s: %v", name, err)
					return
				}
				policy = strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):]))[39] // proc_pid_stat(5)
			}); err != nil {
				t.Fatal(err)
			}
			all = append(all, policy)
		}
		return all
	}
	const other, batch = "0", "3" // sched(7)
	busy := func() {
		for range gatherEvents {
			for _, l := range loops {
				_ = l.ask(func() {})
			}
		}
	}
	testenv.Until(t, "both loops gather", func() bool {
		busy()
		return slices.Equal(policies(), []string{batch, batch})
	})
	testenv.Until(t, "neither loop gathers", func() bool {
		return slices.Equal(policies(), []string{other, other})
	})
}

func TestReserveProcessors(t *testing.T) {
	before := goruntime.GOMAXPROCS(0)
	release := ReserveProcessors(3)
	if n := goruntime.GOMAXPROCS(0); n != before+3 {
		t.Errorf("%d processors, want 3 more than %d", n, before)
	}
	release()
	if n := goruntime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors after the release, want %d", n, before)
	}
}
