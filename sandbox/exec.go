package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"baton/internal/sys"
)

// Exec is the step: it reads the Spec that Command has put into the
// environment, takes away what that does not grant, and becomes the program. It
// returns only when it could not.
func Exec() error {
	text := os.Getenv(specVariable)
	if text == "" {
		return errors.New("no grants: the step is started by baton only")
	}
	var s Spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("read the grants: %w", err)
	}
	goruntime.LockOSThread()
	if err := s.apply(); err != nil {
		return err
	}
	return s.become()
}

// without says whether a layer is left out.
func (s *Spec) without(layer string) bool { return slices.Contains(s.Without, layer) }

// apply takes away, in the order in which one layer does not hinder the next.
func (s *Spec) apply() error {
	if err := sys.SetTimerSlack(sys.TimerSlackDefault); err != nil { // the server's is none of the program's business
		return err
	}
	uid, gid := s.identity()
	if s.Namespaces {
		if err := s.makeRoot(uid, gid); err != nil {
			return fmt.Errorf("make a root directory: %w", err)
		}
	}
	var rules *sys.Landlock
	if sys.LandlockABI() > 0 && !s.without(LayerLandlock) {
		var err error
		if rules, err = s.landlock(); err != nil {
			return err
		}
		defer rules.Close()
	}
	if dir := cmp.Or(s.Dir, s.In); dir != "" {
		if err := os.Chdir(dir); err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
	}
	if err := s.limits(uid >= 0); err != nil {
		return err
	}
	if uid >= 0 {
		if err := sys.BecomeThread(uid, gid); err != nil {
			return err
		}
	}
	if err := sys.DropCapabilities(); err != nil {
		return err
	}
	if err := sys.SetNoNewPrivs(); err != nil {
		return err
	}
	if rules != nil {
		if err := rules.Restrict(); err != nil {
			return err
		}
	}
	if err := sys.SetSubreaper(); err != nil {
		return err
	}
	return sys.SetParentDeathKill()
}

// identity is who the child is; -1: as this process.
func (s *Spec) identity() (uid, gid int) {
	if os.Geteuid() != 0 || !s.Namespaces || s.without(LayerUID) || s.UID < 0 {
		return -1, -1
	}
	uid, gid = s.UID, s.GID
	if uid == 0 {
		uid = UIDDefault
	}
	if gid <= 0 {
		gid = uid
	}
	return uid, gid
}

// limits sets the limits that this step itself can live with.
func (s *Spec) limits(own bool) error {
	if s.without(LayerRlimits) {
		return nil
	}
	set := []struct {
		resource int
		value    uint64
	}{
		{sys.RlimitCore, 0},
		{sys.RlimitMemlock, 0},
		{sys.RlimitMsgqueue, 0},
		{sys.RlimitNofile, uint64(or(s.OpenFiles, OpenFilesDefault))},
		{sys.RlimitFsize, uint64(or(s.FileMB, FileMBDefault)) << 20},
	}
	if s.CPUSeconds > 0 {
		set = append(set, struct {
			resource int
			value    uint64
		}{sys.RlimitCPU, uint64(s.CPUSeconds)})
	}
	if own || s.Processes > 0 {
		most := uint64(threadsMax + threadsPerProcess*s.Processes)
		if !own { // what is not its own counts as well
			most += tasks()
		}
		set = append(set, struct {
			resource int
			value    uint64
		}{sys.RlimitNproc, most})
	}
	for _, l := range set {
		if err := sys.SetRlimit(l.resource, l.value); err != nil {
			return err
		}
	}
	return nil
}

// tasks is how many processes and threads this machine has. Where that cannot be read it is as many
// as a machine may have.
//
// Source: proc(5), /proc/loadavg.
func tasks() uint64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		if fields := strings.Fields(string(text)); len(fields) == 5 {
			_, total, _ := strings.Cut(fields[3], "/")
			if n, err := strconv.ParseUint(total, 10, 32); err == nil {
				return n
			}
		}
	}
	return 1 << 22
}

const (
	// threadsMax bounds the processes and threads of one uid: all processes of
	// one function, in all workers.
	threadsMax = 1024
	// threadsPerProcess is added for each process that Spec.Processes grants.
	threadsPerProcess = 64
)

func or(n, absent int) int {
	if n > 0 {
		return n
	}
	return absent
}

const (
	readRights  = sys.FSExecute | sys.FSReadFile | sys.FSReadDir
	writeRights = sys.FSReadFile | sys.FSReadDir | sys.FSWriteFile | sys.FSTruncate | sys.FSRemoveDir | sys.FSRemoveFile |
		sys.FSMakeDir | sys.FSMakeReg | sys.FSMakeSym | sys.FSRefer
)

// landlock makes the rules for files.
func (s *Spec) landlock() (*sys.Landlock, error) {
	rules, err := sys.NewLandlock(s.Network)
	if err != nil {
		return nil, err
	}
	for _, grant := range s.grants() {
		if err := allow(rules, grant.path, grant.rights); err != nil {
			rules.Close()
			return nil, err
		}
	}
	return rules, nil
}

// grant is one path and what is granted there.
type grant struct {
	path   string
	rights uint64
	write  bool
}

// grants lists what the child may reach, what encloses before what is
// enclosed.
func (s *Spec) grants() []grant {
	var grants []grant
	add := func(path string, rights uint64, write bool) {
		if filepath.IsAbs(path) {
			grants = append(grants, grant{filepath.Clean(path), rights, write})
		}
	}
	for _, path := range s.system() {
		rights := uint64(readRights)
		if filepath.Dir(path) == "/dev" {
			rights = sys.FSReadFile | sys.FSWriteFile
		}
		add(path, rights, false)
	}
	add(s.Argv[0], readRights, false)
	for _, path := range s.Read {
		add(path, readRights, false)
	}
	for _, path := range s.Write {
		add(path, writeRights, true)
	}
	if s.Dir != "" {
		add(s.Dir, writeRights, true)
	}
	slices.SortStableFunc(grants, func(a, b grant) int { return len(a.path) - len(b.path) })
	return grants
}

// system is System without what is hidden.
func (s *Spec) system() []string {
	paths := System()
	for _, hidden := range s.Hide {
		real, err := filepath.EvalSymlinks(hidden)
		if err != nil {
			continue // there is nothing to see
		}
		var left []string
		for _, path := range paths {
			left = append(left, beside(path, real)...)
		}
		paths = left
	}
	return paths
}

// beside is path, or, when hidden lies below it, what lies there beside hidden.
func beside(path, hidden string) []string {
	real, err := filepath.EvalSymlinks(path)
	switch {
	case err != nil || !below(hidden, real) && !below(real, hidden):
		return []string{path}
	case below(real, hidden):
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil
	}
	var left []string
	for _, entry := range entries {
		if entry.Type()&fs.ModeSymlink != 0 {
			continue // it would grant what it leads to
		}
		left = append(left, beside(filepath.Join(path, entry.Name()), hidden)...)
	}
	return left
}

// allow grants rights on one path; one that does not exist grants nothing.
func allow(rules *sys.Landlock, path string, rights uint64) error {
	n, directory, err := sys.OpenPath(path)
	if err != nil {
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EACCES) {
			return nil
		}
		return err
	}
	defer func() { _ = syscall.Close(n) }()
	if err := rules.Allow(n, directory, rights); err != nil {
		return fmt.Errorf("grant %s: %w", path, err)
	}
	return nil
}

// become sets what this step could not go on with, and becomes the program.
// From the limit on memory on, nothing may need any: the arguments of execve(2)
// are made before.
func (s *Spec) become() error {
	if s.Env == nil {
		s.Env = []string{}
	}
	if s.Dir != "" && !slices.ContainsFunc(s.Env, func(v string) bool { return len(v) > 7 && v[:7] == "TMPDIR=" }) {
		s.Env = append(s.Env, "TMPDIR="+s.Dir)
	}
	if !s.without(LayerSeccomp) && sys.SeccompAvailable() {
		if err := sys.SetSeccomp(s.filter()); err != nil {
			return err
		}
	}
	if err := sys.Become(s.Argv[0], s.Argv, s.Env, s.memory()); err != nil {
		return fmt.Errorf("start %s: %w", strconv.Quote(s.Argv[0]), err)
	}
	return nil
}

// memory is the bound of the address space in bytes; zero: none.
func (s *Spec) memory() uint64 {
	if s.without(LayerRlimits) {
		return 0
	}
	return AddressSpace(s.MemoryMB)
}

// AddressSpace is the bound, in bytes, of the address space of a process with so
// many MiB of memory (Spec.MemoryMB); zero: none. It is for a program that bounds what it starts, and
// not itself.
func AddressSpace(memoryMB int) uint64 {
	if memoryMB <= 0 {
		return 0
	}
	return uint64(memoryMB+memoryAllowance) << 20
}
