package main

import (
	"fmt"
	"os"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"baton/internal/sys"
)

// timerSlack is that of the server and its workers. Go's monitor thread sleeps
// for 20 µs at a time while a process has work, in each of them; with this it sleeps
// for 1 ms. Shorter, and it takes more of the processor than short requests do; longer, and
// a goroutine whose thread is blocked in the kernel waits for as long. See RATIONALE.md,
// "Why does the server execute itself when it starts?".
const timerSlack = time.Millisecond

// slackVariable says that this process has executed itself already.
const slackVariable = "BATON_EXECUTED"

// executeWithSlack makes this process execute itself once more with the timer
// slack: the monitor thread is there before main, and only its parent can set it
// without rights. It returns in the process that has it, or on an error, after which the
// server works as well, but for more of the processor.
func executeWithSlack() error {
	if os.Getenv(slackVariable) != "" {
		return os.Unsetenv(slackVariable)
	}
	goruntime.LockOSThread() // the slack is the thread's
	defer goruntime.UnlockOSThread()
	if have, err := sys.TimerSlack(); err != nil || have >= timerSlack {
		return err
	}
	path, err := os.Executable()
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		path = "/proc/self/exe"
	}
	if err := sys.SetTimerSlack(timerSlack); err != nil {
		return err
	}
	err = syscall.Exec(path, os.Args, append(os.Environ(), slackVariable+"=1"))
	return fmt.Errorf("execute %s: %w", path, err)
}
