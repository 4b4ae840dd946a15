package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // the command could not do what it is for
	exitUsage   = 2 // … because it was called wrongly
)

// exitError ends the process with a code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usageError is a call that no data directory could make right.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// commands are what the commands have in common.
type commands struct {
	out, err io.Writer
	in       io.Reader // standard input; nil: none
	env      func(string) string
	data     string // --data
	config   string // --config
	server   string // --server
	token    string // --token-file
	json     bool   // --json, where a command prints data
	now      func() time.Time
	demo     func() ([]byte, error)
	again    func() error // what serve does first; nil: nothing. See executeWithSlack

	configPath string // of the file that was read; empty: none
}

// run is the whole program: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	c := &commands{in: os.Stdin, out: stdout, err: stderr, env: os.Getenv, now: time.Now, demo: bundledDemo, again: executeWithSlack}
	return c.run(args)
}

func (c *commands) run(args []string) int {
	root := c.root()
	root.SetArgs(args)
	called, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	var exit *exitError
	var usage usageError
	if errors.As(err, &exit) {
		fmt.Fprintln(c.err, err) // for the process that started this one
		return exit.code
	}
	fmt.Fprintf(c.err, "baton: %v\n", err)
	if errors.As(err, &usage) {
		fmt.Fprintf(c.err, "`%s --help` shows how it is used.\n", called.CommandPath())
		return exitUsage
	}
	return exitFailure
}

func (c *commands) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "baton",
		Short: "Functions behind one port of one Linux machine",
		Long: `baton runs functions behind one port of one Linux machine. A client's connection
is handed to the worker that runs its function, and stays there.

A setting is a flag with a variable in its help. Its value is the flag's, or the
variable's, or that of the same name in baton.toml or baton.yaml in the data
directory (or the file that --config names), or the default: the first that there is.

The commands speak to the server of a data directory on this machine, or with
--server and --token-file to one elsewhere.`,
		Example: `  baton init
  baton serve --listen 127.0.0.1:8080
  baton deploy ./hello --route 'POST /greet'
  curl -d '{"name":"Alice"}' http://127.0.0.1:8080/api/hello`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return c.environment(cmd) },
		// Not a bare help: who calls baton without a command has called it wrongly.
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("which command?")}
			}
			err := fmt.Errorf("there is no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
			}
			return usageError{err}
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&c.data, "data", "./data", "the data directory")
	flags.StringVar(&c.config, "config", "", "the configuration file; given empty: none")
	flags.StringVar(&c.server, "server", "", "URL of a server elsewhere")
	flags.StringVar(&c.token, "token-file", "", "file with the admin token of --server")
	for flag, variable := range map[string]string{"data": "BATON_DATA", "config": "BATON_CONFIG", "server": "BATON_SERVER", "token-file": "BATON_TOKEN_FILE"} {
		twin(flags, flag, variable)
	}
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"server", "The server:", []*cobra.Command{c.initCommand(), c.serveCommand(), c.statusCommand(), c.stopCommand(), c.tokenCommand(), c.backupCommand(), c.restoreCommand()}},
		{"functions", "Functions:", []*cobra.Command{c.newCommand(), c.deployCommand(), c.devCommand(), c.listCommand(), c.getCommand(),
			c.invokeCommand(), c.logsCommand(), c.versionsCommand(), c.rollbackCommand(), c.removeCommand()}},
		{"more", "More:", []*cobra.Command{c.versionCommand(), c.completionCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, cmd := range group.commands {
			cmd.GroupID = group.id
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID("more")
	root.AddCommand(c.workerCommand(), c.prepareCommand(), c.sandboxCommand(), c.spawnCommand())
	return root
}

// environment settles the flags that were not given, and where the data is.
func (c *commands) environment(cmd *cobra.Command) error {
	if err := c.settings(cmd); err != nil {
		return err
	}
	if c.data == "" {
		return usageError{errors.New("--data is empty: name the data directory")}
	}
	var err error
	if c.data, err = filepath.Abs(c.data); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// noArguments refuses what a command would ignore.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%q: this command takes no arguments", args[0])}
	}
	return nil
}

// addJSON gives a command that prints data the flag for printing it as JSON.
func (c *commands) addJSON(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	twin(cmd.Flags(), "json", "BATON_JSON")
}

// askTimeout bounds one question to a running server.
const askTimeout = 10 * time.Second
