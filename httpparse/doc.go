// Package httpparse is baton's HTTP/1.1 grammar over the caller's bytes: the
// head of a request, its framing, the chunked coding, the head of a response,
// and the header block that a function may print (RFC 3875).
//
// It reads no socket and no clock, starts no goroutine, keeps no state but
// what the caller hands in, and takes no lock. Both processes use it, so that
// one grammar gives one verdict wherever a request is parsed.
//
// A verdict depends on the bytes alone and not on how they were cut: every
// parser here judges from left to right, and what is Invalid or Complete for
// some bytes stays so, with the same Reason and the same n, when more follow.
//
// Views: the slices in Request, Field and CGIHead lie in the caller's buffer
// and die when that is reused. Whoever keeps one clones it.
//
// Hot functions, each without an allocation: ParseHead, Request.Header,
// Chunks.Next, and the Append functions when dst has room.
//
// Sources: RFC 9112 (messages), RFC 9110 (fields and their values), RFC 3986
// (targets and hosts), RFC 3875 (CGI). Where the package is stricter than its
// source, the comment beside the rule says so, and so does the test's name.
package httpparse
