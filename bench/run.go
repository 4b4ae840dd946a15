package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"
)

// samplePeriod is how often the answers are looked at while wrk runs.
const samplePeriod = 200 * time.Millisecond

// Round is one run of wrk against one server.
type Round struct {
	Measured
	User    time.Duration `json:"user_ns"` // CPU time of all server processes
	System  time.Duration `json:"system_ns"`
	Private int64         `json:"private_bytes"` // RssAnon + RssShmem of all server processes, right after
	Samples int           `json:"samples"`       // answers that were looked at meanwhile, and were right
}

// CPU is the servers' CPU time per request.
func (r Round) CPU() time.Duration {
	if r.Requests == 0 {
		return 0
	}
	return (r.User + r.System) / time.Duration(r.Requests)
}

// Series is all rounds of one contestant in one workload.
type Series struct {
	Server   string             `json:"server"`
	Rounds   []Round            `json:"rounds"`
	Syscalls map[string]float64 `json:"syscalls_per_request,omitempty"`
}

// Result is one workload, measured: the first series is what the others are
// compared with, the last is the first once more, the noise floor.
type Result struct {
	Workload Workload `json:"workload"`
	Series   []Series `json:"series"`
}

// Options of a run.
type Options struct {
	Depth     Depth
	Rounds    int
	Warmup    time.Duration
	Workloads []Workload
	Peers     []Peer
	Binary    string // baton's, for the figures
	Log       io.Writer
	LoadsOnly bool // neither figures nor curves
}

// Run measures the workloads, each with its contestants in rotation (A, B, C, A
// again; and so for each round), then the figures. Servers are started when a
// workload first needs them and stopped after the last that does; only one is
// under load at a time. A contestant whose server is not installed is left out
// and said on the log, unless it is what the others are compared with.
func Run(ctx context.Context, o Options) (report Report, err error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return report, fmt.Errorf("wrk: %w: apt-get install wrk", ErrMissing)
	}
	dir, err := os.MkdirTemp("", "baton-bench-")
	if err != nil {
		return report, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // some servers work as another user
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	run := &run{Options: o, dir: dir, servers: map[string]*server{}, missing: map[string]error{}}
	defer func() { err = errors.Join(err, run.stop(nil)) }()
	for i, workload := range o.Workloads {
		result, err := run.measure(ctx, workload)
		if err != nil {
			return report, fmt.Errorf("%s: %w", workload.Name, err)
		}
		if len(result.Series) > 0 {
			report.Results = append(report.Results, result)
		}
		if err := run.stop(needs(o.Workloads[i+1:])); err != nil {
			return report, err
		}
	}
	if o.Depth == Full && !o.LoadsOnly {
		if report.Curves, err = run.curves(ctx, o.Workloads[0].Contestants, curveSeconds); err != nil {
			return report, err
		}
		if err := run.stop(nil); err != nil {
			return report, err
		}
	}
	if o.Depth > Quick && !o.LoadsOnly {
		report.Figures, err = figures(ctx, o, dir)
	}
	return report, err
}

type run struct {
	Options
	dir     string
	servers map[string]*server
	missing map[string]error // peers that cannot be had
}

// stop stops the servers that keep does not name.
func (r *run) stop(keep []string) error {
	kept := map[string]bool{}
	for _, name := range keep {
		kept[name] = true
	}
	var errs []error
	for name, s := range r.servers {
		if !kept[name] {
			errs = append(errs, s.stop())
			delete(r.servers, name)
		}
	}
	return errors.Join(errs...)
}

// server is a running server of that name; started when there is none.
func (r *run) server(ctx context.Context, name string) (*server, error) {
	if s, ok := r.servers[name]; ok {
		return s, nil
	}
	if err, ok := r.missing[name]; ok {
		return nil, err
	}
	peer, ok := peerNamed(r.Peers, name)
	if !ok {
		return nil, fmt.Errorf("no peer is named %q", name)
	}
	s, err := start(ctx, peer, r.dir)
	if err != nil {
		r.missing[name] = err
		return nil, err
	}
	r.servers[name] = s
	return s, nil
}

// contestants starts what a workload needs. Those whose server is missing, or
// that do not answer rightly (their function could not be deployed), are left out.
func (r *run) contestants(ctx context.Context, w Workload) (ready []Contestant, err error) {
	for i, c := range w.Contestants {
		s, err := r.server(ctx, c.Server)
		if err == nil {
			err = s.check(ctx, c, w.Load)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(r.Log, "left out: %s: %s: %v\n", w.Name, c.Name, err)
			if i == 0 {
				return nil, nil
			}
			continue
		}
		ready = append(ready, c)
	}
	return ready, nil
}

// measure measures one workload.
func (r *run) measure(ctx context.Context, w Workload) (Result, error) {
	ready, err := r.contestants(ctx, w)
	if err != nil || len(ready) == 0 {
		return Result{}, err
	}
	w.Contestants = ready
	result := Result{Workload: w}
	for _, c := range ready {
		s := r.servers[c.Server]
		warm := loadOf(w, c)
		warm.Duration = r.Warmup
		if _, err := wrk(ctx, r.dir, s.addr, c.Targets, warm); err != nil {
			return Result{}, fmt.Errorf("warm up %s: %w", c.Name, err)
		}
		series := Series{Server: c.Name}
		if r.Depth > Quick {
			if series.Syscalls, err = syscalls(ctx, r.dir, s, c, loadOf(w, c)); err != nil {
				fmt.Fprintf(r.Log, "%s: system calls of %s: %v\n", w.Name, c.Name, err)
			}
		}
		result.Series = append(result.Series, series)
	}
	again := Series{Server: ready[0].Name + " again"}
	result.Series = append(result.Series, again)
	rounds := r.Rounds
	if w.Rounds > 0 {
		rounds = min(rounds, w.Rounds)
	}
	for round := range rounds {
		for i := range result.Series {
			c := ready[i%len(ready)]
			measured, err := r.turn(ctx, w, c)
			if err != nil {
				return Result{}, fmt.Errorf("%s: %w", c.Name, err)
			}
			series := &result.Series[i]
			series.Rounds = append(series.Rounds, measured)
			fmt.Fprintf(r.Log, "%-18s round %d/%d  %-30s %9.0f/s  p99 %7d µs  CPU %6.1f µs  errors %d\n", w.Name,
				round+1, rounds, series.Server, measured.Rate, measured.P99, float64(measured.CPU())/1e3, measured.Errors)
		}
	}
	return result, nil
}

// loadOf is the load that a contestant gets.
func loadOf(w Workload, c Contestant) Load {
	load := w.Load
	if c.Connections > 0 {
		load.Connections = c.Connections
	}
	return load
}

// turn measures one contestant once, and looks at answers before, meanwhile and
// behind it.
func (r *run) turn(ctx context.Context, w Workload, c Contestant) (round Round, err error) {
	s, load := r.servers[c.Server], loadOf(w, c)
	if err := s.check(ctx, c, load); err != nil {
		return round, err
	}
	quiet, err := makeNoise(ctx, s.addr, c.Noise)
	if err != nil {
		return round, err
	}
	defer quiet()
	before, err := s.usage()
	if err != nil {
		return round, err
	}
	sampled := sample(ctx, s, c, load)
	round.Measured, err = wrk(ctx, r.dir, s.addr, c.Targets, load)
	var wrong error
	round.Samples, wrong = sampled()
	if err = errors.Join(err, wrong); err != nil {
		return round, err
	}
	after, err := s.usage()
	if err != nil {
		return round, err
	}
	round.User, round.System, round.Private = after.User-before.User, after.System-before.System, after.Private
	return round, s.check(ctx, c, load)
}

// sample looks at an answer every samplePeriod, until the function it returns
// is called; that one says how many there were, and what was wrong with one.
func sample(ctx context.Context, s *server, c Contestant, load Load) func() (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		n    int
		err  error
		done = make(chan struct{})
	)
	go func() {
		defer close(done)
		tick := time.NewTicker(samplePeriod)
		defer tick.Stop()
		for err == nil {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err = s.check(ctx, c, load); err == nil {
				n++
			}
		}
	}()
	return func() (int, error) {
		cancel()
		<-done
		if errors.Is(err, context.Canceled) {
			err = nil // the last one was cut off
		}
		return n, err
	}
}

// makeNoise puts other load on a server until quiet is called.
func makeNoise(ctx context.Context, addr string, noise Noise) (quiet func(), err error) {
	var idle []net.Conn
	if noise.Idle > 0 {
		if idle, err = openIdle(addr, noise.Idle); err != nil {
			closeAll(idle)
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var callers sync.WaitGroup
	for range noise.Connections {
		callers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+noise.Target, nil)
				if err != nil {
					return
				}
				response, err := client.Do(request)
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		})
	}
	return func() {
		cancel()
		callers.Wait()
		closeAll(idle)
	}, nil
}
