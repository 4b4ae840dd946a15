package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

// What can be wrong with the file, for errors.Is.
var (
	ErrMissing = fmt.Errorf("no database file: %w", fs.ErrNotExist)
	ErrBusy    = errors.New("database is locked by somebody else")
	ErrCorrupt = errors.New("database file is damaged or no database")
	ErrVersion = errors.New("SQLite library is too old")
	ErrFull    = fmt.Errorf("no room to write the database, or a disk that fails: %w", syscall.ENOSPC)
)

// versionMin: before it, two writers or checkpointers of a WAL file can damage
// it (the WAL-reset bug, fixed in 3.51.3; sqlite.org/wal.html).
var versionMin = [3]int{3, 51, 3}

// filePerm is for the file and for what SQLite puts beside it (it copies the
// file's permissions).
const filePerm = 0o600

// handle is one connection to one file, which it can tell from another file of
// the same name.
type handle struct {
	path string
	db   *sql.DB   // its pool is never used beyond conn
	conn *sql.Conn // the connection
	main identity  // the file that conn has open
	wal  identity  // and its write-ahead log
}

// identity is a file's, whatever its name; zero is no file.
type identity struct{ dev, ino uint64 }

func identify(path string) (identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, err
	}
	sys := info.Sys().(*syscall.Stat_t)
	return identity{uint64(sys.Dev), sys.Ino}, nil
}

// openHandle opens an existing file; it creates none. A lock held by somebody
// else is waited for as long as busy says.
func openHandle(ctx context.Context, path string, busy time.Duration) (*handle, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	before, err := identify(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrMissing
	}
	if err != nil {
		return nil, err
	}
	// Others of this machine have no business here. Not by descriptor: closing
	// one would drop the locks of this process's other connections.
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(path + suffix); err == nil && info.Mode().Perm()&^filePerm != 0 {
			if err := os.Chmod(path+suffix, filePerm); err != nil {
				return nil, err
			}
		}
	}
	query := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(" + strconv.FormatInt(busy.Milliseconds(), 10) + ")", "journal_mode(WAL)", "synchronous(FULL)",
	}}
	connector, err := driver.NewConnector("file:" + (&url.URL{Path: path}).EscapedPath() + "?" + query.Encode())
	if err != nil {
		return nil, err
	}
	h := &handle{path: path, main: before, db: sql.OpenDB(connector)}
	h.db.SetMaxOpenConns(1)
	if err := h.connect(ctx); err != nil {
		h.close()
		return nil, classify(err)
	}
	return h, nil
}

func (h *handle) connect(ctx context.Context) error {
	var err error
	if h.conn, err = h.db.Conn(ctx); err != nil {
		return err
	}
	var version, mode string
	if err := h.conn.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return err
	}
	if err := checkVersion(version); err != nil {
		return err
	}
	if err := h.conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("journal mode is %q, want wal", mode)
	}
	// The first read opens the log.
	if _, err := h.conn.ExecContext(ctx, "SELECT count(*) FROM sqlite_schema"); err != nil {
		return err
	}
	now, err := identify(h.path)
	if err != nil || now != h.main {
		return fmt.Errorf("database file was replaced while it was opened: %w", ErrBusy)
	}
	h.wal, _ = identify(h.path + "-wal")
	return nil
}

// Version is the version of the SQLite library in this binary; the error is
// ErrVersion when it is one that must not be used.
func Version(ctx context.Context) (version string, err error) {
	connector, err := driver.NewConnector(":memory:")
	if err != nil {
		return "", err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err != nil {
		return "", err
	}
	return version, checkVersion(version)
}

func checkVersion(version string) error {
	var have [3]int
	for i, part := range strings.SplitN(version, ".", 3) {
		have[i], _ = strconv.Atoi(part)
	}
	for i := range have {
		if have[i] != versionMin[i] {
			if have[i] > versionMin[i] {
				return nil
			}
			return fmt.Errorf("%w: %s, want %d.%d.%d or later", ErrVersion, version, versionMin[0], versionMin[1], versionMin[2])
		}
	}
	return nil
}

// current says whether the path still leads to the file that is open: nil, or
// ErrMissing, or errReplaced.
func (h *handle) current() error {
	now, err := identify(h.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrMissing
	case err != nil:
		return err
	case now != h.main:
		return errReplaced
	}
	return nil
}

var errReplaced = errors.New("database file was replaced")

// close ends the connection. When the path no longer leads to the file, SQLite
// must not remove, by name, the log that lies there: it may be that of another
// file by now, or this file may come back to its name and need it. And when
// there is another file, that one must not be read together with the log of
// this one, which has no mark that says whose log it is: its name is removed.
// What is in it goes into this file all the same, at the last connection's
// close.
func (h *handle) close() {
	if h.conn != nil {
		if err := h.current(); err != nil {
			_ = h.conn.Raw(func(c any) error {
				_, err := c.(driver.FileControl).FileControlPersistWAL("main", 1)
				return err
			})
			if now, e := identify(h.path + "-wal"); err == errReplaced && e == nil && now == h.wal {
				_ = os.Remove(h.path + "-wal")
				_ = os.Remove(h.path + "-shm")
			}
		}
		_ = h.conn.Close()
	}
	_ = h.db.Close()
}

// transact runs f in one transaction: "BEGIN" to read, "BEGIN IMMEDIATE" to
// write. The transaction is over when it returns, whatever happens.
func (h *handle) transact(ctx context.Context, begin string, f func() error) (err error) {
	if _, err := h.conn.ExecContext(ctx, begin); err != nil {
		return classify(err)
	}
	defer func() {
		if err != nil {
			// Not by ctx: it may be why f failed. An error here says that
			// SQLite has rolled back already.
			_, _ = h.conn.ExecContext(context.Background(), "ROLLBACK")
		}
	}()
	if err := f(); err != nil {
		return classify(err)
	}
	_, err = h.conn.ExecContext(ctx, "COMMIT")
	return classify(err)
}

// classify puts the error that callers branch on into err.
func classify(err error) error {
	var e *driver.Error
	if !errors.As(err, &e) || errors.Is(err, ErrBusy) || errors.Is(err, ErrCorrupt) {
		return err
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED, codes.SQLITE_PROTOCOL:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case codes.SQLITE_IOERR:
		switch e.Code() { // a quota and RLIMIT_FSIZE are told so, and not as SQLITE_FULL
		case codes.SQLITE_IOERR_WRITE, codes.SQLITE_IOERR_TRUNCATE, codes.SQLITE_IOERR_SHMSIZE:
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
	case codes.SQLITE_FULL:
		return fmt.Errorf("%w: %w", ErrFull, err)
	case codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
