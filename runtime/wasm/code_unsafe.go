package wasm

import (
	"reflect"
	"unsafe"

	"github.com/tetratelabs/wazero"
)

// withStore makes cache use s for its files. It returns false, and has changed
// nothing, when cache is not what it was in the version named below.
//
// wazero offers a directory and nothing else: it then reads eight bytes at a
// time, copies machine code into private memory, and compiles what it does not find.
//
// Source: wazero v1.12, cache.go, type cache; internal/filecache, type Cache.
func withStore(cache wazero.CompilationCache, s codeStore) bool {
	v := reflect.ValueOf(cache)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	field := v.Elem().FieldByName("fileCache")
	if !field.IsValid() || field.Kind() != reflect.Interface || !field.IsNil() || !reflect.TypeOf(s).Implements(field.Type()) {
		return false
	}
	reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Set(reflect.ValueOf(s))
	return true
}
