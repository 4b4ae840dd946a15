// Package procstat measures what a process and its children use: processor,
// resident memory, and input/output, from /proc.
//
// A Sampler belongs to one goroutine and starts none. It may block in the
// kernel for some ten microseconds per process, so it does not run on an event
// loop.
package procstat

import (
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// Usage is what a process and its living descendants used, and hold.
type Usage struct {
	// CPUPercent is of one core, over the time since the last sample: two busy
	// processes have 200.
	CPUPercent float64

	// MemoryBytes is the sum of the resident memory now. A page that several
	// processes share counts for each.
	MemoryBytes uint64

	// IOKBPerSecond is what the storage layer read and wrote, KB of 1,024 bytes,
	// since the last sample.
	IOKBPerSecond float64

	// Processes is how many were measured, at least 1.
	Processes int
}

const (
	// processesMax bounds the descendants of one sample: with more, the rest is
	// not counted. A sample of so many takes about 30 ms.
	processesMax = 512

	// fileBytesMax bounds what is read of one file of /proc. A status file can
	// only be longer with thousands of supplementary groups; then its memory
	// counts as 0. A list of children is cut there.
	fileBytesMax = 64 << 10
)

// Sampler measures one process and its descendants, between one call of Sample
// and the next. Use NewSampler. One goroutine uses it.
type Sampler struct {
	root string // "/proc"; another directory in tests
	pid  int

	last  totals
	since time.Time

	// Reused by each sample.
	path []byte
	file []byte
	dirs []byte
	pids []int
}

// totals are sums over the processes of a sample.
type totals struct {
	ticks     uint64 // processor time, ended children included
	io        uint64 // bytes
	resident  uint64 // bytes
	processes int
}

// NewSampler returns a Sampler for the process pid (0: this one) and takes the
// reading that the first sample counts from. now is the time, with a monotonic
// part. An error: there is no such process, or no /proc.
func NewSampler(pid int, now time.Time) (*Sampler, error) {
	return newSampler("/proc", pid, now)
}

func newSampler(root string, pid int, now time.Time) (*Sampler, error) {
	if pid == 0 {
		pid = syscall.Getpid()
	}
	s := &Sampler{root: root, pid: pid, file: make([]byte, 4<<10), dirs: make([]byte, 4<<10), since: now}
	var err error
	s.last, err = s.read()
	return s, err
}

// Sample measures. now is the time, not before that of the last sample; with no
// time in between the rates are 0. A total that falls (a descendant was waited
// for by someone else) counts as 0, not as negative.
//
// An error: the process itself could not be read. A descendant that ends
// meanwhile, or belongs to another user, is left out. Input/output that may not
// be read counts as 0.
func (s *Sampler) Sample(now time.Time) (Usage, error) {
	t, err := s.read()
	if err != nil {
		return Usage{}, err
	}
	u := Usage{MemoryBytes: t.resident, Processes: t.processes}
	if seconds := now.Sub(s.since).Seconds(); seconds > 0 {
		u.CPUPercent = rate(s.last.ticks, t.ticks, seconds) * (100.0 / TicksPerSecond)
		u.IOKBPerSecond = rate(s.last.io, t.io, seconds) / 1024
	}
	s.last, s.since = t, now
	return u, nil
}

func rate(before, after uint64, seconds float64) float64 {
	if after <= before {
		return 0
	}
	return float64(after-before) / seconds
}

// read sums over the process and its descendants, breadth first. A pid comes
// once: a process has one parent, and who is born or reparented while we look
// is caught by the search in pids.
func (s *Sampler) read() (totals, error) {
	var t totals
	s.pids = append(s.pids[:0], s.pid)
	for i := 0; i < len(s.pids); i++ {
		pid := s.pids[i]
		b, err := s.readFile(pid, "/stat")
		if err != nil {
			if i == 0 {
				return totals{}, fmt.Errorf("read the usage of process %d: %w", pid, err)
			}
			continue
		}
		stat, ok := ParseStat(b)
		if !ok {
			if i == 0 {
				return totals{}, fmt.Errorf("read the usage of process %d: no such form of stat: %.200q", pid, b)
			}
			continue
		}
		t.processes++
		t.ticks = add(t.ticks, add(stat.Ticks, stat.ChildTicks))
		if b, err := s.readFile(pid, "/status"); err == nil {
			if resident, ok := ParseResident(b); ok {
				t.resident = add(t.resident, resident)
			}
		}
		if b, err := s.readFile(pid, "/io"); err == nil {
			if r, w, ok := ParseIO(b); ok {
				t.io = add(t.io, add(r, w))
			}
		}
		s.children(pid)
	}
	return t, nil
}

// children appends to pids the children of each thread of pid that are not yet
// in it. A kernel without CONFIG_PROC_CHILDREN shows none: then only those that
// ended count, through their parent.
func (s *Sampler) children(pid int) {
	fd, err := s.open(pid, "/task", syscall.O_DIRECTORY)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	for {
		n, err := syscall.ReadDirent(fd, s.dirs)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for b := s.dirs[:n]; ; {
			name, rest, ok := dirent(b)
			if !ok {
				break
			}
			b = rest
			if len(name) == 0 || name[0] < '0' || name[0] > '9' {
				continue
			}
			list, err := s.readFile(pid, "/task/", name, "/children")
			if err != nil {
				continue
			}
			from := len(s.pids)
			s.pids = AppendPIDs(s.pids, list)
			s.pids = unique(s.pids, from)
			if len(s.pids) >= processesMax {
				s.pids = s.pids[:processesMax]
				return
			}
		}
	}
}

// unique takes those of pids[from:] away that come earlier.
func unique(pids []int, from int) []int {
	kept := pids[:from]
next:
	for _, pid := range pids[from:] {
		for _, known := range kept {
			if known == pid {
				continue next
			}
		}
		kept = append(kept, pid)
	}
	return kept
}

// open opens root/PID followed by tail.
func (s *Sampler) open(pid int, tail string, flags int, more ...string) (int, error) {
	s.path = append(s.path[:0], s.root...)
	s.path = append(s.path, '/')
	s.path = strconv.AppendInt(s.path, int64(pid), 10)
	s.path = append(s.path, tail...)
	for _, m := range more {
		s.path = append(s.path, m...)
	}
	path := string(s.path)
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|flags, 0)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

// readFile returns the content of root/PID followed by tail, valid until the
// next call, up to fileBytesMax.
func (s *Sampler) readFile(pid int, tail string, more ...string) ([]byte, error) {
	fd, err := s.open(pid, tail, 0, more...)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	filled := 0
	for {
		if filled == len(s.file) {
			if filled >= fileBytesMax {
				return s.file[:filled], nil
			}
			s.file = append(s.file, make([]byte, len(s.file))...)
		}
		n, err := syscall.Read(fd, s.file[filled:])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return nil, err
		case n <= 0:
			return s.file[:filled], nil
		default:
			filled += n
		}
	}
}
