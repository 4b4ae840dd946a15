package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
)

// exitInterrupted is how a shell calls the end by Ctrl-C: 128 and SIGINT.
const exitInterrupted = 130

// interruptible is a context that Ctrl-C and SIGTERM end, for what must be told
// or taken back then. stop gives the signals back.
func interruptible(parent context.Context) (ctx context.Context, stop func()) {
	return signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
}

// interrupted is the error of a command that Ctrl-C ended.
func interrupted(format string, args ...any) error {
	return &exitError{exitInterrupted, fmt.Errorf("baton: interrupted: "+format, args...)}
}

func (c *commands) deployCommand() *cobra.Command {
	var d *describing
	cmd := &cobra.Command{
		Use:   "deploy [PATH]",
		Short: "Deploy a function: a folder, a source file, a module or a program",
		Long: `Sends the code at PATH to the server, which builds it and has every worker serve it:
when the command ends, the next request runs the new version. PATH is a folder
(with its go.mod or Cargo.toml, say), one source file, a .wasm module, a program,
or a .zip, .tar.gz or .tar of a folder.

What the function is called, where it is served and what it may use is said by
flags; else by the descriptor, which is descriptor.json in the folder or the file of
--descriptor; else it is worked out, and told. Of a folder, .git and the like are
not sent. Without PATH, --descriptor alone changes a function and builds nothing.

The compiler's words go to standard error, and end the command with 1 when they
say that the program does not compile. Ctrl-C ends the deploy.`,
		Example: `  baton deploy ./hello
  baton deploy hello.c --target wasm --route 'POST /api/hello' --memory 64 --timeout 5s
  baton deploy --descriptor descriptor.json
  baton deploy ./hello --server https://faas.example.org --token-file token`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usageError{fmt.Errorf("%q: one path at a time", args[1])}
			case len(args) == 0 && d.file == "":
				return usageError{errors.New("what is to be deployed? Name a folder or a file; `baton new go hello` begins one")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = args[0]
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			s, err := d.open(path, func(name string) (json.RawMessage, error) { return c.served(ctx, client, name) })
			if err != nil {
				return err
			}
			if !c.json {
				c.tellAssumed(s.assumed)
			}
			result, err := c.send(ctx, client, s)
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(c.out, result.Raw)
			}
			c.tellAssumed(result.Assumed)
			base, err := client.PublicURL(ctx)
			if err != nil {
				base = "" // it serves all the same
			}
			return c.printDeployed(result, base)
		},
	}
	d = addDescribing(cmd.Flags())
	_ = cmd.RegisterFlagCompletionFunc("runtime", cobra.FixedCompletions(starterRuntimes(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("target", cobra.FixedCompletions([]string{"wasm", "native"}, cobra.ShellCompDirectiveNoFileComp))
	c.addJSON(cmd)
	return cmd
}

// served is the descriptor of the version of a function that serves; nil: there
// is none that was deployed.
func (c *commands) served(ctx context.Context, client *control.Client, name string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	f, _, err := client.Function(ctx, name)
	var refused *control.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, c.explain(err)
	case f.ID == "":
		return nil, nil
	}
	return f.Descriptor, nil
}

func (c *commands) tellAssumed(assumed []string) {
	for _, a := range assumed {
		fmt.Fprintf(c.err, "assumed: %s\n", plain(a))
	}
}

// send deploys, and tells how it goes. A compiler's words have been printed when
// it returns an error.
func (c *commands) send(ctx context.Context, client *control.Client, s *parcel) (result control.DeployResult, err error) {
	terminal := isTerminal(c.err) && !c.json
	if s.path == "" {
		p := newProgress(c.err, terminal, 0, c.now)
		result, err = client.Describe(ctx, s.name, s.descriptor, p.tell)
		return result, c.sent(ctx, p, err)
	}
	var total int64
	if s.tree != nil {
		total = s.tree.Bytes
	}
	p := newProgress(c.err, terminal, total, c.now)
	u, end, err := s.upload(p.packed)
	if err != nil {
		p.end()
		return result, err
	}
	defer end()
	u.Progress = p.tell
	if u.Size >= 0 {
		u.Progress = p.sentBytes
		p.expect(u.Size)
	}
	result, err = client.Deploy(ctx, u)
	return result, c.sent(ctx, p, err)
}

// sent ends the progress and makes of a deploy's error what is told.
func (c *commands) sent(ctx context.Context, p *progress, err error) error {
	state, log := p.end()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		if state == "publishing" {
			return interrupted("it was about to serve; `baton versions NAME` tells whether it does")
		}
		return interrupted("the deploy was given up while %s, and what served before serves", plain(state))
	}
	var refused *control.RefusedError
	if errors.As(err, &refused) && refused.Details != "" && !strings.Contains(log, strings.TrimSpace(refused.Details)) {
		_, _ = io.WriteString(c.err, plainLines(strings.TrimRight(refused.Details, "\n"))+"\n")
	}
	return c.explain(err)
}

// printDeployed says what serves now, and how to call it. base may be empty.
func (c *commands) printDeployed(r control.DeployResult, base string) error {
	how := ""
	switch {
	case r.Unchanged:
		how = " already: the same code, the same descriptor"
	case r.Build.Cached:
		how = ", without a new build"
	case r.Build.DurationMS >= 10:
		how = fmt.Sprintf(", built in %s", (time.Duration(r.Build.DurationMS*1000) * time.Microsecond).Round(10*time.Millisecond))
	}
	text := fmt.Sprintf("version %d of %s serves%s\n", r.Version, plain(r.Name), how)
	address, command := callOf(base, r.Key, r.URL)
	text += "  " + address + "\n"
	if base != "" {
		text += "  " + command + "\n"
	}
	if _, err := io.WriteString(c.out, text); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// callOf is a function's address, and a command that calls it. A route with
// parameters is none that could be called: there the command has the one by name.
func callOf(base, key, byName string) (address, command string) {
	method, path, _ := strings.Cut(key, ":")
	target := base + path
	if strings.Contains(path, "{") {
		target = base + byName
	}
	target = shellWord(plain(target))
	switch method {
	case http.MethodGet:
		command = "curl " + target
	case http.MethodHead:
		command = "curl -I " + target
	case http.MethodPost, "ANY":
		command = `curl -d '{"name":"Alice"}' ` + target
	case http.MethodDelete, http.MethodOptions:
		command = "curl -X " + method + " " + target
	default:
		command = "curl -X " + plain(method) + ` -d '{"name":"Alice"}' ` + target
	}
	return plain(base + path), command
}
