package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"baton/internal/sys"
	"baton/ipc"
	"baton/route"
)

// fakeWorkerName is the first argument that makes this binary a worker.
const fakeWorkerName = "fake-worker"

// fakeWorker is a worker process that speaks ipc and serves nobody. Its
// arguments say how it misbehaves:
//
//	once=FILE   misbehave only when FILE is not there yet, which is made
//	exit        end at once
//	silent      never become ready
//	deaf        confirm nothing after having become ready
//	stubborn    do not end when told to
//	liar        confirm a table that was never sent
//	babble      send what is no frame
func fakeWorker(args []string) {
	is := map[string]bool{}
	for _, a := range args {
		if file, ok := strings.CutPrefix(a, "once="); ok {
			f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				clear(is)
				break
			}
			_ = f.Close()
			continue
		}
		is[a] = true
	}
	if is["exit"] {
		os.Exit(3)
	}
	if err := serveNobody(is); err != nil {
		fmt.Fprintln(os.Stderr, "fake worker:", err)
		os.Exit(1)
	}
}

func serveNobody(is map[string]bool) error {
	reader := ipc.NewFrameReader()
	if _, err := sys.Poll(controlFD, sys.PollIn, time.Minute); err != nil {
		return err
	}
	frame, err := reader.Read(controlFD)
	if err != nil {
		return err
	}
	hello, err := frame.Hello()
	if err != nil {
		return err
	}
	var cfg workerConfig
	if err := json.Unmarshal(hello.Config, &cfg); err != nil {
		return err
	}
	board, err := ipc.MapBoard(hello.Board)
	if err != nil {
		return err
	}
	self := board.Worker(cfg.Worker)
	table, _ := route.Build(0, nil)
	ready := false
	for {
		self.SetHeartbeat(sys.ClockMonotonic() / int64(time.Millisecond))
		if _, err := sys.Poll(controlFD, sys.PollIn, 5*time.Millisecond); err != nil {
			return err
		}
		frame, err := reader.Read(controlFD)
		switch {
		case errors.Is(err, ipc.ErrAgain):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		switch frame.Kind {
		case ipc.KindTableDelta:
			m, err := frame.TableDelta()
			if err != nil {
				return err
			}
			changes, err := route.ParseChanges(m.Payload)
			if err != nil {
				return err
			}
			if m.From != table.Generation() {
				return fmt.Errorf("changes of table %d, and this is %d", m.From, table.Generation())
			}
			// The slot says which table this is, for tests: errors count up to it.
			self.AddErrors(int(m.To - table.Generation()))
			table, _ = table.Apply(m.To, changes)
			if is["babble"] {
				_, _ = syscall.Write(controlFD, []byte("hello"))
				continue
			}
			answer := ipc.AppliedFrame(ipc.Applied{Generation: m.To})
			switch {
			case is["silent"] || is["deaf"] && ready:
				continue
			case is["liar"]:
				answer = ipc.AppliedFrame(ipc.Applied{Generation: m.To + 1})
			case !ready:
				answer = ipc.ReadyFrame(m.To)
				ready = true
			}
			if err := ipc.WriteFrame(controlFD, answer); err != nil {
				return err
			}
		case ipc.KindDrain, ipc.KindStop:
			if !is["stubborn"] {
				return nil
			}
		default:
			return fmt.Errorf("frame of kind %v", frame.Kind)
		}
		frame.Close()
	}
}
