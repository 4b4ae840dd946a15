package worker

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/native"
	"baton/runtime/php"
	"baton/runtime/python"
)

// executors are those whose functions run in processes of their own, and what
// they share.
type executors struct {
	executors map[string]runtime.Executor // by kind
	shared    *child.Shared
}

// startExecutors makes them. No process is started before a function needs it.
func startExecutors(cfg Config, log *slog.Logger) (*executors, error) {
	shared, err := child.New(child.Options{
		Data: cfg.Data, Work: filepath.Join(cfg.Data, "run", "work-"+strconv.Itoa(cfg.Worker)),
		Without: cfg.Without, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return &executors{shared: shared, executors: map[string]runtime.Executor{
		runtime.KindNative: native.New(shared),
		runtime.KindPython: python.New(shared, os.Getenv("PATH")),
		runtime.KindPHP:    php.New(shared),
	}}, nil
}

// close ends the executors and every process that is left.
func (e *executors) close() {
	for kind, executor := range e.executors {
		if kind != runtime.KindWasm { // it is closed by who has made it
			_ = executor.Close()
		}
	}
	e.shared.Close()
}
