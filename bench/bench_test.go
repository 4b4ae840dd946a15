package bench

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

func TestParseWrk(t *testing.T) {
	t.Parallel()
	got, err := parseWrk([]byte("Running 1s test\n  2 threads\nfigures 1000 2000000 50 90 99 999 1234 1 2 3 4 5\n"))
	want := Measured{Requests: 1000, Rate: 500, P50: 50, P90: 90, P99: 99, P999: 999, Max: 1234, Errors: 15}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "figures 1 2 3\n", "figures 1 0 0 0 0 0 0 0 0 0 0 0\n", "figures x 1 0 0 0 0 0 0 0 0 0 0\n"} {
		if got, err := parseWrk([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	stat := "42 (a name) with) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 1 0 100\n"
	user, system, err := parseStat([]byte(stat))
	if err != nil || user != 1570*time.Millisecond || system != 330*time.Millisecond {
		t.Errorf("got %v, %v, %v", user, system, err)
	}
	for _, bad := range []string{"", "42 name S", "42 (name) S 1 2 3"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParseStatus(t *testing.T) {
	t.Parallel()
	status := []byte("VmRSS:\t  100 kB\nRssAnon:\t    12 kB\n")
	if got := parseStatus(status, "RssAnon:"); got != 12<<10 {
		t.Errorf("RssAnon is %d", got)
	}
	if got := parseStatus(status, "RssShmem:"); got != 0 {
		t.Errorf("a line that is not there is %d", got)
	}
}

func TestUsageSeesThisProcess(t *testing.T) {
	t.Parallel()
	got, err := usage(os.Getpid())
	if err != nil || got.Processes < 1 || got.Private <= 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := usage(1 << 30); err == nil {
		t.Error("a process that is not there has a usage")
	}
}

func TestSpreadOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		values []float64
		want   spread
	}{
		{"one", []float64{3}, spread{3, 3, 3}},
		{"odd", []float64{9, 1, 2}, spread{2, 1, 9}},
		{"even", []float64{4, 1, 2, 9}, spread{3, 1, 9}},
	} {
		if got := spreadOf(tc.values); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

// report is two servers in two rounds; the second is half as fast and noisy.
func report() Report {
	round := func(rate float64, requests int64) Round {
		return Round{
			Measured: Measured{Requests: requests, Rate: rate, P50: 100, P90: 200, P99: int64(1e7 / rate), P999: 9000},
			User:     time.Second, System: time.Second, Private: 10 << 20,
		}
	}
	workload := Workloads(Quick, 5)[0]
	workload.Contestants = nil // as it is read back: without targets
	return Report{
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Command: "make bench", Commit: "abc",
		Machine: Machine{CPU: "a CPU", Cores: 2, Kernel: "6.1"},
		Results: []Result{{
			Workload: workload,
			Series: []Series{
				{Server: "nginx", Rounds: []Round{round(1000, 100_000), round(2000, 100_000)}},
				{Server: "baton", Rounds: []Round{round(500, 50_000), round(1200, 50_000)}, Syscalls: map[string]float64{"read": 1.01, "write": 1, "epoll_pwait": 0.25}},
			},
		}},
		Figures: []Figure{{Name: "a size", Unit: "MB", Values: []float64{3, 1, 2}, Promise: "under 4"}},
		Curves:  []Curve{{Server: "baton", Points: []Point{{Wanted: 1000, Rate: 999.6, P50: 100, P99: 200, Max: 300, Success: 1}}}},
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	const want = `2026-01-02, commit abc, a CPU, 2 cores, Linux 6.1; ` + "`make bench`" + `. Ratios are of the first server of the same round, median (min–max); "again" is that server measured twice: the noise floor.

**keep-alive**: hello-world over 64 connections that stay open. ` + "`wrk -t2 -c64 -d5s`" + `, 2 rounds

| server | requests/s | ratio            | p50 µs | p50 ratio        | p99 µs | p99 ratio        | p99.9 µs | CPU µs/request | CPU ratio        | MB   | system calls                            | errors |
| ------ | ---------- | ---------------- | ------ | ---------------- | ------ | ---------------- | -------- | -------------- | ---------------- | ---- | --------------------------------------- | ------ |
| nginx  | 1500       | 1.00 (1.00–1.00) | 100    | 1.00 (1.00–1.00) | 7500   | 1.00 (1.00–1.00) | 9000     | 20.0           | 1.00 (1.00–1.00) | 10.0 | –                                       | 0      |
| baton  | 850        | 0.55 (0.50–0.60) | 100    | 1.00 (1.00–1.00) | 14166  | 1.83 (1.67–2.00) | 9000     | 40.0           | 2.00 (2.00–2.00) | 10.0 | 1.01 read, 1.00 write, 0.25 epoll_pwait | 0      |

**Sizes and single times**, median (min–max)

| what   | measured   | promised   |
| ------ | ---------- | ---------- |
| a size | 2 MB (1–3) | under 4 MB |

**Latency at a given rate**, from an open-loop client (vegeta)

| server | asked/s | answered/s | p50 µs | p99 µs | max µs | answered with 200 |
| ------ | ------- | ---------- | ------ | ------ | ------ | ----------------- |
| baton  | 1000    | 1000       | 100    | 200    | 300    | 100.00 %          |
`
	if got := report().Table(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPlot: a plot is XML that loads nothing, with a bar for each contestant.
func TestPlot(t *testing.T) {
	t.Parallel()
	r := report()
	r.Results[0].Workload.About = "<&>"
	plot := r.Results[0].Plot()
	bars := 0
	for decoder := xml.NewDecoder(strings.NewReader(plot)); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, plot)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 2 || strings.Contains(plot, "href") || strings.Contains(plot, "url(") {
		t.Errorf("%d bars in %s", bars, plot)
	}
	if got := plotName("servers, 1 KiB"); got != "servers-1-kib" {
		t.Errorf("a file is named %q", got)
	}
}

// TestWorkloads: names are unique and every server that is named can be had.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	peers := Peers("baton", t.TempDir(), io.Discard)
	files := map[string]bool{}
	for _, w := range Workloads(Full, 1) {
		if file := plotName(w.Name); files[file] {
			t.Errorf("two workloads are %s", file)
		} else {
			files[file] = true
		}
		names := map[string]bool{}
		for _, c := range w.Contestants {
			if _, ok := peerNamed(peers, c.Server); !ok || names[c.Name] || len(c.Targets) == 0 {
				t.Errorf("%s: contestant %q on %q", w.Name, c.Name, c.Server)
			}
			names[c.Name] = true
		}
	}
}

func TestParseStrace(t *testing.T) {
	t.Parallel()
	const table = `strace: Process 1 attached
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 60.00    0.523220        2422       216        16 futex
 40.00    0.134418          21      6172           write
------ ----------- ----------- --------- --------- ------------------
100.00    1.8           1         6388        16 total
`
	got, err := parseStrace([]byte(table))
	if want := map[string]int64{"futex": 216, "write": 6172}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if got, err := parseStrace([]byte("nothing")); err == nil {
		t.Errorf("no table was read as %v", got)
	}
}

func TestParseVegeta(t *testing.T) {
	t.Parallel()
	const text = `{"latencies":{"50th":100000,"99th":200000,"max":300000},"throughput":999.5,"success":0.5,"requests":10}`
	want := Point{Wanted: 1000, Rate: 999.5, P50: 100, P99: 200, Max: 300, Success: 0.5}
	if got, err := parseVegeta([]byte(text), 1000); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "{}", "[]"} {
		if got, err := parseVegeta([]byte(bad), 1); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestSaveAndLast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, _, err := Last(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder has a last report: %v", err)
	}
	older, newer := report(), report()
	newer.Date = newer.Date.Add(time.Hour)
	newer.Commit = "newer"
	for _, r := range []Report{newer, older} {
		if _, err := r.Save(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, name, err := Last(dir)
	if err != nil || got.Commit != "newer" || filepath.Base(name) != "2026-01-02T040405Z.json" {
		t.Errorf("got %s from %s, %v", got.Commit, name, err)
	}
	if got.Table() != newer.Table() {
		t.Error("what was read back prints otherwise")
	}
}

func TestReplaceMarked(t *testing.T) {
	t.Parallel()
	text := "a\n" + markStart + "old\n" + markEnd + "b\n"
	got, err := replaceMarked([]byte(text), "new\n")
	if want := "a\n" + markStart + "\nnew\n\n" + markEnd + "b\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"", markStart, markEnd + markStart} {
		if _, err := replaceMarked([]byte(bad), "new\n"); !errors.Is(err, errNoMarks) {
			t.Errorf("%q: %v, want errNoMarks", bad, err)
		}
	}
}

func TestFindNamesThePackage(t *testing.T) {
	t.Parallel()
	_, err := find("no-such-server", "apt-get install its-package")
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Errorf("got %v", err)
	}
}

// TestRun measures nginx against itself: the whole harness but baton. What is
// not installed is left out and named.
func TestRun(t *testing.T) {
	testenv.Need(t, "wrk", "nginx")
	second := Workload{
		Name: "keep-alive", Load: Load{Threads: 1, Connections: 2, Duration: time.Second},
		Contestants: []Contestant{
			{Name: "nginx", Server: "nginx", Targets: []string{"/hello?t=TOKEN"}},
			{Name: "nowhere", Server: "absent", Targets: []string{"/"}},
		},
	}
	absent := Peer{Name: "absent", Commands: func(context.Context, string, string) ([]*exec.Cmd, error) {
		_, err := find("no-such-server", "apt-get install its-package")
		return nil, err
	}}
	var log strings.Builder
	got, err := Run(t.Context(), Options{
		Rounds: 1, Warmup: time.Second, Workloads: []Workload{second}, Peers: []Peer{nginx(), absent}, Log: &log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Results) != 1 || len(got.Results[0].Series) != 2 || !strings.Contains(log.String(), "its-package") {
		t.Fatalf("got %+v, want one result of nginx and nginx again; log:\n%s", got.Results, &log)
	}
	for _, s := range got.Results[0].Series {
		r := s.Rounds[0]
		if r.Requests == 0 || r.Errors > 0 || r.CPU() <= 0 || r.Private <= 0 || r.P50 > r.P99 || r.Samples == 0 {
			t.Errorf("%s: %+v", s.Server, r)
		}
	}
}

// TestPeersAnswer: every server that is installed starts, answers with the
// token of the request, and stops.
func TestPeersAnswer(t *testing.T) {
	cache := t.TempDir()
	want := map[string]string{
		"nginx": "/hello?t=TOKEN", "php-fpm": "/hello.php?t=TOKEN", "haproxy": "/hello?t=TOKEN", "h2o": "/hello", "Node.js": "/?t=TOKEN",
		"net/http": "/?t=TOKEN", "fasthttp": "/?t=TOKEN", "gnet": "/?t=TOKEN", "wazero": "/?t=TOKEN", "spawn": "/?t=TOKEN", "python": "/?t=TOKEN",
	}
	for _, peer := range Peers("baton", cache, io.Discard) {
		target, ok := want[peer.Name]
		if !ok {
			continue
		}
		t.Run(peer.Name, func(t *testing.T) {
			dir := t.TempDir()
			for parent := dir; parent != "/"; parent = filepath.Dir(parent) { // servers that change their user must reach it
				_ = os.Chmod(parent, 0o755)
				if parent == os.TempDir() {
					break
				}
			}
			// The kernel stops the server when the thread that started it ends.
			goruntime.LockOSThread()
			defer goruntime.UnlockOSThread()
			s, err := start(t.Context(), peer, dir)
			if errors.Is(err, ErrMissing) {
				t.Logf("not measured here: %v", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c := Contestant{Name: peer.Name, Targets: []string{target}}
			if err := s.check(t.Context(), c, Load{}); err != nil {
				t.Error(err)
			}
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCheckNamesAWrongAnswer: a server that answers without the token is not
// measured.
func TestCheckNamesAWrongAnswer(t *testing.T) {
	t.Parallel()
	constant := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "always this") }))
	defer constant.Close()
	s := &server{name: "constant", addr: constant.Listener.Addr().String()}
	err := s.check(t.Context(), Contestant{Name: "constant", Targets: []string{"/?t=TOKEN"}}, Load{})
	if err == nil || !strings.Contains(err.Error(), "always this") {
		t.Errorf("got %v, want the answer and what was wanted", err)
	}
}
