package wasm

import (
	"math"
	"testing"
	"time"

	"baton/internal/sys"
	"baton/runtime"
)

// BenchmarkPutBack puts back 16 MiB that an invocation dirtied of 64, beside
// the plain copy of 16 MiB.
func BenchmarkPutBack(b *testing.B) {
	l := load(b, executor(b), &runtime.Function{Name: "dirty", Module: buildC(b, "dirty"), MemoryMB: 64})
	p := l.(*loaded).pool
	f := l.(*loaded).f
	inv := &runtime.Invocation{Body: []byte("16"), Stdout: discard{}}
	in, res := p.get(f, inv)
	if in == nil {
		b.Fatalf("%+v", res)
	}
	defer p.put(in, true, false)
	in.invoke(f, inv)
	dst, src := make([]byte, 16<<20), make([]byte, 16<<20)
	best := [2]time.Duration{math.MaxInt64, math.MaxInt64}
	for b.Loop() {
		in.begin(f, inv)
		if err := in.run.CallWithStack(in, nil); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		if err := in.memory.restore(sys.Faults()); err != nil {
			b.Fatal(err)
		}
		best[0] = min(best[0], time.Since(start))
		start = time.Now()
		copy(dst, src)
		best[1] = min(best[1], time.Since(start))
	}
	if in.memory.bytes < 16<<20 {
		b.Fatalf("%d bytes were dirty", in.memory.bytes)
	}
	b.ReportMetric(float64(best[0])/1e3, "putback-µs")
	b.ReportMetric(float64(best[0])/float64(best[1]), "putback/copy")
}
