package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/deploy"
	"baton/examples"
	"baton/route/sqlite"
)

// bundled holds demo.wasm when it was there at the build, and a note.
//
//go:embed all:bundled
var bundled embed.FS

// errNoDemo says that this binary was built without the demo functions.
var errNoDemo = errors.New("this binary was built without the demo functions: run `make`, which compiles them, and `baton init` again")

// bundledDemo is the demo functions' module.
func bundledDemo() ([]byte, error) {
	module, err := bundled.ReadFile("bundled/demo.wasm")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoDemo
	}
	return module, err
}

// databaseName is the functions table's file in a data directory.
const databaseName = "faas_meta.db"

// initialised is what `baton init` did.
type initialised struct {
	Data     string         `json:"data"`
	Token    string         `json:"token"` // the file, not the secret
	NewToken bool           `json:"newToken"`
	Demo     *deploy.Seeded `json:"demo"` // null: not wanted, or not in this binary
}

func (c *commands) initCommand() *cobra.Command {
	demo := true
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a data directory with the demo functions",
		Long: `Makes what is missing of a data directory: the folders, the admin token, the
database with the functions table, and the demo functions. What is there stays:
it may be run again at any time, also while a server runs.`,
		Example: `  baton init
  baton init --data /srv/baton --demo=false`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.here("init"); err != nil {
				return err
			}
			done, err := c.initialise(cmd.Context(), demo)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(c.out, done)
			}
			return c.printInitialised(done)
		},
	}
	cmd.Flags().BoolVar(&demo, "demo", demo, "add the demo functions")
	twin(cmd.Flags(), "demo", "BATON_DEMO")
	c.addJSON(cmd)
	return cmd
}

// initialise makes everything, the database last: its being there says that the
// rest is.
func (c *commands) initialise(ctx context.Context, demo bool) (done initialised, err error) {
	if err := deploy.MakeTree(c.data); err != nil {
		return done, err
	}
	done.Data, done.Token = c.data, filepath.Join(c.data, control.TokenName)
	if done.NewToken, err = control.CreateToken(c.data); err != nil {
		return done, err
	}
	var module []byte
	if demo {
		if module, err = c.demo(); errors.Is(err, errNoDemo) {
			fmt.Fprintf(c.err, "baton: no demo functions: %v\n", err)
		} else if err != nil {
			return done, fmt.Errorf("read the demo functions: %w", err)
		}
	}
	rows, err := sqlite.Open(filepath.Join(c.data, databaseName))
	if err != nil {
		return done, fmt.Errorf("make the database: %w", err)
	}
	defer func() {
		if e := rows.Close(); err == nil && e != nil {
			err = fmt.Errorf("close the database: %w", e)
		}
	}()
	if module == nil {
		return done, nil
	}
	descriptors, err := fs.Sub(examples.Demo, "demo")
	if err != nil {
		return done, fmt.Errorf("read the demo functions: %w", err)
	}
	seeded, err := deploy.Seed{Data: c.data, Module: module, Descriptors: descriptors, Rows: rows}.Plant(ctx)
	if err != nil {
		return done, err
	}
	done.Demo = &seeded
	return done, nil
}

func (c *commands) printInitialised(done initialised) error {
	token := done.Token + " (as it was)"
	if done.NewToken {
		token = done.Token + " (new)"
	}
	rows := [][]string{{"data directory", done.Data}, {"admin token", token}}
	if done.Demo != nil {
		for _, list := range []struct {
			what string
			keys []string
		}{{"added", done.Demo.Added}, {"updated", done.Demo.Updated}, {"kept", done.Demo.Kept}} {
			if len(list.keys) > 0 {
				rows = append(rows, []string{"demo functions", list.what + ": " + strings.Join(list.keys, ", ")})
			}
		}
	}
	if err := table(c.out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.out, "\nNext: baton serve --data %s\n", done.Data)
	return err
}
