package build

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// packed is one entry of an archive for tests.
type packed struct {
	name, text string
	kind       byte  // of tar; 0: a file
	mode       int64 // 0: 0644
}

func tarOf(t testing.TB, entries ...packed) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.text))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if e.kind == tar.TypeSymlink || e.kind == tar.TypeLink {
			h.Linkname, h.Size = e.text, 0
		}
		if e.kind == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: e.kind, Name: e.name, PAXRecords: map[string]string{"comment": e.text}}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, e.text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zipOf(t testing.TB, entries ...packed) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		mode := fs.FileMode(0o644)
		if e.mode != 0 {
			mode = fs.FileMode(e.mode)
		}
		switch e.kind {
		case tar.TypeSymlink:
			mode |= fs.ModeSymlink
		case tar.TypeFifo:
			mode |= fs.ModeNamedPipe
		case tar.TypeChar:
			mode |= fs.ModeDevice | fs.ModeCharDevice
		case tar.TypeDir:
			mode |= fs.ModeDir
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, e.text); err != nil && e.kind != tar.TypeDir {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// tree lists what is in a folder: "name" → content, folders with a slash;
// executable files with a star.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", name, info.Mode())
			}
			all[name+"/"] = ""
			return nil
		case !d.Type().IsRegular():
			t.Errorf("%s is %v", name, d.Type())
			return nil
		case info.Mode() == 0o700:
			name += "*"
		case info.Mode() != 0o600:
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		text, err := os.ReadFile(path)
		all[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func TestExtract(t *testing.T) {
	t.Parallel()
	entries := []packed{{name: "go.mod", text: "module x\n"}, {name: "a/b/main.go", text: "package main\n"}, {name: "run.sh", text: "#!/bin/sh\n", mode: 0o4755}}
	want := map[string]string{"go.mod": "module x\n", "a/": "", "a/b/": "", "a/b/main.go": "package main\n", "run.sh*": "#!/bin/sh\n"}
	dotted := []packed{{name: "./", kind: tar.TypeDir}, {name: "./go.mod", text: "module x\n"}, {name: "./a/", kind: tar.TypeDir}, {name: "./a//b/main.go", text: "package main\n"}, {name: "run.sh", text: "#!/bin/sh\n", mode: 0o755}}
	var below []packed
	for _, e := range entries {
		below = append(below, packed{name: "my-function/src/" + e.name, text: e.text, mode: e.mode})
	}
	below = append(below, packed{name: "__MACOSX/my-function/._x", text: "junk"}, packed{name: "my-function/.DS_Store", text: "junk"})
	extended := append([]packed{{name: "pax_global_header", text: "a commit", kind: tar.TypeXGlobalHeader}}, entries...)
	for _, c := range []struct {
		name, file string
		data       []byte
		want       map[string]string
	}{
		{"a source file", "main.go", []byte("package main\n"), map[string]string{"main.go": "package main\n"}},
		{"a source file with a browser's path", `C:\work\main.go`, []byte("x"), map[string]string{"main.go": "x"}},
		{"a source file with a path", "../../etc/main.go", []byte("x"), map[string]string{"main.go": "x"}},
		{"a source file that looks like an archive", "main.c", []byte("PK\x03\x04"), map[string]string{"main.c": "PK\x03\x04"}},
		{"a zip", "x.zip", zipOf(t, entries...), want},
		{"a zip by its content", "blob", zipOf(t, entries...), want},
		{"a tar", "x.tar", tarOf(t, entries...), want},
		{"a tar.gz", "x.tar.gz", gzipOf(t, tarOf(t, entries...)), want},
		{"a tgz", "X.TGZ", gzipOf(t, tarOf(t, entries...)), want},
		{"a tgz by its content", "blob", gzipOf(t, tarOf(t, entries...)), want},
		{"a tar of .", "x.tar", tarOf(t, dotted...), want},
		{"a zip of .", "x.zip", zipOf(t, dotted...), want},
		{"a tar of one folder", "x.tar", tarOf(t, below...), want},
		{"a zip of one folder", "x.zip", zipOf(t, below...), want},
		{"git archive", "x.tgz", gzipOf(t, tarOf(t, extended...)), want},
		{"one folder with a folder of its name", "x.tar", tarOf(t, packed{name: "a/a/a", text: "x"}, packed{name: "a/b", text: "y"}), map[string]string{"a/": "", "a/a": "x", "b": "y"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, reader := range []io.Reader{bytes.NewReader(c.data), iotest.OneByteReader(bytes.NewReader(c.data)), iotest.DataErrReader(bytes.NewReader(c.data))} {
				dir := t.TempDir()
				if err := Extract(dir, c.file, reader, Limits{}); err != nil {
					t.Fatal(err)
				}
				if got := tree(t, dir); !same(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestExtractRefuses(t *testing.T) {
	t.Parallel()
	small := Limits{InputBytes: 100_000, Bytes: 50_000, FileBytes: 20_000, Entries: 5, NameBytes: 40, Depth: 3}
	zeros := strings.Repeat("\x00", 8<<20)
	many := make([]packed, 6)
	for i := range many {
		many[i] = packed{name: fmt.Sprint(i), text: "x"}
	}
	for _, c := range []struct {
		name    string
		entries []packed
		limits  Limits
		want    string
		large   bool
	}{
		{"a name that leads out", []packed{{name: "../x", text: "x"}}, Limits{}, "leads out", false},
		{"a name that leads out and in", []packed{{name: "a/../../x", text: "x"}}, Limits{}, "leads out", false},
		{"an absolute name", []packed{{name: "/etc/passwd", text: "x"}}, Limits{}, "absolute", false},
		{"a backslash", []packed{{name: `..\x`, text: "x"}}, Limits{}, "not allowed", false},
		{"a control character", []packed{{name: "a\nb", text: "x"}}, Limits{}, "not allowed", false},
		{"a link", []packed{{name: "x", text: "/etc/passwd", kind: tar.TypeSymlink}}, Limits{}, "a link", false},
		{"a link to a folder and a file in it", []packed{{name: "d", text: "/etc", kind: tar.TypeSymlink}, {name: "d/x", text: "x"}}, Limits{}, "a link", false},
		{"a device", []packed{{name: "x", kind: tar.TypeChar}}, Limits{}, "a device", false},
		{"a pipe", []packed{{name: "x", kind: tar.TypeFifo}}, Limits{}, "a pipe", false},
		{"the same name twice", []packed{{name: "x", text: "1"}, {name: "x", text: "2"}}, Limits{}, "twice", false},
		{"the same name, written otherwise", []packed{{name: "a/x", text: "1"}, {name: "a//./x", text: "2"}}, Limits{}, "twice", false},
		{"a file, then a folder", []packed{{name: "x", text: "1"}, {name: "x/y", text: "2"}}, Limits{}, "a file and a folder", false},
		{"a folder, then a file", []packed{{name: "x/y", text: "2"}, {name: "x", text: "1"}}, Limits{}, "twice", false},
		{"no files", []packed{{name: "x", kind: tar.TypeDir}}, Limits{}, "no files", false},
		{"a bomb", []packed{{name: "x", text: zeros}}, Limits{Ratio: 100}, "100 times its size", true},
		{"one file is too long", []packed{{name: "x", text: strings.Repeat("x", 20_001)}}, small, "more than 20000 bytes", true},
		{"all together are too long", []packed{{name: "a", text: zeros[:20_000]}, {name: "b", text: zeros[:20_000]}, {name: "c", text: zeros[:10_001]}}, small, "more than 50000 bytes together", true},
		{"too many", many, small, "at most 5 are allowed", true},
		{"too many folders", []packed{{name: "a/b/c", text: "x"}, {name: "d/e/f", text: "x"}}, small, "more than 5 files and folders", true},
		{"too deep", []packed{{name: "a/b/c/d", text: "x"}}, small, "at most 3", true},
		{"a long name", []packed{{name: strings.Repeat("n", 41), text: "x"}}, small, "at most 40", true},
		{"a long file name", []packed{{name: strings.Repeat("n", 256), text: "x"}}, Limits{}, "at most 255", true},
	} {
		for format, data := range map[string][]byte{"zip": zipOf(t, c.entries...), "tgz": gzipOf(t, tarOf(t, c.entries...))} {
			t.Run(c.name+", "+format, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				err := Extract(dir, "x."+format, bytes.NewReader(data), c.limits)
				want := c.want
				if c.name == "too many" && format == "tgz" {
					want = "more than 5 files and folders"
				}
				if reasonOf(err) != BadSource || !strings.Contains(err.Error(), want) || errors.Is(err, ErrTooLarge) != c.large {
					t.Errorf("got %v, want %q, too large: %t", err, want, c.large)
				}
				tree(t, dir) // only files and folders, whatever was refused
			})
		}
	}
}

func TestExtractRefusesTheRest(t *testing.T) {
	t.Parallel()
	one := packed{name: "x", text: strings.Repeat("text ", 100)}
	whole := zipOf(t, one)
	encrypted := bytes.Clone(whole)
	encrypted[bytes.Index(encrypted, []byte(zipDirectoryEntry))+8] |= 1
	crowded := zipOf(t, one)
	crowded = append(bytes.Repeat([]byte(zipDirectoryEntry), 1000), crowded...)
	large := make([]byte, 200_000)
	for i := range large { // does not pack
		large[i] = byte(rand.IntN(256))
	}
	for _, c := range []struct {
		name, file string
		data       []byte
		limits     Limits
		want       string
	}{
		{"hard link", "x.tar", tarOf(t, one, packed{name: "y", text: "x", kind: tar.TypeLink}), Limits{}, "a link"},
		{"encrypted", "x.zip", encrypted, Limits{}, "encrypted"},
		{"a directory of more entries than it says", "x.zip", crowded, Limits{Entries: 100}, "more than 100 files"},
		{"no zip", "x.zip", []byte("hello, this is text and no archive"), Limits{}, "damaged"},
		{"no tar", "x.tar", bytes.Repeat([]byte("hello "), 200), Limits{}, "damaged"},
		{"no gzip", "x.tgz", []byte("hello, this is text and no archive"), Limits{}, "damaged"},
		{"an empty zip", "x.zip", nil, Limits{}, "damaged"},
		{"an empty tar", "x.tar", nil, Limits{}, "no files"},
		{"an empty source", "x.go", nil, Limits{}, "empty"},
		{"a cut tgz", "x.tgz", gzipOf(t, tarOf(t, one))[:60], Limits{}, "damaged"},
		{"a long upload", "x.bin", large, Limits{InputBytes: 100_000}, "more than 100000 bytes"},
		{"a long zip", "x.zip", append(large, whole...), Limits{InputBytes: 100_000}, "more than 100000 bytes"},
		{"a long tgz", "x.tgz", gzipOf(t, tarOf(t, packed{name: "x", text: string(large)})), Limits{InputBytes: 100_000}, "more than 100000 bytes"},
		{"no name", "", []byte("x"), Limits{}, "file name"},
		{"a folder's name", "x/..", []byte("x"), Limits{}, "file name"},
		{"a NUL in the name", "x\x00.go", []byte("x"), Limits{}, "file name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := Extract(t.TempDir(), c.file, bytes.NewReader(c.data), c.limits)
			if reasonOf(err) != BadSource || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A connection that breaks is not the archive's fault.
func TestExtractTellsWhoseFault(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	for file, data := range map[string][]byte{
		"x.go":  []byte("package main\n"),
		"x.zip": zipOf(t, packed{name: "x", text: "x"}),
		"x.tar": tarOf(t, packed{name: "x", text: "x"}),
		"x.tgz": gzipOf(t, tarOf(t, packed{name: "x", text: "x"})),
	} {
		for _, cut := range []int{0, 3, 10, len(data) / 2} {
			err := Extract(t.TempDir(), file, io.MultiReader(bytes.NewReader(data[:cut]), iotest.ErrReader(broken)), Limits{})
			if !errors.Is(err, broken) || reasonOf(err) != "" {
				t.Errorf("%s after %d bytes: %v", file, cut, err)
			}
		}
	}
}

// The signature is counted at every split.
func TestZipSignatures(t *testing.T) {
	t.Parallel()
	pieces("PPK\x01\x02..PK\x01PK\x01\x02PK\x01\x02\x02PK\x05", func(parts ...string) {
		var z zipSignatures
		for _, part := range parts {
			_, _ = z.Write([]byte(part))
		}
		if z.n != 3 {
			t.Errorf("%q: %d", parts, z.n)
		}
	})
}

// FuzzExtract: whatever comes, nothing lies outside of the folder, and inside
// of it are only files and folders within the bounds.
func FuzzExtract(f *testing.F) {
	entries := []packed{{name: "a/b.go", text: "package b"}, {name: "c", text: "#!/bin/sh", mode: 0o755}, {name: "d/", kind: tar.TypeDir}}
	evil := []packed{{name: "../x", text: "x"}}
	link := []packed{{name: "l", text: "/etc", kind: tar.TypeSymlink}, {name: "l/x", text: "x"}}
	for _, e := range [][]packed{entries, evil, link} {
		f.Add("x.zip", zipOf(f, e...))
		f.Add("x.tar", tarOf(f, e...))
		f.Add("x.tgz", gzipOf(f, tarOf(f, e...)))
	}
	zip64 := zipOf(f, entries...)
	binary.LittleEndian.PutUint16(zip64[len(zip64)-12:], 0xffff)
	f.Add("x.zip", zip64)
	f.Add("main.go", []byte("package main"))
	f.Add("..", []byte("x"))
	limits := Limits{InputBytes: 1 << 20, Bytes: 1 << 20, FileBytes: 1 << 19, Entries: 50, Ratio: 50, NameBytes: 100, Depth: 4}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		outer := t.TempDir()
		dst := filepath.Join(outer, "dst")
		if err := os.Mkdir(dst, 0o700); err != nil {
			t.Fatal(err)
		}
		err := Extract(dst, name, bytes.NewReader(data), limits)
		if err != nil && reasonOf(err) != BadSource {
			t.Fatalf("an error that is nobody's: %v", err)
		}
		if left, _ := os.ReadDir(outer); len(left) != 1 {
			t.Fatalf("outside there is %v", left)
		}
		all := tree(t, dst)
		if len(all) > limits.Entries+1 {
			t.Fatalf("%d entries", len(all))
		}
		size := 0
		for _, text := range all {
			size += len(text)
		}
		if int64(size) > limits.Bytes+1 {
			t.Fatalf("%d bytes", size)
		}
		if err == nil && len(all) == 0 {
			t.Fatal("nothing, and no error")
		}
	})
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		files   map[string]string
		runtime string // empty: an error
		want    string // in what was assumed, or in the error
	}{
		{"a module of Go", map[string]string{"go.mod": "", "x.c": ""}, "go", "go.mod"},
		{"a crate", map[string]string{"Cargo.toml": "", "src/main.rs": ""}, "rust", "Cargo.toml"},
		{"a Go file", map[string]string{"main.go": "", "README.md": ""}, "go", "main.go"},
		{"C", map[string]string{"main.c": "", "x.h": "", "Makefile": ""}, "c", "main.c"},
		{"C++ with C", map[string]string{"main.cc": "", "x.c": ""}, "cpp", "main.cc"},
		{"PHP", map[string]string{"index.php": ""}, "php", "index.php"},
		{"composer", map[string]string{"composer.json": "", "x.py": ""}, "php", "composer.json"},
		{"Python", map[string]string{"app.py": "", "test/x.py": ""}, "python", "app.py"},
		{"sources below", map[string]string{"src/app.py": "", "data.txt": ""}, "python", "src/app.py"},
		{"dependencies do not count", map[string]string{"app.py": "", "vendor/x.php": "", ".git/x.go": ""}, "python", "app.py"},
		{"a module", map[string]string{"x.wasm": ""}, "wasm", "x.wasm"},
		{"a program", map[string]string{"run": "#!/bin/sh\n", "data": "x"}, "native", "run is a program"},
		{"two languages", map[string]string{"a.py": "", "b.php": ""}, "", "a.py (python), b.php (php)"},
		{"two programs", map[string]string{"a": "#!/bin/sh\n", "b": "\x7fELF"}, "", "a, b"},
		{"nothing", map[string]string{"README.md": ""}, "", "nothing in it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkDetect(t, folder(t, c.files), c.runtime, c.want)
		})
	}
	for name, c := range map[string]struct{ text, runtime, want string }{
		"x.go": {"", "go", "x.go"}, "x.CPP": {"", "cpp", "x.CPP"}, "a": {"#!/bin/sh\n", "native", "#!"}, "b": {"\x7fELF", "native", "ELF"},
		"c": {"\x00asm....", "wasm", "module"}, "d": {"<?php\n", "php", "<?php"}, "e": {"text", "", "no function"}, "f": {"", "", "no function"},
	} {
		t.Run("one file "+name, func(t *testing.T) {
			t.Parallel()
			checkDetect(t, filepath.Join(folder(t, map[string]string{name: c.text}), name), c.runtime, c.want)
		})
	}
	if _, _, _, err := Detect(filepath.Join(t.TempDir(), "not there")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func checkDetect(t *testing.T, path, want, text string) {
	t.Helper()
	runtime, handler, assumed, err := Detect(path)
	if want == "" {
		if reasonOf(err) != BadSource || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
		return
	}
	if err != nil || runtime != want || handler != "" || !slices.ContainsFunc(assumed, func(s string) bool { return strings.Contains(s, text) }) {
		t.Errorf("got %q, %q, %q, %v; want %s, %q", runtime, handler, assumed, err, want, text)
	}
}
