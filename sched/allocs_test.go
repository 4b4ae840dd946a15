//go:build !race

package sched

import "testing"

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
