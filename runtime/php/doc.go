// Package php runs PHP functions on php-cgi, PHP's own FastCGI server, which keeps its
// process and the compiled scripts (opcache) and nothing else between two requests.
//
// # Scripts
//
// A pool (package child) holds processes with one request at a time each. A process has one
// connection, made before it starts and kept as long as it lives; the listening socket, which php-cgi
// insists on, has lost its name by then. Requests are FastCGI records (fastcgi.go), the
// answer is PHP's CGI output, of which only what the script has said itself is given on (answer.go).
// boot/prepend.php runs before each script: it tells how the script has ended, which
// FastCGI cannot, and has php://stdin give the body.
//
// # Handlers
//
// A file that returns a callable is a handler. That is found out by its first request (boot/run.php), which calls
// it at once. From then on a process loads the file once, in one endless request of PHP's (boot/loop.php), and
// gets baton's requests as frames (frame.go) over a second socket, its standard output.
//
// # Exit codes
//
// FastCGI has a field for them, in which PHP writes 0. A script that has said exit with
// anything but nothing, 0 or a text is asked for its code by ending its process, whose exit code it is.
//
// # Limits
//
// Memory is PHP's memory_limit; the address space of the process is bounded too, by overheadMB
// more, in case a script raises its limit. A request that is past its deadline is killed with its process. A process
// that has others below it after a request is ended, and they with it.
//
// # Goroutines
//
// One more per request whose body does not fit its first write: it writes the body, and Invoke waits for it.
package php
