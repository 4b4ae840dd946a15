package route

import (
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"testing"
)

type indexed struct{ key string }

// TestIndexGrowsAndShrinks: an index follows a map through growth, churn and
// shrinking, at sizes around each split and join, and gives its memory back.
func TestIndexGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	hash := func(e *indexed) uint64 { return maphash.String(seed, e.key) }
	hashSlot := func(e **indexed) uint64 { return hash(*e) }
	r := rand.New(rand.NewPCG(1, 2))
	var ix index[*indexed]
	all := map[string]*indexed{}
	check := func() {
		t.Helper()
		if ix.n != len(all) {
			t.Fatalf("%d elements, want %d", ix.n, len(all))
		}
		for _, e := range all {
			n := 0
			for x := range seq(&ix, hash(e)) {
				if x == e {
					n++
				}
			}
			if n != 1 {
				t.Fatalf("%s is there %d times", e.key, n)
			}
		}
		n := 0
		for e := range ix.all {
			if all[e.key] != e {
				t.Fatalf("%s is there still", e.key)
			}
			n++
		}
		if n != len(all) {
			t.Fatalf("%d elements in all", n)
		}
	}
	for _, step := range []struct{ add, remove int }{{1, 0}, {3, 1}, {600, 0}, {1, 600}, {20_000, 0}, {1, 1}, {500, 500}, {0, 12_000}, {0, 1}, {0, 8000}, {5, 0}, {0, 1 << 30}, {1, 0}} {
		for range 3 {
			var swaps []swap[*indexed]
			for _, e := range all {
				if len(swaps) == step.remove {
					break
				}
				swaps = append(swaps, swap[*indexed]{hash(e), e, nil})
				delete(all, e.key)
			}
			for range step.add {
				e := &indexed{strconv.Itoa(r.Int())}
				all[e.key] = e
				swaps = append(swaps, swap[*indexed]{hash(e), nil, e})
			}
			ix = ix.apply(swaps, hashSlot)
			check()
		}
	}
	if len(ix.cells) > 2 {
		t.Errorf("%d cells for %d elements", len(ix.cells), ix.n)
	}
}

// TestCandidates: a slot is marked exactly when its tag is equal.
func TestCandidates(t *testing.T) {
	t.Parallel()
	for range 100_000 {
		tags := rand.Uint64()
		for i := range 8 {
			if rand.IntN(3) == 0 {
				tags &^= 0xff << (8 * i)
				tags |= uint64(rand.IntN(3)) << (8 * i)
			}
		}
		tag := 1 + uint64(rand.IntN(255))
		if rand.IntN(2) == 0 {
			tag = 1 + uint64(rand.IntN(2))
		}
		marks := candidates(tags, tag)
		for i := range slotsPerGroup {
			if marked := marks>>(8*i+7)&1 == 1; marked != (tags>>(8*i)&0xff == tag) {
				t.Fatalf("tags %#x, tag %#x: %#x", tags, tag, marks)
			}
		}
		if marks&^tagHighs != 0 {
			t.Fatalf("tags %#x, tag %#x: %#x", tags, tag, marks)
		}
	}
}
