package worker

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/native"
	"baton/runtime/php"
	"baton/runtime/python"
	"baton/sandbox"
)

// executors are those whose functions run in processes of their own, and what
// they share.
type executors struct {
	executors map[string]runtime.Executor // by kind
	starter   *sandbox.Starter
}

// startExecutors makes them. No process is started before a function needs it.
func startExecutors(cfg Config, log *slog.Logger) (*executors, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program of children: %w", err)
	}
	starter := sandbox.NewStarter()
	shared, err := child.New(child.Options{
		Baton: []string{self, "sandbox"}, Data: cfg.Data, Work: filepath.Join(cfg.Data, "run", "work-"+strconv.Itoa(cfg.Worker)),
		Starter: starter, Without: cfg.Without, Log: log,
	})
	if err != nil {
		starter.Close()
		return nil, err
	}
	return &executors{starter: starter, executors: map[string]runtime.Executor{
		runtime.KindNative: native.New(shared, []string{self, "spawn"}),
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
	e.starter.Close()
}
