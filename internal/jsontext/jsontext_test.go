package jsontext

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzAppend holds Append against encoding/json: what it appends is a valid
// JSON string that means s, with U+FFFD for each byte that is not UTF-8.
func FuzzAppend(f *testing.F) {
	for _, s := range []string{"", "plain", "quote\" and \\", "\x00\x1f\n\r\t", "é漢😀", "\xff\xfe", "a\xe6\xbc", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Append([]byte("x"), s)
		if string(got) != string(Append([]byte("x"), []byte(s))) {
			t.Fatalf("string and bytes differ for %q", s)
		}
		var back string
		if err := json.Unmarshal(got[1:], &back); err != nil {
			t.Fatalf("Append(%q) = %q: %v", s, got, err)
		}
		want := strings.Builder{}
		for _, r := range s {
			want.WriteRune(r)
		}
		if back != want.String() {
			t.Fatalf("Append(%q) means %q, want %q", s, back, want.String())
		}
	})
}
