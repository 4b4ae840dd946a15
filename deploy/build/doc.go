// Package build turns what a user uploads into the artifact that a worker
// runs: it unpacks (Extract), recognises (Detect) and compiles (Builder).
//
// All three read hostile input. Archives are bounded while they are read, and
// what they hold becomes plain files and folders, never a link. Toolchains run
// in a sandbox with a fixed command line, an environment of their own, a private
// folder, and bounds on time, memory, output and disk; a step with network
// runs no user code and a step that may run user code has no network.
//
// Goroutines: Build runs on its caller's, and os/exec's copiers and one watch
// beside each running command end before it returns.
package build
