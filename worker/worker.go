package worker

import (
	"context"
	"encoding/json"
	"errors"

	"fmt"

	"log/slog"
	"os"
	"path/filepath"
	"time"

	"baton/internal/fd"
	"baton/internal/sys"
	"baton/ipc"
	"baton/reactor"
	"baton/route"
	"baton/runtime"
	"baton/runtime/wasm"
)

// ControlFD is the number of the one descriptor that a worker inherits, beside
// standard input, output and error: its end of the control channel.
const ControlFD = 3

// helloTimeout bounds the wait for the gateway's first frame. The gateway
// sends it before it starts the process.
const helloTimeout = 10 * time.Second

// loadFirstMax bounds the functions of one table that are loaded before it is
// published; beyond it the first request loads. Each takes a millisecond (C) to
// some 10 ms (Go), and 64 kB to 1.6 MB while its first instance is kept.
const loadFirstMax = 64

// Config is what the gateway tells a worker in its Hello frame, as JSON.
type Config struct {
	Worker  int           `json:"worker"`           // its number: slot and cells of the board
	Data    string        `json:"data"`             // the data directory, absolute
	Drain   time.Duration `json:"drain"`            // how long running functions may go on once the gateway is gone
	Metrics string        `json:"metrics"`          // path of the collector's datagram socket
	Period  time.Duration `json:"period,omitempty"` // between two metrics; zero: periodDefault
	Debug   bool          `json:"debug,omitempty"`

	// Without names layers of the sandbox to leave out; for tests of the others.
	Without []string `json:"without,omitempty"`

	LogBytes int64 `json:"logBytes,omitempty"` // what all functions' logs take together; zero: the default
	CodeMB   int   `json:"codeMB,omitempty"`   // native code of wasm functions that is kept loaded, in MiB; zero: the default
}

// Run is the worker process. It returns when the worker has drained or was
// told to stop. newLogger makes the logger, of everything with debug, which the
// gateway's first frame says.
func Run(newLogger func(debug bool) *slog.Logger) error {
	defer reactor.ReserveProcessors(1)()
	log := newLogger(false)
	if _, err := sys.RaiseNofile(); err != nil {
		log.Warn("limit on open files", "err", err)
	}
	control := fd.New(ControlFD)
	cfg, shared, donations, err := hello(control.Borrow())
	if err != nil {
		_ = control.Close()
		return fmt.Errorf("start as a worker: %w (a worker is started by baton serve only)", err)
	}
	log = newLogger(cfg.Debug).With("worker", cfg.Worker)
	board, err := ipc.MapBoard(shared)
	if err != nil {
		return fmt.Errorf("map the board: %w", err)
	}
	defer func() { _ = board.Close() }()
	logs, err := openLogs(cfg, board.Workers())
	if err != nil {
		return err
	}
	defer func() { _ = logs.Close() }()
	engine, err := wasm.New(engineOptions(cfg))
	if err != nil {
		return fmt.Errorf("start the wasm engine: %w", err)
	}
	defer func() { _ = engine.Close() }()
	processes, err := startExecutors(cfg, log)
	if err != nil {
		return err
	}
	defer processes.close()

	var table route.Published
	empty, _ := route.Build(0, nil)
	table.Store(empty)
	w := &worker{cfg: cfg, executors: processes.executors}
	w.executors[runtime.KindWasm] = engine
	back, err := reactor.NewBack(reactor.BackConfig{
		Worker: cfg.Worker, Board: board, Control: control, Donations: donations, Table: &table,
		Load: w.load, Log: logs.line, Failed: logs.failed, LoadFirst: loadFirstMax, Drain: cfg.Drain, Logger: log,
	})
	if err != nil {
		return fmt.Errorf("start the event loop: %w", err)
	}
	stopTrim := startTrim(engine.Trim)
	defer stopTrim() // before the executor is closed
	stop := startMetrics(cfg, board.Worker(cfg.Worker), log)
	back.Run()
	stop()
	return nil
}

// engineOptions says how the wasm engine is to be.
func engineOptions(cfg Config) wasm.Options {
	return wasm.Options{CacheDir: filepath.Join(cfg.Data, "cache"), CodeMax: int64(cfg.CodeMB) << 20}
}

// hello waits for the gateway's first frame: its configuration, the board and
// the donation sockets, which are the caller's.
func hello(control int) (cfg Config, board fd.FD, donations []fd.FD, err error) {
	if events, err := sys.Poll(control, sys.PollIn, helloTimeout); err != nil || events == 0 {
		return cfg, board, nil, fmt.Errorf("wait for the gateway's first frame: %w", errors.Join(err, os.ErrDeadlineExceeded))
	}
	frame, err := ipc.NewFrameReader().Read(control)
	if err != nil {
		return cfg, board, nil, fmt.Errorf("read the gateway's first frame: %w", err)
	}
	defer frame.Close()
	m, err := frame.Hello()
	if err != nil {
		return cfg, board, nil, err
	}
	if err := json.Unmarshal(m.Config, &cfg); err != nil {
		_ = m.Board.Close()
		for i := range m.Donations {
			_ = m.Donations[i].Close()
		}
		return cfg, board, nil, fmt.Errorf("read the configuration: %w", err)
	}
	return cfg, m.Board, m.Donations, nil
}

type worker struct {
	cfg       Config
	executors map[string]runtime.Executor // by kind; read only
}

// load makes a function runnable. Called beside the loop.
func (w *worker) load(ctx context.Context, f *route.Function) (runtime.Loaded, error) {
	d := f.Descriptor()
	module, err := route.ResolveModule(w.cfg.Data, d.Module)
	if err != nil {
		return nil, err
	}
	kind := runtime.KindOf(d.Runtime, d.Target)
	executor := w.executors[kind]
	if executor == nil {
		return nil, fmt.Errorf("runtime %q is not supported by this version", d.Runtime)
	}
	files := d.Files
	if files != "" {
		files = filepath.Join(filepath.Dir(module), files) // beside the module
	}
	return executor.Load(ctx, &runtime.Function{
		ID: f.Cell, Name: d.Name, Kind: kind, Module: module, Handler: d.Handler, MemoryMB: d.MemoryMB,
		Timeout: d.Timeout, Env: d.Env, Files: files, Freeze: d.Freeze, Processes: d.Processes, Network: d.Network,
	})
}
