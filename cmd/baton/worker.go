package main

import (
	"github.com/spf13/cobra"
)

func (c *commands) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "worker",
		Short:   "Run functions (started by serve)",
		Long:    "Runs as a worker process. It is started by `baton serve`, which gives it its channel, and of no use otherwise.",
		Example: "  baton serve",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			surviveClosedOutput()
			return c.worker()
		},
	}
}

func (c *commands) prepareCommand() *cobra.Command {
	var cache string
	cmd := &cobra.Command{
		Use:   "prepare --cache DIR MODULE",
		Short: "Compile a module to native code (started by serve)",
		Long: `Checks a WebAssembly module and compiles it to native code in the cache. It runs
no code of the module. It is started by ` + "`baton serve`" + `, as a process of its own so
that it can be ended. Ends with 3 when the module cannot run.`,
		Example: "  baton prepare --cache data/cache data/import/hi.wasm",
		Hidden:  true,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.prepare(cmd.Context(), cache, args)
		},
	}
	cmd.Flags().StringVar(&cache, "cache", "", "where native code is kept")
	return cmd
}
