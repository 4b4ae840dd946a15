package wasm

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"baton/runtime"
)

// Every invocation starts from the same memory and globals, whatever the one
// before did: secrets are planted wherever a function can write.
func TestNextInvocationSeesNoSecret(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		f    runtime.Function
		ends map[string]runtime.Reason
	}{
		{"C", runtime.Function{Module: buildC(t, "hoard")}, map[string]runtime.Reason{
			"return": runtime.OK, "exit0": runtime.OK, "exit": runtime.Memory, "trap": runtime.Memory,
			"spin": runtime.Timeout, "deep": runtime.Memory, "wipe": runtime.Memory,
		}},
		{"Go by baton", runtime.Function{Module: buildGo(t, "testdata/gohoard", true)}, map[string]runtime.Reason{
			"return": runtime.OK, "exit": runtime.Exit, "panic": runtime.Trap, "spin": runtime.Timeout,
		}},
		{"Go command", runtime.Function{Module: buildGo(t, "testdata/gohoard", false)}, map[string]runtime.Reason{
			"return": runtime.OK, "exit": runtime.Exit, "panic": runtime.Exit, "spin": runtime.Timeout,
		}},
		{"frozen Go command", runtime.Function{Module: buildGo(t, "testdata/gohoard", false), Freeze: true}, map[string]runtime.Reason{
			"return": runtime.OK, "exit": runtime.Exit, "panic": runtime.Exit, "spin": runtime.Timeout,
		}},
		{"Rust", runtime.Function{}, map[string]runtime.Reason{
			"return": runtime.OK, "exit": runtime.Exit, "panic": runtime.Trap, "spin": runtime.Timeout,
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.name == "Rust" {
				c.f.Module = buildRust(t, "hoard") // skips without the compiler
			}
			c.f.Name, c.f.MemoryMB, c.f.Timeout = "hoard", 16, time.Minute
			l := load(t, executor(t), &c.f)
			for end, want := range c.ends {
				for range 2 {
					var out bytes.Buffer
					inv := &runtime.Invocation{Body: []byte(end), Stdout: &out}
					if want == runtime.Timeout {
						inv.Deadline = time.Now().Add(300 * time.Millisecond)
					}
					res := l.Invoke(inv)
					if res.Reason != want || end != "spin" && !strings.HasPrefix(out.String(), "planted") {
						t.Errorf("%s: %s %+v %.40q, want %s", end, res.Reason, res, out.String(), want)
					}
					if out, res := call(l, "scan"); res.Reason != runtime.OK || !strings.HasPrefix(out, "clean") {
						t.Errorf("after %s: %+v %q", end, res, out)
					}
				}
			}
		})
	}
}
