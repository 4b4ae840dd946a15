package deploy

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/route/sqlite"
)

var settingNames = []string{"baton.toml", "baton.yaml"}

// backup writes one of a data directory, and returns its bytes.
func backup(t *testing.T, data string) []byte {
	t.Helper()
	to := filepath.Join(t.TempDir(), "b.tar")
	content, err := Backup(t.Context(), BackupOptions{Data: data, File: to, Settings: settingNames, Version: "0.0.0-test", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v; want mode 0600", info, err)
	}
	if left, _ := os.ReadDir(filepath.Dir(to)); len(left) != 1 {
		t.Errorf("beside the backup there is left: %v", left)
	}
	text, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if names := tarNames(t, text); len(names) != content.Files || names[0] != backupInfoName || names[1] != databaseName || names[len(names)-1] != backupSumsName {
		t.Errorf("the backup has %q, and says that it has %d files", names, content.Files)
	}
	return text
}

func tarNames(t *testing.T, text []byte) (names []string) {
	t.Helper()
	for _, e := range tarEntries(t, text) {
		names = append(names, e.header.Name)
	}
	return names
}

type tarEntry struct {
	header tar.Header
	text   []byte
}

func tarEntries(t *testing.T, text []byte) (all []tarEntry) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tarEntry{*h, b})
	}
}

// tarText is the archive of entries. sums: with the right last entry.
func tarText(t *testing.T, entries []tarEntry, sums bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	var all strings.Builder
	write := func(h tar.Header, text []byte) {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(text); err != nil {
				t.Fatal(err)
			}
		}
		sum := sha256.Sum256(text)
		all.WriteString(hex.EncodeToString(sum[:]) + "  " + h.Name + "\n")
	}
	for _, e := range entries {
		if e.header.Name != backupSumsName || !sums {
			write(e.header, e.text)
		}
	}
	if sums {
		write(tar.Header{Typeflag: tar.TypeReg, Name: backupSumsName}, []byte(all.String()))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// restore restores a backup; data is made when it is not there.
func restore(t *testing.T, data string, text []byte, force bool) (Restored, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "b.tar")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	return Restore(t.Context(), RestoreOptions{Data: data, File: file, Settings: settingNames, Force: force, Now: time.Now()})
}

// full is a desk with what a backup can have, and its database closed.
func fullDesk(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t, nil)
	d.deploy(`{"name":"a","runtime":"wasm","method":"GET","path":"/a"}`, "a1")
	d.deploy(`{"name":"a","runtime":"wasm","method":"GET","path":"/a"}`, "a2")
	d.deploy(`{"name":"b","runtime":"wasm","path":"/b/{id}"}`, "b1")
	for name, text := range map[string]string{"import/x/y.wasm": "by hand", "import/" + strings.Repeat("l", 120) + "/ü": "long", "baton.toml": "listen = ':1'\n",
		"functions/9f229938-d172-5529-86f9-4f6e139ce3bb/1/module.wasm": "planted", "functions/00000000-0000-4000-8000-000000000000/1/left": "nobody's", "admin.token": "secret"} {
		path := filepath.Join(d.data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for key, module := range map[string]string{"GET:/planted": "functions/9f229938-d172-5529-86f9-4f6e139ce3bb/1/module.wasm", "GET:/hand": "import/x/y.wasm",
		"GET:/none": "functions/9f229938-d172-5529-86f9-4f6e139ce3bc/1/module.wasm", "GET:/bad": "../x"} {
		if err := d.db.Put(t.Context(), key, `{"name":"n`+strings.ReplaceAll(key, "GET:/", "-")+`","runtime":"wasm","module":"`+module+`"}`); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	d := fullDesk(t)
	text := backup(t, d.data)
	for _, name := range tarNames(t, text) {
		if strings.Contains(name, "token") || strings.Contains(name, "left") {
			t.Errorf("%s is in the backup", name)
		}
	}
	data := filepath.Join(t.TempDir(), "data")
	done, err := restore(t, data, text, false)
	if err != nil {
		t.Fatal(err)
	}
	if done.Functions != 2 || done.Versions != 3 || done.Replaced != "" || done.BackupInfo.Version != "0.0.0-test" {
		t.Errorf("restored %+v", done)
	}
	for name, want := range map[string]string{"import/x/y.wasm": "by hand", "import/" + strings.Repeat("l", 120) + "/ü": "long", "baton.toml": "listen = ':1'\n",
		"functions/9f229938-d172-5529-86f9-4f6e139ce3bb/1/module.wasm": "planted"} {
		if got, err := os.ReadFile(filepath.Join(data, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// What was deployed goes on: the rows, the versions, the code, the way back.
	again := openDesk(t, data, nil)
	for _, name := range []string{"a", "b"} {
		before, err := d.Versions(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		after, err := again.Versions(t.Context(), name)
		if err != nil || !slices.Equal(before, after) {
			t.Errorf("%s: %+v, %v; want %+v", name, after, err, before)
		}
	}
	if _, err := again.Rollback(t.Context(), "a", 0, Conditions{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := again.serves("GET:/a"); got != "a1" {
		t.Errorf("after a rollback it serves %q", got)
	}
	if r := again.deploy(`{"name":"a","runtime":"wasm","method":"GET","path":"/a"}`, "a3"); r.Version != 3 {
		t.Errorf("the next version is %d, want 3", r.Version)
	}
	_ = filepath.WalkDir(data, func(path string, e fs.DirEntry, err error) error {
		if info, e := e.Info(); e == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be reached by others: %v", path, info.Mode())
		}
		return err
	})
	if left, _ := os.ReadDir(filepath.Join(data, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

// A backup that is made while versions come and go is whole: each is restored
// and checked.
func TestBackupWhileDeploying(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(o *Options) { o.Keep = 2; o.Linger = 10 * time.Millisecond })
	d.deploy(`{"name":"a","runtime":"wasm","path":"/a","timeout":0.001}`, "first")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { // ended by cancel, which the end of the test calls too
		n := 0
		for ; ctx.Err() == nil; n++ {
			r := request(t, `{"name":"a","runtime":"wasm","path":"/a","timeout":0.001}`, fmt.Sprint("code ", n))
			if _, err := d.Deploy(ctx, r); err != nil && ctx.Err() == nil {
				t.Errorf("deploy beside a backup: %v", err)
				break
			}
		}
		ended <- n
	}()
	whole := 0
	for whole < 5 && t.Context().Err() == nil {
		to := filepath.Join(t.TempDir(), "b.tar")
		_, err := Backup(t.Context(), BackupOptions{Data: d.data, File: to, Now: time.Now()})
		if errors.Is(err, errVanished) {
			continue // files of dropped versions stay 11 ms here, and a minute at least otherwise
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := restore(t, filepath.Join(t.TempDir(), "data"), text, false); err != nil {
			t.Fatal(err)
		}
		whole++
	}
	cancel()
	if n := <-ended; n < 2 {
		t.Errorf("only %d deploys ran beside the backups", n)
	}
}

// A version whose files go between the copy of the database and that of the
// files has the backup begin anew; one whose files were lost ends it.
func TestBackupOfLostFiles(t *testing.T) {
	t.Parallel()
	d := fullDesk(t)
	f, err := d.Get(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(d.data, "functions", f.ID)
	o := BackupOptions{Data: d.data, File: filepath.Join(t.TempDir(), "b.tar"), Now: time.Now()}
	if err := os.Rename(folder, folder+"-aside"); err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), o); !errors.Is(err, errVanished) {
		t.Errorf("files that are lost: %v", err)
	}
	if err := os.Rename(folder+"-aside", folder); err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(folder, "1", "module.wasm")
	if err := errors.Join(os.Chmod(module, 0o600), os.WriteFile(module, []byte("damaged"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), o); err == nil || !strings.Contains(err.Error(), "are damaged") {
		t.Errorf("files that are damaged: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(o.File)); len(left) != 0 {
		t.Errorf("a backup that came to nothing leaves %v", left)
	}
}

func TestBackupLaw(t *testing.T) {
	t.Parallel()
	d := fullDesk(t)
	dir := t.TempDir()
	old := filepath.Join(dir, "old.tar")
	if err := os.WriteFile(old, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(old, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, law := range []struct {
		name string
		ctx  context.Context
		data string
		file string
		err  string
	}{
		{"a file that is there is replaced", t.Context(), d.data, old, ""},
		{"a link is not followed", t.Context(), d.data, filepath.Join(dir, "link"), "no file"},
		{"a folder", t.Context(), d.data, dir, "no file"},
		{"inside of the data directory", t.Context(), d.data, filepath.Join(d.data, "import", "b.tar"), "write it elsewhere"},
		{"a folder that is not there", t.Context(), d.data, filepath.Join(dir, "none", "b.tar"), "no such file"},
		{"no data directory", t.Context(), t.TempDir(), filepath.Join(dir, "b.tar"), "is it a data directory?"},
		{"an end that was asked for", ended, d.data, filepath.Join(dir, "b.tar"), "canceled"},
	} {
		_, err := Backup(law.ctx, BackupOptions{Data: law.data, File: law.file, Now: time.Now()})
		if law.err == "" && err != nil || law.err != "" && (err == nil || !strings.Contains(err.Error(), law.err)) {
			t.Errorf("%s: %v, want %q", law.name, err, law.err)
		}
	}
	if info, err := os.Stat(old); err != nil || info.Mode().Perm() != 0o600 || info.Size() < 1000 {
		t.Errorf("the backup that replaced a file: %v, %v", info, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// Hostile and damaged archives change nothing and write nothing outside.
func TestRestoreLaw(t *testing.T) {
	t.Parallel()
	d := fullDesk(t)
	good := backup(t, d.data)
	entries := tarEntries(t, good)
	add := func(h tar.Header, text string) func([]tarEntry) []tarEntry {
		return func(all []tarEntry) []tarEntry {
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			return slices.Insert(all, 2, tarEntry{h, []byte(text)})
		}
	}
	at := func(name string) func([]tarEntry) int {
		return func(all []tarEntry) int {
			return slices.IndexFunc(all, func(e tarEntry) bool { return strings.HasSuffix(e.header.Name, name) })
		}
	}
	without := func(name string) func([]tarEntry) []tarEntry {
		return func(all []tarEntry) []tarEntry { i := at(name)(all); return slices.Delete(all, i, i+1) }
	}
	become := func(name, text string) func([]tarEntry) []tarEntry {
		return func(all []tarEntry) []tarEntry { all[at(name)(all)].text = []byte(text); return all }
	}
	for _, law := range []struct {
		name   string
		change func([]tarEntry) []tarEntry
		sums   bool // right ones are made
		err    string
	}{
		{"as it was made", func(all []tarEntry) []tarEntry { return all }, false, ""},
		{"one more in import", add(tar.Header{Name: "import/z"}, "z"), true, ""},
		{"one more without its sum", add(tar.Header{Name: "import/z"}, "z"), false, "is not of these files"},
		{"another text without its sum", become("y.wasm", "by hanD"), false, "a file's sum is not"},
		{"a path out", add(tar.Header{Name: "import/../../z"}, "z"), true, "may not be"},
		{"a path up", add(tar.Header{Name: "../z"}, "z"), true, "may not be"},
		{"an absolute path", add(tar.Header{Name: "/import/z"}, "z"), true, "may not be"},
		{"a path that is not clean", add(tar.Header{Name: "import//z"}, "z"), true, "may not be"},
		{"a backslash", add(tar.Header{Name: `import/a\b`}, "z"), true, "may not be"},
		{"a control character", add(tar.Header{Name: "import/a\nb"}, "z"), true, "may not be"},
		{"a link", add(tar.Header{Name: "import/z", Typeflag: tar.TypeSymlink, Linkname: "/"}, ""), true, "is no file"},
		{"a hard link", add(tar.Header{Name: "import/z", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}, ""), true, "is no file"},
		{"a device", add(tar.Header{Name: "import/z", Typeflag: tar.TypeChar}, ""), true, "is no file"},
		{"a folder's entry", add(tar.Header{Name: "import/z/", Typeflag: tar.TypeDir}, ""), true, "is no file"},
		{"a property", add(tar.Header{Name: "import/z", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}}, "z"), true, "has the property"},
		{"a token", add(tar.Header{Name: "admin.token"}, "z"), true, "does not belong there"},
		{"a lock", add(tar.Header{Name: "lock"}, "z"), true, "does not belong there"},
		{"a log", add(tar.Header{Name: "logs/z"}, "z"), true, "may not be"},
		{"a cache", add(tar.Header{Name: "cache/z"}, "z"), true, "may not be"},
		{"a log of the database", add(tar.Header{Name: databaseName + "-wal"}, "z"), true, "does not belong there"},
		{"a file beside versions", add(tar.Header{Name: "functions/z"}, "z"), true, "may not be"},
		{"an id that is none", add(tar.Header{Name: "functions/x/1/z"}, "z"), true, "may not be"},
		{"a version that is none", add(tar.Header{Name: "functions/9f229938-d172-5529-86f9-4f6e139ce3bb/01/z"}, "z"), true, "may not be"},
		{"the same twice", add(tar.Header{Name: "import/x/y.wasm"}, "z"), true, "comes twice"},
		{"a file and a folder", add(tar.Header{Name: "import/x"}, "z"), true, "a file and a folder"},
		{"a folder and a file", func(all []tarEntry) []tarEntry {
			return slices.Insert(all, len(all)-1, tarEntry{tar.Header{Typeflag: tar.TypeReg, Name: "import/x"}, nil})
		}, true, "a file and a folder"},
		{"no sums", without(backupSumsName), false, "ends too early"},
		{"no first entry", without(backupInfoName), true, "does not begin with"},
		{"no database", without(databaseName), true, "there is no " + databaseName},
		{"a database that is none", become(databaseName, strings.Repeat("x", 8192)), true, "its database"},
		{"a version without its files", func(all []tarEntry) []tarEntry {
			f, _ := d.Get(context.Background(), "b")
			return slices.DeleteFunc(all, func(e tarEntry) bool { return strings.HasPrefix(e.header.Name, "functions/"+f.ID) })
		}, true, "are not those of version 1"},
		{"a version with another file", become("/1/data/more", "evil"), true, "are not those of version"},
		{"a later format", become(backupInfoName, `{"format":2,"version":"9.9"}`), true, "use that release or a later one"},
		{"no format", become(backupInfoName, `{}`), true, "does not say what it is"},
		{"something behind the end", func(all []tarEntry) []tarEntry {
			return append(all, tarEntry{tar.Header{Typeflag: tar.TypeReg, Name: "import/z"}, nil})
		}, false, "something behind"},
	} {
		parent := t.TempDir()
		data := filepath.Join(parent, "data")
		if err := os.Mkdir(data, 0o700); err != nil {
			t.Fatal(err)
		}
		text := tarText(t, law.change(slices.Clone(entries)), law.sums)
		_, err := restore(t, data, text, false)
		if law.err == "" {
			if err != nil {
				t.Errorf("%s: %v", law.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), law.err) {
			t.Errorf("%s: %v, want %q", law.name, err, law.err)
		}
		if law.name != "a later format" && !errors.Is(err, ErrBadBackup) {
			t.Errorf("%s: %v is not said to be a damaged backup", law.name, err)
		}
		var left []string
		_ = filepath.WalkDir(parent, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				left = append(left, path)
			}
			return err
		})
		if len(left) > 0 {
			t.Errorf("%s: it has written %q", law.name, left)
		}
	}
	// Cut anywhere, it is refused; every one of these ends within an entry or
	// between two.
	for n := 0; n < len(good); n += 512 {
		if n%(64<<10) != 0 && n > 8<<10 && n < len(good)-8<<10 {
			continue
		}
		if _, err := restore(t, filepath.Join(t.TempDir(), "data"), good[:n], false); !errors.Is(err, ErrBadBackup) && n < len(good)-1024 {
			t.Errorf("cut after %d of %d bytes: %v", n, len(good), err)
		}
	}
}

func TestRestoreOverWhatIsThere(t *testing.T) {
	t.Parallel()
	text := backup(t, fullDesk(t).data)
	for _, name := range []string{"faas_meta.db", "admin.token", "whatever"} {
		data := t.TempDir()
		if err := os.WriteFile(filepath.Join(data, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := restore(t, data, text, false); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("over %s: %v", name, err)
		}
		if got, err := os.ReadDir(data); err != nil || len(got) != 1 {
			t.Errorf("over %s: there is %v now, %v", name, got, err)
		}
	}
	old := newDesk(t, nil)
	old.deploy(`{"name":"old","runtime":"wasm","path":"/old"}`, "old")
	old.end()
	for name, text := range map[string]string{"admin.token": "mine", "baton.yaml": "workers: 1", "logs/l": "log"} {
		if err := os.WriteFile(filepath.Join(old.data, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(old.data, "tmp", restorePrefix+"killed", "import"), 0o700); err != nil {
		t.Fatal(err)
	}
	done, err := restore(t, old.data, text, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"admin.token": "mine", "logs/l": "log", "import/x/y.wasm": "by hand", "baton.toml": "listen = ':1'\n",
		filepath.Base(done.Replaced) + "/baton.yaml": "workers: 1"} {
		if got, err := os.ReadFile(filepath.Join(old.data, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(old.data, "baton.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there are two configuration files: %v", err)
	}
	// What was put aside is whole.
	db, err := sqlite.Open(filepath.Join(done.Replaced, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	kept, err := db.KeptVersions(t.Context())
	if err != nil || len(kept) != 1 {
		t.Fatalf("%v, %v", kept, err)
	}
	if tree, err := digestTree(filepath.Join(done.Replaced, filepath.FromSlash(versionFolder(kept[0].ID, 1)))); err != nil || tree.digest != kept[0].Digest {
		t.Errorf("the old files: %v, %v", tree, err)
	}
	if left, _ := os.ReadDir(filepath.Join(old.data, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func FuzzRestore(f *testing.F) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: backupInfoName, Size: 12})
	_, _ = io.WriteString(w, `{"format":1}`)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "import/x", Size: 1})
	_, _ = io.WriteString(w, `x`)
	_ = w.Close()
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		parent := t.TempDir()
		data := filepath.Join(parent, "data")
		if _, err := restore(t, data, text, false); err == nil {
			t.Error("a text without a database was restored")
		}
		if got, err := os.ReadDir(parent); err != nil || len(got) != 1 {
			t.Errorf("it has written beside the data directory: %v, %v", got, err)
		}
	})
}

// hookContext calls f once, when a backup has begun to write its archive.
type hookContext struct {
	context.Context
	dir  string
	once sync.Once
	f    func()
}

func (c *hookContext) Err() error {
	if found, _ := filepath.Glob(filepath.Join(c.dir, ".baton-backup-*", "backup.tar")); len(found) > 0 {
		c.once.Do(c.f)
	}
	return c.Context.Err()
}

// A function that is removed, files and all, after the database was copied: the
// backup begins anew, and is of the later moment.
func TestBackupBeginsAnew(t *testing.T) {
	t.Parallel()
	d := fullDesk(t)
	f, err := d.Get(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx := &hookContext{Context: t.Context(), dir: dir, f: func() {
		if err := d.Delete(context.Background(), "b", Conditions{}); err != nil {
			t.Error(err)
		}
		if err := removeAll(filepath.Join(d.data, "functions", f.ID)); err != nil {
			t.Error(err)
		}
	}}
	to := filepath.Join(dir, "b.tar")
	content, err := Backup(ctx, BackupOptions{Data: d.data, File: to, Settings: settingNames, Now: time.Now()})
	if err != nil || content.Functions != 1 || content.Versions != 2 {
		t.Fatalf("%+v, %v; want the one function that is left", content, err)
	}
	text, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := restore(t, filepath.Join(t.TempDir(), "data"), text, false); err != nil || done.Functions != 1 {
		t.Errorf("restored: %+v, %v", done, err)
	}
}

func TestBackupOfAnotherUser(t *testing.T) {
	t.Parallel()
	testenv.NeedFeature(t, "root", os.Geteuid() == 0, errors.New("only root can give a folder away"))
	data := t.TempDir()
	if err := os.Chown(data, 1, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), BackupOptions{Data: data, File: filepath.Join(t.TempDir(), "b.tar"), Now: time.Now()}); err == nil || !strings.Contains(err.Error(), "belongs to user 1") {
		t.Errorf("another user's data directory: %v", err)
	}
}
