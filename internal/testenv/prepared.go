package testenv

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// prepared is one cache of native code for all servers of a test process: to
// compile the same module for each would take most of the tests' time. What a
// server finds in its own cache is what `baton prepare` has put there.
var prepared struct {
	mu      sync.Mutex
	modules map[string]error
}

// Prepare puts the native code of a module into the cache of a data directory,
// as the gateway would do before it publishes a row with that module.
func Prepare(t testing.TB, data, module string) {
	t.Helper()
	if err := prepare(Binary(t), data, module); err != nil {
		t.Fatal(err)
	}
}

func prepare(binary, data, module string) error {
	prepared.mu.Lock()
	defer prepared.mu.Unlock()
	cache := filepath.Join(filepath.Dir(binary), "cache")
	content, err := os.ReadFile(module)
	if err != nil {
		return err
	}
	if prepared.modules == nil {
		prepared.modules = map[string]error{}
	}
	key := string(content)
	if _, done := prepared.modules[key]; !done {
		var err error
		if output, e := exec.Command(binary, "prepare", "--cache", cache, module).CombinedOutput(); e != nil {
			err = fmt.Errorf("baton prepare: %w\n%s", e, output)
		}
		prepared.modules[key] = err
	}
	if err := prepared.modules[key]; err != nil {
		return err
	}
	return copyFiles(filepath.Join(data, "cache"), cache)
}

// copyFiles copies the regular files below from to the same places below to,
// unless they are there.
func copyFiles(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if _, err := os.Stat(target); err == nil || !d.Type().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600)
	})
}

// prepareAll prepares every artifact of a data directory that was just made.
func prepareAll(binary, data string) error {
	modules, err := filepath.Glob(filepath.Join(data, "functions", "*", "*", "module.wasm"))
	if err != nil {
		return err
	}
	for _, module := range modules {
		if err := prepare(binary, data, module); err != nil {
			return err
		}
	}
	return nil
}
