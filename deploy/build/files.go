package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// copyTree copies the folder from to the new folder to: folders and regular
// files, nothing followed, without what skip names. The result is ours alone:
// modes 0700 and 0600, and executable files stay so.
//
// The bounds are those of an unpacked upload.
func copyTree(to, from string, skip func(string, fs.DirEntry) bool) error {
	limits := DefaultLimits()
	var files int
	var size int64
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read sources: %w", err)
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if name != "." && skip != nil && skip(name, d) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		target := filepath.Join(to, name)
		if d.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if files++; files > limits.Entries {
			return tooLarge("more than %d files", limits.Entries)
		}
		n, err := copyFile(target, path, limits.Bytes-size)
		size += n
		return err
	})
}

// copyFile copies a file of at most max bytes, never through a link.
func copyFile(to, from string, max int64) (n int64, err error) {
	return copyOpened(to, func() (*os.File, error) { return os.OpenFile(from, openSource, 0) }, max)
}

// openSource opens what may be anything: no link is followed, no pipe waited for.
const openSource = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// copyOpened is copyFile from what open opens.
func copyOpened(to string, open func() (*os.File, error), max int64) (n int64, err error) {
	in, err := open()
	if err != nil {
		return 0, fmt.Errorf("copy source: %w", err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, fmt.Errorf("copy source: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, bad("%s is no file", quoted(filepath.Base(in.Name())))
	}
	perm := fs.FileMode(0o600)
	if info.Mode()&0o111 != 0 {
		perm = 0o700
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return 0, fmt.Errorf("copy source: %w", err)
	}
	n, err = io.Copy(out, io.LimitReader(in, max+1))
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		return n, fmt.Errorf("copy source: %w", err)
	}
	if n > max {
		return n, tooLarge("more than %d bytes of files", DefaultLimits().Bytes)
	}
	return n, nil
}

// publishFile copies what open opens to the new file to, readable by all who reach it
// and flushed to the disk.
func publishFile(to string, open func() (*os.File, error)) error {
	if _, err := copyOpened(to, open, artifactBytesMax); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	info, err := out.Stat()
	if err == nil {
		if info.Mode()&0o100 != 0 {
			perm = 0o755
		}
		err = out.Chmod(perm)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// removeAll removes a folder that a build has written to, whatever modes it
// gave to what it made.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
			if err != nil { // it could not be read: now it can
				_ = removeAll(path)
				return fs.SkipDir
			}
		}
		return nil
	})
	return os.RemoveAll(dir)
}
