package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Figure is one measured quantity that is no load: sizes and single times.
type Figure struct {
	Name    string    `json:"name"`
	Unit    string    `json:"unit"`
	Values  []float64 `json:"values"`
	Promise string    `json:"promise,omitempty"` // in words
}

// probe measures figures of baton on a server of its own.
type probe struct {
	name  string
	depth Depth
	peer  func(binary string) Peer
	run   func(ctx context.Context, s *server, d Deployer) ([]Figure, error)
}

// only deploys nothing.
func only(context.Context, Deployer) error { return nil }

func with(deploy func(context.Context, Deployer) error, workers int) func(string) Peer {
	return func(binary string) Peer { return Baton("baton", binary, workers, deploy) }
}

func oneOf(names ...string) func(context.Context, Deployer) error {
	return func(ctx context.Context, d Deployer) error {
		for _, f := range functions {
			for _, name := range names {
				if f.name != name {
					continue
				}
				if _, err := d.deploy(ctx, f); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

var probes = []probe{
	{"footprint, C", Canonical, with(Hello, 0), footprint("one C function", "/c?t=x", 40)},
	{"footprint, Go", Canonical, with(oneOf("go"), 0), footprint("one Go function", "/go?t=x", 64)},
	{"idle connections", Canonical, with(Hello, 0), idleCost},
	{"deploy to first answer", Canonical, with(only, 0), firstAnswer},
	{"first call", Canonical, with(only, 1), firstCall},
	{"route growth", Full, with(Hello, 0), growth},
}

// mega is the unit of sizes: what the promises are written in.
const mega = 1e6

// footprint measures the private memory of the gateway and of a worker, with 64
// connections that were used and 1,000 routes.
func footprint(what, target string, worker int) func(context.Context, *server, Deployer) ([]Figure, error) {
	return func(ctx context.Context, s *server, d Deployer) ([]Figure, error) {
		if err := addRoutes(ctx, s, d, 1000); err != nil {
			return nil, err
		}
		load := Load{Threads: 2, Connections: 64, Duration: 2 * time.Second}
		if _, err := wrk(ctx, s.dir, s.addr, []string{target}, load); err != nil {
			return nil, err
		}
		conns, err := openIdle(s.addr, 64)
		defer closeAll(conns)
		if err != nil {
			return nil, err
		}
		gateway := Figure{Name: "gateway, 64 connections, 1,000 routes, " + what, Unit: "MB", Promise: "under 25"}
		workers := Figure{Name: "a worker, " + what, Unit: "MB", Promise: fmt.Sprintf("under %d", worker)}
		pids := tree(s.ran[0].cmd.Process.Pid)
		for i, pid := range pids {
			private := float64(privateOf(pid)) / mega
			if i == 0 {
				gateway.Values = append(gateway.Values, private)
			} else {
				workers.Values = append(workers.Values, private)
			}
		}
		return []Figure{gateway, workers}, nil
	}
}

// privateOf is a process's memory that no file backs, in bytes; 0: it is gone.
func privateOf(pid int) int64 {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	return parseStatus(status, "RssAnon:") + parseStatus(status, "RssShmem:")
}

// idleCost measures what 10,000 open connections, each used once, add to all
// processes together.
func idleCost(_ context.Context, s *server, _ Deployer) ([]Figure, error) {
	before, err := s.usage()
	if err != nil {
		return nil, err
	}
	conns, err := openIdle(s.addr, idleConnections)
	defer closeAll(conns)
	if err != nil {
		return nil, err
	}
	after, err := s.usage()
	if err != nil {
		return nil, err
	}
	return []Figure{{
		Name: "10,000 idle connections, all processes together", Unit: "MB", Promise: "under 40",
		Values: []float64{float64(after.Private-before.Private) / mega},
	}}, nil
}

// openIdle opens n connections and asks each of them once. What is open is
// returned with the error too.
func openIdle(addr string, n int) (conns []net.Conn, err error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	answer := make([]byte, 4096)
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return conns, err
		}
		conns = append(conns, conn)
		if err := conn.SetDeadline(time.Now().Add(checkTimeout)); err != nil {
			return conns, err
		}
		if _, err = fmt.Fprintf(conn, "GET /c?t=x HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err == nil {
			_, err = conn.Read(answer)
		}
		if err != nil {
			return conns, err
		}
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// firstAnswer measures the time from the start of an upload of C source until
// the function has answered. Each source is another one, so nothing is cached.
func firstAnswer(ctx context.Context, s *server, d Deployer) ([]Figure, error) {
	figure := Figure{Name: "deploy of C source to its first answer", Unit: "ms", Promise: "under 1,000"}
	source, err := sources.ReadFile("functions/hello.c")
	if err != nil {
		return nil, err
	}
	for i := range 7 {
		code := fmt.Appendf(nil, "%s\nint unused%d;\n", source, i)
		began := time.Now()
		f := function{name: fmt.Sprint("first-", i), runtime: "c", target: "wasm", path: fmt.Sprint("/first/", i), source: "hello.c", code: code}
		if _, err := d.deploy(ctx, f); err != nil {
			return nil, err
		}
		if _, err := ask(ctx, s.addr, fmt.Sprintf("/first/%d?t=x", i), 0); err != nil {
			return nil, err
		}
		if i > 0 { // the first fills the compiler's own caches
			figure.Values = append(figure.Values, millis(time.Since(began)))
		}
	}
	return []Figure{figure}, nil
}

// firstCall measures the first call of functions that were deployed and not yet
// used, per runtime, over a connection that is open.
func firstCall(ctx context.Context, s *server, d Deployer) ([]Figure, error) {
	var figures []Figure
	for _, kind := range functions {
		if kind.name == "echo" || kind.name == "big" || kind.name == "slow" {
			continue
		}
		figure := Figure{Name: "first call, " + kind.name, Unit: "ms"}
		if kind.name == "c" {
			figure.Promise = "under 1"
		}
		source, err := sources.ReadFile("functions/" + kind.source)
		if err != nil {
			return nil, err
		}
		for i := range 5 {
			f := kind
			f.name, f.path = fmt.Sprintf("%s-%d", kind.name, i), fmt.Sprintf("/call/%s/%d", kind.name, i)
			f.code = source
			if _, err := d.deploy(ctx, f); err != nil {
				break // no toolchain
			}
			took, err := timeCall(s.addr, f.path+"?t=x")
			if err != nil {
				return nil, err
			}
			figure.Values = append(figure.Values, millis(took))
		}
		if len(figure.Values) > 0 {
			figures = append(figures, figure)
		}
	}
	return figures, nil
}

// timeCall times one request on a connection that is open and was used.
func timeCall(addr, target string) (time.Duration, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(checkTimeout)); err != nil {
		return 0, err
	}
	answer := make([]byte, 4096)
	exchange := func(target string) error {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, addr); err != nil {
			return err
		}
		_, err := conn.Read(answer)
		return err
	}
	if err := exchange("/healthz"); err != nil {
		return 0, err
	}
	began := time.Now()
	err = exchange(target)
	took := time.Since(began)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		err = fmt.Errorf("%s answers %.100q", target, answer)
	}
	return took, err
}

// growth measures, with more and more routes, the time from the commit of a new
// row by another process until its route answers.
func growth(ctx context.Context, s *server, d Deployer) ([]Figure, error) {
	var figures []Figure
	for _, routes := range []int{100, 1000, 10_000, 100_000} {
		if err := addRoutes(ctx, s, d, routes); err != nil {
			return nil, err
		}
		figure := Figure{Name: fmt.Sprintf("commit to live, %d routes", routes), Unit: "ms", Promise: "under 100"}
		for i := range 10 {
			path := fmt.Sprintf("/live/%d/%d", routes, i)
			if err := sqlite(ctx, d, fmt.Sprintf("INSERT INTO functions(k, v) SELECT 'GET:%[1]s', json_set(v, '$.name', 'live-%[2]d-%[3]d', '$.path', '%[1]s', '$.method', 'GET') FROM functions LIMIT 1", path, routes, i)); err != nil {
				return nil, err
			}
			began := time.Now()
			if err := awaitLive(ctx, s.addr, path+"?t=x"); err != nil {
				return nil, err
			}
			figure.Values = append(figure.Values, millis(time.Since(began)))
		}
		figures = append(figures, figure)
	}
	return figures, nil
}

// addRoutes adds rows for the deployed function until the table has n, and
// waits until the last of them answers.
func addRoutes(ctx context.Context, s *server, d Deployer, n int) error {
	last := fmt.Sprintf("/grown/%d", n)
	err := sqlite(ctx, d, fmt.Sprintf(`INSERT OR IGNORE INTO functions(k, v)
		WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d)
		SELECT 'GET:/grown/' || n, json_set((SELECT v FROM functions LIMIT 1), '$.name', 'grown-' || n, '$.path', '/grown/' || n, '$.method', 'GET') FROM i`, n))
	if err != nil {
		return err
	}
	return awaitLive(ctx, s.addr, last+"?t=x")
}

// awaitLive asks until the answer is 200.
func awaitLive(ctx context.Context, addr, target string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		_, err := ask(ctx, addr, target, 0)
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// sqlite runs a statement as another process would.
func sqlite(ctx context.Context, d Deployer, statement string) error {
	path, err := find("sqlite3", "apt-get install sqlite3")
	if err != nil {
		return err
	}
	output, err := exec.CommandContext(ctx, path, "-cmd", ".timeout 5000", filepath.Join(d.data, "faas_meta.db"), statement).CombinedOutput()
	if err != nil {
		return fmt.Errorf("sqlite3: %w: %.300s", err, output)
	}
	return nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// figures runs the probes of a depth, each on a server of its own. What cannot
// be measured here is said on the log and left out.
func figures(ctx context.Context, o Options, dir string) (all []Figure, err error) {
	for _, p := range probes {
		if p.depth > o.Depth {
			continue
		}
		measured, err := p.measure(ctx, o, dir)
		if errors.Is(err, ErrMissing) {
			fmt.Fprintf(o.Log, "left out: %s: %v\n", p.name, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, f := range measured {
			fmt.Fprintf(o.Log, "%-50s %s\n", f.Name, f.text())
		}
		all = append(all, measured...)
	}
	return all, nil
}

func (p probe) measure(ctx context.Context, o Options, dir string) (all []Figure, err error) {
	peer := p.peer(o.Binary)
	var d Deployer
	deploy := peer.Ready
	peer.Ready = func(ctx context.Context, dir, addr string) (err error) {
		if d, err = deployerOf(dir, addr); err != nil {
			return err
		}
		return deploy(ctx, dir, addr)
	}
	s, err := start(ctx, peer, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	return p.run(ctx, s, d)
}

func (f Figure) text() string {
	if len(f.Values) == 0 {
		return "–"
	}
	s := spreadOf(f.Values)
	return fmt.Sprintf("%.3g %s (%.3g–%.3g)", s.median, f.Unit, s.min, s.max)
}
