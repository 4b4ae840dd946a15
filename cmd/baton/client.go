package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/deploy"
)

// client speaks to the server that is meant: that of --server, or the one that
// serves the data directory.
func (c *commands) client() (*control.Client, error) {
	if c.server == "" {
		if c.token != "" {
			return nil, usageError{errors.New("--token-file is for --server: name the server too")}
		}
		return control.NewClient(c.data), nil
	}
	if c.token == "" {
		return nil, usageError{fmt.Errorf("--server %s wants --token-file: a file (mode 0600) with the line that admin.token in its data directory has", c.server)}
	}
	token, err := control.LoadTokenFile(c.token)
	if err != nil {
		return nil, fmt.Errorf("--token-file: %w", err)
	}
	client, err := control.NewRemoteClient(c.server, token)
	if err != nil {
		return nil, usageError{err}
	}
	return client, nil
}

// asks is a command's RunE that puts its questions to a running server, all of
// them within askTimeout.
func (c *commands) asks(run func(ctx context.Context, client *control.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), askTimeout)
		defer cancel()
		return run(ctx, client, args)
	}
}

// here refuses what works on this machine's data directory only.
func (c *commands) here(command string) error {
	if c.server != "" {
		return usageError{fmt.Errorf("`baton %s` works on a data directory of this machine, and --server (or BATON_SERVER) names another: leave it away, or run it there", command)}
	}
	return nil
}

// cure is what may be done about a refusal, by its reason.
var cure = map[string]string{
	string(deploy.NotFound):     "`baton ls` lists the functions",
	string(deploy.NoVersion):    "`baton versions NAME` lists those that are kept",
	string(deploy.CodeMissing):  "name the folder or file with the code",
	string(deploy.CodeNeeded):   "name the folder or file with the code",
	string(deploy.NotConfirmed): "`baton status` and `baton versions NAME` tell how it ended",
	"admin_socket_only":         "run the command on the server's machine, with --data",
	"no_worker":                 "`baton status` tells what its workers do",
}

// explain adds what to do to an error of the client.
func (c *commands) explain(err error) error {
	var refused *control.RefusedError
	switch {
	case errors.Is(err, control.ErrNotRunning) && c.server != "":
		return fmt.Errorf("no server answers at %s: is the address right, and does it run? (%w)", c.server, err)
	case errors.Is(err, control.ErrNotRunning):
		return fmt.Errorf("no server runs on %s: start one with `baton serve --data %s`, or name its data directory with --data (%w)", c.data, c.data, err)
	case errors.Is(err, context.DeadlineExceeded) && c.server != "":
		return fmt.Errorf("the server at %s does not answer within %v (%w)", c.server, askTimeout, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the server on %s does not answer within %v: `baton stop --data %s` ends it (%w)", c.data, askTimeout, c.data, err)
	case !errors.As(err, &refused):
		return err
	case refused.Status == http.StatusUnauthorized && c.server != "":
		return fmt.Errorf("the server at %s refuses the token in %s: it is the line in admin.token in its data directory (%w)", c.server, c.token, err)
	case refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("the server on %s refuses the token in its data directory; was it changed while the server runs? (%w)", c.data, err)
	}
	text := refused.Error()
	if to := cure[refused.Reason]; to != "" {
		text += ": " + to
	}
	if len(refused.Fields) > 1 || len(refused.Fields) == 1 && !strings.Contains(text, refused.Fields[0].Want) {
		text += fieldList(refused.Fields)
	}
	return &toldError{text, err}
}

// toldError is an error with another text.
type toldError struct {
	text string
	err  error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.err }

// fieldList is a descriptor's wrong fields, a line each.
func fieldList(fields []control.FieldFault) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString("\n    " + plain(f.Field) + ": want " + plain(f.Want))
		if f.Got != "" {
			b.WriteString(", got " + plain(f.Got))
		}
	}
	return b.String()
}
