package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Names inside a data directory.
const (
	lockName     = "lock"
	runName      = "run"
	pidName      = "serve.pid"
	metricsName  = "metrics.sock"
	adminName    = "admin.sock"
	databaseName = "faas_meta.db"
	tokenName    = "admin.token"
	logsName     = "logs"
)

// lockPatience is how long a lock is waited for whose holder is gone.
const lockPatience = 2 * time.Second

// ownerBytesMax bounds what is read of a lock or pid file: two decimal numbers
// and a line end.
const ownerBytesMax = 64

// Owner names a process for longer than its pid lives: a pid may be reused, a
// pid with the time of its start is not.
type Owner struct {
	PID int
	// Start is the start of the process in clock ticks since boot: field 22 of
	// /proc/PID/stat.
	Start uint64
}

// Self is the calling process.
func Self() (Owner, error) {
	pid := os.Getpid()
	start, err := startOf(pid)
	return Owner{PID: pid, Start: start}, err
}

// Alive says whether the process still runs: the pid exists, started when Start
// says, and is not only waiting to be reaped.
func (o Owner) Alive() bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(o.PID) + "/stat")
	if err != nil {
		return false
	}
	start, ok := parseStart(b)
	i := bytes.LastIndexByte(b, ')')
	return ok && start == o.Start && b[i+2] != 'Z' && b[i+2] != 'X'
}

// Since is when the process started, in wall time, or the zero time when that
// cannot be told.
func (o Owner) Since() time.Time {
	const ticksPerSecond = 100 // USER_HZ, the same on every architecture of Linux that Go knows
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			boot, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			if err != nil {
				return time.Time{}
			}
			return time.Unix(boot, 0).Add(time.Duration(o.Start) * (time.Second / ticksPerSecond))
		}
	}
	return time.Time{}
}

func (o Owner) String() string {
	if t := o.Since(); !t.IsZero() {
		return fmt.Sprintf("process %d, started %s", o.PID, t.Format(time.DateTime))
	}
	return fmt.Sprintf("process %d", o.PID)
}

func (o Owner) line() []byte { return fmt.Appendf(nil, "%d %d\n", o.PID, o.Start) }

// parseOwner reads the form that line writes.
func parseOwner(b []byte) (Owner, error) {
	words := strings.Fields(string(b))
	if len(words) != 2 {
		return Owner{}, fmt.Errorf("want a pid and a start time, got %q", b)
	}
	pid, err := strconv.ParseInt(words[0], 10, 32)
	if err != nil || pid <= 0 {
		return Owner{}, fmt.Errorf("want a pid, got %q", words[0])
	}
	start, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return Owner{}, fmt.Errorf("want a start time in ticks, got %q", words[1])
	}
	return Owner{PID: int(pid), Start: start}, nil
}

// startOf reads when a process started, in clock ticks since boot.
func startOf(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	start, ok := parseStart(b)
	if !ok {
		return 0, fmt.Errorf("/proc/%d/stat: no start time in %q", pid, b)
	}
	return start, nil
}

// parseStart finds field 22 of a stat line. Field 2, the name, is the only one
// that may hold blanks and parentheses, so counting begins behind the last ')'.
//
// Source: proc_pid_stat(5).
func parseStart(b []byte) (uint64, bool) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, false
	}
	words := bytes.Fields(b[i+1:]) // field 3 is words[0]
	if len(words) < 20 {
		return 0, false
	}
	start, err := strconv.ParseUint(string(words[19]), 10, 64)
	return start, err == nil
}

// ReadOwner reads who serves a data directory, from its pid file. An error
// that is fs.ErrNotExist says that nobody does.
func ReadOwner(data string) (Owner, error) {
	return readOwner(filepath.Join(data, runName, pidName))
}

func readOwner(path string) (Owner, error) {
	f, err := os.Open(path)
	if err != nil {
		return Owner{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, ownerBytesMax))
	if err != nil {
		return Owner{}, err
	}
	o, err := parseOwner(b)
	if err != nil {
		return Owner{}, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// HeldError says that another process serves the data directory.
type HeldError struct {
	Data string
	By   Owner // zero: the lock is held, but who holds it is not written there
}

func (e *HeldError) Error() string {
	if e.By == (Owner{}) {
		return fmt.Sprintf("data directory %s is already being served", e.Data)
	}
	return fmt.Sprintf("data directory %s is already being served by %s", e.Data, e.By)
}

// dataDir is a data directory that this process holds. The lock is held from
// openDataDir to close, or to the end of the process however it comes.
type dataDir struct {
	path string // absolute
	lock *os.File
	self Owner
}

func (d *dataDir) run() string              { return filepath.Join(d.path, runName) }
func (d *dataDir) in(name string) string    { return filepath.Join(d.path, name) }
func (d *dataDir) inRun(name string) string { return filepath.Join(d.path, runName, name) }

// openDataDir takes possession of a data directory that `baton init` made:
// checks its modes, locks it, makes its run directory new and writes the pid
// file. What an earlier process left in run (sockets, a pid file) is removed:
// the lock says that it is dead.
//
// A *HeldError says that another process serves it.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := checkPrivate(path, true); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("data directory: %w; `baton init` makes one", err)
		}
		return nil, err
	}
	if err := checkPrivate(filepath.Join(path, tokenName), false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	self, err := Self()
	if err != nil {
		return nil, fmt.Errorf("data directory: who am I: %w", err)
	}
	d := &dataDir{path: path, self: self}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if err := d.newRun(); err != nil {
		_ = d.lock.Close()
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return d, nil
}

// checkPrivate refuses what another user could read or could have put there.
// It does not repair: who could write before may have written.
//
// A link to a directory is followed, for that is how a disk is chosen, and what
// it leads to is checked; a link in the place of a file is refused.
func checkPrivate(path string, dir bool) error {
	look, kind, cure := os.Lstat, "file", "600"
	if dir {
		look, kind, cure = os.Stat, "directory", "700"
	}
	info, err := look(path)
	if err != nil {
		return err
	}
	if dir != info.IsDir() || !dir && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: want a %s, got %s", path, kind, info.Mode().Type())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s: other users can reach it (mode %04o): look at what is in it, then `chmod %s %s`", path, mode, cure, path)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: belongs to user %d, and this process runs as %d", path, st.Uid, os.Geteuid())
	}
	return nil
}

func (d *dataDir) takeLock() error {
	path := d.in(lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err = lockFile(f, path); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("data directory: lock %s: %w", path, err)
		}
		held := &HeldError{Data: d.path}
		// A holder that has just taken the lock may not have written yet.
		if by, err := readOwner(path); err == nil && by.Alive() {
			held.By = by
		}
		return held
	}
	// Longer than any line before it would be left half: cut first.
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt(d.self.line(), 0)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("data directory: write %s: %w", path, err)
	}
	d.lock = f
	return nil
}

// lockFile locks f. A holder whose process is gone is waited for, up to
// lockPatience: what it had just forked has its descriptors until exec(2), and a
// killed server's successor starts at once all the same.
func lockFile(f *os.File, path string) error {
	limit := time.NewTimer(lockPatience)
	defer limit.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := flock(f)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if by, e := readOwner(path); err == nil || !errors.Is(err, syscall.EWOULDBLOCK) || e == nil && by.Alive() {
			return err
		}
		select {
		case <-again.C:
		case <-limit.C:
			return err
		}
	}
}

// flock locks without waiting.
func flock(f *os.File) error { return flockHow(f, syscall.LOCK_EX|syscall.LOCK_NB) }

func unlock(f *os.File) error { return flockHow(f, syscall.LOCK_UN) }

// flockHow goes through the raw connection: File.Fd would make the descriptor
// blocking.
func flockHow(f *os.File, how int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(n uintptr) { done = syscall.Flock(int(n), how) }); err != nil {
		return err
	}
	return done
}

func (d *dataDir) newRun() error {
	if err := os.RemoveAll(d.run()); err != nil {
		return err
	}
	if err := os.Mkdir(d.run(), 0o700); err != nil {
		return err
	}
	// Under a temporary name first: a reader sees the whole line or no file.
	temporary := d.inRun("." + pidName)
	if err := os.WriteFile(temporary, d.self.line(), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, d.inRun(pidName))
}

// close removes the run directory and gives the lock up, in this order: until
// the lock is free no other process may find a socket of ours or make its own.
func (d *dataDir) close() error {
	err := os.RemoveAll(d.run())
	// Not by closing alone: a child that was just forked has the descriptor too.
	return errors.Join(err, unlock(d.lock), d.lock.Close())
}

// Hold keeps servers off a data directory, as a server does, until release. It
// makes nothing but the lock's file.
//
// A *HeldError says that a server runs on it.
func Hold(path string) (release func() error, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := checkPrivate(path, true); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	self, err := Self()
	if err != nil {
		return nil, fmt.Errorf("data directory: who am I: %w", err)
	}
	d := &dataDir{path: path, self: self}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(unlock(d.lock), d.lock.Close()) }, nil
}
