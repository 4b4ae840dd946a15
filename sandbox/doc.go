// Package sandbox is what a child process may do: the step between this
// process and a program that must not be trusted, `baton sandbox`.
//
// Command makes that step's command line, a Starter starts it, Exec is the step
// itself. It locks its thread, takes what Spec does not grant away from itself, layer by
// layer, and becomes the program. What is taken away never comes back: every
// layer is inherited by all that the program starts.
//
// # The layers
//
// Cheapest first; Layers says which of them this machine gives.
//
//   - rlimits: memory (address space), processor time, descriptors, file size, no core dumps
//   - no_new_privs: no set-uid program helps
//   - process group, and the signal at the parent's death: what belongs together ends together
//   - seccomp: what no function needs is refused (mount, ptrace, bpf, …), and
//     also sockets of AF_UNIX (socketpair is granted), sockets of any kind unless
//     Network, new processes unless Processes, leaving the process group
//   - Landlock: files outside of Read and Write, TCP, abstract sockets and signals to others
//   - own uid, where this process is root
//   - namespaces, where this process may make them: of processes (the end of the
//     first is the end of all), of the network, of mounts (a root directory that
//     holds Read and Write, and nothing else)
//
// A layer that the kernel refuses is left out, and Layers says so by name; a step that
// fails otherwise fails the start.
//
// # Goroutines
//
// A Starter has one, locked to its thread for as long as it lives: the signal at
// a parent's death comes when the thread that forked ends. No locks.
package sandbox
