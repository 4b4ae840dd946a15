//go:build !race

package wasm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// The test suite of the core specification, as wazero's module carries it
// (wast2json's output), run twice: every module as it is, and prepared. What
// the two answer must be the same; that wazero itself is right is wazero's own
// test. One goroutine runs it all, so the race detector has nothing to see here.

type specCommand struct {
	Type       string     `json:"type"`
	Line       int        `json:"line"`
	Name       string     `json:"name"`
	Filename   string     `json:"filename"`
	As         string     `json:"as"`
	ModuleType string     `json:"module_type"`
	Action     specAction `json:"action"`
}

type specAction struct {
	Type   string      `json:"type"`
	Args   []specValue `json:"args"`
	Field  string      `json:"field"`
	Module string      `json:"module"`
}

type specValue struct {
	Type  string `json:"type"`
	Lane  string `json:"lane_type"`
	Value any    `json:"value"`
}

func (v specValue) number(width int, s string) uint64 {
	switch {
	case strings.HasPrefix(s, "nan"):
		if width == 32 {
			return 0x7fc00000
		}
		return 0x7ff8000000000000
	case strings.HasPrefix(s, "-"):
		n, _ := strconv.ParseInt(s, 10, 64)
		return uint64(n) & (1<<(width-1)<<1 - 1)
	default:
		n, _ := strconv.ParseUint(s, 10, 64)
		return n
	}
}

func (v specValue) words() []uint64 {
	switch x := v.Value.(type) {
	case string:
		switch {
		case v.Type == "externref" && x != "null":
			n, _ := strconv.ParseUint(x, 10, 64)
			return []uint64{n + 1}
		case strings.HasSuffix(v.Type, "32"):
			return []uint64{v.number(32, x)}
		case strings.HasSuffix(v.Type, "64"):
			return []uint64{v.number(64, x)}
		}
		return []uint64{0}
	case []any:
		width, _ := strconv.Atoi(v.Lane[1:])
		words := make([]uint64, 2)
		for i, lane := range x {
			at := i * width
			words[at/64] |= v.number(width, lane.(string)) << (at % 64)
		}
		return words
	}
	return []uint64{0}
}

// specSide is one of the two runs.
type specSide struct {
	rt      wazero.Runtime
	prepare bool
	modules map[string]api.Module
	last    api.Module
}

func newSpecSide(t *testing.T, spectest []byte, prepared bool) *specSide {
	ctx := t.Context()
	s := &specSide{rt: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler()), prepare: prepared, modules: map[string]api.Module{}}
	t.Cleanup(func() { _ = s.rt.Close(context.Background()) })
	check := func(_ context.Context, m api.Module, _ []uint64) {
		m.ExportedGlobal(prepare.Fuel).(api.MutableGlobal).Set(50)
	}
	if _, err := s.rt.NewHostModuleBuilder(prepare.HostModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(check), nil, nil).Export(prepare.Check).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(check), nil, []api.ValueType{api.ValueTypeI32}).Export(prepare.Enter).Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rt.InstantiateWithConfig(ctx, spectest, wazero.NewModuleConfig()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *specSide) instantiate(ctx context.Context, module []byte, name string) (api.Module, error) {
	config := wazero.NewModuleConfig().WithName(name).WithStartFunctions()
	if !s.prepare {
		return s.rt.InstantiateWithConfig(ctx, module, config)
	}
	if err := validate(ctx, module); err != nil {
		return nil, err
	}
	out, _, err := prepare.Rewrite(module, prepare.Options{})
	if err != nil {
		return nil, err
	}
	m, err := s.rt.InstantiateWithConfig(ctx, out, config)
	if err != nil {
		return nil, err
	}
	if _, err := m.ExportedFunction(prepare.Init).Call(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// errorClass is what of an error must not change: the kind of trap.
func errorClass(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	if _, trap, ok := strings.Cut(line, "wasm error: "); ok {
		return trap
	}
	return "refused"
}

// run executes a command and describes its outcome.
func (s *specSide) run(ctx context.Context, dir string, c *specCommand, registered string) string {
	switch c.Type {
	case "module", "assert_uninstantiable", "assert_unlinkable", "assert_invalid", "assert_malformed":
		if c.ModuleType == "text" {
			return ""
		}
		module, err := os.ReadFile(filepath.Join(dir, c.Filename))
		if err != nil {
			return err.Error()
		}
		m, err := s.instantiate(ctx, module, registered)
		if c.Type == "module" && err == nil {
			s.last = m
			if c.Name != "" {
				s.modules[c.Name] = m
			}
		}
		return fmt.Sprint(err == nil)
	case "assert_return", "assert_trap", "assert_exhaustion", "action":
		m := s.last
		if c.Action.Module != "" {
			m = s.modules[c.Action.Module]
		}
		if m == nil {
			return "no module"
		}
		if c.Action.Type == "get" {
			return fmt.Sprint(m.ExportedGlobal(c.Action.Field).Get())
		}
		var args []uint64
		for _, a := range c.Action.Args {
			args = append(args, a.words()...)
		}
		f := m.ExportedFunction(c.Action.Field)
		results, err := f.Call(ctx, args...)
		for i, t := range f.Definition().ResultTypes() {
			if (t == api.ValueTypeExternref || t == 0x70) && i < len(results) && results[i] != 0 {
				results[i] = 1 // an address of the engine
			}
		}
		return fmt.Sprintln(results, errorClass(err))
	}
	return c.Type
}

func TestSpecSuiteBehavesTheSamePrepared(t *testing.T) {
	t.Parallel()
	root := specDir(t)
	spectest, err := os.ReadFile(filepath.Join(root, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v1", "v2"} {
		dir := filepath.Join(root, version, "testdata")
		files, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil || len(files) < 50 {
			t.Fatalf("%d files in %s (%v)", len(files), dir, err)
		}
		for _, file := range files {
			t.Run(version+"/"+strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				var suite struct{ Commands []specCommand }
				if err := json.Unmarshal(text, &suite); err != nil {
					t.Fatal(err)
				}
				plain, prepared := newSpecSide(t, spectest, false), newSpecSide(t, spectest, true)
				for i := range suite.Commands {
					c := &suite.Commands[i]
					registered := ""
					if c.Type == "module" && i+1 < len(suite.Commands) && suite.Commands[i+1].Type == "register" {
						registered = suite.Commands[i+1].As
					}
					if c.Type == "assert_exhaustion" && testing.Short() {
						continue
					}
					want, got := plain.run(t.Context(), dir, c, registered), prepared.run(t.Context(), dir, c, registered)
					if !reflect.DeepEqual(want, got) {
						t.Errorf("line %d: %s %s: %q before, %q after", c.Line, c.Type, c.Action.Field, want, got)
					}
				}
			})
		}
	}
}
