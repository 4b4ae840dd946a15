package sys_test

import (
	goruntime "runtime"
	"testing"
	"time"

	"baton/internal/sys"
)

// The slack is the thread's, which ends with the test.
func TestTimerSlack(t *testing.T) {
	t.Parallel()
	goruntime.LockOSThread() // never unlocked
	for _, want := range []time.Duration{time.Millisecond, sys.TimerSlackDefault} {
		if err := sys.SetTimerSlack(want); err != nil {
			t.Fatal(err)
		}
		if have, err := sys.TimerSlack(); err != nil || have != want {
			t.Errorf("slack %v, %v; want %v", have, err, want)
		}
	}
}
