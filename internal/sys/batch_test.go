package sys_test

import (
	goruntime "runtime"
	"testing"

	"golang.org/x/sys/unix"

	"baton/internal/sys"
)

// The policy is the thread's, which ends with the test; its nice value stays.
func TestSetBatch(t *testing.T) {
	t.Parallel()
	goruntime.LockOSThread() // never unlocked
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 3); err != nil {
		t.Fatal(err)
	}
	for on, want := range map[bool]uint32{true: unix.SCHED_BATCH, false: unix.SCHED_NORMAL} {
		if err := sys.SetBatch(on); err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil || attr.Policy != want || attr.Nice != 3 {
			t.Errorf("after SetBatch(%v): %+v, %v; want policy %d and nice 3", on, attr, err, want)
		}
	}
}
