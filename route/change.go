package route

import (
	"encoding/binary"
	"fmt"
)

// Op says what a change does to its route.
type Op uint8

// The operations.
const (
	OpPut    Op = 1 // the route is as Row says
	OpDelete Op = 2 // the route is gone; Row.Value means nothing
)

// Change is one change of one row.
type Change struct {
	Op  Op
	Row Row
}

// Bounds of an encoded change: a longer key or value is no row's.
const changeKeyBytesMax, changeValueBytesMax = 64 << 10, 1 << 20

// ErrTruncated is a change cut short.
var ErrTruncated = fmt.Errorf("route: change cut short")

// AppendChange encodes one change; any number of them may follow each other.
//
//	op     1 byte   1 put, 2 delete
//	cell   4 bytes  little endian
//	key    uvarint length, then bytes, at most 64 KiB
//	value  uvarint length, then bytes, at most 1 MiB; 0 for a delete
func AppendChange(dst []byte, c Change) []byte {
	dst = append(dst, byte(c.Op))
	dst = binary.LittleEndian.AppendUint32(dst, c.Row.Cell)
	dst = binary.AppendUvarint(dst, uint64(len(c.Row.Key)))
	dst = append(dst, c.Row.Key...)
	if c.Op == OpDelete {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.Row.Value)))
	return append(dst, c.Row.Value...)
}

// ParseChanges decodes what AppendChange wrote, all of it or nothing: b comes
// from another process. The result shares no memory with b. Whether the rows
// are good ones is Apply's matter.
func ParseChanges(b []byte) ([]Change, error) {
	var all []Change
	for len(b) > 0 {
		if len(b) < 5 {
			return nil, ErrTruncated
		}
		c := Change{Op: Op(b[0]), Row: Row{Cell: binary.LittleEndian.Uint32(b[1:])}}
		if c.Op != OpPut && c.Op != OpDelete {
			return nil, fmt.Errorf("route: change %d has unknown operation %d", len(all), b[0])
		}
		var err error
		if c.Row.Key, b, err = changeText(b[5:], changeKeyBytesMax); err != nil {
			return nil, fmt.Errorf("key of change %d: %w", len(all), err)
		}
		if c.Row.Value, b, err = changeText(b, changeValueBytesMax); err != nil {
			return nil, fmt.Errorf("value of change %d: %w", len(all), err)
		}
		if c.Op == OpDelete && c.Row.Value != "" {
			return nil, fmt.Errorf("route: change %d deletes and has a value", len(all))
		}
		all = append(all, c)
	}
	return all, nil
}

func changeText(b []byte, most uint64) (text string, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || most < n {
		if size == 0 {
			return "", nil, ErrTruncated
		}
		return "", nil, fmt.Errorf("route: length over %d", most)
	}
	if uint64(len(b)-size) < n {
		return "", nil, ErrTruncated
	}
	return string(b[size : size+int(n)]), b[size+int(n):], nil
}
