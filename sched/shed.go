package sched

import "math"

// ShedOptions tunes a Shedder.
type ShedOptions struct {
	// EnterPoints is by how much the own points must exceed those of another
	// worker to start giving back, LeavePoints below what distance it stops.
	// The gap between the two is the hysteresis. Zero: the defaults.
	EnterPoints, LeavePoints float32

	// BusyScore is the own score below which nothing is given back: a worker
	// that is not busy serves its connections well, whatever others do. Zero:
	// the default.
	BusyScore float64

	// HoldTicks is how long the distance must last before the first
	// connection goes. RestTicks is the time between two steps, in which their
	// effect reaches the samples. Zero: the defaults.
	HoldTicks, RestTicks uint32

	// StepMax bounds the connections of one step. Zero: the default.
	StepMax int32
}

const (
	// ShedEnterDefault is a quarter of the scale: half a core more, or five
	// requests in flight. ShedLeaveDefault is what one step (an eighth of the
	// connections) moves at most with both workers at full load.
	ShedEnterDefault = 25
	ShedLeaveDefault = 10

	// ShedBusyDefault is the limit of StatusLimitsDefault.
	ShedBusyDefault = 30

	// ShedHoldDefault is 1.5 s, three samples: no single burst moves
	// connections. ShedRestDefault is 2 s, four samples: the score shows 76 % of
	// the last step before the next one.
	ShedHoldDefault = 15
	ShedRestDefault = 20

	// ShedStepDefault is one message of returns.
	ShedStepDefault = 16

	// shedPart is the part of its connections that a worker gives back in one
	// step: 1/8.
	shedPart = 8
)

func (o *ShedOptions) fill() {
	if o.EnterPoints == 0 {
		o.EnterPoints = ShedEnterDefault
	}
	if o.LeavePoints == 0 {
		o.LeavePoints = ShedLeaveDefault
	}
	if o.BusyScore == 0 {
		o.BusyScore = ShedBusyDefault
	}
	if o.HoldTicks == 0 {
		o.HoldTicks = ShedHoldDefault
	}
	if o.RestTicks == 0 {
		o.RestTicks = ShedRestDefault
	}
	if o.StepMax == 0 {
		o.StepMax = ShedStepDefault
	}
}

// Shedder decides for one worker how many of its connections go back to the
// gateway, which then picks again. The zero value is ready, with the defaults;
// set Options before the first Tick. One goroutine uses it.
type Shedder struct {
	Options ShedOptions

	filled  bool
	heavy   uint32 // consecutive ticks with the distance of EnterPoints
	rest    uint32 // ticks until the next step is allowed
	started bool   // between Enter and Leave
}

// Tick is called once per tick with the loads of all workers, own among them,
// and returns how many connections worker own should return at their next
// request boundary; almost always 0.
//
// Connections go when all of this holds: own is measured, freshly, and busy;
// it has at least two connections; another worker that is ready, not full,
// fully ramped and freshly measured has clearly fewer points (score and live
// load), for some time. A step is an eighth of the connections, at least 1, at
// most StepMax; between steps there is a rest. So what is moved cannot come
// back before the samples show it.
func (s *Shedder) Tick(loads []Load, own int) int {
	if !s.filled {
		s.Options.fill()
		s.filled = true
	}
	if s.rest > 0 {
		s.rest--
	}
	distance, ok := shedDistance(loads, own)
	mine := &loads[own]
	if !ok || distance < s.Options.LeavePoints || mine.Score < s.Options.BusyScore || mine.Conns < 2 {
		s.heavy, s.started = 0, false
		return 0
	}
	if !s.started {
		if distance < s.Options.EnterPoints {
			s.heavy = 0
			return 0
		}
		s.heavy++
		if s.heavy < s.Options.HoldTicks {
			return 0
		}
		s.started = true
	}
	if s.rest > 0 {
		return 0
	}
	s.rest = s.Options.RestTicks
	return int(min(max(mine.Conns/shedPart, 1), s.Options.StepMax))
}

// shedDistance returns by how much the points of own exceed those of the least
// loaded other worker; false when one of the two sides is not known well.
func shedDistance(loads []Load, own int) (float32, bool) {
	mine := &loads[own]
	if !mine.measured() || mine.Age > FreshTicksDefault {
		return 0, false
	}
	best := float32(math.Inf(1))
	for i := range loads {
		l := &loads[i]
		if i == own || !l.Ready || l.Full || l.Ramp != 0 || !l.measured() || l.Age > FreshTicksDefault {
			continue
		}
		best = min(best, shedPoints(l))
	}
	return shedPoints(mine) - best, !math.IsInf(float64(best), 1)
}

func shedPoints(l *Load) float32 {
	return l.score() + LivePointsDefault*l.live()
}
