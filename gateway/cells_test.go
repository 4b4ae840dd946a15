package gateway

import "testing"

func TestCellsRestBeforeTheyAreUsedAgain(t *testing.T) {
	t.Parallel()
	busy := map[uint32]bool{}
	c := cells{max: cellsRest + 10, busy: func(cell uint32) bool { return busy[cell] }}
	var given []uint32
	for {
		cell, ok := c.take()
		if !ok {
			break
		}
		given = append(given, cell)
	}
	if len(given) != int(c.max) {
		t.Fatalf("%d cells were given, want %d", len(given), c.max)
	}
	for i, cell := range given {
		if cell != uint32(i) {
			t.Fatalf("cell %d is the %dth: not dense", cell, i)
		}
	}
	c.give(7)
	c.give(3)
	busy[7] = true
	if cell, ok := c.take(); !ok || cell != 3 {
		t.Errorf("got cell %d, %v; want 3, for requests still run under 7", cell, ok)
	}
	if _, ok := c.take(); ok {
		t.Error("a busy cell was given")
	}
	busy[7] = false
	if cell, ok := c.take(); !ok || cell != 7 {
		t.Errorf("got cell %d, %v; want 7", cell, ok)
	}
}

func TestFreshCellsGoFirst(t *testing.T) {
	t.Parallel()
	c := cells{max: 1000, busy: func(uint32) bool { return false }}
	for range 10 {
		c.take()
	}
	c.give(4)
	if cell, _ := c.take(); cell != 10 {
		t.Errorf("got cell %d, want a fresh one: the freed one has not rested", cell)
	}
	for i := range uint32(cellsRest) {
		c.give(i % 4)
	}
	if cell, _ := c.take(); cell != 4 {
		t.Errorf("got cell %d, want 4, the one that was freed first", cell)
	}
}
