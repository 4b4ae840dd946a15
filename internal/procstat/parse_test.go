package procstat

import (
	"bytes"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// statTail is a line of /proc/PID/stat from field 3 on, with utime 14, stime 15,
// cutime 16, cstime 17 and starttime 22 in their places.
const statTail = " S 7 100 100 0 -1 4194304 99 0 0 0 14 15 16 17 20 0 1 0 22 3133440 357 18446744073709551615 0 0 0\n"

func TestParseStat(t *testing.T) {
	t.Parallel()
	want := Stat{PID: 42, PPID: 7, Ticks: 29, ChildTicks: 33, StartTicks: 22}
	for _, test := range []struct {
		name, line string
		ok         bool
	}{
		{"plain", "42 (baton)" + statTail, true},
		{"no name", "42 ()" + statTail, true},
		{"a name with spaces", "42 (tmux: server)" + statTail, true},
		{"a name with parentheses", "42 (a) R 1 2 (b))" + statTail, true},
		{"a name that looks like the rest", "42 (x) S 9 9 9 9 9 9 9 9 9 9 9 9 9 9)" + statTail, true},
		{"a name with a newline", "42 (a\nb)" + statTail, true},
		{"without the end of line", "42 (baton)" + strings.TrimSuffix(statTail, "\n"), true},
		{"a kernel before 2.6 counted negative", "42 (baton)" + strings.Replace(statTail, " 16 17 ", " -16 33 ", 1), true},
		{"empty", "", false},
		{"no pid", "(baton)" + statTail, false},
		{"no name at all", "42 baton" + statTail, false},
		{"cut in the name", "42 (bat", false},
		{"cut before the times", "42 (baton) S 7 100", false},
		{"cut in the times", "42 (baton)" + statTail[:strings.Index(statTail, " 17 ")+1], false},
		{"a state that is no letter", "42 (baton)" + strings.Replace(statTail, " S ", " 00 ", 1), false},
		{"a time that is no number", "42 (baton)" + strings.Replace(statTail, " 14 ", " x ", 1), false},
		{"a time that is negative", "42 (baton)" + strings.Replace(statTail, " 14 ", " -1 ", 1), false},
		{"a time that does not fit", "42 (baton)" + strings.Replace(statTail, " 14 ", " 18446744073709551616 ", 1), false},
		{"a pid that cannot be", "99999999 (baton)" + statTail, false},
	} {
		got, ok := ParseStat([]byte(test.line))
		if ok != test.ok || ok && got != want {
			t.Errorf("%s: %+v, %v", test.name, got, ok)
		}
	}
}

func TestParseStatDoesNotWrap(t *testing.T) {
	t.Parallel()
	line := "42 (baton)" + strings.Replace(statTail, " 14 ", " 18446744073709551615 ", 1)
	if got, ok := ParseStat([]byte(line)); !ok || got.Ticks != math.MaxUint64 {
		t.Errorf("%+v, %v", got, ok)
	}
}

func TestParseResident(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text string
		want       uint64
		ok         bool
	}{
		{"as the kernel writes it", "Name:\tcat\nVmHWM:\t    1968 kB\nVmRSS:\t    1964 kB\nRssAnon:\t0 kB\n", 1964 << 10, true},
		{"the last line, cut", "VmRSS:\t12 kB", 12 << 10, true},
		{"a zombie", "Name:\tcat\nState:\tZ (zombie)\n", 0, false},
		{"a name that looks like it", "Name:\tVmRSS: 5 kB\nState:\tZ (zombie)\n", 0, false},
		{"another unit", "VmRSS:\t12 MB\n", 0, false},
		{"no number", "VmRSS:\t kB\n", 0, false},
		{"too large", "VmRSS:\t18446744073709551615 kB\n", 0, false},
		{"empty", "", 0, false},
	} {
		if got, ok := ParseResident([]byte(test.text)); got != test.want || ok != test.ok {
			t.Errorf("%s: %d, %v", test.name, got, ok)
		}
	}
}

func TestParseIO(t *testing.T) {
	t.Parallel()
	const text = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 5\n"
	if r, w, ok := ParseIO([]byte(text)); !ok || r != 4096 || w != 8192 {
		t.Errorf("%d, %d, %v", r, w, ok)
	}
	for _, bad := range []string{"", "read_bytes: 1\n", "write_bytes: 1\n", "read_bytes: x\nwrite_bytes: 1\n", "read_bytes: 1\nwrite_bytes: -1\n", "read_bytes: 1 kB\nwrite_bytes: 1\n", "cancelled_write_bytes: 1\nread_bytes: 1\n"} {
		if _, _, ok := ParseIO([]byte(bad)); ok {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestAppendPIDs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want []int
	}{
		{"", []int{1}},
		{"12 ", []int{1, 12}},
		{"12 345 4194304 ", []int{1, 12, 345, 4194304}},
		{"12 x 13 ", []int{1, 12}},
		{"12 0 13 ", []int{1, 12}},
		{"12 4194305 ", []int{1, 12}},
		{"12x", []int{1}},
	} {
		if got := AppendPIDs([]int{1}, []byte(test.text)); !slices.Equal(got, test.want) {
			t.Errorf("%q: %v, want %v", test.text, got, test.want)
		}
	}
}

// FuzzParse: no input panics, and what is accepted is within its bounds.
func FuzzParse(f *testing.F) {
	f.Add([]byte("42 (a b) c)" + statTail))
	f.Add([]byte("VmRSS:\t1964 kB\n"))
	f.Add([]byte("read_bytes: 4096\nwrite_bytes: 8192\n"))
	f.Add([]byte("12 13 14 "))
	for _, name := range []string{"stat", "status", "io"} {
		if b, err := os.ReadFile("/proc/self/" + name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		if s, ok := ParseStat(b); ok {
			if s.PID < 0 || s.PID > maxPID || s.PPID < 0 || s.PPID > maxPID {
				t.Fatalf("%+v", s)
			}
			// The oracle: split behind the last parenthesis.
			words := strings.FieldsFunc(string(b[bytes.LastIndexByte(b, ')')+1:]), func(r rune) bool { return r == ' ' || r == '\n' })
			start, err := strconv.ParseUint(words[22-3], 10, 64)
			if err != nil || len(words[0]) != 1 || start != s.StartTicks {
				t.Fatalf("start %d, want %d", s.StartTicks, start)
			}
		}
		if v, ok := ParseResident(b); ok && v%1024 != 0 {
			t.Fatalf("resident %d", v)
		}
		ParseIO(b)
		for _, pid := range AppendPIDs(nil, b) {
			if pid <= 0 || pid > maxPID {
				t.Fatalf("pid %d", pid)
			}
		}
		for rest := b; ; {
			name, r, ok := dirent(rest)
			if !ok {
				break
			}
			if len(r) >= len(rest) || len(name) > len(rest) {
				t.Fatalf("entry %q of %d bytes leaves %d", name, len(rest), len(r))
			}
			rest = r
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
	})
}
