package reactor

import "testing"

func TestIsSignal(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"SIGSEGV", "SIGKILL", "SIGRTMIN+12"} {
		if !isSignal(name) {
			t.Errorf("%s is no signal", name)
		}
	}
	for _, text := range []string{"", "SEGV", "/secret/path", "SIGSEGV at 0x1", `SIG"`, "sigsegv", "SIGNIFICANTLYLONGER"} {
		if isSignal(text) {
			t.Errorf("%q is taken for a signal", text)
		}
	}
}
