package php

import (
	"bytes"
	"errors"

	"baton/runtime"
	"baton/runtime/child"
)

// headMax bounds the header block of an answer, in bytes. A longer one is no
// answer: 502.
const headMax = 64 << 10

// typeDefault is what PHP calls an answer whose script has set fields, but no
// type. One that begins like JSON is called that, as without any field.
const (
	typeDefault = "Content-Type: text/html; charset=UTF-8\r\n"
	typeJSON    = "Content-Type: application/json\r\n"
)

var errHead = errors.New("the header block is longer than it may be")

// answer gives PHP's CGI output on to an invocation: a block that the script
// has said nothing for is left out, so that the platform's own rules for a
// body hold.
type answer struct {
	head   []byte // not given on yet
	whole  bool   // head is the whole block
	passes bool   // the block is done
}

func (a *answer) reset() { a.head, a.whole, a.passes = a.head[:0], false, false }

// write takes the next piece.
func (a *answer) write(p *child.Process, inv *runtime.Invocation, b []byte) error {
	if a.passes {
		return p.Write(inv, b)
	}
	if !a.whole {
		from := max(0, len(a.head)-3)
		a.head = append(a.head, b...)
		switch end := bytes.Index(a.head[from:], []byte("\r\n\r\n")); {
		case bytes.HasPrefix(a.head, []byte("\r\n")): // an empty block
			a.passes = true
			if len(a.head) == 2 {
				return nil
			}
			return p.Write(inv, a.head[2:])
		case end < 0 && len(a.head) > headMax:
			return errHead
		case end < 0:
			return nil
		default:
			a.whole = true
			end += from + 2
			b = b[len(b)-(len(a.head)-end-2):]
			a.head = a.head[:end]
		}
	}
	if len(b) == 0 {
		return nil
	}
	return a.begin(p, inv, b)
}

// begin gives the block on, and the first bytes behind it.
func (a *answer) begin(p *child.Process, inv *runtime.Invocation, b []byte) error {
	a.passes = true
	if !hasType(a.head) && len(b) > 0 {
		if b[0] == '{' || b[0] == '[' {
			a.head = append(a.head, typeJSON...)
		} else {
			a.head = append(a.head, typeDefault...)
		}
	}
	a.head = append(append(a.head, "\r\n"...), b...)
	return p.Write(inv, a.head)
}

// end is the end of the output.
func (a *answer) end(p *child.Process, inv *runtime.Invocation) error {
	if a.passes || !a.whole {
		return nil
	}
	return a.begin(p, inv, nil)
}

// hasType tells whether a block names a type.
func hasType(head []byte) bool {
	const name = "content-type:"
	for len(head) > 0 {
		if len(head) > len(name) && bytes.EqualFold(head[:len(name)], []byte(name)) {
			return true
		}
		_, head, _ = bytes.Cut(head, []byte("\n"))
	}
	return false
}
