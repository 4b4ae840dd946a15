package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// newData is a data directory as `baton init` leaves it, as far as possession
// of it goes.
func newData(t *testing.T) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, tokenName), []byte(strings.Repeat("t", 64)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

func TestDataDirIsHeldOnce(t *testing.T) {
	t.Parallel()
	data := newData(t)
	d, err := openDataDir(data)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openDataDir(data)
	var held *HeldError
	if !errors.As(err, &held) {
		t.Fatalf("the second one got %v, want a *HeldError", err)
	}
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	if held.By != self {
		t.Errorf("held by %+v, want %+v", held.By, self)
	}
	for _, want := range []string{data, fmt.Sprintf("process %d", os.Getpid()), "started "} {
		if !strings.Contains(held.Error(), want) {
			t.Errorf("%q does not say %q", held.Error(), want)
		}
	}
	if o, err := ReadOwner(data); err != nil || o != self || !o.Alive() {
		t.Errorf("the pid file says %+v, %v", o, err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadOwner(data); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end the pid file says %v", err)
	}
	d, err = openDataDir(data)
	if err != nil {
		t.Fatalf("after the first has closed: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
}

// What a server had just forked when it was killed has its descriptors until it
// executes its program: the lock is waited for. It is not when its holder lives.
func TestDataDirOfADeadProcessWithAChild(t *testing.T) {
	t.Parallel()
	data := newData(t)
	dead := exec.Command("true")
	if err := dead.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := startOf(dead.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	owner := Owner{dead.Process.Pid, start}
	testenv.Until(t, "a process that is not reaped does not count", func() bool { return !owner.Alive() })
	lock, err := os.OpenFile(filepath.Join(data, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := lock.Write(owner.line()); err != nil {
		t.Fatal(err)
	}
	if err := flock(lock); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = unlock(lock) })
	d, err := openDataDir(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	if err := dead.Wait(); err != nil {
		t.Error(err)
	}
}

// A process that dies gives the lock up, whatever it leaves lying about.
func TestDataDirOfADeadProcess(t *testing.T) {
	t.Parallel()
	data := newData(t)
	c := exec.Command("/proc/self/exe", fakeHolderName, data)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	var held *HeldError
	if _, err := openDataDir(data); !errors.As(err, &held) || held.By.PID != c.Process.Pid {
		t.Errorf("got %v, want that process %d holds it", err, c.Process.Pid)
	}
	stale := filepath.Join(data, runName, adminName)
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	_ = in.Close()
	if o, err := ReadOwner(data); err != nil || o.Alive() {
		t.Errorf("the pid file says %+v, %v, alive: %v", o, err, o.Alive())
	}
	d, err := openDataDir(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stale socket is there still: %v", err)
	}
	if info, err := os.Stat(d.run()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the run directory: %v, %v", info, err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// fakeHolder holds a data directory until its standard input ends.
func fakeHolder(data string) {
	d, err := openDataDir(data)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("held")
	_, _ = os.Stdin.Read(make([]byte, 1))
	goruntime.KeepAlive(d)
	os.Exit(0)
}

const fakeHolderName = "fake-holder"

func TestDataDirMustBePrivate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(data string) error
		want  string
	}{
		"no directory":            {os.RemoveAll, "baton init"},
		"others may read it":      {func(d string) error { return os.Chmod(d, 0o750) }, "chmod 700"},
		"others may read the key": {func(d string) error { return os.Chmod(filepath.Join(d, tokenName), 0o604) }, "chmod 600"},
		"it is a file": {func(d string) error {
			if err := os.RemoveAll(d); err != nil {
				return err
			}
			return os.WriteFile(d, nil, 0o600)
		}, "want a directory"},
		"the lock is a link": {func(d string) error { return os.Symlink("/etc/passwd", filepath.Join(d, lockName)) }, "too many levels"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := newData(t)
			if err := c.spoil(data); err != nil {
				t.Fatal(err)
			}
			d, err := openDataDir(data)
			if err == nil {
				_ = d.close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
		})
	}
}

func TestDataDirMayBeALink(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(newData(t), link); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

func TestRunThatIsALinkIsReplacedAndNotFollowed(t *testing.T) {
	t.Parallel()
	data, elsewhere := newData(t), t.TempDir()
	precious := filepath.Join(elsewhere, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(data, runName)); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what the link led to was removed: %v", err)
	}
}

func TestParseStart(t *testing.T) {
	t.Parallel()
	const rest = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for name, c := range map[string]struct {
		line string
		want uint64
		ok   bool
	}{
		"plain":                  {"7 (baton)" + rest, 4242, true},
		"blanks and parentheses": {"7 (a) b (c) 9 )" + rest, 4242, true},
		"cut short":              {"7 (baton) S 1 2 3", 0, false},
		"no name":                {"7 baton", 0, false},
		"no number":              {"7 (b)" + strings.Replace(rest, "4242", "x", 1), 0, false},
		"empty":                  {"", 0, false},
	} {
		if got, ok := parseStart([]byte(c.line)); got != c.want || ok != c.ok {
			t.Errorf("%s: %d, %v; want %d, %v", name, got, ok, c.want, c.ok)
		}
	}
}

func TestParseOwner(t *testing.T) {
	t.Parallel()
	want := Owner{PID: 12, Start: 345}
	if got, err := parseOwner(want.line()); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"", "12", "12 345 6", "-1 2", "0 2", "x 2", "12 x", "99999999999 1", "12 -1"} {
		if got, err := parseOwner([]byte(text)); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add([]byte("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseStart(b)
		if o, err := parseOwner(b); err == nil {
			if again, err := parseOwner(o.line()); err != nil || again != o {
				t.Errorf("%+v is written and read as %+v, %v", o, again, err)
			}
		}
	})
}

func TestHoldDataDir(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(data); err == nil {
		t.Error("a directory that others can read is held")
	}
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	release, err := Hold(data)
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, err := openDataDir(data); !errors.As(err, &held) || held.By.PID != os.Getpid() {
		t.Errorf("a server on what is held: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(data); !errors.As(err, &held) {
		t.Errorf("hold what is served: %v", err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	if _, err := Hold(filepath.Join(data, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("hold what is not there: %v", err)
	}
}
