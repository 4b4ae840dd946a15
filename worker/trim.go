package worker

import "time"

const (
	// trimPeriod is how often idle instances are looked at.
	trimPeriod = time.Second
	// trimIdle is how long an instance that nobody needs is kept. Too small: functions that are
	// called now and then wait for a new one, some hundred microseconds; too large: the
	// memory of a burst is kept for longer.
	trimIdle = time.Minute
)

// startTrim has trim called every trimPeriod until stop, which waits for the last call.
func startTrim(trim func(idle time.Duration)) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { // ended by stop, which waits
		defer close(ended)
		ticker := time.NewTicker(trimPeriod)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				trim(trimIdle)
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}
