package route

import (
	"encoding/binary"
	"strings"
	"time"
)

// Function is one route's function, as a table serves it. All its fields are
// read-only. Its identity over time is its Cell or its key, never its address.
//
// It is compact, because a table may hold a million: what a request needs is
// in plain fields, the rest stays packed in one text until Descriptor is asked.
type Function struct {
	Name        string        // a part of data
	MaxBody     int64         // bytes of a request's body; 0: no body
	Timeout     time.Duration // of one invocation
	Cell        uint32        // Row.Cell
	MaxInflight int32         // requests at a time; 0: no limit

	data    string // the path, then the packed descriptor
	pathLen uint16 // pathBytesMax fits
	method  Methods
}

func newFunction(r Row) (*Function, error) {
	d, err := ParseRow(r.Key, r.Value)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, 256)
	data = append(data, d.Path...)
	data, name := d.appendPacked(data)
	f := &Function{
		MaxBody:     d.MaxBody,
		Timeout:     d.Timeout,
		Cell:        r.Cell,
		MaxInflight: int32(d.MaxInflight),
		data:        string(data),
		pathLen:     uint16(len(d.Path)),
		method:      methodNumber(d.Method),
	}
	f.Name = f.data[name : name+len(d.Name)]
	return f, nil
}

// Key is the row's key; it allocates.
func (f *Function) Key() string { return f.method.String() + ":" + f.Path() }

// Method is the key's method: one of the constants.
func (f *Function) Method() Methods { return f.method }

// Path is the key's path, parameters as written.
func (f *Function) Path() string { return f.data[:f.pathLen] }

// Row is a row that means the same as the one that f came from: its key and
// cell, and the descriptor in the form of AppendJSON.
func (f *Function) Row() Row {
	d := f.Descriptor()
	d.Method, d.Path = "", ""
	return Row{f.Key(), string(d.AppendJSON(nil)), f.Cell}
}

// Descriptor is what the row says, with the method and path of the key; new at
// each call and the caller's to keep.
func (f *Function) Descriptor() *Descriptor {
	d := &Descriptor{
		Name:        f.Name,
		Timeout:     f.Timeout,
		Method:      f.method.String(),
		Path:        f.Path(),
		MaxBody:     f.MaxBody,
		MaxInflight: int(f.MaxInflight),
	}
	p := unpacker(f.data[f.pathLen:])
	kind, flags := p[0], p[1]
	p = p[2:]
	d.Runtime = Runtimes()[kind]
	d.Network, d.Freeze = flags&packedNetwork != 0, flags&packedFreeze != 0
	switch {
	case flags&packedWasm != 0:
		d.Target = "wasm"
	case flags&packedNative != 0:
		d.Target = "native"
	}
	p.text()
	d.Module, d.Handler, d.Files = p.text(), p.text(), p.text()
	if flags&packedArtifact != 0 {
		d.Module = artifactHead + d.Module + artifactTail
	}
	d.MemoryMB, d.Processes = p.number(), p.number()
	for range p.number() {
		d.Env = append(d.Env, p.text())
	}
	return d
}

const (
	packedNetwork = 1 << iota
	packedFreeze
	packedWasm
	packedNative
	packedArtifact // the module is artifactHead, the text, artifactTail
)

// What nearly every module starts and ends with.
const artifactHead, artifactTail = "functions/", "/module.wasm"

// appendPacked writes what Function's plain fields do not hold:
//
//	runtime 1 byte, its place in Runtimes; flags 1 byte
//	name, module, handler, files: uvarint length, bytes
//	memory in MB, processes: uvarint
//	env: uvarint count, then texts "NAME=value"
//
// name is where the name's bytes start. Read back by Function.Descriptor only,
// in the same process, so nothing here is foreign input.
func (d *Descriptor) appendPacked(dst []byte) (packed []byte, name int) {
	var flags, kind byte
	for i, r := range Runtimes() {
		if r == d.Runtime {
			kind = byte(i)
		}
	}
	if d.Network {
		flags |= packedNetwork
	}
	if d.Freeze {
		flags |= packedFreeze
	}
	switch d.Target {
	case "wasm":
		flags |= packedWasm
	case "native":
		flags |= packedNative
	}
	module := d.Module
	if rest, ok := strings.CutPrefix(module, artifactHead); ok {
		if rest, ok = strings.CutSuffix(rest, artifactTail); ok {
			module, flags = rest, flags|packedArtifact
		}
	}
	dst = append(dst, kind, flags)
	dst = appendText(dst, d.Name)
	name = len(dst) - len(d.Name)
	dst = appendText(dst, module)
	dst = appendText(dst, d.Handler)
	dst = appendText(dst, d.Files)
	dst = binary.AppendUvarint(dst, uint64(d.MemoryMB))
	dst = binary.AppendUvarint(dst, uint64(d.Processes))
	dst = binary.AppendUvarint(dst, uint64(len(d.Env)))
	for _, e := range d.Env {
		dst = appendText(dst, e)
	}
	return dst, name
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

type unpacker string

func (p *unpacker) number() int {
	n, shift := 0, 0
	for i := 0; ; i++ {
		c := (*p)[i]
		n |= int(c&0x7f) << shift
		if shift += 7; c < 0x80 {
			*p = (*p)[i+1:]
			return n
		}
	}
}

func (p *unpacker) text() string {
	n := p.number()
	s := string((*p)[:n])
	*p = (*p)[n:]
	return s
}

// compareKeys orders functions by key.
func compareKeys(a, b *Function) int {
	if a.method != b.method {
		return strings.Compare(a.method.String(), b.method.String())
	}
	return strings.Compare(a.Path(), b.Path())
}
