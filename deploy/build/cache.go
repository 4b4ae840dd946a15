package build

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// cache is what builds leave for the next ones, in folders below root:
//
//	go       Go's build cache, written by Go builds, which run no user code
//	gomod    Go's module cache, written by the fetch step only
//	cargo    CARGO_HOME's registry, written by the fetch step only
//	results  finished modules, by what they were made from; the server's own
//
// See RATIONALE.md, "What may a build do, and what of it stays?".
type cache struct {
	root string
	max  int64 // bytes

	serial atomic.Uint64 // of names of files that are being written

	mu      sync.Mutex
	running int
	trimmed time.Time
}

const (
	cacheGo, cacheGoMod, cacheCargo, cacheResults = "go", "gomod", "cargo", "results"

	// trimEvery bounds how often the size is looked at: a walk over some
	// thousand files.
	trimEvery = time.Minute
)

// cacheShares is each folder's part of the bound, in per cent. Entries of the
// first kind can go one by one; a module that lacks a file breaks builds, so
// folders of the second kind go whole.
var cacheShares = []struct {
	name    string
	percent int64
	whole   bool
}{{cacheGo, 50, false}, {cacheResults, 10, false}, {cacheGoMod, 20, true}, {cacheCargo, 20, true}}

func (c *cache) open(root string, max int64) error {
	c.root, c.max = root, max
	for _, share := range cacheShares {
		if err := os.MkdirAll(filepath.Join(root, share.name), 0o700); err != nil {
			return fmt.Errorf("make build cache: %w", err)
		}
	}
	c.trim()
	return nil
}

func (c *cache) dir(name string) string { return filepath.Join(c.root, name) }

// begin and end stand around a build. The last one that ends trims.
func (c *cache) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
}

func (c *cache) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if c.running == 0 && time.Since(c.trimmed) > trimEvery {
		c.trim()
	}
}

// trim brings each folder below its share. No build runs.
func (c *cache) trim() {
	c.trimmed = time.Now()
	for _, share := range cacheShares {
		trimDir(c.dir(share.name), c.max/100*share.percent, share.whole)
	}
}

// trimDir removes the oldest files until three quarters of max are left, or
// everything, when dir holds more than max bytes. What cannot be removed stays
// for the next time.
func trimDir(dir string, max int64, whole bool) {
	type entry struct {
		path string
		size int64
		used time.Time
	}
	var all []entry
	var size int64
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			all = append(all, entry{path, info.Size(), info.ModTime()})
			size += info.Size()
		}
		return nil
	})
	if size <= max {
		return
	}
	if whole {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			_ = removeAll(filepath.Join(dir, e.Name()))
		}
		return
	}
	slices.SortFunc(all, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range all {
		if size <= max/4*3 {
			return
		}
		if os.Remove(e.path) == nil {
			size -= e.size
		}
	}
}

// resultVersion changes with every change of how modules are made.
const resultVersion = "1"

// resultKey names what is built from the sources in src by the toolchain that
// identity describes.
func resultKey(src string, identity ...string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%q\n", resultVersion, identity)
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		one := sha256.New()
		_, err = io.Copy(one, file)
		fmt.Fprintf(sum, "%q %x\n", name, one.Sum(nil))
		return errors.Join(err, file.Close())
	})
	if err != nil {
		return "", fmt.Errorf("hash sources: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// result is a finished module to be found under its key. Names with a dot are
// being written.
func (c *cache) result(key string) string { return filepath.Join(c.dir(cacheResults), key) }

// takeResult copies the module of a key to the new file to, if there is one.
func (c *cache) takeResult(key, to string) bool {
	if _, err := copyFile(to, c.result(key), artifactBytesMax); err != nil {
		_ = os.Remove(to)
		return false
	}
	now := time.Now()
	_ = os.Chtimes(c.result(key), now, now) // used: it goes last
	return true
}

// keepResult keeps a copy of a module. A cache that cannot be written is none.
func (c *cache) keepResult(key string, open func() (*os.File, error)) {
	temp := fmt.Sprintf("%s.%d", c.result(key), c.serial.Add(1))
	_ = os.Remove(temp) // of an earlier process
	if _, err := copyOpened(temp, open, artifactBytesMax); err == nil {
		err = os.Rename(temp, c.result(key))
		if err == nil {
			return
		}
	}
	_ = os.Remove(temp)
}

// hash is the SHA-256 of texts, each with its length, in hexadecimal.
func hash(texts ...[]byte) string {
	sum := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(sum, "%d\n", len(text))
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
