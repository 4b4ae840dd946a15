package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// hold has an artifact prepared and keeps it so until release is called, so
// that a row that names it is published without waiting. Any goroutine; not for
// the publisher's own.
//
// An error is the preparer's, or ctx's, and there is nothing to release then.
func (p *publisher) hold(ctx context.Context, a Artifact) (release func(), err error) {
	verdict := make(chan error, 1)
	var held *artifact
	p.ask(func() { held = p.onHold(a, verdict) })
	release = func() { p.post(func() { p.onRelease(held, verdict) }) }
	select {
	case err = <-verdict:
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.stopped:
		return nil, context.Canceled
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// onHold is hold on the publisher's goroutine.
func (p *publisher) onHold(key Artifact, verdict chan error) *artifact {
	a := p.artifacts[key]
	if a == nil {
		a = &artifact{Artifact: key}
		p.artifacts[key] = a
	}
	a.uses++
	s, err := stampOf(key.Path)
	switch {
	case err != nil:
		verdict <- fmt.Errorf("module %s: %w", key.Path, err)
	case a.stamp == s && a.state == artifactReady:
		verdict <- nil
	case a.stamp == s && a.state == artifactFailed && a.pause == 0:
		verdict <- a.err
	default:
		a.held = append(a.held, verdict)
		if a.state != artifactRunning {
			a.pause = 0
			p.enqueue(a, s)
		}
	}
	return a
}

func (p *publisher) onRelease(a *artifact, verdict chan error) {
	if i := slices.Index(a.held, verdict); i >= 0 {
		a.held = slices.Delete(a.held, i, i+1)
	}
	p.release(a)
}

// tellHeld says how the preparation of a ended.
func (a *artifact) tellHeld() {
	for _, verdict := range a.held {
		verdict <- a.err // has room: each is told once
	}
	a.held = nil
}

// errRow is a row that is not served as it is written.
type errRow struct{ Problem }

func (e *errRow) Error() string { return e.Key + ": " + e.Text }

// served waits until the rows with these keys, as far as they have been handed
// in, are served at every worker and here, or are gone. An *errRow says which is
// not served as it is written.
func (p *publisher) served(ctx context.Context, keys []string) error {
	w := &keysWaiter{keys: keys, done: make(chan struct{})}
	p.post(func() { p.keyed = append(p.keyed, w) })
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err() // w stays until its rows are settled, and is bounded by them
	case <-p.stopped:
		return context.Canceled
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, key := range keys {
		if problem, bad := p.view.problems[key]; bad {
			errs = append(errs, &errRow{problem})
		}
	}
	return errors.Join(errs...)
}

// keysWaiter waits for some rows.
type keysWaiter struct {
	keys []string
	done chan struct{}
}

// tellKeyed wakes who waits for rows that are settled.
func (p *publisher) tellKeyed() {
	p.keyed = slices.DeleteFunc(p.keyed, func(w *keysWaiter) bool {
		for _, key := range w.keys {
			if r := p.rows[key]; r != nil && r.state != rowSettled {
				return false
			}
		}
		close(w.done)
		return true
	})
}
