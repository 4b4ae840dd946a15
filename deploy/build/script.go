package build

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	"baton/runtime/native"
)

// checkedMax bounds the files of a folder whose syntax is checked, besides the
// entry file: each is a process, and an installed dependency was checked by
// others.
const checkedMax = 100

// buildPHP takes the files as they are, after a look at their syntax.
func buildPHP(ctx context.Context, j *job) (string, error) {
	entry, files, err := j.entry(".php", "index.php", "main.php", "handler.php", "app.php", "function.php", "module.php")
	if err != nil {
		return "", err
	}
	if _, ok := j.b.lookOne("php-cgi"); !ok { // it runs the function
		return "", missing("PHP", "php-cgi")
	}
	php, ok := j.b.lookOne("php")
	if !ok {
		return "", missing("PHP's command line", "php-cli")
	}
	j.state(StateBuilding)
	var faults []error
	for _, file := range files {
		// -n: no php.ini, so nothing is loaded that the check does not need.
		err := j.run(ctx, step{argv: []string{php, "-n", "-d", "display_errors=stderr", "-l", "./" + file}, stdout: io.Discard})
		var exit *exitError
		if err != nil && !errors.As(err, &exit) {
			return "", err
		}
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return "", err
	}
	return j.asIs(entry, "module.php")
}

// pythonCheck compiles each file in memory and runs nothing of it. The first
// argument is the function that the first file has to define, if any.
const pythonCheck = `import sys
bad = 0
function = sys.argv[1]
for name in sys.argv[2:]:
    try:
        with open(name, "rb") as f:
            text = f.read()
        code = compile(text, name[2:], "exec", dont_inherit=True)
        if name == sys.argv[2] and function and function not in code.co_names and b"import *" not in text:
            raise SyntaxError("%s defines no function %s, which the handler names" % (name[2:], function))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        import traceback
        sys.stderr.write("".join(traceback.format_exception_only(type(e), e)))
        bad = 1
sys.exit(bad)
`

// buildPython takes the files as they are, after a look at their syntax.
func buildPython(ctx context.Context, j *job) (string, error) {
	entry, files, err := j.entry(".py", "main.py", "handler.py", "app.py", "function.py", "index.py", "__main__.py", "module.py")
	if err != nil {
		return "", err
	}
	python, ok := j.b.lookOne("python3")
	if !ok {
		return "", missing("Python 3", "python3")
	}
	// What is in the path may be a script that starts another one (pyenv).
	said, err := j.askOwner(ctx, python, "-I", "-S", "-c", "import sys; print(sys.executable); print(sys.base_prefix)")
	if err != nil {
		return "", fmt.Errorf("ask %s where it is: %w", python, err)
	}
	python, prefix, _ := strings.Cut(said, "\n")
	// -I: neither the environment nor the current folder has a say; -S: no site.
	argv := []string{python, "-I", "-S", "-B", "-c", pythonCheck, pythonFunction(j.req.Handler, entry)}
	for _, file := range files {
		argv = append(argv, "./"+file)
	}
	j.state(StateBuilding)
	if err := j.run(ctx, step{argv: argv, read: []string{prefix}}); err != nil {
		return "", err
	}
	return j.asIs(entry, "module.py")
}

// pythonFunction is the function that a handler names: FUNC, FILE:FUNC or
// FILE.FUNC with dots for slashes; empty: none, or the file alone.
func pythonFunction(handler, entry string) string {
	if strings.HasSuffix(handler, ".py") || handler == strings.TrimSuffix(entry, ".py") {
		return ""
	}
	return handler[strings.LastIndexAny(handler, ":./")+1:]
}

// entry finds the file of src that is run, and the files whose syntax is
// checked: the entry first, installed dependencies not.
//
// The handler decides, as FILE or FILE:FUNCTION; else a usual name; else the
// only file of that extension.
func (j *job) entry(ext string, usual ...string) (entry string, check []string, err error) {
	var all []string
	err = walkFiles(j.src(), func(name string, d fs.DirEntry) error {
		if strings.HasSuffix(name, ext) {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		return "", nil, err
	}
	if len(all) == 0 {
		return "", nil, bad("there is no file that ends in %s", ext)
	}
	entry, assumed, err := chooseEntry(all, j.req.Handler, ext, usual)
	if err != nil {
		return "", nil, err
	}
	if assumed {
		j.assume("%s is the file that is run", entry)
	}
	check = []string{entry}
	for _, name := range all {
		top, _, _ := strings.Cut(name, "/")
		if name != entry && !slices.Contains([]string{"vendor", "node_modules", "site-packages", ".venv", "venv"}, top) && len(check) <= checkedMax {
			check = append(check, name)
		}
	}
	return entry, check, nil
}

// chooseEntry decides between files that are sorted by name.
func chooseEntry(all []string, handler, ext string, usual []string) (entry string, assumed bool, err error) {
	if handler != "" {
		file, _, _ := strings.Cut(handler, ":")
		names := []string{path.Clean(file), path.Clean(file + ext)}
		dot := strings.LastIndexByte(file, '.')
		dotted := ext == ".py" && dot > 0 && !strings.HasSuffix(file, ext)
		if dotted { // a module and a function, as Python writes them
			names = append(names, path.Clean(file[:dot]+ext), path.Clean(strings.ReplaceAll(file[:dot], ".", "/")+ext))
		}
		for _, name := range names {
			if slices.Contains(all, name) {
				return name, false, nil
			}
		}
		if len(all) > 1 && dotted {
			return "", false, bad("the handler's file %s is not there", quoted(names[len(names)-1]))
		}
		if len(all) > 1 && strings.HasSuffix(file, ext) {
			return "", false, bad("the handler's file %s is not there", quoted(file))
		}
	}
	if len(all) == 1 {
		return all[0], all[0] != path.Base(all[0]), nil
	}
	for _, name := range usual {
		if slices.Contains(all, name) {
			return name, true, nil
		}
	}
	var top []string
	for _, name := range all {
		if !strings.Contains(name, "/") {
			top = append(top, name)
		}
	}
	if len(top) == 1 {
		return top[0], true, nil
	}
	return "", false, bad("which file is to run? Name it by the handler, or call it %s", usual[0])
}

// asIs makes the artifact of the sources themselves: one file under the
// platform's name, or the folder with the entry anywhere below.
func (j *job) asIs(entry, name string) (string, error) {
	entries, err := os.ReadDir(j.src())
	if err != nil {
		return "", fmt.Errorf("read sources: %w", err)
	}
	if len(entries) == 1 && !entries[0].IsDir() {
		return name, os.Rename(filepath.Join(j.src(), entry), filepath.Join(j.out(), name))
	}
	if err := os.Remove(j.out()); err != nil {
		return "", fmt.Errorf("write artifact: %w", err)
	}
	if err := os.Rename(j.src(), j.out()); err != nil {
		return "", fmt.Errorf("write artifact: %w", err)
	}
	return entry, nil
}

// walkFiles calls f for every regular file below dir, by its relative name
// with slashes, sorted.
func walkFiles(dir string, f func(name string, d fs.DirEntry) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read sources: %w", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(name), d)
	})
}

// buildWasm takes a finished module after a look at its head; whether it can
// run is for `baton prepare` to say.
func buildWasm(_ context.Context, j *job) (string, error) {
	var all []string
	err := walkFiles(j.src(), func(name string, _ fs.DirEntry) error {
		if strings.HasSuffix(name, ".wasm") {
			all = append(all, name)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if len(all) == 0 { // a single file may be called anything
		if files, err := os.ReadDir(j.src()); err == nil && len(files) == 1 && !files[0].IsDir() {
			all = append(all, files[0].Name())
		}
	}
	if len(all) != 1 {
		return "", bad("want one .wasm file, got %d", len(all))
	}
	head, err := readHead(filepath.Join(j.src(), all[0]), len(wasmModule))
	if err != nil {
		return "", err
	}
	switch {
	case bytes.Equal(head, wasmModule):
	case bytes.HasPrefix(head, wasmModule[:4]) && len(head) == 8 && head[6] == 1:
		return "", &Error{Reason: BadSource, Detail: "it is a WebAssembly component, not a module", Hint: "build for WASI preview 1, for example with --target wasm32-wasip1"}
	default:
		return "", bad("%s is no WebAssembly module of version 1", quoted(all[0]))
	}
	j.state(StateBuilding)
	return moduleWasm, os.Rename(filepath.Join(j.src(), all[0]), filepath.Join(j.out(), moduleWasm))
}

var wasmModule = []byte("\x00asm\x01\x00\x00\x00")

// readHead returns the first n bytes of a file, or all it has.
func readHead(name string, n int) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	defer file.Close()
	head := make([]byte, n)
	n, err = io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read source: %w", err)
	}
	return head[:n], nil
}

// headMax holds an ELF header's first fields and an interpreter line, whose
// end Linux wants within 256 bytes (execve(2)).
const headMax = 256

// buildNative takes a finished program: machine code for this machine, or a
// script with an interpreter line.
func buildNative(_ context.Context, j *job) (string, error) {
	var programs []string
	heads := map[string][]byte{}
	files := 0
	err := walkFiles(j.src(), func(name string, _ fs.DirEntry) error {
		files++
		head, err := readHead(filepath.Join(j.src(), name), headMax)
		if err != nil {
			return err
		}
		if isProgram(head) {
			programs = append(programs, name)
			heads[name] = head
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	entry := ""
	switch handler := path.Clean(j.req.Handler); {
	case j.req.Handler != "" && heads[handler] != nil:
		entry = handler
	case len(programs) == 1:
		entry = programs[0]
		if files > 1 {
			j.assume("%s is the program that is run", entry)
		}
	case len(programs) == 0:
		return "", bad("there is no program: want an ELF file or a script that starts with #!")
	default:
		return "", bad("which program is to run? Name it by the handler: one of %s", strings.Join(programs[:min(len(programs), 10)], ", "))
	}
	if err := j.checkProgram(entry, heads[entry]); err != nil {
		return "", err
	}
	if err := os.Chmod(filepath.Join(j.src(), filepath.FromSlash(entry)), 0o700); err != nil {
		return "", fmt.Errorf("write artifact: %w", err)
	}
	j.state(StateBuilding)
	return j.asIs(entry, moduleNative)
}

func isProgram(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x7fELF")) || bytes.HasPrefix(head, []byte("#!"))
}

// checkProgram tells whether this machine can start a program.
func (j *job) checkProgram(name string, head []byte) error {
	if !bytes.HasPrefix(head, []byte("#!")) {
		return checkELF(name, head)
	}
	line, err := bufio.NewReader(bytes.NewReader(head)).ReadString('\n')
	if err != nil {
		return bad("the interpreter line of %s has no end within %d bytes", quoted(name), headMax)
	}
	if strings.HasSuffix(line, "\r\n") {
		return &Error{Reason: BadSource, Detail: fmt.Sprintf("the interpreter line of %s ends in a carriage return", quoted(name)), Hint: "save the file with Unix line ends"}
	}
	fields := strings.Fields(line[2:])
	if len(fields) == 0 || !path.IsAbs(fields[0]) {
		return bad("the interpreter line of %s names no absolute path", quoted(name))
	}
	if info, err := os.Stat(fields[0]); err != nil || !info.Mode().IsRegular() {
		return missing("the interpreter "+quoted(fields[0]), packageOf(path.Base(fields[0])))
	}
	if path.Base(fields[0]) == "env" && len(fields) == 2 && !strings.HasPrefix(fields[1], "-") {
		// Where the function will look for it, not where the builder does.
		if len(j.b.lookIn(native.Path, path.Base(fields[1]))) == 0 {
			return missing("the interpreter "+quoted(fields[1]), packageOf(fields[1]))
		}
	}
	return nil
}

// packageOf names the Debian package of an interpreter: mostly they are the same.
func packageOf(interpreter string) string {
	switch interpreter {
	case "node":
		return "nodejs"
	case "php":
		return "php-cli"
	}
	return interpreter
}

// elfMachines are the values of e_machine, by architecture.
// Source: elf(5), /usr/include/elf.h.
var elfMachines = map[string]uint16{"amd64": 62, "arm64": 183, "386": 3, "arm": 40, "riscv64": 243, "ppc64le": 21, "s390x": 22, "loong64": 258}

// checkELF looks at the first fields of an ELF header: class and byte order,
// type and machine.
func checkELF(name string, head []byte) error {
	if len(head) < 20 {
		return bad("%s is a damaged ELF file", quoted(name))
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	kind, machine := order.Uint16(head[16:]), order.Uint16(head[18:])
	if want := elfMachines[goruntime.GOARCH]; machine != want {
		is := fmt.Sprintf("machine %d", machine)
		for arch, number := range elfMachines {
			if number == machine {
				is = arch
			}
		}
		return bad("%s is a program for %s; this machine is %s", quoted(name), is, goruntime.GOARCH)
	}
	const executable, shared = 2, 3 // ET_EXEC, ET_DYN: position-independent programs are the latter
	if kind != executable && kind != shared {
		return bad("%s is an ELF file, but no program", quoted(name))
	}
	return nil
}
