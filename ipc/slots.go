package ipc

import (
	"math"
	"sync/atomic"
)

// RequestIDBytesMax is the longest request id: conventions of X-Request-Id.
const RequestIDBytesMax = 128

// ConnSlot is a connection that was handed over:
//
//	0    8    word, see Word
//	8    4    length of the request id
//	12   4    1: the request's method is HEAD; 0: another
//	16   128  request id
//	144  112  zero
//
// The word is the truth about the connection and is loaded and stored in one
// order that all processes agree on (Go's atomics are sequentially consistent),
// so what its writer did before a Store is seen by who loads that word. The
// process that may leave the current state is the only one that writes.
type ConnSlot struct {
	word  atomic.Uint64
	idLen atomic.Uint32
	head  atomic.Uint32
	id    [RequestIDBytesMax]byte
	_     [112]byte
}

// Load returns the word.
func (s *ConnSlot) Load() Word { return Word(s.word.Load()) }

// Store sets the word, before the act that its state names.
func (s *ConnSlot) Store(w Word) { s.word.Store(uint64(w)) }

// SetRequest keeps what an answer to the request that is about to run needs when
// its worker dies: its id, and whether it goes without a body. Call it before
// Store of Running. What is longer than RequestIDBytesMax is cut. Only the
// owner, while the state is Reading.
func (s *ConnSlot) SetRequest(id []byte, head bool) {
	s.idLen.Store(uint32(copy(s.id[:], id)))
	flag := uint32(0)
	if head {
		flag = 1
	}
	if s.head.Load() != flag {
		s.head.Store(flag)
	}
}

// RequestIsHead says whether the last SetRequest was for HEAD. Who may ask: see
// AppendRequestID.
func (s *ConnSlot) RequestIsHead() bool { return s.head.Load() == 1 }

// AppendRequestID appends the id that was last set. It is the owner's to read,
// or the gateway's once the owner is dead. The memory is foreign: the bytes may
// be anything, but they are at most RequestIDBytesMax; check them before they go
// into a response.
func (s *ConnSlot) AppendRequestID(dst []byte) []byte {
	n := min(s.idLen.Load(), RequestIDBytesMax)
	return append(dst, s.id[:n]...)
}

// WorkerSlot is what is known of one worker. Each group has a cache line of its
// own, so that those who write one do not slow down those who write another;
// all are read by every gateway loop at each pick, and by the workers.
//
//	0    4  donated, by the gateway's loops
//	64   4  pid, by the gateway's supervisor
//	68   4  number of samples, by the gateway's collector, as all up to 128
//	72   8  score     80  8  cpu     88  8  memory     96  8  io (floats)
//	104  8  time of the sample in ms
//	112  4  status
//	128  4  adopted, by the worker's loop, as all below
//	132  4  requests in flight
//	136  4  connections
//	144  8  heartbeat, ms of the monotonic clock
//	152  8  requests    160  8  errors
//
// What a worker writes may be anything: readers bound it, as the methods say.
type WorkerSlot struct {
	donated atomic.Uint32
	_       [60]byte

	pid                    atomic.Int32
	samples                atomic.Uint32
	score, cpu, memory, io atomic.Uint64 // math.Float64bits
	sampleMillis           atomic.Int64
	status                 atomic.Uint32
	_                      [12]byte

	adopted   atomic.Uint32
	inflight  atomic.Int32
	conns     atomic.Int32
	_         [4]byte
	heartbeat atomic.Int64
	requests  atomic.Uint64
	errors    atomic.Uint64
	_         [88]byte
}

// AddDonated counts connections that were sent to the worker; negative for those
// that turned out not to be. By any gateway loop.
func (s *WorkerSlot) AddDonated(n int) { s.donated.Add(uint32(int32(n))) }

// AddAdopted counts connections that arrived, whether they could be adopted or
// not. By the worker.
func (s *WorkerSlot) AddAdopted(n int) { s.adopted.Add(uint32(int32(n))) }

// Donated and Adopted count since the worker's start, modulo 2^32.
func (s *WorkerSlot) Donated() uint32 { return s.donated.Load() }

// Adopted: see Donated.
func (s *WorkerSlot) Adopted() uint32 { return s.adopted.Load() }

// Pending is how many connections are on their way: donated and not yet adopted.
// Never negative; the two counters are not of one instant.
func (s *WorkerSlot) Pending() int32 {
	return max(0, int32(s.donated.Load()-s.adopted.Load()))
}

// AddInflight counts requests that the worker runs. By the worker.
func (s *WorkerSlot) AddInflight(n int) { s.inflight.Add(int32(n)) }

// Inflight is how many requests run there; never negative.
func (s *WorkerSlot) Inflight() int32 { return max(0, s.inflight.Load()) }

// AddConns counts connections that the worker owns. By the worker.
func (s *WorkerSlot) AddConns(n int) { s.conns.Add(int32(n)) }

// Conns is how many connections the worker owns; never negative.
func (s *WorkerSlot) Conns() int32 { return max(0, s.conns.Load()) }

// AddRequests and AddErrors count what the worker has answered since its start,
// and how much of it was an error of the platform or the function. By the
// worker.
func (s *WorkerSlot) AddRequests(n int) { s.requests.Add(uint64(n)) }

// AddErrors: see AddRequests.
func (s *WorkerSlot) AddErrors(n int) { s.errors.Add(uint64(n)) }

// Requests: see AddRequests.
func (s *WorkerSlot) Requests() uint64 { return s.requests.Load() }

// Errors: see AddRequests.
func (s *WorkerSlot) Errors() uint64 { return s.errors.Load() }

// SetHeartbeat says that the worker's loop turned at that time, in milliseconds
// of the monotonic clock (sys.ClockMonotonic), which all processes share. By the
// worker.
func (s *WorkerSlot) SetHeartbeat(millis int64) { s.heartbeat.Store(millis) }

// Heartbeat is when the worker's loop last turned; 0: never.
func (s *WorkerSlot) Heartbeat() int64 { return s.heartbeat.Load() }

// SetPid says which process the worker is. By the gateway.
func (s *WorkerSlot) SetPid(pid int) { s.pid.Store(int32(pid)) }

// Pid is the worker's process; 0: none was started.
func (s *WorkerSlot) Pid() int { return int(s.pid.Load()) }

// WorkerSample is what a worker measured of itself, smoothed by it.
type WorkerSample struct {
	// Number counts the samples of this worker's life; 0: there was none yet.
	// Ignored by SetSample.
	Number uint32
	// Score and its parts, 0 (idle) to 100.
	Score, CPU, Memory, IO float64
	Millis                 int64 // when, in milliseconds of the clock that the setter uses
	Status                 MetricsStatus
}

// SetSample publishes a sample. By one goroutine of the gateway.
func (s *WorkerSlot) SetSample(m WorkerSample) {
	s.score.Store(math.Float64bits(m.Score))
	s.cpu.Store(math.Float64bits(m.CPU))
	s.memory.Store(math.Float64bits(m.Memory))
	s.io.Store(math.Float64bits(m.IO))
	s.sampleMillis.Store(m.Millis)
	s.status.Store(uint32(m.Status))
	s.samples.Add(1)
}

// Sample returns the last sample. Its fields may be of two samples, half a
// second apart, when one is published meanwhile.
func (s *WorkerSlot) Sample() WorkerSample {
	return WorkerSample{
		Number: s.samples.Load(), Score: math.Float64frombits(s.score.Load()), CPU: math.Float64frombits(s.cpu.Load()),
		Memory: math.Float64frombits(s.memory.Load()), IO: math.Float64frombits(s.io.Load()),
		Millis: s.sampleMillis.Load(), Status: MetricsStatus(s.status.Load()),
	}
}

// Score is what a pick needs of the last sample: its number (0: none), its score
// and its time.
func (s *WorkerSlot) Score() (number uint32, score float64, millis int64) {
	return s.samples.Load(), math.Float64frombits(s.score.Load()), s.sampleMillis.Load()
}

// Reset forgets the worker that had this slot. By the gateway, once that process
// is gone and before another gets the slot.
func (s *WorkerSlot) Reset() {
	s.donated.Store(0)
	s.adopted.Store(0)
	s.inflight.Store(0)
	s.conns.Store(0)
	s.heartbeat.Store(0)
	s.requests.Store(0)
	s.errors.Store(0)
	s.pid.Store(0)
	s.samples.Store(0)
	s.score.Store(0)
	s.cpu.Store(0)
	s.memory.Store(0)
	s.io.Store(0)
	s.sampleMillis.Store(0)
	s.status.Store(0)
}

// Events are a worker's counts of what happened, one a kind; which kind has
// which place is its reader's and writer's business. They are not forgotten with
// the worker: its successor counts on.
type Events struct{ counts [EventsMax]atomic.Uint64 }

// Add counts n more events of a kind, which is less than EventsMax. By the worker.
func (e *Events) Add(kind int, n uint64) { e.counts[kind].Add(n) }

// Count is how many events of a kind there were.
func (e *Events) Count(kind int) uint64 { return e.counts[kind].Load() }
