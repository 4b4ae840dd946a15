// Package reactor drives client connections on event loops: it reads, parses,
// matches and decides, and then donates the connection (in the gateway) or runs
// the function and writes its answer (in a worker). One HTTP/1.1 connection
// state machine serves both kinds of process, so there is one grammar and one
// verdict on every connection.
//
// # Who runs what
//
// The gateway has one front loop per core, each with its own listening socket
// (SO_REUSEPORT), and one returns loop, which receives all that workers send
// and donates again what comes back. A worker has one back loop. Each loop is
// one goroutine that waits on gnet's poller (package netpoll), level-triggered: the event
// mask is a hint, and only read(2) and write(2) decide. A gateway loop has its thread to itself.
//
// What belongs to a loop is touched on its goroutine only. There are three
// doors into a loop: post (a function to run on the loop) and, in a worker,
// finish (an invocation that ran beside the loop is over) and kick (one that
// still runs wants its flow looked at); all wake it through one eventfd. A loop
// stops when its stop function is posted, and whoever called run waits for its
// done channel.
//
// # Large bodies and answers
//
// A body up to bodyBufferMax is gathered before its function runs. A larger
// one, or a chunked one that does not end before that, runs its function at
// once, beside the loop, and streams to it (Invocation.More); the board says
// Running from then on, so a worker's death is answered 502. An answer up to
// streamBytesMin goes out whole, with its length; a longer one streams as the
// function writes it, chunked, or to the connection's end in HTTP/1.0; a
// function on the loop's goroutine is promoted first. Both directions go
// through the call's flow, which holds flowBytesMax each way: a slow function
// stops the reading of its connection, a slow client its function's writing.
//
// # Where a connection is watched
//
// Level-triggered while it is to be read. While it is not, because a function
// runs, an answer is unsent or a flow is full, it is watched edge-triggered, so
// that unread bytes do not spin; see watchFor, and announceAgain for what a
// promotion owes to those.
//
// # Ownership of a connection
//
// A connection has one owner. On a front loop it is the loop's until it is
// donated: the loop takes the descriptor out of its poller, gives it a slot of
// the ledger, stores Donated in that slot of the board, and sends it. From then
// on the gateway only retains it: the duplicate is neither read nor written
// until the slot says Ended or Returned, or its worker is lost. The ledger is
// shared by the front loops and the returns loop; its doc comment says by what
// right each touches an entry.
//
// # Lock order
//
// flow.mu, then finishedCalls.mu. ledger.mu, mailbox.mu and finishedCalls.mu are
// leaves: nothing is called while one is held.
//
// # Hot functions
//
// onConn, readHead, process, decide, admit, dispatcher.donate, back.adopt,
// launch, respond, holdAnswer and write allocate nothing in the steady state;
// allocs_test.go holds that.
package reactor
