package worker

import (
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"baton/reactor"
	"baton/route"
	"baton/runtime/logs"
)

// functionLogs is where functions' lines and failures go: this worker's segments
// under <data>/logs. Its methods do not block, and any goroutine may call them.
type functionLogs struct {
	*logs.Writer
	// last is the function that was asked about last: one that logs, logs again.
	last atomic.Pointer[versioned]
}

type versioned struct {
	f       *route.Function
	version int
}

func openLogs(cfg Config, workers int) (*functionLogs, error) {
	w, err := logs.NewWriter(logs.Options{
		Dir: filepath.Join(cfg.Data, "logs"), Worker: cfg.Worker, Workers: workers, BytesMax: cfg.LogBytes,
	})
	return &functionLogs{Writer: w}, err
}

func (l *functionLogs) line(f *route.Function, requestID, p []byte) {
	l.Line(f.Name, l.version(f), requestID, p)
}

func (l *functionLogs) failed(f *route.Function, requestID []byte, why reactor.Failure) {
	l.Failure(f.Name, l.version(f), requestID, logs.Failure(why))
}

// version is which of a deployed function's versions f is; 0: it was not
// deployed, its module lies elsewhere.
func (l *functionLogs) version(f *route.Function) int {
	if last := l.last.Load(); last != nil && last.f == f {
		return last.version
	}
	v := &versioned{f: f, version: moduleVersion(f.Descriptor().Module)}
	l.last.Store(v)
	return v.version
}

// moduleVersion reads "functions/<id>/<version>/<file>".
func moduleVersion(module string) int {
	parts := strings.Split(module, "/")
	if len(parts) < 4 || parts[0] != "functions" {
		return 0
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil || n < 0 {
		return 0
	}
	return n
}
