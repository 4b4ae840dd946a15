package sys

import (
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// unixPathMax is the longest path that fits a socket address, without the zero
// byte that ends it.
//
// Source: unix(7), sizeof(sun_path) is 108.
const unixPathMax = 107

// ListenUnixgram binds a socket of datagrams to path, with the permissions 0600
// from the moment it is there, and each message with its sender's credentials
// (see Credentials). It does not block. A socket that an earlier process left
// at path is replaced; the caller holds the directory, so nobody else's is.
// Any length of path will do.
//
// The descriptor is the caller's, and so is the name: it stays until removed.
//
// Source: unix(7); the mode given by fchmod(2) before bind(2) becomes that of
// the name.
func ListenUnixgram(path string) (fd int, err error) {
	fd, err = unixgram()
	if err != nil {
		return -1, err
	}
	err = func() error {
		if err := SetPassCred(fd, true); err != nil {
			return err
		}
		if err := unix.Fchmod(fd, 0o600); err != nil {
			return fmt.Errorf("fchmod: %w", err)
		}
		if err := removeSocket(path); err != nil {
			return err
		}
		return withUnixPath(path, func(sa unix.Sockaddr) error { return unix.Bind(fd, sa) })
	}()
	if err != nil {
		CloseRaw(fd)
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	return fd, nil
}

// removeSocket removes the name path if it is a socket's.
func removeSocket(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil // bind(2) says what is wrong
	}
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	return nil
}

// DialUnixgram makes a socket of datagrams which go to path. It does not block.
// The descriptor is the caller's.
func DialUnixgram(path string) (fd int, err error) {
	fd, err = unixgram()
	if err != nil {
		return -1, err
	}
	if err := withUnixPath(path, func(sa unix.Sockaddr) error { return unix.Connect(fd, sa) }); err != nil {
		CloseRaw(fd)
		return -1, fmt.Errorf("connect to %s: %w", path, err)
	}
	return fd, nil
}

func unixgram() (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

// withUnixPath calls do with an address for path. A path that does not fit an
// address is reached through a descriptor of its directory.
func withUnixPath(path string, do func(unix.Sockaddr) error) error {
	if len(path) <= unixPathMax {
		return do(&unix.SockaddrUnix{Name: path})
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer CloseRaw(dir)
	return do(&unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)})
}
