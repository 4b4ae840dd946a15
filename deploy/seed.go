package deploy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"baton/route"
)

// folders of a data directory, all 0700. run is not among them: the process that
// serves makes it anew.
var folders = []string{"functions", "import", "logs", "cache"}

// MakeTree makes a data directory and its folders, as far as they are missing.
// An empty directory is made private; one that holds something and that others
// can reach is refused, for they may have put it there.
func MakeTree(data string) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	info, err := os.Stat(data)
	if err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		entries, err := os.ReadDir(data)
		if err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("data directory %s: other users can reach it (mode %04o): look at what is in it, then `chmod 700 %s`", data, mode, data)
		}
		if err := os.Chmod(data, 0o700); err != nil {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	for _, name := range folders {
		if err := os.Mkdir(filepath.Join(data, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make data directory: %w", err)
		}
	}
	return nil
}

// Rows is the functions table, as far as seeding needs it.
type Rows interface {
	// Get returns the value of a key; found is false when there is no such row.
	Get(ctx context.Context, key string) (value string, found bool, err error)
	// Put inserts or replaces a row, durably.
	Put(ctx context.Context, key, value string) error
}

// Seed is a set of functions that share one artifact: the bundled demo.
type Seed struct {
	Data        string // the data directory, made by MakeTree
	Module      []byte // the artifact: a WASI module
	Descriptors fs.FS  // *.json in its root, one descriptor each, with method and path
	Rows        Rows
}

// Seeded says what Plant did. Keys are ascending.
type Seeded struct {
	Module  string   `json:"module"`  // the artifact, relative to the data directory
	Added   []string `json:"added"`   // keys of rows that were not there
	Updated []string `json:"updated"` // … that were planted earlier, now with this artifact
	Kept    []string `json:"kept"`    // … that are what they should be, or somebody's own
}

// Plant writes the artifact and then the rows that name it.
//
// It may be called again at any time, also while the data directory is served: a
// row that somebody changed is left alone, and one that an earlier Plant wrote
// and that differs in nothing but its artifact gets this one. The artifact's id
// comes of its content, so an artifact is never changed under a running function.
func (s Seed) Plant(ctx context.Context) (Seeded, error) {
	if !bytes.HasPrefix(s.Module, []byte("\x00asm")) {
		return Seeded{}, errors.New("seed functions: the artifact is no WebAssembly module")
	}
	id := artifactID(s.Module)
	// Slashes: the name in the descriptor, not the one in the file system.
	done := Seeded{Module: path.Join("functions", id, "1", "module.wasm"), Added: []string{}, Updated: []string{}, Kept: []string{}}
	descriptors, err := s.read(done.Module)
	if err != nil {
		return Seeded{}, fmt.Errorf("seed functions: %w", err)
	}
	if err := s.writeArtifact(id); err != nil {
		return Seeded{}, fmt.Errorf("seed functions: write artifact: %w", err)
	}
	for _, d := range descriptors {
		key, value := d.Method+":"+d.Path, string(d.AppendJSON(nil))
		old, found, err := s.Rows.Get(ctx, key)
		if err != nil {
			return Seeded{}, fmt.Errorf("seed functions: read row %s: %w", key, err)
		}
		list := &done.Added
		if found {
			if old == value || !s.planted(key, old, value) {
				done.Kept = append(done.Kept, key)
				continue
			}
			list = &done.Updated
		}
		if err := s.Rows.Put(ctx, key, value); err != nil {
			return Seeded{}, fmt.Errorf("seed functions: write row %s: %w", key, err)
		}
		*list = append(*list, key)
	}
	return done, nil
}

// read parses the descriptors with module as their artifact, in ascending order
// of their rows' keys. What they say of a module themselves is a placeholder.
func (s Seed) read(module string) ([]*route.Descriptor, error) {
	names, err := fs.Glob(s.Descriptors, "*.json")
	if err != nil {
		return nil, err
	}
	var all []*route.Descriptor
	for _, name := range names {
		text, err := fs.ReadFile(s.Descriptors, name)
		if err != nil {
			return nil, err
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fields["module"] = module
		if text, err = json.Marshal(fields); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		d, err := route.ParseDescriptor(text)
		if err == nil && (d.Method == "" || d.Path == "") {
			err = errors.New("want a method and a path")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b *route.Descriptor) int {
		return strings.Compare(a.Method+":"+a.Path, b.Method+":"+b.Path)
	})
	return all, nil
}

// planted says whether the row's value old is one that an earlier Plant wrote:
// the same as new but for an artifact that is one of ours.
func (s Seed) planted(key, old, new string) bool {
	was, err := route.ParseRow(key, old)
	if err != nil {
		return false
	}
	is, err := route.ParseRow(key, new)
	if err != nil {
		return false
	}
	if !strings.HasPrefix(was.Module, "functions/") {
		return false
	}
	was.Module = is.Module
	return string(was.AppendJSON(nil)) == string(is.AppendJSON(nil))
}

// artifactID is the id of an artifact that nobody uploaded: a version 5 UUID of
// its content, the same on every machine.
func artifactID(module []byte) string {
	sum := sha256.Sum256(module)
	return uuid.NewSHA1(uuid.NameSpaceOID, sum[:]).String()
}

// writeArtifact makes the artifact durable before any row names it. It appears
// whole or not at all.
func (s Seed) writeArtifact(id string) error {
	functions := filepath.Join(s.Data, "functions")
	folder := filepath.Join(functions, id, "1")
	name := filepath.Join(folder, "module.wasm")
	if old, err := os.ReadFile(name); err == nil && bytes.Equal(old, s.Module) {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(folder, ".module-") // 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(s.Module)
	if err == nil {
		err = temporary.Sync()
	}
	if e := temporary.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temporary.Name(), name)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return err
	}
	for _, dir := range []string{folder, filepath.Dir(folder), functions} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if e := dir.Close(); err == nil {
		err = e
	}
	return err
}
