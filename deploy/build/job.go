package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// job is one build. Its folder looks like this, and what the toolchain may
// write is below it:
//
//	src   the sources, and files of ours among them
//	out   the artifact
//	tmp   TMPDIR
//	home  HOME
type job struct {
	b    *Builder
	req  Request
	slot int
	work string

	// files is work: what user code has left there is looked at through it, so that
	// no link leads out of it.
	files *os.Root

	log     *output
	assumed []string
	cached  bool
}

const dirSrc, dirOut, dirTemp, dirHome = "src", "out", "tmp", "home"

func (j *job) src() string  { return filepath.Join(j.work, dirSrc) }
func (j *job) out() string  { return filepath.Join(j.work, dirOut) }
func (j *job) tmp() string  { return filepath.Join(j.work, dirTemp) }
func (j *job) home() string { return filepath.Join(j.work, dirHome) }

func (j *job) assume(format string, args ...any) {
	j.assumed = append(j.assumed, fmt.Sprintf(format, args...))
}

func (j *job) state(s string) {
	if j.req.State != nil {
		j.req.State(s)
	}
}

// build runs the toolchain of the request's runtime.
func (j *job) build(ctx context.Context) (Result, error) {
	toolchain, ok := toolchains[key(j.req.Runtime, j.req.Target)]
	if !ok {
		return Result{}, bad("there is no toolchain for runtime %s with target %s", quoted(j.req.Runtime), quoted(j.req.Target))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.b.opt.Timeout, errTimeout)
	defer cancel()
	for _, dir := range []string{j.out(), j.tmp(), j.home()} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return Result{}, fmt.Errorf("make build folder: %w", err)
		}
	}
	if err := copyTree(j.src(), j.req.Source, toolchain.skip); err != nil {
		return Result{}, err
	}
	j.log = newOutput(j.req.Log, j.b.opt.OutputMax, j.work)
	start := time.Now()
	module, err := toolchain.build(ctx, j)
	j.log.flush()
	if err != nil {
		return Result{}, j.blame(ctx, err, time.Since(start))
	}
	if err := j.publish(); err != nil {
		return Result{}, err
	}
	return Result{Module: module, Cached: j.cached, Assumed: j.assumed}, nil
}

// A toolchain builds what is in the job's src into its out, and names the
// artifact's file there.
type toolchain struct {
	skip  func(name string, d fs.DirEntry) bool // of the user's files; nil: none
	build func(ctx context.Context, j *job) (module string, err error)
}

var toolchains = map[string]toolchain{
	"go":       {hidden, buildGo},
	"tinygo":   {hidden, buildTinyGo},
	"rust":     {hidden, buildRust},
	"c":        {hidden, buildCNative},
	"cpp":      {hidden, buildCNative},
	"c-wasm":   {hidden, buildCWasm},
	"cpp-wasm": {hidden, buildCWasm},
	"wasm":     {hidden, buildWasm},
	"php":      {versionControl, buildPHP},
	"python":   {versionControl, buildPython},
	"native":   {versionControl, buildNative},
}

func key(runtime, target string) string {
	if runtime == "c++" {
		runtime = "cpp"
	}
	if target == "wasm" && (runtime == "c" || runtime == "cpp") {
		return runtime + "-wasm"
	}
	return runtime
}

// hidden leaves out what a compiler must not see: configuration of tools that
// a source folder brings along (.cargo/config.toml names commands to run).
func hidden(name string, d fs.DirEntry) bool {
	return strings.HasPrefix(d.Name(), ".")
}

func versionControl(name string, d fs.DirEntry) bool {
	return d.IsDir() && slices.Contains([]string{".git", ".hg", ".svn"}, d.Name())
}

// blame turns what ended a build into what the deployer is told.
func (j *job) blame(ctx context.Context, err error, took time.Duration) error {
	var mine *Error
	if errors.As(err, &mine) {
		return err
	}
	o := j.b.opt
	output := j.log.String()
	if j.log.over() {
		return &Error{Reason: OutputLimit, Detail: output, Hint: fmt.Sprintf("the build printed more than %d bytes", o.OutputMax)}
	}
	var limit *limitError
	switch {
	case errors.As(err, &limit):
		return &Error{Reason: limit.reason, Detail: output, Hint: limit.hint}
	case errors.Is(context.Cause(ctx), errTimeout):
		return &Error{Reason: BuildTimeout, Detail: output, Hint: fmt.Sprintf("the build took longer than %v", o.Timeout)}
	case ctx.Err() != nil:
		return fmt.Errorf("build ended after %v: %w", took.Round(time.Millisecond), context.Cause(ctx))
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		return err
	}
	hint := ""
	if output == "" {
		hint = exit.Error()
	}
	return &Error{Reason: CompileFailed, Detail: output, Hint: hint}
}

// publish copies what is in out to where the request wants it, flushed.
func (j *job) publish() error {
	var made []string
	err := fs.WalkDir(j.files.FS(), dirOut, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dirOut {
			return err
		}
		relative := strings.TrimPrefix(name, dirOut+"/")
		to := filepath.Join(j.req.Out, filepath.FromSlash(relative))
		if d.IsDir() {
			made = append(made, to)
			return os.Mkdir(to, 0o755)
		}
		if !d.Type().IsRegular() {
			return bad("the build made %s, which is no file", quoted(relative))
		}
		made = append(made, to)
		return publishFile(to, func() (*os.File, error) { return j.files.OpenFile(name, openSource, 0) })
	})
	if err == nil {
		return nil
	}
	for _, name := range slices.Backward(made) {
		_ = os.Remove(name)
	}
	var mine *Error
	if errors.As(err, &mine) {
		return err
	}
	return fmt.Errorf("write artifact: %w", err)
}

// cached1 makes the one file called name in out: by make, or from the results
// that were made from the same sources by what identity describes.
func (j *job) cached1(name string, identity []string, make func(output string) error) (string, error) {
	output := filepath.Join(j.out(), name)
	key, err := resultKey(j.src(), identity...)
	if err != nil {
		return "", err
	}
	if j.b.cache.takeResult(key, output) {
		j.cached = true
		return name, nil
	}
	if err := make(output); err != nil {
		return "", err
	}
	made := path.Join(dirOut, name)
	info, err := j.files.Lstat(made)
	if err != nil || !info.Mode().IsRegular() {
		return "", bad("the toolchain made no file")
	}
	j.b.cache.keepResult(key, func() (*os.File, error) { return j.files.OpenFile(made, openSource, 0) })
	return name, nil
}
