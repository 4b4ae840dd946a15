package sandbox

import (
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveAll is os.RemoveAll for what a child has left, whose directories may
// have any mode. Nothing changes it meanwhile: the child has ended. Links are not followed.
func RemoveAll(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // it is read, and its entries removed, after this
		}
		return nil
	})
	return os.RemoveAll(path)
}
