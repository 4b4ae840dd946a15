package ipc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

// The wire formats once more, written from their drawings: what the encoders
// make must be this, and what differs from it in one place must be refused.

type entry struct {
	slot, generation uint32
	table            uint64
	ip               [16]byte
	port             uint16
	v4, zero35       byte
	flags, zero38    uint16
	size             uint32
	zero44           uint32
}

func (e entry) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, e.slot)
	b = le.AppendUint32(b, e.generation)
	b = le.AppendUint64(b, e.table)
	b = append(b, e.ip[:]...)
	b = le.AppendUint16(b, e.port)
	b = append(b, e.v4, e.zero35)
	b = le.AppendUint16(b, e.flags)
	b = le.AppendUint16(b, e.zero38)
	b = le.AppendUint32(b, e.size)
	return le.AppendUint32(b, e.zero44)
}

const donationMagic = "bdo\x01"

func donationWire(magic string, count, zero6 uint16, size, zero12 uint32, entries []entry, rest []byte) []byte {
	le := binary.LittleEndian
	b := []byte(magic)
	b = le.AppendUint16(b, count)
	b = le.AppendUint16(b, zero6)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, zero12)
	for _, e := range entries {
		b = e.append(b)
	}
	return append(b, rest...)
}

// send passes a message with n copies of a descriptor that is watched.
func send(t testing.TB, sock int, message []byte, n int) (gone func() bool) {
	t.Helper()
	passed, gone := watched(t)
	fds := make([]int32, n)
	for i := range fds {
		fds[i] = int32(passed)
	}
	_, errno := sys.SendMsg(sock, [][]byte{message}, sys.PutRights(make([]byte, sys.RightsSpace(n)), fds))
	sys.CloseRaw(passed)
	if errno != 0 {
		t.Fatal(errno)
	}
	return gone
}

func TestDonationWire(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	fds, _ := files(t, 2)
	w := ipc.NewDonationWriter()
	ip := [16]byte{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 7}
	ip6 := [16]byte{0x20, 0x01, 15: 1}
	mustAdd(t, w, ipc.Donation{
		Slot: 0x01020304, Generation: 0x05060708, Table: 0x1112131415161718, Flags: 0x2122,
		Peer: sys.Peer{IP: ip, Port: 0x3132, V4: true}, Bytes: []byte("GET"), FD: fds[0],
	})
	mustAdd(t, w, ipc.Donation{Slot: 1, Peer: sys.Peer{IP: ip6, Port: 80}, Bytes: []byte(" /"), FD: fds[1]})
	mustFlush(t, w, a)
	got, room := make([]byte, 1000), make([]byte, 100)
	n, m, _, errno := sys.RecvMsg(b, got, room)
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, f := range sys.Rights(nil, room[:m]) {
		sys.CloseRaw(int(f))
	}
	want := donationWire(donationMagic, 2, 0, 16+2*48+5, 0, []entry{
		{slot: 0x01020304, generation: 0x05060708, table: 0x1112131415161718, ip: ip, port: 0x3132, v4: 1, flags: 0x2122, size: 3},
		{slot: 1, ip: ip6, port: 80, size: 2},
	}, []byte("GET /"))
	if !bytes.Equal(got[:n], want) {
		t.Errorf("sent\n%q\nwant\n%q", got[:n], want)
	}
}

// TestMalformedDonations: each is a *FrameError that names the sender and the
// rule; everything that came with it is closed; the next message is understood.
func TestMalformedDonations(t *testing.T) {
	t.Parallel()
	one, two := []entry{{slot: 1, size: 3}}, []entry{{slot: 1, size: 3}, {slot: 2, size: 2}}
	const h, e = 16, 48
	good := donationWire(donationMagic, 1, 0, h+e+3, 0, one, []byte("GET"))
	for _, c := range []struct {
		name    string
		message []byte
		fds     int
		want    string // "": well-formed
	}{
		{"as it should be", good, 1, ""},
		{"without its descriptor", good, 0, "descriptors"},
		{"one descriptor too many", good, 2, "descriptors"},
		{"more descriptors than any message has", good, 17, "descriptors"},
		{"as many descriptors as a message can carry", good, 253, "descriptors"},
		{"a descriptor too few for two", donationWire(donationMagic, 2, 0, h+2*e+5, 0, two, []byte("GET /")), 1, "descriptors"},
		{"one byte", []byte{1}, 1, "size"},
		{"cut in the header", good[:h-1], 1, "size"},
		{"cut in the entry", good[:h+e-1], 1, "size"},
		{"cut in the bytes", good[:h+e+2], 1, "size"},
		{"one byte more than said", append(bytes.Clone(good), 0), 1, "size"},
		{"longer than a message", make([]byte, 64<<10+1), 1, "size"},
		{"a control frame", frameWire(frameMagic, 4, 0, 0, 0, nil), 0, "magic"},
		{"another version", donationWire("bdo\x02", 1, 0, h+e+3, 0, one, []byte("GET")), 1, "magic"},
		{"no entries", donationWire(donationMagic, 0, 0, h, 0, nil, nil), 0, "count"},
		{"17 entries", donationWire(donationMagic, 17, 0, h+17*e, 0, make([]entry, 17), nil), 16, "count"},
		{"65535 entries", donationWire(donationMagic, 65535, 0, h+e+3, 0, one, []byte("GET")), 1, "count"},
		{"more entries than there are", donationWire(donationMagic, 2, 0, h+e+3, 0, one, []byte("GET")), 2, "size"},
		{"reserved field of the header", donationWire(donationMagic, 1, 1, h+e+3, 0, one, []byte("GET")), 1, "reserved field"},
		{"the other one", donationWire(donationMagic, 1, 0, h+e+3, 1, one, []byte("GET")), 1, "reserved field"},
		{"an address of no family", donationWire(donationMagic, 1, 0, h+e, 0, []entry{{v4: 2}}, nil), 1, "reserved field of an entry"},
		{"reserved field of an entry", donationWire(donationMagic, 1, 0, h+e, 0, []entry{{zero35: 1}}, nil), 1, "reserved field of an entry"},
		{"another", donationWire(donationMagic, 1, 0, h+e, 0, []entry{{zero38: 1}}, nil), 1, "reserved field of an entry"},
		{"the last", donationWire(donationMagic, 1, 0, h+e, 0, []entry{{zero44: 1}}, nil), 1, "reserved field of an entry"},
		{"more bytes than there are", donationWire(donationMagic, 1, 0, h+e+3, 0, []entry{{size: 4}}, []byte("GET")), 1, "bytes of an entry"},
		{"2^32-1 bytes", donationWire(donationMagic, 1, 0, h+e+3, 0, []entry{{size: 1<<32 - 1}}, []byte("GET")), 1, "bytes of an entry"},
		{"the second has more", donationWire(donationMagic, 2, 0, h+2*e+5, 0, []entry{{size: 3}, {size: 3}}, []byte("GET /")), 2, "bytes of an entry"},
		{"bytes that are nobody's", donationWire(donationMagic, 1, 0, h+e+3, 0, []entry{{size: 2}}, []byte("GET")), 1, "bytes behind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := channel(t)
			gone := send(t, a, c.message, c.fds)
			next := send(t, a, good, 1)
			r := ipc.NewDonationReader()
			r.Pid = 4711
			got, err := r.Read(b)
			if c.want == "" {
				if err != nil || len(got) != 1 || string(got[0].Bytes) != "GET" || gone() {
					t.Fatalf("%v, %v", got, err)
				}
				sys.CloseRaw(got[0].FD)
			} else {
				var wrong *ipc.FrameError
				if !errors.As(err, &wrong) || got != nil {
					t.Fatalf("%v, %v, want a *FrameError", got, err)
				}
				if wrong.Pid != 4711 || !strings.HasPrefix(wrong.What, c.want) {
					t.Errorf("%v; want process 4711 and %q", err, c.want)
				}
			}
			expectGone(t, gone)
			got, err = r.Read(b)
			if err != nil || len(got) != 1 {
				t.Fatalf("the next message: %v, %v", got, err)
			}
			sys.CloseRaw(got[0].FD)
			expectGone(t, next)
		})
	}
}

const frameMagic = "bct\x01"

func frameWire(magic string, kind, memfd byte, fds uint16, size uint64, payload []byte) []byte {
	b := append([]byte(magic), kind, memfd)
	b = binary.LittleEndian.AppendUint16(b, fds)
	b = binary.LittleEndian.AppendUint64(b, size)
	return append(b, payload...)
}

// TestMalformedFrames: as TestMalformedDonations.
func TestMalformedFrames(t *testing.T) {
	t.Parallel()
	kind := func(k ipc.FrameKind) byte { return byte(k) }
	stop := frameWire(frameMagic, kind(ipc.KindStop), 0, 0, 0, nil)
	ended := frameWire(frameMagic, kind(ipc.KindEnded), 0, 0, 8, make([]byte, 8))
	for _, c := range []struct {
		name    string
		message []byte
		fds     int
		want    string
	}{
		{"as it should be", stop, 0, ""},
		{"with slots", ended, 0, ""},
		{"a hello", frameWire(frameMagic, kind(ipc.KindHello), 0, 2, 2, []byte("{}")), 2, ""},
		{"an uninvited descriptor", stop, 1, "descriptors"},
		{"two with slots", ended, 2, "descriptors"},
		{"a hello with fewer than it says", frameWire(frameMagic, kind(ipc.KindHello), 0, 3, 2, []byte("{}")), 2, "descriptors"},
		{"a hello with none of them", frameWire(frameMagic, kind(ipc.KindHello), 0, 3, 2, []byte("{}")), 0, "descriptors"},
		{"a hello with more than it says", frameWire(frameMagic, kind(ipc.KindHello), 0, 1, 2, []byte("{}")), 2, "descriptors"},
		{"a hello with the most", frameWire(frameMagic, kind(ipc.KindHello), 0, 252, 0, nil), 252, ""},
		{"a hello with one more", frameWire(frameMagic, kind(ipc.KindHello), 0, 253, 0, nil), 253, "descriptors"},
		{"descriptors with what has none", frameWire(frameMagic, kind(ipc.KindEnded), 0, 1, 8, make([]byte, 8)), 1, "descriptors"},
		{"one byte", []byte{1}, 0, "size"},
		{"cut in the header", stop[:15], 1, "size"},
		{"cut in the payload", ended[:20], 0, "size in the header"},
		{"one byte more than said", append(bytes.Clone(ended), 0), 0, "size in the header"},
		{"longer than a message", make([]byte, 64<<10+1), 0, "size"},
		{"a donation", donationWire(donationMagic, 1, 0, 64, 0, []entry{{}}, nil), 1, "magic"},
		{"another version", frameWire("bct\x02", kind(ipc.KindStop), 0, 0, 0, nil), 0, "magic"},
		{"kind 0", frameWire(frameMagic, 0, 0, 0, 0, nil), 0, "kind"},
		{"the kind behind the last", frameWire(frameMagic, kind(ipc.KindTrouble)+1, 0, 0, 0, nil), 0, "kind"},
		{"kind 255", frameWire(frameMagic, 255, 0, 0, 0, nil), 3, "kind"},
		{"a payload of another sort", frameWire(frameMagic, kind(ipc.KindTableDelta), 2, 0, 16, make([]byte, 16)), 0, "payload flag"},
		{"slots in a memfd", frameWire(frameMagic, kind(ipc.KindEnded), 1, 0, 8, nil), 1, "payload flag"},
		{"bytes of a connection in a memfd", frameWire(frameMagic, kind(ipc.KindReturned), 1, 0, 24, nil), 1, "payload flag"},
		{"two payloads", frameWire(frameMagic, kind(ipc.KindTableDelta), 1, 0, 16, make([]byte, 16)), 1, "payload in the message, beside that in a memfd"},
		{"a memfd that did not come", frameWire(frameMagic, kind(ipc.KindTableDelta), 1, 0, 16, nil), 0, "descriptors"},
		{"a socket for a memfd", frameWire(frameMagic, kind(ipc.KindTableDelta), 1, 0, 16, nil), 1, "seals"},
		{"a gigabyte and one", frameWire(frameMagic, kind(ipc.KindTableDelta), 1, 0, 1<<30+1, nil), 1, "size of the payload"},
		{"2^64-1 bytes", frameWire(frameMagic, kind(ipc.KindTableDelta), 1, 0, 1<<64-1, nil), 1, "size of the payload"},
		{"513 slots", frameWire(frameMagic, kind(ipc.KindEnded), 0, 0, 513*8, make([]byte, 513*8)), 0, "size of the payload"},
		{"more bytes than a connection takes along", frameWire(frameMagic, kind(ipc.KindReturned), 0, 0, 24+ipc.ConnBytesMax+1, make([]byte, 24+ipc.ConnBytesMax+1)), 0, "size of the payload"},
		{"more text than is allowed", frameWire(frameMagic, kind(ipc.KindTrouble), 0, 0, 4097, make([]byte, 4097)), 0, "size of the payload"},
		{"a payload where there is none", frameWire(frameMagic, kind(ipc.KindStop), 0, 0, 17, make([]byte, 17)), 0, "size of the payload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := channel(t)
			gone := send(t, a, c.message, c.fds)
			send(t, a, stop, 0)
			r := ipc.NewFrameReader()
			r.Pid = 4711
			f, err := r.Read(b)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			} else {
				var wrong *ipc.FrameError
				if !errors.As(err, &wrong) {
					t.Fatalf("%v, want a *FrameError", err)
				}
				if wrong.Pid != 4711 || wrong.What != c.want && !strings.HasPrefix(wrong.What, c.want+" ") {
					t.Errorf("%v; want process 4711 and %q", err, c.want)
				}
			}
			expectGone(t, gone)
			f, err = r.Read(b)
			if err != nil || f.Kind != ipc.KindStop {
				t.Fatalf("the next frame: %v, %v", f.Kind, err)
			}
			f.Close()
		})
	}
}

// TestFrameErrorText: pid, kind, wanted and got.
func TestFrameErrorText(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	send(t, a, frameWire(frameMagic, byte(ipc.KindEnded), 0, 0, 4104, make([]byte, 4104)), 0)
	r := ipc.NewFrameReader()
	r.Pid = 12
	_, err := r.Read(b)
	if want := "ended frame from process 12: size of the payload: want at most 4096, got 4104"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestMalformedMemfds: what a peer could still change or cut is not mapped.
func TestMalformedMemfds(t *testing.T) {
	t.Parallel()
	const all = sys.SealWrite | sys.SealShrink | sys.SealGrow
	for _, c := range []struct {
		name  string
		seals int
		size  int64
		want  string
	}{
		{"as it should be", all, 100, ""},
		{"can be written", all &^ sys.SealWrite, 100, "seals of the payload"},
		{"can shrink", all &^ sys.SealShrink, 100, "seals of the payload"},
		{"can grow", all &^ sys.SealGrow, 100, "seals of the payload"},
		{"shorter than said", all, 99, "size of the payload"},
		{"longer than said", all, 101, "size of the payload"},
		{"empty", all, 0, "size of the payload"},
	} {
		n, err := sys.MemfdCreate("test", c.size)
		if err != nil {
			t.Fatal(err)
		}
		memfd := fd.New(n)
		closeLater(t, &memfd)
		if err := sys.Seal(n, c.seals); err != nil {
			t.Fatal(err)
		}
		a, b := channel(t)
		message := frameWire(frameMagic, byte(ipc.KindTableDelta), 1, 0, 100, nil)
		if _, errno := sys.SendMsg(a, [][]byte{message}, sys.PutRights(make([]byte, 64), []int32{int32(n)})); errno != 0 {
			t.Fatal(errno)
		}
		f, err := ipc.NewFrameReader().Read(b)
		var wrong *ipc.FrameError
		switch {
		case c.want == "" && (err != nil || len(f.Payload) != 100):
			t.Errorf("%s: %d bytes, %v", c.name, len(f.Payload), err)
		case c.want != "" && (!errors.As(err, &wrong) || wrong.What != c.want):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		f.Close()
	}
}

// FuzzDonationRead: whatever arrives is either refused, with everything closed,
// or is exactly what a DonationWriter makes of what was read.
func FuzzDonationRead(f *testing.F) {
	one := []entry{{slot: 1, generation: 2, table: 3, port: 4, v4: 1, flags: 5, size: 3}}
	f.Add(donationWire(donationMagic, 1, 0, 16+48+3, 0, one, []byte("GET")), uint8(1))
	f.Add(donationWire(donationMagic, 2, 0, 16+2*48+3, 0, []entry{one[0], {}}, []byte("GET")), uint8(2))
	f.Add(donationWire(donationMagic, 16, 0, 16+16*48, 0, make([]entry, 16), nil), uint8(16))
	f.Add(donationWire(donationMagic, 1, 0, 16+48+3, 0, one, []byte("GET")), uint8(3))
	f.Add([]byte("x"), uint8(20))
	a, b := channel(f)
	r, w := ipc.NewDonationReader(), ipc.NewDonationWriter()
	again, room := make([]byte, 64<<10), make([]byte, 128)
	f.Fuzz(func(t *testing.T, message []byte, n uint8) {
		if len(message) == 0 || len(message) > 64<<10 || int(n) > sys.RightsMax {
			return // the kernel sends no such message
		}
		gone := send(t, a, message, int(n))
		got, err := r.Read(b)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d donations and %v", len(got), err)
		}
		if err != nil {
			var wrong *ipc.FrameError
			if !errors.As(err, &wrong) || wrong.What == "" || wrong.Want == "" {
				t.Fatal(err)
			}
			expectGone(t, gone)
			return
		}
		for _, d := range got {
			mustAdd(t, w, d)
		}
		mustFlush(t, w, a)
		for _, d := range got {
			sys.CloseRaw(d.FD)
		}
		m, k, _, errno := sys.RecvMsg(b, again, room)
		if errno != 0 {
			t.Fatal(errno)
		}
		fds := sys.Rights(nil, room[:k])
		for _, n := range fds {
			sys.CloseRaw(int(n))
		}
		if len(fds) != len(got) || !bytes.Equal(again[:m], message) {
			t.Errorf("read\n%q\nwritten again\n%q", message, again[:m])
		}
		expectGone(t, gone)
	})
}

// FuzzFrameRead: likewise for frames and their typed contents.
func FuzzFrameRead(f *testing.F) {
	for _, frame := range everyFrame() {
		a, b := channel(f)
		if err := ipc.WriteFrame(a, frame); err != nil {
			f.Fatal(err)
		}
		message, room := make([]byte, 64<<10), make([]byte, 128)
		n, m, _, errno := sys.RecvMsg(b, message, room)
		if errno != 0 {
			f.Fatal(errno)
		}
		fds := sys.Rights(nil, room[:m])
		for _, n := range fds {
			sys.CloseRaw(int(n))
		}
		f.Add(message[:n:n], uint8(len(fds)))
	}
	f.Add(frameWire(frameMagic, byte(ipc.KindTableDelta), 1, 0, 16, nil), uint8(1))
	a, b := channel(f)
	r := ipc.NewFrameReader()
	again, room := make([]byte, 64<<10), make([]byte, sys.RightsSpace(sys.RightsMax))
	f.Fuzz(func(t *testing.T, message []byte, n uint8) {
		if len(message) == 0 || len(message) > 64<<10 || int(n) > sys.RightsMax {
			return // the kernel sends no such message
		}
		gone := send(t, a, message, int(n))
		frame, err := r.Read(b)
		var wrong *ipc.FrameError
		if err != nil {
			if !errors.As(err, &wrong) || wrong.What == "" || wrong.Want == "" {
				t.Fatal(err)
			}
			expectGone(t, gone)
			return
		}
		made, err := remake(&frame)
		if err != nil {
			if !errors.As(err, &wrong) {
				t.Fatal(err)
			}
		} else {
			if err := ipc.WriteFrame(a, made); err != nil {
				t.Fatal(err)
			}
			m, k, _, errno := sys.RecvMsg(b, again, room)
			if errno != 0 {
				t.Fatal(errno)
			}
			for _, n := range sys.Rights(nil, room[:k]) {
				sys.CloseRaw(int(n))
			}
			// A text is made valid, so it may differ.
			if !bytes.Equal(again[:m], message) && frame.Kind != ipc.KindTrouble && len(made.Payload) <= 32<<10 {
				t.Errorf("read\n%q\nwritten again\n%q", message, again[:m])
			}
		}
		made.Close()
		frame.Close()
		expectGone(t, gone)
	})
}

// remake makes a frame of what another one holds.
func remake(f *ipc.Frame) (ipc.Frame, error) {
	var refs []ipc.SlotRef
	collect := func(slot, generation uint32) { refs = append(refs, ipc.SlotRef{Slot: slot, Generation: generation}) }
	switch f.Kind {
	case ipc.KindHello:
		fds := f.FDs
		if len(fds) < 2 {
			_, err := f.Hello()
			return ipc.Frame{}, err
		}
		return ipc.HelloFrame(f.Payload, fds[0], fds[1:]), nil
	case ipc.KindTableDelta:
		m, err := f.TableDelta()
		if err != nil {
			return ipc.Frame{}, err
		}
		return ipc.TableDeltaFrame(m)
	case ipc.KindDrain:
		m, err := f.Drain()
		return ipc.DrainFrame(m), err
	case ipc.KindStop:
		return ipc.StopFrame(), f.Stop()
	case ipc.KindReady:
		generation, err := f.Ready()
		return ipc.ReadyFrame(generation), err
	case ipc.KindApplied:
		m, err := f.Applied()
		return ipc.AppliedFrame(m), err
	case ipc.KindReturned:
		m, err := f.Returned()
		return ipc.ReturnedFrame(m), err
	case ipc.KindEnded:
		if err := f.EachEnded(collect); err != nil {
			return ipc.Frame{}, err
		}
		return ipc.EndedFrame(refs), nil
	case ipc.KindNotAdopted:
		if err := f.EachNotAdopted(collect); err != nil {
			return ipc.Frame{}, err
		}
		return ipc.NotAdoptedFrame(refs), nil
	case ipc.KindTrouble:
		text, err := f.Trouble()
		return ipc.TroubleFrame(text), err
	}
	return ipc.Frame{}, io.ErrUnexpectedEOF
}
