package route

import (
	"slices"
)

// namesakes are the functions of one name that several rows share, ascending
// by key, in chunks: a change copies one chunk and the list of chunks, so a
// name on every row of a big table stays cheap. Immutable.
type namesakes struct {
	name   string
	n      int
	chunks [][]*Function // none empty
}

const chunkMax = 512 // functions in one chunk

func newNamesakes(name string, sorted []*Function) *namesakes {
	s := &namesakes{name: name, n: len(sorted)}
	for c := range slices.Chunk(sorted, chunkMax/2) {
		s.chunks = append(s.chunks, slices.Clip(slices.Clone(c)))
	}
	return s
}

func (s *namesakes) first() *Function { return s.chunks[0][0] }

func (s *namesakes) appendAll(to []*Function) []*Function {
	for _, c := range s.chunks {
		to = append(to, c...)
	}
	return to
}

// find is the chunk where f is or belongs, and its place there.
func (s *namesakes) find(f *Function) (chunk, at int) {
	chunk, found := slices.BinarySearchFunc(s.chunks, f, func(c []*Function, f *Function) int { return compareKeys(c[0], f) })
	if !found && chunk > 0 {
		chunk--
	}
	at, _ = slices.BinarySearchFunc(s.chunks[chunk], f, compareKeys)
	return chunk, at
}

func (s *namesakes) with(f *Function) *namesakes {
	i, at := s.find(f)
	chunk := slices.Insert(slices.Clone(s.chunks[i]), at, f)
	next := &namesakes{s.name, s.n + 1, slices.Clone(s.chunks)}
	next.chunks[i] = chunk
	if len(chunk) > chunkMax {
		next.chunks = slices.Replace(next.chunks, i, i+1, slices.Clone(chunk[:chunkMax/2]), slices.Clone(chunk[chunkMax/2:]))
	}
	return next
}

func (s *namesakes) without(f *Function) *namesakes {
	i, at := s.find(f)
	next := &namesakes{s.name, s.n - 1, slices.Clone(s.chunks)}
	chunk := slices.Delete(slices.Clone(s.chunks[i]), at, at+1)
	next.chunks[i] = chunk
	switch {
	case len(chunk) == 0:
		next.chunks = slices.Delete(next.chunks, i, i+1)
	case i > 0 && len(next.chunks[i-1])+len(chunk) <= chunkMax/4:
		next.chunks = slices.Replace(next.chunks, i-1, i+1, slices.Concat(next.chunks[i-1], chunk))
	}
	return next
}

// names finds functions by name: heads has the lowest key of each name, shared
// the names that have more than one row.
type names struct {
	heads  index[*Function]
	shared index[*namesakes]
}

// nameChange is what happens to one name in one batch.
type nameChange struct{ gone, come []*Function }

func (x *names) head(name string, h uint64) *Function {
	for f := range seq(&x.heads, h) {
		if f.Name == name {
			return f
		}
	}
	return nil
}

func (x *names) namesakes(name string, h uint64) *namesakes {
	for s := range seq(&x.shared, h) {
		if s.name == name {
			return s
		}
	}
	return nil
}

func seq[S comparable](ix *index[S], h uint64) func(func(S) bool) {
	return func(yield func(S) bool) { ix.each(h, yield) }
}

// apply makes the names that follow x.
func (x *names) apply(changes map[string]*nameChange, hash func(string) uint64) names {
	var heads []swap[*Function]
	var shared []swap[*namesakes]
	for name, c := range changes {
		h := hash(name)
		head, before := x.head(name, h), x.namesakes(name, h)
		newHead, after := c.apply(name, head, before)
		if head != newHead {
			heads = append(heads, swap[*Function]{h, head, newHead})
		}
		if before != after {
			shared = append(shared, swap[*namesakes]{h, before, after})
		}
	}
	return names{
		heads:  x.heads.apply(heads, func(f **Function) uint64 { return hash((*f).Name) }),
		shared: x.shared.apply(shared, func(s **namesakes) uint64 { return hash((*s).name) }),
	}
}

// apply makes the head and the namesakes (nil below two rows) that follow.
func (c *nameChange) apply(name string, head *Function, s *namesakes) (*Function, *namesakes) {
	const oneByOne = 64 // beyond, sorting all is cheaper
	if s != nil && len(c.gone)+len(c.come) <= oneByOne && s.n > len(c.gone)+1 {
		for _, f := range c.gone {
			s = s.without(f)
		}
		for _, f := range c.come {
			s = s.with(f)
		}
		return s.first(), s
	}
	var all []*Function
	switch {
	case s != nil:
		all = s.appendAll(nil)
	case head != nil:
		all = append(all, head)
	}
	if len(c.gone) > 0 {
		gone := make(map[*Function]bool, len(c.gone))
		for _, f := range c.gone {
			gone[f] = true
		}
		all = slices.DeleteFunc(all, func(f *Function) bool { return gone[f] })
	}
	all = append(all, c.come...)
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	}
	slices.SortFunc(all, compareKeys)
	return all[0], newNamesakes(name, all)
}
