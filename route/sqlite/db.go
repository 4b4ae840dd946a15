package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// KV is one row of functions.
type KV struct {
	Key   string // "METHOD:/path"
	Value string // the descriptor as JSON
}

// KVChange is what one row is now.
type KVChange struct {
	KV
	Deleted bool // there is no such row; Value is empty
}

// ErrNoRow is what Delete answers when there is no such row.
var ErrNoRow = errors.New("no such row")

// busyWrite is how long a writer waits for another process's transaction.
const busyWrite = 5 * time.Second

// The text of a row, whatever SQLite holds it as. A key is read up to 4,096
// characters, a value up to 64 KiB and one: what is longer is no route's, and is
// refused there by its length. It bounds what a foreign writer can make us hold.
const selectKV = "SELECT substr(k, 1, 4096), coalesce(CAST(substr(v, 1, 65537) AS TEXT), '') FROM functions WHERE typeof(k) = 'text'"

// DB reads and writes rows. It is safe for concurrent use: callers take turns.
type DB struct {
	path string
	turn chan connection // whose receive succeeds has the turn
}

type connection struct {
	h      *handle // nil: to be opened
	closed bool    // by Close
}

// Open opens the database at path, and creates it (0600, with its schema) when
// there is none. The folder must exist.
func Open(path string) (*DB, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := &DB{path: path, turn: make(chan connection, 1)}
	h, err := db.open(context.Background())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.turn <- connection{h: h}
	return db, nil
}

// OpenLater is for a file that may not be there, or not be readable, yet: each
// call opens it until one has. It creates no file.
func OpenLater(path string) *DB {
	db := &DB{path: path, turn: make(chan connection, 1)}
	db.turn <- connection{}
	return db
}

func (db *DB) open(ctx context.Context) (*handle, error) {
	h, err := openHandle(ctx, db.path, busyWrite)
	if err != nil {
		return nil, err
	}
	if err := h.ensureSchema(ctx); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// Close ends the connection; later calls answer os.ErrClosed.
func (db *DB) Close() error {
	c := <-db.turn
	db.turn <- connection{closed: true}
	if c.closed {
		return os.ErrClosed
	}
	if c.h != nil {
		c.h.close()
	}
	return nil
}

// do gives f the connection for its turn. A file that was replaced since is
// opened anew first: what is acknowledged has to be in the file that the path
// leads to.
func (db *DB) do(ctx context.Context, what string, f func(*handle) error) (err error) {
	var c connection
	select {
	case c = <-db.turn:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	defer func() { db.turn <- c }()
	if c.closed {
		return fmt.Errorf("%s: %w", what, os.ErrClosed)
	}
	if c.h != nil {
		if err := c.h.current(); err == errReplaced {
			c.h.close()
			c.h = nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if c.h == nil {
		if c.h, err = db.open(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if err := classify(f(c.h)); err != nil {
		if !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNoRow) && !errors.Is(err, ErrChanged) {
			// It may be broken, by a context that ended in mid-statement, say.
			c.h.close()
			c.h = nil
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Put inserts or replaces one row, durably.
func (db *DB) Put(ctx context.Context, key, value string) error {
	_, err := db.Apply(ctx, []KVChange{{KV: KV{key, value}}})
	return err
}

// Delete removes one row, durably, or answers ErrNoRow.
func (db *DB) Delete(ctx context.Context, key string) error {
	return db.do(ctx, "delete row", func(h *handle) error {
		return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
			result, err := h.conn.ExecContext(ctx, "DELETE FROM functions WHERE k = ?", key)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n == 0 {
				return errors.Join(ErrNoRow, err)
			}
			return nil
		})
	})
}

// Apply does all changes in one transaction, in their order, or none. When it
// returns without error they are on the disk. seq is the place of the last of
// them in the change log: a Feed whose Seq is not less has given them to its
// sink. The rows are not checked: route.ParseRow does that.
func (db *DB) Apply(ctx context.Context, changes []KVChange) (seq int64, err error) {
	err = db.do(ctx, "change rows", func(h *handle) error {
		return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
			if err := h.apply(ctx, changes); err != nil {
				return err
			}
			var err error
			seq, err = h.head(ctx)
			return err
		})
	})
	return seq, err
}

// apply changes rows, inside a transaction.
func (h *handle) apply(ctx context.Context, changes []KVChange) error {
	for _, c := range changes {
		var err error
		if c.Deleted {
			_, err = h.conn.ExecContext(ctx, "DELETE FROM functions WHERE k = ?", c.Key)
		} else {
			_, err = h.conn.ExecContext(ctx, `INSERT INTO functions(k, v, updated) VALUES (?, ?, unixepoch())
				ON CONFLICT(k) DO UPDATE SET v = excluded.v, updated = excluded.updated`, c.Key, c.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// head is the newest place in the change log.
func (h *handle) head(ctx context.Context) (seq int64, err error) {
	err = h.conn.QueryRowContext(ctx, "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'baton_changes'").Scan(&seq)
	return seq, err
}

// Get reads one row's value.
func (db *DB) Get(ctx context.Context, key string) (value string, found bool, err error) {
	err = db.do(ctx, "get row", func(h *handle) error {
		err := h.conn.QueryRowContext(ctx, selectKV+" AND k = ?", key).Scan(new(string), &value)
		found = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return value, found, err
}

// List reads up to limit rows with keys after that one, ascending.
func (db *DB) List(ctx context.Context, after string, limit int) (rows []KV, err error) {
	err = db.do(ctx, "list rows", func(h *handle) error {
		return h.query(ctx, func(r *sql.Rows) error {
			var kv KV
			if err := r.Scan(&kv.Key, &kv.Value); err != nil {
				return err
			}
			rows = append(rows, kv)
			return nil
		}, selectKV+" AND k > ? ORDER BY k LIMIT ?", after, limit)
	})
	return rows, err
}

// pruneStep bounds how long one Prune keeps other writers waiting.
const pruneStep = 10_000

// Prune removes the oldest entries of the change log, up to and without upTo,
// at most 10,000 of them; more says that there are more. A feed that has not
// come so far notices and reads all rows again.
func (db *DB) Prune(ctx context.Context, upTo int64) (more bool, err error) {
	err = db.do(ctx, "prune change log", func(h *handle) error {
		return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
			result, err := h.conn.ExecContext(ctx, `DELETE FROM baton_changes WHERE seq < ? AND seq <
				(SELECT min(seq) FROM baton_changes) + ?`, upTo, pruneStep)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			more = n >= pruneStep
			return err
		})
	})
	return more, err
}
