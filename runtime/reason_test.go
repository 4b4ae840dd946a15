package runtime

import "testing"

func TestReasonNamesAndStatus(t *testing.T) {
	t.Parallel()
	want := []struct {
		r      Reason
		name   string
		status int
	}{
		{OK, "ok", 200},
		{Exit, "function_exit", 502},
		{Trap, "function_trap", 502},
		{Memory, "oom", 502},
		{Timeout, "function_timeout", 504},
		{Cancelled, "client_disconnect", 499},
		{OutputLimit, "output_limit", 502},
		{Unavailable, "capacity_exceeded", 503},
		{NotPrepared, "function_not_prepared", 503},
		{Internal, "internal_error", 500},
		{Signal, "function_signal", 502},
	}
	if len(want) != int(ReasonCount) {
		t.Fatalf("%d reasons listed, %d exist", len(want), ReasonCount)
	}
	seen := map[string]bool{}
	for _, w := range want {
		if w.r.String() != w.name || w.r.Status() != w.status {
			t.Errorf("reason %d: %s %d, want %s %d", w.r, w.r, w.r.Status(), w.name, w.status)
		}
		if seen[w.name] {
			t.Errorf("name %s used twice", w.name)
		}
		seen[w.name] = true
	}
}

func TestFunctionDefaults(t *testing.T) {
	t.Parallel()
	var f Function
	if f.Memory() != 128<<20 || f.Limit() != TimeoutDefault {
		t.Errorf("zero function: memory %d, limit %v", f.Memory(), f.Limit())
	}
	f = Function{MemoryMB: 1, Timeout: 7}
	if f.Memory() != 1<<20 || f.Limit() != 7 {
		t.Errorf("set function: memory %d, limit %v", f.Memory(), f.Limit())
	}
}
