package build

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// diskTurns is how many looks at the memory go by for one at the disk, which
// walks the build's folder.
const diskTurns = 5

// watch ends a running command when its processes are too many, or take more
// memory together than a build may, or when the build's folder grows above its bound.
// It returns when ctx ends.
func (j *job) watch(ctx context.Context, pid int, end context.CancelCauseFunc) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for turn := 1; ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		used, processes := useOf(pid)
		if processes > processesMax {
			end(&limitError{ProcessLimit, fmt.Sprintf("the build started more than %d processes at a time", processesMax)})
			return
		}
		if used > int64(j.b.opt.MemoryMB)<<20 {
			end(&limitError{BuildOOM, fmt.Sprintf("the build took more than %d MB of memory", j.b.opt.MemoryMB)})
			return
		}
		if turn%diskTurns == 0 && diskOf(j.work) > int64(j.b.opt.DiskMB)<<20 {
			end(&limitError{OutputLimit, fmt.Sprintf("the build wrote more than %d MB", j.b.opt.DiskMB)})
			return
		}
	}
}

// useOf is the resident memory of a process and all below it, in bytes, and how
// many they are, which is counted to one above processesMax. Memory that several share counts for
// each: compilers share little.
func useOf(root int) (memory int64, processes int) {
	var pages int64
	pids := []int{root}
	for i := 0; i < len(pids) && i <= processesMax; i++ {
		proc := "/proc/" + strconv.Itoa(pids[i])
		if statm, err := os.ReadFile(proc + "/statm"); err == nil {
			if fields := bytes.Fields(statm); len(fields) > 1 {
				n, _ := strconv.ParseInt(string(fields[1]), 10, 64)
				pages += n
			}
		}
		tasks, err := os.ReadDir(proc + "/task")
		if err != nil {
			continue // it has ended
		}
		for _, task := range tasks {
			children, err := os.ReadFile(proc + "/task/" + task.Name() + "/children")
			if err != nil {
				continue
			}
			for _, child := range bytes.Fields(children) {
				if pid, err := strconv.Atoi(string(child)); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pages * int64(os.Getpagesize()), min(len(pids), processesMax+1)
}

// diskOf is the space that the files below dir take, in bytes. What cannot be
// looked at counts nothing.
func diskOf(dir string) int64 {
	var size int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}
