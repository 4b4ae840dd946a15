package build

import (
	"archive/tar"
	"compress/gzip"
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
)

// Tree is the files of a folder that are to be uploaded, as they were when it
// was read. It holds no descriptor.
type Tree struct {
	LeftOut []string // what is not uploaded though it is there, relative, with slashes
	Bytes   int64    // of all files

	dir   string
	files []treeFile // in the order of a walk: those of one folder stand together
}

type treeFile struct {
	name  string // relative, with slashes
	size  int64
	mode  fs.FileMode // 0600 or 0700
	mtime time.Time
}

// leftOut are names that no program needs: of version control, of editors and
// desktops, of interpreters' caches.
var leftOut = []string{".git", ".hg", ".svn", ".jj", ".idea", ".vscode", "__pycache__", ".DS_Store"}

// isLeftOut tells what is not uploaded. dir is the folder that it is in.
func isLeftOut(dir string, d fs.DirEntry) bool {
	name := d.Name()
	beside := func(path ...string) bool {
		_, err := os.Lstat(filepath.Join(append([]string{dir}, path...)...))
		return err == nil
	}
	switch {
	case slices.Contains(leftOut, name), !d.IsDir() && (strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp")):
		return true
	case d.IsDir() && name == "target": // what cargo builds
		return beside("Cargo.toml")
	case d.IsDir(): // a virtual environment of Python, which is of this machine
		return beside(name, "pyvenv.cfg")
	}
	return false
}

// ReadTree lists the files of a folder. except names files of the folder itself
// that are not part of it: the descriptor. The folder is bounded as an unpacked
// upload is; links, and all that is neither file nor folder, are refused, as the
// server would refuse them: an *Error with reason BadSource. dir itself may be a
// link. Empty folders are not part of the tree.
func ReadTree(dir string, except ...string) (*Tree, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	limits := DefaultLimits()
	t := &Tree{dir: dir}
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read the folder: %w", err)
		}
		relative, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(relative)
		switch {
		case name == "." || slices.Contains(except, name):
			return nil
		case isLeftOut(filepath.Dir(file), d):
			t.LeftOut = append(t.LeftOut, name)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case len(name) > limits.NameBytes:
			return tooLarge("a path of %d bytes, at most %d are allowed: %s…", len(name), limits.NameBytes, quoted(name[:32]))
		case strings.Count(name, "/") >= limits.Depth:
			return tooLarge("%s is more than %d folders deep", quoted(name), limits.Depth)
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			return &Error{Reason: BadSource, Detail: fmt.Sprintf("%s is %s: only files and folders can be uploaded", quoted(name), kindOf(d.Type())),
				Hint: "put the file itself there, or remove it"}
		}
		if len(t.files) >= limits.Entries {
			return tooLarge("more than %d files", limits.Entries)
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("read the folder: %w", err)
		}
		if info.Size() > limits.FileBytes {
			return tooLarge("%s has %d bytes, at most %d are allowed", quoted(name), info.Size(), limits.FileBytes)
		}
		if t.Bytes += info.Size(); t.Bytes > limits.Bytes {
			return tooLarge("more than %d bytes", limits.Bytes)
		}
		mode := fs.FileMode(0o600)
		if info.Mode()&0o111 != 0 {
			mode = 0o700
		}
		t.files = append(t.files, treeFile{name, info.Size(), mode, info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(t.files) == 0 {
		return nil, bad("there are no files in it")
	}
	return t, nil
}

// Equal tells whether two trees are of the same folder, with the same files,
// none of them written since.
func (t *Tree) Equal(other *Tree) bool {
	return t.dir == other.dir && slices.EqualFunc(t.files, other.files, func(a, b treeFile) bool {
		return a.name == b.name && a.size == b.size && a.mode == b.mode && a.mtime.Equal(b.mtime)
	})
}

// OneFolder tells whether all files are in one folder of the folder. An archive
// of such a tree is unpacked as that folder's content; see Extract.
func (t *Tree) OneFolder() bool {
	first, _, inside := strings.Cut(t.files[0].name, "/")
	return inside && strings.HasPrefix(t.files[len(t.files)-1].name, first+"/")
}

// Pack writes the tree as a .tar.gz. The same files make the same bytes. read,
// which may be nil, is told how many of the files' bytes have been packed.
//
// A file that is not what it was when the tree was read is an error.
func (t *Tree) Pack(w io.Writer, read func(bytes int64)) error {
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	var done int64
	for _, f := range t.files {
		if err := t.packFile(archive, f); err != nil {
			return fmt.Errorf("pack %s: %w", f.name, err)
		}
		if done += f.size; read != nil {
			read(done)
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zipped.Close()
}

// errChanged says that somebody writes where we read.
var errChanged = errors.New("it was changed while it was read: try again")

func (t *Tree) packFile(archive *tar.Writer, f treeFile) error {
	file, err := os.OpenFile(filepath.Join(t.dir, filepath.FromSlash(f.name)), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != f.size {
		return errChanged
	}
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Clean(f.name), Size: f.size, Mode: int64(f.mode)}); err != nil {
		return err
	}
	n, err := io.Copy(archive, io.LimitReader(file, f.size))
	if err == nil && n < f.size {
		err = errChanged
	}
	return err
}
