package prepare

import (
	"bytes"
	"slices"
	"testing"
)

// build makes a module of functions of type () → (), the last one exported as
// _start; each is given by its code without the end.
func build(functions ...[]byte) []byte {
	var bodies, types []byte
	for _, code := range functions {
		body := append(append([]byte{0}, code...), opEnd)
		bodies = append(appendU32(bodies, uint32(len(body))), body...)
		types = append(types, 0)
	}
	n := byte(len(functions))
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = appendSection(out, secType, []byte{1, 0x60, 0, 0})
	out = appendSection(out, secFunction, append([]byte{n}, types...))
	out = appendSection(out, secExport, append(appendName([]byte{1}, "_start"), kindFunc, n-1))
	return appendSection(out, secCode, append([]byte{n}, bodies...))
}

func nops(n int) []byte { return bytes.Repeat([]byte{0x01}, n) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Where checks stand, counted.
func TestChecksStandWhereTimeCanBeSpent(t *testing.T) {
	t.Parallel()
	call := func(f byte) []byte { return []byte{opCall, f} }
	spin := []byte{opLoop, blockEmpty, opBr, 0, opEnd}
	cases := []struct {
		name      string
		functions [][]byte
		want      int
	}{
		{"a short function has none", [][]byte{nops(10)}, 0},
		{"a long one has one at its entry", [][]byte{nops(leafMax + 1)}, 1},
		{"a loop has one for all copies", [][]byte{join([]byte{opBlock, blockEmpty}, spin, []byte{opEnd})}, 1},
		{"a loop with a call has one", [][]byte{nil, {opLoop, blockEmpty, opCall, 0, opBr, 0, opEnd}}, 1},
		{"nested loops have one each", [][]byte{{opLoop, blockEmpty, opLoop, blockEmpty, opBr, 1, opEnd, opEnd}}, 2},
		{"direct recursion has one", [][]byte{call(0)}, 1},
		{"mutual recursion has one in each", [][]byte{call(1), call(0), call(0)}, 2},
		{"recursion behind a loop header pays there", [][]byte{{opLoop, blockEmpty, opCall, 0, opEnd}}, 1},
		{"recursion before a loop needs its own", [][]byte{{opCall, 0, opLoop, blockEmpty, opCall, 0, opEnd}}, 2},
		// 1, 2, 4, … calls: those that run more than leafMax instructions check.
		{"a tree of calls", [][]byte{nops(40), join(call(0), call(0)), join(call(1), call(1)), join(call(2), call(2)), join(call(3), call(3)), join(call(4), call(4))}, 1},
	}
	for _, c := range cases {
		out, info, err := Rewrite(build(c.functions...), Options{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if info.Checks != c.want {
			t.Errorf("%s: %d checks, want %d", c.name, info.Checks, c.want)
		}
		if !info.Runnable || !info.Command || info.BytesAfter != len(out) {
			t.Errorf("%s: %+v", c.name, info)
		}
	}
}

// A module that stops anywhere, or has any one byte changed, is refused or
// rewritten, never a panic.
func TestBrokenModulesDoNoHarm(t *testing.T) {
	t.Parallel()
	module := build(nops(3), []byte{opLoop, blockEmpty, opCall, 0, opI32Const, 1, opBrIf, 0, opEnd, opBlock, blockEmpty, opI32Const, 0, opBrTable, 1, 0, 1, opEnd})
	if _, _, err := Rewrite(module, Options{}); err != nil {
		t.Fatal(err)
	}
	for i := range module {
		_, _, _ = Rewrite(module[:i], Options{})
		for _, c := range []byte{0, 1, 0x7f, 0x80, 0xff, module[i] ^ 1, module[i] + 1} {
			changed := bytes.Clone(module)
			changed[i] = c
			before := bytes.Clone(changed)
			_, _, _ = Rewrite(changed, Options{})
			if !bytes.Equal(before, changed) {
				t.Fatalf("byte %d: the input was written", i)
			}
		}
	}
}

func TestWhatIsPreparedIsNotPreparedAgain(t *testing.T) {
	t.Parallel()
	out, _, err := Rewrite(build(nil), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Rewrite(out, Options{}); err == nil {
		t.Error("no error")
	}
}

// Numbers are encoded as they are read.
func TestLEB128(t *testing.T) {
	t.Parallel()
	for _, v := range []uint32{0, 1, 127, 128, 16383, 16384, 1 << 31, 1<<32 - 1} {
		r := &reader{b: appendU32(nil, v)}
		if got := r.u32(); got != v || r.err != nil || r.more() {
			t.Errorf("%d: %d %v", v, got, r.err)
		}
	}
	for v, want := range map[int32]string{0: "\x00", 63: "\x3f", 64: "\xc0\x00", -64: "\x40", -65: "\xbf\x7f", 200000: "\xc0\x9a\x0c"} {
		if got := appendS32(nil, v); string(got) != want {
			t.Errorf("%d: %x, want %x", v, got, want)
		}
	}
	for _, b := range []string{"", "\x80", "\xff\xff\xff\xff\x1f", "\x80\x80\x80\x80\x80\x00"} {
		if r := (&reader{b: []byte(b)}); r.u32() != 0 || r.err == nil {
			t.Errorf("%x: no error", b)
		}
	}
}

func TestDataSegmentsAreMerged(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]int64{"\x41\x08\x0b": 8, "\x41\x80\x80\x04\x0b": 65536, "\x41\x7f\x0b": 1<<32 - 1, "\x23\x00\x0b": -1, "\x41\x08\x1a\x0b": -1, "\x41\x80": -1, "": -1} {
		if got, ok := constOffset([]byte(expr)); ok != (want >= 0) || ok && int64(got) != want {
			t.Errorf("%x: %d %t, want %d", expr, got, ok, want)
		}
	}
	at := func(n int32) []byte { return append(appendS32([]byte{opI32Const}, n), opEnd) }
	rw := &rewriter{module: &module{data: []segment{
		{offset: at(8), content: []byte("one")},
		{offset: at(12), content: []byte("two")},
		{offset: at(14), content: []byte("over")}, // overlaps: stays by itself
		{offset: at(18), content: []byte("!")},
		{passive: true, content: []byte("passive")},
		{offset: at(20), content: []byte("after")},
		{offset: at(10000), content: []byte("far")},
	}}}
	rw.merge()
	var got []string
	for _, s := range rw.data {
		got = append(got, string(s.content))
	}
	want := []string{"one\x00two", "over!", "passive", "after", "far"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
