package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"baton/runtime"
	"baton/runtime/wasm"
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
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env, c.Dir = []string{}, "/" // not nil, which would be ours
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
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
