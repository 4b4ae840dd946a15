package gateway

import (
	"os"
	"slices"
	"strings"
	"time"

	"baton/control"
	"baton/deploy"
	"baton/internal/sys"
	"baton/route"
)

// backend answers the control plane from memory: the published table, the
// board, the supervisor. Any goroutine.
type backend struct{ g *gateway }

var _ control.Backend = backend{}

// Functions implements control.Backend.
func (b backend) Functions() []control.Function {
	table := b.g.published.Load()
	problems := b.g.publisher.problems()
	why := make(map[string]Problem, len(problems))
	for _, p := range problems {
		why[p.Key] = p
	}
	all := make([]control.Function, 0, table.Len()+len(problems))
	for f := range table.All {
		c := b.function(f)
		c.State = control.Serving
		if p, bad := why[c.Key]; bad {
			if p.Shadowed {
				continue // nothing of it serves
			}
			c.State, c.Error = control.Stale, p.Text
			delete(why, c.Key)
		}
		all = append(all, c)
	}
	for key, p := range why {
		all = append(all, control.Function{Key: key, State: control.Bad, Error: p.Text})
	}
	slices.SortFunc(all, func(a, b control.Function) int { return strings.Compare(a.Key, b.Key) })
	return all
}

func (b backend) function(f *route.Function) control.Function {
	d := f.Descriptor()
	requests, errors := b.g.publisher.totals(f.Cell)
	id, version, _ := deploy.ModuleVersion(d.Module)
	return control.Function{
		Key: f.Key(), Name: d.Name, ID: id, Version: version, Method: d.Method, Path: d.Path, URL: "/function/" + d.Name,
		Runtime: d.Runtime, Module: d.Module, Handler: d.Handler,
		MemoryMB: d.MemoryMB, TimeoutSeconds: d.Timeout.Seconds(), MaxBody: d.MaxBody, MaxInflight: d.MaxInflight,
		Invocations: requests, Errors: errors, Inflight: int(b.g.board.Inflight(f.Cell)),
	}
}

// Workers implements control.Backend.
func (b backend) Workers() []control.Worker {
	all := make([]control.Worker, 0, len(b.g.workers.keepers))
	for _, k := range b.g.workers.keepers {
		s := b.g.board.Worker(k.id)
		w := control.Worker{
			Worker: k.id, PID: int(k.pid.Load()), State: *k.state.Load(),
			CPU: -1, Mem: -1, IO: -1, Score: -1,
			Inflight: int(s.Inflight()), Pending: int(s.Pending()), Conns: int(s.Conns()),
			Requests: s.Requests(), Errors: s.Errors(),
			Restarts: k.restarts.Load(), Crashes: k.crashes.Load(),
		}
		if m := s.Sample(); m.Number > 0 {
			w.Load = m.Status.String()
			w.CPU, w.Mem, w.IO, w.Score = m.CPU, m.Memory, m.IO, m.Score
			age := time.Duration(sys.ClockMonotonic()) - time.Duration(m.Millis)*time.Millisecond
			w.Timestamp = time.Now().Add(-age).UnixMilli()
		}
		all = append(all, w)
	}
	return all
}

// Status implements control.Backend.
func (b backend) Status() control.Status {
	table := b.g.published.Load()
	stats := b.g.front.Stats()
	trouble, _ := b.g.publisher.trouble()
	return control.Status{
		Version: b.g.cfg.Version, PID: os.Getpid(), Started: b.g.started, Listen: b.g.front.Addr().String(),
		Data: b.g.data.path, Ready: stats.Tabled && b.g.workers.ready() > 0, Loaded: stats.Tabled, Draining: b.g.draining.Load(),
		Generation: table.Generation(), Routes: table.Len(), Database: trouble,
		Connections: stats.Open, Queued: stats.Waiting, Isolation: b.g.cfg.Isolation, Counters: b.counters(),
	}
}

// Stop implements control.Backend.
func (b backend) Stop() { b.g.stop() }

// Started implements control.Backend.
func (b backend) Started(pid int) bool { return b.g.workers.started(pid) }

func (b backend) counters() []control.Counter {
	var all []control.Counter
	add := func(name string, value uint64) { all = append(all, control.Counter{Name: name, Value: value}) }
	var restarts, crashes uint64
	for _, k := range b.g.workers.keepers {
		restarts += k.restarts.Load()
		crashes += k.crashes.Load()
	}
	b.g.front.EachCounter(add)
	add("metrics_accepted", b.g.collector.metrics.Accepted())
	add("metrics_foreign", b.g.collector.metrics.Foreign())
	add("metrics_malformed", b.g.collector.metrics.Malformed())
	add("tables_published", b.g.published.Load().Generation()-1)
	add("worker_crashes", crashes)
	add("worker_restarts", restarts)
	slices.SortFunc(all, func(a, b control.Counter) int { return strings.Compare(a.Name, b.Name) })
	return all
}
