package httpparse

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// lawBytesMax bounds a law in testdata/laws.txt; what is longer is about sizes.
const lawBytesMax = 2 << 10

// lawsText has a line for each law, in three columns that are Go strings: what
// it is and its name; the name of the reason, "incomplete" or "accepted"; its
// bytes.
func lawsText() []byte {
	var b bytes.Buffer
	add := func(kind, name, verdict, in string) {
		if len(in) <= lawBytesMax {
			fmt.Fprintf(&b, "%q %q %s\n", kind+": "+name, verdict, strconv.QuoteToASCII(in))
		}
	}
	for _, c := range append(headLaws(), headLimits()...) {
		add("head", c.name, c.why.String(), c.in)
	}
	for _, c := range append(chunkLaws(), chunkLimits()...) {
		verdict := c.why.String()
		if c.more {
			verdict = "incomplete"
		}
		add("chunks", c.name, verdict, c.in)
	}
	return b.Bytes()
}

// The laws in a file, for the test of package reactor that sends each through a
// gateway and a worker. `make golden` writes it.
func TestLawsGolden(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "laws.txt")
	if os.Getenv("BATON_GOLDEN") != "" {
		if err := os.WriteFile(path, lawsText(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, lawsText()) {
		t.Errorf("%s does not have the laws of this package: run `make golden`", path)
	}
}
