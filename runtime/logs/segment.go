package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// workersMax bounds the workers whose segments are looked at.
const workersMax = 1024

// segment names one file of the folder.
type segment struct {
	worker int
	number uint64 // ascending in time; from 1
}

const segmentHead, segmentTail = "functions-", ".log"

func (s segment) name() string {
	return fmt.Sprintf("%s%d-%08d%s", segmentHead, s.worker, s.number, segmentTail)
}

// parseSegment reads a file's name; only what name writes is a segment.
func parseSegment(name string) (s segment, ok bool) {
	text, ok := strings.CutPrefix(name, segmentHead)
	if !ok {
		return s, false
	}
	if text, ok = strings.CutSuffix(text, segmentTail); !ok {
		return s, false
	}
	worker, number, ok := strings.Cut(text, "-")
	if !ok {
		return s, false
	}
	var err error
	if s.worker, err = strconv.Atoi(worker); err != nil {
		return s, false
	}
	if s.number, err = strconv.ParseUint(number, 10, 62); err != nil {
		return s, false
	}
	return s, s.worker < workersMax && s.number > 0 && s.name() == name
}

// listSegments finds the segments of a folder, ascending by worker, then by
// number. A folder that is not there has none.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var all []segment
	for _, entry := range entries {
		if s, ok := parseSegment(entry.Name()); ok && entry.Type().IsRegular() {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.worker, b.worker), cmp.Compare(a.number, b.number))
	})
	return all, nil
}

// openSegment opens a segment to read it. Only a regular file is one.
func openSegment(dir string, s segment) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, s.name()), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrInvalid
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
