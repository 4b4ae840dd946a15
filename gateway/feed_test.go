package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"baton/route/sqlite"
)

func TestPruneShortensTheLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), databaseName)
	db, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var changes []sqlite.KVChange
	for i := range 25_000 { // more than two steps of Prune
		changes = append(changes, sqlite.KVChange{KV: sqlite.KV{Key: fmt.Sprintf("GET:/%d", i), Value: "{}"}})
	}
	seq, err := db.Apply(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{path: path}
	if err := f.pruneOnce(t.Context(), seq-pruneKeep); err != nil {
		t.Fatal(err)
	}
	if more, err := db.Prune(t.Context(), seq-pruneKeep); err != nil || more {
		t.Errorf("more is left to prune: %v, %v", more, err)
	}
}

func TestPruneMakesNoDatabase(t *testing.T) {
	t.Parallel()
	f := &feed{path: filepath.Join(t.TempDir(), databaseName)}
	if err := f.pruneOnce(t.Context(), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(f.path); err == nil {
		t.Error("a database was made")
	}
}
