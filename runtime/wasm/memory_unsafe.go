package wasm

import (
	"reflect"
	"unsafe"

	"github.com/tetratelabs/wazero/api"
)

// shrink makes the module's memory as long as want bytes again, with the same
// address, by a growth of one page from one page less: wazero grows
// memories but does not shrink them.
//
// It writes the length of the slice that is the field Buffer of wazero's
// memory instance, after it has made sure that it is that slice: its
// address and length are the known ones. It returns false, and has changed
// nothing, when it is not or when want is below one page; the instance
// must then be thrown away.
//
// Source: wazero v1.12, internal/wasm/memory.go, MemoryInstance and Grow.
func shrink(mem api.Memory, region []byte, want int) bool {
	const page = 1 << 16
	v := reflect.ValueOf(mem)
	if want < page || v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	field, ok := v.Elem().Type().FieldByName("Buffer")
	if !ok || field.Type != reflect.TypeFor[[]byte]() || len(field.Index) != 1 {
		return false
	}
	buffer := (*[]byte)(unsafe.Add(v.UnsafePointer(), field.Offset))
	if unsafe.SliceData(*buffer) != unsafe.SliceData(region) || len(*buffer) != int(mem.Size()) || len(*buffer) < want {
		return false
	}
	*buffer = (*buffer)[:want-page]
	if _, ok := mem.Grow(1); !ok {
		panic("wasm: memory cannot grow to the length it had")
	}
	return true
}
