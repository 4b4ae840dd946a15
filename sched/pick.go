package sched

import "math/bits"

// Options tunes a Picker. Points are points of the score: 100 is the distance
// between an idle worker and one at every limit.
type Options struct {
	// LivePoints is what one request in flight, or one donated and not yet
	// adopted, adds. Too small: a slow worker collects connections until its
	// next sample. Too large: the measured score no longer matters, only the
	// queue. Zero: LivePointsDefault.
	LivePoints float32

	// SharePoints is what a worker would be charged that got all recent
	// decisions of this Picker; one that got half of them is charged half. It
	// fixes how far a difference of scores skews the decisions: two workers
	// whose scores differ by d get shares that differ by d/SharePoints. Too
	// small: herding. Too large: plain round-robin. Zero: SharePointsDefault.
	SharePoints float32

	// NearPoints is how far from the best a worker may be and still be chosen
	// among. Too small: noise of the samples decides. Too large: a worse worker
	// is taken for no reason. Zero: NearPointsDefault.
	NearPoints float32

	// A sample is believed whole up to an age of FreshTicks, not at all from
	// StaleTicks on, and in between in proportion. What is not believed is
	// replaced by the mean of the others, each as far as it is believed: an old
	// sample neither attracts nor repels. Zero: the defaults.
	FreshTicks, StaleTicks uint32

	// RampTicks is how long a new worker takes to come to a full share. Zero:
	// RampTicksDefault.
	RampTicks uint32
}

const (
	// LivePointsDefault makes one request in flight outweigh what a sample of
	// half a second can resolve (the kernel counts processor time in ticks of
	// 10 ms, 2 % of it, so 1 point), and twenty of them a whole score.
	LivePointsDefault = 5

	// SharePointsDefault is the width of the score: an idle worker beside one
	// at every limit gets everything, beside one at half its limits three
	// quarters.
	SharePointsDefault = 100

	// NearPointsDefault is half of LivePointsDefault, so that a single request
	// in flight is never lost in the noise.
	NearPointsDefault = 2.5

	// FreshTicksDefault is 1 s, two periods: one lost datagram is no news.
	// StaleTicksDefault is 5 s: after ten lost ones nothing is known.
	FreshTicksDefault = 10
	StaleTicksDefault = 50

	// RampTicksDefault is 2 s: four samples, of which the score shows 76 %.
	RampTicksDefault = 20

	// shareStart is added to the number of decisions when a share is computed:
	// the first few after a start are decided by the score, and only with more
	// of them does their distribution count.
	shareStart = 16

	// sharesMax bounds the memory of decisions when no new samples come: at
	// this sum all counts are halved.
	sharesMax = 8192

	// rampMin is the part of a full share at which a new worker starts.
	rampMin = 0.1
)

func (o *Options) fill() {
	if o.LivePoints == 0 {
		o.LivePoints = LivePointsDefault
	}
	if o.SharePoints == 0 {
		o.SharePoints = SharePointsDefault
	}
	if o.NearPoints == 0 {
		o.NearPoints = NearPointsDefault
	}
	if o.FreshTicks == 0 {
		o.FreshTicks = FreshTicksDefault
	}
	if o.StaleTicks == 0 {
		o.StaleTicks = StaleTicksDefault
	}
	o.StaleTicks = max(o.StaleTicks, o.FreshTicks+1)
	if o.RampTicks == 0 {
		o.RampTicks = RampTicksDefault
	}
}

// RampLeft returns Load.Ramp for a worker that has been ready for so many
// ticks.
func (o Options) RampLeft(ready uint32) uint32 {
	o.fill()
	return o.RampTicks - min(ready, o.RampTicks)
}

// Picker chooses workers. The zero value is ready, with the defaults; Seed makes
// several Pickers differ. One goroutine uses it.
type Picker struct {
	options Options
	filled  bool
	cursor  uint8  // the worker after which the rotation goes on
	random  uint64 // xorshift64*; 0: not seeded

	// What this Picker decided and the samples cannot have seen yet.
	// Invariant: decisions is the sum of taken.
	decisions float32
	taken     [WorkersMax]float32
	samples   [WorkersMax]uint32 // Load.Sample when taken was last aged

	// Storage of one call.
	points [WorkersMax]float32
}

// NewPicker returns a Picker with the given options.
func NewPicker(o Options, seed uint64) *Picker {
	p := new(Picker)
	p.options = o
	p.Seed(seed)
	return p
}

// Seed starts the random sequence at seed. Equal seeds and equal loads make
// equal decisions.
func (p *Picker) Seed(seed uint64) { p.random = seed*0x9e3779b97f4a7c15 | 1 }

// Pick returns the index of the worker that gets the next connection, or -1
// when none is ready and not full.
//
// The worker with the fewest points wins:
//
//	points = score + (LivePoints*(inflight+pending) + SharePoints*share) / ramp
//
// where share is the part of this Picker's recent decisions that went there,
// weighed down by 0.7 at each new sample of that worker, because so much of
// them the smoothed score does not show yet; and ramp is 1, or for a new worker
// a part that grows from a tenth to 1. Workers whose points differ by at most
// NearPoints are equal: of two drawn from them at random, that with fewer
// connections is taken. While no sample is believed (none came yet, or all are
// too old) they take turns. A worker without a sample counts with the mean of
// the others'.
//
// loads[i] describes worker i, in at most WorkersMax places. Allocates nothing.
//
// Source: Mitzenmacher, "How Useful Is Old Information?" (2000), for the herd
// and the two choices; Dahlin, "Interpreting Stale Load Information" (2000), for
// charging the decisions made since the sample.
func (p *Picker) Pick(loads []Load) int { return p.Next(loads, 0) }

// Next is Pick without the workers whose bits are set in not: those which were
// tried for this connection and did not take it. The decisions for them stay
// charged, for they had no room.
func (p *Picker) Next(loads []Load, not uint64) int {
	if len(loads) > WorkersMax {
		panic("sched: more than WorkersMax workers")
	}
	if !p.filled {
		p.start()
	}

	// Who can be chosen, and what a worker of which nothing is known scores.
	var candidates uint64
	var sum, trusted float32
	for i := range loads {
		l := &loads[i]
		if !l.Ready || l.Full || not>>i&1 != 0 {
			continue
		}
		candidates |= 1 << i
		if l.measured() {
			trust := float32(1)
			if l.Age > p.options.FreshTicks {
				trust = p.trust(l.Age)
			}
			sum += trust * float32(min(l.Score, 100))
			trusted += trust
		}
		if l.Sample != p.samples[i] {
			p.age(i, l.Sample)
		}
	}
	if candidates == 0 {
		return -1
	}
	var mean float32
	if trusted > 0 {
		mean = sum / trusted
	}

	// Points, and the fewest.
	share := p.options.SharePoints / (p.decisions + shareStart)
	best := float32(maxPoints)
	for set := candidates; set != 0; set &= set - 1 {
		i := bits.TrailingZeros64(set) & (WorkersMax - 1)
		l := &loads[i]
		extra := p.options.LivePoints*l.live() + share*p.taken[i]
		if l.Ramp != 0 {
			extra /= p.ramp(l.Ramp)
		}
		score := mean
		if l.measured() {
			score = float32(min(l.Score, 100))
			if l.Age > p.options.FreshTicks {
				score = mean + p.trust(l.Age)*(score-mean)
			}
		}
		p.points[i] = score + extra
		best = min(best, p.points[i])
	}

	// Who is as good as the best.
	var near uint64
	limit := best + p.options.NearPoints
	for set := candidates; set != 0; set &= set - 1 {
		i := bits.TrailingZeros64(set) & (WorkersMax - 1)
		if p.points[i] <= limit {
			near |= 1 << i
		}
	}
	var i int
	switch {
	case near&(near-1) == 0:
		i = bits.TrailingZeros64(near)
	case trusted > 0:
		i = p.draw(loads, near)
	default:
		i = p.turn(near)
	}
	p.cursor = uint8(i)
	p.charge(i)
	return i
}

// maxPoints is above all points: a score of 100, and two liveMax with any ramp.
const maxPoints = 1e30

//go:noinline
func (p *Picker) start() {
	p.options.fill()
	if p.random == 0 {
		p.Seed(1)
	}
	p.cursor = WorkersMax - 1
	p.filled = true
}

// age takes notice of a new sample of worker i: the score shows 1-KeepDefault of
// what was decided before it. Rare (two a second and worker), so the sum is
// computed anew, and rounding does not add up.
//
//go:noinline
func (p *Picker) age(i int, sample uint32) {
	p.samples[i] = sample
	p.taken[i] *= KeepDefault
	p.sum()
}

// charge takes notice of a decision for worker i.
func (p *Picker) charge(i int) {
	p.taken[i]++
	p.decisions++
	if p.decisions >= sharesMax {
		p.halve()
	}
}

//go:noinline
func (p *Picker) halve() {
	for i := range p.taken {
		p.taken[i] /= 2
	}
	p.sum()
}

func (p *Picker) sum() {
	p.decisions = 0
	for _, taken := range p.taken {
		p.decisions += taken
	}
}

// trust returns how much a sample of that age is believed, 1 to 0.
func (p *Picker) trust(age uint32) float32 {
	fresh, stale := p.options.FreshTicks, p.options.StaleTicks
	return float32(stale-min(max(age, fresh), stale)) / float32(stale-fresh)
}

// ramp returns the part of a full share that a worker gets which has so many
// ticks to go.
func (p *Picker) ramp(left uint32) float32 {
	gone := 1 - float32(min(left, p.options.RampTicks))/float32(p.options.RampTicks)
	return max(gone, rampMin)
}

// turn returns the member of set that comes next after the last decision.
func (p *Picker) turn(set uint64) int {
	later := set &^ (1<<(p.cursor+1) - 1)
	if later == 0 {
		later = set
	}
	return bits.TrailingZeros64(later)
}

// draw returns that of two different random members of set which has fewer
// connections.
func (p *Picker) draw(loads []Load, set uint64) int {
	n := uint64(bits.OnesCount64(set))
	r := p.next()
	// Two numbers below n from the two halves of r: multiply and shift.
	a := (r >> 32) * n >> 32
	b := (r & 0xffffffff) * (n - 1) >> 32
	if b >= a {
		b++
	}
	i, j := member(set, a), member(set, b)
	if loads[j].held() < loads[i].held() {
		return j
	}
	return i
}

// member returns the n-th lowest bit of set, from 0.
func member(set, n uint64) int {
	for ; n > 0; n-- {
		set &= set - 1
	}
	return bits.TrailingZeros64(set) & (WorkersMax - 1)
}

// next is xorshift64*.
//
// Source: Marsaglia, "Xorshift RNGs" (2003); Vigna, "An experimental exploration
// of Marsaglia's xorshift generators, scrambled" (2016).
func (p *Picker) next() uint64 {
	x := p.random
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	p.random = x
	return x * 0x2545f4914f6cdd1d
}
