package ipc

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"syscall"

	"baton/internal/fd"
	"baton/internal/sys"
)

// MetricsBytes is the size of a metrics datagram: 72 bytes, little-endian.
//
//	0   u32  magic, "BMET"
//	4   u16  version, 1
//	6   u16  status: 0 idle, 1 busy, 2 overloaded
//	8   u32  pid of the worker
//	12  u32  index of the worker
//	16  f64  cpu     normalised and smoothed, 0 to 100
//	24  f64  mem
//	32  f64  io
//	40  f64  score, 0 to 100
//	48  u64  requests since the worker started
//	56  u64  errors since the worker started
//	64  u64  time of the sample, Unix milliseconds
//
// Binary and not JSON: one length and thirteen fixed places are checked in full,
// with nothing to skip, repeat or misspell; writing and reading allocate nothing;
// and both ends are the same binary, so nobody else has to read it. For people
// there is the status command, which prints the same fields.
const MetricsBytes = 72

const (
	metricsMagic   = 0x54454d42 // "BMET"
	metricsVersion = 1

	// pidMax is PID_MAX_LIMIT of 64-bit Linux.
	pidMax = 1 << 22

	// metricsTimeMax keeps the time within what a time.Time can print.
	metricsTimeMax = 1 << 48
)

// MetricsStatus is the worker's score in a word.
type MetricsStatus uint8

const (
	MetricsIdle MetricsStatus = iota
	MetricsBusy
	MetricsOverloaded
	metricsStatusCount
)

// String returns idle, busy or overloaded.
func (s MetricsStatus) String() string {
	switch s {
	case MetricsIdle:
		return "idle"
	case MetricsBusy:
		return "busy"
	case MetricsOverloaded:
		return "overloaded"
	}
	return "unknown"
}

// Metrics is what a worker reports of itself, twice a second.
type Metrics struct {
	PID, Worker int

	// CPU, Memory and IO are normalised and smoothed, Score is made of them; all
	// 0 to 100.
	CPU, Memory, IO, Score float64

	// Requests and Errors count since the worker started.
	Requests, Errors uint64

	UnixMillis int64
	Status     MetricsStatus
}

// MetricsFault says why a datagram was refused. Zero: it was accepted.
type MetricsFault uint8

const (
	MetricsOK MetricsFault = iota

	// Malformed: one per rule of the form.
	MetricsBadSize    // not MetricsBytes long
	MetricsBadMagic   // not a metrics datagram
	MetricsBadVersion // from another version
	MetricsBadField   // a pid, worker, time or status that cannot be
	MetricsBadRange   // a part or the score not within 0 to 100

	// Foreign: well-formed, but not from whom it says.
	MetricsBadSender // no credentials, or other ones than the pid within
	MetricsBadWorker // the pid is not that of the worker it names
	metricsFaultCount
)

// String returns the fault in snake case, for logs and counters.
func (f MetricsFault) String() string {
	switch f {
	case MetricsOK:
		return "ok"
	case MetricsBadSize:
		return "size"
	case MetricsBadMagic:
		return "magic"
	case MetricsBadVersion:
		return "version"
	case MetricsBadField:
		return "field"
	case MetricsBadRange:
		return "range"
	case MetricsBadSender:
		return "sender"
	case MetricsBadWorker:
		return "worker"
	}
	return "unknown"
}

// AppendMetrics appends the datagram of m to dst. A part that is not a number
// or outside of 0 to 100 is sent as the nearest bound (NaN as 0): a sample that
// makes no sense must not silence the worker.
func AppendMetrics(dst []byte, m Metrics) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, metricsMagic)
	dst = le.AppendUint16(dst, metricsVersion)
	dst = le.AppendUint16(dst, uint16(m.Status))
	dst = le.AppendUint32(dst, uint32(m.PID))
	dst = le.AppendUint32(dst, uint32(m.Worker))
	for _, part := range [...]float64{m.CPU, m.Memory, m.IO, m.Score} {
		if !(part > 0) { // also NaN and -0
			part = 0
		}
		dst = le.AppendUint64(dst, math.Float64bits(min(part, 100)))
	}
	dst = le.AppendUint64(dst, m.Requests)
	dst = le.AppendUint64(dst, m.Errors)
	return le.AppendUint64(dst, uint64(m.UnixMillis))
}

// ParseMetrics reads one datagram. It checks the form, not the sender. What is
// accepted is what AppendMetrics writes of the result, byte for byte.
func ParseMetrics(b []byte) (m Metrics, fault MetricsFault) {
	le := binary.LittleEndian
	switch {
	case len(b) != MetricsBytes:
		return Metrics{}, MetricsBadSize
	case le.Uint32(b) != metricsMagic:
		return Metrics{}, MetricsBadMagic
	case le.Uint16(b[4:]) != metricsVersion:
		return Metrics{}, MetricsBadVersion
	}
	status, pid, worker := le.Uint16(b[6:]), le.Uint32(b[8:]), le.Uint32(b[12:])
	millis := le.Uint64(b[64:])
	if status >= uint16(metricsStatusCount) || pid == 0 || pid > pidMax || worker > math.MaxUint16 || millis > metricsTimeMax {
		return Metrics{}, MetricsBadField
	}
	var parts [4]float64
	for i := range parts {
		bits := le.Uint64(b[16+8*i:])
		parts[i] = math.Float64frombits(bits)
		if !(parts[i] >= 0 && parts[i] <= 100) || bits>>63 != 0 {
			return Metrics{}, MetricsBadRange
		}
	}
	return Metrics{
		PID: int(pid), Worker: int(worker), Status: MetricsStatus(status),
		CPU: parts[0], Memory: parts[1], IO: parts[2], Score: parts[3],
		Requests: le.Uint64(b[48:]), Errors: le.Uint64(b[56:]), UnixMillis: int64(millis),
	}, MetricsOK
}

// MetricsSender sends a worker's metrics, fire and forget. One goroutine sends;
// Dropped may be read by all.
type MetricsSender struct {
	sock    fd.FD
	buf     [MetricsBytes]byte
	dropped atomic.Uint64
}

// DialMetrics connects to the collector at path. A worker does this before its
// sandbox closes; the socket stays connected for the worker's life, because the
// collector lives as long as the gateway, whose end ends the workers.
func DialMetrics(path string) (*MetricsSender, error) {
	n, err := sys.DialUnixgram(path)
	if err != nil {
		return nil, err
	}
	s := new(MetricsSender)
	s.sock = fd.New(n)
	return s, nil
}

// Send sends m without waiting. False: it was dropped and counted, because the
// collector is slow or gone; the next sample says all that this one said.
func (s *MetricsSender) Send(m Metrics) bool {
	b := AppendMetrics(s.buf[:0], m)
	parts := [1][]byte{b}
	if _, errno := sys.SendMsg(s.sock.Borrow(), parts[:], nil); errno != 0 {
		s.dropped.Add(1)
		return false
	}
	return true
}

// Dropped returns how many samples were not sent.
func (s *MetricsSender) Dropped() uint64 { return s.dropped.Load() }

// Close ends the sender.
func (s *MetricsSender) Close() error { return s.sock.Close() }

// MetricsOptions is what a collector needs of its gateway.
type MetricsOptions struct {
	// Registered returns the pid of the worker with that index, 0 when there is
	// none that runs. It is called on the goroutine of Receive, with any index
	// from 0 to 65,535.
	Registered func(worker int) (pid int)

	// Sink takes what was accepted, on the goroutine of Receive.
	Sink func(Metrics)
}

// MetricsCollector receives the workers' metrics. One goroutine calls Receive,
// when Borrow is readable; the counters may be read by all.
type MetricsCollector struct {
	options MetricsOptions
	sock    fd.FD
	buf     [MetricsBytes + 1]byte // one more, so that a longer one is seen
	control [sys.CredentialsSpace]byte

	accepted atomic.Uint64
	refused  [metricsFaultCount]atomic.Uint64
}

// receiveMax bounds the datagrams of one Receive, so that whoever floods the
// socket does not hold the loop; with a level-triggered poller it is called
// again. The kernel queues at most net.unix.max_dgram_qlen (10, or 512 on newer
// distributions) datagrams, beyond which senders drop.
const receiveMax = 128

// ListenMetrics binds the collector's socket to path, with mode 0600 from the
// moment it is there. An earlier process's socket there is replaced.
func ListenMetrics(path string, o MetricsOptions) (*MetricsCollector, error) {
	n, err := sys.ListenUnixgram(path)
	if err != nil {
		return nil, err
	}
	c := new(MetricsCollector)
	c.options, c.sock = o, fd.New(n)
	return c, nil
}

// Borrow returns the socket's number, to be watched for reading; it stays the
// collector's.
func (c *MetricsCollector) Borrow() int { return c.sock.Borrow() }

// Receive takes what has arrived, without waiting: at most receiveMax datagrams.
// It returns how many were accepted. What is malformed or foreign is counted and
// ignored. An error is the socket's own, and not EAGAIN.
//
// The credentials are the kernel's word (unix(7), SO_PASSCRED): a datagram is a
// worker's when they name the pid that the datagram names and that is registered
// for the worker it names. Passed descriptors do not arrive: there is no room
// for them, so the kernel closes them.
func (c *MetricsCollector) Receive() (accepted int, err error) {
	for range receiveMax {
		n, controlLen, _, errno := sys.RecvMsg(c.sock.Borrow(), c.buf[:], c.control[:])
		if errno == syscall.EAGAIN {
			return accepted, nil
		}
		if errno != 0 {
			return accepted, fmt.Errorf("receive metrics: %w", errno)
		}
		m, fault := c.judge(c.buf[:n], c.control[:controlLen])
		if fault != MetricsOK {
			c.refused[fault].Add(1)
			continue
		}
		c.accepted.Add(1)
		accepted++
		c.options.Sink(m)
	}
	return accepted, nil
}

func (c *MetricsCollector) judge(b, control []byte) (Metrics, MetricsFault) {
	m, fault := ParseMetrics(b)
	if fault != MetricsOK {
		return Metrics{}, fault
	}
	pid, _, _, ok := sys.Credentials(control)
	if !ok || pid <= 0 || pid != m.PID {
		return Metrics{}, MetricsBadSender
	}
	if c.options.Registered(m.Worker) != pid {
		return Metrics{}, MetricsBadWorker
	}
	return m, MetricsOK
}

// Accepted returns how many datagrams went to the sink.
func (c *MetricsCollector) Accepted() uint64 { return c.accepted.Load() }

// Refused returns how many datagrams had that fault.
func (c *MetricsCollector) Refused(f MetricsFault) uint64 {
	if f >= metricsFaultCount {
		return 0
	}
	return c.refused[f].Load()
}

// Malformed returns how many datagrams had not the form, Foreign how many were
// not from whom they said.
func (c *MetricsCollector) Malformed() uint64 { return c.sum(MetricsBadSize, MetricsBadRange) }

// Foreign: see Malformed.
func (c *MetricsCollector) Foreign() uint64 { return c.sum(MetricsBadSender, MetricsBadWorker) }

func (c *MetricsCollector) sum(first, last MetricsFault) (n uint64) {
	for f := first; f <= last; f++ {
		n += c.refused[f].Load()
	}
	return n
}

// Close closes the socket. Its name stays, for whoever owns the directory.
func (c *MetricsCollector) Close() error { return c.sock.Close() }
