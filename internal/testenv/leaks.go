package testenv

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// leakPatience is how long what is ending may take to end after the last test.
const leakPatience = 5 * time.Second

// Main runs a package's tests and fails when they leave descriptors, goroutines
// or child processes behind, which it names, goroutines with the stack that
// created them:
//
//	func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }
func Main(m *testing.M) int {
	settle()
	before := takeInventory()
	code := m.Run()
	if code != 0 {
		return code // the failure may be why something is left
	}
	http.DefaultClient.CloseIdleConnections()
	var left []string
	poll(leakPatience, func() bool {
		left = takeInventory().beyond(before)
		return len(left) == 0
	})
	if len(left) == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "left behind by the tests:\n%s\n", strings.Join(left, "\n"))
	return 1
}

// settle brings into being what the Go runtime creates at first use and keeps:
// its epoll set and the thread for locked goroutines.
func settle() {
	if r, w, err := os.Pipe(); err == nil {
		_ = r.SetDeadline(time.Now())
		r.Close()
		w.Close()
	}
	starter()
}

// inventory is what a process holds, as multisets: text → count.
type inventory map[string]int

func takeInventory() inventory {
	held := inventory{}
	for _, link := range Descriptors(os.Getpid()) {
		held["descriptor: "+link]++
	}
	for _, pid := range Children(os.Getpid()) {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		held[fmt.Sprintf("child: %d %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '}))]++
	}
	for _, stack := range goroutines() {
		held["goroutine: "+stack]++
	}
	return held
}

// beyond lists what held has more of than before.
func (held inventory) beyond(before inventory) []string {
	var more []string
	for _, text := range slices.Sorted(maps.Keys(held)) {
		if n := held[text] - before[text]; n > 0 {
			more = append(more, fmt.Sprintf("%d × %s", n, text))
		}
	}
	return more
}

// Descriptors lists what the open descriptors of a process refer to, sorted.
// Sockets and pipes carry their inode, so two lists can be compared.
func Descriptors(pid int) []string {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, _ := os.ReadDir(dir)
	var links []string
	for _, entry := range entries {
		link, err := os.Readlink(dir + "/" + entry.Name())
		if err != nil {
			continue // closed since: the one that read the folder
		}
		links = append(links, link)
	}
	slices.Sort(links)
	return links
}

// goroutines returns the stack of each goroutine but the caller's, without
// numbers and addresses, so that two of one kind are equal.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	for {
		n := goruntime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := strings.Split(strings.TrimSpace(string(buf)), "\n\n")
	var kept []string
	for _, stack := range stacks[1:] {
		if isOfTesting(stack) {
			continue
		}
		var lines []string
		for i, line := range strings.Split(stack, "\n") {
			if i == 0 {
				continue // "goroutine 7 [select]:"
			}
			if cut := strings.LastIndexByte(line, '('); cut > 0 && !strings.HasPrefix(line, "\t") {
				line = line[:cut]
			}
			if cut := strings.LastIndex(line, " in goroutine "); cut > 0 {
				line = line[:cut]
			}
			if cut := strings.LastIndex(line, " +0x"); cut > 0 {
				line = line[:cut]
			}
			lines = append(lines, line)
		}
		kept = append(kept, strings.Join(lines, "\n"))
	}
	return kept
}

// isOfTesting: goroutines that the test framework or this package keeps, or that
// a dependency starts once and never ends.
func isOfTesting(stack string) bool {
	for _, known := range []string{
		"testing.(*M).Run(",
		"testing.(*M).startAlarm",
		"testing.runFuzzing(",
		"os/signal.loop(",
		"os/signal.signal_recv(",
		"internal/testenv.(*processStarter).run(",
		"runtime/trace.",
		"fasthttp.updateServerDate.",
		// gnet's, from its import on: on a busy machine they may not have come to
		// where they wait when the first inventory is taken.
		"panjf2000/ants/v2.(*poolCommon).",
	} {
		if strings.Contains(stack, known) {
			return true
		}
	}
	return false
}
