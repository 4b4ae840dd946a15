package sys

// AuditArch is this processor, as a seccomp filter sees it.
const AuditArch = AuditArchARM

// callNumbersOfArch are calls that only this processor has: none of interest.
var callNumbersOfArch map[string]uintptr
