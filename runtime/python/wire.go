package python

import (
	"encoding/binary"
	"fmt"

	"baton/runtime"
)

// Frames of the channel, in this machine's byte order, which is little-endian on
// both processors that we know. server.py has the same numbers.
//
//	config    magic 4, bytes of variables 4, address space in bytes 8 (0: no bound); the variables
//	request   magic 4, flags 4, bytes of the text 4, milliseconds left 4, bytes of the body 8; the text; the body
//	part      bytes 4 (0: the body is over); the bytes
//	answer    magic 4, kind 4, status 4, flags 4, number 8; of kindAnswered: number bytes
//
// Variables are "NAME=value", each with a NUL. The text of a request is its
// variables for a script, whose body is its standard input, and its event for a handler. With flagStreamed a
// handler gets the rest of the body in parts; a script gets a descriptor
// to read it from, with the first byte of the request.
const (
	magic = 0x31595042

	configBytes  = 16
	requestBytes = 24
	partBytes    = 4
	answerBytes  = 24

	kindHello    = 1
	kindReady    = 2
	kindEnded    = 3 // of a script: status as wait4(2) gives it
	kindAnswered = 4 // of a handler
	kindFailed   = 5 // of a handler: status is an exit code
	kindNoFork   = 6 // status is an errno

	// Flags of an answer.
	flagLeft     = 1  // processes were left behind that could not be ended
	flagMemory   = 2  // it ended for want of memory
	flagRetire   = 4  // the process is not to be used again
	flagHandler  = 8  // of kindReady: the file defines the handler
	flagComputes = 16 // the latest requests wanted the processor, and waited for nothing else
	flagWaits    = 32 // … or did wait

	flagStreamed = 1 // of a request

	// textMax bounds the text of one request, in bytes.
	textMax = 1 << 20
)

// answer is a decoded answer.
type answer struct {
	kind   uint32
	status int32
	flags  uint32
	number uint64
}

// parseAnswer reads answerBytes bytes of a function, which may be anything.
func parseAnswer(b []byte) (answer, error) {
	if got := binary.LittleEndian.Uint32(b); got != magic {
		return answer{}, fmt.Errorf("%w: an answer starts with %#x", errChannel, got)
	}
	return answer{
		kind: binary.LittleEndian.Uint32(b[4:]), status: int32(binary.LittleEndian.Uint32(b[8:])),
		flags: binary.LittleEndian.Uint32(b[12:]), number: binary.LittleEndian.Uint64(b[16:]),
	}, nil
}

func appendConfig(dst, variables []byte, space uint64) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(variables)))
	dst = binary.LittleEndian.AppendUint64(dst, space)
	return append(dst, variables...)
}

// appendHead appends the room of a request's head; putHead fills it.
func appendHead(dst []byte) []byte { return append(dst, make([]byte, requestBytes)...) }

func putHead(frame []byte, flags uint32, text int, millis uint32, body int) {
	binary.LittleEndian.PutUint32(frame[0:], magic)
	binary.LittleEndian.PutUint32(frame[4:], flags)
	binary.LittleEndian.PutUint32(frame[8:], uint32(text))
	binary.LittleEndian.PutUint32(frame[12:], millis)
	binary.LittleEndian.PutUint64(frame[16:], uint64(body))
}

// appendVariables appends the variables of an invocation.
func appendVariables(dst []byte, env runtime.Environ) []byte {
	if env == nil {
		return dst
	}
	return env.AppendTo(dst)
}
