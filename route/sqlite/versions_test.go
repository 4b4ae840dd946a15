package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

const versionsID = "67cdfd84-cf3e-42c4-9901-8b0fcf08237b"

// keep makes a version of the function "f" the active one.
func keep(t *testing.T, db *DB, value string, drop ...Drop) int {
	t.Helper()
	id, number, err := db.Reserve(t.Context(), "f", versionsID, time.UnixMilli(1000))
	if err != nil || id != versionsID {
		t.Fatalf("reserve: %s, %v", id, err)
	}
	row := KV{"GET:/f", value}
	if _, err := db.Switch(t.Context(), Switch{ID: id, Rows: []KVChange{{KV: row}}, Active: number, Drop: drop,
		New: &FunctionVersion{Number: number, Row: row, Descriptor: "{}", Source: "s", Digest: "d", Size: 7}}); err != nil {
		t.Fatal(err)
	}
	return number
}

func TestVersions(t *testing.T) {
	t.Parallel()
	path, db, m := start(t)
	if _, err := db.Deployed(t.Context(), "f"); !errors.Is(err, ErrNoRow) {
		t.Errorf("before: %v", err)
	}
	if n := keep(t, db, "one"); n != 1 {
		t.Errorf("first number %d", n)
	}
	m.await(t, "map[GET:/f:one]")
	now := time.UnixMilli(5000)
	keep(t, db, "two")
	keep(t, db, "three", Drop{1, now})
	d, err := db.Deployed(t.Context(), "f")
	want := Deployed{ID: versionsID, Name: "f", Versions: []FunctionVersion{
		{Number: 2, Row: KV{"GET:/f", "two"}, Descriptor: "{}", Source: "s", Digest: "d", Size: 7, Created: time.UnixMilli(1000)},
		{Number: 3, Row: KV{"GET:/f", "three"}, Descriptor: "{}", Source: "s", Digest: "d", Size: 7, Created: time.UnixMilli(1000), Active: true},
	}}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("deployed: %+v, %v", d, err)
	}
	if a := d.Active(); a == nil || a.Number != 3 {
		t.Errorf("active: %+v", a)
	}
	for _, c := range []struct {
		law    string
		at     time.Time
		making bool
		want   int
	}{{"a dropped version before its time", now.Add(-time.Millisecond), false, 0}, {"at its time", now, false, 1}, {"none is being made", now, true, 1}} {
		if all, err := db.Leftovers(t.Context(), c.at, c.making); err != nil || len(all) != c.want {
			t.Errorf("%s: %v, %v", c.law, all, err)
		}
	}
	if _, n, err := db.Reserve(t.Context(), "f", "other", now); err != nil || n != 4 {
		t.Errorf("reserve: %d, %v", n, err)
	}
	if all, err := db.Leftovers(t.Context(), now.Add(-time.Hour), true); err != nil || len(all) != 1 || all[0] != (Folder{versionsID, 4}) {
		t.Errorf("one is being made: %v, %v", all, err)
	}
	// A number is used once, also when nothing came of it.
	if err := db.Removed(t.Context(), Folder{versionsID, 4}); err != nil {
		t.Error(err)
	}
	if n := keep(t, db, "five"); n != 5 {
		t.Errorf("number after one of which nothing came: %d", n)
	}
	if err := db.Removed(t.Context(), Folder{versionsID, 5}); err != nil {
		t.Error(err)
	}
	if kept, err := db.Kept(t.Context(), versionsID, 5); err != nil || !kept {
		t.Errorf("a kept version was removed: %v, %v", kept, err)
	}
	// Our tables hold what cannot be made again: a repair of the schema leaves them.
	run(t, path, "DROP TRIGGER baton_inserted", "ALTER TABLE baton_versions ADD COLUMN later TEXT")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	if all, err := db.AllDeployed(t.Context()); err != nil || len(all) != 1 || all[0] != (Summary{versionsID, "f", 5, 3}) {
		t.Errorf("after a repair: %+v, %v", all, err)
	}
	if _, err := db.Switch(t.Context(), Switch{ID: versionsID, Forget: true, Rows: []KVChange{{KV: KV{Key: "GET:/f"}, Deleted: true}}}); err != nil {
		t.Error(err)
	}
	if _, err := db.Deployed(t.Context(), "f"); !errors.Is(err, ErrNoRow) {
		t.Errorf("forgotten: %v", err)
	}
}

// A Switch is all or nothing.
func TestSwitchIsOneTransaction(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "db"))
	keep(t, db, "one")
	put(t, db, "GET:/other", "x")
	for _, c := range []struct {
		law    string
		s      Switch
		wanted error
	}{
		{"a row is another one", Switch{Expect: []KVChange{{KV: KV{"GET:/other", "y"}}}}, ErrChanged},
		{"a row is there", Switch{Expect: []KVChange{{KV: KV{Key: "GET:/other"}, Deleted: true}}}, ErrChanged},
		{"a row is not there", Switch{Expect: []KVChange{{KV: KV{"GET:/none", "x"}}}}, ErrChanged},
		{"a version was not reserved", Switch{New: &FunctionVersion{Number: 9}}, nil},
	} {
		c.s.ID, c.s.Rows = versionsID, []KVChange{{KV: KV{"GET:/f", "changed"}}, {KV: KV{"GET:/new", "changed"}}}
		_, err := db.Switch(t.Context(), c.s)
		if err == nil || c.wanted != nil && !errors.Is(err, c.wanted) {
			t.Errorf("%s: %v", c.law, err)
		}
		rows, err := db.List(t.Context(), "", 10)
		if err != nil || fmt.Sprint(rows) != "[{GET:/f one} {GET:/other x}]" {
			t.Errorf("%s: rows %v, %v", c.law, rows, err)
		}
	}
}

func TestNamed(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "db"))
	for key, value := range map[string]string{
		"GET:/a": `{"name":"f"}`, "GET:/b": `{"name":"f","x":1}`, "GET:/c": `{"name":"g"}`, "GET:/d": `{"name":`, "GET:/e": `["f"]`, "GET:/f": `{"name":["f"]}`, "GET:/g": "",
	} {
		put(t, db, key, value)
	}
	for name, want := range map[string]string{"f": `[{GET:/a {"name":"f"}} {GET:/b {"name":"f","x":1}}]`, "h": "[]", "f' OR 1 --": "[]", `f"`: "[]"} {
		if rows, err := db.Named(t.Context(), name, 10); err != nil || fmt.Sprint(rows) != want {
			t.Errorf("%s: %v, %v", name, rows, err)
		}
	}
	if rows, err := db.Named(t.Context(), "f", 1); err != nil || len(rows) != 1 {
		t.Errorf("limit: %v, %v", rows, err)
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	path, db, _ := start(t)
	_, f := follow(t, path)
	for n := range 20 {
		seq, err := db.Apply(t.Context(), []KVChange{{KV: KV{"GET:/a", fmt.Sprint(n)}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Await(t.Context(), seq); err != nil || f.Seq() < seq {
			t.Fatalf("await %d: at %d, %v", seq, f.Seq(), err)
		}
	}
}
