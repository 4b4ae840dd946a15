package wasm

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"baton/runtime"
	"baton/runtime/wasm/prepare"

	"github.com/tetratelabs/wazero"
)

// poolKey names what instances have in common.
type poolKey struct {
	module string // SHA-256 of the artifact
	memory int    // bytes
	files  string
	freeze bool
}

// pool holds the instances of one module. An instance is in idle, or with the
// goroutine that runs it.
type pool struct {
	executor *Executor
	key      poolKey

	// Set by load, immutable until unload; loading orders the two. Whoever has
	// an instance, or is counted as making one, may read them.
	loading  sync.Mutex
	file     string // of the native code
	code     int64  // bytes of it
	info     *prepare.Info
	compiled wazero.CompiledModule
	config   wazero.ModuleConfig
	root     *os.Root // of key.files

	image atomic.Pointer[pristine]
	used  atomic.Uint64 // the executor's count of uses at the last one

	users int // guarded by executor.mu

	restoring atomic.Int32 // instances that are put back beside what runs

	mu       sync.Mutex
	restored chan struct{} // closed when fewer are restoring; nil: nobody waits
	idle     []*instance   // the last used one last
	count    int           // of all instances
	live     bool          // the native code is loaded
	closed   bool
}

func randomSource() io.Reader { return rand.Reader }

// ready reports whether an instance is waiting.
func (p *pool) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) > 0
}

// get returns an instance, or nil and the result to answer. Making one takes
// long, so that inv is promoted before.
func (p *pool) get(f *runtime.Function, inv *runtime.Invocation) (*instance, runtime.Result) {
	if p.restoring.Load() > restoringMax {
		if result, ok := p.awaitRestored(f, inv); !ok {
			return nil, result
		}
	}
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		in := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		p.executor.kept.Add(-in.size())
		return in, runtime.Result{}
	}
	if p.closed || p.count >= p.executor.o.InstancesMax {
		p.mu.Unlock()
		return nil, runtime.Result{Reason: runtime.Unavailable, Detail: "as many instances as allowed are running"}
	}
	p.count++ // from here on, nobody unloads what is loaded
	live := p.live
	p.mu.Unlock()
	if inv.Promote != nil {
		promote := inv.Promote
		inv.Promote = nil
		promote()
	}
	var err error
	var in *instance
	if !live {
		err = p.load(context.Background())
	}
	if err == nil {
		in, err = p.newInstance(f, inv)
	}
	if err == nil {
		return in, runtime.Result{}
	}
	p.mu.Lock()
	p.count--
	last := p.over()
	p.mu.Unlock()
	if last {
		p.free()
	}
	var failed *initError
	if errors.As(err, &failed) {
		return nil, failed.result
	}
	if errors.Is(err, runtime.ErrNotPrepared) {
		return nil, runtime.Result{Reason: runtime.NotPrepared, Detail: err.Error()}
	}
	return nil, runtime.Result{Reason: runtime.Unavailable, Detail: err.Error()}
}

// warm makes the first instance, and with it the image that others start from,
// before somebody waits for it: without one, the first burst of requests would
// run the initialisation once for each. What fails here fails again, with its
// answer, in the first invocation. One is enough for all routes to the module, however
// many of them are loaded at once.
func (p *pool) warm(f *runtime.Function) {
	p.mu.Lock()
	n := p.count
	p.mu.Unlock()
	if n > 0 {
		return
	}
	if in, _ := p.get(f, &runtime.Invocation{}); in != nil {
		p.put(in, true, false)
	}
}

// restoringMax is how many instances of a pool may be put back beside what runs. While there
// are more, invocations wait for one before they begin, off the loop, so that
// what writes much cannot get ahead of the copying.
const restoringMax = 2

// end takes an instance back after an invocation: at once if that takes
// microseconds, otherwise on a goroutine of its own, which Executor.Close waits
// for, so that neither the answer nor the loop waits for megabytes to be copied or unmapped.
func (p *pool) end(in *instance, result runtime.Result, inv *runtime.Invocation) {
	if !in.heavy() {
		p.put(in, in.putBack(result), inv.Promote != nil && !in.promoted)
		return
	}
	p.restoring.Add(1)
	p.executor.beside.Add(1)
	go func() {
		defer p.executor.beside.Done()
		p.put(in, in.putBack(result), false)
		p.restoring.Add(-1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.restored != nil {
			close(p.restored)
			p.restored = nil
		}
	}()
}

// awaitRestored waits while more than restoringMax instances are put back. It returns
// false and what to answer when the invocation's time is over before.
func (p *pool) awaitRestored(f *runtime.Function, inv *runtime.Invocation) (runtime.Result, bool) {
	if inv.Promote != nil {
		promote := inv.Promote
		inv.Promote = nil
		promote()
	}
	deadline := inv.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(f.Limit())
	}
	timer := time.NewTimer(sleepStep)
	defer timer.Stop()
	for {
		p.mu.Lock()
		if p.restoring.Load() <= restoringMax {
			p.mu.Unlock()
			return runtime.Result{}, true
		}
		if p.restored == nil {
			p.restored = make(chan struct{})
		}
		restored := p.restored
		p.mu.Unlock()
		left := time.Until(deadline)
		switch {
		case inv.Cancel != nil && inv.Cancel.Load():
			return runtime.Result{Reason: runtime.Cancelled, Detail: "cancelled before it began"}, false
		case left <= 0:
			return runtime.Result{Reason: runtime.Timeout, Detail: "deadline passed while earlier invocations were put back"}, false
		}
		timer.Reset(min(left, sleepStep))
		select {
		case <-restored:
		case <-timer.C:
		}
	}
}

// put takes an instance back. onLoop: the caller is an event loop, and others are not closed here.
func (p *pool) put(in *instance, reusable, onLoop bool) {
	if reusable {
		e := p.executor
		p.mu.Lock()
		if !p.closed {
			in.idle = time.Time{}
			in.used = e.uses.Add(1)
			p.used.Store(in.used)
			p.idle = append(p.idle, in)
			kept := e.kept.Add(in.size())
			p.mu.Unlock()
			if kept > e.o.MemoryMax {
				e.evictFrom(onLoop)
			}
			return
		}
		p.mu.Unlock()
	}
	in.close()
	p.mu.Lock()
	p.count--
	last := p.over()
	p.mu.Unlock()
	if last {
		p.free()
	}
}

// over reports, once, that the pool is closed and nothing runs any more. The
// caller holds p.mu and calls free.
func (p *pool) over() bool {
	over := p.closed && p.count == 0 && p.live
	if over {
		p.live = false
	}
	return over
}

// close closes what is idle; what runs is closed when it ends, and the last
// one frees the rest.
func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.count -= len(idle)
	last := p.over()
	p.mu.Unlock()
	for _, in := range idle {
		p.executor.kept.Add(-in.size())
		in.close()
	}
	if last {
		p.free()
	}
}

// unload gives back the native code, the image and the idle instances, unless the
// function runs, loads, or has none.
func (p *pool) unload() {
	if !p.loading.TryLock() {
		return
	}
	defer p.loading.Unlock()
	p.mu.Lock()
	if !p.live || p.closed || p.count != len(p.idle) {
		p.mu.Unlock()
		return
	}
	idle := p.idle
	p.idle, p.count, p.live = nil, 0, false
	p.mu.Unlock()
	for _, in := range idle {
		p.executor.kept.Add(-in.size())
		in.close()
	}
	p.free()
}

// free gives back what the instances shared. None exists any more.
func (p *pool) free() {
	if im := p.image.Load(); im != nil && im.image != nil {
		im.image.close()
	}
	p.image.Store(nil)
	if p.compiled != nil {
		p.executor.files.unload(p.file, func() { _ = p.compiled.Close(context.Background()) })
		p.compiled = nil
		p.executor.code.Add(-p.code)
	}
	if p.root != nil {
		_ = p.root.Close()
		p.root = nil
	}
}

// instanceBytes is what an instance holds beside its memory and the references in its tables: wazero's
// structures and machine stack, roughly. referenceBytes is one of those.
const (
	instanceBytes  = 64 << 10
	referenceBytes = 8
)

// size is what an idle instance keeps from others, in bytes.
func (in *instance) size() int64 {
	n := int64(instanceBytes + in.elements*referenceBytes)
	if in.memory != nil {
		n += int64(in.memory.bytes)
	}
	if in.own != nil {
		for _, r := range in.own.data {
			n += int64(r.End - r.Start)
		}
	}
	return n
}

// Trim closes instances that have been idle for longer than idle. The worker
// calls it from time to time, off the loop; the first call after an instance
// became idle begins its time.
func (e *Executor) Trim(idle time.Duration) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pools {
		p.remove(func(in *instance) bool {
			if in.idle.IsZero() {
				in.idle = now
			}
			return now.Sub(in.idle) > idle
		})
	}
	e.evict()
}

// evictFrom evicts, on a goroutine of its own when the caller is an event loop; Executor.Close waits for it.
func (e *Executor) evictFrom(onLoop bool) {
	evict := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.evict()
	}
	if !onLoop {
		evict()
		return
	}
	if e.evicting.CompareAndSwap(false, true) {
		e.beside.Add(1)
		go func() {
			defer e.beside.Done()
			e.evicting.Store(false)
			evict()
		}()
	}
}

// evict closes the least recently used idle instances while all together
// keep more than Options.MemoryMax. The caller holds e.mu.
func (e *Executor) evict() {
	over := e.kept.Load() - e.o.MemoryMax
	if over <= 0 {
		return
	}
	type use struct {
		used uint64
		size int64
	}
	var uses []use
	for _, p := range e.pools {
		p.mu.Lock()
		for _, in := range p.idle {
			uses = append(uses, use{in.used, in.size()})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(uses, func(a, b use) int { return cmp.Compare(a.used, b.used) })
	last := uint64(0)
	for _, u := range uses {
		if over <= 0 {
			break
		}
		last = u.used
		over -= u.size
	}
	for _, p := range e.pools {
		p.remove(func(in *instance) bool { return in.used <= last })
	}
}

// remove closes the idle instances that which names.
func (p *pool) remove(which func(*instance) bool) {
	var closing []*instance
	p.mu.Lock()
	p.idle = slices.DeleteFunc(p.idle, func(in *instance) bool {
		if !which(in) {
			return false
		}
		closing = append(closing, in)
		return true
	})
	p.count -= len(closing)
	p.mu.Unlock()
	for _, in := range closing {
		p.executor.kept.Add(-in.size())
		in.close()
	}
}
