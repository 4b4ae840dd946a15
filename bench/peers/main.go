// Command peers is the small servers that baton is measured beside: what one
// would write by hand instead. Each answers with the token of its query.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// run serves until the process is ended. args: mode, address, and what the mode
// needs: the module, the command, the address behind.
func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a mode and an address, got %q", args)
	}
	mode, addr, more := args[0], args[1], args[2:]
	switch {
	case mode == "nethttp" && len(more) == 0:
		return serveNetHTTP(addr)
	case mode == "fasthttp" && len(more) == 0:
		return serveFastHTTP(addr)
	case mode == "gnet" && len(more) == 0:
		return serveGnet(addr)
	case mode == "wazero" && len(more) == 1:
		return serveWazero(addr, more[0])
	case mode == "spawn" && len(more) > 0:
		return serveSpawn(addr, more)
	case mode == "proxy" && len(more) == 1:
		return serveProxy(addr, more[0])
	}
	return fmt.Errorf("unknown mode or wrong arguments: %q", args)
}
