package ipc

import (
	"fmt"
	"unsafe"
)

// The parts of the board lie over the mapping. Every offset is bounded by the
// counts that NewBoard or MapBoard has checked against the size of the file, so
// none points outside; a number that is out of range is a mistake of ours (a
// foreign one must be compared with Conns first) and panics.

// The layouts are fixed: a change of them needs a new boardMagic.
var (
	_ [ConnSlotBytes]byte   = [unsafe.Sizeof(ConnSlot{})]byte{}
	_ [WorkerSlotBytes]byte = [unsafe.Sizeof(WorkerSlot{})]byte{}
	_ [EventsBytes]byte     = [unsafe.Sizeof(Events{})]byte{}
	_ [CellBytes]byte       = [unsafe.Sizeof(Cell{})]byte{}
)

// Conn returns slot i, which is less than Conns.
func (b *Board) Conn(i uint32) *ConnSlot {
	if i >= b.conns {
		outOfRange("connection", int(i), int(b.conns))
	}
	return (*ConnSlot)(b.at(b.layout.conns + int(i)*ConnSlotBytes))
}

// Worker returns the slot of worker i, which is less than Workers.
func (b *Board) Worker(i int) *WorkerSlot {
	if uint(i) >= uint(b.workers) {
		outOfRange("worker", i, int(b.workers))
	}
	return (*WorkerSlot)(b.at(b.layout.workers + i*WorkerSlotBytes))
}

// Events returns what worker i counts, which is less than Workers.
func (b *Board) Events(i int) *Events {
	if uint(i) >= uint(b.workers) {
		outOfRange("worker", i, int(b.workers))
	}
	return (*Events)(b.at(b.layout.events + i*EventsBytes))
}

// Cell returns the cell of one function in one process. process is a worker's
// number or GatewayProcess; cell is less than Cells.
func (b *Board) Cell(process int, cell uint32) *Cell {
	if uint(process) > uint(b.workers) {
		outOfRange("process", process, int(b.workers)+1)
	}
	if cell >= b.cells {
		outOfRange("cell", int(cell), int(b.cells))
	}
	return (*Cell)(b.at(b.layout.cells + process*b.layout.row + int(cell)*CellBytes))
}

func (b *Board) at(offset int) unsafe.Pointer {
	return unsafe.Pointer(&b.mem[offset])
}

// outOfRange is beside the hot path, so that its callers stay small.
//
//go:noinline
func outOfRange(what string, got, size int) {
	panic(fmt.Sprintf("ipc: %s %d of a board with %d", what, got, size))
}
