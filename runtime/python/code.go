package python

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

//go:embed server.py
var serverSource string

const (
	// ours is the file name of the server's code, which it leaves out of
	// tracebacks.
	ours = "<baton>"

	// compiler has an interpreter compile the server, and start what a server starts with: its
	// descriptor 4 holds the code. Compiling it in each one would cost
	// each 10 ms, and a megabyte that every fork shares.
	compiler = `import marshal, sys
sys.stdout.buffer.write(marshal.dumps(compile(sys.stdin.buffer.read(), "` + ours + `", "exec", dont_inherit=True)))
`
	starter = `import marshal
with open(4, "rb") as file:
    code = file.read()
exec(marshal.loads(code))
`
)

// compile returns the server's code, for this interpreter alone.
func (i *Interpreter) compile(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, i.Path, "-I", "-S", "-B", "-c", compiler)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(serverSource)
	var fault bytes.Buffer
	cmd.Stderr = &fault
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	code, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("compile the server for %s: %w: %.500s", i.Path, err, fault.Bytes())
	}
	return code, nil
}
