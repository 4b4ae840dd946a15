package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of CPU time in /proc/<pid>/stat: USER_HZ, 100 a second on
// every Linux that Go runs on. proc(5).
const tick = time.Second / 100

// Usage is what a tree of processes has used.
type Usage struct {
	User, System time.Duration // since they started, children that ended and were waited for included
	Private      int64         // bytes: RssAnon + RssShmem, which no file backs
	Processes    int
}

// usage sums up the process pid and all its living descendants.
func usage(pid int) (Usage, error) {
	var sum Usage
	for _, p := range tree(pid) {
		dir := "/proc/" + strconv.Itoa(p)
		stat, err := os.ReadFile(dir + "/stat")
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended since
		}
		if err != nil {
			return Usage{}, err
		}
		user, system, err := parseStat(stat)
		if err != nil {
			return Usage{}, fmt.Errorf("read %s/stat: %w", dir, err)
		}
		status, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue
		}
		sum.User += user
		sum.System += system
		sum.Private += parseStatus(status, "RssAnon:") + parseStatus(status, "RssShmem:")
		sum.Processes++
	}
	if sum.Processes == 0 {
		return Usage{}, fmt.Errorf("process %d is gone", pid)
	}
	return sum, nil
}

// tree lists pid and its descendants.
func tree(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pids[i]) + "/task/*/children")
		for _, list := range lists {
			text, _ := os.ReadFile(list) // the thread may have ended
			for _, field := range bytes.Fields(text) {
				if child, err := strconv.Atoi(string(field)); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}

// parseStat reads user and system time, the 14th and 15th field of
// /proc/<pid>/stat, with those of the children that it has waited for, the 16th and 17th. The second
// field, the name, may hold spaces and brackets.
func parseStat(stat []byte) (user, system time.Duration, err error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	if end < 0 || len(fields) < 15 {
		return 0, 0, errors.New("too few fields")
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(string(fields[11+i]), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(ticks[0]+ticks[2]) * tick, time.Duration(ticks[1]+ticks[3]) * tick, nil
}

// parseStatus reads one "Name:   123 kB" line of /proc/<pid>/status in bytes; 0
// when there is none.
func parseStatus(status []byte, name string) int64 {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(name))
		if !ok {
			continue
		}
		fields := bytes.Fields(rest)
		if len(fields) == 2 && string(fields[1]) == "kB" {
			n, _ := strconv.ParseInt(string(fields[0]), 10, 64)
			return n << 10
		}
	}
	return 0
}
