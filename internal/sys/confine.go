package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Limits of a process that a program can be started with: SetRlimit.
const (
	RlimitAS       = unix.RLIMIT_AS
	RlimitCore     = unix.RLIMIT_CORE
	RlimitCPU      = unix.RLIMIT_CPU
	RlimitData     = unix.RLIMIT_DATA
	RlimitFsize    = unix.RLIMIT_FSIZE
	RlimitMemlock  = unix.RLIMIT_MEMLOCK
	RlimitMsgqueue = unix.RLIMIT_MSGQUEUE
	RlimitNofile   = unix.RLIMIT_NOFILE
	RlimitNproc    = unix.RLIMIT_NPROC
)

// Namespaces for SysProcAttr.Cloneflags.
const (
	NewPID  = unix.CLONE_NEWPID
	NewNS   = unix.CLONE_NEWNS
	NewNet  = unix.CLONE_NEWNET
	NewIPC  = unix.CLONE_NEWIPC
	NewUser = unix.CLONE_NEWUSER
)

// SetRlimit sets the soft and the hard limit of this process. One above the hard limit that
// is there already is lowered to it.
//
// Source: getrlimit(2).
func SetRlimit(resource int, value uint64) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(resource, &old); err != nil {
		return fmt.Errorf("getrlimit %d: %w", resource, err)
	}
	value = min(value, old.Max)
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
		return fmt.Errorf("setrlimit %d to %d: %w", resource, value, err)
	}
	return nil
}

// SetNoNewPrivs has no program that the calling thread starts gain rights.
//
// Source: prctl(2), PR_SET_NO_NEW_PRIVS.
func SetNoNewPrivs() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl no_new_privs: %w", err)
	}
	return nil
}

// SetParentDeathKill has the kernel kill this process when the thread that
// started it ends. A change of user takes it back, so it comes after one.
//
// Source: prctl(2), PR_SET_PDEATHSIG.
func SetParentDeathKill() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl pdeathsig: %w", err)
	}
	return nil
}

// SetSubreaper makes this process the parent of all its orphaned descendants.
//
// Source: prctl(2), PR_SET_CHILD_SUBREAPER.
func SetSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl child_subreaper: %w", err)
	}
	return nil
}

// BecomeThread changes user and group of the calling thread alone and drops
// all supplementary groups. It needs root.
func BecomeThread(uid, gid int) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); e != 0 {
		return fmt.Errorf("setresgid %d: %w", gid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
		return fmt.Errorf("setresuid %d: %w", uid, e)
	}
	return nil
}

// DropCapabilities takes all capabilities from the calling thread.
//
// Source: capset(2).
func DropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

// Memfd makes a file in memory, close-on-exec. The descriptor is the caller's.
func Memfd(name string) (int, error) {
	n, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	return n, nil
}

// DupTo makes new a copy of old, not close-on-exec.
func DupTo(old, new int) error {
	for {
		err := unix.Dup3(old, new, 0)
		if err == unix.EBUSY || err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("dup3: %w", err)
		}
		return nil
	}
}
