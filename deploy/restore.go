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
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"baton/route/sqlite"
)

const (
	// restorePrefix is of the folder below <data>/tmp that a backup is unpacked in.
	restorePrefix = "restore-"

	// backupInfoMax bounds the first entry of a backup, in bytes.
	backupInfoMax = 4 << 10
	// backupEntriesMax bounds the entries: far above any data directory, and what
	// their names take in memory is below 200 MB.
	backupEntriesMax = 1 << 20
	// backupNameMax bounds the path of one, in bytes.
	backupNameMax = 1024
)

// ErrNotEmpty says that a data directory holds something, and nobody said that it
// is to be replaced.
var ErrNotEmpty = errors.New("the data directory is not empty")

// ErrBadBackup says that a file is no backup, or a damaged one. Nothing was
// changed then.
var ErrBadBackup = errors.New("no backup, or a damaged one")

func badBackup(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBadBackup, fmt.Sprintf(format, args...))
}

// RestoreOptions say what is restored, and where to.
type RestoreOptions struct {
	Data     string   // the data directory, which is there (0700) and which the caller holds
	File     *os.File // the archive, at its begin
	Settings []string // what files with settings may be called
	Force    bool     // what is there is put aside
	Now      time.Time
}

// Restored is what Restore did.
type Restored struct {
	BackupInfo
	BackupContent
	Replaced string `json:"replaced,omitempty"` // the folder with what was there before
}

// ReadBackupInfo reads what a backup says of itself: whether it is one that this
// release can restore. Of the file nothing more is looked at.
func ReadBackupInfo(r io.Reader) (BackupInfo, error) {
	archive := tar.NewReader(r)
	header, err := archive.Next()
	if err != nil || header.Name != backupInfoName || header.Size > backupInfoMax {
		return BackupInfo{}, badBackup("it does not begin with %s", backupInfoName)
	}
	text, err := io.ReadAll(io.LimitReader(archive, backupInfoMax))
	if err != nil {
		return BackupInfo{}, badBackup("%v", err)
	}
	return parseBackupInfo(text)
}

func parseBackupInfo(text []byte) (info BackupInfo, err error) {
	if err := json.Unmarshal(text, &info); err != nil || info.Format < 1 {
		return info, badBackup("%s does not say what it is", backupInfoName)
	}
	if info.Format > backupFormat {
		return info, fmt.Errorf("the backup has format %d, made by baton %s, and this one reads up to %d: use that release or a later one", info.Format, info.Version, backupFormat)
	}
	return info, nil
}

// Restore makes a data directory what it was when the backup was made. No server
// may run on it. The archive may be hostile: it is unpacked beside the data and
// checked, entry by entry, by its sums, its database and the digests of its
// versions, before anything of the data directory is touched.
//
// What is replaced is put aside, not deleted. The database comes last: a
// directory that has one is whole. The token, the logs and the caches of the
// directory stay as they are.
func Restore(ctx context.Context, o RestoreOptions) (done Restored, err error) {
	if err := o.checkEmpty(); err != nil {
		return done, err
	}
	if err := MakeTree(o.Data); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	tmp := filepath.Join(o.Data, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(tmp, restorePrefix+"*"))
	if err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	for _, dir := range left {
		if err := removeAll(dir); err != nil {
			return done, fmt.Errorf("restore: %w", err)
		}
	}
	work, err := os.MkdirTemp(tmp, restorePrefix)
	if err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if e := removeAll(work); err == nil && e != nil {
			err = e
		}
	}()
	r := &restoration{o: o, ctx: ctx, work: work, seen: map[string]bool{}}
	if err := r.unpack(); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	if err := r.check(); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	done = Restored{BackupInfo: r.info, BackupContent: r.content}
	if done.Replaced, err = r.moveIn(); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	return done, nil
}

// checkEmpty refuses a data directory with anything but what a restore makes.
func (o *RestoreOptions) checkEmpty() error {
	if o.Force {
		return nil
	}
	entries, err := os.ReadDir(o.Data)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != "lock" && name != "tmp" {
			return fmt.Errorf("restore: %w: %s has %s in it", ErrNotEmpty, o.Data, name)
		}
	}
	return nil
}

// restoration is one Restore.
type restoration struct {
	o       RestoreOptions
	ctx     context.Context
	work    string
	info    BackupInfo
	content BackupContent
	seen    map[string]bool // entries
	sums    strings.Builder // of the entries, as the last one must have them
	dirs    []string        // that were made, above those in them
}

// validBackupName: the only names of entries that ever become paths.
func validBackupName(name string) bool {
	if len(name) > backupNameMax || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) ||
		strings.Contains(name, "\\") || path.Clean(name) != name || !filepath.IsLocal(name) {
		return false
	}
	parts := strings.Split(name, "/")
	switch parts[0] {
	case "functions":
		if len(parts) < 4 || !validID(parts[1]) {
			return false
		}
		n, err := strconv.Atoi(parts[2])
		return err == nil && n > 0 && strconv.Itoa(n) == parts[2]
	case "import":
		return len(parts) > 1
	}
	return len(parts) == 1
}

// unpack writes the entries into the work folder.
func (r *restoration) unpack() error {
	info, err := r.o.File.Stat()
	if err != nil {
		return err
	}
	left := info.Size() // nothing is packed: no file is larger than the archive
	archive := tar.NewReader(r.o.File)
	for number := 0; ; number++ {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return badBackup("it ends too early")
		}
		if err != nil {
			return badBackup("entry %d: %v", number+1, err)
		}
		if left -= header.Size; header.Size < 0 || left < 0 || number >= backupEntriesMax {
			return badBackup("entry %d: the archive is too short for it, or has too many", number+1)
		}
		if err := checkBackupHeader(header); err != nil {
			return err
		}
		switch {
		case (number == 0) != (header.Name == backupInfoName):
			return badBackup("it does not begin with %s", backupInfoName)
		case r.seen[header.Name]:
			return badBackup("%q comes twice", header.Name)
		case number == 0:
			err = r.takeInfo(header, archive)
		case header.Name == backupSumsName:
			return r.takeSums(header, archive)
		case header.Name != databaseName && !strings.Contains(header.Name, "/") && !slices.Contains(r.o.Settings, header.Name):
			return badBackup("%q does not belong there", header.Name)
		default:
			err = r.takeFile(header, archive)
		}
		if err != nil {
			return err
		}
		r.seen[header.Name] = true
	}
}

// checkBackupHeader wants a file with a name that may be, and nothing of what a tar
// entry can have beside: links, devices, holes.
func checkBackupHeader(h *tar.Header) error {
	if h.Typeflag != tar.TypeReg {
		return badBackup("%q is no file", h.Name)
	}
	for key := range h.PAXRecords {
		if key != "path" && key != "size" {
			return badBackup("%q has the property %q", h.Name, key)
		}
	}
	if !validBackupName(h.Name) {
		return badBackup("the name %.100q may not be", h.Name)
	}
	return nil
}

func (r *restoration) count(name string, size int64, sum []byte) {
	r.content.Files++
	r.content.Bytes += size
	r.sums.WriteString(hex.EncodeToString(sum) + "  " + name + "\n")
}

func (r *restoration) takeInfo(header *tar.Header, from io.Reader) error {
	if header.Size > backupInfoMax {
		return badBackup("%s is too large", backupInfoName)
	}
	text, err := io.ReadAll(from)
	if err != nil {
		return badBackup("%s: %v", header.Name, err)
	}
	if r.info, err = parseBackupInfo(text); err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	r.count(header.Name, header.Size, sum[:])
	return nil
}

// takeSums reads the last entry: it says that nothing is missing or damaged.
func (r *restoration) takeSums(header *tar.Header, from *tar.Reader) error {
	want := r.sums.String()
	if header.Size != int64(len(want)) {
		return badBackup("%s is not of these files", backupSumsName)
	}
	got, err := io.ReadAll(from)
	if err != nil {
		return badBackup("%s: %v", header.Name, err)
	}
	if string(got) != want {
		return badBackup("a file's sum is not that in %s", backupSumsName)
	}
	sum := sha256.Sum256(got)
	r.count(header.Name, header.Size, sum[:])
	if _, err := from.Next(); !errors.Is(err, io.EOF) {
		return badBackup("there is something behind %s", backupSumsName)
	}
	return nil
}

func (r *restoration) takeFile(header *tar.Header, from io.Reader) error {
	to := filepath.Join(r.work, filepath.FromSlash(header.Name))
	if err := r.makeDirs(path.Dir(header.Name)); err != nil {
		return err
	}
	file, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|fs.FileMode(header.Mode)&0o100)
	if errors.Is(err, fs.ErrExist) {
		return badBackup("%q is a file and a folder", header.Name)
	} else if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(writeFault{file}, h), from)
	var fault *writeError
	if err != nil && !errors.As(err, &fault) {
		err = badBackup("%s: %v", header.Name, err)
	}
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	r.count(header.Name, n, h.Sum(nil))
	return nil
}

// writeFault tells an error of writing from one of reading.
type writeFault struct{ file *os.File }

type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

func (w writeFault) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

// makeDirs makes a folder and those above it.
func (r *restoration) makeDirs(name string) error {
	if name == "." || r.seen[name+"/"] {
		return nil
	}
	if err := r.makeDirs(path.Dir(name)); err != nil {
		return err
	}
	dir := filepath.Join(r.work, filepath.FromSlash(name))
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return badBackup("%q is a file and a folder", name)
	} else if err != nil {
		return err
	}
	r.seen[name+"/"] = true
	r.dirs = append(r.dirs, dir)
	return nil
}

// check looks at what was unpacked as a whole, and makes it durable.
func (r *restoration) check() error {
	if !r.seen[databaseName] {
		return badBackup("there is no %s", databaseName)
	}
	for _, name := range []string{"functions", "import"} {
		if err := r.makeDirs(name); err != nil {
			return err
		}
	}
	kept, err := r.checkDatabase()
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, v := range kept {
		if !validID(v.ID) || v.Number < 1 {
			return badBackup("a version in the database is none: %q %d", v.ID, v.Number)
		}
		folder := versionFolder(v.ID, v.Number)
		tree, err := digestTree(filepath.Join(r.work, filepath.FromSlash(folder)))
		if errors.Is(err, fs.ErrNotExist) || err == nil && tree.digest != v.Digest {
			return badBackup("the files in %s are not those of version %d", folder, v.Number)
		} else if err != nil {
			return err
		}
		ids[v.ID] = true
	}
	r.content.Functions, r.content.Versions = len(ids), len(kept)
	if err := seal(filepath.Join(r.work, "functions")); err != nil {
		return err
	}
	for _, dir := range slices.Backward(append([]string{r.work}, r.dirs...)) {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// checkDatabase reads all of the database, and leaves no log beside it.
func (r *restoration) checkDatabase() (kept []sqlite.KeptVersion, err error) {
	db, err := sqlite.Open(filepath.Join(r.work, databaseName))
	if err == nil {
		err = db.Check(r.ctx)
		if err == nil {
			kept, err = db.KeptVersions(r.ctx)
		}
		if e := db.Close(); err == nil && e != nil {
			err = e
		}
	}
	switch {
	case err != nil && r.ctx.Err() != nil, errors.Is(err, sqlite.ErrFull):
		return nil, err
	case err != nil:
		return nil, badBackup("its database: %v", err)
	}
	return kept, nil
}

// moveIn puts what was unpacked in the place of what is there, and says where
// that is now; empty: there was nothing.
func (r *restoration) moveIn() (aside string, err error) {
	var settings []string
	for _, name := range r.o.Settings {
		if r.seen[name] {
			settings = append(settings, name)
		}
	}
	replaced := []string{databaseName, databaseName + "-wal", databaseName + "-shm", "functions", "import"}
	if len(settings) > 0 { // two files with settings would be one too many
		replaced = append(replaced, r.o.Settings...)
	}
	// The database goes first and comes last: in between there is none.
	for _, name := range replaced {
		from := filepath.Join(r.o.Data, name)
		info, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() && os.Remove(from) == nil { // an empty folder
			continue
		}
		if err == nil && aside == "" {
			aside, err = os.MkdirTemp(r.o.Data, "replaced-"+r.o.Now.UTC().Format("20060102T150405Z-"))
		}
		if err == nil {
			err = os.Rename(from, filepath.Join(aside, name))
		}
		if err != nil {
			return aside, r.halfway(aside, err)
		}
	}
	if err := syncDir(r.o.Data); err != nil {
		return aside, r.halfway(aside, err)
	}
	for _, name := range append(append([]string{"functions", "import"}, settings...), databaseName) {
		if err := os.Rename(filepath.Join(r.work, name), filepath.Join(r.o.Data, name)); err != nil {
			return aside, r.halfway(aside, err)
		}
	}
	return aside, syncDir(r.o.Data)
}

// halfway says how to go on after a fault between the first rename and the last.
func (r *restoration) halfway(aside string, err error) error {
	if aside == "" {
		return err
	}
	return fmt.Errorf("%w; restore again with --force, or put back what lies in %s", err, aside)
}
