package main

import (
	"context"
	"errors"

	"baton/deploy"
)

// errNotBuilt says that a part is missing from this state of the sources.
var errNotBuilt = errors.New("not in this build")

// rowStore is the functions table as `baton init` uses it.
type rowStore interface {
	deploy.Rows
	Close() error
}

func (c *commands) openRows(string) (rowStore, error) { return nil, errNotBuilt }

func (c *commands) serve(context.Context, <-chan struct{}, serveFlags) error { return errNotBuilt }

func (c *commands) worker() error { return errNotBuilt }

func (c *commands) prepare(context.Context, string, []string) error { return errNotBuilt }
