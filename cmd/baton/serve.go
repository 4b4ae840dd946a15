package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"baton/deploy"
	"baton/sandbox"
)

const (
	listenDefault = ":8080"
	drainDefault  = 10 * time.Second
	stallDefault  = 10 * time.Second
	codeMBDefault = 512
	// workersMax is how many slots the board has.
	workersMax = 64
	// codeMBMax keeps the number of bytes far from overflowing.
	codeMBMax = 1 << 20
	// stallMin: below some heartbeats a healthy worker would be taken for hung.
	stallMin = time.Second
	// buildsMax: each build may take 2 GiB of memory.
	buildsMax = 256
	// keepMax bounds the versions of a function: each is an artifact on the disk.
	keepMax = 1000
	// logsDefault and logsMax are MiB of logs; the gateway's own default, and 1 TiB.
	logsDefault = 256
	logsMax     = 1 << 20
)

// serveFlags are the flags of serve, checked.
type serveFlags struct {
	listen  netip.AddrPort
	workers int // 0: one per CPU
	conns   int // 0: what the limit on open files allows
	codeMB  int
	drain   time.Duration
	stall   time.Duration
	builds  int // at a time; 0: one per two CPUs
	keep    int // versions of a function
	logs    int // MiB of functions' logs together
	debug   bool
	without []string // layers of the sandbox
}

func (c *commands) serveCommand() *cobra.Command {
	f := serveFlags{drain: drainDefault, stall: stallDefault, codeMB: codeMBDefault, keep: deploy.KeepDefault, logs: logsDefault}
	listen, check := listenDefault, false
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the functions of a data directory",
		Long: `Starts the workers, opens the port and serves until SIGTERM or Ctrl-C: then it
accepts no further connection, lets running requests finish for as long as
--drain says, and ends. A second Ctrl-C ends it at once.

The data directory is made by ` + "`baton init`" + `; one server runs on it at a time.`,
		Example: `  baton serve
  baton serve --listen 127.0.0.1:9000 --data /srv/baton --workers 4
  baton serve --check --config /etc/baton.toml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if f.listen, err = parseListen(cmd.Context(), listen); err != nil {
				return usageError{err}
			}
			if err := f.check(); err != nil {
				return usageError{err}
			}
			if err := c.here("serve"); err != nil {
				return err
			}
			if check {
				return c.printSettings(cmd)
			}
			surviveClosedOutput()
			if c.again != nil {
				if err := c.again(); err != nil {
					fmt.Fprintf(c.err, "baton: %v\n", err) // it serves all the same
				}
			}
			ctx, abort, done := untilSignal(cmd.Context())
			defer done()
			return c.serve(ctx, abort, f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&check, "check", false, "check the configuration, print each setting and where it comes from, and end")
	flags.StringVar(&listen, "listen", listen, "the clients' address; port 0: any")
	flags.IntVar(&f.workers, "workers", 0, "number of worker processes; 0: one per CPU")
	flags.IntVar(&f.conns, "connections", 0, "most client connections at a time; 0: what the limit on open files allows")
	flags.IntVar(&f.codeMB, "code-memory", f.codeMB, "native code that each worker keeps loaded, in MiB")
	flags.DurationVar(&f.drain, "drain", f.drain, "how long running requests may take at the end")
	flags.DurationVar(&f.stall, "stall", f.stall, "how long a worker may be silent before it is replaced")
	flags.IntVar(&f.builds, "builds", 0, "most builds at a time; 0: one per two CPUs")
	flags.IntVar(&f.keep, "keep", f.keep, "how many versions of a function are kept")
	flags.IntVar(&f.logs, "log-size", f.logs, "how many MiB the logs of all functions may take")
	flags.StringSliceVar(&f.without, "without", nil, "layers of isolation to leave out, by their names in status; for tests of the others")
	_ = flags.MarkHidden("without") // there is such a flag
	flags.BoolVar(&f.debug, "debug", false, "log everything")
	for flag, variable := range map[string]string{"listen": "BATON_LISTEN", "workers": "BATON_WORKERS", "connections": "BATON_CONNECTIONS",
		"code-memory": "BATON_CODE_MEMORY", "drain": "BATON_DRAIN", "stall": "BATON_STALL", "debug": "BATON_DEBUG", "builds": "BATON_BUILDS", "keep": "BATON_KEEP", "log-size": "BATON_LOG_SIZE"} {
		twin(flags, flag, variable)
	}
	return cmd
}

// printSettings prints what serve would run with.
func (c *commands) printSettings(cmd *cobra.Command) error {
	file := c.configPath
	if file == "" {
		file = "none"
	}
	fmt.Fprintf(c.out, "configuration file: %s\n\n", plain(file))
	rows := [][]string{{"SETTING", "VALUE", "FROM"}}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if len(f.Annotations[twinKey]) > 0 && f.Name != "config" && f.Name != "server" && f.Name != "token-file" {
			rows = append(rows, []string{f.Name, f.Value.String(), source(f)})
		}
	})
	return table(c.out, rows)
}

func (f serveFlags) check() error {
	var errs []error
	if f.workers < 0 || f.workers > workersMax {
		errs = append(errs, fmt.Errorf("--workers %d: want 0 (one per CPU) to %d", f.workers, workersMax))
	}
	if f.conns < 0 {
		errs = append(errs, fmt.Errorf("--connections %d: want 0 (as many as possible) or more", f.conns))
	}
	if f.codeMB < 1 || f.codeMB > codeMBMax {
		errs = append(errs, fmt.Errorf("--code-memory %d: want 1 to %d MiB", f.codeMB, codeMBMax))
	}
	if f.drain <= 0 {
		errs = append(errs, fmt.Errorf("--drain %v: want more than 0", f.drain))
	}
	if f.stall < stallMin {
		errs = append(errs, fmt.Errorf("--stall %v: want %v or more", f.stall, stallMin))
	}
	if f.builds < 0 || f.builds > buildsMax {
		errs = append(errs, fmt.Errorf("--builds %d: want 0 (one per two CPUs) to %d", f.builds, buildsMax))
	}
	if f.keep < 1 || f.keep > keepMax {
		errs = append(errs, fmt.Errorf("--keep %d: want 1 to %d", f.keep, keepMax))
	}
	if f.logs < 1 || f.logs > logsMax {
		errs = append(errs, fmt.Errorf("--log-size %d: want 1 to %d MiB", f.logs, logsMax))
	}
	if err := sandbox.CheckLayers(f.without); err != nil {
		errs = append(errs, fmt.Errorf("--without: %w", err))
	}
	return errors.Join(errs...)
}

// parseListen reads "HOST:PORT". An empty host is every address, IPv4 and IPv6;
// a name is resolved once.
func parseListen(ctx context.Context, text string) (netip.AddrPort, error) {
	wrong := func(err error) (netip.AddrPort, error) {
		return netip.AddrPort{}, fmt.Errorf("--listen %q: want HOST:PORT, as in 127.0.0.1:8080 or :8080: %w", text, err)
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return wrong(err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return wrong(err)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(number)), nil
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return wrong(err)
		}
		address = found[0]
		for _, a := range found { // localhost: what clients without IPv6 can reach
			if a.Unmap().Is4() {
				address = a
				break
			}
		}
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(number)), nil
}

// surviveClosedOutput has a write to a standard output or error whose reader is
// gone (`baton serve | head`) fail, where Go would end the process by SIGPIPE: a
// log line that nobody reads must not end what is served.
func surviveClosedOutput() { signal.Ignore(syscall.SIGPIPE) }

// untilSignal is a context that ends with the first SIGTERM or SIGINT; abort is
// closed by the second. done ends the watching.
func untilSignal(parent context.Context) (ctx context.Context, abort <-chan struct{}, done func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	aborted, over, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { // ended by done, which waits
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-signals:
			case <-over:
				return
			}
			if n == 0 {
				cancel()
			} else if n == 1 {
				close(aborted)
			}
		}
	}()
	return ctx, aborted, func() {
		signal.Stop(signals)
		close(over)
		<-ended
		cancel()
	}
}

// newLogger logs as text to a terminal and as JSON to everything else.
func newLogger(to io.Writer, debug bool) *slog.Logger {
	options := &slog.HandlerOptions{}
	if debug {
		options.Level = slog.LevelDebug
	}
	if isTerminal(to) {
		return slog.New(slog.NewTextHandler(to, options))
	}
	return slog.New(slog.NewJSONHandler(to, options))
}

// isTerminal: a character device is close enough; the null device does not mind.
func isTerminal(to io.Writer) bool {
	f, ok := to.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
