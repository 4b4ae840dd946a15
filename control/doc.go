// Package control is the control plane: the HTTP API under /system, the page,
// the metrics, and the rights that guard them. It is the only package that
// knows fasthttp.
//
// # Two doors
//
// A client's connection comes through ServeConn, after the event loops have
// parsed its head with our own grammar and cut it off behind this one request:
// the two HTTP parsers never see the same connection. Its rights come from the
// bearer token or from a session cookie.
//
// The admin socket, <data>/run/admin.sock, is opened by ListenAdmin. Whoever may
// connect to it (mode 0600) needs no token, except the processes that baton
// itself started: they are refused altogether. Config.AdminToken demands the
// token there as well, for machines where nothing keeps functions away from a
// socket of the same user.
//
// # What a session does not protect from
//
// Functions answer on the same origin as the page, so a function whose answer is
// a page of scripts, opened by somebody who is signed in, may use that session.
// The session cookie is bound to /system/, so no function ever receives it, and
// stopping the server is refused on every connection but the admin socket's.
//
// # Goroutines
//
// One accepts on the admin socket, one serves each connection (at most connsMax,
// and adminConnsMax on the admin socket; those above are answered 503 by goroutines that live refusalTimeout), and a
// connection's watcher, started only for a request that waits, ends with the
// connection. Shutdown ends and awaits all of them. fasthttp keeps one goroutine
// of its own for the life of the process, which writes the Date of responses.
//
// # Lock order
//
// Server.mu comes before conn.deadlines, which is held across nothing but setting
// a deadline. sessions.mu and guard.mu are leaves: nothing is called while one is
// held.
package control
