package integration

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// numbered is a descriptor whose function says which number it has.
func numbered(n int) []byte {
	return fmt.Appendf(nil, `{"name":"numbered","runtime":"wasm","handler":"env","path":"/numbered","env":{"NUMBER":"%d"}}`, n)
}

// saysNumber wants the answer to be of the version with that number.
func saysNumber(t testing.TB, r testenv.Response, n int) {
	t.Helper()
	if r.Status != 200 || !strings.Contains(string(r.Body), fmt.Sprintf("NUMBER=%d\n", n)) {
		t.Errorf("a request after the answer to deploy %d: %d %s", n, r.Status, r.Body)
	}
}

// The answer to a deploy comes when the next request is served by it, on
// connections that are old and new, at whatever worker.
func TestNextRequestIsServedByTheDeploy(t *testing.T) {
	t.Parallel()
	module, err := os.ReadFile(probeModule(t))
	if err != nil {
		t.Fatal(err)
	}
	s := testenv.Start(t, testenv.Options{Workers: 3})
	var kept []*testenv.Conn
	for n := range 4 {
		deployed(t, s, numbered(n), "m.wasm", module)
		for _, c := range kept {
			c.Send(t, get("/numbered"))
			saysNumber(t, c.Response(t), n)
		}
		for range 6 {
			c := testenv.Dial(t, s.Addr)
			c.Send(t, get("/numbered"))
			saysNumber(t, c.Response(t), n)
			kept = append(kept, c)
		}
	}
}

// A worker that hangs is given up after 5 s and replaced: the deploy is
// confirmed. Were it waited for, the deploy would end after 30 s, unconfirmed: the
// heartbeat's own patience is ten minutes here.
func TestHungWorkerHoldsNoDeploy(t *testing.T) {
	t.Parallel()
	module, err := os.ReadFile(probeModule(t))
	if err != nil {
		t.Fatal(err)
	}
	s := testenv.Start(t, testenv.Options{Workers: 2, Args: []string{"--stall", "10m"}})
	deployed(t, s, numbered(1), "m.wasm", module)
	hung := s.Workers()[0]
	stop(t, hung)
	deployed(t, s, numbered(2), "m.wasm", module)
	if slices.Contains(s.Workers(), hung) {
		t.Error("the deploy is confirmed while a worker has not confirmed it")
	}
	for range 6 {
		c := testenv.Dial(t, s.Addr)
		c.Send(t, get("/numbered"))
		saysNumber(t, c.Response(t), 2)
	}
}

// BenchmarkSecondGoDeploy is the time of a deploy of a Go function whose source has
// changed, from the upload to the answer. The first one, which fills the build's cache, is not counted.
func BenchmarkSecondGoDeploy(b *testing.B) {
	s := testenv.Start(b, testenv.Options{})
	source := func(n int) []byte {
		return fmt.Appendf(nil, "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"version %d\") }\n", n)
	}
	descriptor := []byte(`{"name":"again","runtime":"go","path":"/again"}`)
	deployed(b, s, descriptor, "main.go", source(-1))
	n := 0
	for b.Loop() {
		deployed(b, s, descriptor, "main.go", source(n))
		n++
	}
}
