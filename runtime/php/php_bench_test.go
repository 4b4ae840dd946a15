package php_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"baton/runtime"
	"baton/sandbox"
)

// childTicks is the processor time of this process's children that run, in
// clock ticks of 10 ms: user and system.
func childTicks(b *testing.B) (user, system int) {
	b.Helper()
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		pids, _ := os.ReadFile(list)
		for pid := range strings.FieldsSeq(string(pids)) {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			if err != nil {
				continue
			}
			_, rest, _ := bytes.Cut(stat, []byte(") "))
			fields := strings.Fields(string(rest))
			u, _ := strconv.Atoi(fields[11])
			s, _ := strconv.Atoi(fields[12])
			user, system = user+u, system+s
		}
	}
	return user, system
}

const benchScript = `<?php
header('Content-Type: application/json');
echo json_encode(['token' => $_GET['t'] ?? '']), "\n";`

// BenchmarkInvoke is one request after another, to one process. user and sys are that
// process's own microseconds of processor time per request.
func BenchmarkInvoke(b *testing.B) {
	for _, c := range []struct {
		name, text string
		without    []string
	}{
		{"script", benchScript, nil},
		{"script, no namespaces", benchScript, []string{sandbox.LayerRoot}},
		{"script, no seccomp", benchScript, []string{sandbox.LayerSeccomp}},
		{"script, no Landlock", benchScript, []string{sandbox.LayerLandlock}},
		{"script, nothing", benchScript, []string{sandbox.LayerRoot, sandbox.LayerSeccomp, sandbox.LayerLandlock, sandbox.LayerRlimits}},
		{"handler", "<?php return function () { ?>" + benchScript + " };", nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := load(b, c.text, runtime.Function{}, c.without...)
			env := get("t=abcdef", "GATEWAY_INTERFACE=CGI/1.1", "SERVER_SOFTWARE=baton", "SERVER_NAME=localhost", "SERVER_PORT=8080", "REMOTE_ADDR=127.0.0.1",
				"REMOTE_HOST=127.0.0.1", "X_CLIENT_ADDR=127.0.0.1:40000", "X_MATCHED_ROUTE=/fn", "X_RAW_PATH_INFO=", "X_COMPONENT_ROUTE=/fn",
				"X_RAW_COMPONENT_ROUTE=/fn", "X_BASE_PATH=/", "HTTP_X_REQUEST_ID=abcdefghijklmnopqrst", "HTTP_HOST=localhost:8080")
			for range 3 {
				if out, log, result := call(l, env, ""); result.Reason != runtime.OK || !strings.HasSuffix(out, "{\"token\":\"abcdef\"}\n") {
					b.Fatalf("%q, log %q, %+v", out, log, result)
				}
			}
			b.ReportAllocs()
			user, system := childTicks(b)
			b.ResetTimer()
			for range b.N {
				if _, _, result := call(l, env, ""); result.Reason != runtime.OK {
					b.Fatalf("%+v", result)
				}
			}
			b.StopTimer()
			user2, system2 := childTicks(b)
			b.ReportMetric(float64(user2-user)*1e4/float64(b.N), "user-µs/op")
			b.ReportMetric(float64(system2-system)*1e4/float64(b.N), "sys-µs/op")
		})
	}
}
