package ipc

import "strconv"

// State says what the owner of a connection is about to do with it. It is
// stored before the act, so that whoever finds the slot of a dead worker knows
// the worst that can have happened.
//
//	              gateway                              worker
//	Free ──take──▶ Gateway ──donate──▶ Donated ──adopt──▶ Reading ◀──────┐
//	 ▲               ▲  ▲                 │                │  ▲  │       │
//	 │               │  └── not sent, ────┘                │  │  │       │
//	 │               │      not adopted                    │  │  ▼       │
//	 │               │                                     │  │ Running  │
//	 │               │                                     │  │  │       │
//	 │               │                                     │  │  ▼       │
//	 │               │                                     │  └─Responding
//	 │               │                                     ▼     │  │
//	 │               └──take back── Returned ◀──return── Idle ◀──┘  │
//	 │                                  ▲                  │        │
//	 │                                  └──────return──────┼────────┤
//	 └────────────── let go ──────────────────── Ended ◀───┴────────┘
//
// Reading may be left for every state to its right. Each state has one process
// that may leave it:
//
//	Free        gateway: nobody uses the slot.
//	Gateway     gateway: it owns the connection; no worker touches it.
//	Donated     the worker named in the word, by adopting; the gateway keeps the
//	            bytes that travel. The gateway takes it back when nothing was
//	            sent, when the worker reports it as not adopted, or when the
//	            worker is gone: then it donates it again with the same bytes.
//	Reading     worker: stored before each read(2), and while bytes of a request
//	            are in its memory. Found at a dead worker: close.
//	Running     worker: the function runs, the request id is in the slot, no byte
//	            of an answer was written. Found: answer 502, close.
//	Responding  worker: stored before the first write(2). Found: close.
//	Idle        worker: no byte of a request is in its memory and none of an
//	            answer unsent. Found: donate again.
//	Returned    gateway: the worker has closed its descriptor and sent a Returned
//	            frame with the bytes. Found without the frame: close.
//	Ended       gateway: the worker has shut the connection down, closed its
//	            descriptor and reports it in an Ended frame. Found: let go.
//
// A slot is freed only after the gateway has closed its duplicate, and taken
// with a new generation.
type State uint8

// The states; see State.
const (
	Free State = iota
	Gateway
	Donated
	Reading
	Running
	Responding
	Idle
	Returned
	Ended
)

var stateNames = [...]string{"free", "gateway", "donated", "reading", "running", "responding", "idle", "returned", "ended"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "state " + strconv.Itoa(int(s))
}

// Word is the one atomic word that says who owns a connection and what for:
//
//	63          32 31        16 15         0
//	generation     worker        state
//
// The generation tells uses of one slot apart: a message, a timer or a walk that
// holds another one is about a connection that is gone. The worker means
// something in the states from Donated on.
type Word uint64

// MakeWord makes the word of a slot's generation, the worker's number (at most
// 16 bits) and the state.
func MakeWord(generation uint32, worker int, s State) Word {
	return Word(generation)<<32 | Word(uint16(worker))<<16 | Word(s)
}

// Generation tells uses of one slot apart.
func (w Word) Generation() uint32 { return uint32(w >> 32) }

// Worker is the number of the worker that the connection is with.
func (w Word) Worker() int { return int(uint16(w >> 16)) }

// State is what is about to happen. A word that a hostile process wrote may hold
// one that has no name; treat it like Reading.
func (w Word) State() State {
	if s := uint16(w); s <= 0xff {
		return State(s)
	}
	return 0xff
}

func (w Word) String() string {
	return w.State().String() + " at worker " + strconv.Itoa(w.Worker()) + ", generation " + strconv.FormatUint(uint64(w.Generation()), 10)
}
