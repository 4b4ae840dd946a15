package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// buildTinyGo compiles a package main to a WASI command. TinyGo needs a go
// command beside it, which also fetches.
func buildTinyGo(ctx context.Context, j *job) (string, error) {
	tinygo, ok := j.b.lookOne("tinygo")
	if !ok {
		return "", &Error{Reason: ToolchainMissing, Detail: "TinyGo is not installed on this machine", Hint: "Debian has no package of it: https://tinygo.org/getting-started/install; runtime go needs none"}
	}
	tool, err := j.goFind(ctx)
	if err != nil {
		return "", err
	}
	dir, err := j.goPackage()
	if err != nil {
		return "", err
	}
	version, err := j.ask(ctx, nil, tinygo, "version")
	if err != nil {
		return "", err
	}
	return j.cached1(moduleWasm, []string{"tinygo", version, tool.version, dir}, func(output string) error {
		flags, err := j.goModule(ctx, tool)
		if err != nil {
			return err
		}
		j.state(StateBuilding)
		return j.run(ctx, step{
			argv:  []string{tinygo, "build", "-target=wasi", "-opt=2", "-no-debug", "-o", output, "."},
			dir:   filepath.Join(j.src(), dir),
			env:   append(j.goEnv(tool, flags, goProxyNone), "XDG_CACHE_HOME="+j.b.cache.dir(cacheGo)),
			read:  []string{tool.root, j.b.cache.dir(cacheGoMod)},
			write: []string{j.b.cache.dir(cacheGo)},
		})
	})
}

// goModule makes a module of the sources, where they are none, or fetches what
// theirs requires, and returns the flags of the build.
func (j *job) goModule(ctx context.Context, tool *goTool) (flags string, err error) {
	if err := j.goQuiet(); err != nil {
		return "", err
	}
	mod := filepath.Join(j.src(), "go.mod")
	if _, err := os.Lstat(mod); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(mod, []byte("module function\n\ngo "+tool.language+"\n"), 0o600); err != nil {
			return "", fmt.Errorf("write go.mod: %w", err)
		}
		return "-mod=readonly", nil
	}
	if _, err := os.Lstat(filepath.Join(j.src(), "vendor", "modules.txt")); err == nil {
		return "-mod=vendor", nil
	}
	return "-mod=readonly", j.goFetch(ctx, tool)
}
