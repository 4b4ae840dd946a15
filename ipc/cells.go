package ipc

import (
	"math"
	"sync/atomic"

	"baton/internal/sys"
)

// Cell counts one function in one process:
//
//	0   4  requests in flight
//	4   4  requests that ask to be
//	8   8  requests that were answered
//	16  8  errors among them
//	24  8  when it was called last: CLOCK_MONOTONIC in milliseconds; 0: never
//
// Only its own process writes it, so that it can be dropped with the process;
// who wants to know about a function sums the cells of all processes.
type Cell struct {
	// word holds the first two: in flight in the low half, asking in the high
	// one. One word, so that a request is never in both or in neither.
	word     atomic.Uint64
	requests atomic.Uint64
	errors   atomic.Uint64
	called   atomic.Int64
}

// What is added to the word; the subtractions are modulo 2^64.
const (
	cellAsk     = uint64(1) << 32
	cellUnask   = ^(cellAsk - 1)
	cellEnter   = uint64(1)
	cellLeave   = ^uint64(0)
	cellBeginIn = cellEnter + cellUnask // from asking to in, at once
)

// AddRequests counts answered requests. By the cell's process.
func (c *Cell) AddRequests(n int) { c.requests.Add(uint64(n)) }

// AddErrors counts those that were errors. By the cell's process.
func (c *Cell) AddErrors(n int) { c.errors.Add(uint64(n)) }

// SetCalled notes the time of a call, in milliseconds of CLOCK_MONOTONIC. By the cell's process.
func (c *Cell) SetCalled(millis int64) { c.called.Store(millis) }

// Requests: see AddRequests.
func (c *Cell) Requests() uint64 { return c.requests.Load() }

// Errors: see AddErrors.
func (c *Cell) Errors() uint64 { return c.errors.Load() }

const (
	// enterTriesMax bounds how often Enter asks. Each time it is not let in
	// although there is room, another process asked at the same moment; both go
	// back and look again after different pauses.
	enterTriesMax = 16
	// enterLooksMax bounds the looks at the cells during one such pause.
	enterLooksMax = 8
)

// Enter admits a request to a function of which at most max may run at a time
// in all processes together. True: it is counted until Leave. max <= 0 means no
// limit: always true, and counted.
//
// Never more than max are in. Suppose more were, at some moment, and let x be
// the one of them that began to ask last. Each of the others had begun to ask
// before that and has not left, and its cell has counted it all the time since,
// first as asking, then as in, in one word that changes at once. So x, who
// looked at the cells after it began to ask, has counted all of them and itself,
// more than max, and was not let in: a contradiction. It needs only that all
// processes agree on the order of these operations, which Go's atomics promise.
//
// It refuses only when max others were seen: in, or asking at the same time.
// With at least max in, at once; with fewer in and others asking, it takes its
// question back and asks again, a bounded number of times.
//
// Any goroutine of the process may call it. A process that dies while it is
// asking or in is dropped by DropProcess.
func (b *Board) Enter(process int, cell uint32, max int32) bool {
	own := b.Cell(process, cell)
	if max <= 0 {
		own.word.Add(cellEnter)
		return true
	}
	for try := range enterTriesMax {
		own.word.Add(cellAsk)
		held, asking := b.sum(cell)
		if held+asking <= uint64(max) {
			own.word.Add(cellBeginIn)
			return true
		}
		own.word.Add(cellUnask)
		if held >= uint64(max) {
			return false
		}
		// Somebody else asks. Wait until there is room for one more, longer the
		// more often it happened, and not in step with the other processes.
		for range (try+process)%enterLooksMax + 1 {
			if held, asking = b.sum(cell); held+asking < uint64(max) {
				break
			}
		}
	}
	return false
}

// Leave ends what Enter has admitted. By the same process, once.
//
// A cell that says that nothing is in was overwritten by somebody who can write
// here and should not; it is left as it is.
func (b *Board) Leave(process int, cell uint32) {
	own := b.Cell(process, cell)
	if uint32(own.word.Add(cellLeave)) == math.MaxUint32 {
		own.word.Add(cellEnter)
	}
}

// Inflight is how many requests of the function run, in all processes. The
// cells are not of one instant.
func (b *Board) Inflight(cell uint32) int32 {
	held, _ := b.sum(cell)
	return int32(min(held, math.MaxInt32))
}

func (b *Board) sum(cell uint32) (held, asking uint64) {
	for process := range int(b.workers) + 1 {
		w := b.Cell(process, cell).word.Load()
		held += w & math.MaxUint32
		asking += w >> 32
	}
	return held, asking
}

// Totals is how many requests of the function were answered in all processes,
// since the board was made, and how many of them were errors.
func (b *Board) Totals(cell uint32) (requests, errors uint64) {
	for process := range int(b.workers) + 1 {
		c := b.Cell(process, cell)
		requests += c.Requests()
		errors += c.Errors()
	}
	return requests, errors
}

// Called is when the function was called last, in all processes; see Cell.
func (b *Board) Called(cell uint32) (millis int64) {
	for process := range int(b.workers) + 1 {
		millis = max(millis, b.Cell(process, cell).called.Load())
	}
	return millis
}

// DropProcess forgets what a worker that is gone had in flight. What it had
// counted is added to the gateway's cells, so that neither Totals nor Called goes back. By
// the gateway, once that process is reaped and before another gets its number.
//
// It looks only at pages that were touched, and gives them back to the system.
// An error means that they could not be given back; the cells are dropped all
// the same.
func (b *Board) DropProcess(process int) error {
	if process == b.GatewayProcess() {
		panic("ipc: the gateway drops itself")
	}
	begin := int64(b.layout.cells + process*b.layout.row)
	end := begin + int64(b.layout.row)
	for at := begin; at < end; {
		from, to, ok, err := sys.NextData(b.file.Borrow(), at)
		if err != nil {
			from, to, ok = at, end, true // not told: look at everything
		}
		if !ok || from >= end {
			break
		}
		first := (max(from, begin) - begin) / CellBytes
		last := min((min(to, end)-begin+CellBytes-1)/CellBytes, int64(b.cells))
		for cell := first; cell < last; cell++ {
			b.dropCell(process, uint32(cell))
		}
		at = to
	}
	return sys.PunchHole(b.file.Borrow(), begin, int64(b.layout.row))
}

func (b *Board) dropCell(process int, cell uint32) {
	c := b.Cell(process, cell)
	c.word.Store(0)
	requests, errors, called := c.requests.Swap(0), c.errors.Swap(0), c.called.Swap(0)
	if requests|errors|uint64(called) == 0 {
		return // the gateway's page stays untouched
	}
	own := b.Cell(b.GatewayProcess(), cell)
	own.requests.Add(requests)
	own.errors.Add(errors)
	own.called.Store(max(called, own.called.Load())) // this process is its one writer
}
