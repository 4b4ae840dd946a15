package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// syscallsMin is the calls per request below which a system call is left out.
	syscallsMin = 0.005
	// straceEnd is how long strace may take to end. It can wait for ever for a process that waits, in
	// vfork(2), for a child that strace has stopped; killed, it lets both go on.
	straceEnd = 10 * time.Second
)

// syscalls counts the system calls of a process tree per request, under a short
// load of its own: strace slows the server, so nothing else is measured then.
// Nil without strace, and when it does not end.
func syscalls(ctx context.Context, dir string, s *server, c Contestant, load Load) (map[string]float64, error) {
	path, err := exec.LookPath("strace")
	if err != nil {
		return nil, nil // it only counts
	}
	args := []string{"-c", "-f", "-q"}
	for _, p := range s.ran {
		for _, pid := range tree(p.cmd.Process.Pid) {
			args = append(args, "-p", strconv.Itoa(pid))
		}
	}
	trace := exec.Command(path, args...)
	var output bytes.Buffer
	trace.Stderr = &output
	if err := trace.Start(); err != nil {
		return nil, fmt.Errorf("strace: %w", err)
	}
	load.Duration = time.Second
	measured, err := wrk(ctx, dir, s.addr, c.Targets, load)
	_ = trace.Process.Signal(syscall.SIGINT) // prints its table
	killed := time.AfterFunc(straceEnd, func() { _ = trace.Process.Kill() })
	ended := trace.Wait()
	if !killed.Stop() {
		return nil, err
	}
	var exit *exec.ExitError
	if ended != nil && !errors.As(ended, &exit) { // it ends as the signal would
		err = errors.Join(err, ended)
	}
	if err != nil {
		return nil, err
	}
	if measured.Requests == 0 {
		return nil, nil
	}
	counts, err := parseStrace(output.Bytes())
	if err != nil {
		return nil, err
	}
	per := make(map[string]float64)
	for name, n := range counts {
		if each := float64(n) / float64(measured.Requests); each >= syscallsMin {
			per[name] = each
		}
	}
	return per, nil
}

// parseStrace reads the table of strace -c: the calls by name.
func parseStrace(output []byte) (map[string]int64, error) {
	counts := make(map[string]int64)
	in := false
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 0 && strings.HasPrefix(fields[0], "------") {
			in = !in
			continue
		}
		if !in || len(fields) < 5 {
			continue
		}
		n, err := strconv.ParseInt(fields[3], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("strace's table: %w", err)
		}
		counts[fields[len(fields)-1]] += n
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("strace printed no table: %.300s", output)
	}
	return counts, lines.Err()
}
