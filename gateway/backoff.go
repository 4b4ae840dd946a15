package gateway

import "time"

const (
	// backoffFirst is the pause after the second failure in a row: longer than
	// a start takes, short beside what a user notices. After the first there is
	// none, for a worker that ran well and died is best replaced at once.
	backoffFirst = 100 * time.Millisecond

	// backoffMax is where doubling ends.
	backoffMax = 10 * time.Second

	// backoffGiveUp is the number of failures in a row after which the worker
	// is called broken: it is tried every backoffSlow only, and the log says
	// so. Six, as in FrankenPHP.
	backoffGiveUp = 6

	// backoffSlow is that period.
	backoffSlow = 30 * time.Second

	// backoffHealthy is how long a worker must be ready for its past to be
	// forgotten.
	backoffHealthy = time.Minute
)

// backoff decides when a lost worker is started again. The zero value has seen
// no failure.
type backoff struct{ failures int }

// failed counts a failure after the worker had been ready for up (0: never)
// and returns the pause before the next start.
func (b *backoff) failed(up time.Duration) time.Duration {
	if up >= backoffHealthy {
		b.failures = 0
	}
	b.failures++
	switch {
	case b.failures == 1:
		return 0
	case b.failures > backoffGiveUp:
		return backoffSlow
	}
	return min(backoffFirst<<(b.failures-2), backoffMax)
}

// broken says that the worker has failed too often in a row.
func (b *backoff) broken() bool { return b.failures > backoffGiveUp }
