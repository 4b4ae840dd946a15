package ipc

import "strconv"

// State says what the owner of a connection is about to do with it. It is
// stored before the act, so that whoever finds the slot of a dead worker knows
// the worst that can have happened.
//
//	Free ─▶ Gateway ─▶ Donated ─▶ Reading ─▶ Running ─▶ Responding ─▶ Idle ─▶ Reading …
//	           ▲                     └──────────┴────┬──────┴──────────┘
//	           └──────── Returned ◀──────────────────┤
//	Free ◀──────────────── Ended ◀───────────────────┘
//
// Each state has one process that may leave it, and only that one writes:
//
//	state       left by  to          when
//	Free        gateway  Gateway     the slot is taken, in a new generation
//	Gateway     gateway  Donated     before the message is sent
//	                     Free        answered, or given to the control plane
//	Donated     worker   Reading     adopted
//	            gateway  Gateway     not sent, reported as not adopted, or the worker is lost
//	Reading     worker   Idle        no byte came, or what came was answered
//	                     Running     a request is whole: its id is in the slot
//	                     Responding  … and is refused without running anything
//	Running     worker   Responding  before the first write(2)
//	Responding  worker   Idle        all is written and nothing is read
//	                     Reading     … and bytes of the next request are in memory
//	                     Running     … and it is whole
//	Idle        worker   Reading     before read(2)
//	any of      worker   Returned    at a request boundary: descriptor closed, Returned frame sent next
//	these four           Ended       shut down; descriptor closed and Ended frame sent next
//	Returned    gateway  Gateway     the frame has come
//	Ended       gateway  Free        the frame has come, and the duplicate is closed
//
// What the gateway does with the slots of a worker that is gone, after it has
// read that worker's channels to their end:
//
//	Donated     never read by the worker: donate again, with the bytes that were kept
//	Idle        nothing in memory: donate again
//	Returned    its frame was read already, or the bytes are lost: close
//	Ended       let go
//	Running     no byte of an answer was written: answer 502 with the id, then close
//	Reading, Responding, and what has no name: close
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
