package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

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

// requestsMax bounds the different requests that one thread of wrk asks in turn.
const requestsMax = 1024

// wrkScript makes wrk ask prepared requests in turn, and print its figures
// exactly, in one line. Preparing them keeps the client's cost per request the
// same for every server.
const wrkScript = `local requests, n = {}, 0
init = function()
  local body = nil
  if %[2]d > 0 then wrk.method = "POST"; body = string.rep("x", %[2]d) end
  if %[3]t then wrk.headers["Connection"] = "close" end
  for line in io.lines(%[1]q) do requests[#requests + 1] = wrk.format(nil, line, nil, body) end
end
request = function()
  n = n %% #requests + 1
  return requests[n]
end
done = function(s, l, r)
  io.write(string.format("figures %%d %%d %%d %%d %%d %%d %%d %%d %%d %%d %%d %%d\n", s.requests, s.duration,
    l:percentile(50), l:percentile(90), l:percentile(99), l:percentile(99.9), l.max,
    s.errors.connect, s.errors.read, s.errors.write, s.errors.status, s.errors.timeout))
end
`

// wrk runs one load against a server's targets. dir holds its script, and the
// paths, each with a token of its own.
func wrk(ctx context.Context, dir, addr string, targets []string, load Load) (Measured, error) {
	paths, script := filepath.Join(dir, "paths"), filepath.Join(dir, "wrk.lua")
	var text strings.Builder
	for i := range max(64, min(len(targets), requestsMax)) {
		text.WriteString(withToken(targets[i%len(targets)], newToken()) + "\n")
	}
	if err := os.WriteFile(paths, []byte(text.String()), 0o600); err != nil {
		return Measured{}, err
	}
	if err := os.WriteFile(script, fmt.Appendf(nil, wrkScript, paths, load.Body, load.Close), 0o600); err != nil {
		return Measured{}, err
	}
	args := []string{
		"-t", strconv.Itoa(load.Threads), "-c", strconv.Itoa(load.Connections),
		"-d", strconv.Itoa(int(load.Duration/time.Second)) + "s", "-s", script, "http://" + addr + "/",
	}
	output, err := exec.CommandContext(ctx, "wrk", args...).CombinedOutput()
	if err != nil {
		return Measured{}, fmt.Errorf("wrk %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	return parseWrk(output)
}

// newToken is a word that no answer contains by chance.
func newToken() string { return strconv.FormatUint(rand.Uint64()|1<<63, 36) }

func withToken(target, token string) string { return strings.Replace(target, "TOKEN", token, 1) }

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
