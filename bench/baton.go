package bench

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sources of the functions that are deployed.
//
//go:embed functions/*.c functions/*.php functions/*.py functions/hello/main.go
var sources embed.FS

// deployTimeout bounds one deploy: the first of a language fills its caches.
const deployTimeout = 5 * time.Minute

// function is what a deploy needs.
type function struct {
	name, runtime, target, path string
	source                      string // in sources
	code                        []byte // instead of source
}

// functions are those of the servers called baton; optional: without its
// toolchain or interpreter, the others are still measured.
var functions = []function{
	{name: "c", runtime: "c", target: "wasm", path: "/c", source: "hello.c"},
	{name: "go", runtime: "go", path: "/go", source: "hello/main.go"},
	{name: "echo", runtime: "c", target: "wasm", path: "/echo", source: "echo.c"},
	{name: "big", runtime: "c", target: "wasm", path: "/big", source: "big.c"},
	{name: "slow", runtime: "c", target: "wasm", path: slowPath, source: "slow.c"},
	{name: "native", runtime: "c", path: "/native", source: "hello.c"},
	{name: "php", runtime: "php", path: "/php", source: "hello.php"},
	{name: "phphandler", runtime: "php", path: "/phphandler", source: "handler.php"},
	{name: "python3", runtime: "python", path: "/python3", source: "hello.py"},
	{name: "pyhandler", runtime: "python", path: "/pyhandler", source: "handler.py"},
}

// workerCounts are the numbers of workers that are compared.
var workerCounts = []int{1, 2, 4, 8}

func workersServer(n int) string { return fmt.Sprintf("baton, %d workers", n) }

func manyServer(n int) string { return fmt.Sprintf("baton, %d functions", n) }

func manyTargets(n int) []string {
	targets := make([]string, n)
	for i := range targets {
		targets[i] = fmt.Sprintf("/many/%d?t=TOKEN", i)
	}
	return targets
}

// Baton is the system itself, from its real binary, with functions deployed
// through its API. workers 0 is its default.
func Baton(name, binary string, workers int, deploy func(ctx context.Context, d Deployer) error) Peer {
	return Peer{
		Name: name, Alive: "/readyz",
		Commands: func(ctx context.Context, dir, addr string) ([]*exec.Cmd, error) {
			data := filepath.Join(dir, "data")
			if output, err := exec.CommandContext(ctx, binary, "init", "--data", data, "--demo=false").CombinedOutput(); err != nil {
				return nil, fmt.Errorf("baton init: %w\n%s", err, output)
			}
			args := []string{"serve", "--listen", addr, "--data", data}
			if workers > 0 {
				args = append(args, "--workers", strconv.Itoa(workers))
			}
			return []*exec.Cmd{exec.Command(binary, args...)}, nil
		},
		Ready: func(ctx context.Context, dir, addr string) error {
			d, err := deployerOf(dir, addr)
			if err != nil {
				return err
			}
			return deploy(ctx, d)
		},
	}
}

// deployerOf uploads to the server whose folder is dir.
func deployerOf(dir, addr string) (Deployer, error) {
	data := filepath.Join(dir, "data")
	secret, err := os.ReadFile(filepath.Join(data, "admin.token"))
	return Deployer{addr: addr, token: strings.TrimSpace(string(secret)), data: data}, err
}

// All deploys every function whose toolchain is there, and says on log what is
// left out.
func All(log io.Writer) func(context.Context, Deployer) error {
	return func(ctx context.Context, d Deployer) error {
		for _, f := range functions {
			if _, err := d.deploy(ctx, f); err != nil {
				fmt.Fprintf(log, "left out: %s: %v\n", f.name, err)
			}
		}
		return nil
	}
}

// Hello deploys the C function alone.
func Hello(ctx context.Context, d Deployer) error {
	_, err := d.deploy(ctx, functions[0])
	return err
}

// Many deploys n different modules of one C program: copies of its module with
// another mark in their data.
func Many(n int) func(context.Context, Deployer) error {
	return func(ctx context.Context, d Deployer) error {
		first, err := d.deploy(ctx, function{name: "many-source", runtime: "c", target: "wasm", path: "/many/source", source: "many.c"})
		if err != nil {
			return err
		}
		module, err := os.ReadFile(filepath.Join(d.data, "functions", first.ID, strconv.Itoa(first.Version), "module.wasm"))
		if err != nil {
			return err
		}
		const mark = "mark 000000"
		if bytes.Count(module, []byte(mark)) != 1 {
			return fmt.Errorf("the module of many.c has its mark %d times, want once", bytes.Count(module, []byte(mark)))
		}
		for i := range n {
			copied := bytes.Replace(module, []byte(mark), fmt.Appendf(nil, "mark %06d", i), 1)
			f := function{name: fmt.Sprintf("many-%d", i), runtime: "wasm", path: fmt.Sprintf("/many/%d", i), source: "many.wasm", code: copied}
			if _, err := d.deploy(ctx, f); err != nil {
				return err
			}
		}
		return nil
	}
}

// Deployer uploads functions to a running baton.
type Deployer struct{ addr, token, data string }

// deployed is what an upload answers.
type deployed struct {
	ID      string `json:"id"`
	Version int    `json:"version"`
	URI     string `json:"uri"`
}

// deploy uploads one function and returns once it serves.
func (d Deployer) deploy(ctx context.Context, f function) (done deployed, err error) {
	ctx, cancel := context.WithTimeout(ctx, deployTimeout)
	defer cancel()
	code := f.code
	if code == nil {
		if code, err = sources.ReadFile(path.Join("functions", f.source)); err != nil {
			return done, err
		}
	}
	descriptor := map[string]string{"name": f.name, "runtime": f.runtime, "path": f.path}
	if f.target != "" {
		descriptor["target"] = f.target
	}
	text, err := json.Marshal(descriptor)
	if err != nil {
		return done, err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("code", path.Base(f.source))
	if err == nil {
		_, err = part.Write(code)
	}
	if err = errors.Join(err, form.WriteField("descriptor", string(text)), form.Close()); err != nil {
		return done, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.addr+"/upload", &body)
	if err != nil {
		return done, err
	}
	request.Header.Set("Content-Type", form.FormDataContentType())
	request.Header.Set("Authorization", "Bearer "+d.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return done, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return done, err
	}
	if response.StatusCode != http.StatusOK {
		return done, fmt.Errorf("deploy %s: %s %.500s", f.name, response.Status, answer)
	}
	if err := json.Unmarshal(answer, &done); err != nil || done.ID == "" {
		return done, fmt.Errorf("deploy %s: answer %.200q: %w", f.name, answer, errors.Join(err, errors.New("want an id")))
	}
	return done, nil
}
