package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"time"

	"baton/runtime"
	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/cpu"
)

// stamp says for whom and from what native code was made. It lies in the
// cache directory beside the prepared module and is written last, so a stamp
// that can be read belongs to complete files.
type stamp struct {
	Wazero   string       `json:"wazero"`   // version of the compiler
	CPU      string       `json:"cpu"`      // processor features the code may use
	Pass     int          `json:"pass"`     // version of the prepare pass
	Module   string       `json:"module"`   // SHA-256 of the artifact, hexadecimal
	Prepared string       `json:"prepared"` // file name of the rewritten module, without its code
	Code     string       `json:"code"`     // file name of the native code
	CodeSize int64        `json:"codeSize"` // its length in bytes
	Info     prepare.Info `json:"info"`
}

// passVersion changes with every change of what the prepare pass emits or of a file's form, which
// makes the gateway prepare every artifact again.
const passVersion = 8

// compilerVersion is what wazero puts into its cache's keys.
func compilerVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/tetratelabs/wazero" {
				return dep.Version
			}
		}
	}
	return "dev"
}

// processor names the features that wazero's compiler looks at. More than it
// knows today, so that a migration between unlike machines is never missed.
func processor() string {
	x := &cpu.X86
	a := &cpu.ARM64
	return fmt.Sprintf("amd64 sse41=%t sse42=%t bmi1=%t bmi2=%t popcnt=%t avx=%t avx2=%t; arm64 atomics=%t",
		x.HasSSE41, x.HasSSE42, x.HasBMI1, x.HasBMI2, x.HasPOPCNT, x.HasAVX, x.HasAVX2, a.HasATOMICS)
}

func stampPath(cacheDir, module string) string {
	return filepath.Join(cacheDir, module+".stamp")
}

// readStamp returns the stamp of the artifact with the given hash if it was
// made by this version for this processor and its files are there, else
// runtime.ErrNotPrepared.
func readStamp(cacheDir, module string) (*stamp, error) {
	data, err := os.ReadFile(stampPath(cacheDir, module))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", module, runtime.ErrNotPrepared)
	} else if err != nil {
		return nil, fmt.Errorf("read stamp: %w", err)
	}
	var s stamp
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("stamp of %s: %w", module, runtime.ErrNotPrepared)
	}
	if s.Wazero != compilerVersion() || s.CPU != processor() || s.Pass != passVersion || s.Module != module ||
		!filepath.IsLocal(s.Code) || !filepath.IsLocal(s.Prepared) {
		return nil, fmt.Errorf("stamp of %s is of another version or processor: %w", module, runtime.ErrNotPrepared)
	}
	st, err := os.Stat(filepath.Join(cacheDir, s.Code))
	if err != nil || st.Size() != s.CodeSize {
		return nil, fmt.Errorf("native code of %s is missing: %w", module, runtime.ErrNotPrepared)
	}
	return &s, nil
}

// writeFile writes data under name in dir: whole or not at all.
func writeFile(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, name+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Bounds of a module. What is over one of them is refused, with the bound's
// name and value in the error.
const (
	// moduleBytesMax bounds the artifact: a Go program is 2 to 20 MB.
	moduleBytesMax = 64 << 20
	// growthMax bounds what the prepare pass adds: the rewritten module has at
	// most so many times the artifact's bytes, and growthFree more. Real modules
	// grow by 5 to 30 percent.
	growthMax  = 3
	growthFree = 64 << 10
	// codeBytesMax bounds the native code, which every worker that loads the
	// module keeps in memory.
	codeBytesMax = 256 << 20
)

// Report says what Prepare did.
type Report struct {
	Module        string        // SHA-256 of the artifact, hexadecimal
	ModuleBytes   int           // length of the artifact
	PreparedBytes int           // length of the rewritten module; 0 when it was prepared already
	CodeBytes     int64         // length of the native code
	MemoryMin     int64         // bytes of memory the module starts with: the descriptor must allow them
	Checks        int           // interruption checks that were inserted
	Rewrite       time.Duration // time of the prepare pass
	Compile       time.Duration // time of the compiler
}

// readModule reads an artifact of at most moduleBytesMax bytes.
func readModule(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	if st.Size() > moduleBytesMax {
		return nil, refused("it has %d bytes, at most %d are allowed", st.Size(), moduleBytesMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read module: %w", err)
	}
	return data, nil
}

// Prepared reports whether the artifact has native code for this version and
// processor; if not, the error wraps runtime.ErrNotPrepared.
func Prepared(module, cacheDir string) error {
	name, err := hashFile(module)
	if err != nil {
		return err
	}
	_, err = readStamp(cacheDir, name)
	return err
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Prepare validates the module at path, rewrites it for the engine, compiles
// it and puts the native code into cacheDir with a stamp.
//
// It runs in a process of its own that may be killed (`baton prepare`):
// compiling a hostile module can take minutes and gigabytes, and does not
// listen to ctx. It runs no code of the module. Calling it for what is
// prepared already does nothing. cacheDir is created with mode 0700 if it is missing: whoever can
// write there owns the workers.
//
// Errors: *RefusedError when the module is not one that can run; anything
// else is the system's.
func Prepare(ctx context.Context, path, cacheDir string) (*Report, error) {
	data, err := readModule(path)
	if err != nil {
		return nil, err
	}
	report := &Report{Module: hash(data), ModuleBytes: len(data)}
	if s, err := readStamp(cacheDir, report.Module); err == nil {
		report.CodeBytes, report.Checks, report.MemoryMin = s.CodeSize, s.Info.Checks, int64(s.Info.MemoryMin)<<16
		return report, nil
	}
	if err := validate(ctx, data); err != nil {
		return nil, err
	}
	start := time.Now()
	prepared, info, err := rewrite(data)
	if err != nil {
		return nil, &RefusedError{Reason: err}
	}
	report.Rewrite = time.Since(start)
	report.PreparedBytes, report.Checks, report.MemoryMin = len(prepared), info.Checks, int64(info.MemoryMin)<<16
	switch {
	case info.Foreign:
		return nil, refused("it imports a memory, table or global; only functions of WASI preview 1 are there")
	case !info.Runnable:
		return nil, refused("it exports neither _start (a WASI command) nor handle (a reactor)")
	case len(prepared) > growthMax*len(data)+growthFree:
		return nil, refused("interruption checks make it grow from %d to %d bytes, at most %d times is allowed", len(data), len(prepared), growthMax)
	}
	if err := os.MkdirAll(cacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("create cache: %w", err)
	}

	w := &codeWriter{path: filepath.Join(cacheDir, "code-"+rand.Text()+".tmp")}
	defer func() { _ = os.Remove(w.path) }() // unless it was moved
	start = time.Now()
	if err := compile(ctx, prepared, w); err != nil {
		return nil, err
	}
	report.Compile = time.Since(start)
	report.CodeBytes = w.size
	if w.size > codeBytesMax {
		return nil, refused("its native code has %d bytes, at most %d are allowed", w.size, codeBytesMax)
	}
	// What a worker loads is the module without its code.
	tag := sha256.Sum256(prepared)
	skeleton, err := prepare.Skeleton(prepared, tag[:])
	if err != nil {
		return nil, err
	}
	key, err := keyOf(ctx, skeleton)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(w.path, filepath.Join(cacheDir, codeName(key))); err != nil {
		return nil, fmt.Errorf("move native code: %w", err)
	}
	s := stamp{
		Wazero: compilerVersion(), CPU: processor(), Pass: passVersion, Module: report.Module,
		Prepared: report.Module + ".skeleton.wasm", Code: codeName(key), CodeSize: w.size, Info: *info,
	}
	if err := writeFile(cacheDir, s.Prepared, skeleton); err != nil {
		return nil, fmt.Errorf("write prepared module: %w", err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if err := writeFile(cacheDir, report.Module+".stamp", append(bytes.TrimSpace(text), '\n')); err != nil {
		return nil, fmt.Errorf("write stamp: %w", err)
	}
	return report, nil
}

// RefusedError says why a module cannot be a function: the deployer's fault,
// and meant to be read by them.
type RefusedError struct{ Reason error }

func refused(format string, args ...any) error {
	return &RefusedError{Reason: fmt.Errorf(format, args...)}
}

// Error implements error.
func (e *RefusedError) Error() string { return "module refused: " + e.Reason.Error() }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

// validate refuses what is not a valid module of WebAssembly 2.0. The prepare
// pass accepts more; the interpreter's compiler validates without making native code.
func validate(ctx context.Context, module []byte) error {
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithDebugInfoEnabled(false))
	defer func() { _ = rt.Close(ctx) }()
	compiled, err := rt.CompileModule(ctx, module)
	if err != nil {
		return &RefusedError{Reason: err}
	}
	return compiled.Close(ctx)
}

// compile makes native code of module, on all processors, and has w keep it.
func compile(ctx context.Context, module []byte, w *codeWriter) error {
	cache, err := newCache(w)
	if err != nil {
		return err
	}
	defer func() { _ = cache.Close(ctx) }()
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig().WithCompilationCache(cache))
	defer func() { _ = rt.Close(ctx) }()
	if err := instantiateHost(ctx, rt); err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	compiled, err := rt.CompileModule(experimental.WithCompilationWorkers(ctx, goruntime.GOMAXPROCS(0)), module)
	if err != nil {
		return &RefusedError{Reason: err}
	}
	defer func() { _ = compiled.Close(ctx) }()
	for _, f := range compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		host := rt.Module(from)
		if host == nil {
			return refused("it imports %s.%s, and there is no module %s; functions are programs for WASI preview 1", from, name, from)
		}
		have, ok := host.ExportedFunctionDefinitions()[name]
		if !ok {
			return refused("it imports %s.%s, which does not exist", from, name)
		}
		if !slices.Equal(have.ParamTypes(), f.ParamTypes()) || !slices.Equal(have.ResultTypes(), f.ResultTypes()) {
			return refused("it imports %s.%s with other parameters or results than it has", from, name)
		}
	}
	return nil
}

// keyOf returns the name by which wazero will ask for the native code of module.
func keyOf(ctx context.Context, module []byte) (codeKey, error) {
	var k keyFinder
	cache, err := newCache(&k)
	if err != nil {
		return k.key, err
	}
	defer func() { _ = cache.Close(ctx) }()
	rt := wazero.NewRuntimeWithConfig(ctx, runtimeConfig().WithCompilationCache(cache))
	defer func() { _ = rt.Close(ctx) }()
	if _, err := rt.CompileModule(ctx, module); !errors.Is(err, errKeyFound) {
		return k.key, fmt.Errorf("name of native code: %w", err)
	}
	return k.key, nil
}
