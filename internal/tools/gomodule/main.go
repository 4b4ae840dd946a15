// Command gomodule compiles a folder of Go sources to a WASI module for the
// build of baton itself, the way a deployed function is compiled.
//
//	gomodule SOURCE OUTPUT
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"baton/deploy/gomodule"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gomodule SOURCE OUTPUT")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := gomodule.Module{Source: os.Args[1], Output: os.Args[2]}.Build(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gomodule:", err)
		os.Exit(1)
	}
}
