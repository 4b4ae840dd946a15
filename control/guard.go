package control

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// The answer to a wrong token waits guardDelayMin after the first and twice
	// as long after each further one, up to guardDelayMax. With 256 random bits
	// the delay guards no secret; it keeps guessing from costing us anything,
	// and a token that somebody chose from being tried fast.
	guardDelayMin = 100 * time.Millisecond
	guardDelayMax = 3200 * time.Millisecond
	// guardForget after the last failure a source starts afresh.
	guardForget = time.Minute
	// guardSourcesMax bounds the sources that are told apart (about 100 bytes
	// each); the ones above it are counted as one.
	guardSourcesMax = 1024
	// guardWaitingSourceMax answers may wait for one source. A further attempt
	// from there is answered 429, right or wrong.
	guardWaitingSourceMax = 4
	// guardWaitingMax answers may wait in all, a quarter of connsMax. Above it a
	// wrong token is answered 429 at once; a right one still passes, so that
	// nobody can lock the owner out.
	guardWaitingMax = 64
)

// guard slows those down who present wrong tokens. Time comes from the caller.
type guard struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*source
	waiting int
}

type source struct {
	failures int
	last     time.Time
	waiting  int
}

// sourceOf is what counts as one source: an IPv4 address, an IPv6 network of
// 64 bits, or the zero prefix for everything else.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// allow says whether an attempt from p is looked at at all.
func (g *guard) allow(p netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[p]
	return s == nil || s.waiting < guardWaitingSourceMax
}

// fail records a wrong token from p. When held is not nil, the answer is to be
// held back for delay and then released with done; otherwise it is 429 at
// once, with delay as the time to retry after.
func (g *guard) fail(p netip.Prefix, now time.Time) (delay time.Duration, held *source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.source(p, now)
	if now.Sub(s.last) > guardForget {
		s.failures = 0
	}
	delay = guardDelayMin
	for range s.failures {
		if delay *= 2; delay >= guardDelayMax {
			delay = guardDelayMax
			break
		}
	}
	s.failures++
	s.last = now
	if g.waiting >= guardWaitingMax || s.waiting >= guardWaitingSourceMax {
		return delay, nil
	}
	g.waiting++
	s.waiting++
	return delay, s
}

// done ends the wait that fail asked for.
func (g *guard) done(held *source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	held.waiting--
}

// source finds or makes the entry of p, forgetting old ones at the bound.
func (g *guard) source(p netip.Prefix, now time.Time) *source {
	if s := g.sources[p]; s != nil {
		return s
	}
	if g.sources == nil {
		g.sources = map[netip.Prefix]*source{{}: {}}
	}
	if len(g.sources) >= guardSourcesMax {
		for q, s := range g.sources {
			if s.waiting == 0 && now.Sub(s.last) > guardForget && q.IsValid() {
				delete(g.sources, q)
			}
		}
	}
	if len(g.sources) >= guardSourcesMax {
		return g.sources[netip.Prefix{}]
	}
	s := &source{}
	g.sources[p] = s
	return s
}
