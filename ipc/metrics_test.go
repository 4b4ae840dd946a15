package ipc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"baton/internal/sys"
	"baton/internal/testenv"
)

func metricsSample() Metrics {
	return Metrics{
		PID: os.Getpid(), Worker: 3, CPU: 12.5, Memory: 30, IO: 0, Score: 15.25,
		Requests: 1 << 40, Errors: 7, UnixMillis: 1_800_000_000_123, Status: MetricsBusy,
	}
}

func TestMetricsRoundTrip(t *testing.T) {
	t.Parallel()
	for _, m := range []Metrics{
		metricsSample(),
		{PID: 1},
		{PID: pidMax, Worker: 65535, CPU: 100, Memory: 100, IO: 100, Score: 100, Requests: math.MaxUint64, Errors: math.MaxUint64, UnixMillis: metricsTimeMax, Status: MetricsOverloaded},
	} {
		b := AppendMetrics([]byte("x"), m)[1:]
		if len(b) != MetricsBytes {
			t.Errorf("%d bytes", len(b))
		}
		if got, fault := ParseMetrics(b); fault != MetricsOK || got != m {
			t.Errorf("%+v became %+v, %v", m, got, fault)
		}
	}
}

func TestMetricsSenseless(t *testing.T) {
	t.Parallel()
	m := metricsSample()
	m.CPU, m.Memory, m.IO, m.Score = math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)
	got, fault := ParseMetrics(AppendMetrics(nil, m))
	if fault != MetricsOK || got.CPU != 0 || got.Memory != 100 || got.IO != 0 || math.Signbit(got.Score) {
		t.Errorf("%+v, %v", got, fault)
	}
}

// refusals are datagrams that break one rule each.
func refusals() []struct {
	name  string
	fault MetricsFault
	b     []byte
} {
	change := func(f func(b []byte)) []byte {
		b := AppendMetrics(nil, metricsSample())
		f(b)
		return b
	}
	put16 := func(at int, v uint16) []byte {
		return change(func(b []byte) { binary.LittleEndian.PutUint16(b[at:], v) })
	}
	put32 := func(at int, v uint32) []byte {
		return change(func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) })
	}
	putFloat := func(at int, v float64) []byte {
		return change(func(b []byte) { binary.LittleEndian.PutUint64(b[at:], math.Float64bits(v)) })
	}
	whole := AppendMetrics(nil, metricsSample())
	return []struct {
		name  string
		fault MetricsFault
		b     []byte
	}{
		{"empty", MetricsBadSize, nil},
		{"one byte short", MetricsBadSize, whole[:MetricsBytes-1]},
		{"one byte long", MetricsBadSize, append(bytes.Clone(whole), 0)},
		{"much too long", MetricsBadSize, make([]byte, 4000)},
		{"zeros", MetricsBadMagic, make([]byte, MetricsBytes)},
		{"another version", MetricsBadVersion, put16(4, 2)},
		{"a status that cannot be", MetricsBadField, put16(6, 3)},
		{"pid 0", MetricsBadField, put32(8, 0)},
		{"a pid above the kernel's limit", MetricsBadField, put32(8, pidMax+1)},
		{"a worker above all bounds", MetricsBadField, put32(12, 65536)},
		{"a time beyond reason", MetricsBadField, change(func(b []byte) { b[70] = 0xff })},
		{"cpu above 100", MetricsBadRange, putFloat(16, 100.0001)},
		{"mem negative", MetricsBadRange, putFloat(24, -1)},
		{"io not a number", MetricsBadRange, putFloat(32, math.NaN())},
		{"score infinite", MetricsBadRange, putFloat(40, math.Inf(1))},
		{"score minus zero", MetricsBadRange, putFloat(40, math.Copysign(0, -1))},
	}
}

func TestMetricsRefused(t *testing.T) {
	t.Parallel()
	for _, test := range refusals() {
		if m, fault := ParseMetrics(test.b); fault != test.fault || m != (Metrics{}) {
			t.Errorf("%s: %v, want %v; %+v", test.name, fault, test.fault, m)
		}
	}
}

func TestMetricsWords(t *testing.T) {
	t.Parallel()
	for i, want := range []string{"idle", "busy", "overloaded", "unknown"} {
		if got := MetricsStatus(i).String(); got != want {
			t.Errorf("status %d: %s", i, got)
		}
	}
	seen := map[string]bool{}
	for f := range metricsFaultCount + 1 {
		if seen[f.String()] {
			t.Errorf("fault %d has the name of another, %s", f, f)
		}
		seen[f.String()] = true
	}
}

func FuzzMetrics(f *testing.F) {
	f.Add(AppendMetrics(nil, metricsSample()))
	for _, r := range refusals() {
		f.Add(r.b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, fault := ParseMetrics(b)
		if fault != MetricsOK {
			if m != (Metrics{}) {
				t.Fatalf("refused with %v, and still %+v", fault, m)
			}
			return
		}
		if again := AppendMetrics(nil, m); !bytes.Equal(again, b) {
			t.Fatalf("%x\nwas accepted, but is written as\n%x", b, again)
		}
	})
}

// collected is a collector in a directory of its own which registers pids by
// worker and keeps what comes.
type collected struct {
	*MetricsCollector
	path string
	pids map[int]int
	got  []Metrics
}

func collect(t *testing.T) *collected {
	t.Helper()
	c := &collected{path: filepath.Join(t.TempDir(), "metrics.sock"), pids: map[int]int{}}
	var err error
	c.MetricsCollector, err = ListenMetrics(c.path, MetricsOptions{
		Registered: func(worker int) int { return c.pids[worker] },
		Sink:       func(m Metrics) { c.got = append(c.got, m) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *collected) dial(t *testing.T) *MetricsSender {
	t.Helper()
	s, err := DialMetrics(c.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMetricsFlow(t *testing.T) {
	t.Parallel()
	c := collect(t)
	if st, err := os.Lstat(c.path); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	s := c.dial(t)
	c.pids[3] = os.Getpid()
	m := metricsSample()
	if n, err := c.Receive(); n != 0 || err != nil {
		t.Errorf("nothing was sent: %d, %v", n, err)
	}
	for range 2 {
		if !s.Send(m) {
			t.Fatal("dropped")
		}
	}
	if n, err := c.Receive(); n != 2 || err != nil || len(c.got) != 2 || c.got[0] != m || c.Accepted() != 2 {
		t.Errorf("%d, %v, %+v", n, err, c.got)
	}

	// Foreign: another worker's number, no such worker, another pid within.
	c.pids[4] = os.Getpid() + 1
	for _, worker := range []int{4, 5, 65535} {
		m.Worker = worker
		s.Send(m)
	}
	if n, _ := c.Receive(); n != 0 || c.Refused(MetricsBadWorker) != 3 {
		t.Errorf("%d accepted, %d strangers", n, c.Refused(MetricsBadWorker))
	}
	m.Worker, m.PID = 4, os.Getpid()+1
	s.Send(m)
	if n, _ := c.Receive(); n != 0 || c.Refused(MetricsBadSender) != 1 || c.Foreign() != 4 {
		t.Errorf("%d accepted, %d with another pid, %d foreign", n, c.Refused(MetricsBadSender), c.Foreign())
	}
	if c.Malformed() != 0 || len(c.got) != 2 {
		t.Errorf("%d malformed, %d in the sink", c.Malformed(), len(c.got))
	}
	if c.Refused(metricsFaultCount) != 0 {
		t.Error("a fault that is none has a count")
	}
}

func TestMetricsMalformedIsCountedAndIgnored(t *testing.T) {
	t.Parallel()
	c := collect(t)
	c.pids[3] = os.Getpid()
	s := c.dial(t)
	want := map[MetricsFault]uint64{}
	for _, r := range refusals() {
		want[r.fault]++
		if _, errno := sys.SendMsg(s.sock.Borrow(), [][]byte{r.b}, nil); errno != 0 {
			t.Fatal(errno)
		}
		if n, err := c.Receive(); n != 0 || err != nil {
			t.Errorf("%s: %d accepted, %v", r.name, n, err)
		}
	}
	for fault, n := range want {
		if c.Refused(fault) != n {
			t.Errorf("%v: %d, want %d", fault, c.Refused(fault), n)
		}
	}
	if c.Malformed() != uint64(len(refusals())) {
		t.Errorf("%d malformed", c.Malformed())
	}
	s.Send(metricsSample())
	if n, err := c.Receive(); n != 1 || err != nil {
		t.Errorf("a good one after them: %d, %v", n, err)
	}
}

// TestMetricsFromAnotherProcess: a child that names its parent's pid, which is
// registered, is refused: the credentials are the kernel's word. The sample of
// its own pid is taken.
func TestMetricsFromAnotherProcess(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	c := collect(t)
	c.pids[3] = os.Getpid()
	m := metricsSample()
	child := exec.Command("python3", "-c", `
import os, socket, struct, sys
forged = bytes.fromhex(sys.argv[2])
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(sys.argv[1])
s.send(forged)
s.send(forged[:8] + struct.pack('<II', os.getpid(), 4) + forged[16:])
sys.stdin.read()
`, c.path, hex.EncodeToString(AppendMetrics(nil, m)))
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	c.pids[4] = child.Process.Pid
	testenv.Until(t, "both datagrams are there", func() bool {
		if _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
		return c.Accepted()+c.Foreign() == 2
	})
	stdin.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if c.Refused(MetricsBadSender) != 1 || len(c.got) != 1 || c.got[0].PID != child.Process.Pid {
		t.Errorf("forged: %d refused; taken: %+v", c.Refused(MetricsBadSender), c.got)
	}
}

// TestMetricsPassedDescriptorIsNotTaken: pitfall "who can write can inject
// descriptors".
func TestMetricsPassedDescriptorIsNotTaken(t *testing.T) {
	t.Parallel()
	c := collect(t)
	c.pids[3] = os.Getpid()
	s := c.dial(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var control [64]byte
	rights := sys.PutRights(control[:], []int32{int32(w.Fd())})
	if _, errno := sys.SendMsg(s.sock.Borrow(), [][]byte{AppendMetrics(nil, metricsSample())}, rights); errno != 0 {
		t.Fatal(errno)
	}
	w.Close()
	if n, err := c.Receive(); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	// Nobody holds the writing end any more: the pipe is at its end.
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the descriptor lives: %d, %v", n, err)
	}
}

func TestMetricsSenderNeverWaits(t *testing.T) {
	t.Parallel()
	c := collect(t)
	c.pids[3] = os.Getpid()
	s := c.dial(t)
	sent := 0
	for s.Send(metricsSample()) {
		if sent++; sent > 1<<20 {
			t.Fatal("the queue has no bound")
		}
	}
	if s.Dropped() != 1 {
		t.Errorf("%d dropped", s.Dropped())
	}
	got := 0
	for {
		n, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		if n > receiveMax {
			t.Errorf("%d in one go", n)
		}
		got += n
	}
	if got != sent {
		t.Errorf("%d sent, %d received", sent, got)
	}
	if !s.Send(metricsSample()) {
		t.Error("the queue is empty, and the sample is dropped")
	}
}

func TestMetricsCollectorGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "metrics.sock")
	if _, err := DialMetrics(path); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no collector yet: %v", err)
	}
	c, err := ListenMetrics(path, MetricsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := DialMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s.Send(metricsSample()) || s.Dropped() != 1 {
		t.Error("sent to nobody")
	}
	if _, err := c.Receive(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("receive after close: %v", err)
	}
}

func BenchmarkMetricsSendReceive(b *testing.B) {
	path := filepath.Join(b.TempDir(), "metrics.sock")
	c, err := ListenMetrics(path, MetricsOptions{Registered: func(int) int { return os.Getpid() }, Sink: func(Metrics) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := DialMetrics(path)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	m := metricsSample()
	b.ReportAllocs()
	for b.Loop() {
		s.Send(m)
		if n, _ := c.Receive(); n != 1 {
			b.Fatal(n)
		}
	}
}
