// Command testsum runs `go test` once or more and says what came of it.
//
//	testsum [-skips FILE] -- GO-TEST-ARGUMENTS [-- GO-TEST-ARGUMENTS]...
//
// It prints one line per package as it ends, the output of what failed, the
// name and reason of what was skipped, and closes with the totals of all runs.
//
// With CI=true in the environment, a test may be skipped only when FILE lists
// it; any other skip fails the run, because a test that nobody runs is blind.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// failuresMax bounds the list of failures at the end.
const failuresMax = 50

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	var skips []Skip
	if len(args) >= 2 && args[0] == "-skips" {
		file, err := os.Open(args[1])
		if err != nil {
			fmt.Fprintln(stderr, "testsum:", err)
			return 2
		}
		skips, err = ParseSkips(file)
		file.Close()
		if err != nil {
			fmt.Fprintf(stderr, "testsum: %s: %v\n", args[1], err)
			return 2
		}
		args = args[2:]
	}
	runs := splitRuns(args)
	if len(runs) == 0 {
		fmt.Fprintln(stderr, "usage: testsum [-skips FILE] -- GO-TEST-ARGUMENTS [-- GO-TEST-ARGUMENTS]...")
		return 2
	}

	// Ctrl-C reaches go test too, which ends its children; we read on and report.
	signal.Ignore(os.Interrupt)

	var total Summary
	for _, args := range runs {
		start := time.Now()
		fmt.Fprintf(stdout, "go test %s\n", strings.Join(args, " "))
		summary, err := goTest(args, stdout, stderr)
		if err != nil {
			fmt.Fprintln(stderr, "testsum:", err)
			return 2
		}
		fmt.Fprintf(stdout, "%s in %.0f s\n\n", summary.Counts, time.Since(start).Seconds())
		total.Add(summary)
	}

	unlisted := total.WriteSkips(stdout, skips)
	for i, failure := range total.Failures {
		if i == failuresMax {
			fmt.Fprintf(stdout, "FAILED and %d more\n", len(total.Failures)-i)
			break
		}
		fmt.Fprintln(stdout, "FAILED", failure)
	}
	strict := os.Getenv("CI") == "true"
	if strict && unlisted > 0 {
		fmt.Fprintf(stdout, "FAILED %d skipped tests are not listed in scripts/skips\n", unlisted)
	}
	fmt.Fprintln(stdout, total.Counts)
	if len(total.Failures) > 0 || strict && unlisted > 0 {
		return 1
	}
	return 0
}

// splitRuns cuts args at each "--"; what stands before the first is dropped.
func splitRuns(args []string) [][]string {
	var runs [][]string
	for {
		i := slices.Index(args, "--")
		if i < 0 {
			return runs
		}
		args = args[i+1:]
		end := slices.Index(args, "--")
		if end < 0 {
			end = len(args)
		}
		if end > 0 {
			runs = append(runs, args[:end])
		}
	}
}

// goTest runs `go test -json args` and follows its events to the end.
//
// A go test that fails without naming a failed package (a bad flag, a package
// that is not there) becomes a failure of its own.
func goTest(args []string, stdout, stderr io.Writer) (Summary, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return Summary{}, fmt.Errorf("make pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return Summary{}, fmt.Errorf("start go test: %w", err)
	}
	follower := NewFollower(stdout)
	lines := bufio.NewReader(pipe)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			follower.Line(line)
		}
		if err != nil {
			break
		}
	}
	summary := follower.Summary()
	if err := cmd.Wait(); err != nil && len(summary.Failures) == 0 {
		summary.Failures = append(summary.Failures, "go test "+strings.Join(args, " ")+": "+err.Error())
		summary.Counts.Failed++
	}
	return summary, nil
}
