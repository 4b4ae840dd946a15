package sched

import "math"

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
	// the first few after a start are decided by the score, and a single one is
	// worth less than NearPointsDefault, so that connections are counted at all.
	shareStart = 64

	// sharesMax is the memory of decisions: at this sum all counts are halved,
	// so the last 256 to 512 decide the shares. More would make a change of
	// scores send everything to one worker until the past is made up for; fewer
	// would be lost in shareStart.
	sharesMax = 512

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

	// What this Picker decided and the samples cannot have seen yet; a decision
	// for a worker on its ramp counts more than once.
	// Invariant: decisions is the sum of taken, but for rounding.
	decisions float32
	seen      [WorkersMax]view

	// Storage of one call: who can be chosen, and who of them is near the best,
	// both ascending.
	candidates [WorkersMax]candidate
	near       [WorkersMax]uint8
}

type candidate struct {
	points uint32  // the bits of a float32 that is not negative
	doubt  float32 // the part of its sample that is not believed, 0 to 1
	worker uint8
}

// view is what a Picker knows of a worker beside its Load, and what those numbers of the
// Load mean that change with a tick at most: so a decision neither divides nor compares floats.
type view struct {
	score             uint64  // bits of Load.Score
	sample, age, ramp uint32  // of the Load
	taken             float32 // decisions for it; see Picker.decisions
	weight            float32 // of a decision or a request: 1, and more on the ramp
	live              float32 // points of a request
	trust, doubt      float32 // the parts of the sample that are believed, and not; 1 together
	believed          float32 // the score as far as it is believed
}

// of reports whether v is of l as it is now.
func (v *view) of(l *Load) bool {
	return v.score == math.Float64bits(l.Score) && (v.sample^l.Sample)|(v.age^l.Age)|(v.ramp^l.Ramp) == 0
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
//	points = score + LivePoints*(inflight+pending)/ramp + SharePoints*share
//
// where ramp is 1, or for a new worker a part that grows from a tenth to 1, and
// share is the part of this Picker's recent decisions that went there. Recent
// are the last 256 to 512, each counting 1/ramp, and of those made before a new
// sample of that worker only 0.7, because the smoothed score shows the rest.
// Workers whose points differ by at most
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

	// The points of everyone who can be chosen, and the fewest. Points are not
	// negative, so their bits order as they do: compared as integers, neither
	// loop branches on them. PERFORMANCE.md, "Pick".
	var sum, believed, doubts float32
	var best uint32
	var n int
weigh:
	for {
		share := p.options.SharePoints / (p.decisions + shareStart)
		sum, believed, doubts, best, n = 0, 0, 0, math.MaxUint32, 0
		for i := range loads {
			l := &loads[i]
			if !l.Ready || l.Full || not>>(i&(WorkersMax-1))&1 != 0 {
				continue
			}
			v := &p.seen[i&(WorkersMax-1)]
			if !v.of(l) {
				p.learn(loads)
				continue weigh
			}
			believed += v.trust
			doubts += v.doubt
			sum += v.believed
			bits := math.Float32bits(v.live*l.live() + share*v.taken + v.believed)
			p.candidates[n&(WorkersMax-1)] = candidate{bits, v.doubt, uint8(i)}
			best = min(best, bits)
			n++
		}
		break
	}
	if n == 0 {
		return -1
	}
	// What is not believed is the mean of all, each as far as it is believed. Without
	// any sample there is no mean to give: they take turns.
	if doubts > 0 && believed > 0 {
		best = doubt(p.candidates[:n], sum/believed)
	}

	// Who is as good as the best.
	limit := uint64(math.Float32bits(math.Float32frombits(best) + p.options.NearPoints))
	near := 0
	for k := range p.candidates[:n] {
		c := &p.candidates[k]
		p.near[near&(WorkersMax-1)] = c.worker
		near += int((uint64(c.points) - limit - 1) >> 63) // 1 when points <= limit
	}
	var i int
	switch {
	case near == 1:
		i = int(p.near[0])
	case believed > 0:
		i = p.draw(loads, near)
	default:
		i = p.turn(near)
	}
	p.cursor = uint8(i)
	p.charge(i)
	return i
}

// doubt gives candidates the mean for what is not believed of their samples, and
// returns the fewest points. Rare: while workers start, or when one has stopped reporting.
func doubt(candidates []candidate, mean float32) uint32 {
	best := uint32(math.MaxUint32)
	for k := range candidates {
		c := &candidates[k]
		c.points = math.Float32bits(math.Float32frombits(c.points) + c.doubt*mean)
		best = min(best, c.points)
	}
	return best
}

//go:noinline
func (p *Picker) start() {
	p.options.fill()
	if p.random == 0 {
		p.Seed(1)
	}
	p.cursor = WorkersMax - 1
	p.learn(make([]Load, WorkersMax))
	p.filled = true
}

// learn takes notice of new samples, ages and ramps. Of a new sample, the score shows
// 1-KeepDefault of what was decided before it. Rare (ten times a second), so the sum of
// decisions is computed anew, and rounding does not add up.
//
//go:noinline
func (p *Picker) learn(loads []Load) {
	for i := range loads {
		l, v := &loads[i], &p.seen[i]
		if v.sample != l.Sample {
			v.taken *= KeepDefault
		}
		v.score, v.sample, v.age, v.ramp = math.Float64bits(l.Score), l.Sample, l.Age, l.Ramp
		part := p.ramp(l.Ramp)
		v.weight = 1 / part
		v.live = p.options.LivePoints * v.weight
		v.trust = 0
		if l.measured() {
			v.trust = p.trust(l.Age) * part
		}
		v.doubt = 1 - v.trust
		v.believed = v.trust * l.score()
	}
	p.sum()
}

// charge takes notice of a decision for worker i.
func (p *Picker) charge(i int) {
	v := &p.seen[i]
	v.taken += v.weight
	p.decisions += v.weight
	if p.decisions >= sharesMax {
		p.halve()
	}
}

//go:noinline
func (p *Picker) halve() {
	for i := range p.seen {
		p.seen[i].taken /= 2
	}
	p.sum()
}

func (p *Picker) sum() {
	p.decisions = 0
	for i := range p.seen {
		p.decisions += p.seen[i].taken
	}
}

// trust returns how much a sample of that age is believed, 1 to 0. On the ramp
// only so much of it, for a worker that has hardly anything to do measures little.
func (p *Picker) trust(age uint32) float32 {
	fresh, stale := p.options.FreshTicks, p.options.StaleTicks
	return float32(stale-min(max(age, fresh), stale)) / float32(stale-fresh)
}

// ramp returns the part of a full share that a worker gets which has so many
// ticks left, above 0 to 1.
func (p *Picker) ramp(left uint32) float32 {
	if left == 0 {
		return 1
	}
	all := p.options.RampTicks
	return max(float32(all-min(left, all))/float32(all), rampMin)
}

// turn returns the first of near[:n], which ascends, after the last decision.
func (p *Picker) turn(n int) int {
	for _, i := range p.near[:n] {
		if i > p.cursor {
			return int(i)
		}
	}
	return int(p.near[0])
}

// draw returns that of two different random members of near[:n], n at least 2,
// which has fewer connections.
func (p *Picker) draw(loads []Load, n int) int {
	r := p.next()
	// Two numbers, below n and below n-1, from the halves of r: multiply, shift.
	a := (r >> 32) * uint64(n) >> 32
	b := (r & math.MaxUint32) * uint64(n-1) >> 32
	if b >= a {
		b++
	}
	i, j := p.near[a&(WorkersMax-1)], p.near[b&(WorkersMax-1)]
	if loads[j].held() < loads[i].held() {
		return int(j)
	}
	return int(i)
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
