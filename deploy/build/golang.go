package build

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"baton/runtime/wasm/gowrap"
)

const (
	goPackages  = "golang-go"
	goMinorMin  = 24 // the first 1.x with go:wasmexport
	goMissing   = "Go 1.24 or later"
	goProxyNone = "off"
)

// goTool is a go command and what it says of itself.
type goTool struct {
	path, version, language, root string

	proxy []string // variables that say where modules come from
}

// goFind returns the first go command that is new enough. Which proxy is
// asked, and which modules are private, is for the machine's owner to say:
// their environment and their go env count.
func (j *job) goFind(ctx context.Context) (*goTool, error) {
	var old string
	for _, path := range j.b.look("go") {
		names := []string{"GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE"}
		said, err := j.askOwner(ctx, append([]string{path, "env", "GOVERSION", "GOROOT"}, names...)...)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			continue
		}
		lines := append(strings.Split(said, "\n"), "")
		language, minor := goLanguage(lines[0])
		if minor < goMinorMin {
			old = lines[0]
			continue
		}
		tool := &goTool{path: path, version: lines[0], language: language, root: lines[1]}
		for i, name := range names {
			if i+2 < len(lines) && lines[i+2] != "" {
				tool.proxy = append(tool.proxy, name+"="+lines[i+2])
			}
		}
		tool.proxy = append(tool.proxy, proxyEnv()...)
		return tool, nil
	}
	if old != "" {
		return nil, &Error{Reason: ToolchainMissing, Detail: "only " + old + " is installed, " + goMissing + " is needed", Hint: "apt install " + goPackages + ", or https://go.dev/dl"}
	}
	return nil, missing(goMissing, goPackages)
}

// goLanguage returns the language version of a release ("go1.26.3": "1.26",
// 26). A development version counts as the newest we know.
func goLanguage(version string) (language string, minor int) {
	rest, ok := strings.CutPrefix(version, "go1.")
	if !ok {
		return "1." + strconv.Itoa(goMinorMin), goMinorMin
	}
	digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(rest)
	}
	minor, _ = strconv.Atoi(rest[:digits])
	return "1." + rest[:digits], minor
}

// buildGo compiles a package main to a reactor that exports handle.
func buildGo(ctx context.Context, j *job) (string, error) {
	tool, err := j.goFind(ctx)
	if err != nil {
		return "", err
	}
	dir, err := j.goPackage()
	if err != nil {
		return "", err
	}
	wrapper := filepath.Join(j.src(), dir, gowrap.FileName)
	if _, err := os.Lstat(wrapper); err == nil {
		return "", bad("the file name %s is the platform's own: rename it", gowrap.FileName)
	}
	return j.cached1(moduleWasm, []string{"go", tool.version, dir, gowrapHash()}, func(output string) error {
		flags, err := j.goModule(ctx, tool)
		if err != nil {
			return err
		}
		if err := os.WriteFile(wrapper, gowrap.Source("main"), 0o600); err != nil {
			return fmt.Errorf("write wrapper: %w", err)
		}
		j.state(StateBuilding)
		return j.run(ctx, step{
			argv:  append([]string{tool.path}, gowrap.BuildArgs(output)...),
			dir:   filepath.Join(j.src(), dir),
			env:   append(j.goEnv(tool, flags, goProxyNone), gowrap.BuildEnv()...),
			read:  []string{tool.root, j.b.cache.dir(cacheGoMod)},
			write: []string{j.b.cache.dir(cacheGo)},
		})
	})
}

// gowrapHash stands for the wrapper in the keys of results.
func gowrapHash() string { return hash(gowrap.Source("main")) }

// goEnv is what every go command of a build is told.
func (j *job) goEnv(tool *goTool, flags, proxy string) []string {
	env := []string{
		"GOROOT=" + tool.root, // without /proc it does not find itself
		"GOENV=off", "GOWORK=off", "GOTOOLCHAIN=local",
		"GOFLAGS=" + flags,
		"GOPATH=" + filepath.Join(j.home(), "go"),
		"GOMODCACHE=" + j.b.cache.dir(cacheGoMod),
		"GOCACHE=" + j.b.cache.dir(cacheGo),
	}
	if proxy != "" {
		env = append(env, "GOPROXY="+proxy)
	}
	return env
}

// goQuiet switches the go command's telemetry off, which would start a process
// that outlives it. There is no variable for that.
//
// Source: golang.org/x/telemetry, internal/telemetry.Default: <config>/go/telemetry/mode.
func (j *job) goQuiet() error {
	dir := filepath.Join(j.home(), ".config", "go", "telemetry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write go's settings: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mode"), []byte("off"), 0o600); err != nil {
		return fmt.Errorf("write go's settings: %w", err)
	}
	return nil
}

// goFetch downloads what go.mod requires, unless that was done before. It has
// network and runs no user code; go.sum is checked by the go command.
func (j *job) goFetch(ctx context.Context, tool *goTool) error {
	text, err := os.ReadFile(filepath.Join(j.src(), "go.mod"))
	if err != nil {
		return fmt.Errorf("read go.mod: %w", err)
	}
	if !strings.Contains(string(text), "require") {
		return nil
	}
	sums, _ := os.ReadFile(filepath.Join(j.src(), "go.sum"))
	have := filepath.Join(j.b.cache.dir(cacheGoMod), "baton-have-"+hash(text, sums))
	if _, err := os.Lstat(have); err == nil {
		return nil
	}
	j.state(StateFetching)
	err = j.run(ctx, step{
		argv:    []string{tool.path, "mod", "download"},
		env:     append(j.goEnv(tool, "-modcacherw", ""), tool.proxy...),
		read:    append(proxyRead(tool.proxy), tool.root),
		write:   []string{j.b.cache.dir(cacheGoMod), j.b.cache.dir(cacheGo)},
		network: true,
	})
	if err != nil {
		return err
	}
	// It only saves the next fetch. The folder is the fetch step's: nothing there is followed.
	if marker, err := os.OpenFile(have, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		_ = marker.Close()
	}
	return nil
}

// goPackage finds the folder of package main, relative to src: the top one, or
// the only one below it.
func (j *job) goPackage() (string, error) {
	var mains []string
	err := filepath.WalkDir(j.src(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != j.src() && (name == "vendor" || name == "testdata" || strings.HasPrefix(name, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		dir, err := filepath.Rel(j.src(), filepath.Dir(path))
		if err != nil {
			return err
		}
		if len(mains) > 0 && mains[len(mains)-1] == dir {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly)
		if err != nil || file.Name.Name != "main" {
			return nil // the compiler says it better, if it is asked for it
		}
		mains = append(mains, dir)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("look for package main: %w", err)
	}
	for _, dir := range mains {
		if dir == "." {
			return dir, nil
		}
	}
	if want := filepath.Clean(j.req.Handler); j.req.Handler != "" && filepath.IsLocal(want) {
		for _, dir := range mains {
			if dir == want {
				return dir, nil
			}
		}
	}
	switch len(mains) {
	case 0:
		if files, _ := filepath.Glob(filepath.Join(j.src(), "*.go")); len(files) > 0 {
			return ".", nil // damaged, or a library: the compiler says which
		}
		return "", bad("there is no Go file with package main")
	case 1:
		j.assume("package main is in %s", mains[0])
		return mains[0], nil
	}
	return "", bad("package main is in several folders: %s; say which by the handler", strings.Join(mains, ", "))
}
