package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"baton/internal/testenv"
	"baton/sandbox"
)

// TestMain is the step as well: the test's own binary stands in for baton.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sandbox" {
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	os.Exit(testenv.Main(m))
}

func step(t testing.TB) []string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{name, "sandbox"}
}

// run runs a program under s and returns what it has written and how it ended.
func run(t testing.TB, s sandbox.Spec, files ...*os.File) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience())
	defer cancel()
	c, err := sandbox.Command(ctx, step(t), s, files...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	starter := sandbox.NewStarter()
	defer starter.Close()
	if err := starter.Start(c); err != nil {
		t.Fatal(err)
	}
	err = c.Wait()
	return out.String(), err
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestSpecIsWhatTheProgramGets(t *testing.T) {
	t.Parallel()
	out, err := run(t, sandbox.Spec{Argv: shell("echo $0 $1 $FOO; pwd; ulimit -n"), Env: []string{"FOO=bar"}, Dir: t.TempDir(), OpenFiles: 17})
	if err != nil || !strings.HasPrefix(out, "/bin/sh bar\n") || !strings.HasSuffix(out, "\n17\n") {
		t.Errorf("got %q, %v", out, err)
	}
}

// both runs a test with all layers that this machine gives, and without a root
// directory and a user of its own: as where baton does not run as root.
func both(t *testing.T, f func(t *testing.T, without []string)) {
	t.Helper()
	t.Run("all layers", func(t *testing.T) { t.Parallel(); f(t, nil) })
	if os.Geteuid() == 0 {
		t.Run("no root of its own", func(t *testing.T) { t.Parallel(); f(t, []string{sandbox.LayerRoot}) })
	}
}

func TestInIsSharedWithUs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, without []string) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "below"), 0o700); err != nil {
			t.Fatal(err)
		}
		s := sandbox.Spec{Argv: shell("pwd; echo made >../made; echo written >there"), In: filepath.Join(dir, "below"), Write: []string{dir}, Without: without}
		if err := os.WriteFile(filepath.Join(dir, "below", "there"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Give(dir); err != nil {
			t.Fatal(err)
		}
		out, err := run(t, s)
		if err != nil || out != s.In+"\n" {
			t.Errorf("got %q, %v", out, err)
		}
		for name, want := range map[string]string{"made": "made\n", "below/there": "written\n"} {
			if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
				t.Errorf("%s: %q, %v", name, text, err)
			}
		}
	})
}

func TestGiveFollowsNoLinks(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := (&sandbox.Spec{}).Give(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(other); err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Getuid() {
		t.Errorf("what a link leads to was given away: %v, %v", info, err)
	}
}

// A data directory may lie where programs do.
func TestHiddenIsNotInSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hidden := filepath.Join(dir, "srv", "data")
	for _, name := range []string{"srv/data/admin.token", "srv/other", "bin/tool"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"srv/link", "bin/link"} {
		if err := os.Symlink("/etc", filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	got := sandbox.Beside(dir, hidden)
	if want := []string{filepath.Join(dir, "bin"), filepath.Join(dir, "srv", "other")}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	if got := sandbox.Beside(hidden, dir); len(got) > 0 {
		t.Errorf("what is hidden with all around it is still shown: %v", got)
	}
	if got := sandbox.Beside("/usr", dir); !slices.Equal(got, []string{"/usr"}) {
		t.Errorf("what has nothing to do with it is gone: %v", got)
	}
}

func active(name string) bool {
	return slices.ContainsFunc(sandbox.Layers(nil), func(l sandbox.Layer) bool { return l.Name == name && l.Active })
}

func TestHiddenCannotBeRead(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, without []string) {
		testenv.NeedFeature(t, "Landlock, or a root directory of its own", active(sandbox.LayerLandlock) || without == nil && active(sandbox.LayerRoot), nil)
		list := shell("ls /usr/share; ls -d /usr/bin")
		out, err := run(t, sandbox.Spec{Argv: list, Processes: 1, Without: without})
		if err != nil || strings.Count(out, "\n") < 2 {
			t.Errorf("shown, it is not there: %q, %v", out, err)
		}
		out, err = run(t, sandbox.Spec{Argv: list, Processes: 1, Hide: []string{"/usr/share"}, Without: without})
		if err != nil || strings.Count(out, "\n") != 2 || !strings.HasSuffix(out, "\n/usr/bin\n") {
			t.Errorf("hidden, it is there: %q, %v", out, err)
		}
	})
}

// Landlock says nothing of links: what they lead to stays out of reach.
func TestLinksAreAllOfProc(t *testing.T) {
	t.Parallel()
	testenv.NeedFeature(t, "Landlock", active(sandbox.LayerLandlock), nil)
	both(t, func(t *testing.T, without []string) {
		out, err := run(t, sandbox.Spec{
			Argv:      shell("readlink /proc/self/exe; cat /proc/self/environ /proc/1/environ /proc/meminfo /proc/version; ls /proc/1/root; echo x >/proc/self/comm; ls /proc"),
			Processes: 1, Links: true, Without: without,
		})
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err == nil || lines[0] != "/usr/bin/readlink" || len(lines) != 8 {
			t.Fatalf("got %q, %v", out, err)
		}
		for _, line := range lines[1:] {
			if !strings.HasSuffix(line, "Permission denied") && !strings.HasSuffix(line, "Read-only file system") {
				t.Errorf("not refused: %s", line)
			}
		}
	})
}

func TestLayersLeftOut(t *testing.T) {
	t.Parallel()
	for _, name := range []string{sandbox.LayerRlimits, sandbox.LayerSeccomp, sandbox.LayerLandlock, sandbox.LayerUID, sandbox.LayerRoot} {
		if err := sandbox.CheckLayers([]string{name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, l := range sandbox.Layers([]string{name}) {
			if l.Name == name && (l.Active || l.Detail != "left out") {
				t.Errorf("%+v", l)
			}
		}
	}
	for _, name := range []string{"", sandbox.LayerPrivs, sandbox.LayerPIDs, "all"} {
		if err := sandbox.CheckLayers([]string{name}); err == nil {
			t.Errorf("%q can be left out", name)
		}
	}
	if sandbox.KeepsOffSockets([]string{sandbox.LayerSeccomp, sandbox.LayerRoot}) {
		t.Error("with neither seccomp nor a root directory of its own a child is kept off sockets")
	}
}

// A child that may start processes, and whose user has others, is bounded all the same.
func TestProcessesAreBounded(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, without []string) {
		out, err := run(t, sandbox.Spec{Argv: shell("ulimit -p"), Processes: 1, Without: without})
		if err != nil || strings.TrimSpace(out) == "unlimited" {
			t.Errorf("%q, %v", out, err)
		}
	})
}
