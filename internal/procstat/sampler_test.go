package procstat

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

func TestMain(m *testing.M) {
	if os.Getenv("PROCSTAT_TEST_BURN") != "" {
		burn()
	}
	os.Exit(testenv.Main(m))
}

// tree is a /proc of our own.
type tree struct {
	t    *testing.T
	root string
}

type process struct {
	ticks, childTicks uint64
	residentKB        uint64
	read, written     uint64
	children          map[int]string // thread → content of its list
}

func (f tree) put(pid int, p process) {
	f.t.Helper()
	dir := filepath.Join(f.root, fmt.Sprint(pid))
	stat := fmt.Sprintf("%d (a) b) S 1 1 1 0 -1 0 0 0 0 0 %d 0 %d 0 20 0 1 0 5 0 0\n", pid, p.ticks, p.childTicks)
	f.write(filepath.Join(dir, "stat"), stat)
	f.write(filepath.Join(dir, "status"), fmt.Sprintf("Name:\ta\nVmRSS:\t%d kB\n", p.residentKB))
	f.write(filepath.Join(dir, "io"), fmt.Sprintf("read_bytes: %d\nwrite_bytes: %d\n", p.read, p.written))
	f.write(filepath.Join(dir, "task", fmt.Sprint(pid), "children"), "")
	for thread, list := range p.children {
		f.write(filepath.Join(dir, "task", fmt.Sprint(thread), "children"), list)
	}
}

func (f tree) write(name, text string) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func (f tree) remove(pid int) {
	f.t.Helper()
	if err := os.RemoveAll(filepath.Join(f.root, fmt.Sprint(pid))); err != nil {
		f.t.Fatal(err)
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	f := tree{t, t.TempDir()}
	now := time.Unix(1000, 0)
	half := 500 * time.Millisecond
	sample := func(s *Sampler, after time.Duration) Usage {
		t.Helper()
		now = now.Add(after)
		u, err := s.Sample(now)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	want := func(what string, got, want Usage) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}

	f.put(10, process{ticks: 1000, residentKB: 100, read: 1 << 20})
	s, err := newSampler(f.root, 10, now)
	if err != nil {
		t.Fatal(err)
	}
	f.put(10, process{ticks: 1025, residentKB: 80, read: 1<<20 + 1024, written: 1024})
	want("25 ticks of 10 ms in 500 ms are half a core", sample(s, half), Usage{50, 80 << 10, 4, 1})
	want("nothing happened", sample(s, half), Usage{0, 80 << 10, 0, 1})

	// Two threads with children, one of which has a child; one is listed twice.
	f.put(10, process{ticks: 1025, residentKB: 80, read: 1<<20 + 2048, children: map[int]string{10: "20 21 ", 11: "21 22 "}})
	f.put(20, process{ticks: 10, residentKB: 1})
	f.put(21, process{ticks: 20, residentKB: 2, children: map[int]string{21: "30 "}})
	f.put(22, process{ticks: 20, residentKB: 4, written: 2048})
	f.put(30, process{ticks: 50, residentKB: 8})
	want("descendants count", sample(s, half), Usage{200, 95 << 10, 4, 5})

	// 30 ends; its parent has waited for it and shows its time.
	f.remove(30)
	f.put(21, process{ticks: 20, childTicks: 55, residentKB: 2, children: map[int]string{21: "30 "}})
	want("an ended child stays counted", sample(s, half), Usage{10, 87 << 10, 0, 4})

	// 20 vanishes and nobody shows its time; 22 does something.
	f.remove(20)
	f.put(22, process{ticks: 25, residentKB: 4, written: 2048})
	want("a total that falls is no negative rate", sample(s, half), Usage{0, 86 << 10, 0, 3})
	want("no time has passed", sample(s, 0), Usage{0, 86 << 10, 0, 3})

	// Files that cannot be read or understood.
	f.write(filepath.Join(f.root, "22", "stat"), "nonsense")
	f.write(filepath.Join(f.root, "21", "status"), "nonsense")
	f.write(filepath.Join(f.root, "10", "io"), "nonsense")
	want("a descendant that makes no sense is left out", sample(s, half), Usage{0, 80 << 10, 0, 2})

	f.write(filepath.Join(f.root, "10", "stat"), "nonsense")
	if _, err := s.Sample(now); err == nil {
		t.Error("the process itself makes no sense: no error")
	}
	f.remove(10)
	if _, err := s.Sample(now); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the process is gone: %v", err)
	}
	if _, err := newSampler(f.root, 10, now); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is no such process: %v", err)
	}
}

func TestSampleBounds(t *testing.T) {
	t.Parallel()
	f := tree{t, t.TempDir()}
	var list strings.Builder
	for pid := range 2 * processesMax {
		fmt.Fprintf(&list, "%d ", 100+pid)
	}
	f.put(10, process{ticks: 1, residentKB: 1, children: map[int]string{10: list.String()}})
	for pid := range processesMax {
		// A circle, as no kernel shows it.
		f.put(100+pid, process{residentKB: 1, children: map[int]string{100 + pid: "10 100 "}})
	}
	f.write(filepath.Join(f.root, "10", "status"), "Groups:\t"+strings.Repeat("1234567890 ", fileBytesMax/11-20)+"\nVmRSS:\t7 kB\n")
	s, err := newSampler(f.root, 10, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Sample(time.Unix(1, 0))
	if err != nil || u.Processes != processesMax || u.MemoryBytes != (processesMax-1+7)<<10 {
		t.Errorf("%+v, %v", u, err)
	}
}

// burn uses its processor until its standard input ends.
func burn() {
	var done atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		done.Store(true)
	}()
	for !done.Load() {
	}
	os.Exit(0)
}

// TestSampleOfThisMachine: the real /proc shows a child that burns its processor
// and this process's memory.
func TestSampleOfThisMachine(t *testing.T) {
	t.Parallel()
	start := time.Now()
	s, err := NewSampler(0, start)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(binary)
	child.Env = append(os.Environ(), "PROCSTAT_TEST_BURN=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = child.Wait()
	}()
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d/children", syscall.Getpid())); err != nil {
		testenv.NeedFeature(t, "CONFIG_PROC_CHILDREN", false, err)
	}
	// The child's ticks arrive within some tens of milliseconds.
	var u Usage
	testenv.Until(t, "the child's processor time shows", func() bool {
		u, err = s.Sample(time.Now())
		return err != nil || u.Processes >= 2 && u.CPUPercent > 0
	})
	if err != nil || u.MemoryBytes < 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
}
