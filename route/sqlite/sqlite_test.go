package sqlite

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	mu       sync.Mutex
	rows     map[string]string
	resets   int
	calls    int // of Change
	largest  int // Change
	troubles []error
	refuse   error // answered to the next Change
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

func (m *mirror) Change(changes []KVChange) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.largest = max(m.largest, len(changes))
	seen := map[string]bool{}
	for _, c := range changes {
		if seen[c.Key] {
			return fmt.Errorf("%s twice in one call", c.Key)
		}
		seen[c.Key] = true
		if c.Deleted {
			delete(m.rows, c.Key)
		} else {
			m.rows[c.Key] = c.Value
		}
	}
	return m.refuse
}

func (m *mirror) Trouble(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.troubles = append(m.troubles, err)
}

// state is what m holds, in one line; before the first Reset that is not an
// empty table, but nothing.
func (m *mirror) state() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.resets == 0 {
		return "nothing yet"
	}
	return fmt.Sprint(m.rows)
}

func (m *mirror) await(t *testing.T, want string) {
	t.Helper()
	testenv.Until(t, "the feed has delivered "+want, func() bool { return m.state() == want })
}

// awaitTrouble waits for the n-th Trouble and demands its kind.
func (m *mirror) awaitTrouble(t *testing.T, n int, kind error) {
	t.Helper()
	var got error
	testenv.Until(t, fmt.Sprintf("trouble %d is %v", n, kind), func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.troubles) < n {
			return false
		}
		got = m.troubles[n-1]
		return true
	})
	if !errors.Is(got, kind) {
		t.Fatalf("trouble %d is %v, want %v", n, got, kind)
	}
}

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// start makes a database and a feed of it. Its path has what a URI would
// misread.
func start(t *testing.T) (path string, db *DB, m *mirror) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "faas meta?%41#.db")
	db = open(t, path)
	m, _ = follow(t, path)
	return path, db, m
}

func feed(t testing.TB, path string) *Feed {
	t.Helper()
	f, err := OpenFeed(path, FeedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func follow(t *testing.T, path string) (*mirror, *Feed) {
	t.Helper()
	m := &mirror{}
	f := feed(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx, m) }() // stopped and waited for by the cleanup
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
	return m, f
}

func put(t *testing.T, db *DB, key, value string) {
	t.Helper()
	if err := db.Put(context.Background(), key, value); err != nil {
		t.Fatal(err)
	}
}

// run executes statements on a connection of its own, as another program
// would.
func run(t *testing.T, path string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	h, err := openHandle(ctx, path, busyWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for _, s := range statements {
		if _, err := h.conn.ExecContext(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// shell runs the sqlite3 program.
func shell(t *testing.T, path string, statements string) {
	t.Helper()
	testenv.Need(t, "sqlite3")
	// As a URI: the program would take the path's ? as it is, too, but its
	// name may not start with file:.
	out, err := exec.Command("sqlite3", "-bail", path, ".timeout 5000", statements).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
}

// TestVersionIsSafe: pitfall of WAL files with several writers before 3.51.3.
func TestVersionIsSafe(t *testing.T) {
	t.Parallel()
	if v, err := Version(t.Context()); err != nil {
		t.Errorf("SQLite %s: %v", v, err)
	}
	for version, good := range map[string]bool{
		"3.51.3": true, "3.51.4": true, "3.52.0": true, "4.0.0": true, "3.100.0": true,
		"3.51.2": false, "3.50.9": false, "3.9.99": false, "2.99.99": false, "": false, "3.51": false, "x": false,
	} {
		if err := checkVersion(version); (err == nil) != good || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// TestFile: private from birth, private again when it is opened, durable, and
// not inherited by children.
func TestFile(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	modes := func() {
		t.Helper()
		for _, suffix := range []string{"", "-wal", "-shm"} {
			info, err := os.Stat(path + suffix)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %v, %v", suffix, info.Mode(), err)
			}
		}
	}
	modes()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Chmod(path+suffix, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	open(t, path)
	modes()
	c := <-db.turn
	defer func() { db.turn <- c }()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000"} {
		var got string
		if err := c.h.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, want %s: %v", pragma, got, want, err)
		}
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err != nil || !strings.HasPrefix(to, real) {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + fd.Name())
		if err != nil {
			continue
		}
		found++
		var flags int
		for line := range strings.Lines(string(info)) {
			_, _ = fmt.Sscanf(line, "flags: %o", &flags)
		}
		if flags&0o2000000 == 0 { // O_CLOEXEC
			t.Errorf("descriptor %s of the database is inherited by children: flags %o", fd.Name(), flags)
		}
	}
	if found == 0 {
		t.Error("no descriptor of the database found")
	}
}

// TestStatementLaw: one case per way a row can come, change and go. Each runs
// in a database of its own with the rows a, b and c of rowids 1, 2 and 3, and
// the feed has to follow without reading all rows again.
func TestStatementLaw(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ law, statement, want string }{
		{"insert", "INSERT INTO functions(k,v) VALUES('d','4')", "map[a:1 b:2 c:3 d:4]"},
		{"insert of many", "INSERT INTO functions(k,v) VALUES('d','4'),('e','5')", "map[a:1 b:2 c:3 d:4 e:5]"},
		{"update that leaves updated alone", "UPDATE functions SET v='9' WHERE k='a'", "map[a:9 b:2 c:3]"},
		{"update of all", "UPDATE functions SET v=v||'!'", "map[a:1! b:2! c:3!]"},
		{"delete", "DELETE FROM functions WHERE k='a'", "map[b:2 c:3]"},
		{"delete of all, without a condition", "DELETE FROM functions", "map[]"},
		{"a changed key removes the old", "UPDATE functions SET k='z' WHERE k='a'", "map[b:2 c:3 z:1]"},
		{"replace by key", "INSERT OR REPLACE INTO functions(k,v) VALUES('a','9')", "map[a:9 b:2 c:3]"},
		{"the word REPLACE", "REPLACE INTO functions VALUES('a','9',0)", "map[a:9 b:2 c:3]"},
		{"replace of the row with that rowid", "INSERT OR REPLACE INTO functions(rowid,k,v) VALUES(1,'z','9')", "map[b:2 c:3 z:9]"},
		{"replace of two rows at once", "INSERT OR REPLACE INTO functions(rowid,k,v) VALUES(1,'b','9')", "map[b:9 c:3]"},
		{"update or replace onto a key", "UPDATE OR REPLACE functions SET k='b' WHERE k='a'", "map[b:1 c:3]"},
		{"update or replace onto a rowid", "UPDATE OR REPLACE functions SET rowid=2 WHERE k='a'", "map[a:1 c:3]"},
		{"update or replace onto a key and a rowid", "UPDATE OR REPLACE functions SET k='b',rowid=3 WHERE k='a'", "map[b:1]"},
		{"upsert", "INSERT INTO functions(k,v) VALUES('a','9') ON CONFLICT(k) DO UPDATE SET v=excluded.v", "map[a:9 b:2 c:3]"},
		{"upsert that changes a key", "INSERT INTO functions(k,v) VALUES('a','9') ON CONFLICT(k) DO UPDATE SET k='z'", "map[b:2 c:3 z:1]"},
		{"insert or ignore of another", "INSERT OR IGNORE INTO functions(k,v) VALUES('a','9'),('d','4')", "map[a:1 b:2 c:3 d:4]"},
		{"in, out and in again", "INSERT INTO functions(k,v) VALUES('d','4'); DELETE FROM functions WHERE k='d'; INSERT INTO functions(k,v) VALUES('d','5')", "map[a:1 b:2 c:3 d:5]"},
		{"in a transaction", "BEGIN; DELETE FROM functions WHERE k='a'; UPDATE functions SET v='9' WHERE k='b'; COMMIT", "map[b:9 c:3]"},
		{"rolled back, then another", "BEGIN; DELETE FROM functions; ROLLBACK; DELETE FROM functions WHERE k='a'", "map[b:2 c:3]"},
		{"rolled back to a savepoint", "BEGIN; DELETE FROM functions WHERE k='a'; SAVEPOINT s; DELETE FROM functions WHERE k='b'; ROLLBACK TO s; COMMIT", "map[b:2 c:3]"},
		{"replace with recursive triggers", "PRAGMA recursive_triggers=1; INSERT OR REPLACE INTO functions(rowid,k,v) VALUES(1,'b','9')", "map[b:9 c:3]"},
		{"a value that is a number", "INSERT INTO functions(k,v) VALUES('d',4)", "map[a:1 b:2 c:3 d:4]"},
		{"a value that is a blob", "INSERT INTO functions(k,v) VALUES('d',x'34')", "map[a:1 b:2 c:3 d:4]"},
		{"a key of no text is nobody's", "INSERT INTO functions(k,v) VALUES(NULL,'4'),(x'61','5'),('d','6')", "map[a:1 b:2 c:3 d:6]"},
		{"from a select", "INSERT INTO functions(k,v) SELECT k||k,v FROM functions", "map[a:1 aa:1 b:2 bb:2 c:3 cc:3]"},
	} {
		t.Run(c.law, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "faas_meta.db")
			open(t, path)
			run(t, path, "INSERT INTO functions(rowid,k,v) VALUES(1,'a','1'),(2,'b','2'),(3,'c','3')")
			m, _ := follow(t, path)
			m.await(t, "map[a:1 b:2 c:3]")
			run(t, path, c.statement)
			m.await(t, c.want)
			if m.resets != 1 {
				t.Errorf("%d resets", m.resets)
			}
		})
	}
}

// TestOtherProcess: the sqlite3 program writes, twice within a second.
func TestOtherProcess(t *testing.T) {
	t.Parallel()
	path, _, m := start(t)
	m.await(t, "map[]")
	shell(t, path, "INSERT INTO functions VALUES('a','1',0); INSERT INTO functions VALUES('b','2',0);")
	m.await(t, "map[a:1 b:2]")
	shell(t, path, "UPDATE functions SET v='3' WHERE k='a'; DELETE FROM functions WHERE k='b';")
	m.await(t, "map[a:3]")
	if m.resets != 1 || len(m.troubles) != 0 {
		t.Errorf("%d resets, troubles %v", m.resets, m.troubles)
	}
}

// TestPredecessorsFile: a file that the predecessor made is taken as it is.
func TestPredecessorsFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	shell(t, path, "CREATE TABLE functions(k TEXT PRIMARY KEY, v TEXT NOT NULL, updated INTEGER); CREATE INDEX idx_updated ON functions(updated); INSERT INTO functions VALUES('a','1',5);")
	m, _ := follow(t, path)
	m.await(t, "map[a:1]")
	shell(t, path, "DELETE FROM functions;")
	m.await(t, "map[]")
}

// TestSchemaRepair: what is missing is created again, and what happened
// meanwhile is found.
func TestSchemaRepair(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ law, statement, want string }{
		{"a dropped trigger", "DROP TRIGGER baton_deleted; DELETE FROM functions WHERE k='a'", "map[b:2]"},
		{"another trigger of that name", "DROP TRIGGER baton_inserted; CREATE TRIGGER baton_inserted AFTER INSERT ON functions BEGIN SELECT 1; END", "map[a:1 b:2]"},
		{"a dropped change log", "DROP TABLE baton_changes", "map[a:1 b:2]"},
		{"a change log of another form", "DROP TABLE baton_changes; CREATE TABLE baton_changes(x)", "map[a:1 b:2]"},
		{"a dropped table", "DROP TABLE functions", "map[]"},
		{"a dropped table, made anew with a row", "DROP TABLE functions; " + createFunctions + "; INSERT INTO functions VALUES('z','9',0)", "map[z:9]"},
		{"a dropped index", "DROP INDEX functions_updated", "map[a:1 b:2]"},
		{"a new column", "ALTER TABLE functions ADD COLUMN note TEXT; UPDATE functions SET v='9' WHERE k='a'", "map[a:9 b:2]"},
		{"vacuum", "VACUUM", "map[a:1 b:2]"},
		{"an emptied change log", "DELETE FROM functions WHERE k='a'; DELETE FROM baton_changes", "map[b:2]"},
		{"a change log without its newest", "DELETE FROM functions WHERE k='a'; DELETE FROM baton_changes WHERE seq=(SELECT max(seq) FROM baton_changes)", "map[b:2]"},
		{"a change log that lacks one", "DELETE FROM functions WHERE k='a'; INSERT INTO functions VALUES('d','4',0); DELETE FROM baton_changes WHERE k='a' AND op='delete'", "map[b:2 d:4]"},
		{"a change log that counts anew", "DELETE FROM functions WHERE k='a'; DELETE FROM baton_changes; DELETE FROM sqlite_sequence", "map[b:2]"},
	} {
		t.Run(c.law, func(t *testing.T) {
			t.Parallel()
			path, db, m := start(t)
			put(t, db, "a", "1")
			put(t, db, "b", "2")
			m.await(t, "map[a:1 b:2]")
			before := m.resets
			if c.statement == "VACUUM" {
				run(t, path, c.statement)
			} else {
				run(t, path, "BEGIN;"+c.statement+";COMMIT")
			}
			m.await(t, c.want)
			testenv.Until(t, "all rows were read again", func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return m.resets > before
			})
			put(t, db, "zz", "5")
			m.await(t, strings.Replace(strings.Replace(c.want, "]", " zz:5]", 1), "[ ", "[", 1))
			run(t, path, "DELETE FROM functions")
			m.await(t, "map[]")
		})
	}
}

// TestContentsNeedAWholeSchema: what is dropped between the repair and the reading is repaired, too, before
// the schema's version is noted.
func TestContentsNeedAWholeSchema(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "functions.db")
	put(t, open(t, path), "a", "1")
	ctx := t.Context()
	h, err := openHandle(ctx, path, busyRead)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for _, part := range schema {
		if c, whole, err := h.contents(ctx); err != nil || !whole || len(c.rows) != 1 || c.schema == 0 {
			t.Errorf("%+v, whole: %t, %v", c, whole, err)
		}
		run(t, path, "DROP "+part.kind+" "+part.name)
		if c, whole, err := h.contents(ctx); err != nil || whole || c.schema != 0 {
			t.Errorf("without %s: %+v, whole: %t, %v", part.name, c, whole, err)
		}
		if err := h.ensureSchema(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// replace puts a new database with the row new:2 at path.
func replace(t *testing.T, path string) {
	t.Helper()
	other := filepath.Join(t.TempDir(), "other.db")
	db := open(t, other)
	put(t, db, "new", "2")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
}

// TestReplacedFile: the old file's log still lies there with a change that is
// in no file; the new file is read without it, and a writer that had the old
// one open writes into the new one.
func TestReplacedFile(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "old", "1")
	m.await(t, "map[old:1]")
	replace(t, path)
	m.await(t, "map[new:2]")
	put(t, db, "late", "3")
	m.await(t, "map[late:3 new:2]")
	again := open(t, path)
	if value, found, err := again.Get(t.Context(), "late"); value != "3" || !found || err != nil {
		t.Errorf("late: %q %v %v", value, found, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.troubles {
		if errors.Is(e, ErrCorrupt) {
			t.Errorf("troubles %v", m.troubles)
		}
	}
}

// TestMissingFile: what was read stays, trouble is told once and taken back.
func TestMissingFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	m, _ := follow(t, path)
	m.awaitTrouble(t, 1, ErrMissing)
	if _, err := os.Stat(path); err == nil {
		t.Error("the feed made a file")
	}
	db := open(t, path)
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	m.awaitTrouble(t, 2, nil)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	m.awaitTrouble(t, 3, ErrMissing)
	if err := db.Put(t.Context(), "b", "2"); !errors.Is(err, ErrMissing) {
		t.Errorf("a write into a removed file: %v", err)
	}
	if got := m.state(); got != "map[a:1]" {
		t.Errorf("what was there went with the file: %s", got)
	}
	replace(t, path)
	m.await(t, "map[new:2]")
	m.awaitTrouble(t, 4, nil)
}

// TestNameComesBack: a file that is moved away and back loses nothing, not
// even what is only in its log.
func TestNameComesBack(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	m.awaitTrouble(t, 1, ErrMissing)
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	m.awaitTrouble(t, 2, nil)
	put(t, db, "b", "2")
	m.await(t, "map[a:1 b:2]")
	if m.resets != 1 {
		t.Errorf("%d resets", m.resets)
	}
}

func TestCorruptFile(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(garbage, path); err != nil {
		t.Fatal(err)
	}
	m.awaitTrouble(t, 1, ErrCorrupt)
	if err := db.Put(t.Context(), "b", "2"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a write into a corrupt file: %v", err)
	}
	if got := m.state(); got != "map[a:1]" {
		t.Errorf("a corrupt file changed what was delivered: %s", got)
	}
	replace(t, path)
	m.await(t, "map[new:2]")
	// It may have been seen half-way, which is a trouble of its own.
	testenv.Until(t, "the last trouble is over", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.troubles[len(m.troubles)-1] == nil
	})
}

// TestForeignTable: a table of that name without our columns is reported, not
// touched.
func TestForeignTable(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	put(t, db, "a", "1")
	m.await(t, "map[a:1]")
	// In one transaction: between two of them the feed would repair the first.
	run(t, path, "BEGIN IMMEDIATE; ALTER TABLE functions RENAME TO kept; DROP TRIGGER baton_inserted; DROP TRIGGER baton_updated; DROP TRIGGER baton_deleted; "+
		"DROP TRIGGER baton_inserting; DROP TRIGGER baton_updating; CREATE TABLE functions(k TEXT); COMMIT")
	testenv.Until(t, "the column is missed", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.troubles) == 1 && strings.Contains(m.troubles[0].Error(), `no column "v"`)
	})
	if got := m.state(); got != "map[a:1]" {
		t.Error(got)
	}
	run(t, path, "BEGIN IMMEDIATE; DROP TABLE functions; ALTER TABLE kept RENAME TO functions; COMMIT")
	m.awaitTrouble(t, 2, nil)
	put(t, db, "b", "2")
	m.await(t, "map[a:1 b:2]")
}

// TestLockedFile: a lock that keeps even readers out is trouble while it lasts;
// a writer's transaction is none.
func TestLockedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	db := open(t, path)
	put(t, db, "a", "1")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	holder, err := openHandle(ctx, path, busyWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { holder.close() }()
	exclusive := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := holder.conn.ExecContext(ctx, s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
	exclusive("PRAGMA locking_mode=EXCLUSIVE", "BEGIN IMMEDIATE", "UPDATE functions SET v='2'")
	m, _ := follow(t, path)
	m.awaitTrouble(t, 1, ErrBusy)
	exclusive("COMMIT", "PRAGMA locking_mode=NORMAL", "SELECT count(*) FROM functions")
	m.awaitTrouble(t, 2, nil)
	m.await(t, "map[a:2]")
	exclusive("BEGIN IMMEDIATE", "UPDATE functions SET v='3'")
	again, _ := follow(t, path)
	again.await(t, "map[a:2]")
	exclusive("COMMIT")
	again.await(t, "map[a:3]")
	m.await(t, "map[a:3]")
}

// TestNoOpenTransaction: between two looks nothing is held that would keep a
// checkpoint from emptying the log.
func TestNoOpenTransaction(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	for i := range 50 {
		put(t, db, "a", fmt.Sprint(i))
	}
	m.await(t, "map[a:49]")
	h, err := openHandle(t.Context(), path, busyWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	var busy, log, done int
	if err := h.conn.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done); err != nil || busy != 0 {
		t.Errorf("checkpoint: busy %d, %v", busy, err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("log: %v, %v", info.Size(), err)
	}
}

// TestBatches: one transaction's changes come in one call, up to batchDefault
// entries of the change log.
func TestBatches(t *testing.T) {
	t.Parallel()
	path, _, m := start(t)
	m.await(t, "map[]")
	many := func(n int) string {
		return fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT OR REPLACE INTO functions(k,v) SELECT 'k'||i, 'x' FROM n", n)
	}
	run(t, path, many(batchDefault))
	testenv.Until(t, "all arrived", func() bool { return strings.Count(m.state(), "x") == batchDefault })
	if m.calls != 1 || m.largest != batchDefault {
		t.Errorf("%d calls, the largest of %d", m.calls, m.largest)
	}
	run(t, path, many(2*batchDefault+10))
	testenv.Until(t, "all arrived", func() bool { return strings.Count(m.state(), "x") == 2*batchDefault+10 })
	if m.calls != 4 || m.resets != 1 {
		t.Errorf("%d calls, %d resets", m.calls, m.resets)
	}
}

// TestPrune: the change log shrinks in steps, a feed that is further does not
// mind, and one that comes late finds all rows all the same.
func TestPrune(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	db := open(t, path)
	m, f := follow(t, path)
	m.await(t, "map[]")
	const entries = 2*pruneStep + 10
	run(t, path, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT OR REPLACE INTO functions(k,v) SELECT 'k'||(i%%3), 'x' FROM n", entries))
	testenv.Until(t, "the feed has read all of it", func() bool { return f.Seq() == entries })
	steps := 1
	for more := true; more; steps++ {
		var err error
		if more, err = db.Prune(t.Context(), entries-4); err != nil {
			t.Fatal(err)
		}
	}
	c := <-db.turn
	var left, first int64
	err := c.h.conn.QueryRowContext(t.Context(), "SELECT count(*), min(seq) FROM baton_changes").Scan(&left, &first)
	db.turn <- c
	if err != nil || left != 5 || first != entries-4 || steps != 4 {
		t.Errorf("%d entries from %d in %d steps: %v", left, first, steps-1, err)
	}
	late, _ := follow(t, path)
	late.await(t, "map[k0:x k1:x k2:x]")
	put(t, db, "k0", "6")
	late.await(t, "map[k0:6 k1:x k2:x]")
	m.await(t, "map[k0:6 k1:x k2:x]")
	if m.resets != 1 {
		t.Errorf("%d resets", m.resets)
	}
	// Pruned beyond what a feed has seen: it reads all rows.
	run(t, path, "BEGIN; DELETE FROM functions WHERE k='k1'; DELETE FROM baton_changes; INSERT INTO functions VALUES('z','1',0); COMMIT")
	m.await(t, "map[k0:6 k2:x z:1]")
}

// TestRandomStatements: after any statements, the sink has what the table has.
func TestRandomStatements(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	m.await(t, "map[]")
	var seed [2]uint64
	seed[0] = uint64(time.Now().UnixNano())
	next := func(n int) int {
		seed[0] ^= seed[0] << 13
		seed[0] ^= seed[0] >> 7
		seed[0] ^= seed[0] << 17
		return int(seed[0] % uint64(n))
	}
	t.Logf("seed %d", seed[0])
	h, err := openHandle(t.Context(), path, busyWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for round := range 30 {
		for range 1 + next(10) {
			k, l, v, r := string(rune('a'+next(6))), string(rune('a'+next(6))), fmt.Sprint(next(1000)), 1+next(8)
			s := []string{
				"INSERT OR REPLACE INTO functions(k,v) VALUES('" + k + "','" + v + "')",
				fmt.Sprintf("INSERT OR REPLACE INTO functions(rowid,k,v) VALUES(%d,'%s','%s')", r, k, v),
				"UPDATE OR REPLACE functions SET k='" + l + "' WHERE k='" + k + "'",
				fmt.Sprintf("UPDATE OR REPLACE functions SET rowid=%d WHERE k='%s'", r, k),
				fmt.Sprintf("UPDATE OR REPLACE functions SET k='%s',rowid=%d,v='%s' WHERE k='%s'", l, r, v, k),
				"DELETE FROM functions WHERE k='" + k + "'",
				"UPDATE OR IGNORE functions SET k='" + l + "'",
			}[next(7)]
			if _, err := h.conn.ExecContext(t.Context(), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
		rows, err := db.List(t.Context(), "", 100)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, kv := range rows {
			want[kv.Key] = kv.Value
		}
		testenv.Until(t, fmt.Sprintf("round %d is delivered: %v", round, want), func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return maps.Equal(m.rows, want)
		})
	}
	if m.resets != 1 {
		t.Errorf("%d resets", m.resets)
	}
}

func TestLongTexts(t *testing.T) {
	t.Parallel()
	_, db, m := start(t)
	m.await(t, "map[]")
	put(t, db, strings.Repeat("k", 1<<20), strings.Repeat("v", 4<<20))
	testenv.Until(t, "the row arrived, cut", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.rows) == 1 && len(m.rows[strings.Repeat("k", 4096)]) == 64<<10+1
	})
}

func TestSinkEndsRun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	db := open(t, path)
	refusal := errors.New("no more")
	m := &mirror{refuse: refusal}
	f := feed(t, path)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(context.Background(), m) }() // ended by the sink's refusal
	m.await(t, "map[]")
	put(t, db, "a", "1")
	if err := <-ended; err != refusal {
		t.Errorf("run: %v", err)
	}
}

// TestSeqAndWake: a writer learns when its change is with the sink.
func TestSeqAndWake(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	db := open(t, path)
	m, f := follow(t, path)
	m.await(t, "map[]")
	for i := range 20 {
		seq, err := db.Apply(t.Context(), []KVChange{{KV: KV{"a", fmt.Sprint(i)}}, {KV: KV{Key: "b"}, Deleted: true}})
		if err != nil {
			t.Fatal(err)
		}
		f.Wake()
		testenv.Until(t, "the change is with the sink", func() bool { return f.Seq() >= seq })
		if got := m.state(); got != fmt.Sprintf("map[a:%d]", i) {
			t.Fatal(got)
		}
	}
}

func TestDB(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "faas_meta.db")
	db := open(t, path)
	if err := db.Delete(ctx, "nothing"); !errors.Is(err, ErrNoRow) {
		t.Errorf("delete of a missing row: %v", err)
	}
	put(t, db, "b", "1")
	put(t, db, "a", "'; DROP TABLE functions; --")
	put(t, db, "c", "3")
	if v, found, err := db.Get(ctx, "a"); v != "'; DROP TABLE functions; --" || !found || err != nil {
		t.Errorf("get: %q, %v, %v", v, found, err)
	}
	if rows, err := db.List(ctx, "a", 1); fmt.Sprint(rows) != "[{b 1}]" || err != nil {
		t.Errorf("list: %v, %v", rows, err)
	}
	if err := db.Delete(ctx, "a"); err != nil {
		t.Error(err)
	}
	if _, found, err := db.Get(ctx, "a"); found || err != nil {
		t.Errorf("get of a deleted row: %v, %v", found, err)
	}
	if rows, err := db.List(ctx, "", 10); fmt.Sprint(rows) != "[{b 1} {c 3}]" || err != nil {
		t.Errorf("list: %v, %v", rows, err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := db.Apply(gone, []KVChange{{KV: KV{Key: "x"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, found, _ := db.Get(ctx, "x"); found {
		t.Error("a cancelled change was made")
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if err := db.Put(ctx, "a", "1"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none", "x.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open without a folder: %v", err)
	}
}

// TestCancelInMidStatement: a writer whose context ends while it waits for
// another process's lock leaves a DB that works.
func TestCancelInMidStatement(t *testing.T) {
	t.Parallel()
	path, db, _ := start(t)
	h, err := openHandle(t.Context(), path, busyWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if _, err := h.conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := db.Put(ctx, "a", "1"); err == nil {
		t.Error("a write beside another writer's transaction")
	}
	if _, err := h.conn.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	put(t, db, "a", "2")
	if v, _, err := db.Get(t.Context(), "a"); v != "2" || err != nil {
		t.Errorf("%q %v", v, err)
	}
}

// TestWritersTakeTurns: many goroutines and two connections, no lost write.
func TestWritersTakeTurns(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	second := open(t, path)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 10 {
				if err := []*DB{db, second}[i%2].Put(context.Background(), fmt.Sprintf("k%d-%d", i, j), "v"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	testenv.Until(t, "80 rows", func() bool { return strings.Count(m.state(), ":v") == 80 })
}

// BenchmarkVisible: from a committed change to its arrival at the sink.
func BenchmarkVisible(b *testing.B) {
	path := filepath.Join(b.TempDir(), "faas_meta.db")
	db, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	arrived := make(arrivals, 16)
	f := feed(b, path)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx, arrived) }() // stopped and waited for below
	<-arrived
	for b.Loop() {
		if err := db.Put(ctx, "a", "1"); err != nil {
			b.Fatal(err)
		}
		<-arrived
	}
	cancel()
	<-ended
}

// BenchmarkLook: a look that finds nothing.
func BenchmarkLook(b *testing.B) {
	path := filepath.Join(b.TempDir(), "faas_meta.db")
	db, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	f := feed(b, path)
	f.sink = make(arrivals, 16)
	defer f.close()
	for b.Loop() {
		if err := f.look(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReload: 100,000 rows are read and given to the sink.
func BenchmarkReload(b *testing.B) {
	path := filepath.Join(b.TempDir(), "faas_meta.db")
	db, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	changes := make([]KVChange, 100_000)
	for i := range changes {
		changes[i].KV = KV{fmt.Sprintf("POST:/api/%036d", i), `{"name":"f","runtime":"wasm","module":"functions/00000000-0000-0000-0000-000000000000/1/module.wasm"}`}
	}
	if _, err := db.Apply(b.Context(), changes); err != nil {
		b.Fatal(err)
	}
	f := feed(b, path)
	f.sink = make(arrivals, 1)
	defer f.close()
	for b.Loop() {
		f.loaded = false
		if err := f.look(b.Context()); err != nil {
			b.Fatal(err)
		}
		<-f.sink.(arrivals)
	}
}

type arrivals chan struct{}

func (a arrivals) Reset([]KV) error        { a <- struct{}{}; return nil }
func (a arrivals) Change([]KVChange) error { a <- struct{}{}; return nil }
func (a arrivals) Trouble(error)           {}
