package sched

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", os.Getenv("BATON_GOLDEN") != "", "rewrite the expected outputs in testdata")

// TestScript runs testdata/script/*.txt. A script opens with its scenario in
// prose, up to the first line that starts with "> ". Such a line is a command;
// the lines up to the next one, or to an empty line, are what it prints. -update
// (or BATON_GOLDEN=1) rewrites them.
//
// Commands, where N is a worker or a list (0,2), and SET is any of score=, age=,
// inflight=, pending=, conns=, ramp=, ready, notready, full, room:
//
//	workers COUNT [seed=S]   COUNT ready workers without a sample, a new Picker
//	set N SET...             changes workers; score= is a new sample of age 0
//	tick COUNT               samples age, ramps go on
//	order COUNT [not=N]      the next decisions in order; nothing is adopted
//	count COUNT [KIND]       how many of the next decisions each worker got.
//	                         KIND stale: nothing else changes (the default);
//	                         pending: each adds to the worker's pending;
//	                         conns: each adds to its connections
//	meter                    a new Meter
//	sample CPU% MB KB/s      adds a sample, prints smoothed usage, score, status
//	shedder OWN              a new Shedder for worker OWN
//	shed TICKS               each tick at which connections go back, how many
func TestScript(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: got\n%s", file, got)
			}
		})
	}
}

func runScript(t *testing.T, text string) []byte {
	s := script{t: t}
	lines := strings.SplitAfter(text, "\n")
	if strings.HasPrefix(text, "> ") {
		t.Fatal("a script opens with its scenario in prose")
	}
	skipping := false
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "> "):
			s.out.WriteString(line)
			s.command(strings.Fields(line[2:]))
			skipping = true
		case skipping && strings.TrimSpace(line) != "":
			// The old output.
		default:
			skipping = false
			s.out.WriteString(line)
		}
	}
	return s.out.Bytes()
}

type script struct {
	t       *testing.T
	out     bytes.Buffer
	loads   []Load
	picker  *Picker
	meter   *Meter
	shedder *Shedder
	own     int
}

func (s *script) command(words []string) {
	s.t.Helper()
	if len(words) == 0 {
		s.t.Fatal("an empty command")
	}
	name, args := words[0], words[1:]
	arg := func(i int) string {
		if i >= len(args) {
			s.t.Fatalf("%s: argument %d is missing", name, i)
		}
		return args[i]
	}
	switch name {
	case "workers":
		s.loads = make([]Load, s.number(arg(0)))
		for i := range s.loads {
			s.loads[i] = Load{Ready: true, Score: -1}
		}
		seed := 1
		if len(args) > 1 {
			seed = s.number(strings.TrimPrefix(args[1], "seed="))
		}
		s.picker = NewPicker(Options{}, uint64(seed))
	case "set":
		for _, i := range s.numbers(arg(0)) {
			for _, setting := range args[1:] {
				s.set(&s.loads[i], setting)
			}
		}
	case "tick":
		n := uint32(s.number(arg(0)))
		for i := range s.loads {
			s.loads[i].Age += n
			s.loads[i].Ramp -= min(n, s.loads[i].Ramp)
		}
	case "order":
		var not uint64
		if len(args) > 1 {
			for _, i := range s.numbers(strings.TrimPrefix(args[1], "not=")) {
				not |= 1 << i
			}
		}
		for k := range s.number(arg(0)) {
			if k > 0 {
				s.out.WriteByte(' ')
			}
			fmt.Fprint(&s.out, s.picker.Next(s.loads, not))
		}
		s.out.WriteByte('\n')
	case "count":
		kind := "stale"
		if len(args) > 1 {
			kind = args[1]
		}
		counts := make([]int, len(s.loads))
		for range s.number(arg(0)) {
			i := s.picker.Pick(s.loads)
			counts[i]++
			switch kind {
			case "stale":
			case "pending":
				s.loads[i].Pending++
			case "conns":
				s.loads[i].Conns++
			default:
				s.t.Fatalf("count: %q", kind)
			}
		}
		fmt.Fprintln(&s.out, strings.Trim(fmt.Sprint(counts), "[]"))
	case "meter":
		s.meter = NewMeter()
	case "sample":
		u, score, status := s.meter.Add(Sample{
			CPUPercent: s.float(arg(0)), MemoryBytes: s.float(arg(1)) * (1 << 20), IOKBPerSecond: s.float(arg(2)),
		})
		fmt.Fprintf(&s.out, "cpu %.2f mem %.2f io %.2f score %.2f %s\n", u.CPU, u.Memory, u.IO, score, status)
	case "shedder":
		s.own = s.number(arg(0))
		s.shedder = &Shedder{}
	case "shed":
		none := true
		for tick := range s.number(arg(0)) {
			if n := s.shedder.Tick(s.loads, s.own); n > 0 {
				none = false
				s.loads[s.own].Conns -= int32(n)
				fmt.Fprintf(&s.out, "tick %d: %d\n", tick+1, n)
			}
		}
		if none {
			s.out.WriteString("none\n")
		}
	default:
		s.t.Fatalf("unknown command %q", name)
	}
}

func (s *script) set(l *Load, setting string) {
	name, value, _ := strings.Cut(setting, "=")
	switch name {
	case "score":
		l.Score, l.Age = s.float(value), 0
		l.Sample++
	case "age":
		l.Age = uint32(s.number(value))
	case "inflight":
		l.Inflight = int32(s.number(value))
	case "pending":
		l.Pending = int32(s.number(value))
	case "conns":
		l.Conns = int32(s.number(value))
	case "ramp":
		l.Ramp = uint32(s.number(value))
	case "ready":
		l.Ready = true
	case "notready":
		l.Ready = false
	case "full":
		l.Full = true
	case "room":
		l.Full = false
	default:
		s.t.Fatalf("set: %q", setting)
	}
}

func (s *script) number(word string) int {
	n, err := strconv.Atoi(word)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func (s *script) numbers(word string) []int {
	var ns []int
	for _, w := range strings.Split(word, ",") {
		ns = append(ns, s.number(w))
	}
	return ns
}

func (s *script) float(word string) float64 {
	v, err := strconv.ParseFloat(word, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}
