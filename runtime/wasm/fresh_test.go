package wasm

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/runtime"
)

// Each invocation sees its own environment and arguments, real clocks, and
// different random numbers from the system and from the language's generator. With freeze, what
// the program read before its first read of stdin stays what it was.
func TestInvocationsAreFresh(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		f      runtime.Function
		frozen bool // environment and the language's generator
	}{
		{"C", runtime.Function{Module: buildC(t, "fresh")}, false},
		{"Go by baton", runtime.Function{Module: buildGo(t, "testdata/gofresh", true)}, false},
		{"Go command", runtime.Function{Module: buildGo(t, "testdata/gofresh", false)}, false},
		{"frozen Go command", runtime.Function{Module: buildGo(t, "testdata/gofresh", false), Freeze: true}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.f.Name, c.f.Handler = "fresh", "handler"
			l := load(t, executor(t), &c.f)
			seen := map[string]string{}
			wall, mono := time.Now().UnixNano(), int64(-1)
			for i := range 100 {
				who := fmt.Sprint("user", i)
				out, res := call(l, "", "WHO="+who)
				lines := strings.Split(out, "\n")
				if res.Reason != runtime.OK || len(lines) < 5 {
					t.Fatalf("%+v %q", res, out)
				}
				want := "handler " + who
				if c.frozen {
					want = "handler user0"
				}
				if lines[0] != want {
					t.Errorf("call %d: %q, want %q", i, lines[0], want)
				}
				for n, line := range append([]string{lines[1]}, lines[4:len(lines)-1]...) {
					if n > 0 && c.frozen {
						continue
					}
					if before, ok := seen[line]; ok {
						t.Errorf("call %d drew number %s of %s", i, line, before)
					}
					seen[line] = who
				}
				for n, last := range []*int64{&wall, &mono} {
					now, err := strconv.ParseInt(lines[2+n], 10, 64)
					if c.name == "Go command" && n == 1 {
						*last = 0 // the time since its own start
					}
					if err != nil || now <= *last || n == 0 && now > time.Now().UnixNano() {
						t.Errorf("call %d: clock %d went from %d to %q", i, n, *last, lines[2+n])
					}
					*last = now
				}
			}
		})
	}
}
