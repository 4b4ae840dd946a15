package main

import (
	"fmt"

	"github.com/spf13/cobra"

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
