package route

import (
	"cmp"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
)

// A shape says where a path with parameters has them. All such paths of a
// table have few shapes, so a lookup tries each shape that fits: it hashes the
// request's segments, with the parameters left out, and asks one hash index.
// There is no tree to copy when a path comes or goes, nor one whose branches
// multiply, and a path with parameters takes no more memory than a plain one.
// What it costs: one probe per shape of that many segments.
type shape struct {
	kinds  string // a segmentKind per segment: comparing two as texts compares how specific they are
	params uint32 // bit i: segment i is a parameter
	count  int    // routes that have it
}

func (s *shape) rest() bool { return s.kinds[len(s.kinds)-1] == byte(segmentRest) }

// shapes is what a table's paths with parameters have, the most specific
// first. Immutable.
type shapes []shape

// shapeOf is the shape of a path; empty for a plain one.
func shapeOf(path string) (kinds string) {
	if strings.IndexByte(path, '{') < 0 {
		return ""
	}
	var all [segmentsMax]byte
	n := 0
	for seg := range strings.SplitSeq(path[1:], "/") {
		if n == segmentsMax {
			return "" // no route's path: it is looked for among the plain ones, in vain
		}
		_, kind := parameter(seg)
		all[n] = byte(kind)
		n++
	}
	return string(all[:n])
}

// with adds count routes to a shape; at none left, the shape goes.
func (s shapes) with(kinds string, count int) shapes {
	next := slices.Clone(s)
	i, found := slices.BinarySearchFunc(next, kinds, func(s shape, kinds string) int { return cmp.Compare(s.kinds, kinds) })
	if !found {
		one := shape{kinds: kinds}
		for j := range len(kinds) {
			if kinds[j] == byte(segmentParam) {
				one.params |= 1 << j
			}
		}
		next = slices.Insert(next, i, one)
	}
	if next[i].count += count; next[i].count == 0 {
		next = slices.Delete(next, i, i+1)
	}
	return next
}

// segments is a request path cut up, once per lookup.
type segments struct {
	n      int    // all of them, also those beyond segmentsMax
	empty  uint32 // bit i: segment i is empty
	dots   uint32 // bit i: segment i is . or ..
	beyond bool   // a dot segment beyond segmentsMax
	hash   [segmentsMax]uint64
}

func (s *segments) cut(seed maphash.Seed, path []byte) {
	s.n, s.empty, s.dots, s.beyond = 0, 0, 0, false
	for start := 1; start <= len(path); s.n++ {
		end := start
		for end < len(path) && path[end] != '/' {
			end++
		}
		seg := path[start:end]
		start = end + 1
		if s.n >= segmentsMax {
			s.beyond = s.beyond || dots(seg)
			continue
		}
		s.hash[s.n] = maphash.Bytes(seed, seg)
		switch {
		case len(seg) == 0:
			s.empty |= 1 << s.n
		case dots(seg):
			s.dots |= 1 << s.n
		}
	}
}

// fits says whether the path's segments can have the shape at all.
func (s *segments) fits(one *shape) bool {
	if (s.empty|s.dots)&one.params != 0 {
		return false
	}
	if one.rest() {
		fixed := len(one.kinds) - 1
		return fixed < s.n && s.dots>>fixed == 0 && !s.beyond
	}
	return len(one.kinds) == s.n
}

// Stand for a parameter and for the rest in a shape's hash.
const hashParam, hashRest = 0x9e3779b97f4a7c15, 0xc2b2ae3d27d4eb4f

// hashShape is the hash of a path with one shape: of its plain segments and of
// the places of the others.
func (s *segments) hashShape(secret uint64, kinds string) uint64 {
	h := secret
	for i := range len(kinds) {
		switch segmentKind(kinds[i]) {
		case segmentParam:
			h = fold(h, hashParam)
		case segmentRest:
			h = fold(h, hashRest)
		default:
			h = fold(h, s.hash[i&(segmentsMax-1)])
		}
	}
	return h
}

// fold mixes one segment's hash into h. Both are secret, so nobody can aim at
// the few inputs for which a product mixes badly.
func fold(h, seg uint64) uint64 {
	high, low := bits.Mul64(h^seg, 0xa0761d6478bd642f^(seg<<32|seg>>32))
	return high ^ low ^ seg
}

// samePath says whether a route's path has the shape and its plain segments are
// those of the request's path. Which bytes a parameter takes is segments.fits'
// matter, as is the number of segments.
func samePath(pattern, kinds string, path []byte) bool {
	i, j := 1, 1 // where the next segments start
	for k := range len(kinds) {
		if len(pattern) < i || len(path) < j {
			return false
		}
		end := segmentEnd(pattern, i)
		_, kind := parameter(pattern[i:end])
		if kind != segmentKind(kinds[k]) {
			return false
		}
		if kind == segmentRest {
			return true
		}
		after := segmentEnd(path, j)
		if kind == segmentStatic && pattern[i:end] != string(path[j:after]) {
			return false
		}
		i, j = end+1, after+1
	}
	return len(pattern) < i && len(path) < j
}

// segmentEnd is where the segment that starts at i ends.
func segmentEnd[T string | []byte](path T, i int) int {
	for i < len(path) && path[i] != '/' {
		i++
	}
	return i
}

// sameRoute says whether two paths with parameters differ in the names of
// those at most.
func sameRoute(a, b string) bool {
	for {
		x, restA, moreA := strings.Cut(a, "/")
		y, restB, moreB := strings.Cut(b, "/")
		_, kindX := parameter(x)
		_, kindY := parameter(y)
		if kindX != kindY || kindX == segmentStatic && x != y || moreA != moreB {
			return false
		}
		if !moreA {
			return true
		}
		a, b = restA, restB
	}
}

// apply counts what comes and goes.
func (s shapes) apply(swaps []swap[*Function]) shapes {
	count := make(map[string]int)
	for _, c := range swaps {
		if c.old != nil {
			count[shapeOf(c.old.Path())]--
		}
		if c.new != nil {
			count[shapeOf(c.new.Path())]++
		}
	}
	for kinds, n := range count {
		if n != 0 {
			s = s.with(kinds, n)
		}
	}
	return s
}
