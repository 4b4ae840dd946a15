package python_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/python"
)

const (
	helloScript = `import os

query = os.environ.get("QUERY_STRING", "")
print('{"token":"%s"}' % query.partition("t=")[2])
`
	helloHandler = `def handler(event):
    return {"token": event["queryStringParameters"].get("t", "")}
`
)

// BenchmarkInvoke is one request of a Python function, 32 callers for each
// processor, as a script and as a handler, beside one `python3 file.py` per request in the same run.
func BenchmarkInvoke(b *testing.B) {
	for _, c := range []struct{ name, source, want string }{
		{"script", helloScript, "{\"token\":\"7\"}\n"}, {"handler", helloHandler, `{"token": "7"}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := load(b, "hello.py", files{"hello.py": c.source}, runtime.Function{})
			if out, log, result := call(l, "t=7", ""); out != c.want {
				b.Fatalf("%q, log %q, %+v", out, log, result)
			}
			b.SetParallelism(32)
			before := processorTime(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var out bytes.Buffer
				inv := &runtime.Invocation{Env: request, Stdout: &out}
				for pb.Next() {
					out.Reset()
					inv.Deadline = time.Now().Add(time.Minute)
					if result := l.Invoke(inv); result.Reason != runtime.OK || out.String() != c.want {
						b.Errorf("%q, %+v", out.String(), result)
					}
				}
			})
			b.StopTimer()
			_ = l.Close() // what has ended is counted
			b.ReportMetric(float64(processorTime(b)-before)/1e3/float64(b.N), "cpu-µs/op")
		})
	}
	b.Run("process", func(b *testing.B) {
		interpreter, err := python.Find(context.Background(), searchPath())
		if err != nil {
			b.Fatal(err)
		}
		script := filepath.Join(b.TempDir(), "hello.py")
		if err := os.WriteFile(script, []byte(helloScript), 0o600); err != nil {
			b.Fatal(err)
		}
		b.SetParallelism(32)
		before := processorTime(b)
		b.ResetTimer()
		defer func() { b.ReportMetric(float64(processorTime(b)-before)/1e3/float64(b.N), "cpu-µs/op") }()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				cmd := exec.Command(interpreter.Path, script)
				cmd.Env = request
				if out, err := cmd.Output(); err != nil || string(out) != "{\"token\":\"7\"}\n" {
					b.Errorf("%q, %v", out, err)
				}
			}
		})
	})
}

// processorTime is what this process and its children that have ended took, and theirs. On
// a busy machine it says more than the clock.
func processorTime(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if err := syscall.Getrusage(who, &usage); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return sum
}

// BenchmarkSequential is the latency of one request at a time.
func BenchmarkSequential(b *testing.B) {
	for _, c := range []struct{ name, source string }{{"script", helloScript}, {"handler", helloHandler}} {
		b.Run(c.name, func(b *testing.B) {
			l := load(b, "hello.py", files{"hello.py": c.source}, runtime.Function{})
			inv := &runtime.Invocation{Env: request, Stdout: io.Discard}
			for b.Loop() {
				inv.Deadline = time.Now().Add(time.Minute)
				if result := l.Invoke(inv); result.Reason != runtime.OK {
					b.Fatal(result)
				}
			}
		})
	}
}

// request is what a browserless client's request has for variables.
var request = testenv.Variables{
	"GATEWAY_INTERFACE=CGI/1.1", "SERVER_SOFTWARE=baton", "SERVER_NAME=localhost", "SERVER_PORT=8080", "SERVER_PROTOCOL=HTTP/1.1",
	"REQUEST_METHOD=GET", "SCRIPT_NAME=/hello", "PATH_INFO=", "QUERY_STRING=t=7", "REMOTE_ADDR=127.0.0.1", "REMOTE_HOST=127.0.0.1",
	"X_CLIENT_ADDR=127.0.0.1:40000", "X_FULL_URL=http://localhost:8080/hello?t=7", "X_MATCHED_ROUTE=/hello", "X_RAW_PATH_INFO=",
	"X_COMPONENT_ROUTE=/hello", "X_RAW_COMPONENT_ROUTE=/hello", "X_BASE_PATH=/", "HTTP_X_REQUEST_ID=76k724r39if9d0000000", "HTTP_HOST=localhost:8080",
	"HTTP_USER_AGENT=wrk", "HTTP_ACCEPT=*/*",
}
