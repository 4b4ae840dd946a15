package child

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// Functions are the loaded functions of one executor, which embeds them: their Close is its own. Safe for
// concurrent use.
type Functions struct {
	*Shared

	mu     sync.Mutex
	loaded map[*Function]bool // guarded by mu
}

// NewFunctions makes the functions of an executor: none yet.
func (o *Shared) NewFunctions() *Functions {
	return &Functions{Shared: o, loaded: map[*Function]bool{}}
}

// Add makes a function with a pool of its own. It starts nothing.
func (fs *Functions) Add(c Config) *Function {
	f := &Function{Pool: fs.NewPool(c), of: fs}
	fs.mu.Lock()
	fs.loaded[f] = true
	fs.mu.Unlock()
	return f
}

// Close implements runtime.Executor: it ends what functions that were not closed
// still have.
func (fs *Functions) Close() error {
	fs.mu.Lock()
	left := slices.Collect(maps.Keys(fs.loaded))
	fs.mu.Unlock()
	var wrong []error
	for _, f := range left {
		if err := f.Close(); !errors.Is(err, os.ErrClosed) { // closed meanwhile
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// Function is what the loaded functions of all kinds are: a pool that is closed once, and
// never run on an event loop. What a kind has of its own embeds it.
type Function struct {
	Pool *Pool

	of     *Functions
	closed atomic.Bool
}

// Inline implements runtime.Loaded: an invocation waits for another process.
func (f *Function) Inline() bool { return false }

// Close implements runtime.Loaded. Its error is that of Config.Gone, and os.ErrClosed from the second call on.
func (f *Function) Close() error {
	if f.closed.Swap(true) {
		return os.ErrClosed
	}
	f.Pool.Close()
	f.of.mu.Lock()
	delete(f.of.loaded, f)
	f.of.mu.Unlock()
	if gone := f.Pool.c.Gone; gone != nil {
		return gone()
	}
	return nil
}
