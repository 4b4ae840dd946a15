package wasm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// names finds out which module an artifact is. Artifacts never change, and many routes
// may lead to one: what was read once is not read again while it is the same file.
type names struct {
	mu    sync.Mutex
	known map[fileID]func() (string, error) // whoever comes while it is read waits for it
}

// fileID is a file and its last change.
type fileID struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// namesMax bounds what is remembered; above it, all is forgotten and found out
// again.
const namesMax = 4096

// of returns the SHA-256 of the artifact at path, hexadecimal.
func (n *names) of(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read module: %w", err)
	}
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return hashFile(path)
	}
	id := fileID{s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim}
	n.mu.Lock()
	find := n.known[id]
	if find == nil {
		if n.known == nil || len(n.known) >= namesMax {
			n.known = make(map[fileID]func() (string, error))
		}
		find = sync.OnceValues(func() (string, error) { return hashFile(path) })
		n.known[id] = find
	}
	n.mu.Unlock()
	name, err := find()
	if err != nil {
		n.mu.Lock()
		delete(n.known, id)
		n.mu.Unlock()
	}
	return name, err
}

// hashFile returns the SHA-256 of an artifact of at most moduleBytesMax bytes,
// which it reads piece by piece.
func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read module: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, moduleBytesMax+1))
	if err != nil {
		return "", fmt.Errorf("read module: %w", err)
	}
	if n > moduleBytesMax {
		return "", refused("it has more than %d bytes", moduleBytesMax)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
