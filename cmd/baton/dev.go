package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"baton/control"
	"baton/deploy/build"
	"baton/gateway"
	"baton/runtime/logs"
)

const (
	// devPeriod is how often the code is looked at. A look at 10,000 files takes
	// 30 ms of a processor.
	devPeriod = 300 * time.Millisecond
	// devDrain is how long running requests may take at the end.
	devDrain = time.Second
	// devKeep is how many versions are kept: nobody rolls back here.
	devKeep = 2
	// devStart bounds the start of the server.
	devStart = time.Minute
)

func (c *commands) devCommand() *cobra.Command {
	var d *describing
	port := 0
	cmd := &cobra.Command{
		Use:   "dev PATH",
		Short: "Serve a function while it is written: build it at every change",
		Long: `Serves the function at PATH on a server of its own, on 127.0.0.1 and a free port, and
builds and deploys it again whenever a file of it changes. A build that fails prints
the compiler's words, and what served before goes on. The function's log is printed
as it comes.

Ctrl-C ends it, and nothing is left but the caches of builds, which make the next
start fast: in baton/dev in the user's folder of caches.`,
		Example: `  baton dev ./hello
  baton dev hello.c --target wasm --port 9000`,
		Args: oneFile("a folder or file with code, as in `baton dev ./hello`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.here("dev"); err != nil {
				return err
			}
			if port < 0 || port > 65535 {
				return usageError{fmt.Errorf("--port %d: want 0 (a free one) to 65535", port)}
			}
			surviveClosedOutput()
			ctx, abort, done := untilSignal(cmd.Context())
			defer done()
			return c.dev(ctx, abort, args[0], uint16(port), d)
		},
	}
	d = addDescribing(cmd.Flags())
	cmd.Flags().IntVar(&port, "port", 0, "the port; 0: a free one")
	return cmd
}

// dev serves until ctx ends.
func (c *commands) dev(ctx context.Context, abort <-chan struct{}, path string, port uint16, d *describing) (err error) {
	// What is wrong with the first look is told before a server starts.
	s, err := d.open(path, nil)
	if err != nil {
		return err
	}
	data, remove, err := devData()
	if err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	defer func() {
		if e := remove(); err == nil && e != nil {
			err = fmt.Errorf("remove the data directory: %w", e)
		}
	}()
	of := *c // another data directory, and no server elsewhere
	of.data = data
	if _, err := of.initialise(ctx, false); err != nil {
		return err
	}
	serving, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ended by end, below
		ended <- gateway.Run(serving, gateway.Config{
			Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), Data: data, Workers: 1, Loops: 1, Drain: devDrain, Keep: devKeep,
			Version: version, Isolation: isolation(nil), Abort: abort,
			Logger: slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
	}()
	client := control.NewClient(data)
	base, err := awaitServer(ctx, client, ended)
	if err == nil {
		fmt.Fprintf(c.out, "%s serves %s until Ctrl-C\n", base, plain(path))
		of.watch(ctx, client, base, path, s, d)
	}
	end()
	if e := <-ended; e != nil && !errors.Is(err, errServerEnded) {
		err = errors.Join(err, e)
	}
	if ctx.Err() != nil {
		return nil // as it was asked for
	}
	return err
}

var errServerEnded = errors.New("the server did not start")

// awaitServer waits until the server of dev answers.
func awaitServer(ctx context.Context, client *control.Client, ended chan error) (base string, err error) {
	limit, cancel := context.WithTimeout(ctx, devStart)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		report, err := client.Status(limit)
		if err == nil && report.Ready {
			return client.PublicURL(limit)
		}
		select {
		case e := <-ended:
			ended <- nil // for whoever waits for its end
			return "", errors.Join(errServerEnded, e)
		case <-limit.Done():
			return "", fmt.Errorf("start the server: %w", limit.Err())
		case <-tick.C:
		}
	}
}

// watch deploys what is at path, now and after each change, until ctx ends.
func (c *commands) watch(ctx context.Context, client *control.Client, base, path string, s *parcel, d *describing) {
	tick := time.NewTicker(devPeriod)
	defer tick.Stop()
	follow := follower{c: c, ctx: ctx, client: client}
	defer follow.end()
	deployed := look(path, d.file) // of what was deployed, or could not be
	seen := deployed
	follow.name(s.name)
	c.devDeploy(ctx, client, base, s)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := look(path, d.file)
		if now.equal(deployed) {
			continue
		}
		if !now.equal(seen) { // it is being written: wait until it rests
			seen = now
			continue
		}
		deployed = now
		s, err := d.open(path, nil)
		if err != nil {
			fmt.Fprintf(c.err, "baton: %v\n", err)
			continue
		}
		follow.name(s.name)
		c.devDeploy(ctx, client, base, s)
	}
}

// sight is what code looks like from outside: two that are equal are of the same
// code, unless somebody has set a file's time back.
type sight struct {
	tree  *build.Tree // of a folder
	files [2]fileSight
	err   string // why it cannot be looked at
}

type fileSight struct {
	size  int64
	mtime time.Time
	mode  fs.FileMode
}

// look sees the code at path, and the descriptor when it lies elsewhere.
func look(path, descriptor string) (s sight) {
	for i, name := range []string{path, descriptor} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err == nil && info.IsDir() {
			s.tree, err = build.ReadTree(name)
		} else if err == nil {
			s.files[i] = fileSight{info.Size(), info.ModTime(), info.Mode()}
		}
		if err != nil {
			s.err += err.Error()
		}
	}
	return s
}

func (s sight) equal(o sight) bool {
	if s.err != o.err || (s.tree == nil) != (o.tree == nil) || s.tree != nil && !s.tree.Equal(o.tree) {
		return false
	}
	for i, f := range s.files {
		if f.size != o.files[i].size || f.mode != o.files[i].mode || !f.mtime.Equal(o.files[i].mtime) {
			return false
		}
	}
	return true
}

// follower prints the log of one function at a time.
type follower struct {
	c       *commands
	ctx     context.Context
	client  *control.Client
	follows string
	cancel  context.CancelFunc // nil: none
	ended   chan struct{}
}

// name has the log of that function followed.
func (f *follower) name(function string) {
	if function == f.follows {
		return
	}
	f.end()
	ctx, cancel := context.WithCancel(f.ctx)
	ended := make(chan struct{})
	f.follows, f.cancel, f.ended = function, cancel, ended
	go func() { // ended by end, which waits
		defer close(ended)
		_ = f.client.Logs(ctx, logs.Query{Function: function, Follow: true}, func(e logs.Entry) error {
			_, err := fmt.Fprintln(f.c.err, logLine(&e))
			return err
		})
	}()
}

func (f *follower) end() {
	if f.cancel != nil {
		f.cancel()
		<-f.ended
	}
}

// devDeploy deploys and says how it went.
func (c *commands) devDeploy(ctx context.Context, client *control.Client, base string, s *parcel) {
	c.tellAssumed(s.assumed)
	result, err := c.send(ctx, client, s)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		fmt.Fprintf(c.err, "baton: %v\n", err)
		return
	}
	c.tellAssumed(result.Assumed)
	_ = c.printDeployed(result, base) // that nobody reads it ends nothing
}

// devLockName is the lock of the folder below the user's caches.
const devLockName = "dev.lock"

// devData makes the data directory of a `baton dev`: in the user's folder of
// caches, so that the next one finds the caches of builds; a temporary one where
// that cannot be, or while another `baton dev` has it. remove leaves nothing but
// the caches.
func devData() (data string, remove func() error, err error) {
	if data, remove, err = devCached(); err == nil {
		return data, remove, nil
	}
	data, err = os.MkdirTemp("", "baton-dev-") // 0700
	if err != nil {
		return "", nil, err
	}
	return data, func() error { return os.RemoveAll(data) }, nil
}

func devCached() (data string, remove func() error, err error) {
	caches, err := os.UserCacheDir()
	if err != nil {
		return "", nil, err
	}
	parent := filepath.Join(caches, "baton")
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", nil, err
	}
	lock, err := os.OpenFile(filepath.Join(parent, devLockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return "", nil, err
	}
	raw, err := lock.SyscallConn()
	if err == nil {
		var locked error
		err = raw.Control(func(n uintptr) { locked = syscall.Flock(int(n), syscall.LOCK_EX|syscall.LOCK_NB) })
		err = errors.Join(err, locked)
	}
	data = filepath.Join(parent, "dev")
	if err == nil {
		err = os.MkdirAll(data, 0o700)
	}
	if err == nil { // what a killed one left
		err = keepCaches(data)
	}
	if err != nil {
		return "", nil, errors.Join(err, lock.Close())
	}
	return data, func() error { return errors.Join(keepCaches(data), lock.Close()) }, nil
}

// keepCaches empties a data directory but for the caches of builds, which have a
// bound.
func keepCaches(data string) (err error) {
	for dir, keep := range map[string]string{data: "cache", filepath.Join(data, "cache"): "build"} {
		entries, e := os.ReadDir(dir)
		if errors.Is(e, fs.ErrNotExist) {
			continue
		}
		err = errors.Join(err, e)
		for _, entry := range entries {
			if entry.Name() != keep {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
			}
		}
	}
	return err
}
