package build

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// folderOf writes files below a new folder; a name that ends in "/" is a folder.
func folderOf(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPackAndExtract(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, map[string]string{
		"main.go": "package main", "lib/a.go": "package lib", "run.sh": "#!/bin/sh\n", "descriptor.json": "{}", "empty/": "",
		".git/HEAD": "x", "lib/__pycache__/a.pyc": "x", "main.go~": "x", ".main.go.swp": "x",
		"Cargo.toml": "x", "target/debug/big": "x", "lib/target/kept": "x", "env/pyvenv.cfg": "x", "env/bin/python": "x",
	})
	if err := os.Chmod(filepath.Join(dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := ReadTree(dir, "descriptor.json")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(tree.LeftOut)
	if want := []string{".git", ".main.go.swp", "env", "lib/__pycache__", "main.go~", "target"}; !slices.Equal(tree.LeftOut, want) {
		t.Errorf("left out %q, want %q", tree.LeftOut, want)
	}
	var first, second bytes.Buffer
	var read int64
	if err := tree.Pack(&first, func(n int64) { read = n }); err != nil {
		t.Fatal(err)
	}
	if read != tree.Bytes {
		t.Errorf("%d bytes were read of %d", read, tree.Bytes)
	}
	if err := tree.Pack(&second, nil); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the same files make other bytes, %v", err)
	}
	out := t.TempDir()
	if err := Extract(out, "source.tar.gz", &first, Limits{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := walkFiles(out, func(name string, d os.DirEntry) error {
		info, err := d.Info()
		if info.Mode()&0o100 != 0 {
			name += "*"
		}
		got = append(got, name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"Cargo.toml", "lib/a.go", "lib/target/kept", "main.go", "run.sh*"}; !slices.Equal(got, want) {
		t.Errorf("unpacked %q, want %q", got, want)
	}
}

func TestReadTreeLaw(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	deep := strings.Repeat("d/", limits.Depth) + "file"
	sparse := func(dir, name string, size int64) {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = errors.Join(f.Truncate(size), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, law := range []struct {
		name  string
		files map[string]string
		also  func(dir string)
		err   string // a part of it; empty: none
		large bool
	}{
		{name: "one file", files: map[string]string{"a.c": "x"}},
		{name: "nothing", files: map[string]string{"empty/": ""}, err: "no files"},
		{name: "the descriptor alone", files: map[string]string{"descriptor.json": "{}"}, err: "no files"},
		{name: "a link", files: map[string]string{"a.c": "x"}, err: `"b.c" is a link`, also: func(dir string) {
			if err := os.Symlink("a.c", filepath.Join(dir, "b.c")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a link in what is left out", files: map[string]string{"a.c": "x", ".git/x": ""}, also: func(dir string) {
			if err := os.Symlink("a.c", filepath.Join(dir, ".git", "link")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "the deepest file", files: map[string]string{deep[2:]: "x"}},
		{name: "a deeper file", files: map[string]string{deep: "x"}, err: "folders deep", large: true},
		{name: "the largest file", files: map[string]string{"a.c": "x"}, also: func(dir string) { sparse(dir, "big", limits.FileBytes) }},
		{name: "a larger file", files: map[string]string{"a.c": "x"}, also: func(dir string) { sparse(dir, "big", limits.FileBytes+1) }, err: `"big" has`, large: true},
		{name: "too much together", files: map[string]string{"a.c": "x"}, also: func(dir string) {
			sparse(dir, "one", limits.FileBytes)
			sparse(dir, "two", limits.FileBytes)
		}, err: "more than", large: true},
	} {
		dir := folderOf(t, law.files)
		if law.also != nil {
			law.also(dir)
		}
		_, err := ReadTree(dir, "descriptor.json")
		var refused *Error
		switch {
		case law.err == "" && err != nil:
			t.Errorf("%s: %v", law.name, err)
		case law.err != "" && (!errors.As(err, &refused) || !strings.Contains(refused.Detail, law.err)):
			t.Errorf("%s: %v, want %q", law.name, err, law.err)
		case errors.Is(err, ErrTooLarge) != law.large:
			t.Errorf("%s: %v; too large: %v", law.name, err, law.large)
		}
	}
}

func TestTreeNotices(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, map[string]string{"a.c": "xy", "b/c.c": "z"})
	read := func() *Tree {
		tree, err := ReadTree(dir)
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := read()
	if !before.Equal(read()) {
		t.Error("a tree that nobody touched is another one")
	}
	if err := os.Chtimes(filepath.Join(dir, "a.c"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if before.Equal(read()) {
		t.Error("a file that was written is not noticed")
	}
	before = read()
	write("d.c", "x")
	if before.Equal(read()) {
		t.Error("a new file is not noticed")
	}
	before = read()
	write("a.c", "longer")
	if err := before.Pack(io.Discard, nil); !errors.Is(err, errChanged) {
		t.Errorf("a file that grew: %v, want %v", err, errChanged)
	}
	before = read()
	if err := os.Remove(filepath.Join(dir, "b", "c.c")); err != nil {
		t.Fatal(err)
	}
	if err := before.Pack(io.Discard, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
}

func TestOneFolder(t *testing.T) {
	t.Parallel()
	for _, law := range []struct {
		files map[string]string
		want  bool
	}{
		{map[string]string{"src/a.c": "x"}, true},
		{map[string]string{"src/a.c": "x", "src/b/c.c": "x"}, true},
		{map[string]string{"src/a.c": "x", "src.c": "x"}, false},
		{map[string]string{"src/a.c": "x", "srd/a.c": "x"}, false},
		{map[string]string{"a.c": "x"}, false},
	} {
		tree, err := ReadTree(folderOf(t, law.files))
		if err != nil || tree.OneFolder() != law.want {
			t.Errorf("%v: %v, %v; want %v", law.files, tree.OneFolder(), err, law.want)
		}
	}
}
