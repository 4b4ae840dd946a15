// Package python runs Python functions, on the system's own interpreter: files
// that define a handler, and plain scripts that read standard input.
//
// # The interpreter
//
// docs/python.md tells a function's author what holds.
//
// The first python3 in PATH that is version 3.9 or later (Find), where it really is: a script of a version manager is
// asked what it starts. It runs isolated (-I: neither variables PYTHON* nor a user's own packages have a
// say), writes no byte code (-B) and speaks UTF-8 (-X utf8). Packages that are installed for it can be imported; what else a function
// needs lies in its own folder, which is in sys.path. Memory bounds the address space beside what the bare interpreter has.
//
// # Scripts
//
// server.py, our own program, compiles the script and the files of its folder that
// it imports, imports the modules of the standard library that they use, and
// forks for each request, ahead of it. The fork becomes the script: __main__, variables, standard
// streams, exit code; the random numbers of the standard library are seeded anew in each. So no request finds anything of another. When it
// ends, what it left behind (processes, files in the working directory) is removed. Standard input is a file in memory, a
// pipe when the body streams; standard output is a pipe that lives as long as the interpreter. An
// interpreter is forked usesMax times, then a new one takes its place: forks have one address layout and one seed of hashes.
//
// # Handlers
//
// The file is loaded once, by the first request, whose log and limits are its; then its handler is called
// with one event per request (package event makes it). What the file keeps, its author has
// chosen to keep. What it prints is the log. An exception ends the request and not the interpreter; exit, want of memory, a deadline and a
// file that cannot be loaded end it, and the next request has a new one. Processes that a request
// starts end with it, threads stay.
//
// # Processes
//
// A function may start as many as its descriptor says. The sandbox grants one
// more for the forks above; a seccomp filter (refuseProcesses) takes that back, in each fork, or once where there is a handler.
//
// # How many
//
// An interpreter tells, once in a number of requests, whether they wait for anything but the
// processor. While they do not, as many as there are processors are enough (child.Pool.Enough).
//
// # Goroutines
//
// None while a function is short: those of package child. A script that runs for more than a tick has
// one that moves its output, and one that moves its body when that streams; Invoke waits for both. No locks but Executor's.
package python
