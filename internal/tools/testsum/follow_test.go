package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestFollower(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		events   []string
		counts   Counts
		failures string
		prints   []string
		silent   []string
	}{
		{
			name: "a passed test says nothing but its package's line",
			events: []string{
				`{"Action":"run","Package":"baton/route","Test":"TestA"}`,
				`{"Action":"output","Package":"baton/route","Test":"TestA","Output":"noise\n"}`,
				`{"Action":"pass","Package":"baton/route","Test":"TestA"}`,
				`{"Action":"pass","Package":"baton/route","Elapsed":1.5}`,
			},
			counts: Counts{Passed: 1},
			prints: []string{"ok", "route", "1.50s", "1 passed, 0 failed, 0 skipped"},
			silent: []string{"noise"},
		},
		{
			name: "a failed test prints its output",
			events: []string{
				`{"Action":"output","Package":"baton/route","Test":"TestA","Output":"got 1, want 2\n"}`,
				`{"Action":"fail","Package":"baton/route","Test":"TestA"}`,
				`{"Action":"fail","Package":"baton/route","Elapsed":0}`,
			},
			counts:   Counts{Failed: 1},
			failures: "route TestA",
			prints:   []string{"FAIL", "got 1, want 2"},
		},
		{
			name: "a package that does not build is one failure with the compiler's words",
			events: []string{
				`{"ImportPath":"baton/route","Action":"build-output","Output":"undefined: x\n"}`,
				`{"Action":"fail","Package":"baton/route","Elapsed":0,"FailedBuild":"baton/route"}`,
			},
			counts:   Counts{Failed: 1},
			failures: "route",
			prints:   []string{"FAIL", "undefined: x"},
		},
		{
			name: "a package that dies prints what the running test had said",
			events: []string{
				`{"Action":"output","Package":"baton/route","Test":"TestA","Output":"panic: boom\n"}`,
				`{"Action":"fail","Package":"baton/route","Elapsed":0}`,
			},
			counts:   Counts{Failed: 1},
			failures: "route",
			prints:   []string{"panic: boom"},
		},
		{
			name: "a package's panic that go test gives to a passed test is printed",
			events: []string{
				`{"Action":"output","Package":"baton/route","Test":"TestA","Output":"=== CONT  TestA\n"}`,
				`{"Action":"output","Package":"baton/route","Test":"TestB","Output":"mine\n"}`,
				`{"Action":"output","Package":"baton/route","Test":"TestB","Output":"--- PASS: TestB (0.00s)\n"}`,
				`{"Action":"output","Package":"baton/route","Test":"TestB","Output":"panic: test timed out after 1s\n"}`,
				`{"Action":"pass","Package":"baton/route","Test":"TestB"}`,
				`{"Action":"fail","Package":"baton/route","Elapsed":1}`,
			},
			counts:   Counts{Passed: 1, Failed: 1},
			failures: "route",
			prints:   []string{"panic: test timed out", "=== CONT  TestA"},
			silent:   []string{"mine"},
		},
		{
			name:   "a package without tests says nothing",
			events: []string{`{"Action":"skip","Package":"baton/examples"}`},
		},
		{
			name:   "what is no event is passed on",
			events: []string{`go: downloading x`},
			prints: []string{"go: downloading x"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			f := NewFollower(&out)
			for _, e := range tc.events {
				f.Line([]byte(e + "\n"))
			}
			got := f.Summary()
			if got.Counts != tc.counts {
				t.Errorf("counts %v, want %v", got.Counts, tc.counts)
			}
			if failures := strings.Join(got.Failures, ","); failures != tc.failures {
				t.Errorf("failures %q, want %q", failures, tc.failures)
			}
			for _, want := range tc.prints {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
			for _, not := range tc.silent {
				if strings.Contains(out.String(), not) {
					t.Errorf("output has %q:\n%s", not, out.String())
				}
			}
		})
	}
}

func TestFollowerBoundsOneTestsOutput(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	f := NewFollower(&out)
	for i := range linesMax + 7 {
		f.Line(fmt.Appendf(nil, `{"Action":"output","Package":"baton/route","Test":"TestA","Output":"line %d\n"}`, i))
	}
	f.Line([]byte(`{"Action":"fail","Package":"baton/route","Test":"TestA"}`))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != linesMax+1 || lines[0] != "line 0" || lines[linesMax/2] != "… 7 lines …" || lines[linesMax] != fmt.Sprintf("line %d", linesMax+6) {
		t.Errorf("printed %d lines, from %q over %q to %q", len(lines), lines[0], lines[linesMax/2], lines[len(lines)-1])
	}
}

func TestSkips(t *testing.T) {
	t.Parallel()
	skips, err := ParseSkips(strings.NewReader("# comment\n\nsandbox TestLandlock* no Landlock here\n"))
	if err != nil {
		t.Fatal(err)
	}
	f := NewFollower(&strings.Builder{})
	for _, name := range []string{"TestLandlockWrite", "TestOther"} {
		f.Line([]byte(`{"Action":"output","Package":"baton/sandbox","Test":"` + name + `","Output":"    x_test.go:7: needs thing\n"}`))
		f.Line([]byte(`{"Action":"output","Package":"baton/sandbox","Test":"` + name + `","Output":"--- SKIP: ` + name + ` (0.00s)\n"}`))
		f.Line([]byte(`{"Action":"skip","Package":"baton/sandbox","Test":"` + name + `"}`))
	}
	summary := f.Summary()
	var out strings.Builder
	if got := summary.WriteSkips(&out, skips); got != 1 {
		t.Errorf("%d unlisted skips, want 1", got)
	}
	want := "SKIPPED sandbox TestLandlockWrite: needs thing\n" +
		"SKIPPED sandbox TestOther: needs thing (not in scripts/skips)\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestSkipsRefusesAReasonlessLine(t *testing.T) {
	t.Parallel()
	if _, err := ParseSkips(strings.NewReader("sandbox TestX\n")); err == nil {
		t.Error("a line without a reason was accepted")
	}
}

func TestSplitRuns(t *testing.T) {
	t.Parallel()
	got := splitRuns([]string{"--", "./...", "--", "-race", "./..."})
	if len(got) != 2 || got[0][0] != "./..." || strings.Join(got[1], " ") != "-race ./..." {
		t.Errorf("got %q", got)
	}
}
