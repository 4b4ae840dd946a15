package native

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"baton/runtime"
)

// Frames of the channel: struct request and struct answer of entry.c, in this
// machine's byte order, which is little-endian on both processors.
const (
	magic = 0x314e5442

	requestBytes = 20
	answerBytes  = 40

	kindHello  = 1
	kindEnded  = 2
	kindNoFork = 3

	flagStdin = 1

	// What a function may do: the first letter of BATON_ENTRY and of Spawn's MODE.
	// The digits behind it are room for the entry.
	modeAlone     = "1000" // start no processes
	modeProcesses = "2000" // start some, which end with the request

	// bytesMax bounds the arguments and variables of one request, in bytes.
	bytesMax = 1 << 20
)

// answer is a decoded struct answer.
type answer struct {
	kind   uint32
	status syscall.WaitStatus
	left   uint32
	rss    int64 // bytes, the most that the process had in memory
}

func parseAnswer(b *[answerBytes]byte) (answer, error) {
	if got := binary.LittleEndian.Uint32(b[0:]); got != magic {
		return answer{}, fmt.Errorf("the fork server's answer starts with %#x", got)
	}
	return answer{
		kind: binary.LittleEndian.Uint32(b[4:]), status: syscall.WaitStatus(binary.LittleEndian.Uint32(b[8:])),
		left: binary.LittleEndian.Uint32(b[12:]), rss: int64(min(binary.LittleEndian.Uint64(b[32:]), 1<<40)) << 10,
	}, nil
}

// append appends the answer, as a spawner sends it.
func (a *answer) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint32(dst, a.kind)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(a.status))
	dst = binary.LittleEndian.AppendUint32(dst, a.left)
	dst = append(dst, make([]byte, 16)...) // processor time, which nobody asks for
	return binary.LittleEndian.AppendUint64(dst, uint64(a.rss>>10))
}

// appendRequest appends a request: argv (each with its NUL), fixed variables (the same), and
// the invocation's.
func appendRequest(dst []byte, argc int, argv []byte, fixed int, variables []byte, env runtime.Environ, flags uint32) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, requestBytes)...)
	dst = append(dst, argv...)
	dst = append(dst, variables...)
	count := fixed
	if env != nil {
		n, _ := env.Sizes()
		count += n
		dst = env.AppendTo(dst)
	}
	head := dst[at:]
	binary.LittleEndian.PutUint32(head[0:], magic)
	binary.LittleEndian.PutUint32(head[4:], uint32(len(head)-requestBytes))
	binary.LittleEndian.PutUint32(head[8:], uint32(argc))
	binary.LittleEndian.PutUint32(head[12:], uint32(count))
	binary.LittleEndian.PutUint32(head[16:], flags)
	return dst
}
