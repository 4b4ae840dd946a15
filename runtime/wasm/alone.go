package wasm

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"baton/internal/sys"
)

// PrepareMemoryMax is what compiling one module may take, in bytes. A Go program of 3 MB takes
// 100 MB, one of 60 MB some 2 GB. Too small: large programs are
// refused; too large: a compile bomb pushes others out of memory.
const PrepareMemoryMax = 2 << 30

const (
	// memoryLook is how often the memory of a preparing process is looked at:
	// a compiler that only allocates takes some 10 MB in it.
	memoryLook = 5 * time.Millisecond
	// memorySlack is what lies between the bound and the kernel's own, which ends the process
	// without a word: for what is allocated between two looks, in bytes.
	memorySlack = 512 << 20
)

// PrepareAlone is Prepare for a process that does nothing else and ends
// afterwards: it bounds the process's memory. More than memoryMax bytes is a
// RefusedError, while the compiler still runs.
func PrepareAlone(ctx context.Context, path, cacheDir string, memoryMax int64) (*Report, error) {
	if err := sys.SetRlimit(sys.RlimitData, uint64(memoryMax)+memorySlack); err != nil {
		return nil, fmt.Errorf("bound the memory: %w", err)
	}
	// Where a machine runs out of memory all the same, this process goes first.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	debug.SetMemoryLimit(memoryMax - memoryMax/8)
	type prepared struct {
		report *Report
		err    error
	}
	done := make(chan prepared, 1)
	go func() { // ends with the process, if not before
		report, err := Prepare(ctx, path, cacheDir)
		done <- prepared{report, err}
	}()
	ticker := time.NewTicker(memoryLook)
	defer ticker.Stop()
	for {
		select {
		case p := <-done:
			return p.report, p.err
		case <-ticker.C:
			if used := memoryUsed(); used > memoryMax {
				return nil, refused("compiling it takes more than %d MiB of memory", memoryMax>>20)
			}
		}
	}
}

// memoryUsed is what Go's runtime has from the system, in bytes.
func memoryUsed() int64 {
	samples := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples[:])
	return int64(samples[0].Value.Uint64()) - int64(samples[1].Value.Uint64())
}
