package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"baton/internal/sys"
)

// rootOptions of the file system that holds the root directory: directories
// and links only.
const rootOptions = "mode=0755,size=1m,nr_inodes=4096"

// filesMax bounds the files and directories in a Dir that lives in memory.
const filesMax = 4096

// makeRoot makes a root directory that holds what is granted, at its own paths,
// and nothing else, and moves this process into it. Dir is a new empty directory in memory
// there, which belongs to the child.
func (s *Spec) makeRoot(uid, gid int) error {
	if err := sys.PrivateMounts(); err != nil {
		return err
	}
	b := &rootBuilder{}
	defer b.close()
	for _, g := range s.grants() {
		if g.path == s.Dir && s.Dir != "" {
			continue
		}
		if err := b.clone(g); err != nil {
			return err
		}
	}
	// Any directory does to mount on: all its paths are of the new root.
	base := "/tmp"
	if s.Dir != "" {
		base = s.Dir
	}
	if err := sys.MountMemory(base, rootOptions); err != nil {
		return err
	}
	if err := b.build(base); err != nil {
		return err
	}
	if s.Dir != "" {
		at := base + s.Dir
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		options := fmt.Sprintf("mode=0700,size=%dm,nr_inodes=%d", or(s.FileMB, FileMBDefault), filesMax)
		if uid >= 0 {
			options += fmt.Sprintf(",uid=%d,gid=%d", uid, gid)
		}
		if err := sys.MountMemory(at, options); err != nil {
			return err
		}
		if err := os.Symlink(s.Dir, base+"/tmp"); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if s.Links {
		if err := os.Mkdir(base+"/proc", 0o555); err != nil {
			return err
		}
		if err := sys.MountProcesses(base + "/proc"); err != nil {
			return err
		}
	}
	if err := sys.ChangeRoot(base); err != nil {
		return err
	}
	return sys.RemountRead("/")
}

// rootBuilder gathers what a new root is made of, while the old one can still
// be seen.
type rootBuilder struct {
	mounts []rootMount
	links  []rootLink
}

// rootMount is a mount that is attached nowhere yet, and where it will be.
type rootMount struct {
	path      string
	mount     int
	directory bool
	write     bool
}

// rootLink is a symbolic link on the way to a granted path.
type rootLink struct{ path, target string }

func (b *rootBuilder) close() {
	for _, m := range b.mounts {
		_ = syscall.Close(m.mount)
	}
}

// linksMax bounds the links on the way to one path, as the kernel does.
const linksMax = 40

// clone takes what lies at a granted path, and the links on the way to it. What does
// not exist is passed over.
func (b *rootBuilder) clone(g grant) error {
	path := g.path
	for range linksMax {
		link, target, err := firstLink(path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
				return nil
			}
			return err
		}
		if link == "" {
			return b.cloneReal(path, g.write)
		}
		if !b.covered(link, false) {
			entry := rootLink{link, target}
			if !slices.Contains(b.links, entry) {
				b.links = append(b.links, entry)
			}
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Clean(target + strings.TrimPrefix(path, link))
	}
	return fmt.Errorf("%s: %w", g.path, syscall.ELOOP)
}

// firstLink finds the first symbolic link on the way along path; link is empty
// when there is none.
func firstLink(path string) (link, target string, err error) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		info, err := os.Lstat(path[:i])
		if err != nil {
			return "", "", err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path[:i])
			return path[:i], target, err
		}
	}
	return "", "", nil
}

// covered says whether path comes with a mount that is there already.
func (b *rootBuilder) covered(path string, write bool) bool {
	return slices.ContainsFunc(b.mounts, func(m rootMount) bool { return below(path, m.path) && (m.write || !write) })
}

func (b *rootBuilder) cloneReal(path string, write bool) error {
	if path == "/" || b.covered(path, write) {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	attributes := uint64(sys.MountRead)
	switch {
	case info.Mode()&fs.ModeDevice != 0:
		attributes = sys.MountDev
	case write:
		attributes = sys.MountWrite
	}
	n, err := sys.CloneMount(path, attributes)
	if err != nil {
		return err
	}
	b.mounts = append(b.mounts, rootMount{path, n, info.IsDir(), write})
	return nil
}

// build puts everything below base.
func (b *rootBuilder) build(base string) error {
	slices.SortStableFunc(b.mounts, func(x, y rootMount) int { return len(x.path) - len(y.path) })
	for _, l := range b.links {
		if err := os.MkdirAll(base+filepath.Dir(l.path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.target, base+l.path); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, m := range b.mounts {
		if err := m.attach(base + m.path); err != nil {
			return err
		}
	}
	return nil
}

// attach makes the place at path, unless a mount that encloses it has brought it, and mounts.
func (m *rootMount) attach(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if m.directory {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, nil, 0o444)
		}
		if err != nil {
			return err
		}
	}
	return sys.AttachMount(m.mount, path)
}
