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

	"baton/runtime/native"
)

// cSources lists the sources of a C or C++ program, as "./NAME", sorted: no
// name begins with what a compiler takes for an option, or for a file of options.
func (j *job) cSources() (c, cpp []string, err error) {
	err = walkFiles(j.src(), func(name string, _ fs.DirEntry) error {
		switch languages[strings.ToLower(path.Ext(name))] {
		case "c":
			c = append(c, "./"+name)
		case "cpp":
			cpp = append(cpp, "./"+name)
		}
		return nil
	})
	return c, cpp, err
}

// cFolders are looked at for headers, where they are there.
func (j *job) cFolders() []string {
	flags := []string{"-I."}
	if info, err := os.Lstat(filepath.Join(j.src(), "include")); err == nil && info.IsDir() {
		flags = append(flags, "-Iinclude")
	}
	return flags
}

// unitsMax bounds the sources that are compiled one by one.
const unitsMax = 1000

// cBuild is one way to make a program of C and C++ sources.
type cBuild struct {
	compile []string              // flags of the compilers
	link    []string              // flags of the linker, behind the files
	objects []string              // further files to link
	driver  func(cpp bool) string // the compiler's path
}

// compile makes the program at output. A program in one language is one
// command; where C and C++ are mixed, each file is compiled by its own language's
// compiler first.
func (j *job) compile(ctx context.Context, b cBuild, output string) error {
	c, cpp, err := j.cSources()
	if err != nil {
		return err
	}
	if len(c)+len(cpp) == 0 {
		return bad("there is no file that ends in .c, .cc, .cpp or .cxx")
	}
	if len(c)+len(cpp) > unitsMax {
		return tooLarge("%d source files, at most %d are allowed", len(c)+len(cpp), unitsMax)
	}
	if j.req.Runtime == "c" && len(cpp) > 0 {
		return &Error{Reason: BadSource, Detail: quoted(cpp[0][2:]) + " is C++", Hint: "the runtime is cpp"}
	}
	j.state(StateBuilding)
	files := append(slices.Clone(c), cpp...)
	flags := append(slices.Clone(b.compile), j.cFolders()...)
	isCPP := j.req.Runtime != "c"
	if isCPP && len(c) > 0 {
		files = files[:0]
		var faults []error
		for i, file := range append(c, cpp...) {
			object := filepath.Join(j.tmp(), fmt.Sprintf("unit%d.o", i))
			err := j.run(ctx, step{argv: slices.Concat([]string{b.driver(i >= len(c))}, flags, []string{"-c", "-o", object, file})})
			var exit *exitError
			if err != nil && !errors.As(err, &exit) {
				return err
			}
			faults = append(faults, err)
			files = append(files, object)
		}
		if err := errors.Join(faults...); err != nil {
			return err
		}
	}
	return j.run(ctx, step{argv: slices.Concat([]string{b.driver(isCPP)}, flags, []string{"-o", output}, files, b.objects, b.link)})
}

// wasmTarget is what every clang that knows WASI calls it.
const wasmTarget = "--target=wasm32-wasi"

// stackBytes is the stack of a module, as rustc gives it: wasm-ld's own 64 KiB
// are few. It lies first, so that a stack that overflows traps instead of writing to data.
const stackBytes = "1048576"

// wasmCompile and wasmLink: the emulations of wasi-libc make programs compile
// that handle a signal or ask for a process id, and cost nothing where they are not used.
var (
	wasmCompile = []string{wasmTarget, "-O2", "-Wall", "-D_WASI_EMULATED_SIGNAL", "-D_WASI_EMULATED_PROCESS_CLOCKS", "-D_WASI_EMULATED_MMAN", "-D_WASI_EMULATED_GETPID"}
	wasmLink    = []string{"-lm", "-lwasi-emulated-signal", "-lwasi-emulated-process-clocks", "-lwasi-emulated-mman", "-lwasi-emulated-getpid", "-Wl,-z,stack-size=" + stackBytes + ",--stack-first,--strip-all"}
)

// wasmPackages are Debian's packages of a compiler from C to WASI.
const wasmPackages = "clang lld wasi-libc libclang-rt-dev-wasm32"

// buildCWasm compiles C or C++ to a WASI command.
func buildCWasm(ctx context.Context, j *job) (string, error) {
	cpp := j.req.Runtime != "c"
	clang, version, err := j.clangForWasm(ctx, cpp)
	if err != nil {
		return "", err
	}
	compile := wasmCompile
	if cpp { // the library has no unwinder
		compile = append(slices.Clone(compile), "-fno-exceptions")
	}
	return j.cached1(moduleWasm, []string{"c-wasm", j.req.Runtime, version}, func(output string) error {
		return j.compile(ctx, cBuild{compile: compile, link: wasmLink, driver: func(cpp bool) string {
			if cpp {
				return clang + "++"
			}
			return clang
		}}, output)
	})
}

// clangForWasm finds a clang that has all it takes, and says what is missing
// otherwise.
func (j *job) clangForWasm(ctx context.Context, cpp bool) (path, version string, err error) {
	what := "a C compiler for WebAssembly"
	lacking := "clang"
	for _, clang := range j.b.look("clang") {
		if _, err := os.Stat(clang + "++"); cpp && err != nil {
			continue
		}
		lack := ""
		for _, part := range []struct{ ask, packages string }{
			{"-print-prog-name=wasm-ld", "lld"},
			{"-print-file-name=libc.a", "wasi-libc"},
			{"-print-libgcc-file-name", "libclang-rt-dev-wasm32"},
			{"-print-file-name=libc++.a", "libc++-dev-wasm32"},
		} {
			if part.packages == "libc++-dev-wasm32" && !cpp {
				continue
			}
			answer, err := j.ask(ctx, nil, clang, wasmTarget, part.ask)
			if err != nil {
				return "", "", err
			}
			if !filepath.IsAbs(answer) {
				if part.packages == "lld" { // any in the path will do
					if _, ok := j.b.lookOne("wasm-ld"); ok {
						continue
					}
				}
				lack += " " + part.packages
			} else if _, err := os.Stat(answer); err != nil {
				lack += " " + part.packages
			}
		}
		if lack == "" {
			version, err := j.ask(ctx, nil, clang, "--version")
			return clang, version, err
		}
		lacking = lack[1:]
	}
	if lacking == "clang" {
		lacking = wasmPackages
		if cpp {
			lacking += " libc++-dev-wasm32"
		}
	}
	return "", "", missing(what, lacking)
}

// nativeCompile and nativeLink are what Debian builds its own programs with,
// less what only debuggers need.
var (
	nativeCompile = []string{"-O2", "-Wall", "-fPIE", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"}
	nativeLink    = []string{"-pie", "-Wl,-z,relro,-z,now", "-s", "-lm", "-pthread"}
)

// buildCNative compiles C or C++ to a program for this machine.
func buildCNative(ctx context.Context, j *job) (string, error) {
	cpp := j.req.Runtime != "c"
	var pair [2]string // the compilers of C and C++, of one kind
	for _, kind := range [][2]string{{"gcc", "g++"}, {"clang", "clang++"}, {"cc", "c++"}} {
		c, ok := j.b.lookOne(kind[0])
		p, okp := j.b.lookOne(kind[1])
		if ok && (okp || !cpp) {
			pair = [2]string{c, p}
			break
		}
	}
	if pair[0] == "" {
		if cpp {
			return "", missing("a C++ compiler", "g++")
		}
		return "", missing("a C compiler", "gcc libc6-dev")
	}
	version, err := j.ask(ctx, nil, pair[0], "--version")
	if err != nil {
		return "", err
	}
	entryFlags, linkFlags := native.EntryFlags(), slices.Concat(nativeLink, native.LinkFlags())
	identity := slices.Concat([]string{"c-native", j.req.Runtime, version, native.EntrySource}, entryFlags, nativeCompile, linkFlags)
	return j.cached1(moduleNative, identity, func(output string) error {
		entry, err := j.entryObject(ctx, pair[0], entryFlags)
		if err != nil {
			return err
		}
		return j.compile(ctx, cBuild{compile: nativeCompile, link: linkFlags, objects: []string{entry}, driver: func(cpp bool) string {
			if cpp {
				return pair[1]
			}
			return pair[0]
		}}, output)
	})
}

// entryObject compiles what has a program forked per request instead of
// started. It is a C file of its own: what the user's files define does not reach it.
func (j *job) entryObject(ctx context.Context, compiler string, flags []string) (object string, err error) {
	source := filepath.Join(j.tmp(), "entry.c")
	object = filepath.Join(j.tmp(), "entry.o")
	if err := os.WriteFile(source, []byte(native.EntrySource), 0o600); err != nil {
		return "", fmt.Errorf("write the entry: %w", err)
	}
	err = j.run(ctx, step{argv: slices.Concat([]string{compiler}, flags, []string{"-c", "-o", object, source}), dir: j.tmp()})
	return object, err
}
