package httpparse

import (
	"regexp"
	"testing"
)

// Every reason has a status to answer with, a name of its own and a sentence,
// and neither needs an escape in JSON.
func TestReasons(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	text := regexp.MustCompile(`^[a-zA-Z0-9 ,.*'/-]+$`)
	seen := map[string]bool{}
	allowed := map[int]bool{400: true, 408: true, 413: true, 414: true, 417: true, 421: true, 431: true, 501: true, 505: true}
	check := func(r interface {
		String() string
		Text() string
		Status() int
	}, none bool) {
		if !name.MatchString(r.String()) || !text.MatchString(r.Text()) || !none && seen[r.String()] {
			t.Errorf("%q: %q", r, r.Text())
		}
		seen[r.String()] = true
		if StatusText(r.Status()) == "" {
			t.Errorf("%v: status %d", r, r.Status())
		}
	}
	for r := range ReasonCount {
		check(r, r == ReasonNone)
		if r != ReasonNone && !allowed[r.Status()] {
			t.Errorf("%v: status %d", r, r.Status())
		}
	}
	for r := range CGIReasonCount {
		check(r, r == CGIReasonNone)
		if r != CGIReasonNone && r.Status() != 502 {
			t.Errorf("%v: status %d", r, r.Status())
		}
	}
	if ReasonNone.Status() != 200 || CGIReasonNone.Status() != 200 {
		t.Error("an accepted request has no error status")
	}
	for o, want := range map[Outcome]string{Incomplete: "incomplete", Complete: "complete", Invalid: "invalid", 9: "unknown"} {
		if o.String() != want {
			t.Errorf("%d: %q", uint8(o), o)
		}
	}
}

// Every reason that a parser gives has a law; the others are the connection's.
func TestEveryReasonHasALaw(t *testing.T) {
	t.Parallel()
	has := map[Reason]bool{
		ReasonNone: true, ReasonHeadTimeout: true, ReasonBodyTimeout: true, ReasonBodyTooLarge: true,
	}
	for _, c := range append(headLaws(), headLimits()...) {
		has[c.why] = true
	}
	for _, c := range append(chunkLaws(), chunkLimits()...) {
		has[c.why] = true
	}
	for r := range ReasonCount {
		if !has[r] {
			t.Errorf("%v: no law", r)
		}
	}
	cgi := map[CGIReason]bool{}
	for _, c := range append(cgiLaws(), cgiLimits()...) {
		cgi[c.why] = true
	}
	for r := range CGIReasonCount {
		if !cgi[r] {
			t.Errorf("%v: no law", r)
		}
	}
}
