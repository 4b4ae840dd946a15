package ipc

import (
	"encoding/binary"
	"fmt"

	"baton/internal/sys"
)

// A donation message, in little-endian order:
//
//	0   4  donationMagic
//	4   2  count: 1 to DonationConnsMax
//	6   2  zero
//	8   4  size of the message in bytes, all of it
//	12  4  zero
//	16     count entries of 48 bytes, in the order of the descriptors:
//	       0   4   slot
//	       4   4   generation of the slot
//	       8   8   generation of the table
//	       16  16  client's IP address, IPv4 mapped
//	       32  2   client's port
//	       34  1   1: the address is IPv4, else 0
//	       35  1   zero
//	       36  2   flags
//	       38  2   zero
//	       40  4   length of the bytes
//	       44  4   zero
//	…      the bytes of the entries, one behind the other, without gaps
//
// Its ancillary data is one SCM_RIGHTS with count descriptors.
const (
	donationMagic       = uint32('b') | 'd'<<8 | 'o'<<16 | 1<<24
	donationHeaderBytes = 16
	donationEntryBytes  = 48

	// DonationConnsMax is the most connections that one message carries. 16 in
	// one message cost 12 µs to send, receive and close, one at a time 69 µs;
	// more gain little and hold the first back for longer.
	DonationConnsMax = 16

	// donationAloneBytes: a connection with more bytes than this travels alone,
	// so that it does not hold the others back.
	donationAloneBytes = 16 << 10

	// ConnBytesMax is the most unread bytes that a connection takes along, to a
	// worker or back: the largest message less its header and one entry. The
	// read buffers of both sides must not be larger.
	ConnBytesMax = messageBytesMax - donationHeaderBytes - donationEntryBytes
)

// Donation is one connection on its way to a worker.
type Donation struct {
	Slot, Generation uint32   // its slot on the board
	Table            uint64   // generation of the table it was matched in
	Peer             sys.Peer // the client
	Flags            uint16   // the reactor's
	// Bytes is every byte that was read of the connection and not answered.
	Bytes []byte
	// FD is the connection. Sent: borrowed, for the gateway retains it. Received:
	// the receiver's to close, or -1 when this process was out of descriptors.
	FD int
}

// DonationWriter gathers connections for one worker into one message. The zero
// value is ready. One goroutine at a time.
//
// Nothing is copied: the bytes of a donation must stay as they are from Add
// until Flush, as they do anyway with the gateway, which keeps them until the
// worker has adopted. Nothing is closed, either.
type DonationWriter struct {
	// Invariant: count <= DonationConnsMax, size <= messageBytesMax; size is
	// what the message has with what was added so far.
	count, size int
	alone       bool // holds a connection that travels alone

	head    [donationHeaderBytes + DonationConnsMax*donationEntryBytes]byte
	parts   [1 + DonationConnsMax][]byte // head, then bytes of each
	fds     [DonationConnsMax]int32
	control [donationControlBytes]byte
}

// donationControlBytes is sys.RightsSpace(DonationConnsMax). The number is even,
// so the alignment lets in no more than that.
const donationControlBytes = 16 + 4*DonationConnsMax

// NewDonationWriter returns an empty writer.
func NewDonationWriter() *DonationWriter { return &DonationWriter{} }

// Len is how many connections were added since the last Flush.
func (w *DonationWriter) Len() int { return w.count }

// Add puts d into the message. False: there is no room for it, and nothing was
// added; Flush, then add again. An empty writer has room for every donation.
//
// A donation of more than ConnBytesMax or without a descriptor is a mistake of
// ours and panics.
func (w *DonationWriter) Add(d Donation) bool {
	if len(d.Bytes) > ConnBytesMax || d.FD < 0 {
		badDonation(d)
	}
	if w.count == 0 {
		w.size = donationHeaderBytes
	}
	size := w.size + donationEntryBytes + len(d.Bytes)
	alone := len(d.Bytes) > donationAloneBytes
	if w.count == DonationConnsMax || size > messageBytesMax || w.alone || (alone && w.count > 0) {
		return false
	}
	e := w.head[donationHeaderBytes+w.count*donationEntryBytes:][:donationEntryBytes]
	binary.LittleEndian.PutUint32(e[0:], d.Slot)
	binary.LittleEndian.PutUint32(e[4:], d.Generation)
	binary.LittleEndian.PutUint64(e[8:], d.Table)
	copy(e[16:32], d.Peer.IP[:])
	binary.LittleEndian.PutUint16(e[32:], d.Peer.Port)
	e[34], e[35] = 0, 0
	if d.Peer.V4 {
		e[34] = 1
	}
	binary.LittleEndian.PutUint16(e[36:], d.Flags)
	binary.LittleEndian.PutUint16(e[38:], 0)
	binary.LittleEndian.PutUint32(e[40:], uint32(len(d.Bytes)))
	binary.LittleEndian.PutUint32(e[44:], 0)
	w.fds[w.count] = int32(d.FD)
	w.count++
	w.parts[w.count] = d.Bytes
	w.size, w.alone = size, alone
	return true
}

//go:noinline
func badDonation(d Donation) {
	panic(fmt.Sprintf("ipc: a donation of %d bytes, at most %d, with descriptor %d", len(d.Bytes), ConnBytesMax, d.FD))
}

// Flush sends the message to the worker behind sock and empties the writer,
// whether it was sent or not. sent is how many connections went: all, or none
// with an error: ErrFull, ErrTooManyRefs, ErrPeerGone, or a system error.
// Nothing to send is no error.
func (w *DonationWriter) Flush(sock int) (sent int, err error) {
	if w.count == 0 {
		return 0, nil
	}
	h := w.head[:donationHeaderBytes+w.count*donationEntryBytes]
	binary.LittleEndian.PutUint32(h[0:], donationMagic)
	binary.LittleEndian.PutUint16(h[4:], uint16(w.count))
	binary.LittleEndian.PutUint16(h[6:], 0)
	binary.LittleEndian.PutUint32(h[8:], uint32(w.size))
	binary.LittleEndian.PutUint32(h[12:], 0)
	w.parts[0] = h
	_, errno := sys.SendMsg(sock, w.parts[:w.count+1], sys.PutRights(w.control[:], w.fds[:w.count]))
	sent = w.count
	clear(w.parts[:w.count+1])
	w.count, w.size, w.alone = 0, 0, false
	if errno != 0 {
		return 0, sendError(errno)
	}
	return sent, nil
}

// DonationReader receives donations. One goroutine at a time; one reader serves
// any number of sockets.
type DonationReader struct {
	// Pid names the sender in errors, where it is known.
	Pid int

	buf       []byte
	control   [donationControlBytes]byte
	fds       [DonationConnsMax]int32
	donations [DonationConnsMax]Donation
}

// NewDonationReader returns a reader with a buffer for the largest message.
func NewDonationReader() *DonationReader {
	return &DonationReader{buf: make([]byte, messageBytesMax)}
}

// Read receives one message from sock. The donations and their bytes are views
// of the reader's storage until the next Read; each descriptor is the caller's
// at once. They arrive in the order in which they were added.
//
// FD is -1 where the descriptor did not come, because this process may open no
// more: those that came are the first ones. The gateway still has connection and
// bytes, so report the slot as not adopted, and shed load.
//
// With an error nothing was received: ErrAgain; io.EOF, the gateway is gone;
// *FrameError, the message is none of ours, and every descriptor that came with
// it was closed; or a system error.
func (r *DonationReader) Read(sock int) ([]Donation, error) {
	n, controlLen, flags, err := receive(sock, r.buf, r.control[:])
	if err != nil {
		return nil, err
	}
	fds := sys.Rights(r.fds[:0], r.control[:controlLen])
	count, e := r.match(r.buf[:n], fds, flags)
	if e.What != "" {
		closeAll(fds)
		return nil, r.bad(e)
	}
	return r.donations[:count], nil
}

// bad is beside the hot path, so that its error does not cost an allocation
// there.
//
//go:noinline
func (r *DonationReader) bad(e FrameError) error {
	e.Pid, e.Frame = r.Pid, "donation"
	return &e
}

// match fills donations from a message and its descriptors. An error has What.
func (r *DonationReader) match(b []byte, fds []int32, flags int) (count int, e FrameError) {
	if flags&sys.MessageTruncated != 0 {
		return 0, FrameError{What: "size", Want: "at most 65536", Got: uint64(len(b)) + 1}
	}
	count, e = parseDonations(&r.donations, b)
	if e.What != "" {
		return 0, e
	}
	if len(fds) > count || (len(fds) < count && flags&sys.ControlTruncated == 0) {
		return 0, FrameError{What: "descriptors", Want: "as many as entries", Got: uint64(len(fds))}
	}
	if flags&sys.ControlTruncated != 0 && len(fds) == count {
		// The sender passed more than it named, and the rest is closed.
		return 0, FrameError{What: "descriptors", Want: "as many as entries, but there are more than", Got: uint64(len(fds))}
	}
	for i := range count {
		r.donations[i].FD = -1
		if i < len(fds) {
			r.donations[i].FD = int(fds[i])
		}
	}
	return count, FrameError{}
}

// parseDonations reads a message, its descriptors aside. On success count
// entries of d are filled, their bytes views of b. On error, e has What.
func parseDonations(d *[DonationConnsMax]Donation, b []byte) (count int, e FrameError) {
	if len(b) < donationHeaderBytes {
		return 0, FrameError{What: "size", Want: "at least 16", Got: uint64(len(b))}
	}
	if magic := binary.LittleEndian.Uint32(b); magic != donationMagic {
		return 0, FrameError{What: "magic", Want: "that of this version", Got: uint64(magic)}
	}
	count = int(binary.LittleEndian.Uint16(b[4:]))
	if count < 1 || count > DonationConnsMax {
		return 0, FrameError{What: "count", Want: "1 to 16", Got: uint64(count)}
	}
	if size := binary.LittleEndian.Uint32(b[8:]); uint64(size) != uint64(len(b)) {
		return 0, FrameError{What: "size in the header", Want: "that of the message", Got: uint64(size)}
	}
	if zero := uint64(binary.LittleEndian.Uint16(b[6:])) | uint64(binary.LittleEndian.Uint32(b[12:])); zero != 0 {
		return 0, FrameError{What: "reserved field", Want: "0", Got: zero}
	}
	if len(b) < donationHeaderBytes+count*donationEntryBytes {
		return 0, FrameError{What: "size", Want: "the header and every entry", Got: uint64(len(b))}
	}
	rest := b[donationHeaderBytes+count*donationEntryBytes:]
	for i := range count {
		p := b[donationHeaderBytes+i*donationEntryBytes:][:donationEntryBytes]
		zero := uint64(p[35]) | uint64(binary.LittleEndian.Uint16(p[38:])) | uint64(binary.LittleEndian.Uint32(p[44:]))
		if zero != 0 || p[34] > 1 {
			return 0, FrameError{What: "reserved field of an entry", Want: "0", Got: zero | uint64(p[34])}
		}
		size := binary.LittleEndian.Uint32(p[40:])
		if uint64(size) > uint64(len(rest)) {
			return 0, FrameError{What: "bytes of an entry", Want: "at most what is left", Got: uint64(size)}
		}
		d[i] = Donation{
			Slot: binary.LittleEndian.Uint32(p), Generation: binary.LittleEndian.Uint32(p[4:]),
			Table: binary.LittleEndian.Uint64(p[8:]),
			Peer:  sys.Peer{IP: [16]byte(p[16:32]), Port: binary.LittleEndian.Uint16(p[32:]), V4: p[34] == 1},
			Flags: binary.LittleEndian.Uint16(p[36:]), Bytes: rest[:size:size], FD: -1,
		}
		rest = rest[size:]
	}
	if len(rest) > 0 {
		return 0, FrameError{What: "bytes behind the last entry", Want: "0", Got: uint64(len(rest))}
	}
	return count, FrameError{}
}
