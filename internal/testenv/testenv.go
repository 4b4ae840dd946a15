// Package testenv is what integration tests stand on: the real binary, built
// once; a server started from it on a free port with data of its own; raw HTTP
// over one connection; waiting for a condition; and the comparison of
// descriptors, goroutines and children before and after a package's tests.
//
// Goroutines: one for the life of the test process, locked to its thread, that
// starts servers (see starter), and one per server, which waits for its end and
// is itself awaited by Stop.
package testenv

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// packages names the Debian package of a command, where the names differ.
var packages = map[string]string{
	"php":     "php-cli",
	"php-cgi": "php-cgi",
}

// InCI tells whether this is the continuous integration's run, where a skip
// must be listed in scripts/skips.
func InCI() bool { return os.Getenv("CI") == "true" }

// Need skips the test, by name, when a command is not installed.
func Need(t testing.TB, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if !installed(command) {
			name := packages[command]
			if name == "" {
				name = command
			}
			t.Skipf("needs %s (apt-get install %s)", command, name)
		}
	}
}

// installed looks in PATH and where Debian keeps servers.
func installed(command string) bool {
	for _, name := range []string{command, "/usr/sbin/" + command} {
		if _, err := exec.LookPath(name); err == nil {
			return true
		}
	}
	return false
}

// NeedFeature skips the test, by name, when this machine or its kernel lacks a
// feature; detail says how it was found out.
func NeedFeature(t testing.TB, feature string, there bool, detail error) {
	t.Helper()
	if !there {
		t.Skipf("needs %s (%v)", feature, detail)
	}
}

// Patience is how long a condition that must come true may take. It is a bound
// for broken code, not an expectation: two busy cores that build and test
// other packages as well have taken 20 s to start a server, and under the race
// detector everything is several times slower. Nothing may wait for it to pass.
func Patience() time.Duration {
	if raceEnabled {
		return 120 * time.Second
	}
	return 60 * time.Second
}

// Until waits until condition holds and fails the test when it does not within
// Patience. what completes the sentence "still waiting until …".
func Until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	UntilWithin(t, Patience(), what, condition)
}

// UntilWithin is Until with a bound of its own.
func UntilWithin(t testing.TB, bound time.Duration, what string, condition func() bool) {
	t.Helper()
	if !poll(bound, condition) {
		t.Fatalf("after %v still waiting until %s", bound, what)
	}
}

// poll asks condition every 2 ms until it holds, at least once and a last time
// when the bound is over.
func poll(bound time.Duration, condition func() bool) bool {
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			return condition()
		}
	}
	return true
}
