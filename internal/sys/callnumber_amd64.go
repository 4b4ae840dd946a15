package sys

import "golang.org/x/sys/unix"

// AuditArch is this processor, as a seccomp filter sees it.
const AuditArch = AuditArchX86

// callNumbersOfArch are calls that only this processor has; read only.
var callNumbersOfArch = map[string]uintptr{
	"fork":            unix.SYS_FORK,
	"vfork":           unix.SYS_VFORK,
	"iopl":            unix.SYS_IOPL,
	"ioperm":          unix.SYS_IOPERM,
	"modify_ldt":      unix.SYS_MODIFY_LDT,
	"uselib":          unix.SYS_USELIB,
	"ustat":           unix.SYS_USTAT,
	"sysfs":           unix.SYS_SYSFS,
	"_sysctl":         unix.SYS__SYSCTL,
	"afs_syscall":     unix.SYS_AFS_SYSCALL,
	"create_module":   unix.SYS_CREATE_MODULE,
	"get_kernel_syms": unix.SYS_GET_KERNEL_SYMS,
	"query_module":    unix.SYS_QUERY_MODULE,
	"vserver":         unix.SYS_VSERVER,
}
