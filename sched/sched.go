// Package sched decides which worker gets a connection, and when a worker gives
// connections back. It holds no clock, no lock and no descriptor: loads and
// ticks go in, a decision comes out, so that each decision can be replayed from
// a script (testdata/script).
//
// # The score
//
// A worker measures itself twice a second: processor, memory and input/output.
// Scale.Normalise maps each to 0..100, a Smoother removes the jitter, and
// Weights.Score makes one number of them: 0 idle, 100 at every limit. Lowest
// wins.
//
// That number alone herds: a sample is half a second old, and 50,000 decisions
// on it would all name the same worker. So a Picker adds to it what is known at
// once (see Picker.Pick): the requests in flight, the connections that were
// donated and are not adopted yet, and the share of its own decisions that the
// sample cannot have seen.
//
// # Ticks
//
// Ages are counted in ticks, whose length is the caller's business; the defaults
// of Options and ShedOptions assume TickMillis.
//
// # Goroutines, locks and hot functions
//
// None, none; Picker.Pick and Picker.Next are hot: they allocate nothing and
// cost less than 100 ns for 16 workers. A Picker, a Smoother and a Shedder
// belong to one goroutine each.
package sched

// TickMillis is the length of a tick that the default options assume. A tick is
// a fifth of the period of the samples (500 ms), so an age of a few ticks is
// told from an age of a few periods.
const TickMillis = 100

// WorkersMax bounds the workers that one Picker chooses from: the set of those
// already tried is a word of 64 bits.
const WorkersMax = 64

// Load is what a decision knows of one worker. The zero value is a worker that
// is not ready. Its numbers may come from memory that a worker can write, so
// nothing here is believed: what is negative or not a number counts as absent,
// and what is too large is cut to its limit.
type Load struct {
	// Ready: the worker takes connections. Full: the way to it has no room now.
	Ready, Full bool

	// Score is the smoothed score of the last sample, 0 (idle) to 100. Negative
	// or NaN: there was no sample yet.
	Score float64

	// Sample names the last sample: it changes whenever Score is a new one (a
	// counter, or the low bits of the sample's time). Zero for ever is allowed,
	// and only makes the Picker forget its own decisions more slowly.
	Sample uint32

	// Age is the ticks since that sample.
	Age uint32

	// Inflight is the requests that the worker runs now. Pending is the
	// connections donated to it which it has not adopted yet. Conns is the
	// connections that it has adopted and not ended. All three are live.
	Inflight, Pending, Conns int32

	// Ramp is the ticks until the worker takes a full share: see
	// Options.RampLeft. 0: it does.
	Ramp uint32
}

// live returns the requests that the worker has or is about to have.
func (l *Load) live() float32 {
	return float32(min(max(l.Inflight, 0), liveMax) + min(max(l.Pending, 0), liveMax))
}

// held returns the connections that the worker has or is about to have.
func (l *Load) held() int64 { return int64(l.Conns) + int64(l.Pending) }

// liveMax cuts an absurd count, so that the sum of two stays an exact float32.
const liveMax = 1 << 20

// measured says whether the worker has sent a sample.
func (l *Load) measured() bool { return l.Score >= 0 } // false for NaN

// score returns the score, 0 to 100; 0 when there was no sample.
func (l *Load) score() float32 {
	if !l.measured() {
		return 0
	}
	if l.Score > 100 {
		return 100
	}
	return float32(l.Score)
}
