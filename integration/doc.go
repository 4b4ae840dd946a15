// Package integration tests the real binary: a gateway and its workers, over
// real sockets, on data directories and ports of their own.
package integration
