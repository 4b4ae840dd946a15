package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"baton/control"
	"baton/deploy"
	"baton/deploy/build"
	"baton/internal/sys"
	"baton/ipc"
	"baton/reactor"
	"baton/route"
	"baton/route/sqlite"
	"baton/runtime/logs"
	"baton/sandbox"
)

const (
	// drainDefault is how long running requests may take when the process stops.
	drainDefault = 10 * time.Second

	// cellsMax bounds the routes: each has a cell per worker on the board.
	// 131072 cells of 64 workers are 134 MB of address space, of which only what
	// is used costs memory. One route more is a bad row.
	cellsMax = 1 << 17

	// connsMax bounds the open connections where the limit on open files does
	// not. 262144 slots of the board are 64 MB of address space.
	connsMax = 1 << 18

	// filesReserve is how many descriptors are kept for everything but clients'
	// connections: the database, logs, sockets of the control plane (256
	// requests, two descriptors each while one is taken over), connections above
	// the limit that are being refused, child processes.
	filesReserve = 704

	// connsMin is the fewest connections worth serving. With fewer descriptors
	// the process refuses to start.
	connsMin = 64

	// loopsMax bounds the event loops: a worker gets a socket for each, and for
	// the returns loop, with its first frame, beside the board.
	loopsMax = ipc.FrameFDsMax - 2

	// settleTimeout bounds the wait for the artifacts of the rows that are there
	// at the start. Those that are not ready by then are published when they are.
	settleTimeout = 2 * time.Minute

	// openPatience is how long the port stays closed for the other workers once
	// one is ready.
	openPatience = 5 * time.Second

	// controlPatience is how long control requests that run when everything
	// else has stopped may still take.
	controlPatience = 2 * time.Second
)

// Config says what to serve. Zero values without a note are not allowed.
type Config struct {
	// Listen is the clients' address; port 0: chosen by the kernel.
	Listen netip.AddrPort
	// Data is the data directory, made by `baton init`.
	Data string
	// Workers is the number of worker processes, at most WorkersMax; zero: one
	// per CPU. Too few: CPUs idle. Too many: memory, and worse locality.
	Workers int
	// Loops is the number of event loops that accept, at most 250; zero: one per
	// CPU. Too few: one CPU accepts for all. Too many: sockets without use.
	Loops int
	// ConnsMax bounds the open connections; one more is answered 503. Zero, or
	// more than the limit on open files allows: as many as that allows.
	ConnsMax int
	// Drain is how long running requests may take when the process stops; zero:
	// 10 s. What runs longer is cut.
	Drain time.Duration
	// Stall is how old a worker's heartbeat may be before the worker is lost;
	// zero: 10 s. Too small: a machine under load loses healthy workers. Too
	// large: clients of a hung worker wait.
	Stall time.Duration
	// Version is shown by the control plane.
	Version string
	// Isolation is what the kernel offers to confine functions, for the status.
	Isolation []control.Layer
	// Without names layers of the sandbox that functions do without; for tests of
	// the others.
	Without []string
	// Debug has workers log everything.
	Debug bool
	// LogBytes is what the logs of all functions take together on the disk; zero:
	// 256 MiB, the least is 1 MiB. Too small: history is short.
	LogBytes int64
	// CodeMB is the native code that each worker keeps loaded, in MiB; zero: 512. Too small:
	// functions are loaded again at nearly every call; too large: memory for what nobody calls.
	CodeMB int

	// Stdout takes the opening message; nil: none.
	Stdout io.Writer
	// Logger takes everything else; nil: nothing.
	Logger *slog.Logger
	// WorkerOutput is the standard output and error of workers; nil: standard error.
	WorkerOutput *os.File

	// Abort, once closed, ends a drain at once: nothing that runs is waited for.
	// nil: never.
	Abort <-chan struct{}

	// Builds is how many builds run at one time; zero: one per two CPUs. Too few:
	// uploads wait. Too many: they share the machine's memory.
	Builds int
	// Keep is how many versions of a function are kept; zero: 10.
	Keep int
	// Builder makes artifacts of uploads; nil: package build's, whose commands
	// are confined by Sandbox, which is this binary when it is nil.
	Builder deploy.Builder
	Sandbox []string

	deployStep func(string) // see deploy.Options.Step

	// Worker and Prepare are the commands of a worker process and of one that
	// compiles an artifact; empty: this binary's `worker` and `prepare`.
	Worker, Prepare []string
	// Preparer makes artifacts ready; nil: the Prepare command in a child.
	Preparer Preparer
}

func (c *Config) setDefaults() error {
	cpus := goruntime.NumCPU()
	for _, f := range []struct {
		v *int
		d int
	}{{&c.Workers, min(cpus, WorkersMax)}, {&c.Loops, min(cpus, loopsMax)}} {
		if *f.v <= 0 {
			*f.v = f.d
		}
	}
	if c.Workers > WorkersMax {
		return fmt.Errorf("%d workers: at most %d", c.Workers, WorkersMax)
	}
	if c.Loops > loopsMax {
		return fmt.Errorf("%d loops: at most %d", c.Loops, loopsMax)
	}
	if c.Drain <= 0 {
		c.Drain = drainDefault
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	if c.WorkerOutput == nil {
		c.WorkerOutput = os.Stderr
	}
	if len(c.Worker) == 0 {
		c.Worker = []string{"/proc/self/exe", "worker"}
	}
	if len(c.Prepare) == 0 {
		c.Prepare = []string{"/proc/self/exe", "prepare"}
	}
	if c.Sandbox == nil {
		c.Sandbox = []string{"/proc/self/exe", "sandbox"}
	}
	return nil
}

// gateway is the composed process. Each field is set once by open, in this
// order, and what is set is released by release, in the reverse order.
type gateway struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	token     string
	data      *dataDir
	board     *ipc.Board
	published route.Published
	publisher *publisher
	feed      *feed
	front     *reactor.Front
	collector *collector
	db        *sqlite.DB
	deployer  *deploy.Deployer
	control   *control.Server
	workers   *supervisor

	draining atomic.Bool
	stop     context.CancelFunc // begins the end, as SIGTERM does

	// background runs the publisher, the feed and the collector, which end with
	// their contexts.
	background            sync.WaitGroup
	endFeed, endPublisher context.CancelFunc
}

// Run serves until ctx ends, or until the control plane is asked to stop, and
// then drains. It returns nil after an end that was asked for. A *HeldError
// says that another process serves the data directory.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.setDefaults(); err != nil {
		return err
	}
	defer reactor.ReserveProcessors(cfg.Loops + 1)() // and the returns loop
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g := &gateway{cfg: cfg, log: cfg.Logger, started: time.Now(), stop: stop}
	if err := g.open(ctx); err != nil {
		return errors.Join(err, g.release())
	}
	if ctx.Err() == nil {
		err := g.openPort(ctx)
		if err == nil {
			<-ctx.Done()
		}
		g.shutdown()
		return errors.Join(err, g.release())
	}
	g.shutdown()
	return g.release()
}

// open starts everything but accepts nothing yet. On error, release takes back
// what was started.
func (g *gateway) open(ctx context.Context) error {
	// What a shell or make left open is not for workers.
	if err := sys.CloseOnExecFrom(3); err != nil {
		g.log.Warn("workers may inherit descriptors", "err", err)
	}
	var err error
	if g.data, err = openDataDir(g.cfg.Data); err != nil {
		return err
	}
	if g.token, err = control.LoadToken(g.data.path); err != nil {
		return err
	}
	conns, err := connections(g.cfg)
	if err != nil {
		return err
	}
	g.board, err = ipc.NewBoard(ipc.BoardOptions{
		Conns: uint32(conns), Workers: uint32(g.cfg.Workers), Cells: cellsMax,
	})
	if err != nil {
		return fmt.Errorf("make the board: %w", err)
	}
	g.publisher = g.newPublisher()
	// The port is bound early, for that it is taken is the likeliest reason not
	// to start; nothing is accepted on it before openPort.
	g.front, err = reactor.NewFront(reactor.FrontConfig{
		Listen: g.cfg.Listen, Loops: g.cfg.Loops, Board: g.board, Table: &g.published, ConnsMax: conns,
		Control:   g.onControl,
		OnReady:   func(id int, generation uint64) { g.workers.onReady(id, generation) },
		OnApplied: func(id int, a ipc.Applied) { g.workers.onApplied(id, a) },
		OnTrouble: func(id int, text string) { g.workers.onTrouble(id, text) },
		OnGone:    func(id int, err error) { g.workers.onGone(id, err) },
		Logger:    g.log,
	})
	if err != nil {
		return err
	}
	g.workers = g.newSupervisor()
	if g.collector, err = openCollector(g.data.inRun(metricsName), g.board, g.workers.pidOf, g.log); err != nil {
		return err
	}
	if err := g.openDeployer(); err != nil {
		return err
	}
	g.control, err = control.New(control.Config{
		AdminToken: !sandbox.KeepsOffSockets(g.cfg.Without),
		Backend:    backend{g}, Token: g.token, Logger: g.log, Data: g.data.path,
		Deployer: g.deployer, Invoke: g.invoke,
		Logs: func(ctx context.Context, q logs.Query, each func(logs.Entry) error) error {
			return logs.Read(ctx, g.data.in(logsName), q, each)
		},
	})
	if err != nil {
		return err
	}
	if err := g.control.ListenAdmin(g.data.inRun(adminName)); err != nil {
		return err
	}
	g.begin(ctx)
	return nil
}

// openDeployer makes what deploys need. The control plane comes after it, and
// the feed with it.
func (g *gateway) openDeployer() error {
	var err error
	if g.feed, err = openFeed(g.data.in(databaseName), g.publisher, g.log); err != nil {
		return err
	}
	g.db = sqlite.OpenLater(g.data.in(databaseName))
	builder := g.cfg.Builder
	if builder == nil {
		if builder, err = build.New(build.Options{Data: g.data.path, Baton: g.cfg.Sandbox, Max: g.cfg.Builds, Without: g.cfg.Without}); err != nil {
			return err
		}
	}
	g.deployer, err = deploy.New(deploy.Options{
		Data: g.data.path, DB: g.db, Host: host{g}, Builder: builder, Keep: g.cfg.Keep, Log: g.log, Step: g.cfg.deployStep,
	})
	return err
}

// begin starts the goroutines and the workers. Workers start when the rows
// that are there have been prepared: they never compile.
func (g *gateway) begin(ctx context.Context) {
	var feedCtx, publisherCtx context.Context
	feedCtx, g.endFeed = context.WithCancel(context.Background())
	publisherCtx, g.endPublisher = context.WithCancel(context.Background())
	g.background.Go(func() { g.publisher.run(publisherCtx) })
	g.background.Go(func() { g.feed.follow(feedCtx) })
	g.background.Go(func() { g.feed.prune(feedCtx) })
	g.background.Go(g.collector.run)
	limit, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := g.publisher.settle(limit); err != nil && ctx.Err() == nil {
		g.log.Warn("the port opens before every artifact is prepared", "left", g.publisher.preparing(), "after", settleTimeout.String())
	}
	if ctx.Err() == nil {
		g.workers.begin()
	}
}

// openPort waits for workers and begins to accept.
func (g *gateway) openPort(ctx context.Context) error {
	n := g.workers.awaitReady(ctx, openPatience, startDefault)
	if ctx.Err() != nil {
		return nil
	}
	if n == 0 {
		g.log.Error("no worker is ready; the port opens all the same, and requests wait or are answered 503")
	}
	if err := g.front.Open(); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	return g.greet()
}

// shutdown is the order in which the process ends:
//
//  1. no new connection is accepted, and those that are in the backlog are and
//     go to workers with their requests; from then on new requests on
//     connections that the gateway holds are answered 503
//  2. workers are told to drain: running requests finish, answered with
//     `Connection: close`; idle connections are closed
//  3. until no connection is open, or the drain limit is over, or Abort
//  4. workers are told to stop, killed when they do not, and reaped
//  5. the control plane: its requests end, its socket is removed
//  6. (release) the loops, the feed, the publisher, the collector, the board,
//     the run directory with what is in it, and last the lock
//
// The control plane outlives the workers, so that `baton status` shows a drain.
func (g *gateway) shutdown() {
	g.draining.Store(true)
	g.log.Info("draining", "connections", g.front.Stats().Open, "limit", g.cfg.Drain.String())
	if err := g.front.StopAccepting(); err != nil {
		g.log.Error("stop accepting", "err", err)
	}
	g.workers.drain(g.cfg.Drain)
	done, cancel := g.drainLimit()
	left := g.front.Drain(done)
	cancel()
	if left > 0 {
		g.log.Warn("connections are cut that did not end within the limit", "connections", left)
	}
	patience := stopPatience
	if g.aborted() {
		patience = 0
	}
	g.workers.stop(patience)
}

func (g *gateway) aborted() bool {
	select {
	case <-g.cfg.Abort:
		return true
	default:
		return false
	}
}

// drainLimit is closed when the drain is over.
func (g *gateway) drainLimit() (done <-chan struct{}, cancel func()) {
	ctx, end := context.WithTimeout(context.Background(), g.cfg.Drain)
	go func() { // ends with ctx
		select {
		case <-g.cfg.Abort:
			end()
		case <-ctx.Done():
		}
	}()
	return ctx.Done(), end
}

// release takes back all that open has acquired: see shutdown for the order.
// What did not come to be is skipped.
func (g *gateway) release() error {
	var errs []error
	if g.control != nil {
		patience := controlPatience
		if g.aborted() {
			patience = 0
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := g.control.Shutdown(ctx); err != nil {
			g.log.Warn("control requests were cut", "err", err)
		}
		cancel()
	}
	if g.deployer != nil {
		errs = append(errs, g.deployer.Close())
	}
	if g.front != nil {
		errs = append(errs, g.front.Close())
	}
	if g.endFeed != nil {
		g.endFeed()
		g.endPublisher()
	}
	if g.collector != nil {
		errs = append(errs, g.collector.close(g.background.Wait))
	}
	g.background.Wait()
	if g.db != nil {
		errs = append(errs, g.db.Close())
	}
	if g.board != nil {
		errs = append(errs, g.board.Close())
	}
	if g.data != nil {
		errs = append(errs, g.data.close())
		g.log.Info("stopped", "after", time.Since(g.started).Round(time.Millisecond).String())
	}
	return errors.Join(errs...)
}

// connections is how many connections may be open.
func connections(cfg Config) (int, error) {
	limit, err := sys.RaiseNofile()
	if err != nil {
		return 0, err
	}
	// Beside the reserve: what the gateway keeps per worker.
	reserve := filesReserve + cfg.Workers*(cfg.Loops+4) + cfg.Loops*4
	n := int(min(limit, 1<<30)) - reserve
	if n < connsMin {
		return 0, fmt.Errorf("the limit on open files is %d; %d are needed at least (see ulimit -n)", limit, reserve+connsMin)
	}
	n = min(n, connsMax)
	if cfg.ConnsMax > 0 {
		n = min(n, cfg.ConnsMax)
	}
	return n, nil
}

func (g *gateway) newPublisher() *publisher {
	preparer := g.cfg.Preparer
	if preparer == nil {
		preparer = &childPreparer{argv: g.cfg.Prepare, step: g.cfg.Sandbox, without: g.cfg.Without, cache: cacheOf(g.data.path), timeout: prepareTimeout}
	}
	return newPublisher(publisherConfig{
		data: g.data.path, published: &g.published, preparer: preparer, prepares: goruntime.NumCPU(),
		cells:   cells{max: cellsMax, busy: func(cell uint32) bool { return g.board.Inflight(cell) > 0 }},
		counted: g.board.Totals,
		log:     g.log,
		late:    func(id int, err error) { g.workers.lose(id, err) },
		current: func(id int, generation uint64) { g.workers.onCurrent(id, generation) },
		tabled:  func() { g.front.Tabled() },
	})
}

func (g *gateway) newSupervisor() *supervisor {
	return newSupervisor(supervisorConfig{
		workers: g.cfg.Workers, front: g.front, board: g.board, publisher: g.publisher,
		argv: g.cfg.Worker, output: int(g.cfg.WorkerOutput.Fd()), stall: g.cfg.Stall, log: g.log,
		config: workerConfig{
			Data: g.data.path, Drain: g.cfg.Drain, Metrics: g.data.inRun(metricsName), Debug: g.cfg.Debug,
			LogBytes: g.cfg.LogBytes, CodeMB: g.cfg.CodeMB, Without: g.cfg.Without,
		},
	})
}

// onControl serves one control request; it returns when the connection is
// closed.
func (g *gateway) onControl(c *reactor.ControlConn) {
	watched := &controlConn{ControlConn: c, closed: make(chan struct{})}
	if err := g.control.ServeConn(watched); err != nil {
		g.log.Debug("a control request was refused", "err", err)
	}
	<-watched.closed
}

// controlConn tells when the control plane is done with a connection.
type controlConn struct {
	*reactor.ControlConn
	closed chan struct{}
}

func (c *controlConn) Close() error {
	defer close(c.closed)
	return c.ControlConn.Close()
}

// greet prints where things are. The link is a secret, good once.
func (g *gateway) greet() error {
	url := "http://" + shown(g.front.Addr())
	text := fmt.Sprintf("baton %s serves %s with %d workers\n", g.cfg.Version, url, g.cfg.Workers)
	login, err := g.control.Login()
	if err != nil {
		return fmt.Errorf("make the page's link: %w", err)
	}
	// "/" may be a function's.
	text += fmt.Sprintf("page:  %s/upload?login=%s (once, within an hour)\ntoken: %s\n", url, login, g.data.in(tokenName))
	if _, err := io.WriteString(g.cfg.Stdout, text); err != nil {
		g.log.Warn("print the opening message", "err", err)
	}
	return nil
}

// shown is an address as a browser on this machine takes it.
func shown(a netip.AddrPort) string {
	if a.Addr().IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port())
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}
