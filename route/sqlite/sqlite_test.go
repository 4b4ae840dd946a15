package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// mirror is a sink that keeps what a table of the rows would hold.
type mirror struct {
	mu      sync.Mutex
	rows    map[string]string
	resets  int
	changes int
	trouble error
	told    bool // trouble was told at all
}

func (m *mirror) Reset(rows []KV) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows = map[string]string{}
	for _, r := range rows {
		m.rows[r.Key] = r.Value
	}
	m.resets++
	return nil
}

func (m *mirror) Change(changes []Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		if c.Gone {
			delete(m.rows, c.Key)
		} else {
			m.rows[c.Key] = c.Value
		}
	}
	m.changes += len(changes)
	return nil
}

func (m *mirror) Trouble(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble, m.told = err, true
}

func (m *mirror) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprint(m.rows)
}

func (m *mirror) await(t *testing.T, want string) {
	t.Helper()
	testenv.Until(t, "the feed has delivered "+want, func() bool { return m.text() == want })
}

func start(t *testing.T) (path string, db *DB, m *mirror) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "faas meta?.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return path, db, follow(t, path)
}

func follow(t *testing.T, path string) *mirror {
	t.Helper()
	m := &mirror{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		NewFeed(path, m).Run(ctx)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return m
}

func put(t *testing.T, db *DB, key, value string) {
	t.Helper()
	if err := db.Put(context.Background(), key, value); err != nil {
		t.Fatal(err)
	}
}

func exec2(t *testing.T, db *DB, statement string) {
	t.Helper()
	if _, err := db.db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func TestVersionIsSafe(t *testing.T) {
	t.Parallel()
	if v, err := Version(context.Background()); err != nil {
		t.Errorf("SQLite %s: %v", v, err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	t.Parallel()
	path, _, _ := start(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFeedFollowsEveryStatement(t *testing.T) {
	t.Parallel()
	_, db, m := start(t)
	m.await(t, "map[]")
	for _, step := range []struct{ statement, want string }{
		{"INSERT INTO functions VALUES('a','1',0)", "map[a:1]"},
		{"UPDATE functions SET v='2' WHERE k='a'", "map[a:2]"},
		{"INSERT OR REPLACE INTO functions VALUES('a','3',0)", "map[a:3]"},
		{"INSERT INTO functions VALUES('a','4',0) ON CONFLICT(k) DO UPDATE SET v=excluded.v", "map[a:4]"},
		{"UPDATE functions SET k='b' WHERE k='a'", "map[b:4]"},
		{"INSERT INTO functions VALUES('c','5',0),('d','6',0)", "map[b:4 c:5 d:6]"},
		{"UPDATE OR REPLACE functions SET k='c' WHERE k='d'", "map[b:4 c:6]"},
		{"DELETE FROM functions WHERE k='b'", "map[c:6]"},
		{"DELETE FROM functions", "map[]"},
	} {
		exec2(t, db, step.statement)
		m.await(t, step.want)
	}
	if m.resets != 1 {
		t.Errorf("%d resets: changes were not followed", m.resets)
	}
}

func TestFeedSeesOtherProcesses(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	path, _, m := start(t)
	m.await(t, "map[]")
	out, err := exec.Command("sqlite3", path, "INSERT INTO functions VALUES('k','v',0);").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.await(t, "map[k:v]")
}

func TestFeedRestoresItsSchema(t *testing.T) {
	t.Parallel()
	_, db, m := start(t)
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	for i, statement := range []string{
		"DROP TRIGGER baton_insert", "DROP TABLE baton_changes", "DROP INDEX functions_updated",
		"DROP TRIGGER baton_update; CREATE TRIGGER baton_update AFTER UPDATE ON functions BEGIN SELECT 1; END",
	} {
		exec2(t, db, statement)
		testenv.Until(t, "the row can be written: what a trigger needs is back", func() bool {
			return db.Put(context.Background(), "a", fmt.Sprint("after ", i)) == nil
		})
		m.await(t, fmt.Sprintf("map[a:after %d]", i))
		put(t, db, "a", fmt.Sprint("again ", i))
		m.await(t, fmt.Sprintf("map[a:again %d]", i))
	}
}

func TestFeedFollowsAReplacedFile(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "old", "1")
	m.await(t, "map[old:1]")
	other := filepath.Join(t.TempDir(), "other.db")
	next, err := Open(other)
	if err != nil {
		t.Fatal(err)
	}
	put(t, next, "new", "2")
	exec2(t, next, "PRAGMA wal_checkpoint(TRUNCATE)")
	exec2(t, next, "PRAGMA journal_mode=DELETE")
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"-wal", "-shm"} {
		_ = os.Remove(path + side)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	m.await(t, "map[new:2]")
}

func TestFeedSurvivesAMissingAndACorruptDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	m := follow(t, path)
	troubled := func(want bool) {
		t.Helper()
		testenv.Until(t, fmt.Sprint("trouble is told: ", want), func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.told && (m.trouble != nil) == want
		})
	}
	troubled(true)
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	troubled(false)
	exec2(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(filepath.Dir(path), "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(garbage, path); err != nil {
		t.Fatal(err)
	}
	troubled(true)
	if got := m.text(); got != "map[a:1]" {
		t.Errorf("a corrupt database changed what was delivered: %s", got)
	}
}

func TestFeedPrunesItsLog(t *testing.T) {
	t.Parallel()
	_, db, m := start(t)
	m.await(t, "map[]")
	for range 4 {
		exec2(t, db, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) INSERT OR REPLACE INTO functions SELECT 'k'||(i%10), i, 0 FROM n")
	}
	put(t, db, "last", "1")
	testenv.Until(t, "the last change arrived", func() bool { return strings.Contains(m.text(), "last:1") })
	testenv.Until(t, "the log is pruned", func() bool {
		var n int
		if err := db.db.QueryRow("SELECT count(*) FROM baton_changes").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n < 3*logKeep
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	_, db, _ := start(t)
	if err := db.Delete(context.Background(), "nothing"); !errors.Is(err, ErrNoRow) {
		t.Errorf("delete of a missing row: %v", err)
	}
	put(t, db, "a", "1")
	if v, found, err := db.Get(context.Background(), "a"); v != "1" || !found || err != nil {
		t.Errorf("get: %q, %v, %v", v, found, err)
	}
	if err := db.Delete(context.Background(), "a"); err != nil {
		t.Error(err)
	}
	if _, found, err := db.Get(context.Background(), "a"); found || err != nil {
		t.Errorf("get of a deleted row: %v, %v", found, err)
	}
}

// A writer that holds the lock does not stop the feed from reading.
func TestFeedReadsBesideALock(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "a", "1")
	other, err := connect(path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	tx, err := other.Begin()
	if err != nil {
		t.Fatal(err)
	}
	m.await(t, "map[a:1]")
	if _, err := tx.Exec("INSERT INTO functions VALUES('b','2',0)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	m.await(t, "map[a:1 b:2]")
	t.Logf("live after %v", time.Since(begin))
}
