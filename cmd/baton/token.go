package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"baton/control"
)

func (c *commands) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Replace the admin token",
		Long:  "What may be done about the admin token of a server.",
		Example: `  baton token rotate
  cat data/admin.token`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("there is no command %q: want rotate", args[0])}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("want rotate: `baton token rotate` replaces the token")}
		},
	}
	cmd.AddCommand(c.rotateCommand())
	return cmd
}

// rotated is what `baton token rotate` did.
type rotated struct {
	File string `json:"file"` // that has the new token
}

func (c *commands) rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Have the server make a new admin token",
		Long: `Has the running server replace its admin token: the old one, and every browser that
was signed in with it, are refused from then on. The new token is in admin.token in
the data directory; with --server it is written to --token-file too.`,
		Example: `  baton token rotate
  baton token rotate --server https://faas.example.org --token-file token`,
		Args: noArguments,
		RunE: c.asks(func(ctx context.Context, client *control.Client, _ []string) error {
			token, err := client.RotateToken(ctx)
			if errors.Is(err, control.ErrNotRunning) && c.server == "" {
				return fmt.Errorf("no server runs on %s, which would replace the token: delete %s and `baton init --demo=false --data %s` makes another (%w)",
					c.data, filepath.Join(c.data, control.TokenName), shellWord(c.data), err)
			}
			if err != nil {
				return c.explain(err)
			}
			done := rotated{File: filepath.Join(c.data, control.TokenName)}
			if c.server != "" {
				done.File = c.token
				if err := replaceFile(c.token, token+"\n"); err != nil {
					// The old one is worth nothing any more: this must not be lost.
					return fmt.Errorf("the server has a new token, and it could not be written to %s: %w; it is\n%s", c.token, err, token)
				}
			}
			if c.json {
				return printJSON(c.out, done)
			}
			_, err = fmt.Fprintf(c.out, "the admin token was replaced; the new one is in %s\n", done.File)
			return err
		}),
	}
	c.addJSON(cmd)
	return cmd
}

// replaceFile puts a secret in the place of a file, whole or not at all, for its
// owner alone.
func replaceFile(path, text string) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".token-") // 0600
	if err != nil {
		return err
	}
	_, err = io.WriteString(temporary, text)
	if err == nil {
		err = temporary.Sync()
	}
	if e := temporary.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temporary.Name())
	}
	return err
}
