// Package ipc is what the gateway and its workers say to each other: the board
// (shared memory), donations (connections on their way to a worker), frames
// (everything else, both ways) and metrics datagrams.
//
// # The board
//
// One memfd, made by the gateway and mapped by every process: a slot per
// connection that was handed over, a slot per worker, and a cell per function
// and process. A connection's slot says who owns it and what that owner is about
// to do; it is the truth when a worker dies. See Board and State.
//
// # Donations
//
// One SOCK_SEQPACKET pair per gateway loop and worker, so that no lock is
// needed. A message carries up to DonationConnsMax connections: their
// descriptors and every byte that was read of them. The gateway retains a
// duplicate of each, so a donation that is lost on its way costs nothing. See
// DonationWriter and DonationReader.
//
// # Frames
//
// One SOCK_SEQPACKET pair per worker, its control channel, both ways: tables
// and orders to the worker, reports from it. See Frame.
//
// # Trust
//
// A worker may have been taken over by a function that broke out. Whatever it
// sends is checked here before it is passed on: a frame that is not well-formed
// is a *FrameError, the sender's fault, and every descriptor that came with it
// is closed. Shared memory is read once, into a local copy, and is bounded
// there; what it says is believed as far as the worker's own connections go,
// which is for the gateway to check. The gateway is trusted by its workers, but
// a frame of another version or a mistake of ours is answered just the same.
//
// # Goroutines, locks, hot functions
//
// No goroutines, no locks. A writer, a reader and the socket behind it belong to
// one goroutine at a time; the board may be used by any number of goroutines and
// processes, as its methods say. Hot, and
// proven to allocate nothing: DonationWriter.Add and Flush, DonationReader.Read,
// CheckConn, all methods of ConnSlot, WorkerSlot and Cell, Board.Enter, Leave
// and Inflight, WriteFrame and FrameReader.Read of frames without descriptors.
package ipc
