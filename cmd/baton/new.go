package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"baton/examples"
	"baton/route"
)

// descriptorName is the descriptor's file in a function's folder.
const descriptorName = "descriptor.json"

// begun is what `baton new` wrote.
type begun struct {
	Name    string   `json:"name"`
	Runtime string   `json:"runtime"`
	Files   []string `json:"files"`
}

func (c *commands) newCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new RUNTIME NAME",
		Short: "Begin a function: a folder with its first code",
		Long: `Writes a folder with a function that works and its descriptor, descriptor.json. The
folder is called NAME, or is the path NAME, and must not be there yet. Runtimes are
` + strings.Join(starterRuntimes(), ", ") + `.`,
		Example: `  baton new go hello
  baton deploy hello`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("want a runtime (%s) and a name, as in `baton new go hello`", strings.Join(starterRuntimes(), ", "))}
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return starterRuntimes(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			done, err := begin(args[0], args[1])
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(c.out, done)
			}
			_, err = fmt.Fprintf(c.out, "wrote %s\n\nNext: baton deploy %s\n", strings.Join(done.Files, ", "), shellWord(args[1]))
			return err
		},
	}
	c.addJSON(cmd)
	return cmd
}

// starterRuntimes are the runtimes that a folder can be written for.
func starterRuntimes() []string {
	entries, err := examples.Starters.ReadDir("starter")
	if err != nil {
		panic("baton: the starters are not in the binary: " + err.Error())
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// begin writes the folder of a new function, whole or not at all.
func begin(runtime, folder string) (done begun, err error) {
	if runtime == "c++" {
		runtime = "cpp"
	}
	if known := starterRuntimes(); !slices.Contains(known, runtime) {
		err := fmt.Errorf("there is no runtime %q: want one of %s", runtime, strings.Join(known, ", "))
		if near := nearest(runtime, known); near != "" {
			err = fmt.Errorf("%w; did you mean %s?", err, near)
		}
		return done, usageError{err}
	}
	folder = filepath.Clean(folder)
	name := filepath.Base(folder)
	if !validName(name) {
		return done, usageError{fmt.Errorf("the name %q: want %s", name, nameRule)}
	}
	files, err := fs.Sub(examples.Starters, path.Join("starter", runtime))
	if err != nil {
		return done, fmt.Errorf("read the starter: %w", err)
	}
	if err := os.Mkdir(folder, 0o755); errors.Is(err, fs.ErrExist) {
		return done, fmt.Errorf("%s is there already: choose another name, or remove it first", folder)
	} else if err != nil {
		return done, fmt.Errorf("make the folder: %w", err)
	}
	done = begun{Name: name, Runtime: runtime, Files: []string{}}
	err = fs.WalkDir(files, ".", func(from string, d fs.DirEntry, err error) error {
		if err != nil || from == "." {
			return err
		}
		to := filepath.Join(folder, filepath.FromSlash(strings.TrimSuffix(from, ".txt")))
		if d.IsDir() {
			return os.Mkdir(to, 0o755)
		}
		text, err := fs.ReadFile(files, from)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(text, []byte("#!")) {
			mode = 0o755
		}
		done.Files = append(done.Files, to)
		return os.WriteFile(to, bytes.ReplaceAll(text, []byte("{{name}}"), []byte(name)), mode)
	})
	if err != nil {
		return done, errors.Join(fmt.Errorf("write %s: %w", folder, err), os.RemoveAll(folder))
	}
	return done, nil
}

// nameRule is how a function may be called.
const nameRule = "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit"

// validName asks the descriptor's own parser.
func validName(name string) bool {
	d := route.Descriptor{Name: name, Runtime: "wasm", MemoryMB: route.MemoryDefaultMB, Timeout: route.TimeoutDefault, MaxBody: route.MaxBodyDefault}
	_, err := route.ParseDescriptor(d.AppendJSON(nil))
	return err == nil
}
