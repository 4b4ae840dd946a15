package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Workload is a load with a name.
type Workload struct {
	Name string `json:"name"`
	Load Load   `json:"load"`
}

// Canonical are the workloads of `make bench`.
func Canonical(duration time.Duration) []Workload {
	return []Workload{
		{"keep-alive", Load{Threads: 2, Connections: 64, Duration: duration}},
		{"Connection: close", Load{Threads: 2, Connections: 64, Duration: duration, Close: true}},
	}
}

// Round is one run of wrk against one server.
type Round struct {
	Measured
	User    time.Duration `json:"user_ns"` // CPU time of all server processes
	System  time.Duration `json:"system_ns"`
	Private int64         `json:"private_bytes"` // RssAnon + RssShmem of all server processes, right after
}

// CPU is the servers' CPU time per request.
func (r Round) CPU() time.Duration {
	if r.Requests == 0 {
		return 0
	}
	return (r.User + r.System) / time.Duration(r.Requests)
}

// Series is all rounds of one server in one workload.
type Series struct {
	Server string  `json:"server"`
	Rounds []Round `json:"rounds"`
}

// Result is one workload, measured: the first series is what the others are
// compared with, the last is the first server once more, the noise floor.
type Result struct {
	Workload Workload `json:"workload"`
	Series   []Series `json:"series"`
}

// Options of a run.
type Options struct {
	Rounds    int
	Warmup    time.Duration
	Workloads []Workload
	Base      Peer   // what the others are compared with
	Others    []Peer // in rotation with it
	Log       io.Writer
}

// Run starts all peers, measures them in rotation (base, others, base again;
// and so for each round), and stops them. Only one is under load at a time.
func Run(ctx context.Context, o Options) (results []Result, err error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return nil, fmt.Errorf("wrk: %w: apt-get install wrk", ErrMissing)
	}
	dir, err := os.MkdirTemp("", "baton-bench-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // nginx's workers are another user
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var servers []*server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.stop())
		}
	}()
	for _, peer := range append([]Peer{o.Base}, o.Others...) {
		s, err := start(ctx, peer, dir)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}

	for _, workload := range o.Workloads {
		result, err := rotate(ctx, o, dir, workload, servers)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

// rotate measures one workload.
func rotate(ctx context.Context, o Options, dir string, workload Workload, servers []*server) (Result, error) {
	result := Result{Workload: workload}
	for _, s := range servers {
		result.Series = append(result.Series, Series{Server: s.peer.Name})
		warm := workload.Load
		warm.Duration = o.Warmup
		if _, err := wrk(ctx, dir, s.url(), warm); err != nil {
			return Result{}, fmt.Errorf("warm up %s: %w", s.peer.Name, err)
		}
	}
	result.Series = append(result.Series, Series{Server: servers[0].peer.Name + " again"})
	order := append(append([]*server{}, servers...), servers[0])
	for round := range o.Rounds {
		for i, s := range order {
			measured, err := measure(ctx, dir, s, workload.Load)
			if err != nil {
				return Result{}, fmt.Errorf("measure %s, %s: %w", s.peer.Name, workload.Name, err)
			}
			result.Series[i].Rounds = append(result.Series[i].Rounds, measured)
			fmt.Fprintf(o.Log, "%-18s round %d/%d  %-12s %9.0f/s  p99 %6d µs  CPU %5.1f µs  errors %d\n", workload.Name,
				round+1, o.Rounds, result.Series[i].Server, measured.Rate, measured.P99,
				float64(measured.CPU())/1e3, measured.Errors)
		}
	}
	return result, nil
}

// measure runs one load and checks the answer before and behind it.
func measure(ctx context.Context, dir string, s *server, load Load) (Round, error) {
	if err := s.check(ctx); err != nil {
		return Round{}, err
	}
	before, err := usage(s.cmd.Process.Pid)
	if err != nil {
		return Round{}, err
	}
	measured, err := wrk(ctx, dir, s.url(), load)
	if err != nil {
		return Round{}, err
	}
	after, err := usage(s.cmd.Process.Pid)
	if err != nil {
		return Round{}, err
	}
	if err := s.check(ctx); err != nil {
		return Round{}, err
	}
	return Round{
		Measured: measured,
		User:     after.User - before.User,
		System:   after.System - before.System,
		Private:  after.Private,
	}, nil
}
