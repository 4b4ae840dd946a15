package ipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/ipc"
)

// allowMore leaves this process room for n more descriptors and no other.
func allowMore(n int) error {
	var opened []int
	highest := 0
	for range n {
		d, err := sys.Dup(0)
		if err != nil {
			return err
		}
		opened, highest = append(opened, d), max(highest, d)
	}
	// Fill the holes below, so that the limit is the only bound.
	limit := uint64(highest + 1)
	if n == 0 {
		d, err := sys.Dup(0)
		if err != nil {
			return err
		}
		limit = uint64(d)
		sys.CloseRaw(d)
	}
	for _, d := range opened {
		sys.CloseRaw(d)
	}
	return sys.SetNofile(limit)
}

// TestOutOfDescriptors: MSG_CTRUNC. What arrived is the first, in order; each
// other slot is reported; the next message is whole again once there is room.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	for _, room := range []int{0, 1, 5, 15, 16} {
		t.Run(fmt.Sprint("room for ", room), func(t *testing.T) {
			t.Parallel()
			a, b := channel(t)
			fds, inodes := files(t, ipc.DonationConnsMax)
			w := ipc.NewDonationWriter()
			for range 2 {
				for i, n := range fds {
					mustAdd(t, w, donation(i, n))
				}
				mustFlush(t, w, a)
			}
			c := again(t, "adopt-few", b)
			c.Env = append(c.Env, fmt.Sprint("ROOM=", room))
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var want strings.Builder
			for _, room := range []int{room, len(fds)} {
				for i := range fds {
					if i < room {
						fmt.Fprintln(&want, i, inodes[i])
					} else {
						fmt.Fprintln(&want, i, "none")
					}
				}
			}
			if string(out) != want.String() {
				t.Errorf("the child says\n%swant\n%s", out, want.String())
			}
		})
	}
}

func childAdoptFew() error {
	var room int
	if _, err := fmt.Sscan(os.Getenv("ROOM"), &room); err != nil {
		return err
	}
	if err := allowMore(room); err != nil {
		return err
	}
	r := ipc.NewDonationReader()
	for range 2 {
		got, err := r.Read(3)
		if err != nil {
			return err
		}
		if err := sys.SetNofile(100); err != nil {
			return err
		}
		for _, d := range got {
			if d.FD < 0 {
				fmt.Println(d.Slot, "none")
				continue
			}
			device, ino, err := sys.FileIdentity(d.FD)
			if err != nil {
				return err
			}
			fmt.Println(d.Slot, device<<48^ino)
			sys.CloseRaw(d.FD)
		}
	}
	return nil
}

// TestHelloOutOfDescriptors: a frame that lost descriptors is an error that
// names the cause; those that came are closed.
func TestHelloOutOfDescriptors(t *testing.T) {
	t.Parallel()
	a, b := channel(t)
	fds, _ := files(t, 4)
	if err := ipc.WriteFrame(a, ipc.HelloFrame([]byte("{}"), fds[0], fds[1:])); err != nil {
		t.Fatal(err)
	}
	if err := ipc.WriteFrame(a, ipc.StopFrame()); err != nil {
		t.Fatal(err)
	}
	out, err := again(t, "hello-few", b).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := "hello frame: this process is out of descriptors: 2 of 4 arrived\nEMFILE true, 0 left\nstop\n"
	if string(out) != want {
		t.Errorf("the child says\n%swant\n%s", out, want)
	}
}

func childHelloFew() error {
	if err := allowMore(2); err != nil {
		return err
	}
	r := ipc.NewFrameReader()
	_, err := r.Read(3)
	var lost *ipc.DescriptorError
	if !errors.As(err, &lost) {
		return fmt.Errorf("read: %w", err)
	}
	fmt.Println(lost)
	left := 0
	for range 2 { // as many as before can be opened again
		if _, err := sys.Dup(0); err != nil {
			left++
		}
	}
	fmt.Printf("EMFILE %v, %d left\n", errors.Is(err, syscall.EMFILE), left)
	f, err := r.Read(3)
	fmt.Println(f.Kind)
	return err
}

// TestTooManyDescriptorsInFlight: the kernel's limit per user, which holds for
// ordinary users only.
func TestTooManyDescriptorsInFlight(t *testing.T) {
	t.Parallel()
	out, err := again(t, "too-many").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	testenv.NeedFeature(t, "a second user", string(out) != noOtherUser, errors.New("setuid(2) is not permitted"))
	if !strings.HasPrefix(string(out), "too many descriptors are in flight\n") {
		t.Errorf("the child says %q", out)
	}
}

const noOtherUser = "cannot become an ordinary user\n"

func childTooMany() error {
	if os.Getuid() == 0 {
		// Any user that is not root and runs nothing else.
		if err := syscall.Setuid(63123); err != nil {
			fmt.Print(noOtherUser)
			return nil
		}
	}
	if err := sys.SetNofile(64); err != nil {
		return err
	}
	// Several channels: one would be full first.
	w := ipc.NewDonationWriter()
	for range 10 {
		a, _, err := ipc.NewChannel()
		if err != nil {
			return err
		}
		for {
			for i := range ipc.DonationConnsMax {
				w.Add(donation(i, 0))
			}
			sent, err := w.Flush(a.Borrow())
			if errors.Is(err, ipc.ErrFull) {
				break
			}
			if err != nil {
				fmt.Println(err)
				if sent != 0 || !errors.Is(err, ipc.ErrTooManyRefs) {
					return fmt.Errorf("sent %d, %w", sent, err)
				}
				// Frames meet the same limit.
				if err := ipc.WriteFrame(a.Borrow(), ipc.HelloFrame(nil, 0, []int{0})); !errors.Is(err, ipc.ErrTooManyRefs) {
					return fmt.Errorf("frame with descriptors: %w", err)
				}
				return nil
			}
		}
	}
	return errors.New("10 channels are full, and the limit was not met")
}

// TestKilledWorker: a worker is killed at any moment of its work. What it had
// said is heard, the board agrees with it, and no descriptor is left anywhere.
func TestKilledWorker(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 8 {
		killWorker(t, random, fmt.Sprintf("round %d of seed %d", round, seed))
	}
}

func killWorker(t *testing.T, random *rand.Rand, what string) {
	const conns = 400
	board, err := ipc.NewBoard(ipc.BoardOptions{Conns: conns, Workers: 1, Cells: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer board.Close()
	control, controlThere, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	sock, sockThere, err := ipc.NewChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	c := again(t, "adopt-and-end", controlThere.Borrow(), sockThere.Borrow(), board.FD())
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range c.ExtraFiles {
		f.Close()
	}
	if err := errors.Join(controlThere.Close(), sockThere.Close()); err != nil {
		t.Fatal(err)
	}
	killAt := random.IntN(conns)
	var gone []func() bool
	var retained []int
	w := ipc.NewDonationWriter()
	for slot := range uint32(conns) {
		n, g := watched(t)
		gone, retained = append(gone, g), append(retained, n)
		board.Conn(slot).Store(ipc.MakeWord(9, 0, ipc.Donated))
		for !w.Add(ipc.Donation{Slot: slot, Generation: 9, FD: n, Bytes: make([]byte, random.IntN(200))}) {
			_, err := w.Flush(sock.Borrow())
			if err != nil && !errors.Is(err, ipc.ErrFull) && !errors.Is(err, ipc.ErrPeerGone) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if slot == 0 || random.IntN(4) == 0 {
			_, _ = w.Flush(sock.Borrow())
		}
		if slot == 0 {
			testenv.Until(t, "the worker works", func() bool { return board.Conn(0).Load().State() != ipc.Donated })
		}
		if int(slot) == killAt {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait()
	r := ipc.NewFrameReader()
	ended := make(map[uint32]bool)
	for {
		var f ipc.Frame
		var err error
		// The end may be late: see expectGone.
		testenv.Until(t, "a frame or the end is heard", func() bool {
			f, err = r.Read(control.Borrow())
			return !errors.Is(err, ipc.ErrAgain)
		})
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%s: last words: %v", what, err)
		}
		if err := f.EachEnded(func(slot, generation uint32) {
			if generation != 9 || ended[slot] {
				t.Errorf("%s: slot %d ended twice, or in generation %d", what, slot, generation)
			}
			ended[slot] = true
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		f.Close()
	}
	states := make(map[ipc.State]int)
	for slot := range uint32(conns) {
		word := board.Conn(slot).Load()
		states[word.State()]++
		if word.Generation() != 9 || ended[slot] && word.State() != ipc.Ended {
			t.Errorf("%s: slot %d, reported %v, is %v", what, slot, ended[slot], word)
		}
		sys.CloseRaw(retained[slot])
		expectGone(t, gone[slot])
	}
	t.Logf("%s: killed at %d: %d reported, states %v", what, killAt, len(ended), states)
}

func childAdoptAndEnd() error {
	board, err := ipc.MapBoard(fd.New(5))
	if err != nil {
		return err
	}
	r := ipc.NewDonationReader()
	var ended []ipc.SlotRef
	for {
		if err := sys.WaitReadable(4, 10*time.Second); err != nil {
			return err
		}
		got, err := r.Read(4)
		if err != nil {
			return err
		}
		for _, d := range got {
			s := board.Conn(d.Slot)
			for _, state := range []ipc.State{ipc.Reading, ipc.Running, ipc.Responding, ipc.Ended} {
				s.Store(ipc.MakeWord(d.Generation, 0, state))
			}
			sys.CloseRaw(d.FD)
			ended = append(ended, ipc.SlotRef{Slot: d.Slot, Generation: d.Generation})
		}
		if err := ipc.WriteFrame(3, ipc.EndedFrame(ended)); !errors.Is(err, ipc.ErrFull) {
			if err != nil {
				return err
			}
			ended = ended[:0]
		}
	}
}

// TestAConnectionIsServedByAnotherProcess: the whole way with real TCP. The
// first request was read here; the worker answers it and the next, which this
// process never sees, while this process retains its duplicate.
func TestAConnectionIsServedByAnotherProcess(t *testing.T) {
	t.Parallel()
	const conns = 3
	l, err := sys.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), sys.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	listener := fd.New(l)
	closeLater(t, &listener)
	at, err := sys.LocalAddr(l)
	if err != nil {
		t.Fatal(err)
	}
	board, err := ipc.NewBoard(ipc.BoardOptions{Conns: 8, Workers: 2, Cells: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer board.Close()
	toControl, control := channel(t)
	toDonations, donations := channel(t)
	c := again(t, "serve", control)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	config := []byte(`{"worker":1}`)
	if err := ipc.WriteFrame(toControl, ipc.HelloFrame(config, board.FD(), []int{donations})); err != nil {
		t.Fatal(err)
	}
	w := ipc.NewDonationWriter()
	var clients []net.Conn
	var retained []fd.FD
	for i := range conns {
		client, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		clients = append(clients, client)
		if _, err := fmt.Fprintf(client, "first %d\n", i); err != nil {
			t.Fatal(err)
		}
		if err := sys.WaitReadable(l, testenv.Patience()); err != nil {
			t.Fatal(err)
		}
		n, peer, errno := sys.Accept4(l)
		if errno != 0 {
			t.Fatal(errno)
		}
		retained = append(retained, fd.New(n))
		closeLater(t, &retained[i])
		if err := sys.WaitReadable(n, testenv.Patience()); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		m, errno := sys.Read(n, b)
		if errno != 0 {
			t.Fatal(errno)
		}
		slot := uint32(i + 2)
		mustAdd(t, w, ipc.Donation{Slot: slot, Generation: 77, Table: 5, Peer: peer, Bytes: b[:m], FD: n})
		board.Conn(slot).Store(ipc.MakeWord(77, 1, ipc.Donated))
		board.Worker(1).AddDonated(1)
	}
	mustFlush(t, w, toDonations)
	for i, client := range clients {
		if _, err := fmt.Fprintf(client, "second %d\n", i); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(client) // ends although we retain a duplicate
		want := fmt.Sprintf("%s: first %d\n%s: second %d\n", client.LocalAddr(), i, client.LocalAddr(), i)
		if string(answer) != want || err != nil {
			t.Errorf("client %d got %q, %v, want %q", i, answer, err, want)
		}
	}
	r := ipc.NewFrameReader()
	r.Pid = c.Process.Pid
	var ended []ipc.SlotRef
	testenv.Until(t, "all connections are reported", func() bool {
		f, err := r.Read(toControl)
		if errors.Is(err, ipc.ErrAgain) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.EachEnded(func(slot, generation uint32) { ended = append(ended, ipc.SlotRef{Slot: slot, Generation: generation}) }); err != nil {
			t.Fatal(err)
		}
		return len(ended) == conns
	})
	if want := []ipc.SlotRef{{Slot: 2, Generation: 77}, {Slot: 3, Generation: 77}, {Slot: 4, Generation: 77}}; !reflect.DeepEqual(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
	for _, s := range ended {
		if w := board.Conn(s.Slot).Load(); w != ipc.MakeWord(77, 1, ipc.Ended) {
			t.Errorf("slot %d: %v", s.Slot, w)
		}
		if id := board.Conn(s.Slot).AppendRequestID(nil); string(id) != fmt.Sprint("request-of-", s.Slot) {
			t.Errorf("slot %d: request id %q", s.Slot, id)
		}
	}
	if slot := board.Worker(1); slot.Pending() != 0 || slot.Adopted() != conns {
		t.Errorf("pending %d, adopted %d", slot.Pending(), slot.Adopted())
	}
	if err := ipc.WriteFrame(toControl, ipc.StopFrame()); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out.Bytes())
	}
}

// childServe answers every line with the client's address in front of it, and
// ends a connection after two.
func childServe() error {
	const patience = time.Minute
	wait := func(n int) error { return sys.WaitReadable(n, patience) }
	if err := wait(3); err != nil {
		return err
	}
	frames := ipc.NewFrameReader()
	f, err := frames.Read(3)
	if err != nil {
		return err
	}
	hello, err := f.Hello()
	if err != nil {
		return err
	}
	if string(hello.Config) != `{"worker":1}` || len(hello.Donations) != 1 {
		return fmt.Errorf("hello %+v", hello)
	}
	board, err := ipc.MapBoard(hello.Board)
	if err != nil {
		return err
	}
	defer board.Close()
	r := ipc.NewDonationReader()
	var ended []ipc.SlotRef
	for len(ended) < 3 {
		if err := wait(hello.Donations[0].Borrow()); err != nil {
			return err
		}
		got, err := r.Read(hello.Donations[0].Borrow())
		if err != nil {
			return err
		}
		for _, d := range got {
			board.Worker(1).AddAdopted(1)
			if err := ipc.CheckConn(d.FD); err != nil {
				return err
			}
			s := board.Conn(d.Slot)
			if w := s.Load(); w != ipc.MakeWord(d.Generation, 1, ipc.Donated) {
				return fmt.Errorf("slot %d: %v", d.Slot, w)
			}
			line := string(d.Bytes)
			for range 2 {
				for !strings.HasSuffix(line, "\n") {
					s.Store(ipc.MakeWord(d.Generation, 1, ipc.Reading))
					if err := wait(d.FD); err != nil {
						return err
					}
					b := make([]byte, 100)
					n, errno := sys.Read(d.FD, b)
					if errno != 0 {
						return errno
					}
					line += string(b[:n])
				}
				s.SetRequest(fmt.Appendf(nil, "request-of-%d", d.Slot), false)
				s.Store(ipc.MakeWord(d.Generation, 1, ipc.Running))
				answer := d.Peer.Addr().String() + ": " + line
				s.Store(ipc.MakeWord(d.Generation, 1, ipc.Responding))
				if _, errno := sys.Write(d.FD, []byte(answer)); errno != 0 {
					return errno
				}
				line = ""
			}
			if err := sys.Shutdown(d.FD, syscall.SHUT_RDWR); err != nil {
				return err
			}
			s.Store(ipc.MakeWord(d.Generation, 1, ipc.Ended))
			sys.CloseRaw(d.FD)
			ended = append(ended, ipc.SlotRef{Slot: d.Slot, Generation: d.Generation})
		}
	}
	if err := ipc.WriteFrame(3, ipc.EndedFrame(ended)); err != nil {
		return err
	}
	if err := wait(3); err != nil {
		return err
	}
	if f, err = frames.Read(3); err != nil {
		return err
	}
	return f.Stop()
}
