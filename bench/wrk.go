package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Load is what wrk puts on a server.
type Load struct {
	Threads     int           `json:"threads"`
	Connections int           `json:"connections"`
	Duration    time.Duration `json:"duration_ns"` // whole seconds, at least one
	Close       bool          `json:"close"`       // a new connection for each request
}

// Measured is what wrk saw. Latencies are microseconds.
type Measured struct {
	Requests int64   `json:"requests"`
	Rate     float64 `json:"rate"` // requests per second
	P50      int64   `json:"p50_us"`
	P90      int64   `json:"p90_us"`
	P99      int64   `json:"p99_us"`
	P999     int64   `json:"p999_us"`
	Max      int64   `json:"max_us"`
	Errors   int64   `json:"errors"` // refused, cut, timed out, or answered with 400 and above
}

// wrkScript makes wrk print its figures exactly, in one line.
const wrkScript = `done = function(s, l, r)
  io.write(string.format("figures %d %d %d %d %d %d %d %d %d %d %d %d\n", s.requests, s.duration,
    l:percentile(50), l:percentile(90), l:percentile(99), l:percentile(99.9), l.max,
    s.errors.connect, s.errors.read, s.errors.write, s.errors.status, s.errors.timeout))
end
`

// wrk runs one load against a URL. dir holds its script.
func wrk(ctx context.Context, dir, url string, load Load) (Measured, error) {
	script := dir + "/figures.lua"
	if err := os.WriteFile(script, []byte(wrkScript), 0o600); err != nil {
		return Measured{}, err
	}
	args := []string{
		"-t", strconv.Itoa(load.Threads), "-c", strconv.Itoa(load.Connections),
		"-d", strconv.Itoa(int(load.Duration/time.Second)) + "s", "-s", script,
	}
	if load.Close {
		args = append(args, "-H", "Connection: close")
	}
	output, err := exec.CommandContext(ctx, "wrk", append(args, url)...).CombinedOutput()
	if err != nil {
		return Measured{}, fmt.Errorf("wrk %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	return parseWrk(output)
}

// parseWrk finds the line of figures in wrk's output.
func parseWrk(output []byte) (Measured, error) {
	for line := range bytes.Lines(output) {
		fields := strings.Fields(string(line))
		if len(fields) != 13 || fields[0] != "figures" {
			continue
		}
		var n [12]int64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseInt(fields[i+1], 10, 64); err != nil {
				return Measured{}, fmt.Errorf("wrk's figures: %w", err)
			}
		}
		if n[1] <= 0 {
			return Measured{}, errors.New("wrk's figures: no duration")
		}
		return Measured{
			Requests: n[0], Rate: float64(n[0]) / (float64(n[1]) / 1e6),
			P50: n[2], P90: n[3], P99: n[4], P999: n[5], Max: n[6],
			Errors: n[7] + n[8] + n[9] + n[10] + n[11],
		}, nil
	}
	return Measured{}, fmt.Errorf("wrk printed no figures:\n%s", output)
}
