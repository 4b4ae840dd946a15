package python

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// stand writes a script that stands in for python3, and returns its directory.
func stand(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	// A shell writes it: a descriptor of ours that another test's child has for a moment would keep it from being executed.
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, []byte("#!/bin/sh\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "bin", "python3")
	if err := os.Symlink(source, name); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(source, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "bin")
}

func TestFind(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	system, err := find(t.Context(), filepath.SplitList(os.Getenv("PATH")))
	if err != nil {
		t.Fatal(err)
	}
	wrapper := stand(t, `exec "`+system.Path+`" "$@"`+"\n")
	old := stand(t, "echo 3.8.18; echo /usr/bin/python3.8; echo /usr\n")
	broken := stand(t, "exit 7\n")
	mute := stand(t, "echo hello\n")
	empty := t.TempDir()
	t.Run("a script that starts another one is not it", func(t *testing.T) {
		t.Parallel()
		got, err := find(t.Context(), []string{empty, "relative", wrapper})
		if err != nil || got.Path != system.Path || got.Version != system.Version {
			t.Errorf("%+v, %v; want %s", got, err, system.Path)
		}
	})
	t.Run("one that is too old, or broken, is passed over", func(t *testing.T) {
		t.Parallel()
		got, err := find(t.Context(), []string{old, broken, mute, wrapper})
		if err != nil || got.Path != system.Path {
			t.Errorf("%+v, %v; want %s", got, err, system.Path)
		}
	})
	t.Run("without any, the error says what to install and what was there", func(t *testing.T) {
		t.Parallel()
		_, err := find(t.Context(), []string{old, broken, empty})
		if err == nil {
			t.Fatal("found")
		}
		for _, part := range []string{"apt install python3", old, "it is Python 3.8.18, want 3.9 or later", broken, "exit status 7"} {
			if !strings.Contains(fmt.Sprint(err), part) {
				t.Errorf("no %q in: %v", part, err)
			}
		}
	})
	t.Run("a question that is not answered has an end", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := find(ctx, []string{wrapper}); err == nil {
			t.Errorf("%+v", got)
		}
	})
}

// TestHome: what is granted for an interpreter is never where somebody lives.
func TestHome(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{"/root": true, "/home/" + "a": true, "/home/" + "a/venv": false, "/usr": false, "/root/.pyenv/versions/3.11": false} {
		if isHome(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}

func TestFunctionOf(t *testing.T) {
	t.Parallel()
	for handler, want := range map[string]string{
		"": "", "m.py": "", "a/m.py": "", "f": "?f", "a/m": "?m", "m.f": "f", "m:f": "f", "a/m.py:f": "f", "a.m.f": "f", "a/m.f": "f",
	} {
		if got := functionOf(handler); got != want {
			t.Errorf("handler %q is %q, want %q", handler, got, want)
		}
	}
}
