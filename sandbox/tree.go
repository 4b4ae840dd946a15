package sandbox

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	"baton/internal/sys"
)

// KeepsProcesses says whether something keeps the processes of a child in its
// group or namespace, so that Kill reaches all of them. Where that is not so, KillTree does.
func (s *Spec) KeepsProcesses() bool {
	return s.namespaces() || !s.without(LayerSeccomp) && sys.SeccompAvailable()
}

// treeRounds bounds the looks at the processes of a child that makes new ones
// faster than they are killed.
const treeRounds = 100

// KillTree is Kill for a child that may have left its group: it is stopped, so that its
// descendants stay its own (it is their subreaper), those are killed until none is left, and then
// itself.
func KillTree(pid int) error {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	for range treeRounds {
		alive := 0
		for _, p := range descendants(pid) {
			if syscall.Kill(p, syscall.SIGKILL) == nil {
				alive++
			}
		}
		if alive == 0 {
			break
		}
	}
	return Kill(pid)
}

// descendants lists the processes below pid that have not ended.
func descendants(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	ended := map[int]bool{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// pid (name) state parent …; the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			continue
		}
		children[parent] = append(children[parent], p)
		ended[p] = fields[0][0] == 'Z' || fields[0][0] == 'X'
	}
	var below []int
	for queue := children[pid]; len(queue) > 0; queue = queue[1:] {
		if !ended[queue[0]] {
			below = append(below, queue[0])
		}
		queue = append(queue, children[queue[0]]...)
	}
	return below
}
