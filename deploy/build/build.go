package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"time"
)

// What a builder does when its options do not say.
const (
	TimeoutDefault   = 3 * time.Minute  // a first Go build on two busy cores takes one
	WaitDefault      = 60 * time.Second // for a free place
	WaitingDefault   = 16               // uploads that wait at a time
	MemoryDefaultMB  = 2048             // a Go build of the standard library takes 1.2 GB on two cores
	OutputDefault    = 1 << 20          // bytes a compiler may print
	DiskDefaultMB    = 2048             // what a build may leave lying in its folder
	CacheDefaultMB   = 4096             // of all build caches together
	tempPrefix       = "build-"         // of a build's own folder, below <data>/tmp
	killWait         = 2 * time.Second  // between the kill and letting go of the pipes
	moduleWasm       = "module.wasm"
	moduleNative     = "module.bin"
	artifactBytesMax = 256 << 20 // one artifact, and all files of a folder together
)

// Options say how a builder works. Zero values mean the defaults above.
type Options struct {
	// Data is the data directory: builds run below Data/tmp, caches lie below
	// Data/cache/build.
	Data string
	// Baton is the command line of the sandbox's step; nil: `sandbox` of this
	// binary. An empty, non-nil slice: no sandbox, for trusted sources only.
	Baton []string
	// Max is the number of builds at a time. Too many: they share the memory of
	// one machine, each with a bound of its own. Zero: one per two CPUs.
	Max int
	// Waiting bounds the requests that wait for a place; one more is refused.
	Waiting int
	// Wait bounds how long one of them waits.
	Wait time.Duration
	// Timeout bounds one build, fetching included, waiting not.
	Timeout time.Duration
	// MemoryMB bounds the memory of all processes of one build together.
	MemoryMB int
	// OutputMax bounds what a compiler prints, in bytes. More ends the build.
	OutputMax int
	// DiskMB bounds what a build writes into its folder.
	DiskMB int
	// CacheMB bounds the caches; above it the oldest entries go.
	CacheMB int
	// Path is where toolchains are looked for; empty: PATH.
	Path string

	// Without names layers of the sandbox that builds do without; for tests of the
	// others.
	Without []string
}

func (o *Options) setDefaults() {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&o.Max, max(1, goruntime.NumCPU()/2))
	set(&o.Waiting, WaitingDefault)
	set(&o.MemoryMB, MemoryDefaultMB)
	set(&o.OutputMax, OutputDefault)
	set(&o.DiskMB, DiskDefaultMB)
	set(&o.CacheMB, CacheDefaultMB)
	if o.Wait <= 0 {
		o.Wait = WaitDefault
	}
	if o.Timeout <= 0 {
		o.Timeout = TimeoutDefault
	}
	if o.Baton == nil {
		o.Baton = []string{"/proc/self/exe", "sandbox"}
	}
	if o.Path == "" {
		o.Path = os.Getenv("PATH")
	}
}

// Request is one build. Nothing of it is kept after Build returns.
type Request struct {
	// Source is the folder with the user's files, as Extract leaves it. It is
	// only read.
	Source string
	// Runtime, Target and Handler are the descriptor's.
	Runtime, Target, Handler string
	// Out is the folder that the artifact's files are written to; it exists and
	// is empty. After an error it holds nothing.
	Out string
	// Log takes the compiler's output, whole lines, as they are printed; nil:
	// only the error has it. It is called from one goroutine at a time. A slow
	// Log slows the compiler, whose time runs on.
	Log io.Writer
	// State is told what the build does: StateWaiting, StateFetching,
	// StateBuilding; may be nil. Called from Build's own goroutine.
	State func(string)
}

// What a build is doing: Request.State.
const (
	StateWaiting  = "waiting"  // for a free place
	StateFetching = "fetching" // dependencies, with network and without user code
	StateBuilding = "building"
)

// Result is what a build made.
type Result struct {
	// Module is the artifact's file, relative to Request.Out: what the
	// descriptor's module names.
	Module string
	// Cached: the same sources had been built before by the same toolchain.
	Cached bool
	// Assumed lists, in words, what was decided where the request did not say.
	Assumed []string
}

// Builder builds, a bounded number of requests at a time. It is for
// concurrent use.
type Builder struct {
	opt     Options
	slots   chan int // the numbers of the free places
	waiting atomic.Int64
	probes  probes
	cache   cache
}

// New returns a builder on a data directory that no other process builds in,
// and removes what builds of an earlier process left.
func New(o Options) (*Builder, error) {
	o.setDefaults()
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	o.Data = data
	b := &Builder{opt: o, slots: make(chan int, o.Max)}
	for slot := range o.Max {
		b.slots <- slot
	}
	if err := b.sweep(); err != nil {
		return nil, err
	}
	if err := b.cache.open(filepath.Join(data, "cache", "build"), int64(o.CacheMB)<<20); err != nil {
		return nil, err
	}
	return b, nil
}

// sweep makes the folder of temporary folders and removes what is left in it.
func (b *Builder) sweep() error {
	temp := filepath.Join(b.opt.Data, "tmp")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return fmt.Errorf("make build folder: %w", err)
	}
	left, err := os.ReadDir(temp)
	if err != nil {
		return fmt.Errorf("look for left builds: %w", err)
	}
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), tempPrefix) {
			if err := removeAll(filepath.Join(temp, entry.Name())); err != nil {
				return fmt.Errorf("remove left build: %w", err)
			}
		}
	}
	return nil
}

// Build makes the artifact of one request.
//
// It waits for a free place, copies the sources to a folder of its own, runs
// the toolchain there and writes the artifact to req.Out. Whatever happens,
// the folder and every process of the build are gone when it returns.
//
// Errors: an *Error is the deployer's to read. A context's error is returned
// when ctx ended the build; anything else is the system's (a full disk).
func (b *Builder) Build(ctx context.Context, req Request) (Result, error) {
	slot, err := b.place(ctx, req)
	if err != nil {
		return Result{}, err
	}
	defer func() { b.slots <- slot }()
	b.cache.begin()
	defer b.cache.end()

	work, err := os.MkdirTemp(filepath.Join(b.opt.Data, "tmp"), tempPrefix)
	if err != nil {
		return Result{}, fmt.Errorf("make build folder: %w", err)
	}
	files, err := os.OpenRoot(work)
	if err != nil {
		return Result{}, errors.Join(fmt.Errorf("open build folder: %w", err), removeAll(work))
	}
	j := &job{b: b, req: req, slot: slot, work: work, files: files}
	result, err := j.build(ctx)
	return result, errors.Join(err, files.Close(), removeAll(work))
}

// place takes a place among the builds that run; its number goes back into
// b.slots.
func (b *Builder) place(ctx context.Context, req Request) (slot int, err error) {
	select {
	case slot = <-b.slots:
		return slot, nil
	default:
	}
	if b.waiting.Add(1) > int64(b.opt.Waiting) {
		b.waiting.Add(-1)
		return 0, &Error{Reason: BuilderBusy, Detail: fmt.Sprintf("%d builds run and %d wait", b.opt.Max, b.opt.Waiting), Hint: "try again in a minute"}
	}
	defer b.waiting.Add(-1)
	if req.State != nil {
		req.State(StateWaiting)
	}
	timer := time.NewTimer(b.opt.Wait)
	defer timer.Stop()
	select {
	case slot = <-b.slots:
		return slot, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for a build's end: %w", context.Cause(ctx))
	case <-timer.C:
		return 0, &Error{Reason: BuilderBusy, Detail: fmt.Sprintf("no build ended within %v", b.opt.Wait), Hint: "try again in a minute"}
	}
}
