// Package bench measures baton beside its peers on one machine: the same work,
// in rotation, quoted as ratios of one run.
//
// It knows every server only by its address and its process tree: it speaks
// through sockets and /proc. wrk is the client. Servers start from the caller's
// goroutine, which must be locked to its thread: the kernel stops them when
// that thread ends.
package bench
