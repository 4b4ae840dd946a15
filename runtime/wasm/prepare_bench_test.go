package wasm

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"baton/runtime"
)

// BenchmarkPrepare: the pass beside the compiler, and what its checks add to
// the native code of real modules.
func BenchmarkPrepare(b *testing.B) {
	for name, module := range map[string]string{
		"c":  buildC(b, "hello"),
		"go": buildGo(b, "testdata/gofresh", true),
	} {
		b.Run(name, func(b *testing.B) {
			data, err := os.ReadFile(module)
			if err != nil {
				b.Fatal(err)
			}
			var pass, compiler time.Duration
			var before, after int64
			for b.Loop() {
				report, err := Prepare(b.Context(), module, b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				if pass == 0 || report.Rewrite < pass {
					pass = report.Rewrite
				}
				if compiler == 0 || report.Compile < compiler {
					compiler = report.Compile
				}
				after = report.CodeBytes
			}
			w := &codeWriter{path: filepath.Join(b.TempDir(), "code")}
			if err := compile(b.Context(), data, w); err != nil {
				b.Fatal(err)
			}
			before = w.size
			b.ReportMetric(float64(pass)/float64(compiler), "pass/compile")
			b.ReportMetric(float64(after)/float64(before), "code/unchecked")
			b.ReportMetric(float64(after)/1e6, "code-MB")
			b.ReportMetric(compiler.Seconds()*1e3, "compile-ms")
		})
	}
}

// BenchmarkLoad: what loading a function from the cache takes, and its first
// instance.
func BenchmarkLoad(b *testing.B) {
	e := executor(b)
	for name, module := range map[string]string{
		"c":  buildC(b, "hello"),
		"go": buildGo(b, "testdata/gohello", true),
	} {
		b.Run(name, func(b *testing.B) {
			f := &runtime.Function{Name: "f", Module: module}
			_ = load(b, e, f).Close()
			best := time.Hour
			for b.Loop() {
				start := time.Now()
				l, err := e.Load(b.Context(), f)
				if err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(start))
				if err := l.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(best.Seconds()*1e3, "load-ms")
		})
	}
}
