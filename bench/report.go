package bench

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Report is one run as it is kept.
type Report struct {
	Date    time.Time `json:"date"`
	Command string    `json:"command"` // what repeats it
	Commit  string    `json:"commit"`
	Machine Machine   `json:"machine"`
	Results []Result  `json:"results"`
	Figures []Figure  `json:"figures,omitempty"`
	Curves  []Curve   `json:"curves,omitempty"`
}

// Machine is where it ran.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Memory int64  `json:"memory_bytes"`
}

// ThisMachine describes the machine.
func ThisMachine() Machine {
	var m Machine
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "model name":
			m.CPU = strings.TrimSpace(value)
		case "processor":
			m.Cores++
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(release))
	memory, _ := os.ReadFile("/proc/meminfo")
	m.Memory = parseStatus(memory, "MemTotal:")
	return m
}

// Commit is the commit of the working tree, with "+" when it has changes.
func Commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(head))
	status, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(status) > 0 {
		commit += "+"
	}
	return commit
}

// spread is the middle of some values and how far they lie apart.
type spread struct{ median, min, max float64 }

// spreadOf wants at least one value.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

func (s Series) spread(of func(Round) float64) spread {
	var values []float64
	for _, r := range s.Rounds {
		values = append(values, of(r))
	}
	return spreadOf(values)
}

// ratio compares round by round, so that what disturbs both cancels out.
func (s Series) ratio(base Series, of func(Round) float64) spread {
	var values []float64
	for i, r := range s.Rounds {
		if b := of(base.Rounds[i]); b > 0 {
			values = append(values, of(r)/b)
		}
	}
	if len(values) == 0 {
		return spread{}
	}
	return spreadOf(values)
}

func rate(r Round) float64 { return r.Rate }
func p50(r Round) float64  { return float64(r.P50) }
func p99(r Round) float64  { return float64(r.P99) }
func p999(r Round) float64 { return float64(r.P999) }
func cpu(r Round) float64  { return float64(r.CPU()) / 1e3 }
func mem(r Round) float64  { return float64(r.Private) / (1 << 20) }

// Table is the report as Markdown, readable as it stands.
func (r Report) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, commit %s, %s, %d cores, Linux %s; `%s`. Ratios are of the first server of the same round, median (min–max); "+
		"\"again\" is that server measured twice: the noise floor.\n",
		r.Date.UTC().Format("2006-01-02"), r.Commit, r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Command)
	for _, result := range r.Results {
		load := result.Workload.Load
		options := ""
		if load.Close {
			options = ", `Connection: close`"
		}
		if load.Body > 0 {
			options += fmt.Sprintf(", POST of %d bytes", load.Body)
		}
		rounds := 0
		if len(result.Series) > 0 {
			rounds = len(result.Series[0].Rounds)
		}
		if rounds == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n**%s**: %s. `wrk -t%d -c%d -d%ds`%s, %d rounds\n\n", result.Workload.Name, result.Workload.About,
			load.Threads, load.Connections, load.Duration/time.Second, options, rounds)
		rows := [][]string{
			{"server", "requests/s", "ratio", "p50 µs", "p50 ratio", "p99 µs", "p99 ratio", "p99.9 µs", "CPU µs/request", "CPU ratio", "MB", "system calls", "errors"},
		}
		base := result.Series[0]
		for _, s := range result.Series {
			var failed int64
			for _, round := range s.Rounds {
				failed += round.Errors
			}
			rows = append(rows, []string{
				s.Server,
				fmt.Sprintf("%.0f", s.spread(rate).median), ratioText(s.ratio(base, rate)),
				fmt.Sprintf("%.0f", s.spread(p50).median), ratioText(s.ratio(base, p50)),
				fmt.Sprintf("%.0f", s.spread(p99).median), ratioText(s.ratio(base, p99)),
				fmt.Sprintf("%.0f", s.spread(p999).median),
				fmt.Sprintf("%.1f", s.spread(cpu).median), ratioText(s.ratio(base, cpu)),
				fmt.Sprintf("%.1f", s.spread(mem).median), callsText(s.Syscalls), fmt.Sprint(failed),
			})
		}
		writeTable(&b, rows)
	}
	r.writeFigures(&b)
	r.writeCurves(&b)
	return b.String()
}

// writeFigures writes the figures that are no load.
func (r Report) writeFigures(b *strings.Builder) {
	if len(r.Figures) == 0 {
		return
	}
	b.WriteString("\n**Sizes and single times**, median (min–max)\n\n")
	rows := [][]string{{"what", "measured", "promised"}}
	for _, f := range r.Figures {
		promise := "–"
		if f.Promise != "" {
			promise = f.Promise + " " + f.Unit
		}
		rows = append(rows, []string{f.Name, f.text(), promise})
	}
	writeTable(b, rows)
}

// callsText lists the most frequent system calls per request.
func callsText(calls map[string]float64) string {
	if len(calls) == 0 {
		return "–"
	}
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int {
		return cmp.Or(cmp.Compare(calls[b], calls[a]), strings.Compare(a, b))
	})
	var parts []string
	for _, name := range names[:min(len(names), callsShown)] {
		parts = append(parts, fmt.Sprintf("%.2f %s", calls[name], name))
	}
	return strings.Join(parts, ", ")
}

// callsShown is how many kinds of system calls a table shows; the record has all.
const callsShown = 4

func ratioText(s spread) string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.median, s.min, s.max) }

// writeTable writes a Markdown table with columns of equal width.
func writeTable(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(b, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, width := range widths {
				b.WriteString("| " + strings.Repeat("-", width) + " ")
			}
			b.WriteString("|\n")
		}
	}
}

// Save writes the report to dir under its date and returns the file's name.
func (r Report) Save(dir string) (string, error) {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, r.Date.UTC().Format("2006-01-02T150405Z")+".json")
	return name, writeWhole(name, append(text, '\n'))
}

// Last reads the newest report in dir.
func Last(dir string) (Report, string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return Report{}, "", err
	}
	if len(names) == 0 {
		return Report{}, "", fmt.Errorf("no report in %s: %w", dir, fs.ErrNotExist)
	}
	name := slices.Max(names)
	text, err := os.ReadFile(name)
	if err != nil {
		return Report{}, "", err
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		return Report{}, "", fmt.Errorf("read %s: %w", name, err)
	}
	return r, name, nil
}

// The marks between which PERFORMANCE.md holds the last run.
const (
	markStart = "<!-- make bench writes from here -->\n"
	markEnd   = "<!-- to here -->\n"
)

var errNoMarks = errors.New("the marks of make bench are missing")

// UpdateDocument puts the report's table and its plots, which lie in dir,
// between the marks of a file.
func (r Report) UpdateDocument(name, dir string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	text, err = replaceMarked(text, r.Table()+"\n"+r.images(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return writeWhole(name, text)
}

func replaceMarked(text []byte, block string) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(markStart))
	if !ok {
		return nil, errNoMarks
	}
	_, after, ok := bytes.Cut(rest, []byte(markEnd))
	if !ok {
		return nil, errNoMarks
	}
	return slices.Concat(before, []byte(markStart+"\n"+block+"\n"+markEnd), after), nil
}

// writeWhole writes a file under a temporary name and renames it.
func writeWhole(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name+".tmp", text, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
