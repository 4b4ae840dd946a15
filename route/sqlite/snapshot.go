package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Snapshot writes what the database holds at one moment to a new file at path
// (0600), while others read and write. The copy has no free pages and no log
// beside it. An existing file is refused.
//
// Source: sqlite.org/lang_vacuum.html, "VACUUM with an INTO clause".
func (db *DB) Snapshot(ctx context.Context, path string) error {
	// SQLite would make it with the mode that the umask leaves.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, filePerm)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	return db.do(ctx, "copy database", func(h *handle) error {
		_, err := h.conn.ExecContext(ctx, "VACUUM INTO ?", path)
		return err
	})
}

// Check reads the whole database and says what is damaged in it: ErrCorrupt.
func (db *DB) Check(ctx context.Context) error {
	return db.do(ctx, "check database", func(h *handle) error {
		var said string
		if err := h.conn.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&said); err != nil {
			return err
		}
		if said != "ok" {
			line, _, _ := strings.Cut(said, "\n")
			return fmt.Errorf("%w: %s", ErrCorrupt, line)
		}
		return nil
	})
}

// KeptVersion is a version that is kept, and the function it is of.
type KeptVersion struct {
	ID string
	FunctionVersion
}

// KeptVersions lists the kept versions of all deployed functions.
func (db *DB) KeptVersions(ctx context.Context) (all []KeptVersion, err error) {
	functions, err := db.AllDeployed(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range functions {
		d, err := db.Deployed(ctx, f.Name)
		if errors.Is(err, ErrNoRow) {
			continue // it was removed meanwhile
		} else if err != nil {
			return nil, err
		}
		for _, v := range d.Versions {
			all = append(all, KeptVersion{ID: d.ID, FunctionVersion: v})
		}
	}
	return all, nil
}
