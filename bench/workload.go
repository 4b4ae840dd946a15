package bench

import (
	"fmt"
	"time"
)

// Load is what wrk puts on a server.
type Load struct {
	Threads     int           `json:"threads"`
	Connections int           `json:"connections"`
	Duration    time.Duration `json:"duration_ns"`          // whole seconds, at least one
	Close       bool          `json:"close,omitempty"`      // a new connection for each request
	Body        int           `json:"body_bytes,omitempty"` // of a POST with that many bytes; 0: GET
}

// Contestant is one server in one workload.
type Contestant struct {
	Name   string `json:"name"`   // of its series: "baton, Go wasm"
	Server string `json:"server"` // of the Peer that answers
	// Targets are the paths that are asked, one after another. TOKEN in one
	// stands for a random word that the answer must contain.
	Targets []string `json:"-"`
	// Connections is another number than the workload's; 0: the workload's.
	Connections int   `json:"connections,omitempty"`
	Noise       Noise `json:"noise"`
}

// Noise is other load on the contestant's server while it is measured.
type Noise struct {
	Target      string `json:"target,omitempty"`      // asked again and again; empty: none
	Connections int    `json:"connections,omitempty"` // by so many connections at a time
	Idle        int    `json:"idle,omitempty"`        // connections that are open and ask nothing
}

// Workload is one comparison: the contestants, in rotation, under one load. The
// first is what the others are compared with; it runs once more at the end of
// each round, as the noise floor.
type Workload struct {
	Name        string       `json:"name"`
	About       string       `json:"about"` // one sentence: what is compared
	Load        Load         `json:"load"`
	Contestants []Contestant `json:"contestants"`
	Rounds      int          `json:"-"` // at most; 0: the run's
}

// Depth says how much of the whole is measured.
type Depth int

// The depths, each more than the one before.
const (
	Quick     Depth = iota // the two main workloads
	Canonical              // what PERFORMANCE.md promises, in under ten minutes
	Full                   // everything
)

// idleConnections are open in the workload of that name.
const idleConnections = 10_000

// slowPath is the function that takes its time.
const slowPath = "/slow"

// Workloads are what is measured at a depth, with so many seconds a turn.
func Workloads(depth Depth, seconds int) []Workload {
	keep := Load{Threads: 2, Connections: 64, Duration: time.Duration(seconds) * time.Second}
	with := func(change func(*Load)) Load {
		l := keep
		change(&l)
		return l
	}
	short := func(l *Load) { l.Close = true }
	on := func(server, name, target string) Contestant {
		return Contestant{Name: name, Server: server, Targets: []string{target}}
	}
	nginx := on("nginx", "nginx", "/hello?t=TOKEN")
	c := on("baton", "baton, C wasm", "/c?t=TOKEN")
	g := on("baton", "baton, Go wasm", "/go?t=TOKEN")
	hello := []Contestant{nginx, c, g}
	all := []Workload{
		{Name: "keep-alive", About: "hello-world over 64 connections that stay open", Load: keep, Contestants: hello},
		{Name: "close", About: "hello-world with a new connection for each request", Load: with(short), Contestants: hello},
	}
	if depth == Quick {
		return all
	}
	few := c
	few.Name, few.Connections = "baton, C wasm, 64 connections", keep.Connections
	many := func(n int) Contestant {
		name := fmt.Sprintf("baton, %d functions", n)
		if n == 1 {
			name = "baton, one function"
		}
		return Contestant{Name: name, Server: manyServer(n), Targets: manyTargets(n)}
	}
	all = append(all,
		Workload{Name: "one connection", About: "hello-world over one connection, which shows latency alone",
			Load: with(func(l *Load) { l.Threads, l.Connections = 1, 1 }), Contestants: hello},
		Workload{Name: "1,000 connections", About: "hello-world over 1,000 connections that stay open",
			Load: with(func(l *Load) { l.Connections = 1000 }), Contestants: append(hello[:len(hello):len(hello)], few)},
		Workload{Name: "100 functions", About: "different C modules, hit uniformly", Load: keep, Rounds: 3, Contestants: []Contestant{many(1), many(100)}},
		Workload{Name: "php", About: "one PHP script, and the same as a handler", Load: keep, Rounds: 3, Contestants: []Contestant{
			on("php-fpm", "nginx + php-fpm", "/hello.php?t=TOKEN"),
			on("baton", "baton, PHP script", "/php?t=TOKEN"), on("baton", "baton, PHP handler", "/phphandler?t=TOKEN"),
		}},
		Workload{Name: "native", About: "one C program, run anew for each request", Load: keep, Rounds: 3, Contestants: []Contestant{
			on("spawn", "posix_spawn per request", "/?t=TOKEN"), on("baton", "baton, native C", "/native?t=TOKEN"),
		}},
		Workload{Name: "python", About: "one Python script, and the same as a handler", Load: keep, Rounds: 3, Contestants: []Contestant{
			on("python", "python3 per request", "/?t=TOKEN"),
			on("baton", "baton, Python script", "/python3?t=TOKEN"), on("baton", "baton, Python handler", "/pyhandler?t=TOKEN"),
		}},
	)
	if depth == Canonical {
		return all
	}
	servers := append(append([]Contestant{}, hello...),
		on("h2o", "h2o, a file", "/hello"), on("haproxy", "haproxy", "/hello?t=TOKEN"),
		on("gnet", "gnet", "/?t=TOKEN"), on("fasthttp", "fasthttp", "/?t=TOKEN"), on("net/http", "net/http", "/?t=TOKEN"),
		on("Node.js", "Node.js", "/?t=TOKEN"), on("workerd", "workerd", "/?t=TOKEN"),
		on("wazero", "net/http + wazero per request", "/?t=TOKEN"))
	var workers []Contestant
	for _, n := range workerCounts {
		workers = append(workers, on(workersServer(n), fmt.Sprintf("baton, %d workers", n), "/c?t=TOKEN"))
	}
	beside := func(name string, noise Noise) Contestant {
		x := c
		x.Name, x.Noise = name, noise
		return x
	}
	post := func(bytes, connections int) Workload {
		return Workload{Name: fmt.Sprintf("POST %d KiB", bytes>>10), About: "a body that the function reads whole", Rounds: 3,
			Load:        with(func(l *Load) { l.Body, l.Connections = bytes, connections }),
			Contestants: []Contestant{on("net/http", "net/http", "/echo?t=TOKEN"), on("baton", "baton, C wasm", "/echo?t=TOKEN")}}
	}
	return append(all,
		Workload{Name: "servers", About: "hello-world, beside servers that answer it themselves", Load: keep, Rounds: 3, Contestants: servers},
		Workload{Name: "servers, close", About: "the same with a new connection for each request", Load: with(short), Rounds: 3, Contestants: servers},
		post(1<<10, 64), post(1<<20, 8),
		Workload{Name: "answer of 100 KiB", About: "a large answer", Load: keep, Rounds: 3, Contestants: []Contestant{
			on("nginx", "nginx, a file", "/big"), on("baton", "baton, C wasm", "/big?t=TOKEN"),
		}},
		Workload{Name: "1,000 functions", About: "different C modules, hit uniformly", Load: keep, Rounds: 3, Contestants: []Contestant{many(1), many(1000)}},
		Workload{Name: "workers", About: "hello-world with more and more workers", Load: keep, Rounds: 3, Contestants: workers},
		Workload{Name: "neighbour", About: "hello-world while 4 connections call a function of 100 ms", Load: keep, Rounds: 3, Contestants: []Contestant{
			beside("baton, alone", Noise{}), beside("baton, with the neighbour", Noise{Target: slowPath, Connections: 4}),
		}},
		Workload{Name: "idle connections", About: "hello-world while 10,000 connections are open", Load: keep, Rounds: 3, Contestants: []Contestant{
			beside("baton, alone", Noise{}), beside("baton, with idle connections", Noise{Idle: idleConnections}),
		}},
		Workload{Name: "hop", About: "hello-world with and without another process between, which passes the bytes on", Load: keep, Rounds: 3, Contestants: []Contestant{
			beside("baton", Noise{}), on("proxy", "baton behind a proxy", "/c?t=TOKEN"),
		}},
	)
}

// needs lists the servers of workloads, each once, in order.
func needs(workloads []Workload) []string {
	var names []string
	seen := map[string]bool{}
	for _, w := range workloads {
		for _, c := range w.Contestants {
			if !seen[c.Server] {
				seen[c.Server] = true
				names = append(names, c.Server)
			}
		}
	}
	return names
}
