package wasm

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"baton/runtime"
)

// Many routes may lead to one module: loaded all at once, they have one instance
// and are the reason for one reading of the module.
func TestRoutesToOneModuleShareWhatIsLoaded(t *testing.T) {
	t.Parallel()
	e := executor(t)
	f := &runtime.Function{Name: "hello", Module: buildGo(t, "gowrap/testdata/hello", true)}
	p := load(t, e, f).(*loaded).pool // the first instance is not there for the others' sake
	p.remove(func(*instance) bool { return true })
	var together sync.WaitGroup
	for range 64 {
		together.Go(func() {
			l, err := e.Load(t.Context(), f)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = l.Close() })
		})
	}
	together.Wait()
	p.mu.Lock()
	count := p.count
	p.mu.Unlock()
	if count != 1 {
		t.Errorf("%d instances, want 1", count)
	}
	if n := len(e.names.known); n != 1 {
		t.Errorf("the module was read %d times, want once", n)
	}
}

// An artifact has its name as long as it is the same file, and another one when
// what lies there is another file or was written anew.
func TestNamesFollowTheFile(t *testing.T) {
	t.Parallel()
	var n names
	dir := t.TempDir()
	path, link := filepath.Join(dir, "a.wasm"), filepath.Join(dir, "b.wasm")
	is := func(path, content string) {
		t.Helper()
		if name, err := n.of(path); err != nil || name != hash([]byte(content)) {
			t.Errorf("%s: %s, %v; want the name of %q", filepath.Base(path), name, err, content)
		}
	}
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.of(path); err == nil {
		t.Error("a file that is not there has a name")
	}
	write("one")
	is(path, "one")
	is(path, "one")
	if len(n.known) != 1 {
		t.Errorf("%d files are known, want 1", len(n.known))
	}
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	write("three")
	is(path, "three")
	is(link, "three")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write("two")
	is(path, "two")
	is(link, "three")
}

// What is larger than a module may be has no name, and is not read to its end.
func TestNameOfWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "large.wasm")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, moduleBytesMax+1); err != nil {
		t.Fatal(err)
	}
	var n names
	if name, err := n.of(path); err == nil {
		t.Errorf("name %s", name)
	}
	if len(n.known) != 0 {
		t.Error("the failure is remembered")
	}
}
