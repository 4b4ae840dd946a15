package wasm

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
)

// builtEnv is an environment that is built already.
type builtEnv struct {
	testenv.Variables
	starts []uint32
}

func (e *builtEnv) Starts() []uint32 { return e.starts }

// requestEnv returns the variables of a usual request.
func requestEnv() *builtEnv {
	v := testenv.Variables{"GATEWAY_INTERFACE=CGI/1.1", "SERVER_PROTOCOL=HTTP/1.1", "REQUEST_METHOD=POST", "PATH_INFO=/hello", "QUERY_STRING=a=b",
		"REMOTE_ADDR=127.0.0.1", "CONTENT_TYPE=application/json", "CONTENT_LENGTH=16", "HTTP_HOST=localhost:8080", "HTTP_USER_AGENT=curl/8", "HTTP_ACCEPT=*/*"}
	return &builtEnv{v, v.Starts()}
}

// BenchmarkInvoke runs hello-worlds: on the engine, and the obvious way, in
// turns. The best turn of each counts.
func BenchmarkInvoke(b *testing.B) {
	cases := []struct {
		name string
		runs int // a turn of the obvious way: enough for the collector to have its share
		f    runtime.Function
	}{
		{"c", 200, runtime.Function{Name: "hello", Module: buildC(b, "hello")}},
		{"go", 20, runtime.Function{Name: "hello", Module: buildGo(b, "testdata/gohello", true)}},
		{"gofrozen", 20, runtime.Function{Name: "hello", Module: buildGo(b, "testdata/gohello", false), Freeze: true}},
		{"gocommand", 20, runtime.Function{Name: "hello", Module: buildGo(b, "testdata/gohello", false)}},
	}
	body := []byte("a body of bytes\n")
	env := requestEnv()
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			l := load(b, executor(b), &c.f)
			o := newObvious(b, c.f.Module)
			var out bytes.Buffer
			inv := &runtime.Invocation{Body: body, Env: env, Stdout: &out}
			engine := func() {
				out.Reset()
				if res := l.Invoke(inv); res.Reason != runtime.OK || !strings.HasPrefix(out.String(), "hello ") {
					b.Fatalf("%+v %q", res, out.String())
				}
			}
			obvious := func() {
				out.Reset()
				if err := o.invoke(&c.f, body, &out, env.Variables); !strings.HasPrefix(out.String(), "hello ") {
					b.Fatalf("%v %q", err, out.String())
				}
			}
			best := [2]time.Duration{math.MaxInt64, math.MaxInt64}
			for range 50 {
				engine() // the pages that it writes become its own
			}
			for b.Loop() {
				for i, turn := range []struct {
					f    func()
					runs int
				}{{engine, 4 * c.runs}, {obvious, c.runs}} {
					start := time.Now()
					for range turn.runs {
						turn.f()
					}
					best[i] = min(best[i], time.Since(start)/time.Duration(turn.runs))
				}
			}
			b.ReportMetric(float64(best[0])/1e3, "engine-µs")
			b.ReportMetric(float64(best[1])/1e3, "obvious-µs")
			b.ReportMetric(float64(best[1])/float64(best[0]), "times")
		})
	}
}

// BenchmarkEngine is the engine alone, for profiles.
func BenchmarkEngine(b *testing.B) {
	for name, f := range map[string]runtime.Function{
		"c":  {Name: "hello", Module: buildC(b, "hello")},
		"go": {Name: "hello", Module: buildGo(b, "testdata/gohello", true)},
	} {
		b.Run(name, func(b *testing.B) {
			l := load(b, executor(b), &f)
			var out bytes.Buffer
			inv := &runtime.Invocation{Body: []byte("a body of bytes\n"), Env: requestEnv(), Stdout: &out}
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if res := l.Invoke(inv); res.Reason != runtime.OK {
					b.Fatalf("%+v", res)
				}
			}
		})
	}
}
