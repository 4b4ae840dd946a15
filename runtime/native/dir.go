package native

import (
	"errors"
	"fmt"
	"io"
	"os"

	"baton/sandbox"
)

// leftMax bounds the files that are removed after one request.
const leftMax = 10_000

// openDir opens the private working directory, for emptyDir.
func openDir() (*os.File, error) {
	dir, err := os.Open(".")
	if err != nil {
		return nil, fmt.Errorf("working directory: %w", err)
	}
	return dir, nil
}

// emptyDir removes what is in the working directory, which dir is: what a request leaves
// there must not reach the next. False: something stays. empty_dir of entry.c does the same.
func emptyDir(dir *os.File) bool {
	for removed := 0; removed < leftMax; {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return false
		}
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			return false
		}
		for _, name := range names {
			if err := sandbox.RemoveAll(name); err != nil {
				return false
			}
		}
		removed += len(names)
	}
	return false
}
