package control

import "time"

// Backend is what the control plane asks of the process it is part of. Every
// call is made on a request's goroutine, must return promptly and from memory,
// and may run at the same time as any other. What it returns is the caller's.
type Backend interface {
	// Functions lists every row of the functions table, ascending by key: those
	// that serve, and those that are refused, with their error.
	Functions() []Function

	// Workers lists the worker slots, ascending by index.
	Workers() []Worker

	// Status describes the process as a whole.
	Status() Status

	// Stop begins the end of the process, as SIGTERM does, and returns without
	// waiting for it. Further calls do nothing.
	Stop()

	// Started says whether this process started the process pid itself. The
	// processes below those need not be known: ancestors are asked about too.
	Started(pid int) bool
}

// States of a row.
const (
	Serving = "serving" // the row, as it stands, is what the table serves
	Stale   = "stale"   // the row is refused; its previous version serves
	Bad     = "bad"     // the row is refused, and nothing serves its route
)

// Function is one row of the functions table and what became of it.
type Function struct {
	Key   string `json:"key"`             // "METHOD:/path", as in the table
	State string `json:"state"`           // Serving, Stale or Bad
	Error string `json:"error,omitempty"` // why the row is refused; every fault, by field

	// What serves; empty when State is Bad.
	Name           string  `json:"name,omitempty"`
	ID             string  `json:"id,omitempty"`      // of a deployed function; empty: somebody wrote the row
	Version        int     `json:"version,omitempty"` // … that serves
	Method         string  `json:"method,omitempty"`
	Path           string  `json:"path,omitempty"`
	URL            string  `json:"url,omitempty"` // "/function/<name>"
	Runtime        string  `json:"runtime,omitempty"`
	Module         string  `json:"module,omitempty"`
	Handler        string  `json:"handler,omitempty"`
	MemoryMB       int     `json:"memory,omitempty"`
	TimeoutSeconds float64 `json:"timeout,omitempty"`
	MaxBody        int64   `json:"max_body,omitempty"`     // bytes
	MaxInflight    int     `json:"max_inflight,omitempty"` // 0: no limit

	// Since the start of the process, over all workers.
	Invocations uint64 `json:"invocationCount"`
	Errors      uint64 `json:"errorCount"`
	Inflight    int    `json:"inflight"`

	// Codes counts answers per status code, where the process counts them; nil
	// leaves the metric out.
	Codes map[int]uint64 `json:"codes,omitempty"`
}

// Worker is one worker slot. CPU, Mem, IO and Score are smoothed, 0 to 100, and
// -1 before the first sample.
type Worker struct {
	Worker    int     `json:"worker"` // index of the slot
	PID       int     `json:"pid"`    // 0: none runs
	State     string  `json:"state"`  // starting, ready, draining, lost
	Load      string  `json:"load"`   // idle, busy, overloaded; empty before the first sample
	CPU       float64 `json:"cpu"`
	Mem       float64 `json:"mem"`
	IO        float64 `json:"io"`
	Score     float64 `json:"score"`
	Inflight  int     `json:"inflight"` // requests that run
	Pending   int     `json:"pending"`  // connections donated, not yet adopted
	Conns     int     `json:"conns"`
	Requests  uint64  `json:"requests"`
	Errors    uint64  `json:"errors"`
	Restarts  uint64  `json:"restarts"`  // replacements of this slot's process
	Crashes   uint64  `json:"crashes"`   // … that were not asked for
	Timestamp int64   `json:"timestamp"` // of the last sample, ms since 1970; 0: none
}

// Ready is the state of a worker that takes connections.
const Ready = "ready"

// Status describes the gateway process.
type Status struct {
	Version  string    `json:"version"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Listen   string    `json:"listen"` // host:port as bound
	Data     string    `json:"data"`   // absolute path
	Ready    bool      `json:"ready"`  // at least one worker is, and Loaded
	Loaded   bool      `json:"loaded"` // the rows of the database were read, at least once
	Draining bool      `json:"draining"`

	Generation uint64 `json:"generation"` // of the published table
	Routes     int    `json:"routes"`
	Database   string `json:"database,omitempty"` // what is wrong with it; empty: nothing

	Connections int `json:"connections"` // open, on all loops and workers
	Queued      int `json:"queued"`      // waiting for a worker

	Isolation []Layer   `json:"isolation"`
	Counters  []Counter `json:"counters,omitempty"`
}

// Layer is one of the kernel's means to confine functions.
type Layer struct {
	Name   string `json:"name"` // landlock, seccomp, no_new_privs, uid, cgroup, …
	Active bool   `json:"active"`
	Detail string `json:"detail,omitempty"` // why not, or how much of it
}

// Counter is a monotonic count of the process: refused requests by reason,
// connections donated, and so on.
type Counter struct {
	Name  string `json:"name"` // snake-case: "donated", "refused_bad_header"
	Value uint64 `json:"value"`
}

// Report is the answer of GET /system/status: the process, its workers and the
// rows that are refused, of one moment.
type Report struct {
	Status
	Workers []Worker   `json:"workers"`
	BadRows []Function `json:"badRows"`
}
