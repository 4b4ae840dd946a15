package wasm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	wasi "github.com/tetratelabs/wazero/sys"
)

// instance is one instance of a module. It runs one invocation at a time; the
// pool hands it to one goroutine, which owns it until it gives it back.
//
// It is its own context.Context, which carries it to the host functions
// without an allocation.
type instance struct {
	// Immutable after newInstance.
	pool    *pool
	module  api.Module
	memory  *memory         // nil: the module has none
	mem     api.Memory      // the same, as wazero sees it
	ctx     context.Context // in, with wazero's snapshots enabled
	fuel    api.MutableGlobal
	tainted api.MutableGlobal
	frozen  api.MutableGlobal
	own     *image // an image that no other instance uses

	elements int // of its tables and their segments

	// Changed between invocations.
	run   api.Function
	calls int
	used  uint64    // by the executor's count of uses: guarded by pool.mu
	idle  time.Time // when Trim saw it idle first: guarded by pool.mu

	// Of the running invocation.
	function *runtime.Function
	inv      *runtime.Invocation
	result   runtime.Result
	ended    bool // result is set
	read0    int  // bytes of Body that were read
	eof      bool // More has ended
	closed   uint8
	dirty    bool // cannot be put back: files were touched
	promoted bool
	faulted  uint64    // the process's count of page faults after the run; see memory.restore
	started  time.Time // zero until somebody needs to know
	deadline time.Time
	checked  time.Time
	refill   uint64 // fuel that the last check gave
	scratch  []byte

	// Freezing at the first read of stdin; see freeze.
	freezes  bool
	resumed  bool            // this invocation has taken the snapshot for the next
	calling  context.Context // of the host function that runs, which holds the snapshotter
	snapshot experimental.Snapshot
	again    [1]uint64 // what fd_read answers when a snapshot is restored
	exitErr  *wasi.ExitError

	// Leaving by a snapshot; see end.
	exits bool                  // the last invocation ended by proc_exit
	leave experimental.Snapshot // of this invocation's start
	left  [1]uint64             // what Enter answers when leave is restored
}

// runsMax is after how many invocations the machine stack of an instance is
// made anew: it grows as deep as ever needed and never shrinks.
const runsMax = 4096

// frozenMax is how often a frozen instance is used: each restore of wazero's
// saved stack leaves it 16 bytes longer.
const frozenMax = 4096

// Deadline, Done, Err and Value make in a context.Context without any news.
func (in *instance) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (in *instance) Done() <-chan struct{} { return nil }

// Err implements context.Context.
func (in *instance) Err() error { return nil }

type instanceKey struct{}

// Value implements context.Context.
func (in *instance) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return in
	}
	return nil
}

// instanceOf returns the instance whose code calls a host function with a
// context that is made from the instance.
func instanceOf(ctx context.Context) *instance {
	return ctx.Value(instanceKey{}).(*instance)
}

// newInstance makes an instance that is ready to run: from the pool's image
// if it has one, else by running what instantiation runs, within the limits of
// inv.
func (p *pool) newInstance(f *runtime.Function, inv *runtime.Invocation) (in *instance, err error) {
	in = &instance{pool: p, elements: p.info.Elements, exitErr: wasi.NewExitError(0)}
	ctx := context.Context(in)
	if p.info.Memory {
		if in.memory, err = newMemory(p.key.memory, p.executor.pagemap); err != nil {
			return nil, err
		}
		in.memory.unguardable = p.root != nil // files are read by the kernel, straight into the memory
		ctx = experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory { return in.memory }))
	}
	in.module, err = p.executor.rt.InstantiateModule(ctx, p.compiled, p.config)
	if err != nil {
		if in.memory != nil {
			in.memory.Free()
		}
		return nil, fmt.Errorf("instantiate: %w", err)
	}
	in.mem = in.module.ExportedMemory(prepare.Memory)
	in.ctx = experimental.WithSnapshotter(in)
	in.freezes = p.key.freeze && p.info.Command
	in.fuel = in.module.ExportedGlobal(prepare.Fuel).(api.MutableGlobal)
	in.tainted = in.module.ExportedGlobal(prepare.Tainted).(api.MutableGlobal)
	in.frozen = in.module.ExportedGlobal(prepare.Frozen).(api.MutableGlobal)
	in.run = in.module.ExportedFunction(prepare.Run)

	if im := p.image.Load(); im != nil {
		err = in.clone(im)
	} else {
		err = in.initialise(f, inv)
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// initError is a module that did not come through its initialisation: the
// function's fault, with the result to answer.
type initError struct{ result runtime.Result }

func (e *initError) Error() string { return "initialisation: " + e.result.Detail }

// initialise runs what comes before the first invocation and makes the image.
func (in *instance) initialise(f *runtime.Function, inv *runtime.Invocation) error {
	quiet := &runtime.Invocation{Stderr: inv.Stderr, Cancel: inv.Cancel, Deadline: inv.Deadline, RequestID: inv.RequestID}
	in.begin(f, quiet)
	freezes := in.freezes
	in.freezes = false
	_, err := in.module.ExportedFunction(prepare.Init).Call(in)
	in.freezes = freezes
	if err != nil || in.ended {
		result := in.outcome(err)
		if result.Reason == runtime.OK {
			result = runtime.Result{Reason: runtime.Exit, Detail: "exited during its initialisation"}
		}
		return &initError{result}
	}
	shareable := !in.pool.info.Opaque && in.tainted.Get() == 0 && !in.dirty && in.closed == 0 && !in.freezes
	in.tainted.Set(0)
	if _, err := in.module.ExportedFunction(prepare.Save).Call(in); err != nil {
		return fmt.Errorf("save globals: %w", err)
	}
	if in.dirty || in.closed != 0 {
		// It opened files that belong to its state: used once.
		in.dirty = true
		return nil
	}
	if in.freezes {
		return nil // the image is made at the first read
	}
	im := &pristine{shareable: shareable}
	if in.memory != nil {
		var err error
		if im.image, err = in.memory.snapshot(); err != nil {
			return err
		}
		if err := in.memory.adopt(im.image); err != nil {
			im.image.close()
			return err
		}
	}
	for i := range in.pool.info.Globals {
		if shareable {
			im.globals = append(im.globals, in.module.ExportedGlobal(fmt.Sprintf("%s%d", prepare.GlobalPrefix, i)).Get())
		}
	}
	if !shareable || !in.pool.image.CompareAndSwap(nil, im) {
		in.own = im.image
	}
	return nil
}

// pristine is what instances of a pool can start from instead of their
// own initialisation. Immutable.
type pristine struct {
	image     *image // nil: no memory
	globals   []uint64
	shareable bool
}

// clone starts from an image.
func (in *instance) clone(im *pristine) error {
	if in.memory != nil {
		if n := im.image.size; n > in.memory.length {
			if _, ok := in.mem.Grow(uint32(n-in.memory.length) >> 16); !ok {
				return fmt.Errorf("memory cannot grow to the image's %d bytes", n)
			}
		}
		if err := in.memory.adopt(im.image); err != nil {
			return err
		}
	}
	for i, v := range im.globals {
		in.module.ExportedGlobal(fmt.Sprintf("%s%d", prepare.GlobalPrefix, i)).(api.MutableGlobal).Set(v)
	}
	return nil
}

// begin sets up an invocation.
func (in *instance) begin(f *runtime.Function, inv *runtime.Invocation) {
	in.function, in.inv = f, inv
	in.result, in.ended = runtime.Result{}, false
	in.read0, in.eof, in.closed, in.promoted, in.resumed = 0, false, 0, false, false
	in.started, in.checked, in.deadline = time.Time{}, time.Time{}, inv.Deadline
	in.leave, in.refill = nil, prepare.FuelRefill
	if in.memory != nil {
		in.memory.begin(in.pool.executor.faults.Load())
	}
}

// start notes when the invocation began. The clock is read late, at the
// first check, so that short functions do not pay for it: at most one filling of
// fuel, a fraction of a millisecond, is missing.
func (in *instance) start(now time.Time) {
	in.started = now
	if in.deadline.IsZero() {
		in.deadline = now.Add(in.function.Limit())
	}
}

// invoke runs the function once. The instance must be put back after it; see pool.end.
func (in *instance) invoke(f *runtime.Function, inv *runtime.Invocation) runtime.Result {
	in.begin(f, inv)
	var err error
	if in.freezes || in.exits {
		err = in.run.CallWithStack(in.ctx, nil)
	} else {
		err = in.run.CallWithStack(in, nil)
	}
	result := in.outcome(err)
	if exits := in.ended && (result.Reason == runtime.OK || result.Reason == runtime.Exit); exits != in.exits {
		in.exits = exits
		in.hook()
	}
	in.inv, in.function = nil, nil
	if in.memory != nil && in.memory.looks() {
		in.faulted = sys.Faults()
		in.pool.executor.faults.Store(in.faulted)
	}
	return result
}

// heavy reports whether putting the instance back may take long.
func (in *instance) heavy() bool { return in.memory != nil && in.memory.heavy(in.faulted) }

// outcome says how a call ended that returned err.
func (in *instance) outcome(err error) runtime.Result {
	result := in.result
	if !in.ended {
		if err == nil {
			return runtime.Result{}
		}
		line, rest, _ := strings.Cut(err.Error(), "\n")
		if len(rest) > traceMax {
			rest = rest[:traceMax]
		}
		result = runtime.Result{Reason: runtime.Trap, Detail: line + "\n" + rest}
	}
	if in.memory != nil && in.memory.refused && (result.Reason == runtime.Trap || result.Reason == runtime.Exit) {
		result.Detail = fmt.Sprintf("refused more than %d MiB of memory; %s", in.memory.limit>>20, result.Detail)
		result.Reason = runtime.Memory
	}
	return result
}

// traceMax bounds the stack trace in a Result's Detail, in bytes.
const traceMax = 4096

// end ends the running invocation from inside a host function; it does not
// return.
//
// A panic would do, but wazero then describes every frame of the stack, which
// costs some objects each. So a function that exits by proc_exit, as all Go
// commands do, begins with a snapshot, and ends by going back to it.
func (in *instance) end(result runtime.Result) {
	in.result, in.ended = result, true
	if s := in.leave; s != nil {
		in.leave = nil
		in.left[0] = 1
		s.Restore(in.left[:])
	}
	panic(in.exitErr)
}

// hook makes Run call enter if there is something to do.
func (in *instance) hook() {
	v := uint64(0)
	if in.exits || in.snapshot != nil {
		v = 1
	}
	in.frozen.Set(v)
}

// enter is called first by Run, in an instance that hook made do so.
func (in *instance) enter() {
	in.leave = experimental.GetSnapshotter(in.calling).Snapshot()
	if in.snapshot != nil {
		// Does not return: the call continues in fd_read, which answers Again.
		in.again[0] = prepare.Again
		in.snapshot.Restore(in.again[:])
	}
}

// exit is proc_exit.
func (in *instance) exit(code int32) {
	result := runtime.Result{Exit: code}
	if code != 0 {
		result.Reason = runtime.Exit
	}
	in.end(result)
}

// touchFiles notes that wazero's table of files may change.
func (in *instance) touchFiles() {
	if in.pool.key.files != "" {
		in.dirty = true
	}
}

// putBack makes the instance as it was before the invocation; false when
// that cannot be done.
func (in *instance) putBack(result runtime.Result) bool {
	in.calls++
	switch {
	case in.dirty, in.tainted.Get() != 0, result.Reason == runtime.Trap, result.Reason == runtime.Memory:
		// (A trap may have been a stack overflow, which leaves a stack of 100 MB behind.)
		return false
	case in.freezes && (in.snapshot == nil || in.calls >= frozenMax):
		return false
	}
	if in.memory != nil {
		if size := in.memory.image.size; in.memory.length > size && !shrink(in.mem, in.memory.region, size) {
			return false
		}
		if err := in.memory.restore(in.faulted); err != nil {
			return false
		}
	}
	if !in.freezes && in.calls%runsMax == 0 {
		in.run = in.module.ExportedFunction(prepare.Run)
	}
	return true
}

// close gives back the instance's memory. It must not be running.
func (in *instance) close() {
	_ = in.module.Close(context.Background())
	if in.own != nil {
		in.own.close()
	}
}
