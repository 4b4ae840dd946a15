package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
)

func (c *commands) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the server, its workers and what is wrong",
		Long: `Shows the running server: its table, its workers with their load, the rows that it
refuses, trouble with the database, and what confines functions on this machine.
Ends with 1 when no server runs.`,
		Example: `  baton status
  baton status --json | jq '.workers[].score'`,
		Args: noArguments,
		RunE: c.asks(func(ctx context.Context, client *control.Client, _ []string) error {
			report, err := client.Status(ctx)
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return printJSON(c.out, report)
			}
			return c.printStatus(report)
		}),
	}
	c.addJSON(cmd)
	return cmd
}

func (c *commands) printStatus(r control.Report) error {
	state := "serving"
	switch {
	case r.Draining:
		state = "stopping"
	case !r.Loaded:
		state = "no table yet: nothing is served"
	case !r.Ready:
		state = "no worker is ready"
	}
	rows := [][]string{
		{"state", state},
		{"listening on", r.Listen},
		{"process", fmt.Sprintf("%d, up %s", r.PID, c.now().Sub(r.Started).Truncate(time.Second))},
		{"version", r.Version},
		{"data", r.Data},
		{"table", fmt.Sprintf("generation %d, %s", r.Generation, several(r.Routes, "route"))},
		{"connections", fmt.Sprintf("%d open, %d waiting for a worker", r.Connections, r.Queued)},
	}
	database := "ok"
	if r.Database != "" {
		meanwhile := "the last good table serves"
		if !r.Loaded {
			meanwhile = "nothing is served until it can be read"
		}
		database = "TROUBLE: " + r.Database + " (" + meanwhile + ")"
	}
	rows = append(rows, []string{"database", database})
	if err := table(c.out, rows); err != nil {
		return err
	}

	fmt.Fprintln(c.out)
	rows = [][]string{{"WORKER", "PID", "STATE", "LOAD", "CPU", "MEM", "IO", "SCORE", "INFLIGHT", "CONNS", "REQUESTS", "ERRORS", "RESTARTS"}}
	for _, w := range r.Workers {
		pid := "-"
		if w.PID > 0 {
			pid = strconv.Itoa(w.PID)
		}
		rows = append(rows, []string{strconv.Itoa(w.Worker), pid, w.State, dash(w.Load),
			measure(w.CPU), measure(w.Mem), measure(w.IO), measure(w.Score),
			strconv.Itoa(w.Inflight), strconv.Itoa(w.Conns), strconv.FormatUint(w.Requests, 10),
			strconv.FormatUint(w.Errors, 10), strconv.FormatUint(w.Restarts, 10)})
	}
	if err := table(c.out, rows); err != nil {
		return err
	}

	if len(r.Isolation) > 0 {
		fmt.Fprintln(c.out)
		rows = [][]string{{"ISOLATION", "ACTIVE", ""}}
		for _, l := range r.Isolation {
			active := "no"
			if l.Active {
				active = "yes"
			}
			rows = append(rows, []string{l.Name, active, l.Detail})
		}
		if err := table(c.out, rows); err != nil {
			return err
		}
	}
	return c.printFaults(r.BadRows)
}

// measure shows a smoothed value, or that there is none yet.
func measure(v float64) string {
	if v < 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 1, 64)
}

func several(n int, noun string) string {
	if n != 1 {
		noun = strings.TrimSuffix(noun, "s") + "s"
	}
	return strconv.Itoa(n) + " " + noun
}
