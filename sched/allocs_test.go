//go:build !race

package sched

import (
	"math"
	"testing"
	"time"
)

// TestPickAllocs: 0, because every request of a new connection passes here.
func TestPickAllocs(t *testing.T) {
	loads := benchLoads(16)
	loads[3].Age, loads[5].Ramp, loads[7].Score = 30, 10, -1 // the rare branches too
	var p Picker
	var s Shedder
	n := 0
	if allocs := testing.AllocsPerRun(1000, func() {
		loads[n%16].Sample++
		n++
		i := p.Pick(loads)
		p.Next(loads, 1<<i)
		s.Tick(loads, i)
	}); allocs != 0 {
		t.Errorf("a decision allocates %v times", allocs)
	}
}

// TestPickTime holds the promise of 100 ns for 16 workers, with room for a slow
// machine: it fails when the cost has another order, not when the machine is
// busy.
func TestPickTime(t *testing.T) {
	const picks = 10_000
	loads := benchLoads(16)
	var p Picker
	best := time.Duration(math.MaxInt64)
	for range 20 {
		start := time.Now()
		for range picks {
			p.Pick(loads)
		}
		best = min(best, time.Since(start)/picks)
	}
	if best >= 300*time.Nanosecond {
		t.Errorf("one decision of 16 workers takes %v", best)
	}
}
