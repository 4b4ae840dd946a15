package build

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// languages by the extension of their sources. Headers say nothing.
var languages = map[string]string{
	".go": "go", ".rs": "rust", ".c": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".c++": "cpp",
	".php": "php", ".py": "python", ".wasm": "wasm",
}

// Detect says what the folder or file at dir looks like: the runtime and the
// handler for its descriptor, and in words what was assumed. The handler is
// empty where the runtime finds its entry by itself.
//
// An *Error with reason BadSource says that it looks like nothing, or like
// several things. It runs nothing and follows no links inside of the folder.
func Detect(dir string) (runtime, handler string, assumed []string, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", "", nil, fmt.Errorf("look at the source: %w", err)
	}
	if !info.IsDir() {
		runtime, why, err := detectFile(dir)
		if err != nil {
			return "", "", nil, err
		}
		return runtime, "", []string{fmt.Sprintf("runtime %s, because %s", runtime, why)}, nil
	}
	// A file of a package tool in the top folder decides.
	for _, sign := range []struct{ file, runtime string }{
		{"go.mod", "go"}, {"Cargo.toml", "rust"}, {"composer.json", "php"}, {"requirements.txt", "python"}, {"pyproject.toml", "python"},
	} {
		if info, err := os.Lstat(filepath.Join(dir, sign.file)); err == nil && info.Mode().IsRegular() {
			return sign.runtime, "", []string{fmt.Sprintf("runtime %s, because there is a %s", sign.runtime, sign.file)}, nil
		}
	}
	return detectFolder(dir)
}

// detectFolder goes by the extensions: those of the top folder, or where that
// has none, those of all below it.
func detectFolder(dir string) (runtime, handler string, assumed []string, err error) {
	top, below := map[string]string{}, map[string]string{} // a language, and a file of it
	files := 0
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("look at the source: %w", err)
		}
		if name == dir {
			return nil
		}
		base := d.Name()
		if d.IsDir() {
			if strings.HasPrefix(base, ".") || slices.Contains([]string{"vendor", "node_modules", "testdata", "venv"}, base) {
				return fs.SkipDir
			}
			return nil
		}
		if files++; files > DefaultLimits().Entries {
			return tooLarge("more than %d files", DefaultLimits().Entries)
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if language := languages[strings.ToLower(path.Ext(base))]; language != "" && d.Type().IsRegular() {
			found := below
			if relative == base {
				found = top
			}
			if found[language] == "" {
				found[language] = relative
			}
		}
		return nil
	})
	if err != nil {
		return "", "", nil, err
	}
	found := top
	if len(found) == 0 {
		found = below
	}
	if len(found) == 2 && found["c"] != "" && found["cpp"] != "" {
		delete(found, "c") // C files of a C++ program
	}
	switch len(found) {
	case 0:
		return detectProgram(dir)
	case 1:
		for language, file := range found {
			return language, "", []string{fmt.Sprintf("runtime %s, because there is %s", language, file)}, nil
		}
	}
	var names []string
	for language, file := range found {
		names = append(names, file+" ("+language+")")
	}
	slices.Sort(names)
	return "", "", nil, &Error{Reason: BadSource, Detail: "the folder could be several things: " + strings.Join(names, ", "), Hint: "say which by the descriptor's runtime"}
}

// detectProgram looks for one program among files whose names say nothing.
func detectProgram(dir string) (runtime, handler string, assumed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", "", nil, fmt.Errorf("look at the source: %w", err)
	}
	var programs []string
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if head, err := readHead(filepath.Join(dir, entry.Name()), headMax); err == nil && isProgram(head) {
			programs = append(programs, entry.Name())
		}
	}
	switch len(programs) {
	case 0:
		return "", "", nil, &Error{Reason: BadSource, Detail: "nothing in it looks like a function", Hint: "sources end in .go, .rs, .c, .cpp, .php or .py, modules in .wasm; programs are ELF files or start with #!"}
	case 1:
		return "native", "", []string{fmt.Sprintf("runtime native, because %s is a program", programs[0])}, nil
	}
	return "", "", nil, &Error{Reason: BadSource, Detail: "several programs: " + strings.Join(programs[:min(len(programs), 10)], ", "), Hint: "name one by the descriptor's handler, with runtime native"}
}

// detectFile tells what one file is: by its extension, else by its first bytes.
func detectFile(name string) (runtime, why string, err error) {
	base := filepath.Base(name)
	if language := languages[strings.ToLower(path.Ext(base))]; language != "" {
		return language, "of the name " + base, nil
	}
	head, err := readHead(name, headMax)
	if err != nil {
		return "", "", err
	}
	switch {
	case bytes.HasPrefix(head, wasmModule[:4]):
		return "wasm", base + " is a WebAssembly module", nil
	case bytes.HasPrefix(head, []byte("<?php")):
		return "php", base + " starts with <?php", nil
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return "native", base + " is an ELF file", nil
	case bytes.HasPrefix(head, []byte("#!")):
		return "native", base + " starts with #!", nil
	}
	return "", "", &Error{Reason: BadSource, Detail: base + " looks like no function", Hint: "sources end in .go, .rs, .c, .cpp, .php or .py, modules in .wasm; programs are ELF files or start with #!"}
}
