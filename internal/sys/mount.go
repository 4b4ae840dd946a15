package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MountRead and MountWrite say what a mount lets its files be used for. No
// mount of ours honours set-uid programs; devices work only where asked for.
const (
	MountRead  = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	MountWrite = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	MountDev   = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// CloneMount makes a copy of what is mounted at path, with all below it, that
// is attached nowhere yet, and gives it the attributes attr. The descriptor is the caller's.
//
// Source: open_tree(2), mount_setattr(2), Linux 5.12.
func CloneMount(path string, attr uint64) (int, error) {
	n, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", path, err)
	}
	if err := unix.MountSetattr(n, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr}); err != nil {
		_ = unix.Close(n)
		return -1, fmt.Errorf("mount_setattr %s: %w", path, err)
	}
	return n, nil
}

// AttachMount mounts what CloneMount has returned at path.
//
// Source: move_mount(2).
func AttachMount(n int, path string) error {
	if err := unix.MoveMount(n, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", path, err)
	}
	return nil
}

// PrivateMounts has no mount from here on reach another mount namespace.
func PrivateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// MountMemory mounts a file system in memory at path; options as in tmpfs(5).
func MountMemory(path, options string) error {
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", path, err)
	}
	return nil
}

// MountProcesses mounts, at path, a view of the processes of the caller's
// namespace that shows each user its own only, and changes nothing.
//
// Source: proc(5), hidepid.
func MountProcesses(path string) error {
	if err := unix.Mount("proc", path, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "hidepid=2"); err != nil {
		return fmt.Errorf("mount proc on %s: %w", path, err)
	}
	return nil
}

// RemountRead has the file system mounted at path be read only from here on.
func RemountRead(path string) error {
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("remount %s: %w", path, err)
	}
	return nil
}

// ChangeRoot makes the mount at path the root directory of this mount
// namespace and lets the old one go, with everything that was mounted there.
//
// Source: pivot_root(2), "pivot_root(".", ".")".
func ChangeRoot(path string) error {
	if err := unix.Chdir(path); err != nil {
		return fmt.Errorf("chdir %s: %w", path, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("chdir /: %w", err)
	}
	return nil
}
