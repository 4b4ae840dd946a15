package sched

import (
	"math"
	"math/rand/v2"
	"testing"
)

// plain is Picker.Next as its doc comment says it, one step after the other: the
// oracle of the straight loops in pick.go.
type plain struct {
	o         Options
	random    uint64
	cursor    int
	decisions float32
	taken     [WorkersMax]float32
	samples   [WorkersMax]uint32
	ages      [WorkersMax]uint32
	ramps     [WorkersMax]uint32
	scores    [WorkersMax]uint64
}

func newPlain(o Options, seed uint64) *plain {
	o.fill()
	return &plain{o: o, random: seed*0x9e3779b97f4a7c15 | 1, cursor: WorkersMax - 1}
}

func (p *plain) sum() {
	p.decisions = 0
	for _, v := range p.taken {
		p.decisions += v
	}
}

func (p *plain) learn(loads []Load) {
	for i, l := range loads {
		if l.Sample != p.samples[i] {
			p.taken[i] *= KeepDefault
		}
		p.samples[i], p.ages[i], p.ramps[i], p.scores[i] = l.Sample, l.Age, l.Ramp, math.Float64bits(l.Score)
	}
	p.sum()
}

func (p *plain) ramp(l Load) float32 {
	if l.Ramp == 0 {
		return 1
	}
	gone := int64(p.o.RampTicks) - int64(l.Ramp)
	if gone < 0 {
		gone = 0
	}
	if part := float32(gone) / float32(p.o.RampTicks); part > rampMin {
		return part
	}
	return rampMin
}

func (p *plain) trust(l Load) float32 {
	var t float32
	switch {
	case math.IsNaN(l.Score) || l.Score < 0, l.Age >= p.o.StaleTicks:
		return 0
	case l.Age <= p.o.FreshTicks:
		t = 1
	default:
		t = float32(p.o.StaleTicks-l.Age) / float32(p.o.StaleTicks-p.o.FreshTicks)
	}
	return t * p.ramp(l)
}

func (p *plain) next(loads []Load, not uint64) int {
	var who []int
	for i, l := range loads {
		if l.Ready && !l.Full && not&(1<<i) == 0 {
			who = append(who, i)
		}
	}
	if len(who) == 0 {
		return -1
	}
	// A new sample of anyone who can be chosen has all looked at.
	for _, i := range who {
		if l := loads[i]; l.Sample != p.samples[i] || l.Age != p.ages[i] || l.Ramp != p.ramps[i] || math.Float64bits(l.Score) != p.scores[i] {
			p.learn(loads)
		}
	}
	share := p.o.SharePoints / (p.decisions + shareStart)
	points := make(map[int]float32)
	score := func(l Load) float32 {
		if math.IsNaN(l.Score) || l.Score < 0 {
			return 0
		}
		return float32(math.Min(l.Score, 100))
	}
	var sum, believed float32
	for _, i := range who {
		sum += p.trust(loads[i]) * score(loads[i])
		believed += p.trust(loads[i])
	}
	var mean float32
	if believed > 0 {
		mean = sum / believed
	}
	best := float32(math.Inf(1))
	for _, i := range who {
		l := loads[i]
		live := float32(0)
		for _, n := range []int32{l.Inflight, l.Pending} {
			if n > 0 {
				live += float32(min(n, liveMax))
			}
		}
		extra := p.o.LivePoints * (1 / p.ramp(l)) * live
		extra += share * p.taken[i]
		t := p.trust(l)
		points[i] = extra + t*score(l)
		points[i] += (1 - t) * mean
		best = min(best, points[i])
	}
	var near []int
	for _, i := range who {
		if points[i] <= best+p.o.NearPoints {
			near = append(near, i)
		}
	}
	choice := near[0]
	switch {
	case len(near) == 1:
	case believed > 0:
		p.random ^= p.random >> 12
		p.random ^= p.random << 25
		p.random ^= p.random >> 27
		r := p.random * 0x2545f4914f6cdd1d
		a := int((r >> 32) * uint64(len(near)) >> 32)
		b := int((r & math.MaxUint32) * uint64(len(near)-1) >> 32)
		choice = near[a]
		rest := append(append([]int{}, near[:a]...), near[a+1:]...)
		if other := rest[b]; loads[other].held() < loads[choice].held() {
			choice = other
		}
	default:
		for _, i := range near {
			if i > p.cursor {
				choice = i
				break
			}
		}
	}
	p.cursor = choice
	charge := float32(1)
	if loads[choice].Ramp != 0 {
		charge = 1 / p.ramp(loads[choice])
	}
	p.taken[choice] += charge
	p.decisions += charge
	if p.decisions >= sharesMax {
		for i := range p.taken {
			p.taken[i] /= 2
		}
		p.sum()
	}
	return choice
}

// randomLoad is a plausible or a hostile one.
func randomLoad(r *rand.Rand) Load {
	l := Load{
		Ready:    r.IntN(8) > 0,
		Full:     r.IntN(8) == 0,
		Score:    float64(r.IntN(101)),
		Sample:   uint32(r.IntN(3)),
		Age:      uint32(r.IntN(6)),
		Inflight: int32(r.IntN(3)),
		Pending:  int32(r.IntN(3)),
		Conns:    int32(r.IntN(100)),
	}
	switch r.IntN(8) {
	case 0:
		l.Score = []float64{-1, math.NaN(), math.Inf(1), math.Inf(-1), 1e300}[r.IntN(5)]
	case 1:
		l.Age = r.Uint32() >> r.IntN(32)
	case 2:
		l.Ramp = r.Uint32() >> r.IntN(32)
	case 3:
		l.Inflight, l.Pending, l.Conns = int32(r.Uint32()), int32(r.Uint32()), int32(r.Uint32())
	}
	return l
}

func TestPickAgreesWithPlain(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 1000 {
		loads := make([]Load, r.IntN(WorkersMax+1))
		for i := range loads {
			loads[i] = randomLoad(r)
		}
		p, q := NewPicker(Options{}, seed), newPlain(Options{}, seed)
		for range 100 {
			if len(loads) > 0 && r.IntN(3) == 0 {
				loads[r.IntN(len(loads))] = randomLoad(r)
			}
			var not uint64
			if r.IntN(4) == 0 {
				not = r.Uint64()
			}
			got, want := p.Next(loads, not), q.next(loads, not)
			if got != want {
				t.Fatalf("seed %d: got %d, want %d of %+v without %b", seed, got, want, loads, not)
			}
			if got >= 0 && (!loads[got].Ready || loads[got].Full || not>>got&1 != 0) {
				t.Fatalf("seed %d: picked %d, which was not to be had", seed, got)
			}
			if want == -1 {
				continue
			}
			if p.decisions < 0 || p.decisions >= sharesMax {
				t.Fatalf("seed %d: %v decisions", seed, p.decisions)
			}
		}
	}
}

func TestPickZeroValue(t *testing.T) {
	t.Parallel()
	var p Picker
	if i := p.Pick(nil); i != -1 {
		t.Errorf("of nobody: %d", i)
	}
	if i := p.Pick(make([]Load, 3)); i != -1 {
		t.Errorf("of three that are not ready: %d", i)
	}
	if i := p.Pick([]Load{{}, {Ready: true}}); i != 1 {
		t.Errorf("of the only one that is ready: %d", i)
	}
}

func TestPickTooManyWorkers(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("65 workers were accepted")
		}
	}()
	new(Picker).Pick(make([]Load, WorkersMax+1))
}

// TestPickDoesNotHerd is pitfall "stale load herds": 50,000 decisions, a second's
// worth, on one sample that never changes, with live numbers that never change
// either, by two loops that do not know of each other.
func TestPickDoesNotHerd(t *testing.T) {
	t.Parallel()
	const decisions = 50_000
	tests := []struct {
		name   string
		scores []float64
		max    float64 // the largest part that one worker may get
		min    float64 // the smallest
	}{
		{"equal", []float64{40, 40, 40, 40}, 0.27, 0.22},
		{"one point less", []float64{40, 39, 40, 40}, 0.28, 0.22},
		{"one idles, three are half busy", []float64{0, 40, 40, 40}, 0.62, 0.11},
		{"a staircase", []float64{10, 20, 30, 40}, 0.44, 0.05},
		{"sixteen", []float64{9, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10}, 0.09, 0.03},
		{"not measured", []float64{-1, -1, -1}, 0.34, 0.33},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			loads := make([]Load, len(test.scores))
			for i, score := range test.scores {
				loads[i] = Load{Ready: true, Score: score, Sample: 1, Conns: int32(i)}
			}
			pickers := []*Picker{NewPicker(Options{}, 1), NewPicker(Options{}, 2)}
			counts := make([]int, len(loads))
			longest, run, last := 0, 0, -1
			for k := range decisions {
				i := pickers[k%2].Pick(loads)
				counts[i]++
				if i != last {
					run, last = 0, i
				}
				run++
				longest = max(longest, run)
			}
			for i, n := range counts {
				if part := float64(n) / decisions; part > test.max || part < test.min {
					t.Errorf("worker %d got %.3f, want %.2f to %.2f; all: %v", i, part, test.min, test.max, counts)
				}
			}
			// At the start the lowest score gets its head start; a run that is
			// longer than two memories of decisions is a herd.
			if longest > 2*sharesMax {
				t.Errorf("%d decisions in a row for one worker", longest)
			}
		})
	}
}

// TestPickSettles closes the circle: workers whose score follows what they are
// given, samples every 500 ms smoothed by 0.7, connections that last a while. The
// machine must not swing: each worker's load stays near the even one.
func TestPickSettles(t *testing.T) {
	t.Parallel()
	const (
		workers   = 4
		perTick   = 40 // connections per tick of 100 ms
		capacity  = 20 // connections per tick that make a score of 100
		ticks     = 600
		sampleGap = 5
	)
	p := NewPicker(Options{}, 3)
	loads := make([]Load, workers)
	meters := make([]Smoother, workers)
	served := make([]int, workers)
	for i := range loads {
		loads[i] = Load{Ready: true, Score: -1}
	}
	// Worker 3 has a neighbour that takes half of its core.
	outside := [workers]float64{3: 50}
	total := make([]int, workers)
	for tick := range ticks {
		counts := make([]int, workers)
		for range perTick {
			i := p.Pick(loads)
			counts[i]++
			loads[i].Pending++
		}
		for i := range loads {
			loads[i].Pending = 0
			loads[i].Age++
			served[i] += counts[i]
			if tick > ticks/2 {
				total[i] += counts[i]
			}
			if tick%sampleGap == i {
				cpu := min(outside[i]+float64(served[i])/(capacity*sampleGap)*100, 100)
				loads[i].Score = meters[i].Add(Usage{CPU: cpu}).CPU
				loads[i].Sample++
				loads[i].Age = 0
				served[i] = 0
			}
		}
		if tick > ticks/2 {
			for i, n := range counts {
				if n > perTick/2 {
					t.Fatalf("tick %d: worker %d got %d of %d: %v", tick, i, n, perTick, counts)
				}
			}
		}
	}
	for i, n := range total[:3] {
		if part := float64(n) / float64(perTick*ticks/2); part < 0.24 || part > 0.32 {
			t.Errorf("worker %d got %.3f of all: %v", i, part, total)
		}
	}
	if part := float64(total[3]) / float64(perTick*ticks/2); part < 0.10 || part > 0.22 {
		t.Errorf("the worker with half a core got %.3f of all: %v", part, total)
	}
}

func TestRampLeft(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ ready, want uint32 }{
		{0, RampTicksDefault}, {1, RampTicksDefault - 1}, {RampTicksDefault, 0}, {math.MaxUint32, 0},
	} {
		if got := (Options{}).RampLeft(test.ready); got != test.want {
			t.Errorf("ready for %d ticks: %d left, want %d", test.ready, got, test.want)
		}
	}
}
