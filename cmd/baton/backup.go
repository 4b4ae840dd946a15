package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/deploy"
	"baton/gateway"
)

// oneFile wants the name of a file.
func oneFile(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return usageError{fmt.Errorf("want %s", what)}
		}
		return nil
	}
}

// backedUp is what `baton backup` did.
type backedUp struct {
	File string `json:"file"`
	deploy.BackupContent
}

func (c *commands) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of a data directory",
		Long: `Writes the database, the artifacts of all kept versions, what lies in import and
the configuration file of a data directory to one tar archive, mode 0600. A server
may run meanwhile: the backup is of one moment. A FILE that is there is replaced
when the backup is whole.

The admin token is not part of it: who can read a backup must not get a server with
it. Nor are logs and caches.`,
		Example: `  baton backup /backups/baton.tar
  baton backup baton-$(date +%F).tar --data /srv/baton`,
		Args: oneFile("the file to write, as in `baton backup baton.tar`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.here("backup"); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			content, err := deploy.Backup(ctx, deploy.BackupOptions{Data: c.data, File: args[0], Settings: configNames, Version: version, Now: c.now()})
			if err != nil && ctx.Err() != nil {
				return interrupted("no backup was written")
			}
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(c.out, backedUp{args[0], content})
			}
			_, err = fmt.Fprintf(c.out, "wrote %s: %s in %s, %s in %s\n", args[0], several(content.Versions, "version"),
				several(content.Functions, "deployed function"), sizeText(content.Bytes), several(content.Files, "file"))
			return err
		},
	}
	c.addJSON(cmd)
	return cmd
}

func (c *commands) restoreCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data directory of a backup",
		Long: `Makes a data directory what it was when the backup was made. No server may run on
it, and it must be empty or not be there yet. With --force what is there is put into
a folder of its own, and stays until somebody deletes it.

All of the archive is checked before anything is changed: its names, the sum of each
file, the database and the digest of each version. The admin token of the directory
stays; where there is none, a new one is made.`,
		Example: `  baton restore /backups/baton.tar --data /srv/baton
  baton restore baton.tar --force`,
		Args: oneFile("the file to read, as in `baton restore baton.tar`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.here("restore"); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			done, err := c.restore(ctx, args[0], force)
			switch {
			case err != nil && ctx.Err() != nil:
				return interrupted("nothing was restored")
			case err != nil:
				return explainRestore(err)
			case c.json:
				return printJSON(c.out, done)
			}
			return c.printRestored(done)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "put aside what the data directory has in it")
	c.addJSON(cmd)
	return cmd
}

// restoredData is what `baton restore` did.
type restoredData struct {
	Data string `json:"data"`
	deploy.Restored
	Token    string `json:"token"` // the file
	NewToken bool   `json:"newToken"`
}

func (c *commands) restore(ctx context.Context, path string, force bool) (done restoredData, err error) {
	file, err := os.Open(path)
	if err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return done, errors.Join(fmt.Errorf("restore: %s: want a file", path), err)
	}
	// Before anything is made: a file that is no backup leaves no trace.
	if _, err := deploy.ReadBackupInfo(file); err != nil {
		return done, fmt.Errorf("restore: %s: %w", path, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	_, missing := os.Lstat(c.data)
	if err := os.MkdirAll(c.data, 0o700); err != nil {
		return done, fmt.Errorf("restore: %w", err)
	}
	release, err := gateway.Hold(c.data)
	if err != nil {
		return done, err
	}
	done.Data, done.Token = c.data, filepath.Join(c.data, control.TokenName)
	done.Restored, err = deploy.Restore(ctx, deploy.RestoreOptions{Data: c.data, File: file, Settings: configNames, Force: force, Now: c.now()})
	if err == nil {
		done.NewToken, err = control.CreateToken(c.data)
	} else if errors.Is(missing, fs.ErrNotExist) {
		// What there is was made here, and is empty.
		for _, name := range []string{"functions", "import", "logs", "cache", "tmp", "lock", ""} {
			_ = os.Remove(filepath.Join(c.data, name))
		}
	}
	if e := release(); err == nil {
		err = e
	}
	return done, err
}

// explainRestore says what to do about an error.
func explainRestore(err error) error {
	var held *gateway.HeldError
	switch {
	case errors.Is(err, deploy.ErrNotEmpty):
		return fmt.Errorf("%w: name another one with --data, or have --force put aside what is there", err)
	case errors.As(err, &held):
		return fmt.Errorf("%w: `baton stop --data %s` ends that server", err, held.Data)
	case errors.Is(err, deploy.ErrBadBackup):
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return err
}

func (c *commands) printRestored(done restoredData) error {
	token := done.Token + " (as it was)"
	if done.NewToken {
		token = done.Token + " (new)"
	}
	rows := [][]string{
		{"data directory", done.Data},
		{"backup of", fmt.Sprintf("%s, by baton %s", done.Created.Local().Format("2006-01-02 15:04:05"), done.Version)},
		{"restored", fmt.Sprintf("%s in %s, %s in %s", several(done.Versions, "version"), several(done.Functions, "deployed function"), sizeText(done.Bytes), several(done.Files, "file"))},
		{"admin token", token},
	}
	if done.Replaced != "" {
		rows = append(rows, []string{"put aside", done.Replaced + " (delete it when nothing of it is missed)"})
	}
	if err := table(c.out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.out, "\nNext: baton serve --data %s\n", shellWord(done.Data))
	return err
}
