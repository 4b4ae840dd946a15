package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMetricsGolden holds the names that dashboards rely on.
func TestMetricsGolden(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	a := s.unix(t, request("GET", "/metrics"))
	checkForm(t, a)
	if a.StatusCode != 200 || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%d %s", a.StatusCode, a.Header.Get("Content-Type"))
	}
	var ours strings.Builder
	for line := range strings.Lines(a.body) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			ours.WriteString(line)
		}
	}
	path := filepath.Join("testdata", "metrics.txt")
	if os.Getenv("BATON_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(ours.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if ours.String() != string(want) {
		t.Errorf("metrics differ; got:\n%s\nwant:\n%s", ours.String(), want)
	}
	if !strings.Contains(a.body, "go_goroutines ") || !strings.Contains(a.body, "process_open_fds ") {
		t.Error("the Go runtime's and the process's own metrics are missing")
	}
}

// Whatever the backend says, the page of metrics can be made.
func TestMetricsOfAnything(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	s.world.mu.Lock()
	s.world.functions = []Function{
		{State: Serving, Name: "\xff\xfe"}, {State: Serving, Name: "\xff\xfd"}, {State: Stale, Name: "twice", Inflight: 1},
		{State: Serving, Name: "twice", Inflight: 2}, {State: Bad}, {},
	}
	s.world.workers = nil
	s.world.status = Status{Counters: []Counter{{"a b\n", 1}, {"a b\n", 2}, {"", 3}}}
	s.world.mu.Unlock()
	a := s.unix(t, request("GET", "/metrics"))
	if a.StatusCode != 200 || !strings.Contains(a.body, "http_requests_in_flight 3\n") || !strings.Contains(a.body, `baton_events_total{event="a b\n"} 3`) {
		t.Errorf("%d %.2000s", a.StatusCode, a.body)
	}
}
