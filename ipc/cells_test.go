package ipc_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
)

func TestEnterIsExact(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 3, Cells: 4})
	const max = 5
	// One after the other, there is no contention: exactly max get in, whoever
	// asks.
	for i := range max {
		if !b.Enter(i%4, 2, max) {
			t.Fatalf("request %d of %d was refused", i, max)
		}
	}
	for process := range 4 {
		if b.Enter(process, 2, max) {
			t.Errorf("process %d got in as number %d", process, max+1)
		}
	}
	if n := b.Inflight(2); n != max {
		t.Errorf("%d in flight, want %d", n, max)
	}
	if b.Inflight(1) != 0 || b.Inflight(3) != 0 {
		t.Error("another function is counted too")
	}
	b.Leave(1, 2)
	if b.Enter(0, 2, max-1) {
		t.Error("let in above a limit that was lowered")
	}
	if !b.Enter(3, 2, max) {
		t.Error("refused although one has left")
	}
	for range 100 {
		if !b.Enter(0, 2, 0) {
			t.Fatal("refused without a limit")
		}
	}
	if n := b.Inflight(2); n != max+100 {
		t.Errorf("%d in flight, want %d", n, max+100)
	}
}

func TestLeaveWithoutEnterChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 1, Cells: 1})
	b.Leave(0, 0)
	if n := b.Inflight(0); n != 0 {
		t.Errorf("%d in flight", n)
	}
	if !b.Enter(0, 0, 1) || b.Enter(1, 0, 1) {
		t.Error("the limit is no longer exact")
	}
}

// TestEnterHammer: several mappings of one board, several goroutines each; at no
// moment are more in than max, and nobody is refused while others cannot fill
// it.
func TestEnterHammer(t *testing.T) {
	t.Parallel()
	const processes, each, rounds = 4, 3, 1500
	for _, max := range []int32{1, 2, 5, processes * each} {
		t.Run(fmt.Sprint("max ", max), func(t *testing.T) {
			t.Parallel()
			first := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: processes - 1, Cells: 2})
			var in, admitted, refused atomic.Int64
			begin := make(chan struct{})
			var wg sync.WaitGroup
			for process := range processes {
				b := first
				if process > 0 {
					b = mapAgain(t, first)
				}
				for range each {
					wg.Go(func() {
						<-begin
						for range rounds {
							if !b.Enter(process, 1, max) {
								refused.Add(1)
								continue
							}
							if n := in.Add(1); n > int64(max) {
								t.Errorf("%d in, at most %d", n, max)
							}
							admitted.Add(1)
							goruntime.Gosched() // the others ask meanwhile
							in.Add(-1)
							b.Leave(process, 1)
						}
					})
				}
			}
			close(begin)
			wg.Wait()
			t.Logf("%d admitted, %d refused", admitted.Load(), refused.Load())
			if n := first.Inflight(1); n != 0 {
				t.Errorf("%d in flight at the end", n)
			}
			if !first.Enter(0, 1, max) {
				t.Error("refused at the end: somebody asks for ever")
			}
			if max == processes*each && refused.Load() > 0 {
				t.Errorf("%d were refused although there was always room", refused.Load())
			}
			if admitted.Load() == 0 {
				t.Error("nobody got in")
			}
		})
	}
}

// Cells of the tests with real processes: the limited one, and one whose counts
// the processes use to count themselves.
const (
	cellLimited = 7
	cellWitness = 9
)

// TestEnterAcrossProcesses: the same with processes of the system, of which one
// is killed while it may be anywhere.
func TestEnterAcrossProcesses(t *testing.T) {
	t.Parallel()
	const workers = 3
	b := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: workers + 1, Cells: 1000})
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for i := range workers {
		c := again(t, "enter-leave", b.FD())
		c.Env = append(c.Env, fmt.Sprint("WORKER=", i))
		out := new(bytes.Buffer)
		c.Stdout, c.Stderr = out, out
		cmds, outs = append(cmds, c), append(outs, out)
	}
	// One more, which is killed while it holds its place.
	held := again(t, "hold", b.FD())
	held.Env = append(held.Env, fmt.Sprint("WORKER=", workers))
	stdout, err := held.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(cmds, held) {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "in\n" || err != nil {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	if b.Inflight(cellLimited+1) != 2 || b.Enter(b.GatewayProcess(), cellLimited+1, 2) {
		t.Errorf("%d in flight, want 2 and nobody else", b.Inflight(cellLimited+1))
	}
	if err := held.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = held.Wait()
	if err := b.DropProcess(workers); err != nil {
		t.Error(err)
	}
	if b.Inflight(cellLimited+1) != 0 || !b.Enter(b.GatewayProcess(), cellLimited+1, 2) {
		t.Errorf("%d in flight after its holder died, want none", b.Inflight(cellLimited+1))
	}
	if requests, errors := b.Totals(cellLimited + 1); requests != 5 || errors != 3 {
		t.Errorf("totals %d, %d after the death, want 5 and 3", requests, errors)
	}
	for i, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Errorf("worker %d: %v\n%s", i, err, outs[i])
		} else {
			t.Logf("worker %d: %s", i, outs[i])
		}
	}
	if n := b.Inflight(cellLimited); n != 0 {
		t.Errorf("%d in flight at the end", n)
	}
	if entered, left := b.Totals(cellWitness); entered != left || entered == 0 {
		t.Errorf("%d entered, %d left", entered, left)
	}
}

const acrossMax = 2 // of 3 processes

// childEnterLeave enters and leaves, with a witness that does not depend on
// Enter: each process counts its entries (as requests of another cell) after it
// got in, and its exits (as errors) before it leaves.
func childEnterLeave() error {
	b, worker, err := childBoard()
	if err != nil {
		return err
	}
	defer b.Close()
	witness := b.Cell(worker, cellWitness)
	admitted, refused := 0, 0
	for range 20000 {
		if !b.Enter(worker, cellLimited, acrossMax) {
			refused++
			continue
		}
		admitted++
		witness.AddRequests(1)
		// Entries first: whoever entered later is not counted, whoever left since
		// is counted as out, so this is at most what were in at the first look.
		entered, _ := b.Totals(cellWitness)
		_, left := b.Totals(cellWitness)
		if in := int64(entered) - int64(left); in > acrossMax {
			return fmt.Errorf("%d in, at most %d", in, acrossMax)
		}
		_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) // the others ask meanwhile
		witness.AddErrors(1)
		b.Leave(worker, cellLimited)
	}
	fmt.Printf("%d admitted, %d refused", admitted, refused)
	return nil
}

func childHold() error {
	b, worker, err := childBoard()
	if err != nil {
		return err
	}
	b.Cell(worker, cellLimited+1).AddRequests(5)
	b.Cell(worker, cellLimited+1).AddErrors(3)
	for range 2 {
		if !b.Enter(worker, cellLimited+1, 2) {
			return errors.New("not let in")
		}
	}
	fmt.Println("in")
	select {}
}

func childBoard() (*ipc.Board, int, error) {
	var worker int
	if _, err := fmt.Sscan(os.Getenv("WORKER"), &worker); err != nil {
		return nil, 0, err
	}
	b, err := ipc.MapBoard(fd.New(3))
	return b, worker, err
}

// TestDropProcess: what was in flight is forgotten, what was counted is kept,
// and the memory goes back.
func TestDropProcess(t *testing.T) {
	t.Parallel()
	const cells = 5000 // several pages
	b := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 2, Cells: cells})
	pages := func() (n int) {
		for at := int64(0); ; {
			from, to, ok, err := sys.NextData(b.FD(), at)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return n
			}
			n += int(to-from) / os.Getpagesize()
			at = to
		}
	}
	empty := pages()
	for _, cell := range []uint32{0, 127, 128, 4000, cells - 1} {
		for process := range 3 {
			b.Enter(process, cell, 0)
			b.Cell(process, cell).AddRequests(10 + process)
			b.Cell(process, cell).AddErrors(1)
			b.Cell(process, cell).SetCalled(int64(100 - 10*(process-1)*(process-1))) // 90, 100, 90
		}
	}
	full := pages()
	if err := b.DropProcess(1); err != nil {
		t.Fatal(err)
	}
	if left := pages(); left != full-4 || left <= empty {
		t.Errorf("%d pages after the drop, %d before it, %d at first, want 4 given back", left, full, empty)
	}
	for _, cell := range []uint32{0, 127, 128, 4000, cells - 1} {
		if n := b.Inflight(cell); n != 2 {
			t.Errorf("cell %d: %d in flight, want 2", cell, n)
		}
		if requests, errors := b.Totals(cell); requests != 33 || errors != 3 {
			t.Errorf("cell %d: totals %d, %d, want 33, 3", cell, requests, errors)
		}
		if called := b.Called(cell); called != 100 {
			t.Errorf("cell %d: called at %d, want 100", cell, called)
		}
	}
	if called := b.Called(1); called != 0 {
		t.Errorf("a cell that was never called: at %d", called)
	}
	if err := errors.Join(b.DropProcess(1), b.DropProcess(1)); err != nil {
		t.Fatal(err)
	}
	if left := pages(); left != full-4 {
		t.Errorf("dropping nothing leaves %d pages, want %d", left, full-4)
	}
	// The number can be used again at once.
	if first, second := b.Enter(1, 127, 3), b.Enter(1, 127, 3); !first || second {
		t.Errorf("the next process gets in: %v and %v, want one", first, second)
	}
}

func TestTwoProcessesMeetAtTheLastPlace(t *testing.T) {
	t.Parallel()
	// Both ask at the same moment for the one place, again and again: somebody
	// gets in nearly always. This is what asking again is for.
	first := newBoard(t, ipc.BoardOptions{Conns: 1, Workers: 1, Cells: 1})
	second := mapAgain(t, first)
	const rounds = 1000
	var got [2]atomic.Bool
	var arrived atomic.Int64
	nobody := 0
	meet := func(n int64) {
		arrived.Add(1)
		for arrived.Load() < n {
			goruntime.Gosched()
		}
	}
	var wg sync.WaitGroup
	for side, b := range []*ipc.Board{first, second} {
		wg.Go(func() {
			for round := range int64(rounds) {
				meet(round*6 + 2)
				in := b.Enter(side, 0, 1)
				got[side].Store(in)
				meet(round*6 + 4)
				if side == 0 {
					switch a, b := got[0].Load(), got[1].Load(); {
					case a && b:
						t.Error("both got in")
					case !a && !b:
						nobody++
					}
				}
				meet(round*6 + 6)
				if in {
					b.Leave(side, 0)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("nobody got in %d times of %d", nobody, rounds)
	if nobody > rounds/10 {
		t.Errorf("nobody got in %d times of %d", nobody, rounds)
	}
}
