package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Curve is the latency of one contestant at rising rates, from an open-loop
// client: a request leaves when it is due, on one of up to connectionsMax
// connections, whether or not earlier ones are answered. So a stall of the
// server delays all requests that fall into it, and all of them are counted.
type Curve struct {
	Server string  `json:"server"`
	Points []Point `json:"points"`
}

// Point is one rate of a curve. Latencies are microseconds.
type Point struct {
	Wanted  float64 `json:"wanted"` // requests per second
	Rate    float64 `json:"rate"`   // that were answered with 200
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	Max     float64 `json:"max_us"`
	Success float64 `json:"success"` // share of the answers that were 200
}

// connectionsMax bounds the requests of a curve that are unanswered at a time.
const connectionsMax = 1024

// curveSeconds is how long each rate is kept.
const curveSeconds = 5

// curveRates are the rates that are asked for, per second.
var curveRates = []int{1000, 2000, 5000, 10_000, 20_000, 30_000}

// curves measures hello-world's latency at rising rates.
func (r *run) curves(ctx context.Context, contestants []Contestant, seconds int) (all []Curve, err error) {
	client, err := buildVegeta(ctx, r.dir)
	if err != nil {
		return nil, err
	}
	for _, c := range contestants {
		s, err := r.server(ctx, c.Server)
		if err != nil {
			fmt.Fprintf(r.Log, "left out: curve of %s: %v\n", c.Name, err)
			continue
		}
		all = append(all, Curve{Server: c.Name})
		curve := &all[len(all)-1]
		for _, rate := range curveRates {
			point, err := attack(ctx, client, r.dir, s.addr, c, rate, seconds)
			if err != nil {
				return nil, fmt.Errorf("%s at %d/s: %w", c.Name, rate, err)
			}
			curve.Points = append(curve.Points, point)
			fmt.Fprintf(r.Log, "curve  %-22s %6d/s  answered %8.0f/s  p50 %8.0f µs  p99 %9.0f µs\n", c.Name, rate, point.Rate, point.P50, point.P99)
		}
	}
	return all, nil
}

// buildVegeta compiles the open-loop client, from a module of its own so that
// the product does not depend on it.
func buildVegeta(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "vegeta")
	output, err := exec.CommandContext(ctx, "go", "build", "-C", "bench/openloop", "-o", path, "github.com/tsenart/vegeta/v12").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build vegeta: %w\n%s", err, output)
	}
	return path, nil
}

// attack measures one point.
func attack(ctx context.Context, client, dir, addr string, c Contestant, rate, seconds int) (Point, error) {
	results := filepath.Join(dir, "vegeta.bin")
	attack := exec.CommandContext(ctx, client, "attack", "-rate", strconv.Itoa(rate), "-duration", strconv.Itoa(seconds)+"s",
		"-workers", "64", "-max-workers", strconv.Itoa(connectionsMax), "-connections", strconv.Itoa(connectionsMax), "-timeout", "5s", "-output", results)
	attack.Stdin = strings.NewReader("GET http://" + addr + withToken(c.Targets[0], newToken()) + "\n")
	if output, err := attack.CombinedOutput(); err != nil {
		return Point{}, fmt.Errorf("vegeta attack: %w\n%s", err, output)
	}
	output, err := exec.CommandContext(ctx, client, "report", "-type", "json", results).Output()
	if err != nil {
		return Point{}, fmt.Errorf("vegeta report: %w", err)
	}
	return parseVegeta(output, rate)
}

// parseVegeta reads a report of vegeta; its times are nanoseconds.
func parseVegeta(output []byte, rate int) (Point, error) {
	var report struct {
		Latencies struct {
			P50 float64 `json:"50th"`
			P99 float64 `json:"99th"`
			Max float64 `json:"max"`
		} `json:"latencies"`
		Throughput float64 `json:"throughput"`
		Success    float64 `json:"success"`
		Requests   int64   `json:"requests"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(output), &report); err != nil {
		return Point{}, fmt.Errorf("vegeta's report: %w", err)
	}
	if report.Requests == 0 {
		return Point{}, fmt.Errorf("vegeta's report has no requests: %.200s", output)
	}
	us := float64(time.Microsecond)
	return Point{
		Wanted: float64(rate), Rate: report.Throughput, P50: report.Latencies.P50 / us, P99: report.Latencies.P99 / us,
		Max: report.Latencies.Max / us, Success: report.Success,
	}, nil
}

func (r Report) writeCurves(b *strings.Builder) {
	if len(r.Curves) == 0 {
		return
	}
	b.WriteString("\n**Latency at a given rate**, from an open-loop client (vegeta)\n\n")
	rows := [][]string{{"server", "asked/s", "answered/s", "p50 µs", "p99 µs", "max µs", "answered with 200"}}
	for _, c := range r.Curves {
		for _, p := range c.Points {
			rows = append(rows, []string{
				c.Server, fmt.Sprintf("%.0f", p.Wanted), fmt.Sprintf("%.0f", p.Rate), fmt.Sprintf("%.0f", p.P50),
				fmt.Sprintf("%.0f", p.P99), fmt.Sprintf("%.0f", p.Max), fmt.Sprintf("%.2f %%", 100*p.Success),
			})
		}
	}
	writeTable(b, rows)
}
