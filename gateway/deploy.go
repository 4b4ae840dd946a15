package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"baton/deploy"
	"baton/route"
	"baton/route/sqlite"
)

// host is what deploys ask of this process. Any goroutine.
type host struct{ g *gateway }

var _ deploy.Host = host{}

// Prepare implements deploy.Host. What it says of a module names no path.
func (h host) Prepare(ctx context.Context, d *route.Descriptor) (release func(), err error) {
	path, err := route.ResolveModule(h.g.data.path, d.Module)
	if err != nil {
		return nil, err
	}
	release, err = h.g.publisher.hold(ctx, artifactOf(d, path))
	switch {
	case err == nil:
		return release, nil
	case errors.Is(err, ErrTemporary) || ctx.Err() != nil:
		return nil, errors.Join(deploy.ErrTemporary, err)
	}
	text := strings.ReplaceAll(err.Error(), "module "+path+": ", "")
	return nil, errors.New(strings.ReplaceAll(text, h.g.data.path+"/", ""))
}

// Check implements deploy.Host. Between it and the publication others may
// change the table: what it says spares a user the way back, no more.
func (h host) Check(changes []sqlite.KVChange) error {
	table := h.g.published.Load()
	batch := make([]route.Change, 0, len(changes))
	gone := map[string]bool{}
	for _, c := range changes {
		op := route.OpPut
		if c.Deleted {
			op = route.OpDelete
			gone[c.Key] = true
		}
		batch = append(batch, route.Change{Op: op, Row: route.Row{Key: c.Key, Value: c.Value}})
	}
	_, errs := table.Apply(table.Generation()+1, batch)
	if len(errs) > 0 {
		reason := deploy.NotServed
		if errors.Is(errs[0].Err, route.ErrShadowed) {
			reason = deploy.RouteTaken
		}
		return &deploy.Error{Reason: reason, Field: "path", Text: errs[0].Error()}
	}
	for _, c := range changes {
		if c.Deleted || table.Get(c.Key) != nil || !strings.Contains(c.Key, "{") {
			continue
		}
		// A route that differs from another one in its parameters' names only,
		// and sorts before it, would take its requests.
		for f := range table.All {
			if key := f.Key(); !gone[key] && sameShape(key, c.Key) {
				return &deploy.Error{Reason: deploy.RouteTaken, Field: "path", Text: fmt.Sprintf(
					"the route %s is that of %s, which names its parameters otherwise: %s", c.Key, f.Name, key)}
			}
		}
	}
	return nil
}

// sameShape says whether two keys differ in the names of parameters only.
func sameShape(a, b string) bool {
	for {
		i, j := strings.IndexByte(a, '{'), strings.IndexByte(b, '{')
		if i != j || i < 0 {
			return a == b
		}
		if a[:i] != b[:j] {
			return false
		}
		m, n := strings.IndexByte(a, '}'), strings.IndexByte(b, '}')
		if m < 0 || n < 0 || strings.HasSuffix(a[:m], "...") != strings.HasSuffix(b[:n], "...") {
			return false
		}
		a, b = a[m+1:], b[n+1:]
	}
}

// Published implements deploy.Host.
func (h host) Published(ctx context.Context, seq int64, keys []string) error {
	if err := h.g.feed.feed.Await(ctx, seq); err != nil {
		return err
	}
	err := h.g.publisher.served(ctx, keys)
	var row *errRow
	if errors.As(err, &row) {
		return fmt.Errorf("%w: %s: %s", deploy.ErrNotServed, row.Key, strings.ReplaceAll(row.Text, h.g.data.path+"/", ""))
	}
	return err
}
