package sqlite

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestSnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := Open(filepath.Join(dir, "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Put(t.Context(), "GET:/a", "1"); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "b.db")
	if err := db.Snapshot(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	if err := db.Snapshot(t.Context(), to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if err := db.Put(t.Context(), "GET:/a", "2"); err != nil {
		t.Fatal(err)
	}
	copied, err := Open(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := copied.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if value, found, err := copied.Get(t.Context(), "GET:/a"); err != nil || !found || value != "1" {
		t.Errorf("the copy has %q, %v, %v; want what was there when it was made", value, found, err)
	}
	if err := copied.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(to + "-*"); len(left) > 0 {
		t.Errorf("beside the copy there is %v", left)
	}
}

// A page of the file that was overwritten is found, wherever it lies.
func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"GET:/a", "GET:/b", "GET:/c"} {
		if err := db.Put(t.Context(), key, string(make([]byte, 9000))+key); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	for i := range page {
		text[4*page+i] = 0xff
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err = Open(path)
	if err == nil {
		err = db.Check(t.Context())
		defer db.Close()
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged file: %v, want %v", err, ErrCorrupt)
	}
}
