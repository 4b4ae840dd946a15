// Package worker is the composition of the worker process: it takes its
// orders from the gateway over the one descriptor that it inherits, runs one
// back loop (package reactor), and measures itself twice a second.
//
// Goroutines: the loop, those that load and run functions beside it, and the
// metrics sender. Run returns when the loop has ended and waits for all of
// them. There are no locks here.
package worker
