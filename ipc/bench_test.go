package ipc_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"baton/internal/sys"
	"baton/ipc"
)

// roundTrip sends count connections in messages of batch, receives and closes
// them.
func roundTrip(b *testing.B, from, to int, w *ipc.DonationWriter, r *ipc.DonationReader, donations []ipc.Donation, batch int) {
	for i := 0; i < len(donations); i += batch {
		for j := range batch {
			if !w.Add(donations[i+j]) {
				b.Fatal("no room")
			}
		}
		if _, err := w.Flush(from); err != nil {
			b.Fatal(err)
		}
		got, err := r.Read(to)
		if err != nil {
			b.Fatal(err)
		}
		for j := range got {
			sys.CloseRaw(got[j].FD)
		}
	}
}

// BenchmarkDonate: 16 connections with 200 bytes each, sent, received and
// closed. The batch of 16 and 16 single messages take turns within one
// iteration, so that both see the same machine; times-cheaper is their ratio.
func BenchmarkDonate(b *testing.B) {
	from, to := channel(b)
	fds, _ := files(b, ipc.DonationConnsMax)
	w, r := ipc.NewDonationWriter(), ipc.NewDonationReader()
	donations := make([]ipc.Donation, len(fds))
	for i, n := range fds {
		donations[i] = donation(i, n)
		donations[i].Bytes = make([]byte, 200)
	}
	var together, single time.Duration
	for b.Loop() {
		begin := time.Now()
		roundTrip(b, from, to, w, r, donations, len(donations))
		middle := time.Now()
		roundTrip(b, from, to, w, r, donations, 1)
		together += middle.Sub(begin)
		single += time.Since(middle)
	}
	b.ReportMetric(float64(together.Nanoseconds())/float64(b.N), "ns/16-together")
	b.ReportMetric(float64(single.Nanoseconds())/float64(b.N), "ns/16-single")
	b.ReportMetric(float64(single)/float64(together), "times-cheaper")
}

// BenchmarkDonateOne is what one donation costs, by the bytes it takes along.
func BenchmarkDonateOne(b *testing.B) {
	for _, size := range []int{0, 200, 16 << 10, 48 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			from, to := channel(b)
			fds, _ := files(b, 1)
			w, r := ipc.NewDonationWriter(), ipc.NewDonationReader()
			donations := []ipc.Donation{donation(0, fds[0])}
			donations[0].Bytes = make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				roundTrip(b, from, to, w, r, donations, 1)
			}
		})
	}
}

// BenchmarkEnded reports 16 ended connections.
func BenchmarkEnded(b *testing.B) {
	from, to := channel(b)
	r := ipc.NewFrameReader()
	refs := make([]ipc.SlotRef, 16)
	n := 0
	for b.Loop() {
		if err := ipc.WriteFrame(from, ipc.EndedFrame(refs)); err != nil {
			b.Fatal(err)
		}
		f, err := r.Read(to)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.EachEnded(func(uint32, uint32) { n++ }); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// BenchmarkEnter is admission and its end, by the number of processes whose
// cells are summed, without and with contention.
func BenchmarkEnter(b *testing.B) {
	for _, workers := range []uint32{2, 16, 64} {
		b.Run(fmt.Sprint(workers, "-workers"), func(b *testing.B) {
			board := newBoard(b, ipc.BoardOptions{Conns: 1, Workers: workers, Cells: 100})
			for b.Loop() {
				if board.Enter(1, 50, 10) {
					board.Leave(1, 50)
				}
			}
		})
	}
	b.Run("2-workers-contended", func(b *testing.B) {
		board := newBoard(b, ipc.BoardOptions{Conns: 1, Workers: 2, Cells: 100})
		var process atomic.Int32
		var refused atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			own := int(process.Add(1)) % 3
			for pb.Next() {
				if board.Enter(own, 50, 1) {
					board.Leave(own, 50)
				} else {
					refused.Add(1)
				}
			}
		})
		b.ReportMetric(float64(refused.Load())/float64(b.N), "refused/op")
	})
}

// BenchmarkStates are the stores of one request: reading, running with its id,
// responding, idle.
func BenchmarkStates(b *testing.B) {
	board := newBoard(b, ipc.BoardOptions{Conns: 10, Workers: 1, Cells: 1})
	id := []byte("0123456789abcdef0123456789abcdef")
	for b.Loop() {
		s := board.Conn(3)
		s.Store(ipc.MakeWord(1, 0, ipc.Reading))
		s.SetRequest(id, false)
		s.Store(ipc.MakeWord(1, 0, ipc.Running))
		s.Store(ipc.MakeWord(1, 0, ipc.Responding))
		s.Store(ipc.MakeWord(1, 0, ipc.Idle))
	}
}
