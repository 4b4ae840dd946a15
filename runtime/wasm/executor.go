// Package wasm runs WebAssembly functions (WASI preview 1 commands and
// reactors) in this process, on wazero.
package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"baton/runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

func runtimeConfig() wazero.RuntimeConfig {
	return wazero.NewRuntimeConfigCompiler().WithCloseOnContextDone(true).WithDebugInfoEnabled(false)
}

// rewrite is the prepare pass.
func rewrite(module []byte) ([]byte, error) { return module, nil }

// Options of an Executor.
type Options struct {
	// CacheDir is where Prepare put native code and stamps.
	CacheDir string
}

// Executor runs wasm functions. It implements runtime.Executor.
type Executor struct {
	dir   string
	cache wazero.CompilationCache
	rt    wazero.Runtime
}

// New opens the cache and starts the engine. Compiles nothing.
func New(o Options) (*Executor, error) {
	ctx := context.Background()
	cache, err := wazero.NewCompilationCacheWithDir(o.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("open compilation cache: %w", err)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig().WithCompilationCache(cache))
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		_ = rt.Close(ctx)
		_ = cache.Close(ctx)
		return nil, fmt.Errorf("start engine: %w", err)
	}
	return &Executor{dir: o.CacheDir, cache: cache, rt: rt}, nil
}

// Close ends the engine; see runtime.Executor.
func (e *Executor) Close() error {
	ctx := context.Background()
	return errors.Join(e.rt.Close(ctx), e.cache.Close(ctx))
}

type loaded struct {
	e        *Executor
	f        *runtime.Function
	compiled wazero.CompiledModule

	mu      sync.RWMutex // held for reading by each Invoke
	closed  bool
	counter atomic.Uint64
}

// Load makes f ready; see runtime.Executor.
func (e *Executor) Load(ctx context.Context, f *runtime.Function) (runtime.Loaded, error) {
	data, err := os.ReadFile(f.Module)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	s, err := readStamp(e.dir, hash(data))
	if err != nil {
		return nil, err
	}
	prepared, err := os.ReadFile(filepath.Join(e.dir, s.Prepared))
	if err != nil {
		return nil, fmt.Errorf("read prepared module: %w", err)
	}
	compiled, err := e.rt.CompileModule(ctx, prepared)
	if err != nil {
		return nil, fmt.Errorf("load native code: %w", err)
	}
	return &loaded{e: e, f: f, compiled: compiled}, nil
}

func (l *loaded) Inline() bool { return false }

func (l *loaded) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	l.closed = true
	return l.compiled.Close(context.Background())
}

// Invoke runs the function in a new instance.
func (l *loaded) Invoke(inv *runtime.Invocation) runtime.Result {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return runtime.Result{Reason: runtime.Unavailable, Detail: "function was closed"}
	}
	if inv.Promote != nil {
		inv.Promote()
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.f.Limit())
	defer cancel()
	if !inv.Deadline.IsZero() {
		ctx, cancel = context.WithDeadline(context.Background(), inv.Deadline)
		defer cancel()
	}
	stdin := io.Reader(bytes.NewReader(inv.Body))
	if inv.More != nil {
		stdin = io.MultiReader(stdin, inv.More)
	}
	out := &output{w: inv.Stdout}
	stderr := inv.Stderr
	if stderr == nil {
		stderr = io.Discard
	}
	config := wazero.NewModuleConfig().WithName("").WithStdin(stdin).WithStdout(out).WithStderr(stderr).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(rand.Reader).WithStartFunctions()
	args := []string{l.f.Name}
	if l.f.Handler != "" {
		args = append(args, l.f.Handler)
		config = config.WithEnv("_HANDLER", l.f.Handler)
	}
	config = config.WithArgs(args...)
	for _, kv := range l.f.Env {
		k, v, _ := strings.Cut(kv, "=")
		config = config.WithEnv(k, v)
	}
	if inv.Env != nil {
		for kv := range strings.SplitSeq(string(inv.Env.AppendTo(nil)), "\x00") {
			if k, v, ok := strings.Cut(kv, "="); ok {
				config = config.WithEnv(k, v)
			}
		}
	}
	mod, err := l.e.rt.InstantiateModule(ctx, l.compiled, config)
	if err != nil {
		return result(out, err)
	}
	defer func() { _ = mod.Close(ctx) }()
	if f := mod.ExportedFunction("_start"); f != nil {
		_, err = f.Call(ctx)
		return result(out, err)
	}
	if f := mod.ExportedFunction("_initialize"); f != nil {
		if _, err := f.Call(ctx); err != nil {
			return result(out, err)
		}
	}
	f := mod.ExportedFunction("handle")
	if f == nil {
		return runtime.Result{Reason: runtime.Trap, Detail: "module exports neither _start nor handle"}
	}
	_, err = f.Call(ctx)
	return result(out, err)
}

// output remembers the first error of the response's writer.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil && o.err == nil {
		o.err = err
	}
	return n, err
}

// result translates the end of a call.
func result(out *output, err error) runtime.Result {
	var exit *sys.ExitError
	switch {
	case errors.Is(out.err, runtime.ErrOutputLimit):
		return runtime.Result{Reason: runtime.OutputLimit}
	case out.err != nil:
		return runtime.Result{Reason: runtime.Cancelled}
	case err == nil:
		return runtime.Result{}
	case errors.As(err, &exit):
		switch code := exit.ExitCode(); code {
		case 0:
			return runtime.Result{}
		case sys.ExitCodeDeadlineExceeded:
			return runtime.Result{Reason: runtime.Timeout}
		case sys.ExitCodeContextCanceled:
			return runtime.Result{Reason: runtime.Cancelled}
		default:
			return runtime.Result{Reason: runtime.Exit, Exit: int32(code)}
		}
	default:
		return runtime.Result{Reason: runtime.Trap, Detail: err.Error()}
	}
}
