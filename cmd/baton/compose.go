package main

import (
	"context"
	"errors"
	"log/slog"

	"baton/gateway"
	"baton/runtime/wasm"
	"baton/worker"
)

// exitRefused is how `baton prepare` says that the module cannot run; any other
// failure says nothing about the module.
const exitRefused = 3

// serve runs the gateway until ctx ends, or abort.
func (c *commands) serve(ctx context.Context, abort <-chan struct{}, f serveFlags) error {
	config := gateway.Config{
		Listen: f.listen, Data: c.data, Workers: f.workers, ConnsMax: f.conns, Drain: f.drain, Stall: f.stall, CodeMB: f.codeMB,
		Version: version, Isolation: isolation(f.without), Without: f.without, Debug: f.debug,
		Builds: f.builds, Keep: f.keep, LogBytes: int64(f.logs) << 20,
		Stdout: c.out, Logger: newLogger(c.err, f.debug), Abort: abort,
	}
	return gateway.Run(ctx, config)
}

func (c *commands) worker() error {
	return worker.Run(func(debug bool) *slog.Logger { return newLogger(c.err, debug) })
}

// prepare compiles one module.
func (c *commands) prepare(ctx context.Context, cache string, args []string) error {
	if cache == "" || len(args) != 1 {
		return usageError{errors.New("want --cache DIR and one module")}
	}
	_, err := wasm.PrepareAlone(ctx, args[0], cache, wasm.PrepareMemoryMax)
	var refused *wasm.RefusedError
	if errors.As(err, &refused) {
		return &exitError{exitRefused, err}
	}
	return err
}
