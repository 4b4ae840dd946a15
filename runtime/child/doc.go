// Package child is what the executors of native, php and python functions have
// in common: pools of sandboxed processes.
//
// # What an executor does
//
// It is made on a *Shared, which all executors of a worker have in common (New
// makes it), and embeds Functions, which are its loaded ones. It makes a Function with a Pool for each (Functions.Add,
// with Shared.Spec as the start of Config.Spec), and embeds that in what it returns. For an invocation it takes a Process
// (Pool.Get, which starts one or waits), says who uses it (Process.Begin), talks to it over
// Process.Channel in its own way, says that it is over (Process.End), and gives it back (Pool.Put).
//
//	p, result := pool.Get(inv, deadline)
//	if p == nil {
//		return result // runtime.Unavailable, Timeout or Cancelled
//	}
//	p.Begin(inv, deadline)
//	err := talk(p.Channel, inv) // plain blocking reads and writes
//	result = p.End(err)         // OK, or why the process was killed, or how it died
//	pool.Put(p, result.Reason == runtime.OK)
//
// Pool.Do does the same for a Task without a goroutine of the caller's: what executors
// that implement runtime.Starter use.
//
// Between Begin and End the pool's watcher kills the process, with everything
// that it has started, at the deadline, when inv.Cancel becomes true, and
// when the pool closes. The channel then reads its end, so nothing else has to wait with
// a timeout. A process that was killed or has died is replaced.
//
// What a process writes to its standard error goes, line by line, to the
// Stderr of the invocation that it serves. Standard output is a pipe whose read
// end is Process.Stdout; PumpOut moves it to an Invocation's Stdout, and PumpIn
// moves the body to a pipe, each with back-pressure. Stdio does both for processes that fork a child
// for each request: native and python.
//
// # The private directory
//
// Each process has a working directory of its own, empty at first, and the only place where it can
// write. What a request leaves there must not reach the next: a kind whose processes serve more than one
// empties it in between, or does not reuse the process.
//
// # Descriptors of a child
//
// 0: what Config.Open has put into Process.Stdin, or /dev/null; 1 and 2: pipes, or what Open
// has put there; 3: its end of the channel, a stream socketpair; 4 and up: Process.Files. No other.
//
// # Bounds
//
// Config.Max processes per pool; starting more only when somebody has waited for growAfter times their number, or for enoughPatience where
// their number is Enough; they are
// ended after idleAfter without use; starts that fail are tried again after a pause that doubles, during
// which requests are answered Unavailable. Config.Uses requests per process.
//
// # Goroutines
//
// One per pool while it has processes (the watcher), one per process that waits for its end and one that
// reads its standard error; with Pool.Do one per process that serves; with Stdio up to two per request, which Stdio.Finish awaits. Pool.Close ends and awaits them all. Locks: Pool.mu, then Process.mu; Functions.mu alone; none is held while something waits.
package child
