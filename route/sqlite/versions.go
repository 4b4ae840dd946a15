package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// The tables of deployed functions and their versions. They hold what cannot be
// made again, so one that is there is never dropped, whatever its text.
//
// A version is 'making' from when its number is taken until its row is switched:
// its folder may be there, and nothing names it. It is 'kept' from then on, and
// 'dropped' when only its folder is left, to be removed at until.
var tables = []struct{ name, sql string }{
	{"baton_functions", `CREATE TABLE baton_functions(id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, next INTEGER NOT NULL)`},
	{"baton_versions", `CREATE TABLE baton_versions(id TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL,
	k TEXT, v TEXT, descriptor TEXT, source TEXT, digest TEXT, size INTEGER, created INTEGER, active INTEGER NOT NULL DEFAULT 0, until INTEGER,
	PRIMARY KEY(id, version))`},
}

// ErrChanged says that a row is not what a Switch expected: somebody was faster.
var ErrChanged = errors.New("a row was changed by somebody else")

// Deployed is a function that was deployed, and not only written as a row.
type Deployed struct {
	ID       string
	Name     string
	Versions []FunctionVersion // those that are kept, ascending by number
}

// Active is the version whose row serves, or nil.
func (d *Deployed) Active() *FunctionVersion {
	for i := range d.Versions {
		if d.Versions[i].Active {
			return &d.Versions[i]
		}
	}
	return nil
}

// FunctionVersion is one kept version of a deployed function.
type FunctionVersion struct {
	Number     int
	Row        KV     // what is in the functions table while it is active
	Descriptor string // JSON, as it was given
	Source     string // digest of what it was built of
	Digest     string // of its files
	Size       int64  // of its files, in bytes
	Created    time.Time
	Active     bool
}

// Folder names the files of one version that nothing names any more.
type Folder struct {
	ID     string
	Number int
}

// Drop is a version that is not kept any longer.
type Drop struct {
	Number int
	Until  time.Time // when its files may go
}

// Switch is what one transaction makes of a deployed function and of the rows.
type Switch struct {
	ID     string
	Expect []KVChange       // what rows must be before, or ErrChanged
	Rows   []KVChange       // what they become, in this order
	New    *FunctionVersion // was reserved, and is kept from now on; nil: none
	Active int              // the number of the version that serves from now on; 0: none
	Drop   []Drop
	Forget bool // there is no such function any more
}

const selectVersion = `SELECT version, coalesce(k, ''), coalesce(v, ''), coalesce(descriptor, ''), coalesce(source, ''), coalesce(digest, ''),
	coalesce(size, 0), coalesce(created, 0), active FROM baton_versions`

// Deployed reads a function by its name, or answers ErrNoRow.
func (db *DB) Deployed(ctx context.Context, name string) (d Deployed, err error) {
	err = db.do(ctx, "read function", func(h *handle) error {
		return h.transact(ctx, "BEGIN", func() error {
			err := h.conn.QueryRowContext(ctx, "SELECT id, name FROM baton_functions WHERE name = ?", name).Scan(&d.ID, &d.Name)
			if errors.Is(err, sql.ErrNoRows) {
				return ErrNoRow
			} else if err != nil {
				return err
			}
			return h.query(ctx, func(r *sql.Rows) error {
				var v FunctionVersion
				var created int64
				if err := r.Scan(&v.Number, &v.Row.Key, &v.Row.Value, &v.Descriptor, &v.Source, &v.Digest, &v.Size, &created, &v.Active); err != nil {
					return err
				}
				v.Created = time.UnixMilli(created)
				d.Versions = append(d.Versions, v)
				return nil
			}, selectVersion+" WHERE id = ? AND state = 'kept' ORDER BY version", d.ID)
		})
	})
	if err == nil && len(d.Versions) == 0 {
		err = fmt.Errorf("read function: %w", ErrNoRow) // its first version is being made
	}
	return d, err
}

// Summary is what a list says of a deployed function.
type Summary struct {
	ID, Name string
	Version  int // that serves; 0: none
	Versions int // how many are kept
}

// AllDeployed lists the deployed functions by name.
func (db *DB) AllDeployed(ctx context.Context) (all []Summary, err error) {
	err = db.do(ctx, "list functions", func(h *handle) error {
		return h.query(ctx, func(r *sql.Rows) error {
			var s Summary
			if err := r.Scan(&s.ID, &s.Name, &s.Version, &s.Versions); err != nil {
				return err
			}
			all = append(all, s)
			return nil
		}, `SELECT f.id, f.name, coalesce(max(CASE WHEN v.active THEN v.version END), 0), count(*) FROM baton_functions f
			JOIN baton_versions v ON v.id = f.id AND v.state = 'kept' GROUP BY f.id ORDER BY f.name`)
	})
	return all, err
}

// Reserve takes the next version number of the function with that name, which
// gets the id when there is none yet. What is reserved and never switched to is
// among the next start's Leftovers.
func (db *DB) Reserve(ctx context.Context, name, id string, now time.Time) (known string, number int, err error) {
	err = db.do(ctx, "reserve version", func(h *handle) error {
		return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
			if _, err := h.conn.ExecContext(ctx, "INSERT INTO baton_functions(id, name, next) VALUES (?, ?, 1) ON CONFLICT(name) DO NOTHING", id, name); err != nil {
				return err
			}
			if err := h.conn.QueryRowContext(ctx, "UPDATE baton_functions SET next = next + 1 WHERE name = ? RETURNING id, next - 1", name).
				Scan(&known, &number); err != nil {
				return err
			}
			_, err := h.conn.ExecContext(ctx, "INSERT INTO baton_versions(id, version, state, created) VALUES (?, ?, 'making', ?)", known, number, now.UnixMilli())
			return err
		})
	})
	return known, number, err
}

// Kept says whether a version is kept, so that who does not know how a Switch
// ended can ask.
func (db *DB) Kept(ctx context.Context, id string, number int) (kept bool, err error) {
	err = db.do(ctx, "read version", func(h *handle) error {
		return h.conn.QueryRowContext(ctx, "SELECT count(*) FROM baton_versions WHERE id = ? AND version = ? AND state = 'kept'", id, number).Scan(&kept)
	})
	return kept, err
}

// Switch does all of s in one transaction, or nothing. When it returns without
// error that is on the disk. seq is as Apply's.
func (db *DB) Switch(ctx context.Context, s Switch) (seq int64, err error) {
	err = db.do(ctx, "switch version", func(h *handle) error {
		return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
			if err := h.expect(ctx, s.Expect); err != nil {
				return err
			}
			if err := h.apply(ctx, s.Rows); err != nil {
				return err
			}
			if err := h.switchVersions(ctx, s); err != nil {
				return err
			}
			var err error
			seq, err = h.head(ctx)
			return err
		})
	})
	return seq, err
}

func (h *handle) switchVersions(ctx context.Context, s Switch) error {
	if v := s.New; v != nil {
		result, err := h.conn.ExecContext(ctx, `UPDATE baton_versions SET state = 'kept', k = ?, v = ?, descriptor = ?, source = ?, digest = ?, size = ?
			WHERE id = ? AND version = ? AND state = 'making'`, v.Row.Key, v.Row.Value, v.Descriptor, v.Source, v.Digest, v.Size, s.ID, v.Number)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(fmt.Errorf("version %d was not reserved", v.Number), err)
		}
	}
	if _, err := h.conn.ExecContext(ctx, "UPDATE baton_versions SET active = (version = ?) WHERE id = ? AND active <> (version = ?)", s.Active, s.ID, s.Active); err != nil {
		return err
	}
	for _, d := range s.Drop {
		if _, err := h.conn.ExecContext(ctx, `UPDATE baton_versions SET state = 'dropped', until = ?, v = NULL, descriptor = NULL, active = 0
			WHERE id = ? AND version = ? AND state = 'kept'`, d.Until.UnixMilli(), s.ID, d.Number); err != nil {
			return err
		}
	}
	if s.Forget {
		_, err := h.conn.ExecContext(ctx, "DELETE FROM baton_functions WHERE id = ?", s.ID)
		return err
	}
	return nil
}

// expect answers ErrChanged unless the rows are what is said.
func (h *handle) expect(ctx context.Context, rows []KVChange) error {
	for _, want := range rows {
		var value string
		err := h.conn.QueryRowContext(ctx, selectKV+" AND k = ?", want.Key).Scan(new(string), &value)
		gone := errors.Is(err, sql.ErrNoRows)
		if err != nil && !gone {
			return err
		}
		if gone != want.Deleted || value != want.Value {
			return ErrChanged
		}
	}
	return nil
}

// Leftovers are the folders of versions that were reserved and never switched
// to, which must not be asked while one is being made, and of those that were
// dropped and whose time is over.
func (db *DB) Leftovers(ctx context.Context, now time.Time, making bool) (all []Folder, err error) {
	err = db.do(ctx, "list leftovers", func(h *handle) error {
		return h.query(ctx, func(r *sql.Rows) error {
			var f Folder
			if err := r.Scan(&f.ID, &f.Number); err != nil {
				return err
			}
			all = append(all, f)
			return nil
		}, "SELECT id, version FROM baton_versions WHERE state = 'dropped' AND until <= ? OR state = 'making' AND ?", now.UnixMilli(), making)
	})
	return all, err
}

// Removed says that the folder of a version that is not kept is gone. A
// function that has no other version is forgotten.
func (db *DB) Removed(ctx context.Context, f Folder) error {
	return db.do(ctx, "forget version", func(h *handle) error {
		return h.transact(ctx, "BEGIN IMMEDIATE", func() error {
			if _, err := h.conn.ExecContext(ctx, "DELETE FROM baton_versions WHERE id = ? AND version = ? AND state <> 'kept'", f.ID, f.Number); err != nil {
				return err
			}
			_, err := h.conn.ExecContext(ctx, `DELETE FROM baton_functions WHERE id = ? AND NOT EXISTS
				(SELECT 1 FROM baton_versions WHERE id = ? AND state IN ('making', 'kept'))`, f.ID, f.ID)
			return err
		})
	})
}

// Named lists rows whose value is a JSON object with that name, at most limit,
// ascending by key. It looks at every row.
func (db *DB) Named(ctx context.Context, name string, limit int) (rows []KV, err error) {
	err = db.do(ctx, "find rows by name", func(h *handle) error {
		return h.query(ctx, func(r *sql.Rows) error {
			var kv KV
			if err := r.Scan(&kv.Key, &kv.Value); err != nil {
				return err
			}
			rows = append(rows, kv)
			return nil
		}, selectKV+` AND length(v) <= 65536 AND CASE WHEN json_valid(v) THEN json_extract(v, '$.name') END = ? ORDER BY k LIMIT ?`, name, limit)
	})
	return rows, err
}
