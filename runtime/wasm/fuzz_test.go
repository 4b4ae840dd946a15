package wasm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"baton/runtime/wasm/prepare"
)

// FuzzRewrite: the pass never panics, its output validates when its input
// does, and it is a function: the same bytes come out twice.
func FuzzRewrite(f *testing.F) {
	f.Add(assemble())
	f.Add(command(nil, [][]byte{section(3, vec([]byte{0})), section(7, vec(cat(str("_start"), []byte{0, 0})))}))
	// A loop with a branch out of two blocks, a call, a table, a data segment, bulk instructions.
	f.Add(assemble(
		section(1, vec(voidType())),
		section(2, vec(cat(str("wasi_snapshot_preview1"), str("sched_yield"), []byte{0, 0}))),
		section(3, vec([]byte{0}, []byte{0})),
		section(4, vec([]byte{0x70, 0, 2})),
		section(5, vec([]byte{0, 1})),
		section(6, vec([]byte{0x7f, 1, 0x41, 7, 0x0b}, []byte{0x70, 1, 0xd2, 1, 0x0b})),
		section(7, vec(cat(str("_start"), []byte{0, 1}))),
		section(8, []byte{2}),
		section(9, vec([]byte{0, 0x41, 0, 0x0b, 1, 2})),
		section(12, []byte{2}),
		section(10, vec(
			fn(0x02, 0x40, 0x03, 0x40, 0x41, 0, 0x0d, 1, 0x41, 1, 0x0d, 0, 0x10, 2, 0x0b, 0x0b, 0x41, 0, 0x11, 0, 0),
			fn(0x03, 0x40, 0x41, 1, 0x41, 2, 0x41, 3, 0xfc, 0x0b, 0, 0x41, 1, 0x41, 2, 0x41, 3, 0xfc, 0x0a, 0, 0, 0x23, 0, 0x0e, 1, 0, 1, 0x0b,
				0x41, 0, 0x41, 0, 0x41, 1, 0xfc, 0x08, 1, 0, 0xfc, 0x09, 1, 0x41, 0, 0xd0, 0x70, 0x26, 0))),
		section(11, vec(cat([]byte{0, 0x41, 8, 0x0b}, str("data")), cat([]byte{1}, str("more")))),
	))
	if files, err := filepath.Glob(filepath.Join(specDir(f), "v2", "testdata", "*.0.wasm")); err == nil {
		for _, file := range files {
			if module, err := os.ReadFile(file); err == nil && len(module) < 4096 {
				f.Add(module)
			}
		}
	}
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, module []byte) {
		out, info, err := rewrite(module)
		if err != nil {
			return
		}
		again, _, err := rewrite(module)
		if err != nil || string(again) != string(out) {
			t.Fatal("another result at the second time")
		}
		if info.BytesAfter != len(out) {
			t.Errorf("%d bytes, reported %d", len(out), info.BytesAfter)
		}
		if len(module) > 1<<16 || validate(ctx, module) != nil {
			return
		}
		if err := validate(ctx, out); err != nil {
			t.Fatalf("valid before, after: %v", err)
		}
		skeleton, err := prepare.Skeleton(out, nil)
		if err != nil {
			t.Fatalf("skeleton: %v", err)
		}
		if err := validate(ctx, skeleton); err != nil {
			t.Fatalf("valid, without its code: %v", err)
		}
		var r *RefusedError
		if _, _, err := prepare.Rewrite(out, prepare.Options{}); err == nil || errors.As(err, &r) {
			t.Error("what is prepared was prepared again")
		}
	})
}
