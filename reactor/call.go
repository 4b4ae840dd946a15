package reactor

import (
	"baton/httpparse"
	"baton/route"
)

// callsFreeMax bounds the call structs that a loop keeps for reuse.
const callsFreeMax = 64

// call is one request from its head to its answer. The loop parses into the
// call it holds ready; a call that runs beside the loop is replaced there by
// another until it is over. Everything in it belongs to the loop, but while
// running is set it belongs to the goroutine that runs it.
type call struct {
	req   httpparse.Request
	match route.Match
	table *route.Table
	fn    *route.Function

	answer answer

	id    [requestIDBytesMax]byte
	idLen int

	loop  *loop
	conn  *conn
	body  []byte // JSON of an error
	extra []byte // field lines of an answer
	head  []byte // head of a function's answer

	run         run // back only
	promoteConn *conn
	promoteRest []byte

	nextFree *call
}

func newCall() *call { return &call{body: make([]byte, 0, 512), extra: make([]byte, 0, 256)} }

// begin ties k to its connection and settles its request id and whether the
// connection ends with it.
func (k *call) begin(l *loop, c *conn) {
	k.loop, k.conn = l, c
	if id := k.req.RequestID; id != nil {
		k.idLen = copy(k.id[:], id)
	} else {
		k.idLen = len(l.ids.appendNext(k.id[:0]))
	}
	if !k.req.KeepAlive || l.draining {
		c.closing = true
	}
}

// takeCall returns a call for the loop to parse into.
func (l *loop) takeCall() *call {
	k := l.calls
	if k == nil {
		return newCall()
	}
	l.calls = k.nextFree
	l.callCount--
	k.nextFree = nil
	return k
}

// putCall makes the struct of a call that is over reusable.
func (l *loop) putCall(k *call) {
	k.run.out.release(&l.storage)
	if !k.run.flowNew {
		k.run.flow.release(&l.storage)
	}
	l.storage.give(k.run.spare)
	k.run.spare = nil
	if l.callCount >= callsFreeMax {
		return
	}
	k.nextFree = l.calls
	l.calls = k
	l.callCount++
}
