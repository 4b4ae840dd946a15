package reactor

import (
	"strings"
	"testing"

	"baton/route"
)

// Every split: however a function's output is cut into writes, the log gets the
// same lines, each whole.
func TestLogWriterGivesWholeLines(t *testing.T) {
	t.Parallel()
	const text = "one\n\ntwo and a half\nend"
	for first := range len(text) + 1 {
		for second := first; second <= len(text); second++ {
			var pieces []string
			b := &Back{cfg: BackConfig{Log: func(_ *route.Function, _, p []byte) { pieces = append(pieces, string(p)) }}}
			w := logWriter{back: b, k: newCall()}
			for _, p := range []string{text[:first], text[first:second], text[second:]} {
				if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			w.flush()
			w.flush()
			if got := strings.Join(pieces, ""); got != text {
				t.Fatalf("cut at %d and %d: %q", first, second, got)
			}
			for _, p := range pieces[:len(pieces)-1] {
				if !strings.HasSuffix(p, "\n") {
					t.Fatalf("cut at %d and %d: %q is no whole line", first, second, p)
				}
			}
		}
	}
}

func TestLogWriterBoundsALine(t *testing.T) {
	t.Parallel()
	pieces := 0
	b := &Back{cfg: BackConfig{Log: func(*route.Function, []byte, []byte) { pieces++ }}}
	w := logWriter{back: b, k: newCall()}
	for range 10 * logPartMax {
		_, _ = w.Write([]byte{'x'})
	}
	if pieces != 9 || len(w.part) > logPartMax || cap(w.part) > 2*logPartMax {
		t.Errorf("%d pieces, %d bytes kept in %d", pieces, len(w.part), cap(w.part))
	}
}
