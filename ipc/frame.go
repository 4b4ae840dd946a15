package ipc

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"baton/internal/fd"
	"baton/internal/sys"
)

// A frame is one message, in little-endian order:
//
//	0   4  frameMagic
//	4   1  kind
//	5   1  1: the payload is the memfd that is the first descriptor; else 0
//	6   2  number of descriptors, without that memfd
//	8   8  length of the payload in bytes
//	16     the payload, unless it is the memfd
//
// Its ancillary data is one SCM_RIGHTS with the descriptors, if there are any.
// The memfd is sealed against writing, growing and shrinking, and is exactly as
// long as the payload. Only a hello and a table delta may have one: what a worker
// sends fits into a message, and the gateway maps nothing of a worker's.
const (
	frameMagic       = uint32('b') | 'c'<<8 | 't'<<16 | 1<<24
	frameHeaderBytes = 16

	// frameInlineMax is the longest payload inside a message.
	frameInlineMax = messageBytesMax - frameHeaderBytes

	// FramePayloadMax bounds what a memfd may bring: the changes that build a
	// table of a million routes, with room.
	FramePayloadMax = 1 << 30

	// FrameFDsMax bounds the descriptors of one frame: those of a Hello to a
	// worker of a gateway with that many loops, less the board and a memfd.
	FrameFDsMax = sys.RightsMax - 1

	// SlotRefsMax bounds the slots of one Ended or NotAdopted frame: 4 KiB.
	SlotRefsMax = 512

	// TroubleBytesMax bounds the text of a Trouble frame; more is cut.
	TroubleBytesMax = 4 << 10

	// tableInlineMax: a longer delta goes into a memfd when it is made, so that
	// it is copied once for all workers and not into every channel.
	tableInlineMax = 32 << 10
)

// FrameKind says what a frame is.
type FrameKind uint8

// The kinds, and what they carry. The first four come from the gateway, the
// others from a worker.
const (
	// KindHello: configuration, the board, the donation sockets. The first frame.
	KindHello FrameKind = 1 + iota
	// KindTableDelta: changes from one generation of the table to another.
	KindTableDelta
	// KindDrain: finish, and give back or end the rest.
	KindDrain
	// KindStop: end now.
	KindStop
	// KindReady: the worker takes connections, at this generation.
	KindReady
	// KindApplied: the worker has published this generation.
	KindApplied
	// KindReturned: one connection comes back, with its unread bytes.
	KindReturned
	// KindEnded: these connections are shut down and closed at the worker.
	KindEnded
	// KindNotAdopted: these donations could not be adopted for want of
	// descriptors; the gateway has all of them still.
	KindNotAdopted
	// KindTrouble: something for the log and the status.
	KindTrouble
	kindEnd
)

var kindNames = [...]string{
	KindHello: "hello", KindTableDelta: "table-delta", KindDrain: "drain", KindStop: "stop", KindReady: "ready",
	KindApplied: "applied", KindReturned: "returned", KindEnded: "ended", KindNotAdopted: "not-adopted", KindTrouble: "trouble",
}

func (k FrameKind) String() string {
	if k > 0 && k < kindEnd {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// payloadMax bounds the payload of each kind.
func (k FrameKind) payloadMax() uint64 {
	switch k {
	case KindHello:
		return 1 << 20
	case KindTableDelta:
		return FramePayloadMax
	case KindReturned:
		return returnedHeaderBytes + ConnBytesMax
	case KindEnded, KindNotAdopted:
		return SlotRefsMax * slotRefBytes
	case KindTrouble:
		return TroubleBytesMax
	}
	return 16
}

// Frame is one message on a control channel, made by one of the functions
// XxxFrame, read by FrameReader.Read, or cloned. Its typed contents are taken
// out of a frame that was read with the method named like the kind.
//
// A frame that was made borrows what it was made from: slices and descriptors
// must stay as they are until it was written or cloned. A frame that was read or
// cloned owns its descriptors until Close or TakeFDs; the payload of one that
// was read is a view until the next Read of its reader, or until Close.
//
// Assigning a frame moves it: close only one of the two.
type Frame struct {
	Kind    FrameKind
	Payload []byte // read or cloned: the payload. Made: its variable part.
	FDs     []int

	// Made: what goes before Payload: a fixed part, or slots.
	fixed    [returnedHeaderBytes]byte
	fixedLen uint8
	refs     []SlotRef

	owned  bool  // FDs are the frame's to close
	memfd  fd.FD // made or cloned: the whole payload, instead of the above
	memLen int   // … its length
	mapped []byte
}

// Close releases what the frame owns. Its payload may not be used any more. A
// second Close does nothing.
func (f *Frame) Close() {
	if f.owned {
		for _, n := range f.FDs {
			sys.CloseRaw(n)
		}
	}
	f.FDs, f.owned = nil, false
	if f.memfd.Valid() {
		_ = f.memfd.Close()
	}
	if f.mapped != nil {
		f.Payload = nil
		_ = sys.Munmap(f.mapped)
		f.mapped = nil
	}
}

// TakeFDs gives the descriptors of a frame that was read to the caller.
func (f *Frame) TakeFDs() []fd.FD {
	if !f.owned {
		return nil
	}
	fds := make([]fd.FD, len(f.FDs))
	for i, n := range f.FDs {
		fds[i] = fd.New(n)
	}
	f.FDs, f.owned = nil, false
	return fds
}

// Clone returns a frame that can be written later: it has its own copy of the
// payload and its own descriptors. Close it. An error says that there are no
// descriptors left.
func (f *Frame) Clone() (Frame, error) {
	c := Frame{Kind: f.Kind, memLen: f.memLen, owned: true}
	if f.memfd.Valid() {
		n, err := sys.Dup(f.memfd.Borrow())
		if err != nil {
			return Frame{}, fmt.Errorf("keep a %s frame: %w", f.Kind, err)
		}
		c.memfd = fd.New(n)
	} else if f.payloadLen() > 0 {
		c.Payload = f.appendPayload(make([]byte, 0, f.payloadLen()))
	}
	for _, n := range f.FDs {
		d, err := sys.Dup(n)
		if err != nil {
			c.Close()
			return Frame{}, fmt.Errorf("keep a %s frame: %w", f.Kind, err)
		}
		c.FDs = append(c.FDs, d)
	}
	return c, nil
}

func (f *Frame) payloadLen() int {
	if f.memfd.Valid() {
		return f.memLen
	}
	return int(f.fixedLen) + len(f.refs)*slotRefBytes + len(f.Payload)
}

// appendPayload appends a payload that is not a memfd.
func (f *Frame) appendPayload(dst []byte) []byte {
	dst = append(dst, f.fixed[:f.fixedLen]...)
	dst = appendSlotRefs(dst, f.refs)
	return append(dst, f.Payload...)
}

// moveToMemfd puts the payload into a sealed memfd, which the frame owns.
func (f *Frame) moveToMemfd() error {
	size := f.payloadLen()
	n, err := sys.MemfdCreate("baton-"+f.Kind.String(), int64(size))
	if err != nil {
		return err
	}
	memfd := fd.New(n)
	at := int64(0)
	for _, part := range [...][]byte{f.fixed[:f.fixedLen], appendSlotRefs(nil, f.refs), f.Payload} {
		if err == nil {
			err = sys.WriteAt(n, part, at)
			at += int64(len(part))
		}
	}
	if err == nil {
		err = sys.Seal(n, sys.SealWrite|sys.SealShrink|sys.SealGrow|sys.SealSeal)
	}
	if err != nil {
		_ = memfd.Close()
		return err
	}
	f.memfd, f.memLen = memfd, size
	f.Payload, f.refs, f.fixedLen = nil, nil, 0
	return nil
}

// WriteFrame sends f as one message. The frame stays the caller's, to close or
// to write again. It is sent whole or not at all: ErrFull, ErrTooManyRefs,
// ErrPeerGone, or a system error.
//
// A payload that is longer than a message travels in a memfd; a frame that was
// made by TableDeltaFrame has it already.
func WriteFrame(sock int, f Frame) error {
	if len(f.FDs) > 0 || f.memfd.Valid() || f.payloadLen() > frameInlineMax {
		return writeFrameFDs(sock, f)
	}
	if len(f.refs) > 0 {
		return writeFrameRefs(sock, &f)
	}
	return sendFrame(sock, &f, nil, nil)
}

// writeFrameRefs has its own buffer for slots, which other frames need not pay.
//
//go:noinline
func writeFrameRefs(sock int, f *Frame) error {
	var room [SlotRefsMax * slotRefBytes]byte
	return sendFrame(sock, f, appendSlotRefs(room[:0], f.refs), nil)
}

// writeFrameFDs is the way of the rare frames with descriptors.
//
//go:noinline
func writeFrameFDs(sock int, f Frame) error {
	if len(f.FDs) > FrameFDsMax {
		panic(fmt.Sprintf("ipc: a %s frame with %d descriptors, at most %d", f.Kind, len(f.FDs), FrameFDsMax))
	}
	if !f.memfd.Valid() && f.payloadLen() > frameInlineMax {
		if err := f.moveToMemfd(); err != nil {
			return fmt.Errorf("write a %s frame: %w", f.Kind, err)
		}
		defer func() { _ = f.memfd.Close() }()
	}
	fds := make([]int32, 0, 1+len(f.FDs))
	if f.memfd.Valid() {
		fds = append(fds, int32(f.memfd.Borrow()))
	}
	for _, n := range f.FDs {
		fds = append(fds, int32(n))
	}
	return sendFrame(sock, &f, appendSlotRefs(nil, f.refs), fds)
}

func sendFrame(sock int, f *Frame, refs []byte, fds []int32) error {
	size := f.payloadLen()
	if uint64(size) > f.Kind.payloadMax() || f.Kind == 0 {
		panic("ipc: a " + f.Kind.String() + " frame with a payload of " + strconv.Itoa(size) + " bytes")
	}
	var head [frameHeaderBytes]byte
	binary.LittleEndian.PutUint32(head[0:], frameMagic)
	head[4] = byte(f.Kind)
	if f.memfd.Valid() {
		head[5] = 1
	}
	binary.LittleEndian.PutUint16(head[6:], uint16(len(f.FDs)))
	binary.LittleEndian.PutUint64(head[8:], uint64(size))
	var control []byte
	if len(fds) > 0 {
		control = sys.PutRights(make([]byte, sys.RightsSpace(len(fds))), fds)
	}
	parts := [...][]byte{head[:], f.fixed[:f.fixedLen], refs, f.Payload}
	if _, errno := sys.SendMsg(sock, parts[:], control); errno != 0 {
		return sendError(errno)
	}
	return nil
}

// FrameReader receives frames. One goroutine at a time.
type FrameReader struct {
	// Pid names the sender in errors, where it is known.
	Pid int

	buf     []byte
	control []byte
}

// NewFrameReader returns a reader with a buffer for the largest message.
func NewFrameReader() *FrameReader {
	// One descriptor more than a frame may have: too many are seen, not cut.
	return &FrameReader{buf: make([]byte, messageBytesMax), control: make([]byte, sys.RightsSpace(sys.RightsMax))}
}

// Read receives one frame. Its payload is a view of the reader's storage until
// the next Read, or of a mapping until Close; close every frame.
//
// With an error no frame was received: ErrAgain; io.EOF, the other end is gone
// and has nothing more to say; *FrameError, this was no frame, everything that
// came with it was closed, and nothing more can be understood; *DescriptorError,
// this one frame is lost because this process may open no more descriptors; or a
// system error.
func (r *FrameReader) Read(sock int) (Frame, error) {
	n, controlLen, flags, err := receive(sock, r.buf, r.control)
	if err != nil {
		return Frame{}, err
	}
	if controlLen > 0 || flags != 0 || r.buf[5] != 0 {
		return r.readSlow(n, controlLen, flags)
	}
	h, e := parseFrame(r.buf[:n])
	if e.What == "" && h.fds > 0 {
		e = FrameError{Frame: h.kind.String(), What: "descriptors", Want: strconv.Itoa(h.fds), Got: 0}
	}
	if e.What != "" {
		return Frame{}, r.bad(e)
	}
	return Frame{Kind: h.kind, Payload: r.buf[frameHeaderBytes:n:n]}, nil
}

//go:noinline
func (r *FrameReader) bad(e FrameError) error {
	e.Pid = r.Pid
	if e.Frame == "" {
		e.Frame = "control"
	}
	return &e
}

// readSlow finishes a frame with descriptors, or one that is not in order.
//
//go:noinline
func (r *FrameReader) readSlow(n, controlLen, flags int) (Frame, error) {
	got := sys.Rights(nil, r.control[:controlLen])
	f, err := r.withFDs(r.buf[:n], got, flags)
	if err != nil {
		closeAll(got)
		return Frame{}, err
	}
	return f, nil
}

// withFDs makes a frame from a message and the descriptors that came with it.
// On error they stay the caller's, all of them.
func (r *FrameReader) withFDs(b []byte, got []int32, flags int) (Frame, error) {
	if flags&sys.MessageTruncated != 0 {
		return Frame{}, r.bad(FrameError{What: "size", Want: "at most 65536", Got: uint64(len(b)) + 1})
	}
	h, e := parseFrame(b)
	if e.What != "" {
		return Frame{}, r.bad(e)
	}
	want := h.fds
	if h.memfd {
		want++
	}
	if len(got) < want && flags&sys.ControlTruncated != 0 {
		return Frame{}, &DescriptorError{Kind: h.kind, Want: want, Got: len(got)}
	}
	if len(got) != want || flags&sys.ControlTruncated != 0 {
		return Frame{}, r.bad(FrameError{Frame: h.kind.String(), What: "descriptors", Want: strconv.Itoa(want), Got: uint64(len(got))})
	}
	f := Frame{Kind: h.kind, Payload: b[frameHeaderBytes:len(b):len(b)], owned: true}
	if h.memfd {
		if h.size > 0 {
			var err error
			if f.mapped, err = r.mapPayload(int(got[0]), h); err != nil {
				return Frame{}, err
			}
		}
		f.Payload = f.mapped
		sys.CloseRaw(int(got[0])) // the mapping needs it no more
		got = got[1:]
	}
	for _, n := range got {
		f.FDs = append(f.FDs, int(n))
	}
	return f, nil
}

// mapPayload maps a memfd that a peer has passed. It is checked first that the
// peer can neither cut nor change it any more.
func (r *FrameReader) mapPayload(n int, h frameHead) ([]byte, error) {
	const want = sys.SealWrite | sys.SealShrink | sys.SealGrow
	seals, err := sys.Seals(n)
	if err != nil || seals&want != want {
		return nil, r.bad(FrameError{Frame: h.kind.String(), What: "seals of the payload", Want: strconv.Itoa(want), Got: uint64(seals)})
	}
	size, err := sys.FileSize(n)
	if err != nil {
		return nil, fmt.Errorf("payload of a %s frame: %w", h.kind, err)
	}
	if uint64(size) != h.size {
		return nil, r.bad(FrameError{Frame: h.kind.String(), What: "size of the payload", Want: strconv.FormatUint(h.size, 10), Got: uint64(size)})
	}
	b, err := sys.MmapRead(n, int(size))
	if err != nil {
		return nil, fmt.Errorf("payload of a %s frame: %w", h.kind, err)
	}
	return b, nil
}

// frameHead is the header of a frame, checked.
type frameHead struct {
	kind  FrameKind
	memfd bool
	fds   int
	size  uint64 // of the payload
}

// parseFrame reads a message, its descriptors aside. An error has What.
func parseFrame(b []byte) (h frameHead, e FrameError) {
	if len(b) < frameHeaderBytes {
		return h, FrameError{What: "size", Want: "at least 16", Got: uint64(len(b))}
	}
	if magic := binary.LittleEndian.Uint32(b); magic != frameMagic {
		return h, FrameError{What: "magic", Want: "that of this version", Got: uint64(magic)}
	}
	h = frameHead{
		kind: FrameKind(b[4]), memfd: b[5] == 1, fds: int(binary.LittleEndian.Uint16(b[6:])), size: binary.LittleEndian.Uint64(b[8:]),
	}
	if h.kind == 0 || h.kind >= kindEnd {
		return h, FrameError{What: "kind", Want: "1 to 10", Got: uint64(h.kind)}
	}
	inline := uint64(len(b) - frameHeaderBytes)
	switch {
	case b[5] > 1:
		e = FrameError{What: "payload flag", Want: "0 or 1", Got: uint64(b[5])}
	case h.fds > FrameFDsMax || (h.fds > 0 && h.kind != KindHello):
		e = FrameError{What: "descriptors", Want: "none, or at most 252 with a hello", Got: uint64(h.fds)}
	case h.size > h.kind.payloadMax():
		e = FrameError{What: "size of the payload", Want: "at most " + strconv.FormatUint(h.kind.payloadMax(), 10), Got: h.size}
	case h.memfd && inline > 0:
		e = FrameError{What: "payload in the message, beside that in a memfd", Want: "0", Got: inline}
	case h.memfd && h.kind != KindHello && h.kind != KindTableDelta:
		e = FrameError{What: "payload flag", Want: "0", Got: 1}
	case !h.memfd && inline != h.size:
		e = FrameError{What: "size in the header", Want: strconv.FormatUint(inline, 10), Got: h.size}
	default:
		return h, FrameError{}
	}
	e.Frame = h.kind.String()
	return h, e
}
