package control

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// TokenName is the token's file in a data directory.
const TokenName = "admin.token"

const (
	// tokenBytes of randomness: 256 bits, which no rate of guessing exhausts.
	tokenBytes = 32
	// A token that somebody chose is accepted between these lengths in bytes:
	// below 32 characters it could be guessed, above 512 it is no token.
	tokenLengthMin = 32
	tokenLengthMax = 512
)

// CreateToken makes the admin token of a data directory, when there is none.
//
// The file appears whole and durable, with mode 0600, or not at all, and an
// existing one is never replaced: of two that create at once, one wins and both
// report that token's existence. created says whether this call did.
func CreateToken(data string) (created bool, err error) {
	path := filepath.Join(data, TokenName)
	if _, err := LoadToken(data); err == nil {
		return false, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	secret, err := randomText(tokenBytes)
	if err != nil {
		return false, fmt.Errorf("create admin token: %w", err)
	}
	temporary, err := writeToken(data, secret)
	if err != nil {
		return false, fmt.Errorf("create admin token: %w", err)
	}
	defer os.Remove(temporary)
	// A link, not a rename: it refuses to replace what another has just made.
	if err := os.Link(temporary, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("create admin token: %w", err)
	} else if err == nil {
		created = true
	}
	if err := syncDir(data); err != nil {
		return false, fmt.Errorf("create admin token: %w", err)
	}
	return created, nil
}

// writeToken writes a secret under a temporary name, durably.
func writeToken(data, secret string) (path string, err error) {
	// CreateTemp makes it with mode 0600.
	temporary, err := os.CreateTemp(data, ".token-")
	if err != nil {
		return "", err
	}
	_, err = io.WriteString(temporary, secret+"\n")
	if err == nil {
		err = temporary.Sync()
	}
	if e := temporary.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
		return "", err
	}
	return temporary.Name(), nil
}

// replaceToken makes a new admin token in the place of the one that is there.
// The file is the old one or the new one, whole, whatever happens.
func replaceToken(data string) (secret string, err error) {
	secret, err = randomText(tokenBytes)
	if err != nil {
		return "", fmt.Errorf("replace admin token: %w", err)
	}
	temporary, err := writeToken(data, secret)
	if err != nil {
		return "", fmt.Errorf("replace admin token: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(data, TokenName)); err != nil {
		_ = os.Remove(temporary)
		return "", fmt.Errorf("replace admin token: %w", err)
	}
	if err := syncDir(data); err != nil {
		return "", fmt.Errorf("replace admin token: %w", err)
	}
	return secret, nil
}

// LoadToken reads the admin token of a data directory. It refuses a file that
// another user could have read or written: such a token is no secret any more.
// An error that is fs.ErrNotExist says that there is none.
func LoadToken(data string) (string, error) {
	return LoadTokenFile(filepath.Join(data, TokenName))
}

// LoadTokenFile is LoadToken for a file of any name: a copy on another machine.
func LoadTokenFile(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat() // of the open file: it cannot be exchanged any more
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("admin token %s: want a file, got %s", path, info.Mode().Type())
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("admin token %s: other users can reach it (mode %04o): delete it, run `baton init` for a new one", path, mode)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() && os.Geteuid() != 0 {
		return "", fmt.Errorf("admin token %s: belongs to user %d, and this process runs as %d", path, st.Uid, os.Geteuid())
	}
	b, err := io.ReadAll(io.LimitReader(f, tokenLengthMax+2))
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	secret := strings.TrimSuffix(string(b), "\n")
	if !validToken(secret) {
		return "", fmt.Errorf("admin token %s: want one line of %d to %d letters, digits and -._~+/=: delete it, run `baton init` for a new one",
			path, tokenLengthMin, tokenLengthMax)
	}
	return secret, nil
}

// validToken: what can stand behind "Bearer " (token68, RFC 9110 section 11.2),
// and is long enough.
func validToken(s string) bool {
	if len(s) < tokenLengthMin || len(s) > tokenLengthMax {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case strings.IndexByte("-._~+/=", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// randomText is n random bytes as lower-case hex.
func randomText(n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if e := dir.Close(); err == nil {
		err = e
	}
	return err
}
