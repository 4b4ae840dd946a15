// Package wasm runs WebAssembly functions (WASI preview 1 commands and
// reactors) in this process, on wazero, each invocation from the same pristine
// state and in microseconds.
//
// # How
//
// Prepare, in a process of its own, rewrites a module (package prepare),
// compiles it into the cache and stamps it. A worker loads what is stamped: it
// instantiates the module, runs its initialisation once, and keeps an image
// of its memory and globals. An invocation runs on an instance that looks like
// that image; afterwards the instance is put back: the pages it wrote are
// copied from the image (memory), the globals are set by the prepared module
// itself, and an instance that did what cannot be undone is thrown away.
//
// # Goroutines
//
// Code runs on the goroutine that calls Invoke. The only others put instances back that have
// megabytes to copy (pool.end) or close them (Executor.evictFrom), and end by themselves. Prepared code calls
// check every fraction of a millisecond, where the deadline and cancellation
// are looked at, the invocation is promoted off an event loop, and the Go scheduler gets its turn.
//
// # Locks
//
// pool.loading is held while native code is loaded. Executor.mu guards the list of pools,
// pool.mu the idle instances of one. Taken in this order; the last two are
// never held while code runs or is loaded.
//
// # Hot functions
//
// loaded.Invoke, instance.invoke, memory.restore, and the host functions in wasi.go:
// no allocation when the function returns (allocs_test.go).
package wasm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"baton/internal/sys"
	"baton/runtime"
	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
)

func runtimeConfig() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().WithDebugInfoEnabled(false)
}

// Options of an Executor.
type Options struct {
	// CacheDir is where Prepare put native code and stamps.
	CacheDir string
	// InstancesMax bounds the instances of one function (those of a module and
	// memory size, strictly) that exist at a time; reaching it answers Unavailable. Zero:
	// InstancesMaxDefault. Too small: bursts of slow calls are refused; too large: one function
	// can take the worker's memory.
	InstancesMax int
	// CodeMax bounds the native code that is loaded, in bytes: the least
	// recently used functions that do not run give theirs back, and load it again at their
	// next call (C in under a millisecond, Go in tens). Zero: CodeMaxDefault.
	CodeMax int64
	// MemoryMax bounds what idle instances may keep, in bytes: the least
	// recently used give way. Zero: MemoryMaxDefault.
	MemoryMax int64
}

// Defaults of Options.
const (
	InstancesMaxDefault = 64
	MemoryMaxDefault    = 512 << 20
	CodeMaxDefault      = 512 << 20
)

// Executor runs wasm functions. It implements runtime.Executor.
type Executor struct {
	o       Options
	dir     string
	started time.Time
	files   *codeFiles
	cache   wazero.CompilationCache
	rt      wazero.Runtime
	pagemap *sys.Pagemap
	// faults is a count of the process's page faults, read lately.
	faults atomic.Uint64
	// kept is what idle instances hold, in bytes.
	kept atomic.Int64
	// uses counts invocations, to tell which instance was used last.
	uses atomic.Uint64
	// beside are goroutines that put back or close instances; see pool.end and evictFrom.
	beside   sync.WaitGroup
	evicting atomic.Bool
	names    names

	// code is the native code that is loaded, in bytes: pool.load adds, pool.free takes away.
	code atomic.Int64

	mu    sync.Mutex
	pools map[poolKey]*pool
}

// New opens the cache and starts the engine. Compiles nothing. It must be
// called before the process loses its sight of /proc and of the cache directory.
func New(o Options) (*Executor, error) {
	if o.InstancesMax <= 0 {
		o.InstancesMax = InstancesMaxDefault
	}
	if o.CodeMax <= 0 {
		o.CodeMax = CodeMaxDefault
	}
	if o.MemoryMax <= 0 {
		o.MemoryMax = MemoryMaxDefault
	}
	ctx := context.Background()
	pagemap, err := sys.OpenPagemap()
	if err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	files := &codeFiles{dir: o.CacheDir, uses: map[string]*codeUse{}}
	cache, err := newCache(files)
	if err != nil {
		pagemap.Close()
		return nil, fmt.Errorf("open compilation cache: %w", err)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig().WithCompilationCache(cache))
	if err := instantiateHost(ctx, rt); err != nil {
		_ = rt.Close(ctx)
		_ = cache.Close(ctx)
		pagemap.Close()
		return nil, fmt.Errorf("start engine: %w", err)
	}
	return &Executor{o: o, dir: o.CacheDir, started: time.Now(), files: files, cache: cache, rt: rt, pagemap: pagemap, pools: map[poolKey]*pool{}}, nil
}

// Close ends the engine; see runtime.Executor.
func (e *Executor) Close() error {
	e.mu.Lock()
	n := len(e.pools)
	e.mu.Unlock()
	if n > 0 {
		return errors.New("functions are still loaded")
	}
	e.beside.Wait()
	ctx := context.Background()
	e.pagemap.Close()
	return errors.Join(e.rt.Close(ctx), e.cache.Close(ctx))
}

// loaded is a function on its pool.
type loaded struct {
	f      *runtime.Function
	pool   *pool
	closed atomic.Bool
	slow   atomic.Int32 // how much it looks like one that should not run on the loop; see Inline
}

// Load makes f ready; see runtime.Executor. Functions with the same module,
// memory, files and freeze share their instances.
func (e *Executor) Load(ctx context.Context, f *runtime.Function) (runtime.Loaded, error) {
	module, err := e.names.of(f.Module)
	if err != nil {
		return nil, err
	}
	key := poolKey{module: module, memory: int(f.Memory()), files: f.Files, freeze: f.Freeze}
	e.mu.Lock()
	p := e.pools[key]
	if p == nil {
		p = &pool{executor: e, key: key}
		e.pools[key] = p
	}
	p.users++
	e.mu.Unlock()
	if err := p.load(ctx); err != nil {
		e.leave(p)
		return nil, err
	}
	p.warm(f)
	return &loaded{f: f, pool: p}, nil
}

// leave takes a user off the pool and closes it after the last one.
func (e *Executor) leave(p *pool) {
	e.mu.Lock()
	p.users--
	last := p.users == 0
	if last {
		delete(e.pools, p.key)
	}
	e.mu.Unlock()
	if last {
		p.close()
	}
}

// load loads the native code unless it is there; others who need it wait.
func (p *pool) load(ctx context.Context) error {
	p.loading.Lock()
	defer p.loading.Unlock()
	if p.compiled != nil {
		return nil
	}
	e, key := p.executor, p.key
	s, err := readStamp(e.dir, key.module)
	if err != nil {
		return err
	}
	if need := int64(s.Info.MemoryMin) << 16; need > int64(key.memory) {
		return &RefusedError{Reason: fmt.Errorf("memory of %d MiB is less than the %d bytes the module starts with", key.memory>>20, need)}
	}
	prepared, err := os.ReadFile(filepath.Join(e.dir, s.Prepared))
	if err != nil {
		return fmt.Errorf("read prepared module: %w", err)
	}
	p.info, p.file, p.code = &s.Info, s.Code, s.CodeSize
	p.config = wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithSysWalltime().WithSysNanotime().WithRandSource(randomSource())
	if key.files != "" {
		// A Root does not follow links out of its directory.
		if p.root, err = os.OpenRoot(key.files); err != nil {
			return fmt.Errorf("open files: %w", err)
		}
		p.config = p.config.WithFSConfig(wazero.NewFSConfig().WithFSMount(p.root.FS(), "/"))
	}
	err = e.files.load(p.file, func() (err error) {
		p.compiled, err = e.rt.CompileModule(ctx, prepared)
		return err
	})
	if err != nil {
		p.compiled = nil
		if p.root != nil {
			_ = p.root.Close()
			p.root = nil
		}
		return fmt.Errorf("load native code: %w", err)
	}
	p.mu.Lock()
	p.live = true
	p.mu.Unlock()
	if e.code.Add(p.code) > e.o.CodeMax {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.shed(p)
	}
	return nil
}

// shed unloads the least recently used functions that do not run while more
// than Options.CodeMax of native code is loaded; not keep. The caller holds e.mu.
func (e *Executor) shed(keep *pool) {
	var list []*pool
	for _, p := range e.pools {
		if p != keep {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *pool) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, p := range list {
		if e.code.Load() <= e.o.CodeMax {
			break
		}
		p.unload()
	}
}

// Inline reports whether the function may run on the event loop; see
// runtime.Loaded. A promotion makes it slow for a while, short runs
// make it fast again: more than one promotion in slowStep runs keeps it off the loop.
func (l *loaded) Inline() bool { return l.slow.Load() < slowMax && l.pool.ready() }

const (
	slowStep = 64            // runs that make up for one promotion
	slowMax  = 2 * slowStep  // from here on it does not run on the loop
	slowHigh = 16 * slowStep // the most that is remembered
)

// Close gives back what the function holds; see runtime.Loaded.
func (l *loaded) Close() error {
	if l.closed.Swap(true) {
		return os.ErrClosed
	}
	l.pool.executor.leave(l.pool)
	return nil
}

// Invoke runs the function once; see runtime.Loaded.
func (l *loaded) Invoke(inv *runtime.Invocation) runtime.Result {
	if l.closed.Load() {
		return runtime.Result{Reason: runtime.Unavailable, Detail: "function was closed"}
	}
	in, result := l.pool.get(l.f, inv)
	if in == nil {
		return result
	}
	result = in.invoke(l.f, inv)
	short := !in.promoted && result.Reason != runtime.Timeout && (in.started.IsZero() || in.checked.Sub(in.started) < runtime.Slice)
	if short {
		if n := l.slow.Load(); n > 0 {
			l.slow.Store(n - 1)
		}
	} else if n := l.slow.Load(); n < slowHigh {
		l.slow.Store(n + slowStep)
	}
	l.pool.end(in, result, inv)
	return result
}

// rewrite is the prepare pass as the engine uses it.
func rewrite(module []byte) ([]byte, *prepare.Info, error) {
	return prepare.Rewrite(module, prepare.Options{From: "wasi_snapshot_preview1", Redirect: redirected(), Split: split()})
}
