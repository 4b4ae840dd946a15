package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/gateway"
	"baton/internal/sys"
)

const (
	// stopWaitDefault is longer than a drain of the default length, so that a
	// stop that works does not report a failure.
	stopWaitDefault = 30 * time.Second
	// stopAskTimeout bounds the question; after it, the signal is sent.
	stopAskTimeout = 3 * time.Second
)

func (c *commands) stopCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the server of a data directory",
		Long: `Asks the server to stop: it accepts no further connection, lets running requests
finish, and ends its workers. Returns when the process is gone. When the server
does not answer, exactly the process that its pid file names is sent SIGTERM,
and only when its start time says that it is still the same one.

That no server runs is no failure.`,
		Example: `  baton stop
  baton stop --data /srv/baton --wait 2m`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.here("stop"); err != nil {
				return err
			}
			if wait <= 0 {
				return usageError{fmt.Errorf("--wait %v: want more than 0", wait)}
			}
			return c.stop(cmd.Context(), wait)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", stopWaitDefault, "how long to wait for the end")
	twin(cmd.Flags(), "wait", "BATON_WAIT")
	return cmd
}

func (c *commands) stop(ctx context.Context, wait time.Duration) error {
	end := time.Now().Add(wait)
	server, err := findServer(c.data)
	if err != nil {
		return fmt.Errorf("find the server on %s: %w", c.data, err)
	}
	if server != nil {
		defer server.close()
	}

	asking, cancel := context.WithTimeout(ctx, stopAskTimeout)
	defer cancel()
	switch err := control.NewClient(c.data).Stop(asking); {
	case err == nil && server == nil:
		return fmt.Errorf("the server on %s is stopping, but no pid file says which process that is: `baton status` tells when it is gone", c.data)
	case err == nil:
	case server == nil && errors.Is(err, control.ErrNotRunning):
		_, err := fmt.Fprintf(c.out, "no server runs on %s\n", c.data)
		return err
	case server == nil:
		return c.explain(err)
	default: // it does not answer: what SIGTERM does is the same
		if err := server.signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop process %d: %w", server.pid, err)
		}
	}

	gone, err := server.await(time.Until(end))
	if err != nil {
		return fmt.Errorf("wait for process %d: %w", server.pid, err)
	}
	if !gone {
		return fmt.Errorf("process %d has not ended within %v: it may be draining, `baton stop --wait 5m` waits longer; `kill -9 %d` ends it now", server.pid, wait, server.pid)
	}
	_, err = fmt.Fprintf(c.out, "stopped process %d\n", server.pid)
	return err
}

// server is a process that serves a data directory, held by its pidfd: what is
// done to it can reach no other process.
type server struct {
	pid   int
	pidfd int
}

// findServer opens the process that a data directory's pid file names. nil says
// that there is none: no file, no such process, or another one under its number.
func findServer(data string) (*server, error) {
	owner, err := gateway.ReadOwner(data)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// The process first, its start time after: whatever has the number from now
	// on, the pidfd means the one that was compared.
	pidfd, err := sys.PidfdOpen(owner.PID)
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.EINVAL) { // EINVAL: above the largest pid
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !owner.Alive() {
		_ = syscall.Close(pidfd)
		return nil, nil
	}
	return &server{pid: owner.PID, pidfd: pidfd}, nil
}

func (s *server) signal(signal syscall.Signal) error {
	err := sys.PidfdSignal(s.pidfd, signal)
	if errors.Is(err, syscall.ESRCH) {
		return nil // it has ended meanwhile
	}
	return err
}

// await says whether the process has ended within d.
func (s *server) await(d time.Duration) (bool, error) {
	ready, err := sys.Poll(s.pidfd, sys.PollIn, max(d, 0))
	return ready != 0, err
}

func (s *server) close() { _ = syscall.Close(s.pidfd) }

// isNotDirectory: a path goes through something that is no directory.
func isNotDirectory(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
