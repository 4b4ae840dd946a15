package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// The server and its workers have a timer slack, from their first thread on; a
// function has the kernel's own.
func TestTimerSlack(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 2})
	slack := func(pid int) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", pid))
		if errors.Is(err, fs.ErrPermission) {
			t.Skip("to see another process's timer slack needs CAP_SYS_NICE")
		}
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(text))
	}
	for _, pid := range append(s.Workers(), s.Pid) {
		if ns := slack(pid); ns != "1000000" {
			t.Errorf("slack of process %d: %s ns, want 1 ms", pid, ns)
		}
	}
	deployed(t, s, descriptorOf(t, "slack", "native", nil), "run", []byte("#!/bin/sh\necho '{}'\n"))
	want(t, ask(t, s, "slack", "", ""), 200, `{}`)
	functions := 0
	for _, worker := range s.Workers() {
		for pids := testenv.Children(worker); len(pids) > 0; pids = pids[1:] {
			below := testenv.Children(pids[0])
			if pids = append(pids, below...); len(below) > 0 {
				continue // it watches over what it has started
			}
			if functions++; slack(pids[0]) != "50000" {
				t.Errorf("slack of a function's process: %s ns, want the kernel's own", slack(pids[0]))
			}
		}
	}
	if functions == 0 {
		t.Error("no process of the function was found")
	}
}
