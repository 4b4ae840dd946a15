package reactor

import (
	"sync"
	"sync/atomic"

	"baton/internal/sys"
	"baton/ipc"
)

// ledger is the gateway's record of the connections it has donated and
// retains: per slot of the board, our duplicate of the descriptor, who the
// client is, and the bytes that went with it until the worker has them.
//
// Who may touch an entry: the front loop that took the slot, until it has
// stored Donated and sent the message; the returns loop from then on, until it
// frees the slot. The slot's word on the board, which the worker writes, is
// the truth about who owns the connection. The bytes in kept belong to the
// dispatcher that made them, which reuses them when the slot is past Donated.
type ledger struct {
	board   *ipc.Board
	entries []entry

	mu   sync.Mutex
	free []uint32 // slots that nobody uses, the most recently freed last
}

type entry struct {
	// generation counts the uses of the slot. Written by whoever takes it.
	generation atomic.Uint32
	// fd is the duplicate, -1 when nothing is retained. Stored after the fields
	// below and loaded before them, so it orders them.
	fd   atomic.Int32
	peer sys.Peer
	// table is the generation of the table the connection was matched in.
	table uint64
	// waitSince is when the connection first found no worker, loop clock; 0: it
	// has not, since its last request.
	waitSince int64
	// saved: a lost worker had it, and whatever it asks is held since then.
	saved bool
	kept  atomic.Pointer[keptBytes]
}

// keptBytes are what travelled with a connection, kept until the slot's state
// says that the worker has them.
type keptBytes struct {
	b     []byte
	owner *dispatcher
	next  *keptBytes
}

func newLedger(board *ipc.Board, conns uint32) *ledger {
	g := &ledger{board: board, entries: make([]entry, conns), free: make([]uint32, conns)}
	for i := range g.entries {
		g.entries[i].fd.Store(-1)
		g.free[i] = conns - 1 - uint32(i)
	}
	return g
}

// take reserves a slot and gives it a new generation. False: all are in use.
func (g *ledger) take() (slot, generation uint32, ok bool) {
	g.mu.Lock()
	n := len(g.free)
	if n == 0 {
		g.mu.Unlock()
		return 0, 0, false
	}
	slot = g.free[n-1]
	g.free = g.free[:n-1]
	g.mu.Unlock()
	e := &g.entries[slot]
	return slot, e.generation.Add(1), true
}

// release frees a slot. What it retained must be closed or given away already.
func (g *ledger) release(slot uint32) {
	e := &g.entries[slot]
	if e.fd.Load() != -1 {
		panic("reactor: a slot was freed with its descriptor")
	}
	e.kept.Store(nil)
	g.board.Conn(slot).Store(ipc.MakeWord(e.generation.Load(), 0, ipc.Free))
	g.mu.Lock()
	g.free = append(g.free, slot)
	g.mu.Unlock()
}

// close closes the retained duplicate and frees the slot. The connection
// itself was shut down by its worker, or is by this call's caller.
func (g *ledger) close(slot uint32) {
	fd := g.entries[slot].fd.Swap(-1)
	g.release(slot)
	sys.CloseRaw(int(fd))
}

// held returns the entry that a worker's message means, or nil when the slot
// is of another generation or was never that worker's: such a message is stale
// or false, and nothing may be done with the slot.
func (g *ledger) held(worker int, slot, generation uint32) *entry {
	if slot >= uint32(len(g.entries)) {
		return nil
	}
	e := &g.entries[slot]
	w := g.board.Conn(slot).Load()
	if e.fd.Load() == -1 || e.generation.Load() != generation || w.Generation() != generation || w.Worker() != worker {
		return nil
	}
	return e
}

func (g *ledger) inUse() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.entries) - len(g.free)
}
