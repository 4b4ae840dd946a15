package integration

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// In the steady state a worker's request is one read(2) and one write(2), and
// no message to the gateway.
func TestSystemCallsPerRequest(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "strace")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	conns := make([]*testenv.Conn, 16)
	for i := range conns {
		conns[i] = testenv.Dial(t, s.Addr)
	}
	round := func(requests int) {
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() {
				for range requests {
					if _, err := io.WriteString(c.Conn, get("/ping")); err != nil {
						t.Error(err)
						return
					}
					if r, err := c.ReadResponse("GET"); err != nil || r.Status != 200 {
						t.Errorf("status %d, %v", r.Status, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	round(50) // the connections are the worker's, its function is warm
	pid := onlyWorker(t, s)
	trace := exec.Command("strace", "-f", "-c", "-p", strconv.Itoa(pid))
	stderr, err := trace.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := trace.Start(); err != nil {
		t.Fatal(err)
	}
	output := bufio.NewReader(stderr)
	attached, err := output.ReadString('\n')
	if err != nil || !strings.Contains(attached, "attached") {
		_ = trace.Wait()
		testenv.NeedFeature(t, "ptrace of a child", false, errors.New(strings.TrimSpace(attached)))
	}
	const requests = 200
	start := time.Now()
	round(requests)
	if err := trace.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	table, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	_ = trace.Wait() // it ends by the signal
	counts := map[string]int{}
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) >= 5 {
			if n, err := strconv.Atoi(fields[3]); err == nil {
				counts[fields[len(fields)-1]] = n
			}
		}
	}
	total := requests * len(conns)
	// What comes with time and not with requests: ticks, and metrics with their
	// reading of /proc, some 20 reads a second.
	idle := int(time.Since(start).Seconds()*30) + 30
	t.Logf("%d requests: %v", total, counts)
	for _, name := range []string{"read", "write"} {
		if n := counts[name]; n < total*9/10 || n > total*11/10+idle {
			t.Errorf("%d %s(2) for %d requests, want about one each", n, name, total)
		}
	}
	// Twice a second a metrics datagram, and perhaps a connection given back.
	if n := counts["sendmsg"] + counts["sendto"]; n > total/50+idle {
		t.Errorf("%d messages sent during %d requests", n, total)
	}
}
