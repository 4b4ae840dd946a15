package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// peak is the most memory that a process has had, in bytes.
func peak(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no VmHWM in %q", status)
	return 0
}

// A body of 1 GiB reaches a function that reads it as a stream, and neither
// process has more memory for it, however it is framed and whoever has parsed
// its head. The race detector slows every byte, so there the body is 64 MiB.
func TestLargestBodyInConstantMemory(t *testing.T) {
	t.Parallel()
	size := 1 << 30
	if raceEnabled {
		size = 64 << 20
	}
	// What a process may grow by: a collection late, and a stack or two.
	const growth = 32 << 20
	s := start(t, testenv.Options{Workers: 1})
	put(t, open(t, s), "POST:/count", row{"name": "count", "handler": "count", "max_body": 1 << 30, "timeout": 600})
	awaitRoute(t, s.Addr, "/count", true)
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	send := func(c *testenv.Conn, chunked bool, size int) {
		t.Helper()
		if err := c.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriterSize(c.Conn, 64<<10)
		field := fmt.Sprint("Content-Length: ", size)
		if chunked {
			field = "Transfer-Encoding: chunked"
		}
		fmt.Fprintf(w, "POST /count HTTP/1.1\r\nHost: t\r\n%s\r\n\r\n", field)
		for left := size; left > 0; left -= len(block) {
			if chunked {
				fmt.Fprintf(w, "%x;n=%d\r\n", len(block), left)
			}
			_, _ = w.Write(block)
			if chunked {
				_, _ = w.WriteString("\r\n")
			}
		}
		if chunked {
			_, _ = w.WriteString("0\r\nTrailer: dropped\r\n\r\n")
		}
		if err := w.Flush(); err != nil {
			t.Fatalf("send %d bytes, chunked: %v: %v", size, chunked, err)
		}
		want(t, c.Response(t), 200, fmt.Sprintf(`{"bytes":%d,"error":"<nil>"}`, size))
	}
	send(testenv.Dial(t, s.Addr), true, 8<<20)
	workers := s.Workers()
	if len(workers) != 1 {
		t.Fatalf("%d workers", len(workers))
	}
	gateway, worker := peak(t, s.Pid), peak(t, workers[0])
	c := testenv.Dial(t, s.Addr)
	send(c, false, size) // the gateway parses its head
	send(c, true, size)  // the worker does
	c.Send(t, get("/ping"))
	want(t, c.Response(t), 200, "pong")
	grown := func(who string, pid, before int) {
		t.Helper()
		after := peak(t, pid)
		t.Logf("%s: at most %d MiB before, %d MiB after", who, before>>20, after>>20)
		if after-before > growth {
			t.Errorf("%s: grew by %d MiB for a body of %d MiB", who, (after-before)>>20, size>>20)
		}
	}
	grown("gateway", s.Pid, gateway)
	grown("worker", workers[0], worker)
}

// scrape asks for a counter of GET /metrics.
func scrape(t *testing.T, s *testenv.Server, series string) int {
	t.Helper()
	r, err := testenv.Do(s.Addr, "GET /metrics HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer "+s.Token(t)+"\r\n\r\n")
	if err != nil || r.Status != 200 {
		t.Fatalf("status %d, %v, %.200q", r.Status, err, r.Body)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\d+)$`).FindSubmatch(r.Body)
	if m == nil {
		t.Fatalf("no %s in the metrics", series)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var answerBegin = regexp.MustCompile(`HTTP/1\.1 \d{3} `)

// Every law of the parser through the product: as a connection's first request,
// which the gateway parses, and as its second, which the worker does. The
// answers are the same, name the reason, and each refusal has been counted.
func TestEveryLawOnBothSides(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	file, err := os.Open(filepath.Join("..", "httpparse", "testdata", "laws.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	differing := regexp.MustCompile(`Date: [^\r]*|X-Request-Id: [^\r]*|"requestId":"[^"]*"|"ts":\d+`)
	refused := map[string]int{}
	laws := 0
	for lines := bufio.NewScanner(file); lines.Scan(); laws++ {
		var name, verdict, request string
		if n, err := fmt.Sscanf(lines.Text(), "%q %q %q", &name, &verdict, &request); n != 3 {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if strings.HasPrefix(name, "chunks: ") {
			request = "POST /api/hello HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + request
		}
		var answers [2]string
		for i := range answers {
			c := testenv.Dial(t, s.Addr)
			if i == 1 {
				c.Send(t, get("/ping"))
				want(t, c.Response(t), 200, "pong")
			}
			c.Send(t, request)
			// Whoever waits for more is told that there is none.
			if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(c.Conn)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("%s: %v after %q", name, err, all)
			}
			c.Close()
			answers[i] = differing.ReplaceAllString(string(all), "-")
		}
		if answers[0] != answers[1] {
			t.Errorf("%s:\n%q as the first request,\n%q as the second", name, answers[0], answers[1])
		}
		if verdict == "accepted" || verdict == "incomplete" {
			continue
		}
		refused[verdict] += 2
		if !strings.HasPrefix(request, "HEAD ") && !strings.Contains(answers[0], `"reason":"`+verdict+`"`) ||
			len(answerBegin.FindAllString(answers[0], -1)) != 1 || !strings.Contains(answers[0], "\r\nConnection: close\r\n") {
			t.Errorf("%s: the law says %s; the answer: %q", name, verdict, answers[0])
		}
	}
	if laws < 300 || len(refused) < 35 {
		t.Errorf("%d laws, %d reasons", laws, len(refused))
	}
	for reason, n := range refused {
		series := fmt.Sprintf(`baton_events_total{event="refused_%s"}`, reason)
		testenv.Until(t, reason+" is counted", func() bool { return scrape(t, s, series) == n })
	}
}

// A client that leaves while its function runs ends it: 499 in the log.
func TestClientThatLeavesIsLogged(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	put(t, open(t, s), "GET:/long", row{"name": "long", "handler": "spin", "timeout": 600})
	awaitRoute(t, s.Addr, "/long", true)
	c := testenv.Dial(t, s.Addr)
	c.Send(t, "GET /long?ms=500000 HTTP/1.1\r\nHost: t\r\nX-Request-Id: left-1\r\n\r\n")
	testenv.Until(t, "it runs", func() bool { return scrape(t, s, "http_requests_in_flight") == 1 })
	c.Close()
	testenv.Until(t, "it ended", func() bool { return scrape(t, s, "http_requests_in_flight") == 0 })
	testenv.Until(t, "the log says so", func() bool {
		for line := range strings.Lines(s.Log()) {
			if strings.Contains(line, `"left-1"`) && strings.Contains(line, `"status":499`) {
				return true
			}
		}
		return false
	})
	testenv.Until(t, "it is counted", func() bool { return scrape(t, s, `baton_events_total{event="hangups"}`) == 1 })
}
