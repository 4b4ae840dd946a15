package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"baton/runtime/native"
	"baton/sandbox"
)

func (c *commands) sandboxCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "sandbox",
		Short:   "Confine a process and become its program (started by worker)",
		Long:    "Takes away from itself what a function may not do, and becomes the program that runs it. It is started by baton itself, and of no use otherwise.",
		Example: "  baton serve",
		Hidden:  true,
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			return &exitError{sandbox.ExitRefused, fmt.Errorf("sandbox: %w", sandbox.Exec())}
		},
	}
}

func (c *commands) spawnCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "spawn PROGRAM MODE BYTES",
		Short:   "Start a program once per request (started by worker)",
		Long:    "Starts an uploaded program once for each request that comes over its channel. It is started by baton itself, in a sandbox, and of no use otherwise.",
		Example: "  baton serve",
		Hidden:  true,
		Args:    cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := native.Spawn(args); err != nil {
				return fmt.Errorf("spawn: %w", err)
			}
			return nil
		},
	}
}
