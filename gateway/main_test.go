package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	goruntime "runtime"
	"strings"
	"testing"

	"baton/control"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/sandbox"
)

// TestMain is also the processes that tests start: this binary again. See
// fakeWorker and fakeHolder.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fakeWorkerName {
		fakeWorker(os.Args[2:])
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "sandbox" { // as of baton
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	if len(os.Args) > 2 && os.Args[1] == fakeHolderName {
		fakeHolder(os.Args[2])
	}
	if err := sys.CloseOnExecFrom(3); err != nil { // as open does
		panic(err)
	}
	startClock()
	os.Exit(testenv.Main(m))
}

// startClock has the control plane answer once: its HTTP server starts a clock
// with the first answer, which then runs for ever and is no leak.
func startClock() {
	server, err := control.New(control.Config{Backend: noBackend{}, Token: strings.Repeat("t", 64)})
	if err != nil {
		panic(err)
	}
	ours, theirs := net.Pipe()
	if err := server.ServeConn(theirs); err != nil {
		panic(err)
	}
	if _, err := io.WriteString(ours, "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"); err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, ours)
	_ = ours.Close()
	_ = server.Shutdown(context.Background())
	buf := make([]byte, 1<<20)
	for asleep := false; !asleep; { // as it will be found at the end
		for stack := range strings.SplitSeq(string(buf[:goruntime.Stack(buf, true)]), "\n\n") {
			asleep = asleep || strings.Contains(stack, "updateServerDate.func") && strings.Contains(stack, "time.Sleep")
		}
		goruntime.Gosched()
	}
}

// noBackend is one that is not asked.
type noBackend struct{ control.Backend }
