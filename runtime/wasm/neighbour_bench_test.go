package wasm

import (
	goruntime "runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"baton/runtime"
)

// BenchmarkNeighbour: on one processor, the latencies of a hello-world that
// is called every half millisecond, alone and beside a function that
// always spins.
func BenchmarkNeighbour(b *testing.B) {
	defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(1))
	e := executor(b)
	hello := load(b, e, &runtime.Function{Name: "hello", Module: buildC(b, "hello")})
	busy := load(b, e, &runtime.Function{Name: "busy", Module: buildC(b, "busy", "-mbulk-memory"), Handler: "loop"})
	measure := func(n int) []time.Duration {
		var late []time.Duration
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for range n {
			due := <-tick.C // when it should have begun
			hello.Invoke(&runtime.Invocation{Body: []byte("x"), Stdout: discard{}})
			late = append(late, time.Since(due))
		}
		slices.Sort(late)
		return late
	}
	n := max(b.N, 400)
	alone := measure(n)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			busy.Invoke(&runtime.Invocation{Body: []byte("go"), Stdout: discard{}, Deadline: time.Now().Add(200 * time.Millisecond), Cancel: &stop})
		}
	}()
	beside := measure(n)
	stop.Store(true)
	<-done
	b.ReportMetric(float64(alone[n/2])/1e3, "alone-p50-µs")
	b.ReportMetric(float64(alone[n*99/100])/1e3, "alone-p99-µs")
	b.ReportMetric(float64(beside[n/2])/1e3, "beside-p50-µs")
	b.ReportMetric(float64(beside[n*99/100])/1e3, "beside-p99-µs")
}
