// Package logs keeps what functions write to stderr, and a line for each
// invocation that failed: one JSON object a line, in files below <data>/logs.
//
// Each worker appends to segments of its own, so nothing is shared between
// processes but the folder:
//
//	functions-<worker>-<number>.log
//
// The highest number is the one that is written. A segment is never renamed and
// never written again once the next one is there, so a reader needs no lock and
// loses no line to a rotation. The oldest segments are removed when all of them
// together would be above the folder's bound.
//
// A Writer belongs to a worker. Its Line and Failure are called on the request
// path: they format into a bounded buffer and return; one goroutine, which Close
// ends, writes the file. What does not fit is dropped, counted, and the count is
// a line of the log itself. What waits in the buffer when a worker is killed,
// the last 50 ms at most, is lost with it.
//
// Read merges the segments of all workers by time. It runs on the caller's
// goroutine, starts none, and trusts nothing in the files: a line that is
// damaged, torn or too long is passed over.
package logs
