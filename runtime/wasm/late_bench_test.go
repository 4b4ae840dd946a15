package wasm

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"baton/runtime"
)

// BenchmarkLate: how long after their deadline functions are over that run an instruction on a range
// for ever, beside one that only loops, in turns: one of each is an iteration. Prints the distributions,
// and how long an instance took to get: one that wrote to a table is made anew each time.
func BenchmarkLate(b *testing.B) {
	e := executor(b)
	spinning := spinners()
	functions := make([]*loaded, len(spinning))
	for i, s := range spinning {
		functions[i] = load(b, e, &runtime.Function{Name: "late", Module: writeNamed(b, "late "+s.name, s.module), MemoryMB: 64}).(*loaded)
	}
	made, late := make([][]time.Duration, len(spinning)), make([][]time.Duration, len(spinning))
	for b.Loop() {
		for i, l := range functions {
			m, d := spin(b, l, 30*time.Millisecond)
			made[i], late[i] = append(made[i], m), append(late[i], d)
		}
	}
	worst := time.Duration(0)
	for i, s := range spinning {
		d, m := late[i], made[i]
		slices.Sort(d)
		slices.Sort(m)
		n := len(d)
		micros := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
		fmt.Fprintf(os.Stderr, "%-20s %d ends, late p50 %v, p90 %v, p99 %v, max %v, over 10 ms %d; made in p50 %v, max %v\n", s.name, n,
			micros(d[n/2]), micros(d[n*90/100]), micros(d[n*99/100]), micros(d[n-1]),
			n-countUntil(d, 10*time.Millisecond), micros(m[n/2]), micros(m[n-1]))
		if i == 0 {
			b.ReportMetric(float64(d[n-1])/1e6, "loop-max-ms")
		} else {
			worst = max(worst, d[n-1])
		}
	}
	b.ReportMetric(float64(worst)/1e6, "bulk-max-ms")
}

// countUntil is how many of the sorted d are at most limit.
func countUntil(d []time.Duration, limit time.Duration) int {
	n, _ := slices.BinarySearch(d, limit+1)
	return n
}
