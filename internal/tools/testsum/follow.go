package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// Counts counts tests, subtests included. A package that did not build or
// ended without a failed test counts as one failed.
type Counts struct {
	Passed, Failed, Skipped int
}

func (c Counts) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.Passed, c.Failed, c.Skipped)
}

// Skipped is one test that did not run, and why.
type Skipped struct {
	Package, Test, Reason string
}

// Summary is what one or more runs came to.
type Summary struct {
	Counts   Counts
	Skipped  []Skipped
	Failures []string // "package Test", or the package alone
}

// Add adds what another run came to.
func (s *Summary) Add(o Summary) {
	s.Counts.Passed += o.Counts.Passed
	s.Counts.Failed += o.Counts.Failed
	s.Counts.Skipped += o.Counts.Skipped
	s.Skipped = append(s.Skipped, o.Skipped...)
	s.Failures = append(s.Failures, o.Failures...)
}

// WriteSkips prints each skipped test once with its reason, and returns how
// many of them no entry of skips allows.
func (s *Summary) WriteSkips(w io.Writer, skips []Skip) (unlisted int) {
	seen := map[Skipped]bool{}
	for _, skipped := range s.Skipped {
		if seen[skipped] {
			continue
		}
		seen[skipped] = true
		note := ""
		if !allowed(skips, skipped) {
			unlisted++
			note = " (not in scripts/skips)"
		}
		fmt.Fprintf(w, "SKIPPED %s %s: %s%s\n", skipped.Package, skipped.Test, skipped.Reason, note)
	}
	return unlisted
}

// Skip allows one test, or those of one pattern, to be skipped.
type Skip struct {
	Package, Pattern, Reason string
}

// ParseSkips reads lines of package, shell pattern of the test's name, reason.
// Empty lines and lines that start with # are comments.
func ParseSkips(r io.Reader) ([]Skip, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var skips []Skip
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 3 {
			return nil, fmt.Errorf("line %d: want package, test and reason, got %q", i+1, line)
		}
		if _, err := path.Match(words[1], ""); err != nil {
			return nil, fmt.Errorf("line %d: pattern %q: %w", i+1, words[1], err)
		}
		skips = append(skips, Skip{words[0], words[1], strings.Join(words[2:], " ")})
	}
	return skips, nil
}

func allowed(skips []Skip, skipped Skipped) bool {
	for _, skip := range skips {
		if ok, _ := path.Match(skip.Pattern, skipped.Test); ok && skip.Package == skipped.Package {
			return true
		}
	}
	return false
}

// Follower reads the events of `go test -json`, prints a line per package and
// the output of what failed, and counts.
type Follower struct {
	w        io.Writer
	summary  Summary
	packages map[string]*packageRun
}

// packageRun is one package between its first event and its last.
type packageRun struct {
	counts  Counts
	outputs map[string][]string // by test; "" is the package's own
}

// NewFollower returns a follower that prints to w.
func NewFollower(w io.Writer) *Follower {
	return &Follower{w: w, packages: map[string]*packageRun{}}
}

// Summary is what all events so far came to.
func (f *Follower) Summary() Summary { return f.summary }

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output string
	ImportPath, FailedBuild       string
	Elapsed                       float64
}

// Line takes one line. What is no event is printed as it is.
func (f *Follower) Line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		f.w.Write(line)
		return
	}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(f.w, e.Output)
	case e.Package == "":
	case e.Action == "output":
		p := f.packageRun(e.Package)
		p.outputs[e.Test] = append(p.outputs[e.Test], e.Output)
	case e.Test != "":
		f.testEnd(e)
	default:
		f.packageEnd(e)
	}
}

func (f *Follower) packageRun(name string) *packageRun {
	p := f.packages[name]
	if p == nil {
		p = &packageRun{outputs: map[string][]string{}}
		f.packages[name] = p
	}
	return p
}

func (f *Follower) testEnd(e event) {
	p := f.packageRun(e.Package)
	output := p.outputs[e.Test]
	short := shortName(e.Package)
	switch e.Action {
	case "pass":
		p.counts.Passed++
		p.outputs[""] = append(p.outputs[""], behindVerdict(output)...)
	case "skip":
		p.counts.Skipped++
		f.summary.Skipped = append(f.summary.Skipped, Skipped{short, e.Test, skipReason(output)})
		p.outputs[""] = append(p.outputs[""], behindVerdict(output)...)
	case "fail":
		p.counts.Failed++
		f.summary.Failures = append(f.summary.Failures, short+" "+e.Test)
		f.print(output)
	default:
		return
	}
	delete(p.outputs, e.Test)
}

func (f *Follower) packageEnd(e event) {
	p := f.packageRun(e.Package)
	short := shortName(e.Package)
	word := "ok  "
	switch e.Action {
	case "pass":
	case "skip": // no test files
		delete(f.packages, e.Package)
		return
	case "fail":
		word = "FAIL"
		if p.counts.Failed == 0 {
			// It did not build, or it died: what is left of its output says why.
			p.counts.Failed++
			f.summary.Failures = append(f.summary.Failures, short)
		}
		for _, test := range slices.Sorted(maps.Keys(p.outputs)) {
			f.print(p.outputs[test])
		}
	default:
		return
	}
	fmt.Fprintf(f.w, "%s\t%-28s %7.2fs  %s\n", word, short, e.Elapsed, p.counts)
	f.summary.Counts.Passed += p.counts.Passed
	f.summary.Counts.Failed += p.counts.Failed
	f.summary.Counts.Skipped += p.counts.Skipped
	delete(f.packages, e.Package)
}

// linesMax bounds what is printed of one test: its first and its last lines.
const linesMax = 400

// print prints lines, of very many only the first and the last.
func (f *Follower) print(lines []string) {
	for i, line := range lines {
		if cut := len(lines) - linesMax; cut > 0 && i >= linesMax/2 && i < linesMax/2+cut {
			if i == linesMax/2 {
				fmt.Fprintf(f.w, "… %d lines …\n", cut)
			}
			continue
		}
		fmt.Fprint(f.w, line)
	}
}

// behindVerdict is what a test's output has behind the line that says how it
// ended. That is nobody's, or everybody's: go test gives a package's panic to
// whichever test spoke last, even when that one has passed.
func behindVerdict(output []string) []string {
	for i, line := range slices.Backward(output) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "--- PASS") || strings.HasPrefix(line, "--- SKIP") {
			return output[i+1:]
		}
	}
	return nil
}

// shortName is the package without the module's name, as scripts/skips has it.
func shortName(name string) string { return strings.TrimPrefix(name, "baton/") }

// skipReason is the text behind the last "file.go:line: " of a test's output.
func skipReason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		line := strings.TrimSpace(output[i])
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, reason, ok := strings.Cut(line, ": "); ok {
			return reason
		}
		return line
	}
	return "no reason given"
}
