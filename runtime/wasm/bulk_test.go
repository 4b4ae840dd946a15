package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
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

// constant is i32.const n.
func constant(n uint32) []byte {
	var b []byte
	for v := int32(n); ; v >>= 7 {
		if v >= -0x40 && v < 0x40 {
			return cat([]byte{0x41}, b, []byte{byte(v & 0x7f)})
		}
		b = append(b, byte(v)|0x80)
	}
}

// instantiateBoth makes a module as it is, and prepared with checks that always let it go on, for so much
// fuel, and are counted.
func instantiateBoth(t *testing.T, module []byte, fuel uint64) (plain, prepared api.Module, checks *int) {
	t.Helper()
	checks = new(int)
	ctx := t.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler())
	t.Cleanup(func() { _ = rt.Close(context.Background()) })
	check := api.GoModuleFunc(func(_ context.Context, m api.Module, _ []uint64) {
		m.ExportedGlobal(prepare.Fuel).(api.MutableGlobal).Set(fuel)
		*checks++
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
	return both[0], both[1], checks
}

// What is done in pieces does what the instruction does, out of bounds too:
// lengths around a piece, overlaps in both directions, ends of memory and segment.
func TestBulkInstructionsInPieces(t *testing.T) {
	t.Parallel()
	const pages, piece = 8, 1 << 16
	plain, prepared, _ := instantiateBoth(t, bulkModule(pages), 1000)
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

// Sizes of tableModule, in elements: some pieces and a rest.
const (
	tablePiece    = 1 << 13
	tableSize     = 4*tablePiece + 5
	tableElements = 3*tablePiece + 77
)

// tableModule has four tables of functions, and exports for 0 and 1 copy (within 0), across (from 0 to 1), fill (with one of
// five functions, or null) and init: (i32, i32, i32) → (), drop, and hash0 and hash1: () → i32, of what they
// hold; for 3, which is empty, grow: i32 → i32, and hash3.
func tableModule() []byte {
	code := func(locals byte, code ...byte) []byte {
		body := cat([]byte{1, locals, 0x7f}, code, []byte{0x0b})
		return cat(binary.AppendUvarint(nil, uint64(len(body))), body)
	}
	hash := func(table byte) []byte { // h = 31*h + 0, or what the function returns
		return code(2, cat([]byte{0x03, 0x40, 0x20, 0, 0xfc, 16, table, 0x49, 0x04, 0x40},
			[]byte{0x20, 1, 0x41, 31, 0x6c, 0x20, 0, 0x25, table, 0xd1, 0x04, 0x7f, 0x41, 0, 0x05, 0x20, 0, 0x11, 1, table, 0x0b, 0x6a, 0x21, 1},
			[]byte{0x20, 0, 0x41, 1, 0x6a, 0x21, 0, 0x0c, 1, 0x0b, 0x0b, 0x20, 1})...)
	}
	three := []byte{0x20, 0, 0x20, 1, 0x20, 2, 0xfc}
	functions := []struct {
		name string
		typ  byte
		code []byte
	}{
		{"", 1, fn(0x41, 1)}, {"", 1, fn(0x41, 2)}, {"", 1, fn(0x41, 3)}, {"", 1, fn(0x41, 4)}, {"", 1, fn(0x41, 5)},
		{"copy", 0, fn(cat(three, []byte{14, 0, 0})...)},
		{"across", 0, fn(cat(three, []byte{14, 1, 0})...)},
		{"fill", 0, fn(0x20, 0, 0x20, 1, 0x41, 6, 0x70, 0x25, 2, 0x20, 2, 0xfc, 17, 0)},
		{"init", 0, fn(cat(three, []byte{12, 1, 0})...)},
		{"drop", 2, fn(0xfc, 13, 1)},
		{"hash0", 1, hash(0)}, {"hash1", 1, hash(1)}, {"hash3", 1, hash(3)},
		{"grow", 3, fn(0xd2, 0, 0x20, 0, 0xfc, 15, 3)},
	}
	var types, exports, bodies [][]byte
	for i, f := range functions {
		types, bodies = append(types, []byte{f.typ}), append(bodies, f.code)
		if f.name != "" {
			exports = append(exports, cat(str(f.name), []byte{0, byte(i)}))
		}
	}
	table := func(low uint64) []byte { return binary.AppendUvarint([]byte{0x70, 0}, low) }
	elements := binary.AppendUvarint([]byte{1, 0}, tableElements)
	random := rand.New(rand.NewPCG(1, 2))
	for range tableElements {
		elements = append(elements, byte(random.IntN(5)))
	}
	return assemble(
		section(1, vec([]byte{0x60, 3, 0x7f, 0x7f, 0x7f, 0}, []byte{0x60, 0, 1, 0x7f}, voidType(), []byte{0x60, 1, 0x7f, 1, 0x7f})),
		section(3, vec(types...)),
		section(4, vec(table(tableSize), table(tableSize-tablePiece), table(6), table(0))),
		section(7, vec(exports...)),
		section(9, vec([]byte{2, 2, 0x41, 0, 0x0b, 0, 5, 0, 1, 2, 3, 4}, elements)),
		section(10, vec(bodies...)),
	)
}

// The same for tables.
func TestTableInstructionsInPieces(t *testing.T) {
	t.Parallel()
	plain, prepared, _ := instantiateBoth(t, tableModule(), 1000)
	call := func(m api.Module, name string, args ...uint64) string {
		results, err := m.ExportedFunction(name).Call(t.Context(), args...)
		return fmt.Sprint(results, err == nil)
	}
	same := func(name string, args ...uint64) {
		t.Helper()
		before, after := call(plain, name, args...), call(prepared, name, args...)
		if before != after {
			t.Errorf("%s%v: %v before, %v after", name, args, before, after)
		}
		hash := "hash0"
		if name == "across" {
			hash = "hash1"
		}
		if before, after := call(plain, hash), call(prepared, hash); before != after {
			t.Fatalf("%s%v: %s is %v before, %v after", name, args, hash, before, after)
		}
	}
	lengths := []uint64{0, 1, tablePiece, tablePiece + 1, 2*tablePiece + 5, tableElements, tableElements + 1, tableSize, tableSize + 1, 1<<32 - 1}
	offsets := []uint64{0, 1, tablePiece, 2*tablePiece - 3, tableSize - tablePiece - 1, tableSize, 1<<32 - 5}
	same("init", 0, 0, tableElements)
	for round := range 2 {
		for _, n := range lengths {
			for _, d := range offsets {
				for _, s := range offsets {
					same("copy", d, s, n)
					same("across", d, s, n)
					same("init", d, s, n)
				}
				same("fill", d, d+n, n)
			}
		}
		if round == 0 {
			same("drop")
		}
	}
	for _, n := range []uint64{0, 1, 77, 1<<32 - 1, tablePiece, prepare.TableGrowMax / 8, 1<<32 - tablePiece} {
		if before, after := call(plain, "grow", n), call(prepared, "grow", n); before != after {
			t.Errorf("grow by %d: %s before, %s after", n, before, after)
		}
		if before, after := call(plain, "hash3"), call(prepared, "hash3"); before != after {
			t.Errorf("grown by %d: %s before, %s after", n, before, after)
		}
	}
}

// Each piece of a table's range is charged for, and table.grow for the whole
// table, which it may move.
func TestTableInstructionsAreChargedFor(t *testing.T) {
	t.Parallel()
	const pieceUnits = 2 * tablePiece
	for _, c := range []struct {
		name string
		args []uint64
		want int
	}{
		{"init", []uint64{0, 0, tableElements}, 3},
		{"copy", []uint64{0, 0, tableSize}, 4},
		{"copy", []uint64{1, 0, tableSize - 1}, 4},
		{"across", []uint64{0, tablePiece, tableSize - tablePiece}, 3},
		{"fill", []uint64{0, 0, tableSize}, 4},
		{"grow", []uint64{1}, 1},
		{"grow", []uint64{math.MaxUint32}, 0}, // fails
	} {
		_, m, checks := instantiateBoth(t, tableModule(), pieceUnits-1)
		if c.name == "grow" {
			if results, err := m.ExportedFunction(c.name).Call(t.Context(), tablePiece); err != nil || results[0] != 0 {
				t.Fatal(results, err)
			}
		}
		// Full to begin with: what is left after any smaller charge is enough for the rest.
		m.ExportedGlobal(prepare.Fuel).(api.MutableGlobal).Set(pieceUnits - 1)
		*checks = 0
		if _, err := m.ExportedFunction(c.name).Call(t.Context(), c.args...); err != nil || *checks != c.want {
			t.Errorf("%s%v: %d checks, want %d; %v", c.name, c.args, *checks, c.want, err)
		}
	}
}

// A table grows to its bound and no further, and one that begins above it does not grow.
func TestTableGrowthIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limits []byte
		grow   []uint32
		want   []uint32
	}{
		{[]byte{0, 3}, []uint32{prepare.TableGrowMax - 2, prepare.TableGrowMax - 3, 0, 1}, []uint32{math.MaxUint32, 3, prepare.TableGrowMax, math.MaxUint32}},
		{[]byte{1, 3, 5}, []uint32{3, 2, 1}, []uint32{math.MaxUint32, 3, math.MaxUint32}},
		{binary.AppendUvarint([]byte{0}, prepare.TableMax), []uint32{0, 1}, []uint32{prepare.TableMax, math.MaxUint32}},
	} {
		_, m, _ := instantiateBoth(t, assemble(
			section(1, vec([]byte{0x60, 1, 0x7f, 1, 0x7f})),
			section(3, vec([]byte{0})),
			section(4, vec(cat([]byte{0x70}, c.limits))),
			section(7, vec(cat(str("grow"), []byte{0, 0}))),
			section(10, vec(fn(0xd0, 0x70, 0x20, 0, 0xfc, 15, 0))),
		), 1000)
		for i, n := range c.grow {
			if results, err := m.ExportedFunction("grow").Call(t.Context(), uint64(n)); err != nil || uint32(results[0]) != c.want[i] {
				t.Errorf("table of %v: growth by %d: %d %v, want %d", c.limits, n, results, err, int32(c.want[i]))
			}
		}
	}
}

// spinner is a module that runs one instruction for ever.
type spinner struct {
	name   string
	module []byte
}

// spinners run each instruction on a range for ever, on all of 64 MiB or of the largest table.
func spinners() []spinner {
	const loop, end, br = 0x03, 0x0b, 0x0c
	forever := func(code ...byte) []byte { return fn(cat([]byte{loop, 0x40}, code, []byte{br, 0, end})...) }
	memory := section(5, vec(cat([]byte{0}, binary.AppendUvarint(nil, 1024)))) // 64 MiB
	table := section(4, vec(cat([]byte{0x70, 0}, binary.AppendUvarint(nil, prepare.TableMax))))
	growing := section(4, vec([]byte{0x70, 0, 0}))
	mebi := func(n uint32) []byte { return constant(n << 20) }
	all, zero, null := constant(prepare.TableMax), constant(0), []byte{0xd0, 0x70}
	elements := binary.AppendUvarint(nil, prepare.TableMax) // of function 0
	elements = append(elements, make([]byte, prepare.TableMax)...)
	cases := []struct {
		name            string
		room            []byte // section of a memory or table
		code            []byte
		elements, bytes []byte // sections
	}{
		{"memory.fill", memory, forever(cat(zero, zero, mebi(64), []byte{0xfc, 11, 0})...), nil, nil},
		{"memory.copy forward", memory, forever(cat(zero, mebi(1), mebi(63), []byte{0xfc, 10, 0, 0})...), nil, nil},
		{"memory.copy backward", memory, forever(cat(mebi(1), zero, mebi(63), []byte{0xfc, 10, 0, 0})...), nil, nil},
		{"memory.init", memory, forever(cat(zero, zero, mebi(8), []byte{0xfc, 8, 0, 0})...), nil, section(11, vec(cat([]byte{1}, str(string(make([]byte, 8<<20))))))},
		{"memory.grow", memory, forever(0x41, 1, 0x40, 0, 0x1a), nil, nil},
		{"table.fill", table, forever(cat(zero, null, all, []byte{0xfc, 17, 0})...), nil, nil},
		{"table.copy", table, forever(cat(zero, zero, all, []byte{0xfc, 14, 0, 0})...), nil, nil},
		{"table.init", table, forever(cat(zero, zero, all, []byte{0xfc, 12, 0, 0})...), section(9, vec(cat([]byte{1, 0}, elements))), nil},
		{"table.grow by few", growing, forever(cat(null, []byte{0x41, 63, 0xfc, 15, 0, 0x1a})...), nil, nil},
		{"table.grow by all", growing, forever(cat(null, constant(prepare.TableGrowMax), []byte{0xfc, 15, 0, 0x1a})...), nil, nil},
	}
	spinning := []spinner{{"loop", assemble(section(1, vec(voidType())), section(3, vec([]byte{0})),
		section(7, vec(cat(str("_start"), []byte{0, 0}))), section(10, vec(forever())))}}
	for _, c := range cases {
		count := []byte(nil)
		if c.bytes != nil {
			count = section(12, []byte{1})
		}
		spinning = append(spinning, spinner{c.name, assemble(section(1, vec(voidType())), section(3, vec([]byte{0})), c.room,
			section(7, vec(cat(str("_start"), []byte{0, 0}))), c.elements, count, section(10, vec(c.code)), c.bytes)})
	}
	return spinning
}

// spin runs l, which spins, for limit. made is how long it took to get an instance, late how long after its
// time the function was over, with all that Invoke does then.
func spin(tb testing.TB, l *loaded, limit time.Duration) (made, late time.Duration) {
	tb.Helper()
	inv := &runtime.Invocation{Stdout: discard{}}
	start := time.Now()
	in, res := l.pool.get(l.f, inv)
	if in == nil {
		tb.Fatalf("%+v", res)
	}
	made = time.Since(start)
	inv.Deadline = start.Add(made + limit)
	res = in.invoke(l.f, inv)
	l.pool.end(in, res, inv)
	late = time.Since(inv.Deadline)
	if res.Reason != runtime.Timeout || late < 0 {
		tb.Errorf("%+v, %v late", res, late)
	}
	return made, late
}

// Every instruction on a range is interrupted when it runs for ever, also
// on memory that was never touched.
func TestDeadlineEndsBulkInstructions(t *testing.T) {
	t.Parallel()
	e := executor(t)
	for _, s := range spinners() {
		t.Run(s.name, func(t *testing.T) {
			l := load(t, e, &runtime.Function{Name: "bulk", Module: writeNamed(t, "bulk "+s.name, s.module), MemoryMB: 64})
			for range 3 {
				_, late := spin(t, l.(*loaded), 30*time.Millisecond)
				t.Logf("%v late", late)
			}
		})
	}
}
