package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"baton/internal/fd"
	"baton/internal/sys"
)

const (
	// boardMagic opens a board and names its layout: another layout, another
	// number. "batonBD" and a version.
	boardMagic = uint64('b') | 'a'<<8 | 't'<<16 | 'o'<<24 | 'n'<<32 | 'B'<<40 | 'D'<<48 | 3<<56

	// ConnSlotBytes, WorkerSlotBytes, EventsBytes and CellBytes are the sizes of
	// the parts.
	ConnSlotBytes   = 256
	WorkerSlotBytes = 256
	EventsBytes     = 8 * EventsMax
	CellBytes       = 32

	// EventsMax is how many kinds of events a worker can count.
	EventsMax = 128

	// BoardConnsMax bounds the slots of connections: far above what one machine
	// opens (fs.nr_open is 1,048,576 by default), and 4 GiB of address space.
	BoardConnsMax = 1 << 24
	// BoardWorkersMax bounds the workers: a set of them is a word of 64 bits.
	BoardWorkersMax = 64
	// BoardCellsMax bounds the functions: 1,048,576. With every worker that is
	// 2 GiB of address space, of which only touched pages cost memory.
	BoardCellsMax = 1 << 20
)

// BoardOptions are the sizes of a board. All must be at least 1; what is above
// its maximum is an error.
type BoardOptions struct {
	// Conns is how many connections can be handed over at a time. A connection
	// that finds no free slot must be refused.
	Conns uint32
	// Workers is how many workers there can be, dead ones that were not yet
	// replaced included.
	Workers uint32
	// Cells is how many functions can be counted and limited.
	Cells uint32
}

// Board is shared memory between the gateway and its workers. Its layout, in
// the machine's byte order; every part begins at a page:
//
//	header   0   8  boardMagic
//	         8   4  conns
//	         12  4  workers
//	         16  4  cells
//	         20  4  page size
//	         24  8  size of the file
//	workers         workers × 256, see WorkerSlot
//	events          workers × 1024, see Events
//	conns           conns × 256, see ConnSlot
//	cells           (workers + 1) rows, each cells × 32, see Cell; every row
//	                begins at a page. Row i is worker i's, the last the gateway's.
//
// The file is sealed at its size, so no process can cut a page from under
// another. A page costs memory once it was touched.
//
// The methods may be called by any goroutine of any process that has mapped the
// board, as the words themselves say; after Close, none. What the words order is
// ordered, but the race detector does not know it: it sees only Go's own memory.
type Board struct {
	// Immutable after NewBoard or MapBoard. The counts are our own copy: the
	// header can be overwritten by any worker and is never read again.
	file    fd.FD
	mem     []byte
	conns   uint32
	workers uint32
	cells   uint32
	layout  boardLayout
}

// boardLayout are the offsets of the parts in bytes.
type boardLayout struct {
	workers, events, conns, cells int
	row                           int // from one row of cells to the next
	size                          int
}

func layoutOf(o BoardOptions, page int) boardLayout {
	up := func(n int) int { return (n + page - 1) / page * page }
	var l boardLayout
	l.workers = up(boardHeaderBytes)
	l.events = l.workers + up(int(o.Workers)*WorkerSlotBytes)
	l.conns = l.events + up(int(o.Workers)*EventsBytes)
	l.cells = l.conns + up(int(o.Conns)*ConnSlotBytes)
	l.row = up(int(o.Cells) * CellBytes)
	l.size = l.cells + (int(o.Workers)+1)*l.row
	return l
}

const boardHeaderBytes = 32

func (o BoardOptions) check() error {
	var errs []error
	for _, c := range []struct {
		name     string
		got, max uint32
	}{{"conns", o.Conns, BoardConnsMax}, {"workers", o.Workers, BoardWorkersMax}, {"cells", o.Cells, BoardCellsMax}} {
		if c.got < 1 || c.got > c.max {
			errs = append(errs, fmt.Errorf("%s: want 1 to %d, got %d", c.name, c.max, c.got))
		}
	}
	return errors.Join(errs...)
}

// NewBoard makes a board of zeros: every slot is Free in generation 0. Close
// releases it; mappings of other processes live on.
func NewBoard(o BoardOptions) (*Board, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("make board: %w", err)
	}
	page := os.Getpagesize()
	layout := layoutOf(o, page)
	n, err := sys.MemfdCreate("baton-board", int64(layout.size))
	if err != nil {
		return nil, fmt.Errorf("make board: %w", err)
	}
	b := &Board{file: fd.New(n), conns: o.Conns, workers: o.Workers, cells: o.Cells, layout: layout}
	if err = sys.Seal(n, sys.SealShrink|sys.SealGrow|sys.SealSeal); err == nil {
		b.mem, err = sys.MmapShared(n, layout.size)
	}
	if err != nil {
		_ = b.file.Close()
		return nil, fmt.Errorf("make board: %w", err)
	}
	binary.NativeEndian.PutUint64(b.mem, boardMagic)
	binary.NativeEndian.PutUint32(b.mem[8:], o.Conns)
	binary.NativeEndian.PutUint32(b.mem[12:], o.Workers)
	binary.NativeEndian.PutUint32(b.mem[16:], o.Cells)
	binary.NativeEndian.PutUint32(b.mem[20:], uint32(page))
	binary.NativeEndian.PutUint64(b.mem[24:], uint64(layout.size))
	return b, nil
}

// MapBoard maps the board behind f, which is the board's from here on, also on
// error. A file that is no board, of another layout, or that could still be cut
// is refused before a byte of it is touched.
func MapBoard(f fd.FD) (*Board, error) {
	b, err := mapBoard(f.Borrow())
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("map board: %w", err)
	}
	b.file = f
	return b, nil
}

func mapBoard(n int) (*Board, error) {
	seals, err := sys.Seals(n)
	if err != nil {
		return nil, fmt.Errorf("no memfd: %w", err)
	}
	if want := sys.SealShrink | sys.SealGrow; seals&want != want {
		return nil, fmt.Errorf("seals: want %#x, got %#x", want, seals)
	}
	size, err := sys.FileSize(n)
	if err != nil {
		return nil, err
	}
	if size < boardHeaderBytes {
		return nil, fmt.Errorf("size: want at least %d bytes, got %d", boardHeaderBytes, size)
	}
	head, err := sys.MmapRead(n, boardHeaderBytes)
	if err != nil {
		return nil, err
	}
	var copied [boardHeaderBytes]byte
	copy(copied[:], head)
	if err := sys.Munmap(head); err != nil {
		return nil, err
	}
	if magic := binary.NativeEndian.Uint64(copied[:]); magic != boardMagic {
		return nil, fmt.Errorf("magic: want %#x, got %#x", boardMagic, magic)
	}
	o := BoardOptions{
		Conns:   binary.NativeEndian.Uint32(copied[8:]),
		Workers: binary.NativeEndian.Uint32(copied[12:]),
		Cells:   binary.NativeEndian.Uint32(copied[16:]),
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	page := os.Getpagesize()
	if got := binary.NativeEndian.Uint32(copied[20:]); got != uint32(page) {
		return nil, fmt.Errorf("page size: want %d, got %d", page, got)
	}
	layout := layoutOf(o, page)
	if size != int64(layout.size) {
		return nil, fmt.Errorf("size: want %d bytes, got %d", layout.size, size)
	}
	mem, err := sys.MmapShared(n, layout.size)
	if err != nil {
		return nil, err
	}
	return &Board{mem: mem, conns: o.Conns, workers: o.Workers, cells: o.Cells, layout: layout}, nil
}

// FD is the board's descriptor, borrowed until Close: to be passed to a worker.
func (b *Board) FD() int { return b.file.Borrow() }

// Close unmaps the board: whoever still uses a slot of it crashes, so the loops
// must have ended.
func (b *Board) Close() error {
	if err := b.file.Close(); err != nil {
		return err
	}
	mem := b.mem
	b.mem = nil
	return sys.Munmap(mem)
}

// Conns is the number of slots for connections.
func (b *Board) Conns() int { return int(b.conns) }

// Workers is the number of slots for workers.
func (b *Board) Workers() int { return int(b.workers) }

// Cells is the number of cells of each process.
func (b *Board) Cells() int { return int(b.cells) }

// GatewayProcess is the gateway's number where a process is asked for; a
// worker's is its own.
func (b *Board) GatewayProcess() int { return int(b.workers) }
