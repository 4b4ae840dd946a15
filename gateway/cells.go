package gateway

// cellsRest is how many freed cells rest before the oldest is used again. A
// request that still runs for a deleted route leaves its cell later; with the
// cell at rest nobody is counted wrongly.
const cellsRest = 64

// cells gives each route a dense number, its place in the counters of the
// board. Freed numbers are used again, the one that was freed first first.
// Owned by the publisher's goroutine.
type cells struct {
	next, max uint32   // next <= max: numbers below next have been given out
	free      []uint32 // oldest first
	busy      func(cell uint32) bool
}

// take returns a number that no route has. False: all are in use.
func (c *cells) take() (uint32, bool) {
	if c.next < c.max && len(c.free) <= cellsRest {
		c.next++
		return c.next - 1, true
	}
	// A cell that requests still run under goes behind the others.
	for range len(c.free) {
		cell := c.free[0]
		c.free = c.free[1:]
		if !c.busy(cell) {
			return cell, true
		}
		c.free = append(c.free, cell)
	}
	if c.next < c.max {
		c.next++
		return c.next - 1, true
	}
	return 0, false
}

// give frees a number whose route is gone from the published table.
func (c *cells) give(cell uint32) { c.free = append(c.free, cell) }
