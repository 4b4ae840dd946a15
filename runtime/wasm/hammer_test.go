package wasm

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"baton/runtime"
)

// Many goroutines load, call, trim and close a few functions under budgets so
// small that something is always given back: every answer is its own request's.
func TestHammer(t *testing.T) {
	t.Parallel()
	e, err := New(Options{CacheDir: executor(t).dir, CodeMax: 200_000, MemoryMax: 3 * instanceBytes, InstancesMax: 4})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"echo", "hello", "fresh"}
	functions := make([]*runtime.Function, len(names))
	for i, name := range names {
		functions[i] = &runtime.Function{Name: name, Module: buildC(t, name), MemoryMB: 2}
		_ = load(t, e, functions[i]).Close() // prepares it
	}
	seed := [2]uint64{rand.Uint64(), rand.Uint64()}
	t.Logf("seed %v", seed)
	until := time.Now().Add(300 * time.Millisecond)
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed[0], seed[1]+uint64(worker)))
			for time.Now().Before(until) {
				f := functions[r.IntN(len(functions))]
				l, err := e.Load(t.Context(), f)
				if err != nil {
					t.Error(err)
					return
				}
				for range r.IntN(20) {
					body := []byte{byte('a' + worker), byte('0' + r.IntN(10))}
					var out bytes.Buffer
					res := l.Invoke(&runtime.Invocation{Body: body, Stdout: &out})
					if res.Reason == runtime.Unavailable {
						continue // more instances than may be
					}
					if res.Reason != runtime.OK || f.Name == "echo" && !bytes.Equal(out.Bytes(), body) {
						t.Errorf("%s: %+v %q for %q", f.Name, res, out.String(), body)
					}
				}
				if r.IntN(10) == 0 {
					e.Trim(0)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if e.kept.Load() != 0 || e.code.Load() != 0 {
		t.Errorf("%d bytes of instances and %d of code are left", e.kept.Load(), e.code.Load())
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
