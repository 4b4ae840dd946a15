package gateway

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/sandbox"
)

// scripted is a preparer whose command is a shell script. $1 is --cache, $2 the
// cache and $3 the module.
func scripted(t *testing.T, script string, timeout time.Duration) (*childPreparer, Artifact) {
	t.Helper()
	dir := t.TempDir()
	module := filepath.Join(dir, "m.wasm")
	if err := os.WriteFile(module, []byte("module"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &childPreparer{argv: []string{"/bin/sh", "-c", script, "prepare"}, cache: filepath.Join(dir, "cache"), timeout: timeout}
	return p, Artifact{Runtime: "wasm", Path: module}
}

func TestPrepareInAChild(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script    string
		want      string // in the error; empty: none
		temporary bool
	}{
		"prepared":                           {`[ "$1" = --cache ] && [ -d "${2%/*}" ] && [ -f "$3" ]`, "", false},
		"the module is refused":              {`echo "bad magic" >&2; exit 3`, "bad magic", false},
		"the machine has trouble":            {`echo "disk full" >&2; exit 1`, "disk full", true},
		"killed":                             {`kill -9 $$`, "killed", true},
		"not ours is not in the environment": {`[ -z "$HOME$GOPATH$GOCACHE" ] || exit 3`, "", false},
		"chatty":                             {`i=0; while [ $i -lt 2000 ]; do echo 0123456789 >&2; i=$((i+1)); done; echo end >&2; exit 3`, "end", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, a := scripted(t, c.script, time.Minute)
			err := p.Prepare(t.Context(), a)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrTemporary) != c.temporary {
				t.Fatalf("got %v, temporary: %v; want %q, %v", err, errors.Is(err, ErrTemporary), c.want, c.temporary)
			}
			if len(err.Error()) > prepareOutputMax+1000 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
		})
	}
}

// A module that had the compiler do what it wants would get nowhere: the child
// reads the module, writes the cache, and that is all.
func TestPrepareIsConfined(t *testing.T) {
	t.Parallel()
	active := func(name string) bool {
		return slices.ContainsFunc(sandbox.Layers(nil), func(l sandbox.Layer) bool { return l.Name == name && l.Active })
	}
	testenv.NeedFeature(t, "Landlock and seccomp", active(sandbox.LayerLandlock) && active(sandbox.LayerSeccomp), nil)
	for name, c := range map[string]struct{ script, want string }{
		"it reads the module, writes the cache": {`read -r line <"$3"; [ "$line" = module ] && echo code >"$2/made"`, ""},
		"it reads no neighbour":                 {`read -r line <"${3%/*}/token" && exit 0; exit 3`, "denied"},
		"it changes no module":                  {`echo x >"$3" && exit 0; exit 3`, "denied"},
		"it writes no neighbour":                {`echo x >"${3%/*}/made" && exit 0; exit 3`, "denied"},
		"it starts nothing":                     {`(exit 0) && exit 0; exit 3`, "fork"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, a := scripted(t, c.script, testenv.Patience())
			p.step = []string{"/proc/self/exe", "sandbox"}
			if err := os.WriteFile(a.Path, []byte("module\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(a.Path), "token"), []byte("secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := p.Prepare(t.Context(), a)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if text, e := os.ReadFile(a.Path); e != nil || string(text) != "module\n" {
				t.Errorf("the module is %q, %v", text, e)
			}
		})
	}
}

// The module's own fault: it is not tried again.
func TestPrepareTakesTooLong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	p, a := scripted(t, "sleep 100 & echo $! > "+file+"; wait", 300*time.Millisecond)
	err := p.Prepare(t.Context(), a)
	if err == nil || errors.Is(err, ErrTemporary) || !strings.Contains(err.Error(), "within") {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Skip("the script had no time to say what it started")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "what it started is gone too", func() bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

func TestPrepareIsCancelled(t *testing.T) {
	t.Parallel()
	p, a := scripted(t, "sleep 100", time.Minute)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Prepare(ctx, a); err == nil {
		t.Error("it was prepared")
	}
}

func TestPrepareRefusesOtherRuntimes(t *testing.T) {
	t.Parallel()
	p, a := scripted(t, "exit 0", time.Minute)
	a.Runtime = "cobol"
	if err := p.Prepare(t.Context(), a); err == nil || errors.Is(err, ErrTemporary) || !strings.Contains(err.Error(), "cobol") {
		t.Errorf("got %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var out tail
	for i := range 3 * prepareOutputMax {
		if n, err := out.Write([]byte{byte('a' + i%26)}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	big := strings.Repeat("z", 2*prepareOutputMax) + "end"
	if n, err := out.Write([]byte(big)); n != len(big) || err != nil {
		t.Fatal(n, err)
	}
	if len(out.String()) != prepareOutputMax || !strings.HasSuffix(out.String(), "zend") {
		t.Errorf("kept %d bytes", len(out.String()))
	}
}
