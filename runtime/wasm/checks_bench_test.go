package wasm

import (
	"context"
	"math"
	"os"
	"testing"
	"time"

	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// What the interruption checks cost, beside no check at all and beside
// WithCloseOnContextDone. The variants take turns, and the best of many short
// turns counts, so that whatever else the machine does falls out.
func BenchmarkChecks(b *testing.B) {
	module, err := os.ReadFile(buildC(b, "loops", "-mexec-model=reactor"))
	if err != nil {
		b.Fatal(err)
	}
	rewritten := func(o prepare.Options) []byte {
		out, info, err := prepare.Rewrite(module, o)
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("%d bytes, %d after, %d checks", info.BytesBefore, info.BytesAfter, info.Checks)
		return out
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type variant struct {
		name   string
		module []byte
		config wazero.RuntimeConfig
		f      func(name string) api.Function
	}
	plain := wazero.NewRuntimeConfigCompiler()
	variants := []*variant{
		{name: "none", module: module, config: plain},
		{name: "checks", module: rewritten(prepare.Options{}), config: plain},
		{name: "contextdone", module: module, config: plain.WithCloseOnContextDone(true)},
	}
	for _, v := range variants {
		rt := wazero.NewRuntimeWithConfig(ctx, v.config)
		defer func() { _ = rt.Close(ctx) }()
		check := func(_ context.Context, m api.Module, _ []uint64) {
			m.ExportedGlobal(prepare.Fuel).(api.MutableGlobal).Set(prepare.FuelRefill)
		}
		if _, err := rt.NewHostModuleBuilder(prepare.HostModule).NewFunctionBuilder().
			WithGoModuleFunction(api.GoModuleFunc(check), nil, nil).Export(prepare.Check).NewFunctionBuilder().
			WithGoModuleFunction(api.GoModuleFunc(check), nil, []api.ValueType{api.ValueTypeI32}).Export(prepare.Enter).Instantiate(ctx); err != nil {
			b.Fatal(err)
		}
		m, err := rt.InstantiateWithConfig(ctx, v.module, wazero.NewModuleConfig().WithStartFunctions())
		if err != nil {
			b.Fatal(err)
		}
		if f := m.ExportedFunction(prepare.Init); f != nil {
			if _, err := f.Call(ctx); err != nil {
				b.Fatal(err)
			}
		}
		v.f = m.ExportedFunction
	}
	works := []struct {
		name   string
		rounds uint64
	}{{"matrix", 1}, {"sha256", 5}, {"json", 10}, {"chain", 3}, {"bytes", 30}, {"search", 30}}
	mean := make([]float64, len(variants))
	for _, w := range works {
		b.Run(w.name, func(b *testing.B) {
			best := make([]time.Duration, len(variants))
			for i := range best {
				best[i] = math.MaxInt64
			}
			for b.Loop() {
				for i, v := range variants {
					f := v.f(w.name)
					start := time.Now()
					if _, err := f.Call(ctx, w.rounds); err != nil {
						b.Fatal(err)
					}
					best[i] = min(best[i], time.Since(start))
				}
			}
			for i, v := range variants {
				ratio := float64(best[i]) / float64(best[0])
				b.ReportMetric(ratio, v.name+"/none")
				if w.name == "matrix" || w.name == "sha256" || w.name == "json" {
					mean[i] += math.Log(ratio) / 3
				}
			}
		})
	}
	b.ReportMetric(math.Exp(mean[1]), "checks-geomean")
	b.ReportMetric(math.Exp(mean[2]), "contextdone-geomean")
}
