package main

import (
	"context"
	"errors"

	"baton/deploy"
	"baton/runtime/wasm"
	"baton/worker"
)

// errNotBuilt says that a part is missing from this state of the sources.
var errNotBuilt = errors.New("not in this build")

// exitRefused is how `baton prepare` says that the module cannot run; any other
// failure says nothing about the module.
const exitRefused = 3

// rowStore is the functions table as `baton init` uses it.
type rowStore interface {
	deploy.Rows
	Close() error
}

func (c *commands) openRows(string) (rowStore, error) { return nil, errNotBuilt }

func (c *commands) serve(context.Context, <-chan struct{}, serveFlags) error { return errNotBuilt }

func (c *commands) worker() error { return worker.Run(newLogger(c.err, false)) }

// prepare compiles one module.
func (c *commands) prepare(ctx context.Context, cache string, args []string) error {
	if cache == "" || len(args) != 1 {
		return usageError{errors.New("want --cache DIR and one module")}
	}
	_, err := wasm.Prepare(ctx, args[0], cache)
	var refused *wasm.RefusedError
	if errors.As(err, &refused) {
		return &exitError{exitRefused, err}
	}
	return err
}
