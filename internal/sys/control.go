package sys

import (
	"encoding/binary"
	"syscall"
)

// A control message as the kernel lays it out on 64-bit machines (cmsg(3)), in
// the machine's byte order, each aligned to 8 bytes:
//
//	0   8  length, header included, padding not
//	8   4  level
//	12  4  type
//	16     data; descriptors are 4 bytes each
const (
	controlHeaderBytes = 16
	controlAlign       = 8
)

// RightsMax is the most descriptors that one message carries.
//
// Source: unix(7), SCM_MAX_FD, since Linux 2.6.38.
const RightsMax = 253

// RightsSpace is the size of a control buffer for n descriptors. Because of the
// alignment, a buffer for an odd number has room for one more.
func RightsSpace(n int) int {
	return controlHeaderBytes + (n*4+controlAlign-1)&^(controlAlign-1)
}

// PutRights writes the control message that passes the descriptors to the front
// of control, which must have RightsSpace(len(fds)) bytes, and returns what is
// to be sent: nothing for no descriptors. The descriptors are borrowed until
// the message is sent.
func PutRights(control []byte, fds []int32) []byte {
	if len(fds) == 0 {
		return nil
	}
	out := control[:RightsSpace(len(fds))]
	clear(out[controlHeaderBytes:])
	binary.NativeEndian.PutUint64(out, uint64(controlHeaderBytes+4*len(fds)))
	binary.NativeEndian.PutUint32(out[8:], syscall.SOL_SOCKET)
	binary.NativeEndian.PutUint32(out[12:], syscall.SCM_RIGHTS)
	for i, n := range fds {
		binary.NativeEndian.PutUint32(out[controlHeaderBytes+4*i:], uint32(n))
	}
	return out
}

// Rights appends the descriptors of a received control buffer to dst. The
// kernel wrote the buffer, so what it holds is well-formed; only its end may be
// cut. The descriptors are the caller's.
func Rights(dst []int32, control []byte) []int32 {
	for {
		data, rest, level, kind := nextControl(control)
		if rest == nil {
			return dst
		}
		if level == syscall.SOL_SOCKET && kind == syscall.SCM_RIGHTS {
			for ; len(data) >= 4; data = data[4:] {
				dst = append(dst, int32(binary.NativeEndian.Uint32(data)))
			}
		}
		control = rest
	}
}

// Credentials finds the sender's credentials in a received control buffer. They
// are there when the receiving socket has SetPassCred, and are the kernel's
// word: the sender cannot forge them without privileges.
func Credentials(control []byte) (pid, uid, gid int, ok bool) {
	for {
		data, rest, level, kind := nextControl(control)
		if rest == nil {
			return 0, 0, 0, false
		}
		if level == syscall.SOL_SOCKET && kind == syscall.SCM_CREDENTIALS && len(data) >= syscall.SizeofUcred {
			return int(int32(binary.NativeEndian.Uint32(data))), int(binary.NativeEndian.Uint32(data[4:])),
				int(binary.NativeEndian.Uint32(data[8:])), true
		}
		control = rest
	}
}

// CredentialsSpace is the size of a control buffer for the sender's credentials.
const CredentialsSpace = controlHeaderBytes + (syscall.SizeofUcred+controlAlign-1)&^(controlAlign-1)

// nextControl cuts the first control message off b. rest is nil when there is
// none, and not nil otherwise.
func nextControl(b []byte) (data, rest []byte, level, kind int) {
	if len(b) < controlHeaderBytes {
		return nil, nil, 0, 0
	}
	size := binary.NativeEndian.Uint64(b)
	if size < controlHeaderBytes || size > uint64(len(b)) {
		return nil, nil, 0, 0
	}
	level, kind = int(int32(binary.NativeEndian.Uint32(b[8:]))), int(int32(binary.NativeEndian.Uint32(b[12:])))
	data = b[controlHeaderBytes:size]
	next := (size + controlAlign - 1) &^ (controlAlign - 1)
	return data, b[min(next, uint64(len(b))):], level, kind
}
