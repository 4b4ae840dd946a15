package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/runtime/logs"
)

// tailDefault is how many lines `baton logs` prints when nothing says which.
const tailDefault = 100

func (c *commands) logsCommand() *cobra.Command {
	var follow bool
	var request, since string
	var tail int
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a function wrote to standard error, and its failures",
		Long: `Prints a function's log: each line that it wrote to standard error and each request
that failed, with time, version and request id, the oldest first. Without a flag
the last 100; with --since or --request all that are meant. With -f it goes on with
what is logged, until Ctrl-C. With --json each line is one JSON object.`,
		Example: `  baton logs hello -f
  baton logs hello --since 10m
  baton logs hello --request 76k724r39if9d0000000
  baton logs hello --json --tail 0 | jq 'select(.failure)'`,
		Args:              oneFunction(0),
		ValidArgsFunction: c.completeFunction(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := logs.Query{Function: args[0], Request: request, Follow: follow, Tail: tail}
			if since != "" {
				var err error
				if q.Since, err = parseSince(since, c.now()); err != nil {
					return usageError{err}
				}
			}
			if (since != "" || request != "") && !cmd.Flags().Changed("tail") {
				q.Tail = 0
			}
			if q.Tail < 0 || q.Tail > logs.TailMax {
				return usageError{fmt.Errorf("--tail %d: want a number of lines from 0 (all) to %d", tail, logs.TailMax)}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			return c.printLogs(cmd.Context(), client, q)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what is logged")
	flags.StringVar(&request, "request", "", "only what belongs to the request with this `id`")
	flags.StringVar(&since, "since", "", "only what is not older: a `time` like 2026-01-02T15:04:05Z, or how long ago, like 10m")
	flags.IntVarP(&tail, "tail", "n", tailDefault, "the last so many lines; 0: all")
	c.addJSON(cmd)
	return cmd
}

// parseSince reads a moment, or how long before now it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q: want how long ago, as in 10m or 2h30m, or a time, as in 2026-01-02T15:04:05Z", text)
}

func (c *commands) printLogs(ctx context.Context, client *control.Client, q logs.Query) error {
	if q.Follow {
		if err := c.known(ctx, client, q.Function); err != nil {
			return err
		}
	}
	n := 0
	err := client.Logs(ctx, q, func(e logs.Entry) error {
		n++
		line := logLine(&e)
		if c.json {
			line = string(e.AppendJSON(nil))
		}
		_, err := fmt.Fprintln(c.out, line)
		return err
	})
	switch {
	case err != nil && ctx.Err() == nil:
		return c.explain(err)
	case err != nil:
		return err
	case q.Follow:
		return errors.New("the server has ended the log: it is stopping; the same command goes on when it runs again")
	case n == 0 && q.Request == "":
		return c.known(ctx, client, q.Function)
	}
	return nil
}

// known says that there is no function of a name: its log may be empty because
// it was misspelt.
func (c *commands) known(ctx context.Context, client *control.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, _, err := client.Function(ctx, name); err != nil {
		return c.explain(err)
	}
	return nil
}

// logLine is an entry in one line, in local time.
func logLine(e *logs.Entry) string {
	var b strings.Builder
	b.WriteString(e.Time.Local().Format("2006-01-02 15:04:05.000"))
	if e.Dropped > 0 {
		fmt.Fprintf(&b, "  %d lines found no room and are lost", e.Dropped)
		return b.String()
	}
	if e.Version > 0 {
		fmt.Fprintf(&b, "  v%d", e.Version)
	} else {
		b.WriteString("  -")
	}
	b.WriteString("  " + dash(plain(e.Request)) + "  ")
	if e.Failure == "" {
		b.WriteString(plain(e.Text))
		if e.Cut > 0 {
			fmt.Fprintf(&b, " … and %d bytes more", e.Cut)
		}
		return b.String()
	}
	fmt.Fprintf(&b, "FAILED %d %s after %.1f ms", e.Status, plain(e.Failure), e.DurationMS)
	if e.Detail != "" {
		b.WriteString(": " + plain(e.Detail))
	}
	return b.String()
}
