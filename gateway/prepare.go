package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/runtime"
	"baton/runtime/wasm"
	"baton/sandbox"
)

const (
	// prepareTimeout bounds the preparation of one artifact. A Go module takes
	// some 1.3 s; a compile bomb would take minutes. Reaching it is the
	// module's fault: it is refused.
	prepareTimeout = 60 * time.Second

	// prepareOutputMax bounds what is kept of a preparing child's output, in bytes.
	prepareOutputMax = 4 << 10

	// PrepareRefused is the exit code with which `baton prepare` says that the
	// module cannot run; its standard error says why. Any other failure says
	// nothing about the module, and the preparation is tried again.
	PrepareRefused = 3
)

// childPreparer has artifacts compiled by a child process, which can be killed:
// compiling a hostile module can take minutes and gigabytes.
type childPreparer struct {
	argv    []string // "baton prepare"; the data directory's cache and the module follow
	step    []string // "baton sandbox", which confines it; empty: it is not
	without []string // layers of that which are left out
	cache   string   // where native code lies
	timeout time.Duration
}

// cacheOf is where the native code of a data directory's artifacts lies.
func cacheOf(data string) string { return filepath.Join(data, "cache") }

func (p *childPreparer) Prepare(ctx context.Context, a Artifact) error {
	switch a.Runtime {
	case runtime.KindWasm:
	case runtime.KindNative, runtime.KindPHP, runtime.KindPython:
		return nil // the file as it is
	default:
		return fmt.Errorf("runtime %q is not supported by this version", a.Runtime)
	}
	err := wasm.Prepared(a.Path, p.cache)
	if err == nil {
		return nil
	}
	if !errors.Is(err, runtime.ErrNotPrepared) {
		return fmt.Errorf("module %s: %w", a.Path, errors.Join(err, ErrTemporary))
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	argv := append(append([]string(nil), p.argv...), "--cache", p.cache, a.Path)
	c, err := p.command(ctx, argv, a.Path)
	if err != nil {
		return fmt.Errorf("prepare module %s: %w", a.Path, errors.Join(err, ErrTemporary))
	}
	// The child is killed when the thread that started it ends.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var output tail
	c.Stderr = &output
	err = c.Run()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(output.String())
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("module %s: not compiled within %v", a.Path, p.timeout)
	case ctx.Err() != nil:
		return fmt.Errorf("module %s: %w", a.Path, errors.Join(ctx.Err(), ErrTemporary))
	case errors.As(err, &exit) && exit.ExitCode() == PrepareRefused:
		return fmt.Errorf("module %s: %s", a.Path, text)
	}
	return fmt.Errorf("prepare module %s: %w: %s", a.Path, errors.Join(err, ErrTemporary), text)
}

// command is the child that compiles the module at path. It reads that and writes
// the cache, and has no network, no other file and no process of its own: code that
// a module had a compiler run would get nowhere. It keeps our user, whom the cache belongs to.
func (p *childPreparer) command(ctx context.Context, argv []string, path string) (*exec.Cmd, error) {
	if len(p.step) == 0 {
		c := exec.CommandContext(ctx, argv[0], argv[1:]...)
		c.Env, c.Dir = []string{}, "/" // not nil, which would be ours
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		c.Cancel = func() error { return sandbox.Kill(c.Process.Pid) }
		c.WaitDelay = time.Second
		return c, nil
	}
	if err := os.MkdirAll(p.cache, 0o700); err != nil {
		return nil, err
	}
	return sandbox.Command(ctx, p.step, sandbox.Spec{
		Argv: argv, Read: []string{path}, Write: []string{p.cache}, Hide: []string{filepath.Dir(p.cache)},
		FileMB: nativeMB, OpenFiles: 1024,
		// /proc/self/exe is this very program, also when its file was replaced; a root
		// directory of its own would not have it.
		Without: append(slices.Clone(p.without), sandbox.LayerRoot),
	})
}

// nativeMB bounds a module's native code, some seven times the module.
const nativeMB = 2048

// tail keeps the last prepareOutputMax bytes written to it. The buffer is a
// field, not embedded: io.Copy would find its ReadFrom and go past Write.
type tail struct{ kept bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > prepareOutputMax {
		p = p[n-prepareOutputMax:]
	}
	if over := t.kept.Len() + len(p) - prepareOutputMax; over > 0 {
		t.kept.Next(over)
	}
	t.kept.Write(p)
	return n, nil
}

func (t *tail) String() string { return t.kept.String() }
