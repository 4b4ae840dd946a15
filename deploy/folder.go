package deploy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/uuid"
)

// validID: the only form of an id that ever becomes a path.
func validID(id string) bool {
	u, err := uuid.Parse(id)
	return err == nil && u.String() == id // lower case, with hyphens
}

// folderOf is where the files of a version lie. A wrong id or number is a fault
// of ours: they come from Reserve and from rows that validID has passed.
func (d *Deployer) folderOf(id string, number int) string {
	if !validID(id) || number < 1 {
		panic("deploy: no version of a function: " + strconv.Quote(id) + " " + strconv.Itoa(number))
	}
	return filepath.Join(d.functions, id, strconv.Itoa(number))
}

// tree is what lies in a folder: a digest of its names, modes and contents, and
// how much that is.
type tree struct {
	digest string
	size   int64
}

// digestTree reads a whole folder. Only files and folders may be in it.
//
// The digest is SHA-256 over, for each file, ascending by path: the path's
// length (8 bytes, big-endian), the path, a byte that is 1 when it can be
// executed, and the SHA-256 of its content.
func digestTree(dir string) (tree, error) {
	d := newTreeDigest()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s: want a file or folder, got %s", e.Name(), e.Type())
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		one := sha256.New()
		n, err := io.Copy(one, f)
		if err != nil {
			return err
		}
		d.add(rel, info.Mode(), n, one.Sum(nil))
		return nil
	})
	return d.tree(), err
}

// treeDigest makes a tree of files that come ascending by path, as WalkDir gives
// them.
type treeDigest struct {
	all  hash.Hash
	size int64
}

func newTreeDigest() *treeDigest { return &treeDigest{all: sha256.New()} }

// add takes a file: its relative path, mode, size and SHA-256.
func (d *treeDigest) add(rel string, mode fs.FileMode, size int64, sum []byte) {
	d.size += size
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(rel)))
	d.all.Write(length[:])
	io.WriteString(d.all, rel)
	d.all.Write([]byte{byte(mode.Perm() >> 6 & 1)})
	d.all.Write(sum)
}

func (d *treeDigest) tree() tree {
	return tree{digest: hex.EncodeToString(d.all.Sum(nil)), size: d.size}
}

// seal makes a folder's files unwritable and everything in it durable.
func seal(dir string) error {
	var folders []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			folders = append(folders, path)
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o400) | info.Mode().Perm()&0o100
		err = f.Chmod(mode)
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- { // the deepest first
		if err := syncDir(folders[i]); err != nil {
			return err
		}
	}
	return nil
}

// linkTree makes to, which must not be there, a folder with the same files as
// from. They are the same files: an artifact is never written again.
func linkTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			return os.Mkdir(target, 0o700)
		case e.Type().IsRegular():
			return os.Link(path, target)
		}
		return fmt.Errorf("%s: want a file or folder, got %s", rel, e.Type())
	})
}

// install makes the finished folder from the one of a version. It appears whole
// or not at all, and is durable when install returns.
func (d *Deployer) install(from, id string, number int) error {
	if err := seal(from); err != nil {
		return err
	}
	d.step("sealed")
	to := d.folderOf(id, number)
	parent := filepath.Dir(to)
	if err := os.Mkdir(parent, 0o700); err == nil {
		if err := syncDir(d.functions); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	d.step("parent made")
	// What is there was never named by a row: the number is new.
	if err := removeAll(to); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d.step("renamed")
	return syncDir(parent)
}

// uninstall removes the files of a version, and the function's folder with the
// last of them.
func (d *Deployer) uninstall(id string, number int) error {
	to := d.folderOf(id, number)
	if err := d.takeAway(to); err != nil {
		return err
	}
	parent := filepath.Dir(to)
	if err := os.Remove(parent); err == nil {
		return syncDir(d.functions)
	}
	// Others are in it, or it is not there.
	if err := syncDir(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// takeAway removes a folder at once, for who reads it meanwhile (a backup): it is there,
// whole, or it is not. What is left of it in tmp is removed at the next start. On a
// disk without room for the folder in tmp it is removed where it is.
func (d *Deployer) takeAway(folder string) error {
	aside, err := os.MkdirTemp(d.tmp, workPrefix)
	if err != nil {
		return removeAll(folder)
	}
	_ = os.Chmod(folder, 0o700) // only who may write to a folder may move it
	err = os.Rename(folder, filepath.Join(aside, "gone"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(removeAll(folder), removeAll(aside))
	}
	return removeAll(aside)
}

// removeAll is os.RemoveAll for folders that somebody made unwritable.
func removeAll(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}
