package child

import (
	"time"

	"baton/runtime"
)

// Task is an invocation for which nobody waits: see Pool.Do.
type Task interface {
	// Serve runs the invocation on a process, which it neither keeps nor gives back, from
	// Begin to End. Not reusable: the process is ended.
	Serve(pr *Process) (result runtime.Result, reusable bool)
	// Done is told the result, once: Serve's, after the process was given back,
	// or why there was no process.
	Done(result runtime.Result)
}

// Do is Get, Serve, Put and Done on a goroutine of the pool's. It does not wait. A
// goroutine that is done with one task goes on with the next that waits, on the same
// process: under load there is none per invocation.
func (p *Pool) Do(inv *runtime.Invocation, deadline time.Time, task Task) {
	pr, w, result := p.take(inv, deadline, task)
	switch {
	case w != nil:
	case pr != nil:
		go p.serve(pr, task) // ends before Close, which waits for p.out
	default:
		task.Done(result)
	}
}

// serve serves a task, and those that wait then. pr is the caller's.
func (p *Pool) serve(pr *Process, task Task) {
	for task != nil {
		result, reusable := task.Serve(pr)
		next := p.put(pr, reusable, true)
		task.Done(result)
		task = next
	}
}

// give gives a waiter what it waits for. mu is held.
func (p *Pool) give(w *waiter, g grant) {
	switch {
	case w.task == nil:
		w.got <- g
	case g.p != nil:
		go p.serve(g.p, w.task) // ends before Close, which waits for p.out
	default:
		p.background.Go(func() { w.task.Done(g.result) })
	}
}
