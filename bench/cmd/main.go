// Command cmd runs the benchmark: `make bench`, `make bench-quick` and
// `make bench-analyse`, from the repository's root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"syscall"
	"time"

	"baton/bench"
)

func main() {
	// The servers end with the thread that started them: this one.
	goruntime.LockOSThread()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	quick := flags.Bool("quick", false, "two short rounds, nothing recorded")
	analyse := flags.Bool("analyse", false, "print the last recorded run")
	rounds := flags.Int("rounds", 5, "rounds per workload")
	seconds := flags.Int("seconds", 5, "seconds per round and server")
	workers := flags.Int("workers", 0, "baton's workers; 0 is its default")
	results := flags.String("results", "bench/results", "folder of the records")
	document := flags.String("document", "PERFORMANCE.md", "file whose marked block is rewritten")
	binary := flags.String("baton", "bin/baton", "the binary to measure")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *analyse {
		report, name, err := bench.Last(*results)
		if err != nil {
			fmt.Fprintln(stderr, "bench:", err)
			return 1
		}
		fmt.Fprintf(stdout, "%s\n\n%s", name, report.Table())
		return 0
	}
	if *quick {
		*rounds, *seconds = 2, 2
	}
	if *rounds < 1 || *seconds < 1 {
		fmt.Fprintln(stderr, "bench: -rounds and -seconds are at least 1")
		return 2
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	path, err := filepath.Abs(*binary)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	report := bench.Report{
		Date:    time.Now(),
		Command: fmt.Sprintf("go run ./bench/cmd -rounds %d -seconds %d", *rounds, *seconds),
		Commit:  bench.Commit(ctx),
		Machine: bench.ThisMachine(),
	}
	report.Results, err = bench.Run(ctx, bench.Options{
		Rounds:    *rounds,
		Warmup:    2 * time.Second,
		Workloads: bench.Canonical(time.Duration(*seconds) * time.Second),
		Base:      bench.Nginx(2),
		Others:    []bench.Peer{bench.Baton(path, *workers)},
		Log:       stderr,
	})
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		if errors.Is(err, bench.ErrMissing) {
			return 3
		}
		return 1
	}
	fmt.Fprint(stdout, report.Table())
	if *quick {
		return 0
	}
	name, err := report.Save(*results)
	if err == nil {
		err = report.UpdateDocument(*document)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	fmt.Fprintf(stdout, "\nwritten to %s and %s\n", name, *document)
	return 0
}
