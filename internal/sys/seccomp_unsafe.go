package sys

import (
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BPF is one instruction of a seccomp filter, as the kernel reads it.
type BPF = unix.SockFilter

// Instructions of classic BPF that filters are made of.
//
// Source: linux/bpf_common.h.
const (
	BPFLoad   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	BPFJumpEq = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	BPFJumpGe = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	BPFJumpOn = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	BPFJump   = unix.BPF_JMP | unix.BPF_JA
	BPFAnd    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	BPFReturn = unix.BPF_RET | unix.BPF_K
)

// What a filter answers; SeccompErrno has the errno in its low bits.
const (
	SeccompAllow = unix.SECCOMP_RET_ALLOW
	SeccompErrno = unix.SECCOMP_RET_ERRNO
	SeccompKill  = unix.SECCOMP_RET_KILL_PROCESS
)

// Architectures, as a filter sees them.
const (
	AuditArchX86 = unix.AUDIT_ARCH_X86_64
	AuditArchARM = unix.AUDIT_ARCH_AARCH64
)

// SeccompAvailable says whether this kernel takes filters: one without a
// program is refused as a bad address.
func SeccompAvailable() bool {
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	return e == unix.EFAULT
}

// SetSeccomp puts the calling thread, and all that it starts, under the filter, for
// ever. The thread has set no_new_privs.
//
// Source: seccomp(2).
func SetSeccomp(filter []BPF) error {
	if len(filter) == 0 || len(filter) > math.MaxUint16 {
		return fmt.Errorf("seccomp: a filter of %d instructions", len(filter))
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}
