package gateway

import (
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"baton/internal/sys"
	"baton/ipc"
)

// collector takes the workers' metrics into their slots of the board. run is
// its goroutine.
type collector struct {
	metrics *ipc.MetricsCollector
	board   *ipc.Board
	log     *slog.Logger
	ready   *os.File // a duplicate of the socket, for waiting until it is readable
	closing atomic.Bool
}

// openCollector binds the socket at path. pidOf is the process of a worker, 0
// when there is none: only from there its metrics are taken.
func openCollector(path string, board *ipc.Board, pidOf func(worker int) int, log *slog.Logger) (*collector, error) {
	c := &collector{board: board, log: log}
	metrics, err := ipc.ListenMetrics(path, ipc.MetricsOptions{Registered: pidOf, Sink: c.take})
	if err != nil {
		return nil, fmt.Errorf("open the metrics socket: %w", err)
	}
	n, err := sys.Dup(metrics.Borrow())
	if err != nil {
		_ = metrics.Close()
		return nil, fmt.Errorf("open the metrics socket: %w", err)
	}
	c.metrics, c.ready = metrics, os.NewFile(uintptr(n), path)
	return c, nil
}

// take stores a sample that was proven to be the worker's. Its time is that of
// its arrival, on the clock of the loops: what a worker's own says is not needed
// and could be anything.
func (c *collector) take(m ipc.Metrics) {
	if m.Worker >= c.board.Workers() {
		return
	}
	c.board.Worker(m.Worker).SetSample(ipc.WorkerSample{
		Score: m.Score, CPU: m.CPU, Memory: m.Memory, IO: m.IO,
		Millis: sys.ClockMonotonic() / int64(time.Millisecond), Status: m.Status,
	})
}

// run receives until close. What one Receive leaves is taken with what comes
// next: every worker sends twice a second.
func (c *collector) run() {
	raw, err := c.ready.SyscallConn()
	if err != nil {
		return // closed before it began
	}
	var failed error
	err = raw.Read(func(uintptr) bool {
		_, err := c.metrics.Receive()
		if err != nil && err != failed {
			c.log.Warn("receive metrics", "err", err)
			failed = err
		}
		return false // wait for more
	})
	if err != nil && !c.closing.Load() {
		c.log.Error("no more metrics are received", "err", err)
	}
}

// close ends run and then the socket, whose name goes with the run directory.
// wait returns when run has ended.
func (c *collector) close(wait func()) error {
	c.closing.Store(true)
	err := c.ready.Close()
	wait()
	if e := c.metrics.Close(); err == nil {
		err = e
	}
	return err
}
