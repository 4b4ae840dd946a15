package deploy

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/route"
	"baton/route/sqlite"
)

// A backup is one tar archive with these entries, all of them files, in this order:
//
//	baton-backup.json                  what it is: a BackupInfo
//	faas_meta.db                       the database, as it was at one moment
//	baton.toml, …                      settings that lie in the data directory
//	functions/<id>/<version>/…         the artifacts that the database names
//	import/…                           what was put there by hand
//	SHA256SUMS                         of all before it, as sha256sum prints them
//
// It holds neither the admin token nor logs nor caches.
const (
	backupInfoName = "baton-backup.json"
	backupSumsName = "SHA256SUMS"
	databaseName   = "faas_meta.db"

	// backupFormat is what this release writes, and the newest that it reads.
	backupFormat = 1

	// backupTries bounds how often a copy begins anew because an artifact went
	// meanwhile: a version's files stay for a minute after it was dropped, so that
	// takes a slow copy and busy deployers.
	backupTries = 3

	// rowsPage is how many rows are read at a time.
	rowsPage = 1000
)

// BackupInfo is what a backup says of itself.
type BackupInfo struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of baton
	Created time.Time `json:"created"`
}

// BackupContent is how much is in a backup.
type BackupContent struct {
	Functions int   `json:"functions"` // that were deployed
	Versions  int   `json:"versions"`  // of them
	Files     int   `json:"files"`
	Bytes     int64 `json:"bytes"` // of the files
}

// BackupOptions say what is copied, and where to.
type BackupOptions struct {
	Data     string   // the data directory; a server may run on it
	File     string   // the archive; one that is there is replaced, whole or not at all
	Settings []string // names of files in the data directory that may be there
	Version  string   // of this baton
	Now      time.Time
}

// errVanished says that the files of a version went while they were copied.
var errVanished = errors.New("the files of a version were removed while they were copied")

// Backup writes a backup of a data directory, mode 0600. It is of one moment: the
// database is copied in one transaction, and artifacts never change. Only what
// lies in import is read as it comes.
//
// Nothing is left of it after an error, but for a kill: then a file or folder
// .baton-backup-* beside File.
func Backup(ctx context.Context, o BackupOptions) (content BackupContent, err error) {
	if o.Data, err = filepath.Abs(o.Data); err != nil {
		return content, fmt.Errorf("backup: %w", err)
	}
	target, err := filepath.Abs(o.File)
	if err != nil {
		return content, fmt.Errorf("backup: %w", err)
	}
	if target == o.Data || strings.HasPrefix(target, o.Data+string(filepath.Separator)) {
		return content, fmt.Errorf("backup: %s lies in the data directory, which would become part of itself: write it elsewhere", o.File)
	}
	if info, err := os.Stat(o.Data); err == nil && int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		// Root could, and might leave files of the database that the server cannot open.
		return content, fmt.Errorf("backup: %s belongs to user %d, and this process runs as %d: run it as that user", o.Data, info.Sys().(*syscall.Stat_t).Uid, os.Geteuid())
	}
	if info, err := os.Lstat(target); err == nil && !info.Mode().IsRegular() {
		return content, fmt.Errorf("backup: %s is there, and no file: %s", o.File, info.Mode().Type())
	}
	work, err := os.MkdirTemp(filepath.Dir(target), ".baton-backup-") // 0700
	if err != nil {
		return content, fmt.Errorf("backup: %w", err)
	}
	content, err = backupTo(ctx, o, work, target)
	if e := os.RemoveAll(work); err == nil && e != nil {
		err = e
	}
	if err != nil {
		return BackupContent{}, fmt.Errorf("backup: %w", err)
	}
	return content, nil
}

func backupTo(ctx context.Context, o BackupOptions, work, target string) (content BackupContent, err error) {
	temporary := filepath.Join(work, "backup.tar")
	for try := 0; ; try++ {
		content, err = backupOnce(ctx, o, work, temporary)
		if !errors.Is(err, errVanished) || try+1 == backupTries {
			break
		}
	}
	if err != nil {
		return content, err
	}
	if err := os.Rename(temporary, target); err != nil {
		return content, err
	}
	return content, syncDir(filepath.Dir(target))
}

// backupOnce writes one archive.
func backupOnce(ctx context.Context, o BackupOptions, work, to string) (content BackupContent, err error) {
	copied := filepath.Join(work, databaseName)
	for _, left := range []string{copied, to} {
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return content, err
		}
	}
	db := sqlite.OpenLater(filepath.Join(o.Data, databaseName))
	err = db.Snapshot(ctx, copied)
	if e := db.Close(); err == nil && e != nil {
		err = e
	}
	if errors.Is(err, sqlite.ErrMissing) {
		return content, fmt.Errorf("there is no database in %s: is it a data directory? (%w)", o.Data, err)
	} else if err != nil {
		return content, err
	}
	kept, folders, err := namedFolders(ctx, copied, o.Data)
	if err != nil {
		return content, err
	}
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return content, err
	}
	b := &backupWriter{ctx: ctx, archive: tar.NewWriter(file)}
	err = b.write(o, copied, kept, folders)
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	ids := map[string]bool{}
	for _, v := range kept {
		ids[v.ID] = true
	}
	content = BackupContent{Functions: len(ids), Versions: len(kept), Files: b.files, Bytes: b.bytes}
	return content, err
}

// namedFolders reads a copy of the database: the versions that are kept, and the
// other folders below functions that rows name, relative.
func namedFolders(ctx context.Context, database, data string) (kept []sqlite.KeptVersion, folders []string, err error) {
	db, err := sqlite.Open(database)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if e := db.Close(); err == nil {
			err = e
		}
	}()
	if kept, err = db.KeptVersions(ctx); err != nil {
		return nil, nil, err
	}
	own := map[string]bool{}
	for _, v := range kept {
		if !validID(v.ID) || v.Number < 1 {
			return nil, nil, fmt.Errorf("a version in the database is none: %q %d", v.ID, v.Number)
		}
		own[versionFolder(v.ID, v.Number)] = true
	}
	after := ""
	for {
		rows, err := db.List(ctx, after, rowsPage)
		if err != nil {
			return nil, nil, err
		}
		for _, row := range rows {
			after = row.Key
			if folder := rowFolder(row, data); folder != "" && !own[folder] {
				own[folder] = true
				folders = append(folders, folder)
			}
		}
		if len(rows) < rowsPage {
			slices.Sort(folders)
			return kept, folders, nil
		}
	}
}

// versionFolder is where the files of a version lie, with slashes.
func versionFolder(id string, number int) string {
	return path.Join("functions", id, fmt.Sprint(number))
}

// rowFolder is the folder below functions that a row's module is in; empty: the
// row is refused, or names something else.
func rowFolder(row sqlite.KV, data string) string {
	d, err := route.ParseRow(row.Key, row.Value)
	if err != nil {
		return ""
	}
	file, err := route.ResolveModule(data, d.Module)
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(data, file)
	if err != nil {
		return ""
	}
	parts := strings.Split(filepath.ToSlash(rel), "/")
	if len(parts) < 4 || parts[0] != "functions" {
		return ""
	}
	return path.Join(parts[:3]...)
}

// backupWriter writes entries and remembers their sums.
type backupWriter struct {
	ctx     context.Context
	archive *tar.Writer
	sums    strings.Builder
	files   int
	bytes   int64
}

func (b *backupWriter) write(o BackupOptions, database string, kept []sqlite.KeptVersion, folders []string) error {
	info, err := json.MarshalIndent(BackupInfo{Format: backupFormat, Version: o.Version, Created: o.Now.UTC()}, "", "  ")
	if err != nil {
		return err
	}
	if err := b.text(backupInfoName, append(info, '\n')); err != nil {
		return err
	}
	if _, _, err := b.file(databaseName, database); err != nil {
		return err
	}
	for _, name := range o.Settings {
		if _, _, err := b.file(name, filepath.Join(o.Data, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, v := range kept {
		tree, err := b.folder(o.Data, versionFolder(v.ID, v.Number))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("version %d of %s: %w", v.Number, v.ID, errVanished)
		} else if err != nil {
			return err
		}
		if tree.digest != v.Digest {
			// They go at once: a folder that was read while they went is not there any more.
			if _, err := os.Lstat(filepath.Join(o.Data, versionFolder(v.ID, v.Number))); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("version %d of %s: %w", v.Number, v.ID, errVanished)
			}
			return fmt.Errorf("the files of version %d of function %s are not those that were deployed: they are damaged; deploy it anew, or remove it, and try again", v.Number, v.ID)
		}
	}
	for _, folder := range append(folders, "import") {
		// A row may name what is not there: it is refused, here and when restored.
		if _, err := b.folder(o.Data, folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := b.text(backupSumsName, []byte(b.sums.String())); err != nil {
		return err
	}
	return b.archive.Close()
}

// folder writes the files below a folder of the data directory.
func (b *backupWriter) folder(data, folder string) (tree, error) {
	dir := filepath.Join(data, filepath.FromSlash(folder))
	d := newTreeDigest()
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !e.Type().IsRegular() {
			return err // links and sockets are nobody's artifact
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		info, sum, err := b.file(path.Join(folder, filepath.ToSlash(rel)), file)
		if err != nil {
			return err
		}
		d.add(rel, info.Mode(), info.Size(), sum)
		return nil
	})
	return d.tree(), err
}

// text writes an entry of ours.
func (b *backupWriter) text(name string, text []byte) error {
	sum := sha256.Sum256(text)
	if err := b.archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o600}); err != nil {
		return err
	}
	if _, err := b.archive.Write(text); err != nil {
		return err
	}
	b.count(name, int64(len(text)), sum[:])
	return nil
}

func (b *backupWriter) count(name string, size int64, sum []byte) {
	b.files++
	b.bytes += size
	b.sums.WriteString(hex.EncodeToString(sum) + "  " + name + "\n")
}

// file writes an entry from a file, which is never reached through a link.
func (b *backupWriter) file(name, from string) (info fs.FileInfo, sum []byte, err error) {
	if err := b.ctx.Err(); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: want a file, got %s", name, info.Mode().Type())
	}
	if !validBackupName(name) {
		return nil, nil, fmt.Errorf("%q: a file of this name cannot be restored: rename it", name)
	}
	if err := b.archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm() & 0o700)}); err != nil {
		return nil, nil, err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(b.archive, h), io.LimitReader(f, info.Size()))
	if err != nil {
		return nil, nil, fmt.Errorf("copy %s: %w", name, err)
	}
	if n != info.Size() {
		return nil, nil, fmt.Errorf("copy %s: it was changed meanwhile: try again", name)
	}
	sum = h.Sum(nil)
	b.count(name, n, sum)
	return info, sum, nil
}
