package bench

import (
	"errors"
	"io"
	"os"
	"path/filepath"
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
	if err != nil || user != 1500*time.Millisecond || system != 250*time.Millisecond {
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
			Measured: Measured{Requests: requests, Rate: rate, P50: 100, P90: 200, P99: int64(1e7 / rate)},
			User:     time.Second, System: time.Second, Private: 10 << 20,
		}
	}
	return Report{
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Command: "make bench", Commit: "abc",
		Machine: Machine{CPU: "a CPU", Cores: 2, Kernel: "6.1"},
		Results: []Result{{
			Workload: Canonical(5 * time.Second)[0],
			Series: []Series{
				{"nginx", []Round{round(1000, 100_000), round(2000, 100_000)}},
				{"baton", []Round{round(500, 50_000), round(1200, 50_000)}},
			},
		}},
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	const want = `2026-01-02, commit abc, a CPU, 2 cores, Linux 6.1; ` + "`make bench`" + `. Ratios are of the first server of the same round, median (min–max); "again" is that server measured twice: the noise floor.

**keep-alive**: ` + "`wrk -t2 -c64 -d5s`" + `, 2 rounds

| server | requests/s | ratio            | p50 µs | p90 µs | p99 µs | p99 ratio        | CPU µs/request | CPU ratio        | private MB | errors |
| ------ | ---------- | ---------------- | ------ | ------ | ------ | ---------------- | -------------- | ---------------- | ---------- | ------ |
| nginx  | 1500       | 1.00 (1.00–1.00) | 100    | 200    | 7500   | 1.00 (1.00–1.00) | 20.0           | 1.00 (1.00–1.00) | 10.0       | 0      |
| baton  | 850        | 0.55 (0.50–0.60) | 100    | 200    | 14166  | 1.83 (1.67–2.00) | 40.0           | 2.00 (2.00–2.00) | 10.0       | 0      |
`
	if got := report().Table(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
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
	_, err := Peer{Needs: "no-such-server", Package: "its-package"}.find()
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "apt-get install its-package") {
		t.Errorf("got %v", err)
	}
}

// TestRunNginx measures nginx against itself: the whole harness but baton.
func TestRunNginx(t *testing.T) {
	testenv.Need(t, "wrk", "nginx")
	second := Workload{"keep-alive", Load{Threads: 1, Connections: 2, Duration: time.Second}}
	results, err := Run(t.Context(), Options{
		Rounds: 1, Warmup: time.Second, Workloads: []Workload{second},
		Base: Nginx(1), Log: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 || len(results[0].Series) != 2 {
		t.Fatalf("got %+v, want one result of nginx and nginx again", results)
	}
	for _, s := range results[0].Series {
		r := s.Rounds[0]
		if r.Requests == 0 || r.Errors > 0 || r.CPU() <= 0 || r.Private <= 0 || r.P50 > r.P99 {
			t.Errorf("%s: %+v", s.Server, r)
		}
	}
}

// TestCheckNamesAWrongAnswer: a server that answers something else is not
// measured.
func TestCheckNamesAWrongAnswer(t *testing.T) {
	testenv.Need(t, "nginx")
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s, err := start(t.Context(), Nginx(1), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	}()
	s.peer.Want = "another answer"
	if err := s.check(t.Context()); err == nil || !strings.Contains(err.Error(), "another answer") {
		t.Errorf("got %v, want the answer and what was wanted", err)
	}
}
