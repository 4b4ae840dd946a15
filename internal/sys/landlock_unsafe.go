package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rights on files in a Landlock domain. The names are the kernel's.
//
// Source: landlock(7).
const (
	FSExecute    = unix.LANDLOCK_ACCESS_FS_EXECUTE
	FSWriteFile  = unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	FSReadFile   = unix.LANDLOCK_ACCESS_FS_READ_FILE
	FSReadDir    = unix.LANDLOCK_ACCESS_FS_READ_DIR
	FSRemoveDir  = unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	FSRemoveFile = unix.LANDLOCK_ACCESS_FS_REMOVE_FILE
	FSMakeDir    = unix.LANDLOCK_ACCESS_FS_MAKE_DIR
	FSMakeReg    = unix.LANDLOCK_ACCESS_FS_MAKE_REG
	FSMakeSym    = unix.LANDLOCK_ACCESS_FS_MAKE_SYM
	FSRefer      = unix.LANDLOCK_ACCESS_FS_REFER
	FSTruncate   = unix.LANDLOCK_ACCESS_FS_TRUNCATE

	// FSAll is every right that exists in the first version.
	fsAll1 = 1<<13 - 1
)

// Landlock is a set of rules that is being made.
type Landlock struct {
	fd  int
	abi int
	fs  uint64
}

// LandlockABI is the version of Landlock that this kernel has; zero: none, or it
// is switched off.
//
// Source: landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_VERSION.
func LandlockABI() int {
	n, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(n)
}

// NewLandlock begins a set of rules that refuses all files and, where the
// kernel's version has it: TCP unless network (4), connections to abstract
// sockets and signals to processes outside of the domain (6).
func NewLandlock(network bool) (*Landlock, error) {
	abi := LandlockABI()
	if abi == 0 {
		return nil, fmt.Errorf("landlock: %w", unix.ENOSYS)
	}
	l := &Landlock{abi: abi, fs: fsAll1}
	if abi >= 2 {
		l.fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		l.fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		l.fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: l.fs}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= 4 {
		size += unsafe.Sizeof(attr.Handled_access_net)
		if !network {
			attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= 6 {
		size += unsafe.Sizeof(attr.Scoped)
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	n, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return nil, fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	l.fd = int(n)
	return l, nil
}

// Allow grants rights on the file, or on the directory and all below it, that
// the descriptor n refers to. Rights that this kernel does not know are refused to nobody, and
// rights that only a directory has are passed over for a file.
func (l *Landlock) Allow(n int, directory bool, rights uint64) error {
	rights &= l.fs
	if !directory {
		rights &= FSExecute | FSWriteFile | FSReadFile | FSTruncate | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(n)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(l.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("landlock_add_rule: %w", e)
	}
	return nil
}

// Restrict puts the calling thread, and all that it starts, under the rules,
// for ever. The thread has set no_new_privs.
func (l *Landlock) Restrict() error {
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(l.fd), 0, 0); e != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", e)
	}
	return nil
}

// Close ends the making. What is under the rules stays there.
func (l *Landlock) Close() { _ = unix.Close(l.fd) }

// OpenPath opens a path to name it, for Landlock.Allow, not to read it.
func OpenPath(path string) (n int, directory bool, err error) {
	n, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(n, &st); err != nil {
		_ = unix.Close(n)
		return -1, false, fmt.Errorf("stat %s: %w", path, err)
	}
	return n, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}
