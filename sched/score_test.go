package sched

import (
	"math"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestNormalise(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		scale  Scale
		sample Sample
		want   Usage
	}{
		{"predecessor: cpu 100 % is 100", ScaleDefault(), Sample{CPUPercent: 100}, Usage{CPU: 100}},
		{"predecessor: mem 512 MB is 100", ScaleDefault(), Sample{MemoryBytes: 512 << 20}, Usage{Memory: 100}},
		{"predecessor: io 10,000 KB/s is 100", ScaleDefault(), Sample{IOKBPerSecond: 10_000}, Usage{IO: 100}},
		{"in proportion", ScaleDefault(), Sample{25, 64 << 20, 100}, Usage{25, 12.5, 1}},
		{"cut at 100", ScaleDefault(), Sample{101, 1e12, math.Inf(1)}, Usage{100, 100, 100}},
		{"not a number, negative: 0", ScaleDefault(), Sample{math.NaN(), -1, math.Inf(-1)}, Usage{}},
		{"another scale", Scale{400, 1 << 30, 1}, Sample{100, 1 << 29, 0.5}, Usage{25, 50, 50}},
		{"a part without a limit is off", Scale{}, Sample{1, 1, 1}, Usage{}},
	}
	for _, test := range tests {
		if got := test.scale.Normalise(test.sample); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestSmoother(t *testing.T) {
	t.Parallel()
	var s Smoother
	if u := s.Add(Usage{80, 40, 20}); u != (Usage{80, 40, 20}) {
		t.Errorf("the first is smoothed: %v", u)
	}
	if u := s.Add(Usage{0, 40, 120}); !near(u.CPU, 56) || !near(u.Memory, 40) || !near(u.IO, 50) {
		t.Errorf("0.7*old + 0.3*new: %v", u)
	}
	half := Smoother{Keep: 0.5}
	half.Add(Usage{CPU: 10})
	if u := half.Add(Usage{CPU: 20}); u.CPU != 15 {
		t.Errorf("keeping a half: %v", u)
	}
	none := Smoother{Keep: -1}
	none.Add(Usage{CPU: 10})
	if u := none.Add(Usage{CPU: 20}); u.CPU != 20 {
		t.Errorf("keeping nothing: %v", u)
	}
}

func TestScore(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		weights Weights
		usage   Usage
		want    float64
	}{
		{"predecessor: half of cpu", WeightsDefault(), Usage{CPU: 100}, 50},
		{"predecessor: three tenths of mem", WeightsDefault(), Usage{Memory: 100}, 30},
		{"predecessor: a fifth of io", WeightsDefault(), Usage{IO: 100}, 20},
		{"all at their limits", WeightsDefault(), Usage{100, 100, 100}, 100},
		{"idle", WeightsDefault(), Usage{}, 0},
		{"weights above 1 are cut", Weights{1, 1, 1}, Usage{100, 100, 100}, 100},
		{"not a number", WeightsDefault(), Usage{CPU: math.NaN()}, 0},
	}
	for _, test := range tests {
		if got := test.weights.Score(test.usage); !near(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		score float64
		want  string
	}{{0, "idle"}, {29.9, "idle"}, {30, "busy"}, {69.9, "busy"}, {70, "overloaded"}, {100, "overloaded"}, {math.NaN(), "idle"}} {
		if got := StatusLimitsDefault().Of(test.score).String(); got != test.want {
			t.Errorf("%v: %s, want %s", test.score, got, test.want)
		}
	}
	if got := Status(9).String(); got != "unknown" {
		t.Errorf("Status(9): %s", got)
	}
}

// FuzzMeter: whatever a worker measures, what it reports is 0 to 100.
func FuzzMeter(f *testing.F) {
	f.Add(50.0, 1e8, 100.0, 0.0, 0.0, 0.0)
	f.Add(math.NaN(), math.Inf(1), -1.0, 1e308, 1e-308, math.Inf(-1))
	f.Fuzz(func(t *testing.T, cpu, mem, io, cpu2, mem2, io2 float64) {
		m := NewMeter()
		for _, v := range []Sample{{cpu, mem, io}, {cpu2, mem2, io2}} {
			u, score, status := m.Add(v)
			for _, part := range []float64{u.CPU, u.Memory, u.IO, score} {
				if !(part >= 0 && part <= 100) {
					t.Fatalf("%v: %v, score %v", v, u, score)
				}
			}
			if status > Overloaded {
				t.Fatalf("status %d", status)
			}
		}
	})
}
