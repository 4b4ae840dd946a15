//go:build !race

package ipc

import (
	"os"
	"testing"
)

// TestMetricsAllocs: 0. The sample itself is rare; but the collector's side runs
// on a loop, and a flood of foreign datagrams must not feed the collector of
// garbage.
func TestMetricsAllocs(t *testing.T) {
	c := collect(t)
	c.options.Sink = func(Metrics) {}
	c.pids[3] = os.Getpid()
	s := c.dial(t)
	m := metricsSample()
	if allocs := testing.AllocsPerRun(200, func() {
		m.Worker ^= 4 // one registered, one foreign, in turn
		s.Send(m)
		if _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("a datagram allocates %v times", allocs)
	}
	if c.Accepted() == 0 || c.Foreign() == 0 {
		t.Errorf("%d accepted, %d foreign", c.Accepted(), c.Foreign())
	}
}
