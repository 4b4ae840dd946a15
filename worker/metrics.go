package worker

import (
	"log/slog"
	"os"
	"time"

	"baton/internal/procstat"
	"baton/ipc"
	"baton/sched"
)

// periodDefault is how often a worker measures itself: the predecessor's.
const periodDefault = 500 * time.Millisecond

// startMetrics measures this process and its children and sends the result to
// the collector, fire and forget, until the returned function is called, which
// waits for the end of it.
func startMetrics(cfg Config, self *ipc.WorkerSlot, log *slog.Logger) (stop func()) {
	period := cfg.Period
	if period <= 0 {
		period = periodDefault
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		sender, err := ipc.DialMetrics(cfg.Metrics)
		if err != nil {
			log.Error("no metrics will be sent", "err", err)
			return
		}
		defer func() { _ = sender.Close() }()
		sampler, err := procstat.NewSampler(os.Getpid(), time.Now())
		if err != nil {
			log.Error("no metrics will be sent", "err", err)
			return
		}
		meter := sched.NewMeter()
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case now := <-ticker.C:
				usage, err := sampler.Sample(now)
				if err != nil {
					log.Debug("sample", "err", err)
					continue
				}
				smooth, score, status := meter.Add(sched.Sample{
					CPUPercent: usage.CPUPercent, MemoryBytes: float64(usage.MemoryBytes), IOKBPerSecond: usage.IOKBPerSecond,
				})
				sender.Send(ipc.Metrics{
					PID: os.Getpid(), Worker: cfg.Worker, CPU: smooth.CPU, Memory: smooth.Memory, IO: smooth.IO, Score: score,
					Requests: self.Requests(), Errors: self.Errors(), UnixMillis: now.UnixMilli(),
					Status: ipc.MetricsStatus(status), // the same words in the same order
				})
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
