//go:build !race

package wasm

import (
	"testing"

	"baton/runtime"
)

// Allocations of one invocation in the steady state. The count is of objects
// on the Go heap, whatever their size.
func TestAllocsOfAnInvocation(t *testing.T) {
	cases := []struct {
		name string
		f    runtime.Function
		body string
		most float64
	}{
		{"C, returns", runtime.Function{Name: "hello", Module: buildC(t, "hello")}, "body", 0},
		{"C, reads environment and clock", runtime.Function{Name: "fresh", Module: buildC(t, "fresh")}, "", 0},
		{"C, proc_exit", runtime.Function{Name: "exits", Module: buildC(t, "exits")}, "", 8},
		{"Go by baton", runtime.Function{Name: "hello", Module: buildGo(t, "testdata/gohello", true)}, "body", 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := load(t, executor(t), &c.f)
			inv := &runtime.Invocation{Body: []byte(c.body), Env: requestEnv(), Stdout: discard{}}
			got := testing.AllocsPerRun(200, func() { l.Invoke(inv) })
			if got > c.most {
				t.Errorf("%v allocations, at most %v", got, c.most)
			}
			t.Logf("%v allocations", got)
		})
	}
}
