package php

import (
	"bytes"
	"os"
	"strconv"
)

// sampleEvery is after how many requests of a process it is looked at whether
// they wait.
const sampleEvery = 64

// switches is how often a process has given the processor away because it had
// to wait, since it started.
//
// Source: proc(5), /proc/PID/status.
func switches(pid int) (int, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(text, []byte("\nvoluntary_ctxt_switches:"))
	if !ok {
		return 0, false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	return n, err == nil
}

// waits tells whether the requests between two looks have waited for something
// else than the next one, for which a process waits at most once each.
func waits(before, after, requests int) bool { return 2*(after-before) > 3*requests }

// look looks at a process after a request, now and then. known: what it tells of the last requests is news.
func (s *server) look(pid, requests int) (waiting, known bool) {
	if requests%sampleEvery != 0 {
		return false, false
	}
	n, ok := switches(pid)
	before := s.switches
	s.switches = n
	return waits(before, n, sampleEvery), ok && before > 0
}
