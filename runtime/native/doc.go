// Package native runs functions that are machine code: C and C++ programs that
// were linked with baton's entry, and, without it, uploaded programs and scripts.
//
// # The fork server
//
// A program that is linked with the entry (EntrySource, EntryFlags, LinkFlags) is
// started, loaded and dynamically linked once. It stops before anything of its own runs and
// forks for every request; the child becomes the program: constructors, main, exit. So each
// request has a process of its own, unmodified programs work, and what
// exec and the dynamic linker cost is paid once. entry/entry.c says how it works.
//
// A pool (package child) holds several such servers, each with one request at a
// time: the child for the next one is forked ahead and waits. Standard input is a
// file in memory that holds the body (a pipe when the body streams), standard
// output a pipe that lives as long as the server. The answer of
// the server (exit status, signal, resources) says that the request is over, and then the
// output is read, in one call; only a function that runs for longer, or whose body streams, has
// its output read while it runs.
//
// All children of one server have one address layout: a server executes its
// program anew after 1,000 requests.
//
// # Programs without the entry
//
// A persistent spawner in the sandbox (`baton spawn`, Spawn) starts them, one process per request, and
// speaks the same protocol. What cannot be executed ends as in a shell, with exit code 126 or 127 and a
// line in its log.
//
// # Limits
//
// Memory bounds the address space of each process. A request that is past its
// deadline is killed with its server and all that it has started. A function starts no processes unless
// its descriptor says how many; what it has started ends with the request. The private working directory is
// emptied after each.
//
// A function that ends badly with seven eighths of its memory in use has run out of it (runtime.Memory). The
// spawner shares its memory with a program until that is executed, and the kernel counts that as the
// program's: below what the spawner has itself (some 15 MiB) running out of memory is an exit
// code or signal like any other.
//
// # Goroutines
//
// None while a function is short: those of package child. A function that runs
// for more than a tick has one that moves its output, and one that moves
// its body when that streams; Invoke waits for both.
package native
