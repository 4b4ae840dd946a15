package child

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"baton/runtime"
	"baton/sandbox"
)

// Options are what the executors of a worker have in common.
type Options struct {
	// Data is the data directory, absolute.
	Data string
	// Work is a directory of this worker alone, for the private directories of
	// its children; what is left in it is removed by Prepare.
	Work string
	// ProcessesMax bounds the processes of one function in this worker. Zero:
	// ProcessesMaxDefault. Too small: slow functions wait for each other; too
	// large: one function takes the machine's memory.
	ProcessesMax int
	// Without names layers of the sandbox to leave out; for tests of the others.
	Without []string
	// Log takes what concerns no invocation; nil: nothing.
	Log *slog.Logger
}

const (
	// ProcessesMaxDefault: a function whose requests wait for something else most of
	// their time runs this many of them at once in each worker.
	ProcessesMaxDefault = 32

	// growAfter is how long a request waits, for each process that runs (up to
	// growMax of them), before one more is started for it: with less, a burst that the running ones would have
	// worked off in that time starts processes up to the bound. A start
	// costs as much as many short requests.
	growAfter = 10 * time.Millisecond
	growMax   = 5

	// enoughPatience is the same once Pool.Enough has said how many are enough. Too
	// small: a busy machine starts what only makes it busier; too large: a
	// function that begins to wait does so alone for as long.
	enoughPatience = time.Second

	// idleAfter is how long a process may be without work before it is stopped.
	idleAfter = 30 * time.Second

	// startTimeout bounds a start, from fork to ready: some tens of milliseconds
	// on an idle machine.
	startTimeout = 20 * time.Second

	// pauseFirst and pauseMax bound the pause after a start that did not
	// succeed; it doubles. Requests that come in it are answered at once.
	pauseFirst = 100 * time.Millisecond
	pauseMax   = 10 * time.Second

	// tickEvery is how often deadlines, cancellations and waiting requests are looked at:
	// how late a process may be killed.
	tickEvery = 10 * time.Millisecond

	// waitersMax bounds the requests that wait for a process of one function; one
	// more is answered Unavailable.
	waitersMax = 4096
)

// Shared is what the executors of a worker share: Options that were checked, and
// the thread that all children are started from. Safe for concurrent use.
type Shared struct {
	Options
	// Program is the file of this process, of which the sandbox step and others are commands. Immutable.
	Program string

	starter *sandbox.Starter
	serial  atomic.Uint64 // of working directories
}

// New checks the options. It makes Work, and removes what an earlier worker has
// left in it. Close ends what it starts.
func New(o Options) (*Shared, error) {
	if !filepath.IsAbs(o.Data) || !filepath.IsAbs(o.Work) {
		return nil, errors.New("children: want absolute directories")
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program of children: %w", err)
	}
	if o.ProcessesMax <= 0 {
		o.ProcessesMax = ProcessesMaxDefault
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := sandbox.RemoveAll(o.Work); err != nil {
		return nil, fmt.Errorf("working directories: %w", err)
	}
	if err := os.MkdirAll(o.Work, 0o700); err != nil {
		return nil, fmt.Errorf("working directories: %w", err)
	}
	return &Shared{Options: o, Program: program, starter: sandbox.NewStarter()}, nil
}

// Close ends the thread, after the executors: what is left of their children ends with it.
func (o *Shared) Close() { o.starter.Close() }

// Spec is what every child of f may do: its limits, its user, and the sight of
// its own artifact. Argv and Env are the caller's to add, and what the kind of runtime needs to read.
func (o *Shared) Spec(f *runtime.Function) (sandbox.Spec, error) {
	read := o.Artifact(f.Module)
	if err := sandbox.Share(read); err != nil {
		return sandbox.Spec{}, fmt.Errorf("artifact %s: %w", f.Name, err)
	}
	return sandbox.Spec{
		Read: []string{read}, Hide: []string{o.Data}, MemoryMB: int(f.Memory() >> 20), Processes: f.Processes, Network: f.Network,
		UID: sandbox.UIDDefault + 1 + int(f.ID),
	}, nil
}

// Artifact is what a function with this module may read: the folder of its
// version, <data>/functions/<id>/<version>, or the file alone when it lies elsewhere.
func (o *Shared) Artifact(module string) string {
	rest, ok := strings.CutPrefix(module, filepath.Join(o.Data, "functions")+"/")
	if !ok {
		return module
	}
	if parts := strings.SplitN(rest, "/", 3); len(parts) == 3 {
		return filepath.Join(o.Data, "functions", parts[0], parts[1])
	}
	return module
}
