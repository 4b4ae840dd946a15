package main

import (
	"fmt"
	goruntime "runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release that is being worked on.
const version = "0.1.0"

// binary describes this binary.
type binary struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // where git could tell it
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() binary {
	b := binary{Version: version, Go: goruntime.Version(), Platform: goruntime.GOOS + "/" + goruntime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	return b
}

func (c *commands) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Example: `  baton version
  baton version --json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			if c.json {
				return printJSON(c.out, b)
			}
			commit := ""
			if b.Commit != "" {
				commit = ", commit " + b.Commit[:min(len(b.Commit), 12)]
				if b.Modified {
					commit += " with changes"
				}
			}
			_, err := fmt.Fprintf(c.out, "baton %s (%s, %s%s)\n", b.Version, b.Go, b.Platform, commit)
			return err
		},
	}
	c.addJSON(cmd)
	return cmd
}
