//go:build !race

package procstat

import (
	"testing"
	"time"
)

// TestSampleAllocs: a sample is taken twice a second for as long as a worker
// lives. Its garbage is the paths it opens, two small strings each, one per
// thread and three per process: some kilobytes at most.
func TestSampleAllocs(t *testing.T) {
	s, err := NewSampler(0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, err := s.Sample(time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	if bytes := r.AllocedBytesPerOp(); bytes > 8<<10 {
		t.Errorf("a sample leaves %d bytes of garbage in %d pieces", bytes, r.AllocsPerOp())
	}
}

// TestParseAllocs: 0, because they run per process of a sample.
func TestParseAllocs(t *testing.T) {
	stat, status, io, children := []byte("42 (a b) c)"+statTail), []byte("VmRSS:\t12 kB\n"), []byte("read_bytes: 1\nwrite_bytes: 2\n"), []byte("1 2 3 ")
	pids := make([]int, 0, 8)
	if allocs := testing.AllocsPerRun(100, func() {
		ParseStat(stat)
		ParseResident(status)
		ParseIO(io)
		pids = AppendPIDs(pids[:0], children)
	}); allocs != 0 {
		t.Errorf("parsing allocates %v times", allocs)
	}
}
