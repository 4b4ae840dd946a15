package procstat

import (
	"bytes"
	"encoding/binary"
)

// direntHead is the size of what comes before the name in a directory entry:
//
//	0   inode   u64
//	8   offset  i64
//	16  length  u16, of the whole entry
//	18  type    u8
//	19  name, ended by a zero byte, padded to length
//
// All in the machine's byte order. Source: getdents(2), struct linux_dirent64.
const direntHead = 19

// dirent reads one entry from what getdents64 wrote. False at the end. The name
// is a copy: a thread's name fits a string without garbage worth mentioning, and
// outlives the buffer.
func dirent(b []byte) (name string, rest []byte, ok bool) {
	if len(b) < direntHead {
		return "", nil, false
	}
	length := int(binary.NativeEndian.Uint16(b[16:]))
	if length < direntHead || length > len(b) {
		return "", nil, false
	}
	n := b[direntHead:length]
	if end := bytes.IndexByte(n, 0); end >= 0 {
		n = n[:end]
	}
	return string(n), b[length:], true
}
