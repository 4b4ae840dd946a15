package sys

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Become replaces this process by the program path, with memory bytes as the
// bound of its address space (zero: none). It returns only on error, and then the
// process is of no use any more: the bound holds for it as well.
//
// A program that somebody has open for writing is tried again for some seconds: who has written it may
// have forked at that moment, and the child holds the file until it executes something.
//
// Source: execve(2), getrlimit(2); golang.org/issue/22315.
func Become(path string, argv, env []string, memory uint64) error {
	name, err := syscall.BytePtrFromString(path)
	if err != nil {
		return fmt.Errorf("execve: %w", err)
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return fmt.Errorf("execve: arguments: %w", err)
	}
	variables, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return fmt.Errorf("execve: environment: %w", err)
	}
	limit := unix.Rlimit{Cur: memory, Max: memory}
	if memory > 0 {
		if _, _, e := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_AS, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); e != 0 {
			return fmt.Errorf("setrlimit memory: %w", e)
		}
	}
	var e syscall.Errno
	for range busyTries {
		_, _, e = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&variables[0])))
		if e != syscall.ETXTBSY {
			break
		}
		pause := syscall.Timespec{Nsec: busyPauseNanos}
		_, _, _ = syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
	}
	return fmt.Errorf("execve: %w", e)
}

// busyTries and busyPauseNanos bound the tries at 5 s; mostly one pause is enough.
const (
	busyTries      = 1000
	busyPauseNanos = 5e6
)
