package testenv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/deploy/gomodule"
)

// buildTimeout bounds the build of the binary under test: on two cores with an
// empty cache and the race detector it takes minutes.
const buildTimeout = 10 * time.Minute

var binary = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	return buildBinary(ctx, root)
})

// Binary returns the path of the real baton, built from these sources with the
// bundled demo functions, and with the race detector when the test has it.
//
// It lies in bin/test and is built once per test process; several processes
// take turns. go build leaves it alone when nothing changed.
func Binary(t testing.TB) string {
	t.Helper()
	name, err := binary()
	if err != nil {
		t.Fatalf("build baton: %v", err)
	}
	return name
}

// Root is the folder of go.mod, above the package under test.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the test")
		}
		dir = parent
	}
}

func buildBinary(ctx context.Context, root string) (name string, err error) {
	dir := filepath.Join(root, "bin", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := flock(lock); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}

	demo := filepath.Join(root, "cmd", "baton", "bundled", "demo.wasm")
	if source := filepath.Join(root, "examples", "demo"); stale(demo, source) {
		if err := os.MkdirAll(filepath.Dir(demo), 0o755); err != nil {
			return "", err
		}
		if err := (gomodule.Module{Source: source, Output: demo}).Build(ctx); err != nil {
			return "", err
		}
	}

	name = filepath.Join(dir, "baton")
	args := []string{"build", "-buildvcs=false"}
	if raceEnabled {
		name += "-race"
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", name, "./cmd/baton")...)
	cmd.Dir = root
	output, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	return name, nil
}

// flock takes the lock for as long as file is open.
func flock(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if lockErr = syscall.Flock(int(fd), syscall.LOCK_EX); lockErr != syscall.EINTR {
				return
			}
		}
	})
	return errors.Join(err, lockErr)
}

// stale tells whether a source is newer than output, or output is not there.
func stale(output, source string) bool {
	built, err := os.Stat(output)
	if err != nil {
		return true
	}
	newer := false
	_ = filepath.WalkDir(source, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil && info.ModTime().After(built.ModTime()) {
				newer = true
			}
		}
		return nil
	})
	return newer
}
