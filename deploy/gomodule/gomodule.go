// Package gomodule compiles a folder of Go sources to a WASI module for the
// build of baton itself and for its tests: trusted sources, the toolchain run
// directly. What users deploy goes through package deploy/build.
package gomodule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"baton/runtime/wasm/gowrap"
)

// Bounds of one Go build. A source folder above them is refused with
// ErrSourceTooLarge before anything is compiled; compiler output above its bound
// is cut and says so.
const (
	sourceBytesMax   = 64 << 20 // far above any function; below what fills a disk
	sourceFilesMax   = 10_000
	buildOutputMax   = 64 << 10        // bytes of compiler output kept for the report
	buildWaitDelay   = 2 * time.Second // between the kill and letting go of its pipes
	goVersionDefault = "1.24"          // the first with go:wasmexport; used where go names no release
)

// ErrSourceTooLarge says that a source folder is above the bounds of a build.
var ErrSourceTooLarge = errors.New("source too large")

// BuildError is a toolchain that ran and refused the sources.
type BuildError struct {
	Output string // what it printed, at most buildOutputMax bytes
	Err    error  // how it ended
}

func (e *BuildError) Error() string {
	if e.Output == "" {
		return "build: " + e.Err.Error()
	}
	return "build: " + e.Err.Error() + "\n" + e.Output
}

func (e *BuildError) Unwrap() error { return e.Err }

// Module describes one compilation of Go sources to a WASI module: a reactor
// that exports `handle`, which calls the program's main.
type Module struct {
	// Source is the folder of a package main. It is only read. Without a go.mod
	// it may use the standard library alone.
	Source string

	// Output is the module to write. It appears whole, by rename, or not at all.
	Output string

	// GoCommand is the go command; empty means the one in PATH.
	GoCommand string

	// Cache is Go's build cache; empty means the user's own. Who can write it
	// decides what later builds contain.
	Cache string
}

// Build compiles m.Source to m.Output.
//
// It copies the sources (regular files, no tests) to a private folder, adds the
// wrapper that exports `handle`, and runs `go build` there with an environment
// of its own: nothing of the caller's but PATH, no downloads, no cgo. The folder
// is gone when Build returns, and so is the process group of the compiler, also
// when ctx ends first.
//
// A *BuildError carries the compiler's words; ErrSourceTooLarge and errors of
// the file system are returned wrapped.
func (m Module) Build(ctx context.Context) (err error) {
	goCommand := m.GoCommand
	if goCommand == "" {
		goCommand = "go"
	}
	if goCommand, err = exec.LookPath(goCommand); err != nil {
		return fmt.Errorf("find the go command: %w", err)
	}
	dir, err := os.MkdirTemp("", "baton-go-")
	if err != nil {
		return fmt.Errorf("make build folder: %w", err)
	}
	defer func() {
		if e := os.RemoveAll(dir); e != nil && err == nil {
			err = fmt.Errorf("remove build folder: %w", e)
		}
	}()
	source, temp := filepath.Join(dir, "src"), filepath.Join(dir, "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		return fmt.Errorf("make build folder: %w", err)
	}
	if err := copySource(source, m.Source); err != nil {
		return fmt.Errorf("copy sources: %w", err)
	}

	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + dir,
		"TMPDIR=" + temp,
		"GOENV=off",
		"GOWORK=off",
		"GOPROXY=off",
		"GOFLAGS=-mod=readonly",
		"GOMODCACHE=" + filepath.Join(dir, "mod"),
	}
	env = append(env, gowrap.BuildEnv()...)
	version, cache, err := goDefaults(ctx, goCommand)
	if err != nil {
		return err
	}
	if m.Cache != "" {
		cache = m.Cache
	}
	env = append(env, "GOCACHE="+cache)
	if err := addGoFiles(source, version); err != nil {
		return err
	}

	built := filepath.Join(dir, "module.wasm")
	cmd := exec.CommandContext(ctx, goCommand, gowrap.BuildArgs(built)...)
	cmd.Dir = source
	cmd.Env = env
	if err := runBuild(cmd); err != nil {
		return err
	}
	if err := publish(m.Output, built); err != nil {
		return fmt.Errorf("write module: %w", err)
	}
	return nil
}

// runBuild runs cmd in a process group of its own and ends all of it.
func runBuild(cmd *exec.Cmd) error {
	output := &cutBuffer{max: buildOutputMax}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = buildWaitDelay
	if err := cmd.Run(); err != nil {
		return &BuildError{Output: output.String(), Err: err}
	}
	return nil
}

// goDefaults asks the go command for its language version ("1.26") and the
// user's build cache, outside any module.
func goDefaults(ctx context.Context, goCommand string) (version, cache string, err error) {
	cmd := exec.CommandContext(ctx, goCommand, "env", "GOVERSION", "GOCACHE")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local")
	output, err := cmd.Output()
	if err != nil {
		return "", "", fmt.Errorf("ask the go command for its version: %w", err)
	}
	version, cache, _ = strings.Cut(strings.TrimSpace(string(output)), "\n")
	parts := strings.SplitN(strings.TrimPrefix(version, "go"), ".", 3)
	if len(parts) < 2 || !strings.HasPrefix(version, "go") {
		return goVersionDefault, cache, nil // a development version: "devel …"
	}
	return parts[0] + "." + parts[1], cache, nil
}

// addGoFiles adds the wrapper, and a go.mod when there is none.
func addGoFiles(dir, version string) error {
	mod := filepath.Join(dir, "go.mod")
	if _, err := os.Lstat(mod); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(mod, []byte("module function\n\ngo "+version+"\n"), 0o600); err != nil {
			return fmt.Errorf("write go.mod: %w", err)
		}
	}
	file, err := os.OpenFile(filepath.Join(dir, gowrap.FileName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &BuildError{Err: fmt.Errorf("the file name %s is the platform's own: rename it", gowrap.FileName)}
	}
	if err != nil {
		return fmt.Errorf("write wrapper: %w", err)
	}
	_, err = file.Write(gowrap.Source("main"))
	if e := file.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write wrapper: %w", err)
	}
	return nil
}

// copySource copies the tree at from to the new folder to: regular files only,
// no tests, nothing hidden, nothing followed.
func copySource(to, from string) error {
	var files, size int64
	root := os.DirFS(from)
	return fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if name != "." && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return os.Mkdir(target, 0o700)
		}
		if !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files++
		if files > sourceFilesMax {
			return fmt.Errorf("more than %d files: %w", sourceFilesMax, ErrSourceTooLarge)
		}
		n, err := copyFile(target, filepath.Join(from, name), sourceBytesMax-size)
		size += n
		return err
	})
}

// copyFile copies at most max bytes; a longer file is ErrSourceTooLarge.
func copyFile(to, from string, max int64) (n int64, err error) {
	in, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(out, io.LimitReader(in, max+1))
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil && n > max {
		err = fmt.Errorf("more than %d bytes: %w", sourceBytesMax, ErrSourceTooLarge)
	}
	return n, err
}

// publish moves the finished file to its place, across file systems too: it is
// written under a temporary name beside it, flushed, and renamed.
func publish(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".module-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(out.Name())
		}
	}()
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o644)
	}
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// cutBuffer keeps the first max bytes written to it and notes that there were
// more. os/exec writes to it from one goroutine.
type cutBuffer struct {
	max int
	buf bytes.Buffer
	cut bool
}

func (b *cutBuffer) Write(p []byte) (int, error) {
	keep := min(len(p), b.max-b.buf.Len())
	b.buf.Write(p[:keep])
	b.cut = b.cut || keep < len(p)
	return len(p), nil
}

func (b *cutBuffer) String() string {
	if b.cut {
		return b.buf.String() + "\n… (cut)"
	}
	return b.buf.String()
}
