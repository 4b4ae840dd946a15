package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"baton/control"
)

func (c *commands) listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the functions and their routes",
		Long: `Lists every row of the functions table, as the running server sees it. A row that
is refused is listed with its faults; what served before goes on serving.`,
		Example: `  baton ls
  baton ls --json | jq '.[] | select(.state != "serving")'`,
		Args: noArguments,
		RunE: c.asks(func(ctx context.Context, client *control.Client, _ []string) error {
			functions, err := client.Functions(ctx)
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return printJSON(c.out, functions)
			}
			return c.printFunctions(functions)
		}),
	}
	c.addJSON(cmd)
	return cmd
}

func (c *commands) printFunctions(functions []control.Function) error {
	if len(functions) == 0 {
		_, err := fmt.Fprintln(c.out, "no functions; `baton new go hello` begins one, `baton init` adds the demo")
		return err
	}
	rows := [][]string{{"METHOD", "PATH", "FUNCTION", "RUNTIME", "STATE", "REQUESTS", "ERRORS", "RUNNING"}}
	for _, f := range functions {
		method, path, _ := strings.Cut(f.Key, ":")
		rows = append(rows, []string{method, path, dash(f.Name), dash(f.Runtime), f.State,
			strconv.FormatUint(f.Invocations, 10), strconv.FormatUint(f.Errors, 10), strconv.Itoa(f.Inflight)})
	}
	if err := table(c.out, rows); err != nil {
		return err
	}
	return c.printFaults(functions)
}

// printFaults prints the rows that are refused, with every fault.
func (c *commands) printFaults(functions []control.Function) error {
	for _, f := range functions {
		if f.State == control.Serving {
			continue
		}
		serves := "nothing serves this route"
		if f.State == control.Stale {
			serves = "the version before it serves"
		}
		if _, err := fmt.Fprintf(c.out, "\nrefused %s (%s):\n%s", plain(f.Key), serves, indented(f.Error)); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// dash stands for nothing in a table.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
