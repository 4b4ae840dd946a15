package route

import (
	"errors"
	"reflect"
	"testing"
)

func TestChangeRoundTrip(t *testing.T) {
	t.Parallel()
	want := []Change{put("GET:/a", goodValue), gone("GET:/b"), put("", ""), {OpPut, Row{"GET:/c", "{", 1<<32 - 1}}}
	var b []byte
	for _, c := range want {
		b = AppendChange(b, c)
	}
	got, err := ParseChanges(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	for n := range b {
		part, err := ParseChanges(b[:n])
		if err == nil && len(part) == len(want) || err != nil && (part != nil || !errors.Is(err, ErrTruncated)) {
			t.Errorf("cut at %d: %v %v", n, part, err)
		}
	}
}

func TestParseChangesLaw(t *testing.T) {
	t.Parallel()
	for law, b := range map[string]string{
		"unknown operation":                  "\x00\x00\x00\x00\x00\x00\x00",
		"operation beyond the last":          "\x03\x00\x00\x00\x00\x00\x00",
		"a delete has no value":              "\x02\x00\x00\x00\x00\x00\x01x",
		"a length over the bound":            "\x01\x00\x00\x00\x00\xff\xff\xff\xff\x0f",
		"a length over 64 bits":              "\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"a length over what follows":         "\x01\x00\x00\x00\x00\x02x",
		"a good change, then half a change ": "\x01\x00\x00\x00\x00\x00\x00\x01",
	} {
		if got, err := ParseChanges([]byte(b)); err == nil || got != nil {
			t.Errorf("%s: accepted as %v", law, got)
		}
	}
	if got, err := ParseChanges(nil); got != nil || err != nil {
		t.Errorf("nothing: %v %v", got, err)
	}
}

// FuzzParseChanges: never panics; what it accepts is applied without panic,
// and written again is read as the same.
func FuzzParseChanges(f *testing.F) {
	f.Add(AppendChange(AppendChange(nil, put("GET:/a/{x}", goodValue)), gone("GET:/b")))
	f.Add([]byte("\x01\x00\x00\x00\x00\xff\xff\xff\xff\x0f"))
	f.Add(AppendChange(nil, gone("GET:/{a")))
	f.Add(AppendChange(nil, gone("GET:/{a}/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z/1/2/3/4/5/6/7/8/9")))
	base := mustBuild(f, "GET:/a", "GET:/a/{x}")
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := ParseChanges(b)
		if err != nil {
			if changes != nil {
				t.Fatal("changes and an error")
			}
			return
		}
		var again []byte
		for _, c := range changes {
			again = AppendChange(again, c)
		}
		second, err := ParseChanges(again)
		if err != nil || !reflect.DeepEqual(second, changes) {
			t.Fatalf("%v, then %v %v", changes, second, err)
		}
		base.Apply(2, changes)
	})
}
