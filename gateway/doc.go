// Package gateway is the composition of the gateway process: it holds the data
// directory, binds the port, keeps the workers alive, publishes route tables
// and ends all of it in order.
//
// # Parts
//
//	dataDir     possession of <data>: modes, lock, run directory, pid file
//	publisher   rows of the database become tables, prepared, confirmed, stored
//	supervisor  one process per worker slot, started again with back-off
//	collector   metrics datagrams become samples on the board
//	backend     what the control plane asks
//
// The reactor's Front (package reactor) accepts, donates and takes back; this
// package tells it which workers there are and which may be picked.
//
// # Goroutines
//
// The publisher's; the change feed's; the collector's; one keeper per worker
// slot, and one that waits for that worker's process to end; one that reads
// heartbeats; one per artifact that is being prepared. Run waits for all of
// them. What the reactor reports arrives on its returns loop, which must not be
// held up: it goes into the publisher's inbox, or into a channel of one place.
//
// # Lock order
//
// publisher.mu and keeper.mu are leaves: nothing is called while one is held.
//
// # Two invariants
//
// A worker that is picked has confirmed a table that is not older than the
// published one (publisher). And nobody touches what a worker shared with us
// before its process is reaped (keeper.death).
package gateway
