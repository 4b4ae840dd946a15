package sched

import "math"

// Usage is what a worker uses, each part normalised: 0 is nothing, 100 is the
// limit of Scale.
type Usage struct{ CPU, Memory, IO float64 }

// Sample is what a worker measures of itself and its children.
type Sample struct {
	CPUPercent    float64 // of one core, over the time since the last sample
	MemoryBytes   float64 // resident now
	IOKBPerSecond float64 // read and written, KB of 1,024 bytes, since the last sample
}

// Scale says what counts as 100. A field too small makes a worker look full
// when it is not, one too large hides that it is; a field that is zero or less
// switches its part off (always 0).
type Scale struct {
	CPUPercent    float64
	MemoryBytes   float64
	IOKBPerSecond float64
}

// ScaleDefault is 100 % of one core, 512 MB, 10,000 KB/s.
//
// Source: the predecessor's normalising, kept so that its operators' thresholds
// keep their meaning.
func ScaleDefault() Scale {
	return Scale{CPUPercent: 100, MemoryBytes: 512 << 20, IOKBPerSecond: 10_000}
}

// Normalise maps a sample to 0..100 each. What is beyond a limit counts as 100:
// a worker with children may well use more than one core. A part that is
// negative or not a number counts as 0.
func (s Scale) Normalise(v Sample) Usage {
	return Usage{
		CPU:    normalise(v.CPUPercent, s.CPUPercent),
		Memory: normalise(v.MemoryBytes, s.MemoryBytes),
		IO:     normalise(v.IOKBPerSecond, s.IOKBPerSecond),
	}
}

func normalise(v, limit float64) float64 {
	if !(v > 0) || !(limit > 0) { // also NaN
		return 0
	}
	if v >= limit {
		return 100
	}
	return v / limit * 100
}

// KeepDefault is the part of the old value that a Smoother keeps by default:
// s = 0.7*s_old + 0.3*new. After four samples (2 s) a step is seen by
// 1-0.7^4 = 76 %.
const KeepDefault = 0.7

// Smoother is an exponential moving average of a Usage. The zero value is ready
// and keeps KeepDefault.
type Smoother struct {
	// Keep is the part of the old value that stays, 0 (no smoothing) to less
	// than 1 (deaf). Zero means KeepDefault; negative means no smoothing.
	Keep float64

	usage   Usage
	started bool
}

// Add takes one more value and returns the average. The first is taken as it
// is: an average that starts at zero would call a new worker idle for seconds.
func (s *Smoother) Add(u Usage) Usage {
	keep := s.Keep
	if keep == 0 {
		keep = KeepDefault
	}
	if !s.started || !(keep > 0) {
		s.usage, s.started = u, true
		return u
	}
	s.usage.CPU = keep*s.usage.CPU + (1-keep)*u.CPU
	s.usage.Memory = keep*s.usage.Memory + (1-keep)*u.Memory
	s.usage.IO = keep*s.usage.IO + (1-keep)*u.IO
	return s.usage
}

// Weights says how much each part of a Usage counts in the score. Their sum is
// the score of a worker at every limit; Score cuts at 100.
type Weights struct{ CPU, Memory, IO float64 }

// WeightsDefault is 0.5, 0.3, 0.2: the predecessor's.
func WeightsDefault() Weights { return Weights{CPU: 0.5, Memory: 0.3, IO: 0.2} }

// Score makes one number of u: 0 idle, 100 at every limit.
func (w Weights) Score(u Usage) float64 {
	v := w.CPU*u.CPU + w.Memory*u.Memory + w.IO*u.IO
	if !(v > 0) || math.IsInf(v, 1) {
		return 0
	}
	return min(v, 100)
}

// Status is the score in a word, for people. No decision reads it.
type Status uint8

const (
	Idle Status = iota
	Busy
	Overloaded
)

// String returns idle, busy or overloaded.
func (s Status) String() string {
	switch s {
	case Idle:
		return "idle"
	case Busy:
		return "busy"
	case Overloaded:
		return "overloaded"
	}
	return "unknown"
}

// StatusLimits says from which score on a worker is busy, and overloaded.
type StatusLimits struct{ Busy, Overloaded float64 }

// StatusLimitsDefault is 30 and 70. A worker that uses all of one core and
// little memory scores 50 to 60: busy. Only with memory or input/output near
// their limits as well is it overloaded.
func StatusLimitsDefault() StatusLimits { return StatusLimits{Busy: 30, Overloaded: 70} }

// Of returns the status of a score. A score that is not a number is idle.
func (l StatusLimits) Of(score float64) Status {
	switch {
	case score >= l.Overloaded:
		return Overloaded
	case score >= l.Busy:
		return Busy
	}
	return Idle
}

// Meter turns a worker's samples into what it reports: normalised, smoothed,
// scored. The zero value is not ready; use NewMeter.
type Meter struct {
	Scale    Scale
	Smoother Smoother
	Weights  Weights
	Limits   StatusLimits
}

// NewMeter returns a Meter with the default of each part.
func NewMeter() *Meter {
	return &Meter{Scale: ScaleDefault(), Weights: WeightsDefault(), Limits: StatusLimitsDefault()}
}

// Add takes one sample and returns the smoothed usage, its score and its
// status.
func (m *Meter) Add(v Sample) (Usage, float64, Status) {
	u := m.Smoother.Add(m.Scale.Normalise(v))
	score := m.Weights.Score(u)
	return u, score, m.Limits.Of(score)
}
