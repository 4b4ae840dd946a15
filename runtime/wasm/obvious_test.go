package wasm

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"os"
	"strings"
	"testing"

	"baton/runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// obvious is the obvious way to run a function per request: the module
// compiled once, a new instance for each call, wazero's own WASI, default
// configuration. The engine is measured against it.
type obvious struct {
	rt       wazero.Runtime
	compiled wazero.CompiledModule
}

func newObvious(tb testing.TB, module string) *obvious {
	tb.Helper()
	ctx := context.Background()
	data, err := os.ReadFile(module)
	if err != nil {
		tb.Fatal(err)
	}
	o := &obvious{rt: wazero.NewRuntime(ctx)}
	tb.Cleanup(func() { _ = o.rt.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, o.rt)
	if o.compiled, err = o.rt.CompileModule(ctx, data); err != nil {
		tb.Fatal(err)
	}
	return o
}

func (o *obvious) invoke(f *runtime.Function, body []byte, stdout io.Writer, env []string) error {
	ctx := context.Background()
	config := wazero.NewModuleConfig().WithName("").WithStdin(bytes.NewReader(body)).WithStdout(stdout).WithStderr(io.Discard).
		WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).WithArgs(f.Name, f.Handler)
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		config = config.WithEnv(k, v)
	}
	if o.compiled.ExportedFunctions()["handle"] != nil {
		config = config.WithStartFunctions("_initialize", "handle")
	}
	m, err := o.rt.InstantiateModule(ctx, o.compiled, config)
	if err != nil {
		return err
	}
	return m.Close(ctx)
}
