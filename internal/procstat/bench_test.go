package procstat

import (
	"testing"
	"time"
)

// BenchmarkSample is what a worker spends twice a second, without children.
func BenchmarkSample(b *testing.B) {
	s, err := NewSampler(0, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sample(time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}
