package sys

import (
	"fmt"
	"math"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is started again and again: Start. It is what package os/exec cannot
// do between the fork and the program: a limit and a filter of the child's own.
// Not for concurrent use.
type Program struct {
	path    *byte
	memory  unix.Rlimit
	filter  unix.SockFprog
	code    []BPF // what filter points to
	orphans bool

	argv, env []*byte // of the start that is being made; kept here for the collector
	errno     syscall.Errno
}

// NewProgram prepares the program at path. memory bounds its address space in
// bytes (zero: no bound). filter, where there is one, is what it and all that it
// starts are put under; this process has set no_new_privs. orphan says that it may go on when
// the thread that started it has ended; otherwise it is killed then.
func NewProgram(path string, memory uint64, filter []BPF, orphan bool) (*Program, error) {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return nil, fmt.Errorf("start a program: %w", err)
	}
	if len(filter) > math.MaxUint16 {
		return nil, fmt.Errorf("start a program: a filter of %d instructions", len(filter))
	}
	p := &Program{path: name, memory: unix.Rlimit{Cur: memory, Max: memory}, code: filter, orphans: orphan}
	if len(filter) > 0 {
		p.filter = unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	}
	return p, nil
}

// Start starts it as a child, with arguments and variables that each end in a NUL, and both
// lists in a nil. It inherits the descriptors that are not close-on-exec; stdin, unless it is
// negative, becomes its descriptor 0. The error is that of the step that could not be done: of
// clone(2), or of execve(2), and then there is no child any more. The caller is locked to its thread.
//
// The child shares this process's memory until it is the program (vfork), so
// nothing of this process is copied.
//
// Source: vfork(2), execve(2), and forkAndExecInChild1 of package syscall, whose
// rules for the code in between hold here as well.
func (p *Program) Start(argv, env []*byte, stdin int) (pid int, errno syscall.Errno) {
	if len(argv) < 2 || argv[len(argv)-1] != nil || len(env) == 0 || env[len(env)-1] != nil {
		panic("sys: arguments or variables without their end")
	}
	p.argv, p.env, p.errno = argv, env, 0
	// No descriptor may be opened between a fork elsewhere and its exec, and the
	// other way round.
	syscall.ForkLock.Lock()
	pid, errno = p.vfork(uintptr(stdin))
	runtimeAfterFork()
	syscall.ForkLock.Unlock()
	goruntime.KeepAlive(p)
	p.argv, p.env = nil, nil
	if errno != 0 {
		return -1, errno
	}
	if p.errno != 0 {
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
				return -1, p.errno
			}
		}
	}
	return pid, 0
}

// vfork is the fork, and in the child all up to the program. In the parent it
// returns at once after the fork: the child has used the same stack.
//
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) vfork(stdin uintptr) (pid int, errno syscall.Errno) {
	argv, env, self := &p.argv[0], &p.env[0], p
	runtimeBeforeFork()
	n, e := rawVfork(unix.SYS_CLONE, unix.CLONE_VFORK|unix.CLONE_VM|uintptr(unix.SIGCHLD))
	if e != 0 || n != 0 {
		return int(n), syscall.Errno(e)
	}
	// The child. Nothing is allocated, and no stack grows.
	runtimeAfterForkInChild()
	if int(stdin) >= 0 {
		if _, _, self.errno = syscall.RawSyscall(unix.SYS_DUP3, stdin, 0, 0); self.errno != 0 {
			goto failed
		}
	}
	if !self.orphans {
		if _, _, self.errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0); self.errno != 0 {
			goto failed
		}
	}
	if self.memory.Max > 0 {
		if _, _, self.errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_AS, uintptr(unsafe.Pointer(&self.memory)), 0, 0, 0); self.errno != 0 {
			goto failed
		}
	}
	if self.filter.Len > 0 {
		if _, _, self.errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&self.filter))); self.errno != 0 {
			goto failed
		}
	}
	_, _, self.errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(self.path)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(env)))
failed:
	for {
		syscall.RawSyscall(unix.SYS_EXIT, 127, 0, 0)
	}
}

func rawVfork(trap, flags uintptr) (pid, errno uintptr)

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

//go:linkname runtimeAfterForkInChild syscall.runtime_AfterForkInChild
func runtimeAfterForkInChild()
