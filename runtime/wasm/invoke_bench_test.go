package wasm

import (
	"bytes"
	"testing"

	"baton/runtime"
)

// request is what a benchmark's invocation carries: a small body and the
// variables of a usual request.
func requestEnv() vars {
	return vars{"GATEWAY_INTERFACE=CGI/1.1", "SERVER_PROTOCOL=HTTP/1.1", "REQUEST_METHOD=POST", "PATH_INFO=/hello", "QUERY_STRING=a=b",
		"REMOTE_ADDR=127.0.0.1", "CONTENT_TYPE=application/json", "CONTENT_LENGTH=16", "HTTP_HOST=localhost:8080", "HTTP_USER_AGENT=curl/8", "HTTP_ACCEPT=*/*"}
}

// BenchmarkInvoke runs hello-worlds: on the engine, and the obvious way.
func BenchmarkInvoke(b *testing.B) {
	cases := []struct {
		name string
		f    runtime.Function
	}{
		{"c", runtime.Function{Name: "hello", Module: buildC(b, "hello")}},
		{"go", runtime.Function{Name: "hello", Module: buildGo(b, "testdata/gohello", true)}},
		{"gofrozen", runtime.Function{Name: "hello", Module: buildGo(b, "testdata/gohello", false), Freeze: true}},
		{"gocommand", runtime.Function{Name: "hello", Module: buildGo(b, "testdata/gohello", false)}},
	}
	body := []byte("a body of bytes\n")
	env := requestEnv()
	for _, c := range cases {
		b.Run(c.name+"/engine", func(b *testing.B) {
			l := load(b, executor(b), &c.f)
			var out bytes.Buffer
			inv := &runtime.Invocation{Body: body, Env: env, Stdout: &out}
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				if res := l.Invoke(inv); res.Reason != runtime.OK {
					b.Fatalf("%+v", res)
				}
			}
			b.Logf("%q", out.String())
		})
		b.Run(c.name+"/obvious", func(b *testing.B) {
			o := newObvious(b, c.f.Module)
			var out bytes.Buffer
			b.ReportAllocs()
			for b.Loop() {
				out.Reset()
				_ = o.invoke(&c.f, body, &out, env)
			}
			b.Logf("%q", out.String())
		})
	}
}
