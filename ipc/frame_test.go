package ipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

// everyFrame makes one of each kind. The hello passes standard input.
func everyFrame() []ipc.Frame {
	delta, err := ipc.TableDeltaFrame(ipc.TableDelta{From: 3, To: 4, Payload: []byte("changes")})
	if err != nil {
		panic(err) // it is small: nothing can go wrong
	}
	return []ipc.Frame{
		ipc.HelloFrame([]byte("{}"), 0, []int{0, 0}),
		delta,
		ipc.DrainFrame(ipc.Drain{Final: true, Limit: 10 * time.Second}),
		ipc.StopFrame(),
		ipc.ReadyFrame(1<<63 + 5),
		ipc.AppliedFrame(ipc.Applied{Generation: 9, Problems: 2}),
		ipc.ReturnedFrame(ipc.Return{Slot: 1, Generation: 2, Reason: ipc.ReturnBalance, Table: 3, Bytes: []byte("GET / HT")}),
		ipc.EndedFrame([]ipc.SlotRef{{Slot: 1, Generation: 2}, {Slot: 3, Generation: 4}}),
		ipc.NotAdoptedFrame([]ipc.SlotRef{{Slot: 5, Generation: 6}}),
		ipc.TroubleFrame("the disk is full"),
	}
}

// pass writes f and reads it at the other end.
func pass(t testing.TB, f ipc.Frame) *ipc.Frame {
	t.Helper()
	a, b := channel(t)
	if err := ipc.WriteFrame(a, f); err != nil {
		t.Fatal(err)
	}
	r := ipc.NewFrameReader()
	got, err := r.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(b); err != ipc.ErrAgain {
		t.Fatalf("behind the frame: %v, want ErrAgain", err)
	}
	t.Cleanup(got.Close)
	return &got
}

// contents takes out what is in a frame that was read, as a comparable value.
func contents(t testing.TB, f *ipc.Frame) any {
	t.Helper()
	var refs []ipc.SlotRef
	collect := func(slot, generation uint32) { refs = append(refs, ipc.SlotRef{Slot: slot, Generation: generation}) }
	var v any
	var err error
	switch f.Kind {
	case ipc.KindHello:
		var m ipc.Hello
		m, err = f.Hello()
		inodes := []uint64{inode(t, m.Board.Borrow())}
		closeLater(t, &m.Board)
		for i := range m.Donations {
			inodes = append(inodes, inode(t, m.Donations[i].Borrow()))
			closeLater(t, &m.Donations[i])
		}
		v = fmt.Sprint(string(m.Config), inodes)
	case ipc.KindTableDelta:
		v, err = f.TableDelta()
	case ipc.KindDrain:
		v, err = f.Drain()
	case ipc.KindStop:
		err = f.Stop()
	case ipc.KindReady:
		v, err = f.Ready()
	case ipc.KindApplied:
		v, err = f.Applied()
	case ipc.KindReturned:
		v, err = f.Returned()
	case ipc.KindEnded:
		err = f.EachEnded(collect)
		v = refs
	case ipc.KindNotAdopted:
		err = f.EachNotAdopted(collect)
		v = refs
	case ipc.KindTrouble:
		v, err = f.Trouble()
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFramesArriveAsTheyWereMade(t *testing.T) {
	t.Parallel()
	in := fmt.Sprint(inode(t, 0))
	for i, want := range []any{
		"{}[" + in + " " + in + " " + in + "]",
		ipc.TableDelta{From: 3, To: 4, Payload: []byte("changes")},
		ipc.Drain{Final: true, Limit: 10 * time.Second},
		nil,
		uint64(1<<63 + 5),
		ipc.Applied{Generation: 9, Problems: 2},
		ipc.Return{Slot: 1, Generation: 2, Reason: ipc.ReturnBalance, Table: 3, Bytes: []byte("GET / HT")},
		[]ipc.SlotRef{{Slot: 1, Generation: 2}, {Slot: 3, Generation: 4}},
		[]ipc.SlotRef{{Slot: 5, Generation: 6}},
		"the disk is full",
	} {
		made := everyFrame()[i]
		t.Run(made.Kind.String(), func(t *testing.T) {
			t.Parallel()
			got := pass(t, made)
			if got.Kind != made.Kind {
				t.Errorf("kind %v, want %v", got.Kind, made.Kind)
			}
			if v := contents(t, got); !reflect.DeepEqual(v, want) {
				t.Errorf("%+v, want %+v", v, want)
			}
			// A clone says the same, after everything it was made from is gone.
			kept, err := made.Clone()
			if err != nil {
				t.Fatal(err)
			}
			made.Close()
			got = pass(t, kept)
			kept.Close()
			if v := contents(t, got); !reflect.DeepEqual(v, want) {
				t.Errorf("cloned: %+v, want %+v", v, want)
			}
			// So does a clone of what was read.
			read := pass(t, everyFrame()[i])
			if kept, err = read.Clone(); err != nil {
				t.Fatal(err)
			}
			read.Close()
			got = pass(t, kept)
			kept.Close()
			if v := contents(t, got); !reflect.DeepEqual(v, want) {
				t.Errorf("read and cloned: %+v, want %+v", v, want)
			}
		})
	}
}

// TestEdgesOfFrames: the largest and the smallest of each kind.
func TestEdgesOfFrames(t *testing.T) {
	t.Parallel()
	refs := make([]ipc.SlotRef, ipc.SlotRefsMax)
	for i := range refs {
		refs[i] = ipc.SlotRef{Slot: uint32(i), Generation: math.MaxUint32 - uint32(i)}
	}
	full := bytes.Repeat([]byte("x"), ipc.ConnBytesMax)
	for _, c := range []struct {
		name string
		made ipc.Frame
		want any
	}{
		{"as many slots as allowed", ipc.EndedFrame(refs), refs},
		{"… not adopted", ipc.NotAdoptedFrame(refs), refs},
		{"as many bytes as allowed", ipc.ReturnedFrame(ipc.Return{Reason: ipc.ReturnControl, Bytes: full}), ipc.Return{Reason: ipc.ReturnControl, Bytes: full}},
		{"no bytes", ipc.ReturnedFrame(ipc.Return{Reason: ipc.ReturnMisrouted}), ipc.Return{Reason: ipc.ReturnMisrouted, Bytes: []byte{}}},
		{"no time", ipc.DrainFrame(ipc.Drain{}), ipc.Drain{}},
		{"all the time", ipc.DrainFrame(ipc.Drain{Limit: math.MaxInt64}), ipc.Drain{Limit: math.MaxInt64}},
		{"no text", ipc.TroubleFrame(""), ""},
		{"a text that is too long", ipc.TroubleFrame(strings.Repeat("x", 5000)), strings.Repeat("x", 4096)},
		{"a text that is no text", ipc.TroubleFrame("a\xffb"), "a�b"},
		{"fewer than no problems", ipc.AppliedFrame(ipc.Applied{Problems: -1}), ipc.Applied{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := pass(t, c.made)
			if v := contents(t, got); !reflect.DeepEqual(v, c.want) {
				t.Errorf("%.200v, want %.200v", fmt.Sprintf("%+v", v), fmt.Sprintf("%+v", c.want))
			}
		})
	}
	got := pass(t, ipc.TroubleFrame(strings.Repeat("x", 4094)+"ä€"))
	if text, err := got.Trouble(); !utf8.ValidString(text) || text != strings.Repeat("x", 4094)+"ä" || err != nil {
		t.Errorf("cut in the middle of a letter: %q, %v", text[4090:], err)
	}
}

// TestTypedContentsAreChecked: well-formed frames whose contents are not.
func TestTypedContentsAreChecked(t *testing.T) {
	t.Parallel()
	zeros := func(n int, set ...byte) []byte { // set: index, value, index, value, …
		b := make([]byte, n)
		for ; len(set) > 0; set = set[2:] {
			b[set[0]] = set[1]
		}
		return b
	}
	for _, c := range []struct {
		name    string
		kind    ipc.FrameKind
		payload []byte
		want    string
	}{
		{"a delta without generations", ipc.KindTableDelta, zeros(15), "size of the payload"},
		{"a delta that leads nowhere", ipc.KindTableDelta, zeros(16), "generation"},
		{"a delta that leads back", ipc.KindTableDelta, zeros(16, 0, 2, 8, 1), "generation"},
		{"a drain without a limit", ipc.KindDrain, zeros(8), "size of the payload"},
		{"a drain with a negative limit", ipc.KindDrain, zeros(16, 7, 0x80), "limit"},
		{"a drain of another sort", ipc.KindDrain, zeros(16, 8, 2), "final"},
		{"a drain with more in it", ipc.KindDrain, zeros(16, 15, 1), "final"},
		{"a stop with something", ipc.KindStop, zeros(1), "size of the payload"},
		{"ready for nothing", ipc.KindReady, nil, "size of the payload"},
		{"ready for more", ipc.KindReady, zeros(9), "size of the payload"},
		{"applied, too short", ipc.KindApplied, zeros(8), "size of the payload"},
		{"applied with too many problems", ipc.KindApplied, zeros(16, 11, 0x80), "problems"},
		{"returned without its slot", ipc.KindReturned, zeros(23), "size of the payload"},
		{"returned for no reason", ipc.KindReturned, zeros(24), "reason"},
		{"returned for a fifth reason", ipc.KindReturned, zeros(24, 16, 5), "reason"},
		{"returned with more in it", ipc.KindReturned, zeros(24, 16, 1, 20, 1), "reason"},
		{"nothing ended", ipc.KindEnded, nil, "size of the payload"},
		{"half a slot ended", ipc.KindEnded, zeros(12), "size of the payload"},
		{"nothing not adopted", ipc.KindNotAdopted, nil, "size of the payload"},
		{"a hello without descriptors", ipc.KindHello, []byte("{}"), "descriptors"},
	} {
		a, b := channel(t)
		send(t, a, frameWire(frameMagic, byte(c.kind), 0, 0, uint64(len(c.payload)), c.payload), 0)
		f, err := ipc.NewFrameReader().Read(b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		made, err := remake(&f)
		made.Close()
		var wrong *ipc.FrameError
		if !errors.As(err, &wrong) || wrong.What != c.want || wrong.Frame != c.kind.String() {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		f.Close()
	}
}

// TestAskingForAnotherKind: every typed method refuses every other kind.
func TestAskingForAnotherKind(t *testing.T) {
	t.Parallel()
	none := func(uint32, uint32) { t.Error("called") }
	for _, made := range everyFrame() {
		f := pass(t, made)
		for kind, ask := range map[ipc.FrameKind]func() error{
			ipc.KindHello:      func() error { _, err := f.Hello(); return err },
			ipc.KindTableDelta: func() error { _, err := f.TableDelta(); return err },
			ipc.KindDrain:      func() error { _, err := f.Drain(); return err },
			ipc.KindStop:       func() error { return f.Stop() },
			ipc.KindReady:      func() error { _, err := f.Ready(); return err },
			ipc.KindApplied:    func() error { _, err := f.Applied(); return err },
			ipc.KindReturned:   func() error { _, err := f.Returned(); return err },
			ipc.KindEnded:      func() error { return f.EachEnded(none) },
			ipc.KindNotAdopted: func() error { return f.EachNotAdopted(none) },
			ipc.KindTrouble:    func() error { _, err := f.Trouble(); return err },
		} {
			if kind != f.Kind && ask() == nil {
				t.Errorf("a %v frame passes for %v", f.Kind, kind)
			}
		}
	}
}

func TestImpossibleFramesPanic(t *testing.T) {
	t.Parallel()
	a, _ := channel(t)
	for name, do := range map[string]func() error{
		"no slots":       func() error { ipc.EndedFrame(nil); return nil },
		"too many slots": func() error { ipc.NotAdoptedFrame(make([]ipc.SlotRef, ipc.SlotRefsMax+1)); return nil },
		"too many bytes": func() error {
			return ipc.WriteFrame(a, ipc.ReturnedFrame(ipc.Return{Reason: 1, Bytes: make([]byte, ipc.ConnBytesMax+1)}))
		},
		"too many descriptors": func() error { return ipc.WriteFrame(a, ipc.HelloFrame(nil, 0, make([]int, 252))) },
		"a zero frame":         func() error { return ipc.WriteFrame(a, ipc.Frame{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			_ = do()
		}()
	}
}

// TestLongTables: inline as far as it goes, then in a memfd, which one frame
// shares with every worker.
func TestLongTables(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 32 << 10, 32<<10 + 1, 64 << 10, 5 << 20} {
		payload := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		f, err := ipc.TableDeltaFrame(ipc.TableDelta{From: 1, To: 2, Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
		kept, err := f.Clone()
		if err != nil {
			t.Fatal(err)
		}
		for worker, f := range []ipc.Frame{f, f, kept} {
			got := pass(t, f)
			m, err := got.TableDelta()
			if err != nil || m.From != 1 || m.To != 2 || !bytes.Equal(m.Payload, payload) {
				t.Errorf("%d bytes for worker %d: %d, %d, %d bytes, %v", size, worker, m.From, m.To, len(m.Payload), err)
			}
			if len(got.FDs) != 0 {
				t.Errorf("%d bytes for worker %d: a descriptor came along", size, worker)
			}
			// It can be kept, too.
			again, err := got.Clone()
			if err != nil {
				t.Fatal(err)
			}
			got.Close()
			got = pass(t, again)
			if m, err := got.TableDelta(); err != nil || !bytes.Equal(m.Payload, payload) {
				t.Errorf("%d bytes for worker %d, cloned: %d bytes, %v", size, worker, len(m.Payload), err)
			}
			again.Close()
		}
		f.Close()
		kept.Close()
		f.Close() // does nothing
	}
}

// TestALongHello: a configuration that fits no message.
func TestALongHello(t *testing.T) {
	t.Parallel()
	config := bytes.Repeat([]byte("x"), 100<<10)
	fds, inodes := files(t, 2)
	f := pass(t, ipc.HelloFrame(config, fds[0], fds[1:]))
	got := contents(t, f)
	if want := fmt.Sprint(string(config), inodes); got != want {
		t.Errorf("%.100v, want %.100v", got, want)
	}
}

// TestAFrameOwnsWhatItRead: until Close or TakeFDs.
func TestAFrameOwnsWhatItRead(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	r := ipc.NewFrameReader()
	hello := func() (gone func() bool, f ipc.Frame) {
		n, gone := watched(t)
		if err := ipc.WriteFrame(a, ipc.HelloFrame(nil, n, []int{n})); err != nil {
			t.Fatal(err)
		}
		sys.CloseRaw(n)
		f, err := r.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range f.FDs {
			if !closeOnExec(t, n) {
				t.Error("a received descriptor survives exec")
			}
		}
		return gone, f
	}
	gone, f := hello()
	f.Close()
	expectGone(t, gone)
	f.Close()
	gone, f = hello()
	fds := f.TakeFDs()
	f.Close()
	if gone() || len(fds) != 2 || f.TakeFDs() != nil {
		t.Errorf("%d descriptors taken, gone %v", len(fds), gone())
	}
	for i := range fds {
		if err := fds[i].Close(); err != nil {
			t.Error(err)
		}
	}
	expectGone(t, gone)
	// What was made borrows.
	n, err := sys.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	own := fd.New(n)
	f = ipc.HelloFrame(nil, n, []int{n})
	f.Close()
	if err := own.Close(); err != nil {
		t.Errorf("a made frame has closed what it borrowed: %v", err)
	}
	if _, err := f.Clone(); err != nil {
		t.Errorf("clone of a closed frame: %v", err)
	}
	f = ipc.HelloFrame(nil, n, []int{n})
	if _, err := f.Clone(); err == nil {
		t.Error("clone of closed descriptors")
	}
}

// TestFramesThatFindNoRoom: nothing is sent, and nothing of the frame is lost.
func TestFramesThatFindNoRoom(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	f := ipc.EndedFrame([]ipc.SlotRef{{Slot: 1, Generation: 1}})
	sent := 0
	for {
		err := ipc.WriteFrame(a, f)
		if errors.Is(err, ipc.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	t.Logf("%d reports fill the channel", sent)
	if sent < 100 {
		t.Errorf("%d reports fill the channel", sent)
	}
	r := ipc.NewFrameReader()
	for range sent {
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := ipc.WriteFrame(a, f); err != nil {
		t.Errorf("in the empty channel: %v", err)
	}
	long, err := ipc.TableDeltaFrame(ipc.TableDelta{To: 1, Payload: make([]byte, 100<<10)})
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	for err == nil {
		err = ipc.WriteFrame(a, long)
	}
	if !errors.Is(err, ipc.ErrFull) {
		t.Errorf("with a memfd: %v, want ErrFull", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{ipc.KindNotAdopted.String(), "not-adopted"}, {ipc.FrameKind(0).String(), "kind 0"}, {ipc.FrameKind(99).String(), "kind 99"},
		{ipc.ReturnMisrouted.String(), "misrouted"}, {ipc.ReturnReason(0).String(), "reason 0"}, {ipc.ReturnReason(9).String(), "reason 9"},
		{ipc.Responding.String(), "responding"}, {ipc.State(9).String(), "state 9"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}
