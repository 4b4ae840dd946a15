// Command cmd runs the benchmark: `make bench`, `make bench-full`, `make
// bench-quick` and `make bench-analyse`, from the repository's root.
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
	"slices"
	"strings"
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
	quick := flags.Bool("quick", false, "the two main workloads in two short rounds, nothing recorded")
	full := flags.Bool("full", false, "every workload and peer")
	analyse := flags.Bool("analyse", false, "print the last recorded run")
	only := flags.String("only", "", "only the workloads whose names contain one of these, separated by |; nothing recorded")
	rounds := flags.Int("rounds", 5, "rounds per workload")
	seconds := flags.Int("seconds", 3, "seconds per turn")
	results := flags.String("results", "bench/results", "folder of the records and plots")
	document := flags.String("document", "PERFORMANCE.md", "file whose marked block is rewritten")
	binary := flags.String("baton", "bin/baton", "the binary to measure")
	cache := flags.String("cache", "bin/bench", "folder for what is built or fetched once")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "bench:", err)
		if errors.Is(err, bench.ErrMissing) {
			return 3
		}
		return 1
	}
	if *analyse {
		report, name, err := bench.Last(*results)
		if err != nil {
			return fail(err)
		}
		fmt.Fprintf(stdout, "%s\n\n%s", name, report.Table())
		return 0
	}
	depth := bench.Canonical
	switch {
	case *full:
		depth = bench.Full
	case *quick:
		depth, *rounds, *seconds = bench.Quick, 2, 2
	}
	if *rounds < 1 || *seconds < 1 {
		fmt.Fprintln(stderr, "bench: -rounds and -seconds are at least 1")
		return 2
	}
	workloads := bench.Workloads(depth, *seconds)
	if *only != "" {
		workloads = slices.DeleteFunc(workloads, func(w bench.Workload) bool {
			return !slices.ContainsFunc(strings.Split(*only, "|"), func(part string) bool { return strings.Contains(w.Name, part) })
		})
		if len(workloads) == 0 {
			return fail(fmt.Errorf("no workload's name contains one of %q", *only))
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, path := range []*string{binary, cache} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fail(err)
		}
		*path = absolute
	}
	began := time.Now()
	report, err := bench.Run(ctx, bench.Options{
		Depth: depth, Rounds: *rounds, Warmup: time.Second, Workloads: workloads,
		Peers: bench.Peers(*binary, *cache, stderr), Binary: *binary, Log: stderr,
		LoadsOnly: *only != "",
	})
	if err != nil {
		return fail(err)
	}
	report.Date, report.Machine, report.Commit = began, bench.ThisMachine(), bench.Commit(ctx)
	report.Command = "go run ./bench/cmd " + strings.Join(args, " ")
	fmt.Fprint(stdout, report.Table())
	if depth == bench.Quick || *only != "" {
		return 0
	}
	name, err := report.Save(*results)
	if err == nil {
		_, err = report.SavePlots(*results)
	}
	if err == nil {
		err = report.UpdateDocument(*document, *results)
	}
	if err != nil {
		return fail(err)
	}
	fmt.Fprintf(stdout, "\nwritten to %s and %s, after %v\n", name, *document, time.Since(began).Round(time.Second))
	return 0
}
