package python

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Interpreter is a Python 3 of this machine.
type Interpreter struct {
	// Path is the program, absolute: not a script that looks for one.
	Path string
	// Version is "3.11.2".
	Version string
	// Read is what it needs to read beside the system's directories.
	Read []string
}

// versionMin is the oldest minor version of Python 3 that server.py runs on.
const versionMin = 9

// probeTimeout bounds the question to one candidate.
const probeTimeout = 20 * time.Second

// probe has a candidate say where it really is: what is found first in PATH may
// be a script that starts another one (pyenv), or belong to a virtual environment.
const probe = `import os, sys
print("%d.%d.%d" % sys.version_info[:3])
print(os.path.abspath(sys.executable))
for place in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix):
    print(place)
`

var errNone = errors.New("no Python of version 3.9 or later is installed on this machine: apt install python3")

// Find finds the interpreter: the first python3 in the directories of path, a
// list as PATH is, and then in the system's, that is version 3.9 or later. The
// error says what was found instead, and what to install.
func Find(ctx context.Context, path string) (Interpreter, error) {
	return find(ctx, append(filepath.SplitList(path), "/usr/local/bin", "/usr/bin", "/bin"))
}

func find(ctx context.Context, dirs []string) (Interpreter, error) {
	var reasons []error
	var seen []string
	for _, dir := range dirs {
		name := filepath.Join(dir, "python3")
		if !filepath.IsAbs(name) || slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		found, err := ask(ctx, name)
		if err == nil {
			return found, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", name, err))
	}
	return Interpreter{}, errors.Join(append([]error{errNone}, reasons...)...)
}

// ask has a candidate answer the probe.
func ask(ctx context.Context, name string) (Interpreter, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "-I", "-S", "-c", probe)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	output, err := cmd.Output()
	if err != nil {
		return Interpreter{}, fmt.Errorf("ask for its version: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	if len(lines) < 3 || !filepath.IsAbs(lines[1]) {
		return Interpreter{}, fmt.Errorf("it answers %.100q", output)
	}
	found := Interpreter{Path: lines[1], Version: lines[0]}
	var major, minor int
	if _, err := fmt.Sscanf(found.Version, "%d.%d", &major, &minor); err != nil || major != 3 || minor < versionMin {
		return Interpreter{}, fmt.Errorf("it is Python %s, want 3.%d or later", found.Version, versionMin)
	}
	real, err := filepath.EvalSymlinks(found.Path)
	if err != nil {
		return Interpreter{}, err
	}
	found.Read = []string{real, fmt.Sprintf("/etc/python%d.%d", major, minor)}
	for _, place := range lines[2:] {
		// What lies in /usr is granted to everybody; a whole root directory or a home never.
		if place = filepath.Clean(place); filepath.IsAbs(place) && place != "/" && !slices.Contains(found.Read, place) && !isHome(place) {
			found.Read = append(found.Read, place)
		}
	}
	return found, nil
}

// isHome says whether somebody lives in a directory.
func isHome(path string) bool {
	home, err := os.UserHomeDir()
	return err == nil && path == filepath.Clean(home) || path == "/root" || filepath.Dir(path) == "/home"
}
