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
)

// rustTargets are the names of WASI preview 1, the newest first. Compilers
// before 1.78 know only the second, those from 1.84 on only the first.
var rustTargets = []string{"wasm32-wasip1", "wasm32-wasi"}

const rustPackages = "rustc libstd-rust-dev-wasm32"

// rustTool is a compiler whose library for WASI is there.
type rustTool struct{ rustc, cargo, target, version, root string }

// rustFind returns the first compiler in the path that can build for WASI. A
// rustup proxy is asked for the toolchain that stands behind it, and the
// toolchain's own commands are used then: a rust-toolchain.toml among the
// sources has no say, and nothing is downloaded.
func (j *job) rustFind(ctx context.Context) (*rustTool, error) {
	lacking := ""
	for _, proxy := range j.b.look("rustc") {
		sysroot, err := j.askOwner(ctx, proxy, "--print", "sysroot")
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			continue
		}
		rustc := filepath.Join(sysroot, "bin", "rustc")
		if _, err := os.Stat(rustc); err != nil {
			continue
		}
		target := ""
		for _, name := range rustTargets {
			found, _ := filepath.Glob(filepath.Join(sysroot, "lib", "rustlib", name, "lib", "libstd-*.rlib"))
			if len(found) > 0 {
				target = name
				break
			}
		}
		if target == "" {
			lacking = sysroot
			continue
		}
		version, err := j.ask(ctx, nil, rustc, "-vV")
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			lacking = sysroot // not for a build's user to reach
			continue
		}
		tool := &rustTool{rustc: rustc, target: target, version: version, root: sysroot}
		if cargo := filepath.Join(sysroot, "bin", "cargo"); j.b.isCommand(cargo) {
			tool.cargo = cargo
		}
		return tool, nil
	}
	if lacking != "" {
		return nil, &Error{Reason: ToolchainMissing, Detail: "the Rust compiler on this machine has no library for WASI",
			Hint: "apt install " + rustPackages + ", or rustup target add wasm32-wasip1"}
	}
	return nil, missing("the Rust compiler", rustPackages)
}

// buildRust compiles one file, or a crate, to a WASI command.
func buildRust(ctx context.Context, j *job) (string, error) {
	tool, err := j.rustFind(ctx)
	if err != nil {
		return "", err
	}
	_, err = os.Lstat(filepath.Join(j.src(), "Cargo.toml"))
	crate := err == nil
	if crate && tool.cargo == "" {
		return "", missing("cargo for a folder with Cargo.toml", "cargo")
	}
	return j.cached1(moduleWasm, []string{"rust", tool.target, tool.version, j.req.Handler}, func(output string) error {
		if crate {
			return j.cargo(ctx, tool, output)
		}
		return j.rustc(ctx, tool, output)
	})
}

// rustc compiles a program without dependencies.
func (j *job) rustc(ctx context.Context, tool *rustTool, output string) error {
	var all []string
	err := walkFiles(j.src(), func(name string, _ fs.DirEntry) error {
		if strings.HasSuffix(name, ".rs") {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return bad("there is neither a Cargo.toml nor a file that ends in .rs")
	}
	entry, assumed, err := chooseEntry(all, j.req.Handler, ".rs", []string{"main.rs", "src/main.rs"})
	if err != nil {
		return err
	}
	if assumed {
		j.assume("%s is the program's root", entry)
	}
	j.state(StateBuilding)
	return j.run(ctx, step{argv: []string{
		tool.rustc, "--edition", "2021", "--crate-name", "function", "--crate-type", "bin", "--target", tool.target,
		"-C", "opt-level=3", "-C", "codegen-units=1", "-C", "panic=abort", "-C", "strip=symbols",
		"-o", output, "./" + entry,
	}, read: []string{tool.root}})
}

// cargo builds a crate: its dependencies are fetched with network and without
// user code, then it is built without network.
//
// Build scripts and procedural macros run on this machine, in the build's
// sandbox; what they can write is thrown away with the build's folder.
func (j *job) cargo(ctx context.Context, tool *rustTool, output string) error {
	home := filepath.Join(j.home(), ".cargo")
	registry, git := filepath.Join(j.b.cache.dir(cacheCargo), "registry"), filepath.Join(j.b.cache.dir(cacheCargo), "git")
	if err := os.Mkdir(home, 0o700); err != nil {
		return fmt.Errorf("make cargo's folder: %w", err)
	}
	// cargo locks files in its home, which must be writable; what is shared
	// lies behind links.
	for _, shared := range []string{registry, git} {
		if err := os.MkdirAll(shared, 0o700); err != nil {
			return fmt.Errorf("make cargo's cache: %w", err)
		}
		if err := os.Symlink(shared, filepath.Join(home, filepath.Base(shared))); err != nil {
			return fmt.Errorf("make cargo's folder: %w", err)
		}
	}
	target := filepath.Join(j.tmp(), "target")
	env := []string{"CARGO_HOME=" + home, "RUSTC=" + tool.rustc, "CARGO_TARGET_DIR=" + target, "CARGO_INCREMENTAL=0", "CARGO_TERM_COLOR=never", "CARGO_TERM_PROGRESS_WHEN=never"}
	var vendored []string
	if info, err := os.Lstat(filepath.Join(j.src(), "vendor")); err == nil && info.IsDir() {
		vendored = []string{"--config", `source.crates-io.replace-with="vendored-sources"`, "--config", `source.vendored-sources.directory="vendor"`}
		j.assume("dependencies are in vendor")
	}
	locked := []string{"--locked"}
	if _, err := os.Lstat(filepath.Join(j.src(), "Cargo.lock")); errors.Is(err, fs.ErrNotExist) {
		locked = nil
		j.assume("there is no Cargo.lock: the newest versions that fit")
	}
	if len(vendored) > 0 {
		locked = append(locked, "--offline")
	} else {
		j.state(StateFetching)
	}
	err := j.run(ctx, step{
		argv:  slices.Concat([]string{tool.cargo, "fetch", "--target", tool.target}, vendored, locked),
		env:   append(env, proxyEnv()...),
		read:  append(proxyRead(proxyEnv()), tool.root),
		write: []string{registry, git}, network: len(vendored) == 0,
	})
	if err != nil {
		return err
	}
	j.state(StateBuilding)
	err = j.run(ctx, step{
		argv: slices.Concat([]string{tool.cargo, "build", "--release", "--bins", "--locked", "--offline", "--target", tool.target}, vendored),
		env:  env, read: []string{tool.root, registry, git}, code: true,
	})
	if err != nil {
		return err
	}
	// User code has run: what it has left is looked at within the job's folder only.
	release := path.Join(dirTemp, "target", tool.target, "release")
	built, err := fs.Glob(j.files.FS(), release+"/*.wasm")
	if err != nil {
		return err
	}
	var names []string
	for _, file := range built {
		name := strings.TrimSuffix(path.Base(file), ".wasm")
		if j.req.Handler == name {
			names = []string{name}
			break
		}
		names = append(names, name)
	}
	switch len(names) {
	case 0:
		return bad("the crate has no program: want src/main.rs or a [[bin]]")
	case 1:
		err := j.files.Rename(path.Join(release, names[0]+".wasm"), path.Join(dirOut, filepath.Base(output)))
		if err != nil {
			return bad("the crate's program cannot be taken: it is no file")
		}
		return nil
	}
	return bad("the crate has several programs: %s; say which by the handler", strings.Join(names, ", "))
}
