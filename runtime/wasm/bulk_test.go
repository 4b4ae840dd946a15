package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"baton/runtime"
	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// segmentBytes is the length of bulkModule's segment: some pieces and a rest.
const segmentBytes = 3<<16 + 77

// bulkModule exports copy, fill and init: (i32, i32, i32) → (), and drop, on a memory of
// pages pages.
func bulkModule(pages uint64) []byte {
	content := make([]byte, segmentBytes)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(content)
	three := []byte{0x20, 0, 0x20, 1, 0x20, 2, 0xfc}
	export := func(name string, index byte) []byte { return cat(str(name), []byte{0, index}) }
	return assemble(
		section(1, vec([]byte{0x60, 3, 0x7f, 0x7f, 0x7f, 0}, voidType())),
		section(3, vec([]byte{0}, []byte{0}, []byte{0}, []byte{1})),
		section(5, vec(binary.AppendUvarint([]byte{0}, pages))),
		section(7, vec(export("copy", 0), export("fill", 1), export("init", 2), export("drop", 3), cat(str("memory"), []byte{2, 0}))),
		section(12, []byte{1}),
		section(10, vec(fn(cat(three, []byte{10, 0, 0})...), fn(cat(three, []byte{11, 0})...), fn(cat(three, []byte{8, 0, 0})...), fn(0xfc, 9, 0))),
		section(11, vec(cat([]byte{1}, str(string(content))))),
	)
}

// instantiateBoth makes a module as it is, and prepared with checks that always let it go on.
func instantiateBoth(t *testing.T, module []byte) (plain, prepared api.Module) {
	t.Helper()
	ctx := t.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	t.Cleanup(func() { _ = rt.Close(context.Background()) })
	check := api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
		m.ExportedGlobal(prepare.Fuel).(api.MutableGlobal).Set(1000)
	})
	if _, err := rt.NewHostModuleBuilder(prepare.HostModule).NewFunctionBuilder().WithGoModuleFunction(check, nil, nil).Export(prepare.Check).
		NewFunctionBuilder().WithGoModuleFunction(check, nil, []api.ValueType{api.ValueTypeI32}).Export(prepare.Enter).Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	out, _, err := prepare.Rewrite(module, prepare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var both []api.Module
	for _, b := range [][]byte{module, out} {
		m, err := rt.InstantiateWithConfig(ctx, b, wazero.NewModuleConfig().WithName("").WithStartFunctions())
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, m)
	}
	if _, err := both[1].ExportedFunction(prepare.Init).Call(ctx); err != nil {
		t.Fatal(err)
	}
	return both[0], both[1]
}

// What is done in pieces does what the instruction does, out of bounds too:
// lengths around a piece, overlaps in both directions, ends of memory and segment.
func TestBulkInstructionsInPieces(t *testing.T) {
	t.Parallel()
	const pages, piece = 8, 1 << 16
	plain, prepared := instantiateBoth(t, bulkModule(pages))
	lengths := []uint64{0, 1, piece - 1, piece, piece + 1, 2 * piece, 2*piece + 5, 3 * piece, segmentBytes, segmentBytes + 1, pages * piece, pages*piece + 1, 1<<32 - 1}
	offsets := []uint64{0, 1, piece, 2*piece - 3, pages*piece - piece - 1, pages * piece, 1<<32 - 5}
	same := func(name string, args ...uint64) {
		t.Helper()
		var outcome [2]string
		var memory [2][]byte
		for i, m := range []api.Module{plain, prepared} {
			_, err := m.ExportedFunction(name).Call(t.Context(), args...)
			outcome[i] = fmt.Sprint(err == nil)
			memory[i], _ = m.Memory().Read(0, m.Memory().Size())
		}
		if outcome[0] != outcome[1] {
			t.Errorf("%s%v: %v before, %v after", name, args, outcome[0], outcome[1])
		}
		if !bytes.Equal(memory[0], memory[1]) {
			t.Fatalf("%s%v: memory differs", name, args)
		}
	}
	for round := range 2 {
		for _, n := range lengths {
			for _, d := range offsets {
				same("fill", d, d+n, n)
				for _, s := range offsets {
					same("init", d, s, n)
					same("copy", d, s, n)
				}
			}
		}
		if round == 0 {
			same("drop")
		}
	}
}

// Every instruction on a range is interrupted when it runs for ever, also
// on memory that was never touched.
func TestDeadlineEndsBulkInstructions(t *testing.T) {
	t.Parallel()
	const loop, end, br = 0x03, 0x0b, 0x0c
	forever := func(code ...byte) []byte { return fn(cat([]byte{loop, 0x40}, code, []byte{br, 0, end})...) }
	memory := section(5, vec(cat([]byte{0}, binary.AppendUvarint(nil, 1024)))) // 64 MiB
	table := section(4, vec(cat([]byte{0x70, 0}, binary.AppendUvarint(nil, prepare.TableMax))))
	megabytes := func(n uint64) []byte { // i32.const n<<20
		var b []byte
		for v := n << 20; ; v >>= 7 {
			if v < 0x40 {
				return cat([]byte{0x41}, b, []byte{byte(v)})
			}
			b = append(b, byte(v)|0x80)
		}
	}
	zero := []byte{0x41, 0}
	cases := []struct {
		name     string
		sections [][]byte // between exports and code
		code     []byte
		after    []byte
	}{
		{"memory.fill", [][]byte{memory}, forever(cat(zero, zero, megabytes(64), []byte{0xfc, 11, 0})...), nil},
		{"memory.copy forward", [][]byte{memory}, forever(cat(zero, megabytes(1), megabytes(63), []byte{0xfc, 10, 0, 0})...), nil},
		{"memory.copy backward", [][]byte{memory}, forever(cat(megabytes(1), zero, megabytes(63), []byte{0xfc, 10, 0, 0})...), nil},
		{"memory.init", [][]byte{memory}, forever(cat(zero, zero, megabytes(8), []byte{0xfc, 8, 0, 0})...), section(11, vec(cat([]byte{1}, str(string(make([]byte, 8<<20))))))},
		{"memory.grow", [][]byte{memory}, forever(0x41, 1, 0x40, 0, 0x1a), nil},
		{"table.fill", [][]byte{table}, forever(cat(zero, []byte{0xd0, 0x70}, megabytes(1), []byte{0xfc, 17, 0})...), nil},
		{"table.copy", [][]byte{table}, forever(cat(zero, zero, megabytes(1), []byte{0xfc, 14, 0, 0})...), nil},
		{"table.grow", [][]byte{section(4, vec([]byte{0x70, 0, 0}))}, forever(cat([]byte{0xd0, 0x70, 0x41, 63, 0xfc, 15, 0, 0x1a})...), nil},
	}
	e := executor(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sections := [][]byte{section(1, vec(voidType())), section(3, vec([]byte{0}))}
			sections = append(sections, c.sections...)
			sections = append(sections, section(7, vec(cat(str("_start"), []byte{0, 0}))))
			if c.after != nil {
				sections = append(sections, section(12, []byte{1}))
			}
			sections = append(sections, section(10, vec(c.code)), c.after)
			l := load(t, e, &runtime.Function{Name: "bulk", Module: writeNamed(t, "bulk "+c.name, assemble(sections...)), MemoryMB: 64})
			for range 3 {
				const limit = 30 * time.Millisecond
				start := time.Now()
				res := l.Invoke(&runtime.Invocation{Stdout: discard{}, Deadline: start.Add(limit)})
				took := time.Since(start)
				if res.Reason != runtime.Timeout || took < limit {
					t.Errorf("%+v after %v", res, took)
				}
				t.Logf("%v late", took-limit)
			}
		})
	}
}
