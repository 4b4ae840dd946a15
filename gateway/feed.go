package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"baton/route/sqlite"
)

const (
	// prunePeriod is how often the change log is looked at, and pruneKeep how
	// many of its entries stay, for a person who wonders: it holds no more than
	// that and what one period brings.
	prunePeriod = time.Minute
	pruneKeep   = 1000
)

// feed brings the rows of the database to the publisher, and keeps the change
// log short. follow and prune are a goroutine each.
type feed struct {
	path string
	sink sqlite.Sink
	log  *slog.Logger
	feed *sqlite.Feed
}

func openFeed(path string, sink sqlite.Sink, log *slog.Logger) (*feed, error) {
	f, err := sqlite.OpenFeed(path, sqlite.FeedOptions{})
	if err != nil {
		return nil, err
	}
	return &feed{path: path, sink: sink, log: log, feed: f}, nil
}

// follow hands rows on until ctx ends.
func (f *feed) follow(ctx context.Context) {
	if err := f.feed.Run(ctx, f.sink); err != nil && ctx.Err() == nil {
		// Its only way to end early is an error of the sink's, which has none.
		panic(fmt.Sprintf("gateway: the change feed ended: %v", err))
	}
}

// prune shortens the change log until ctx ends.
func (f *feed) prune(ctx context.Context) {
	tick := time.NewTicker(prunePeriod)
	defer tick.Stop()
	pruned := int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		upTo := f.feed.Seq() - pruneKeep
		if upTo <= pruned {
			continue
		}
		if err := f.pruneOnce(ctx, upTo); err != nil {
			if ctx.Err() == nil {
				f.log.Warn("the change log of the database is not pruned", "err", err)
			}
			continue
		}
		pruned = upTo
	}
}

func (f *feed) pruneOnce(ctx context.Context, upTo int64) (err error) {
	if _, err := os.Stat(f.path); err != nil {
		return err // Open would make a new one
	}
	db, err := sqlite.Open(f.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for more := true; more; {
		if more, err = db.Prune(ctx, upTo); err != nil {
			return err
		}
	}
	return nil
}
