package control

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// newMetrics registers everything that GET /metrics shows.
func newMetrics(registry *prometheus.Registry, s *Server) http.Handler {
	registry.MustRegister(collector{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true, MaxRequestsInFlight: 4,
		ErrorHandling: promhttp.ContinueOnError})
}

// collector turns the backend's snapshots into metrics when they are asked for.
type collector struct{ s *Server }

// The metrics. Those without our name are conventions that dashboards know:
// OpenFaaS for gateway_ and http_, OpenTelemetry's FaaS semantics for faas_.
var (
	descStarted     = desc("gateway_invocation_function_started", "Invocations that were started.", "function_name")
	descAnswered    = desc("gateway_function_invocation_total", "Answers by status code.", "function_name", "code")
	descReplicas    = desc("gateway_service_count", "Workers that can run the function.", "function_name")
	descInFlight    = desc("http_requests_in_flight", "Requests that run, over all workers.")
	descInvocations = desc("faas_invocations_total", "Invocations of the function.", "faas_name")
	descErrors      = desc("faas_errors_total", "Invocations that ended without a usable answer.", "faas_name")

	descUp          = desc("baton_ready", "1 while at least one worker is ready, and there is a table.")
	descDraining    = desc("baton_draining", "1 from the first request to stop.")
	descGeneration  = desc("baton_table_generation", "Generation of the published route table.")
	descRoutes      = desc("baton_routes", "Routes that serve.")
	descBadRows     = desc("baton_bad_rows", "Rows that are refused.")
	descDatabase    = desc("baton_database_trouble", "1 while the database cannot be read.")
	descConnections = desc("baton_connections", "Open client connections.")
	descQueued      = desc("baton_queue_depth", "Connections that wait for a worker.")
	descEvents      = desc("baton_events_total", "What the process counts, by name.", "event")
	descRefused     = desc("baton_control_refused_total", "Control requests that were refused, by reason.", "reason")

	descWorkers        = desc("baton_total_workers", "Worker slots.")
	descWorkersReady   = desc("baton_ready_workers", "Workers that take connections.")
	descWorkersBusy    = desc("baton_busy_workers", "Workers that run at least one request.")
	descWorkerCrashes  = desc("baton_worker_crashes", "Workers that ended unasked.")
	descWorkerRestarts = desc("baton_worker_restarts", "Workers that were replaced.")
	descWorkerQueue    = desc("baton_worker_queue_depth", "Connections sent to the worker and not yet adopted.", "worker")
	descWorkerScore    = desc("baton_worker_score", "Smoothed load from 0 to 100; the lowest is chosen.", "worker")
	descWorkerCPU      = desc("baton_worker_cpu", "Smoothed and normalised CPU, 0 to 100.", "worker")
	descWorkerMem      = desc("baton_worker_mem", "Smoothed and normalised memory, 0 to 100.", "worker")
	descWorkerIO       = desc("baton_worker_io", "Smoothed and normalised disk traffic, 0 to 100.", "worker")
	descWorkerInflight = desc("baton_worker_inflight", "Requests that run.", "worker")
	descWorkerConns    = desc("baton_worker_connections", "Connections that the worker owns.", "worker")
	descWorkerRequests = desc("baton_worker_requests_total", "Requests answered by the slot's workers.", "worker")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector. It describes nothing: the set of
// metrics follows what the backend counts.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		if m, err := prometheus.NewConstMetric(d, kind, v, labels...); err == nil {
			to <- m
		}
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}

	status := c.s.backend.Status()
	gauge(descUp, number(status.Ready))
	gauge(descDraining, number(status.Draining))
	gauge(descGeneration, float64(status.Generation))
	gauge(descRoutes, float64(status.Routes))
	gauge(descDatabase, number(status.Database != ""))
	gauge(descConnections, float64(status.Connections))
	gauge(descQueued, float64(status.Queued))
	events := map[string]uint64{} // one series per name, whatever the backend lists
	for _, e := range status.Counters {
		events[label(e.Name)] += e.Value
	}
	for name, v := range events {
		count(descEvents, v, name)
	}
	for r := range reasonCount {
		count(descRefused, c.s.refused[r].Load(), r.String())
	}

	workers := c.s.backend.Workers()
	var ready, busy, crashes, restarts uint64
	for _, w := range workers {
		if w.State == Ready {
			ready++
		}
		if w.Inflight > 0 {
			busy++
		}
		crashes += w.Crashes
		restarts += w.Restarts
		name := strconv.Itoa(w.Worker)
		gauge(descWorkerQueue, float64(w.Pending), name)
		gauge(descWorkerInflight, float64(w.Inflight), name)
		gauge(descWorkerConns, float64(w.Conns), name)
		count(descWorkerRequests, w.Requests, name)
		if w.Score >= 0 { // no sample yet is not a load of 0
			gauge(descWorkerScore, w.Score, name)
			gauge(descWorkerCPU, w.CPU, name)
			gauge(descWorkerMem, w.Mem, name)
			gauge(descWorkerIO, w.IO, name)
		}
	}
	gauge(descWorkers, float64(len(workers)))
	gauge(descWorkersReady, float64(ready))
	gauge(descWorkersBusy, float64(busy))
	count(descWorkerCrashes, crashes)
	count(descWorkerRestarts, restarts)

	// Several rows may name one function: its series is their sum.
	type sum struct {
		invocations, errors uint64
		codes               map[int]uint64
	}
	functions := map[string]*sum{}
	inflight, bad := 0, 0
	for _, f := range c.s.backend.Functions() {
		if f.State != Serving {
			bad++
		}
		if f.State == Bad || f.Name == "" {
			continue
		}
		inflight += f.Inflight
		name := label(f.Name)
		t := functions[name]
		if t == nil {
			t = &sum{codes: map[int]uint64{}}
			functions[name] = t
		}
		t.invocations += f.Invocations
		t.errors += f.Errors
		for code, n := range f.Codes {
			t.codes[code] += n
		}
	}
	gauge(descBadRows, float64(bad))
	gauge(descInFlight, float64(inflight))
	for name, t := range functions {
		count(descStarted, t.invocations, name)
		count(descInvocations, t.invocations, name)
		count(descErrors, t.errors, name)
		gauge(descReplicas, float64(ready), name)
		for code, n := range t.codes {
			count(descAnswered, n, name, strconv.Itoa(code))
		}
	}
}

// label makes a text one that may be a label's value. To be applied before sums:
// two names that it makes equal are one series.
func label(text string) string { return strings.ToValidUTF8(text, "?") }

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
