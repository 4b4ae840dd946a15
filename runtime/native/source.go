package native

import (
	"debug/elf"
	_ "embed"
)

// EntrySource is the C source of the entry. It is compiled apart from the
// program, with EntryFlags, and linked into it with LinkFlags: dynamically (-static does not work: the entry needs a
// C library that is ready).
//
//go:embed entry/entry.c
var EntrySource string

// EntryFlags returns what the C compiler (gcc or clang) is called with for the
// entry, beside -c, its source and -o.
func EntryFlags() []string {
	return []string{"-O2", "-fPIC", "-fno-stack-protector", "-fno-lto"}
}

// LinkFlags returns what the linker driver is called with beside the entry's
// object file.
func LinkFlags() []string { return []string{"-Wl,--wrap=__libc_start_main"} }

// noteSection marks programs that are linked with the entry.
const noteSection = ".note.baton"

// Linked says whether the program at path is linked with the entry.
func Linked(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(noteSection) != nil
}
