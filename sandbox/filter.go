package sandbox

import (
	"slices"
	"syscall"

	"baton/internal/sys"
)

// refused are the system calls that no function needs. They fail with EPERM.
var refused = []string{
	// What is mounted, and where the root is.
	"mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	// Other processes' memory and descriptors.
	"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise", "process_mrelease",
	// Interfaces of the kernel with a history.
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key", "keyctl",
	"name_to_handle_at", "open_by_handle_at", "lookup_dcookie", "nfsservctl", "fanotify_init", "fanotify_mark", "move_pages", "migrate_pages",
	// The machine.
	"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "settimeofday", "clock_settime",
	"clock_adjtime", "adjtimex", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "vhangup", "sethostname", "setdomainname",
	"iopl", "ioperm", "modify_ldt", "uselib", "ustat", "sysfs", "_sysctl", "afs_syscall", "create_module", "get_kernel_syms", "query_module", "vserver",
	// Namespaces.
	"unshare", "setns",
	// What outlives a process, or is counted by no limit of it.
	"shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl",
	"mq_open", "mq_unlink", "memfd_create", "memfd_secret",
	// Leaving the process group.
	"setsid", "setpgid",
	"personality",
}

// signalling are the calls that reach a process by its number.
var signalling = []string{"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"}

// Places in struct seccomp_data. Arguments are 64 bits wide; both processors
// that we know store the low half first.
//
// Source: linux/seccomp.h.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// Values of arguments that the filter knows.
const (
	x32Bit         = 0x40000000 // of a call's number
	cloneThread    = 0x00010000
	cloneSpaces    = 0x7e020080 // CLONE_NEW*, NEWTIME among them
	socketTypeMask = 0xf
	prDeathSignal  = 1
	tiocsti        = 0x5412
)

// program is a filter being written.
type program []sys.BPF

func (p *program) add(code uint16, k uint32, yes, no uint8) {
	*p = append(*p, sys.BPF{Code: code, K: k, Jt: yes, Jf: no})
}

func (p *program) load(offset uint32) { p.add(sys.BPFLoad, offset, 0, 0) }
func (p *program) answer(what uint32) { p.add(sys.BPFReturn, what, 0, 0) }

func fail(e syscall.Errno) uint32 { return sys.SeccompErrno | uint32(e) }

// on runs body, which ends with an answer, for one call and passes over it for
// the others. The number of the call is loaded before and after.
func (p *program) on(call string, body func(*program)) {
	number, ok := sys.CallNumber(call)
	if !ok {
		return
	}
	var inner program
	body(&inner)
	p.add(sys.BPFJumpEq, number, 0, uint8(len(inner)))
	*p = append(*p, inner...)
}

// filter makes the seccomp filter of s.
func (s *Spec) filter() []sys.BPF {
	var p program
	p.load(dataArch)
	p.add(sys.BPFJumpEq, sys.AuditArch, 1, 0)
	p.answer(sys.SeccompKill)
	p.load(dataNumber)
	if sys.AuditArch == sys.AuditArchX86 {
		p.add(sys.BPFJumpGe, x32Bit, 0, 1)
		p.answer(sys.SeccompKill)
	}

	p.on("clone3", func(p *program) { p.answer(fail(syscall.ENOSYS)) }) // its flags are out of a filter's sight: libraries use clone then
	p.on("clone", func(p *program) {
		p.load(dataArgs)
		p.add(sys.BPFJumpOn, cloneSpaces, 0, 1)
		p.answer(fail(syscall.EPERM))
		if s.Processes == 0 {
			p.add(sys.BPFJumpOn, cloneThread, 1, 0)
			p.answer(fail(syscall.EPERM))
		}
		p.answer(sys.SeccompAllow)
	})
	if s.Processes == 0 {
		for _, call := range []string{"fork", "vfork"} {
			p.on(call, func(p *program) { p.answer(fail(syscall.EPERM)) })
		}
	}
	p.on("socket", func(p *program) {
		if s.Network {
			p.load(dataArgs)
			p.add(sys.BPFJumpEq, syscall.AF_INET, 2, 0)
			p.add(sys.BPFJumpEq, syscall.AF_INET6, 1, 0)
			p.answer(fail(syscall.EAFNOSUPPORT))
			p.load(dataArgs + 8)
			p.add(sys.BPFAnd, socketTypeMask, 0, 0)
			p.add(sys.BPFJumpEq, syscall.SOCK_STREAM, 2, 0)
			p.add(sys.BPFJumpEq, syscall.SOCK_DGRAM, 1, 0)
			p.answer(fail(syscall.EPERM))
			p.answer(sys.SeccompAllow)
			return
		}
		p.answer(fail(syscall.EAFNOSUPPORT))
	})
	p.on("socketpair", func(p *program) {
		// A datagram socket of a pair may be pointed at any other by its path.
		p.load(dataArgs + 8)
		p.add(sys.BPFAnd, socketTypeMask, 0, 0)
		p.add(sys.BPFJumpEq, syscall.SOCK_STREAM, 2, 0)
		p.add(sys.BPFJumpEq, syscall.SOCK_SEQPACKET, 1, 0)
		p.answer(fail(syscall.EPERM))
		p.answer(sys.SeccompAllow)
	})
	p.on("prctl", func(p *program) {
		// The signal at the parent's death is set, never taken back.
		p.load(dataArgs)
		p.add(sys.BPFJumpEq, prDeathSignal, 0, 3)
		p.load(dataArgs + 8)
		p.add(sys.BPFJumpEq, uint32(syscall.SIGKILL), 1, 0)
		p.answer(fail(syscall.EPERM))
		p.answer(sys.SeccompAllow)
	})
	p.on("ioctl", func(p *program) {
		p.load(dataArgs + 8)
		p.add(sys.BPFJumpEq, tiocsti, 0, 1)
		p.answer(fail(syscall.EPERM))
		p.answer(sys.SeccompAllow)
	})
	calls := refused
	if s.signalsOpen() {
		calls = slices.Concat(refused, signalling)
	}
	numbers := make([]uint32, 0, len(calls))
	for _, call := range calls {
		if n, ok := sys.CallNumber(call); ok {
			numbers = append(numbers, n)
		}
	}
	p.refuse(numbers)
	return p
}

// refuse ends the program: EPERM for these calls, all others are allowed.
func (p *program) refuse(numbers []uint32) {
	slices.Sort(numbers)
	for i, n := range numbers {
		p.add(sys.BPFJumpEq, n, uint8(len(numbers)-i), 0)
	}
	p.answer(sys.SeccompAllow)
	p.answer(fail(syscall.EPERM))
}

// signalsOpen says that nothing but this filter keeps the child's signals from
// reaching other processes of this user: no namespace and no Landlock of version 6.
func (s *Spec) signalsOpen() bool {
	if s.Namespaces {
		return false
	}
	return s.without(LayerLandlock) || sys.LandlockABI() < 6
}
