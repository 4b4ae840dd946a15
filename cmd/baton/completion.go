package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// shells that a completion can be written for.
var shells = []string{"bash", "zsh", "fish", "powershell"}

func (c *commands) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print what makes a shell complete baton's commands",
		Long: `Prints a script that has a shell complete commands, flags and, asking the running
server, the names of functions and their versions. Shells are bash, zsh, fish and
powershell; for bash, the package bash-completion must be installed.`,
		Example: `  baton completion bash > /etc/bash_completion.d/baton
  baton completion zsh > "${fpath[1]}/_baton"
  baton completion fish > ~/.config/fish/completions/baton.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("which shell? One of %s", strings.Join(shells, ", "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.out)
			}
			return usageError{fmt.Errorf("there is no completion for %q: want one of %s", args[0], strings.Join(shells, ", "))}
		},
	}
}
