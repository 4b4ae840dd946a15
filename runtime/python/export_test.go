package python

import (
	"context"
	"errors"

	"baton/runtime"
)

// Told makes calls, one after another, until an interpreter tells whether they
// wait: it is wanted to once in a number of them.
func Told(ctx context.Context, l runtime.Loaded, inv *runtime.Invocation) (computes, waits bool, err error) {
	own := l.(*loaded)
	deadline, _ := ctx.Deadline()
	for ctx.Err() == nil {
		p, result := own.Pool.Get(inv, deadline)
		if p == nil {
			return false, false, errors.New(result.Detail)
		}
		s := p.State.(*server)
		p.Begin(inv, deadline)
		var a answer
		if s.handler {
			a, err = own.call(p, s, inv, deadline)
		} else {
			a, err = own.run(p, s, inv)
		}
		p.End(err)
		own.Pool.Put(p, err == nil)
		if err != nil {
			return false, false, err
		}
		if a.flags&(flagComputes|flagWaits) != 0 {
			return a.flags&flagComputes != 0, a.flags&flagWaits != 0, nil
		}
	}
	return false, false, ctx.Err()
}
