package ipc

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"baton/internal/fd"
)

// The payloads, in little-endian order. "Zero" is checked.
//
//	hello        configuration (JSON); descriptors: board, donation sockets
//	table-delta  8 from, 8 to, then the changes
//	drain        8 limit in ns, 1 final (0 or 1), 7 zero
//	stop         nothing
//	ready        8 generation
//	applied      8 generation, 4 problems, 4 zero
//	returned     4 slot, 4 generation, 8 table, 1 reason, 7 zero, then the bytes
//	ended        1 to 512 times: 4 slot, 4 generation
//	not-adopted  likewise
//	trouble      text
const (
	slotRefBytes        = 8
	deltaHeaderBytes    = 16
	drainBytes          = 16
	appliedBytes        = 16
	returnedHeaderBytes = 24
)

// SlotRef names one use of a slot.
type SlotRef struct{ Slot, Generation uint32 }

func appendSlotRefs(dst []byte, refs []SlotRef) []byte {
	for _, r := range refs {
		dst = binary.LittleEndian.AppendUint32(dst, r.Slot)
		dst = binary.LittleEndian.AppendUint32(dst, r.Generation)
	}
	return dst
}

// Hello is the first frame to a worker.
type Hello struct {
	Config    []byte // JSON; a view of the frame's payload
	Board     fd.FD
	Donations []fd.FD // one per gateway loop, in their order
}

// HelloFrame makes the first frame to a worker. board and donations are
// borrowed; the worker gets duplicates. At most FrameFDsMax of them.
func HelloFrame(config []byte, board int, donations []int) Frame {
	return Frame{Kind: KindHello, Payload: config, FDs: append([]int{board}, donations...)}
}

// Hello takes the contents out of the frame; the descriptors are the caller's.
func (f *Frame) Hello() (Hello, error) {
	if err := f.is(KindHello); err != nil {
		return Hello{}, err
	}
	if len(f.FDs) < 2 {
		return Hello{}, f.bad("descriptors", "the board and at least one donation socket", uint64(len(f.FDs)))
	}
	fds := f.TakeFDs()
	return Hello{Config: f.Payload, Board: fds[0], Donations: fds[1:]}, nil
}

// TableDelta are changes of the table.
type TableDelta struct {
	From, To uint64 // generations; From is 0 for a worker that has none
	Payload  []byte // the changes, as package route writes them
}

// TableDeltaFrame makes a frame for any number of workers: a long payload is put
// into a memfd here, once. Close it when it was written to all. An error says
// that there is no memory or no descriptor for that.
func TableDeltaFrame(m TableDelta) (Frame, error) {
	f := Frame{Kind: KindTableDelta, fixedLen: deltaHeaderBytes, Payload: m.Payload}
	binary.LittleEndian.PutUint64(f.fixed[0:], m.From)
	binary.LittleEndian.PutUint64(f.fixed[8:], m.To)
	if len(m.Payload) > tableInlineMax {
		if err := f.moveToMemfd(); err != nil {
			return Frame{}, err
		}
	}
	return f, nil
}

// TableDelta returns the contents; the payload is a view of the frame's.
func (f *Frame) TableDelta() (TableDelta, error) {
	if err := f.atLeast(KindTableDelta, deltaHeaderBytes); err != nil {
		return TableDelta{}, err
	}
	m := TableDelta{From: binary.LittleEndian.Uint64(f.Payload), To: binary.LittleEndian.Uint64(f.Payload[8:]), Payload: f.Payload[deltaHeaderBytes:]}
	if m.To <= m.From {
		return TableDelta{}, f.bad("generation", "more than "+strconv.FormatUint(m.From, 10), m.To)
	}
	return m, nil
}

// Drain asks a worker to come to an end.
type Drain struct {
	// Final: the gateway stops too, so idle connections are closed; otherwise
	// they are given back.
	Final bool
	// Limit is how long running requests may go on. Not negative.
	Limit time.Duration
}

// DrainFrame makes the frame.
func DrainFrame(m Drain) Frame {
	f := Frame{Kind: KindDrain, fixedLen: drainBytes}
	binary.LittleEndian.PutUint64(f.fixed[0:], uint64(m.Limit))
	if m.Final {
		f.fixed[8] = 1
	}
	return f
}

// Drain returns the contents.
func (f *Frame) Drain() (Drain, error) {
	if err := f.exactly(KindDrain, drainBytes); err != nil {
		return Drain{}, err
	}
	limit, final := binary.LittleEndian.Uint64(f.Payload), binary.LittleEndian.Uint64(f.Payload[8:])
	if limit > math.MaxInt64 {
		return Drain{}, f.bad("limit", "at most 2^63-1 ns", limit)
	}
	if final > 1 {
		return Drain{}, f.bad("final", "0 or 1", final)
	}
	return Drain{Final: final == 1, Limit: time.Duration(limit)}, nil
}

// StopFrame makes the frame that ends a worker.
func StopFrame() Frame { return Frame{Kind: KindStop} }

// Stop checks that the frame is one.
func (f *Frame) Stop() error { return f.exactly(KindStop, 0) }

// ReadyFrame makes a worker's report that it takes connections, at this
// generation of the table.
func ReadyFrame(generation uint64) Frame {
	f := Frame{Kind: KindReady, fixedLen: 8}
	binary.LittleEndian.PutUint64(f.fixed[0:], generation)
	return f
}

// Ready returns the generation.
func (f *Frame) Ready() (uint64, error) {
	if err := f.exactly(KindReady, 8); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(f.Payload), nil
}

// Applied is a worker's report that it has published a table.
type Applied struct {
	Generation uint64
	Problems   int // rows that it could not use; 0 to 2^31-1
}

// AppliedFrame makes the frame.
func AppliedFrame(m Applied) Frame {
	f := Frame{Kind: KindApplied, fixedLen: appliedBytes}
	binary.LittleEndian.PutUint64(f.fixed[0:], m.Generation)
	binary.LittleEndian.PutUint32(f.fixed[8:], uint32(min(max(m.Problems, 0), math.MaxInt32)))
	return f
}

// Applied returns the contents.
func (f *Frame) Applied() (Applied, error) {
	if err := f.exactly(KindApplied, appliedBytes); err != nil {
		return Applied{}, err
	}
	problems := binary.LittleEndian.Uint64(f.Payload[8:])
	if problems > math.MaxInt32 {
		return Applied{}, f.bad("problems", "at most 2147483647", problems)
	}
	return Applied{Generation: binary.LittleEndian.Uint64(f.Payload), Problems: int(problems)}, nil
}

// ReturnReason says why a connection comes back.
type ReturnReason uint8

// The reasons.
const (
	// ReturnControl: its next request is for the control plane.
	ReturnControl ReturnReason = 1 + iota
	// ReturnDrain: the worker comes to an end.
	ReturnDrain
	// ReturnBalance: another worker has less to do.
	ReturnBalance
	// ReturnMisrouted: the worker cannot serve its next request.
	ReturnMisrouted
	returnEnd
)

var returnNames = [...]string{ReturnControl: "control", ReturnDrain: "drain", ReturnBalance: "balance", ReturnMisrouted: "misrouted"}

func (r ReturnReason) String() string {
	if r > 0 && r < returnEnd {
		return returnNames[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// Return is one connection that comes back at a request boundary.
type Return struct {
	Slot, Generation uint32
	Reason           ReturnReason
	Table            uint64 // generation of the table at the worker
	// Bytes were read and not answered. At most ConnBytesMax, so that they fit
	// into a message here, and into a donation when they are sent out again.
	Bytes []byte
}

// ReturnedFrame makes the frame; the bytes are borrowed until it was written or
// cloned. More than ConnBytesMax of them is a mistake of ours: writing panics.
func ReturnedFrame(m Return) Frame {
	f := Frame{Kind: KindReturned, fixedLen: returnedHeaderBytes, Payload: m.Bytes}
	binary.LittleEndian.PutUint32(f.fixed[0:], m.Slot)
	binary.LittleEndian.PutUint32(f.fixed[4:], m.Generation)
	binary.LittleEndian.PutUint64(f.fixed[8:], m.Table)
	f.fixed[16] = byte(m.Reason)
	return f
}

// Returned returns the contents; the bytes are a view of the frame's payload.
func (f *Frame) Returned() (Return, error) {
	if err := f.atLeast(KindReturned, returnedHeaderBytes); err != nil {
		return Return{}, err
	}
	reason := binary.LittleEndian.Uint64(f.Payload[16:])
	if reason == 0 || reason >= uint64(returnEnd) {
		return Return{}, f.bad("reason", "1 to 4", reason)
	}
	return Return{
		Slot: binary.LittleEndian.Uint32(f.Payload), Generation: binary.LittleEndian.Uint32(f.Payload[4:]),
		Table: binary.LittleEndian.Uint64(f.Payload[8:]), Reason: ReturnReason(reason), Bytes: f.Payload[returnedHeaderBytes:],
	}, nil
}

// EndedFrame makes a report of 1 to SlotRefsMax ended connections; refs is
// borrowed until it was written or cloned.
func EndedFrame(refs []SlotRef) Frame { return refsFrame(KindEnded, refs) }

// NotAdoptedFrame makes a report of 1 to SlotRefsMax donations that could not be
// adopted; refs is borrowed until it was written or cloned.
func NotAdoptedFrame(refs []SlotRef) Frame { return refsFrame(KindNotAdopted, refs) }

func refsFrame(kind FrameKind, refs []SlotRef) Frame {
	if len(refs) == 0 || len(refs) > SlotRefsMax {
		panic("ipc: a " + kind.String() + " frame of " + strconv.Itoa(len(refs)) + " slots, want 1 to 512")
	}
	return Frame{Kind: kind, refs: refs}
}

// EachEnded calls do for each slot, in order. With an error it calls it for
// none.
func (f *Frame) EachEnded(do func(slot, generation uint32)) error { return f.each(KindEnded, do) }

// EachNotAdopted: see EachEnded.
func (f *Frame) EachNotAdopted(do func(slot, generation uint32)) error {
	return f.each(KindNotAdopted, do)
}

func (f *Frame) each(kind FrameKind, do func(slot, generation uint32)) error {
	if err := f.atLeast(kind, slotRefBytes); err != nil {
		return err
	}
	if len(f.Payload)%slotRefBytes != 0 {
		return f.bad("size of the payload", "a multiple of 8", uint64(len(f.Payload)))
	}
	for p := f.Payload; len(p) > 0; p = p[slotRefBytes:] {
		do(binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:]))
	}
	return nil
}

// TroubleFrame makes a report for the log; what is longer than TroubleBytesMax
// is cut.
func TroubleFrame(text string) Frame {
	if len(text) > TroubleBytesMax {
		end := TroubleBytesMax
		for end > TroubleBytesMax-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
	}
	return Frame{Kind: KindTrouble, Payload: []byte(text)}
}

// Trouble returns the text, valid UTF-8 whatever was sent. It is foreign: quote
// it where it is printed.
func (f *Frame) Trouble() (string, error) {
	if err := f.is(KindTrouble); err != nil {
		return "", err
	}
	return strings.ToValidUTF8(string(f.Payload), "�"), nil
}

// is checks the kind: asking a frame for what it is not is a mistake of ours,
// but not one that is worth a process.
func (f *Frame) is(kind FrameKind) error {
	if f.Kind != kind {
		return f.bad("kind", strconv.Itoa(int(kind)), uint64(f.Kind))
	}
	return nil
}

func (f *Frame) exactly(kind FrameKind, size int) error {
	if err := f.is(kind); err != nil {
		return err
	}
	if len(f.Payload) != size {
		return f.bad("size of the payload", strconv.Itoa(size), uint64(len(f.Payload)))
	}
	return nil
}

func (f *Frame) atLeast(kind FrameKind, size int) error {
	if err := f.is(kind); err != nil {
		return err
	}
	if len(f.Payload) < size {
		return f.bad("size of the payload", "at least "+strconv.Itoa(size), uint64(len(f.Payload)))
	}
	return nil
}

func (f *Frame) bad(what, want string, got uint64) error {
	return &FrameError{Frame: f.Kind.String(), What: what, Want: want, Got: got}
}
