package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
)

// completeTimeout bounds what a press of the tab key waits for.
const completeTimeout = 2 * time.Second

// changeTimeout bounds a change that builds nothing, as the server does.
const changeTimeout = time.Minute

// oneFunction wants the name of a function, and accepts more further arguments.
func oneFunction(more int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usageError{errors.New("which function? `baton ls` lists them")}
		case len(args) > 1+more:
			return usageError{fmt.Errorf("%q: one argument too many", args[1+more])}
		case !validName(args[0]):
			return usageError{fmt.Errorf("%q is no function's name: want %s", args[0], nameRule)}
		}
		return nil
	}
}

// completeFunction offers the functions of the running server, and for a second
// argument, where versions says so, the versions of the first.
func (c *commands) completeFunction(versions bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		const none = cobra.ShellCompDirectiveNoFileComp
		if len(args) > 1 || len(args) == 1 && (!versions || !validName(args[0])) {
			return nil, none
		}
		// The flags were parsed for this command only now.
		if c.environment(cmd) != nil {
			return nil, none
		}
		client, err := c.client()
		if err != nil {
			return nil, none
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
		defer cancel()
		var all []string
		if len(args) == 1 {
			list, err := client.Versions(ctx, args[0])
			if err != nil {
				return nil, none
			}
			for _, v := range list {
				all = append(all, strconv.Itoa(v.Version))
			}
			return all, none | cobra.ShellCompDirectiveKeepOrder
		}
		functions, err := client.Functions(ctx)
		if err != nil {
			return nil, none
		}
		seen := map[string]bool{}
		for _, f := range functions {
			if validName(f.Name) && !seen[f.Name] {
				seen[f.Name] = true
				all = append(all, f.Name)
			}
		}
		return all, none
	}
}

func (c *commands) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show a function: its routes, limits, version and counts",
		Example: `  baton get hello
  baton get hello --json | jq .descriptor`,
		Args:              oneFunction(0),
		ValidArgsFunction: c.completeFunction(false),
		RunE: c.asks(func(ctx context.Context, client *control.Client, args []string) error {
			f, _, err := client.Function(ctx, args[0])
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return printJSON(c.out, f)
			}
			base, err := client.PublicURL(ctx)
			if err != nil {
				base = ""
			}
			return c.printFunction(f, base)
		}),
	}
	c.addJSON(cmd)
	return cmd
}

func (c *commands) printFunction(f control.FunctionDetail, base string) error {
	rows := [][]string{{"function", f.Name}, {"state", f.State}}
	for _, key := range f.Keys {
		method, path, _ := strings.Cut(key, ":")
		rows = append(rows, []string{"route", method + " " + path})
	}
	rows = append(rows, []string{"url", base + f.URL})
	if f.ID != "" {
		rows = append(rows, []string{"version", fmt.Sprintf("%d of %d that are kept", f.Version, f.Versions)}, []string{"id", f.ID})
	}
	if f.Runtime != "" {
		rows = append(rows, []string{"runtime", f.Runtime}, []string{"module", f.Module})
		if f.Handler != "" {
			rows = append(rows, []string{"handler", f.Handler})
		}
		inflight := "as many as come"
		if f.MaxInflight > 0 {
			inflight = fmt.Sprintf("%d at a time", f.MaxInflight)
		}
		rows = append(rows,
			[]string{"memory", fmt.Sprintf("%d MB", f.MemoryMB)},
			[]string{"timeout", (time.Duration(f.TimeoutSeconds*1e6) * time.Microsecond).String()},
			[]string{"largest body", sizeText(f.MaxBody)},
			[]string{"requests", inflight},
			[]string{"answered", fmt.Sprintf("%d, of them %s; %d running", f.Invocations, several(int(f.Errors), "error"), f.Inflight)})
	}
	if len(f.Descriptor) > 0 {
		rows = append(rows, []string{"descriptor", compact(f.Descriptor)})
	}
	if err := table(c.out, rows); err != nil {
		return err
	}
	if f.State == control.Serving {
		return nil
	}
	return c.printFaults([]control.Function{f.Function})
}

// compact is JSON in one line.
func compact(text json.RawMessage) string {
	b, err := json.Marshal(text)
	if err != nil {
		return string(text)
	}
	return string(b)
}

func (c *commands) versionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "versions NAME",
		Short: "List the versions of a function that are kept",
		Long: `Lists the versions of a deployed function that are kept, the newest first. The one
that serves has a star.`,
		Example: `  baton versions hello
  baton versions hello --json | jq '.[].version'`,
		Args:              oneFunction(0),
		ValidArgsFunction: c.completeFunction(false),
		RunE: c.asks(func(ctx context.Context, client *control.Client, args []string) error {
			list, err := client.Versions(ctx, args[0])
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return printJSON(c.out, list)
			}
			rows := [][]string{{"VERSION", "SERVES", "MADE", "SIZE", "DIGEST"}}
			for _, v := range list {
				star := ""
				if v.Active {
					star = "*"
				}
				digest := strings.TrimPrefix(v.Digest, "sha256:")
				rows = append(rows, []string{strconv.Itoa(v.Version), star, v.Created.Local().Format(time.DateTime), sizeText(v.Size), digest[:min(len(digest), 12)]})
			}
			return table(c.out, rows)
		}),
	}
	c.addJSON(cmd)
	return cmd
}

func (c *commands) rollbackCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollback NAME [VERSION]",
		Short: "Have an older version of a function serve again",
		Long: `Has a version of a function serve that is kept: the one before the one that serves,
or the one that is named. Nothing is built, and nothing is lost: rolling forward is
the same command with the newer version.`,
		Example: `  baton rollback hello
  baton rollback hello 3`,
		Args:              oneFunction(1),
		ValidArgsFunction: c.completeFunction(true),
		RunE: func(cmd *cobra.Command, args []string) error {
			version := 0
			if len(args) == 2 {
				var err error
				if version, err = strconv.Atoi(args[1]); err != nil || version < 1 {
					return usageError{fmt.Errorf("version %q: want a number, as `baton versions %s` lists them", args[1], args[0])}
				}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), changeTimeout)
			defer cancel()
			result, err := client.Rollback(ctx, args[0], version)
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return printJSON(c.out, result.Raw)
			}
			_, err = fmt.Fprintf(c.out, "version %d of %s serves\n", result.Version, plain(result.Name))
			return err
		},
	}
	c.addJSON(cmd)
	return cmd
}

func (c *commands) removeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rm NAME",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a function with its routes and versions",
		Long: `Removes a function: when the command ends, no request finds it any more; those that
run come to their end. All its versions go with it, and there is no way back but
another deploy.`,
		Example:           `  baton rm hello`,
		Args:              oneFunction(0),
		ValidArgsFunction: c.completeFunction(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), changeTimeout)
			defer cancel()
			if err := client.Delete(ctx, args[0], ""); err != nil {
				return c.explain(err)
			}
			_, err = fmt.Fprintf(c.out, "removed %s\n", args[0])
			return err
		},
	}
}
