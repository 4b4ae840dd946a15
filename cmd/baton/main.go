// Command baton is the platform: the server, its workers, and the commands that
// manage both.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
