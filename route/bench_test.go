package route

import (
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"slices"
	"testing"
	"time"
)

// A route as a deploy writes it: the uuid is the function's id. The numbers
// are mixed so that neighbours have nothing in common.
func benchID(i int) string {
	x := uint64(i+1) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	y := x * 0xbf58476d1ce4e5b9
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", uint32(x>>32), uint16(x>>16), x&0xfff, y>>52, y&0xffffffffffff)
}

func benchRow(i int) Row {
	id := benchID(i)
	return Row{
		Key: "POST:/api/" + id,
		Value: fmt.Sprintf(`{"name":"function-%d","runtime":"wasm","module":"functions/%s/1/module.wasm","handler":"handle","memory":128,"timeout":5,"method":"POST"}`,
			i, id),
		Cell: uint32(i),
	}
}

func benchRows(n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = benchRow(i)
	}
	return rows
}

func benchTable(tb testing.TB, n int) *Table {
	t, errs := Build(1, benchRows(n))
	if len(errs) > 0 {
		tb.Fatal(errs[0])
	}
	goruntime.GC()
	return t
}

const benchPathLen = len("/api/") + 36

// benchPaths are the paths from..to-1, at least 64Ki of them, shuffled, one
// after the other: read in this order they cost next to no cache misses of
// their own.
func benchPaths(from, to int) []byte {
	var paths []byte
	for len(paths) < 1<<16*benchPathLen {
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(to - from) {
			paths = append(append(paths, "/api/"...), benchID(from+i)...)
		}
	}
	return paths
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			t := benchTable(b, n)
			for _, c := range []struct {
				name     string
				from, to int
				verdict  Verdict
			}{{"hit", 0, n, Found}, {"miss", n, 2 * n, NotFound}} {
				paths := benchPaths(c.from, c.to)
				b.Run(c.name, func(b *testing.B) {
					var m Match
					at, method := 0, []byte("POST")
					b.ReportAllocs()
					for b.Loop() {
						if t.Lookup(&m, method, paths[at:at+benchPathLen]) != c.verdict {
							b.Fatal(c.verdict)
						}
						if at += benchPathLen; at == len(paths) {
							at = 0
						}
					}
				})
			}
		})
	}
}

// BenchmarkScale holds the promise about size: lookups in a million routes
// against the same in a hundred, hits, misses, and both at random, in rounds
// that alternate. It reports the first quartile of the rounds' times, and the
// ratio of those: a round in which the machine was busy elsewhere says nothing.
func BenchmarkScale(b *testing.B) {
	const big, rounds, calls = 1_000_000, 40, 20_000
	tables := [2]*Table{benchTable(b, 100), benchTable(b, big)}
	hits := [2][]byte{benchPaths(0, 100), benchPaths(0, big)}
	misses := benchPaths(big, 2*big)
	method := []byte("POST")
	r := rand.New(rand.NewPCG(3, 4))
	found := make([]bool, calls)
	for _, kind := range []string{"hit", "miss", "both"} {
		b.Run(kind, func(b *testing.B) {
			var times [2][]float64
			var m Match
			at := 0
			for b.Loop() {
				for range rounds {
					for i := range found {
						found[i] = kind == "hit" || kind == "both" && r.IntN(2) == 0
					}
					from := at
					for size, t := range tables {
						h := hits[size][from%(len(hits[size])-calls*benchPathLen)/benchPathLen*benchPathLen:]
						ms := misses[from%(len(misses)-calls*benchPathLen)/benchPathLen*benchPathLen:]
						i := 0
						start := time.Now()
						for _, hit := range found {
							path := ms[i : i+benchPathLen]
							if hit {
								path = h[i : i+benchPathLen]
							}
							if (t.Lookup(&m, method, path) == Found) != hit {
								b.Fatal("wrong verdict")
							}
							i += benchPathLen
						}
						times[size] = append(times[size], float64(time.Since(start).Nanoseconds())/calls)
					}
					at = from + calls*benchPathLen
				}
			}
			for i := range times {
				slices.Sort(times[i])
			}
			q := len(times[0]) / 4
			b.ReportMetric(times[0][q], "ns/100")
			b.ReportMetric(times[1][q], "ns/1M")
			b.ReportMetric(times[1][q]/times[0][q], "ratio")
		})
	}
}

// BenchmarkPublish: one change into a table of that many routes.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			t := benchTable(b, n)
			i := 0
			for b.Loop() {
				i++
				next, errs := t.Apply(uint64(i), []Change{{OpPut, benchRow(n + i)}, {OpDelete, Row{Key: benchRow(i % n).Key}}}[i%2:][:1])
				if len(errs) > 0 {
					b.Fatal(errs)
				}
				t = next
			}
		})
	}
}

// BenchmarkHeap reports the bytes of heap per route, key and descriptor
// included, once the rows are gone.
func BenchmarkHeap(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			var before, after goruntime.MemStats
			for b.Loop() {
				goruntime.GC()
				goruntime.ReadMemStats(&before)
				t, errs := Build(1, benchRows(n))
				if len(errs) > 0 {
					b.Fatal(errs)
				}
				goruntime.GC()
				goruntime.GC()
				goruntime.ReadMemStats(&after)
				goruntime.KeepAlive(t)
			}
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/route")
		})
	}
}
