package python

import (
	"encoding/binary"
	"encoding/hex"
	"syscall"

	"baton/internal/sys"
)

// Values of arguments that the filter knows.
const (
	dataNumber  = 0
	dataArgs    = 16
	cloneThread = 0x00010000
)

// refuseProcesses is a seccomp filter that refuses new processes, and not
// threads, in the form in which server.py puts it in place: instructions in
// hexadecimal. Empty: this kernel has no filters. What it passes over (other architectures, clone3), the
// sandbox's own filter has settled.
func refuseProcesses() string {
	if !sys.SeccompAvailable() {
		return ""
	}
	fail := uint32(sys.SeccompErrno) | uint32(syscall.EPERM)
	var program []sys.BPF
	add := func(code uint16, k uint32, yes, no uint8) {
		program = append(program, sys.BPF{Code: code, K: k, Jt: yes, Jf: no})
	}
	add(sys.BPFLoad, dataNumber, 0, 0)
	for _, name := range []string{"fork", "vfork"} {
		if number, ok := sys.CallNumber(name); ok {
			add(sys.BPFJumpEq, number, 0, 1)
			add(sys.BPFReturn, fail, 0, 0)
		}
	}
	if number, ok := sys.CallNumber("clone"); ok {
		add(sys.BPFJumpEq, number, 0, 3)
		add(sys.BPFLoad, dataArgs, 0, 0)
		add(sys.BPFJumpOn, cloneThread, 1, 0)
		add(sys.BPFReturn, fail, 0, 0)
	}
	add(sys.BPFReturn, sys.SeccompAllow, 0, 0)
	var b []byte
	for _, i := range program {
		b = binary.LittleEndian.AppendUint16(b, i.Code)
		b = append(b, i.Jt, i.Jf)
		b = binary.LittleEndian.AppendUint32(b, i.K)
	}
	return hex.EncodeToString(b)
}
