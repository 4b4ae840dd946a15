package sched

import (
	"fmt"
	"testing"
)

// benchLoads are workers as busy as those of a loaded machine: samples differ,
// and so do the live numbers.
func benchLoads(n int) []Load {
	loads := make([]Load, n)
	for i := range loads {
		loads[i] = Load{
			Ready: true, Score: 40 + float64(i%5), Sample: 1, Age: uint32(i % 5),
			Inflight: int32(i % 3), Conns: int32(20 + i),
		}
	}
	return loads
}

// BenchmarkPick is one decision; the promise is under 100 ns for 16 workers.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 2, 4, 16, 64} {
		b.Run(fmt.Sprintf("workers=%d", n), func(b *testing.B) {
			loads := benchLoads(n)
			var p Picker
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(loads)
			}
		})
	}
	b.Run("workers=16,unmeasured", func(b *testing.B) {
		loads := benchLoads(16)
		for i := range loads {
			loads[i].Score = -1
		}
		var p Picker
		b.ReportAllocs()
		for b.Loop() {
			p.Pick(loads)
		}
	})
	b.Run("workers=16,aged,ramp", func(b *testing.B) {
		loads := benchLoads(16)
		for i := range loads {
			loads[i].Age, loads[i].Ramp = 30, 10
		}
		var p Picker
		b.ReportAllocs()
		for b.Loop() {
			p.Pick(loads)
		}
	})
}
