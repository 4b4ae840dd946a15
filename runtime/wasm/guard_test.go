package wasm

import (
	"bytes"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"strings"
	"testing"

	"baton/internal/sys"
	"baton/runtime"
)

// idleMemory is the memory of the instance that serves l's next invocation, nil without one.
func idleMemory(l runtime.Loaded) *memory {
	p := l.(*loaded).pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		return p.idle[n-1].memory
	}
	return nil
}

// calm calls l with the same body until the pages it does not write are guarded.
func calm(t *testing.T, l runtime.Loaded, body string) {
	t.Helper()
	for range 4 * calmFirst {
		if _, res := call(l, body); res.Reason != runtime.OK {
			t.Fatalf("%+v", res)
		}
		m := idleMemory(l)
		if m != nil && m.guarded() {
			return
		}
		if m != nil && m.unguardable {
			break
		}
	}
	if goruntime.GOARCH != "amd64" {
		t.Skip("no guards on this processor")
	}
	m := idleMemory(l)
	t.Fatalf("not guarded: %d ranges of %d bytes, calm %d of %d", len(m.dirty), m.bytes, m.calm, m.patience)
}

// A page that is written when nobody expects it any more is put back as all others are, whoever
// writes it: the function, our host functions, or the kernel for them.
func TestGuardedMemoryIsPutBack(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"w", "r", "b"} {
		l := load(t, executor(t), &runtime.Function{Name: "elsewhere", Module: buildC(t, "elsewhere")})
		calm(t, l, "")
		in := idleMemory(l)
		for i := range 3 {
			inv := &runtime.Invocation{Body: []byte(what)}
			rest := strings.Repeat("the rest", 8)
			if what == "b" {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				if _, err := w.WriteString(rest); err != nil {
					t.Fatal(err)
				}
				_ = w.Close()
				inv.More = r // read(2) writes straight into the memory
			}
			var out bytes.Buffer
			inv.Stdout = &out
			res := l.Invoke(inv)
			text, isZero := strings.CutPrefix(out.String(), "0 ")
			if res.Reason != runtime.OK || !isZero || len(text) != 64 ||
				what == "w" && text != strings.Repeat("w", 64) || what == "b" && text != rest || what == "r" && text == strings.Repeat("\x00", 64) {
				t.Errorf("%s: %+v %q", what, res, out.String())
			}
			if idleMemory(l) != in {
				t.Errorf("%s: the instance was not kept", what)
			}
			if i == 0 && in.guarded() {
				t.Errorf("%s: the guard holds", what)
			}
		}
	}
}

// The secrets of TestNextInvocationSeesNoSecret, planted when the guard holds.
func TestNextInvocationSeesNoSecretBehindTheGuard(t *testing.T) {
	t.Parallel()
	for name, module := range map[string]string{"C": buildC(t, "hoard"), "Go by baton": buildGo(t, "testdata/gohoard", true)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, end := range []string{"return", "exit"} {
				l := load(t, executor(t), &runtime.Function{Name: "hoard", Module: module, MemoryMB: 16})
				calm(t, l, "scan")
				if out, _ := call(l, end); !strings.HasPrefix(out, "planted") {
					t.Errorf("%s: %q", end, out)
				}
				if out, res := call(l, "scan"); res.Reason != runtime.OK || !strings.HasPrefix(out, "clean") {
					t.Errorf("after %s: %+v %q", end, res, out)
				}
			}
		})
	}
}

// Memory whose files are read by the kernel is never guarded: the read would fail.
func TestMemoryWithFilesIsNotGuarded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := load(t, executor(t), &runtime.Function{Name: "files", Module: buildC(t, "hello"), Files: dir})
	for range 2 * calmFirst {
		if _, res := call(l, ""); res.Reason != runtime.OK {
			t.Fatalf("%+v", res)
		}
	}
	if m := idleMemory(l); m == nil || m.guarded() {
		t.Errorf("guarded: %+v", m)
	}
}

func openPagemap(t *testing.T) *sys.Pagemap {
	t.Helper()
	pagemap, err := sys.OpenPagemap()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pagemap.Close)
	return pagemap
}

// Whatever is written, now and then where nothing was written for long, memory is the image
// after each restore.
func TestRestoreIsExact(t *testing.T) {
	t.Parallel()
	pagemap := openPagemap(t)
	random := rand.New(rand.NewPCG(5, 6))
	held, broken := 0, 0
	for range 20 {
		pages := 16 * (1 + random.IntN(3))
		m, err := newMemory(8*pages*sys.PageSize, pagemap)
		if err != nil {
			t.Fatal(err)
		}
		m.patience = 1
		m.Reallocate(uint64(pages * sys.PageSize))
		for page := range pages {
			if random.IntN(2) == 0 {
				m.region[page*sys.PageSize+random.IntN(sys.PageSize)] = byte(1 + random.IntN(255))
			}
		}
		want := bytes.Clone(m.region[:m.length])
		im, err := m.snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.adopt(im); err != nil {
			t.Fatal(err)
		}
		usual := []int{random.IntN(pages), random.IntN(pages)}
		for range 200 {
			m.begin(sys.Faults())
			was := m.guarded()
			for _, page := range usual {
				m.region[page*sys.PageSize+random.IntN(sys.PageSize)]++
			}
			if random.IntN(8) == 0 {
				m.region[random.IntN(len(want))]++
			}
			if random.IntN(32) == 0 { // it grows, and writes there
				m.Reallocate(uint64(2 * pages * sys.PageSize))
				m.region[pages*sys.PageSize+random.IntN(pages*sys.PageSize)]++
			}
			if m.guarded() {
				held++
			} else if was {
				broken++
			}
			if err := m.restore(sys.Faults()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.region[:len(want)], want) || len(bytes.Trim(m.region[len(want):2*len(want)], "\x00")) > 0 {
				t.Fatal("memory is not as it was")
			}
			if random.IntN(64) == 0 { // as an instance that is made anew
				m.patience = 1
			}
		}
		m.Free()
		im.close()
	}
	if goruntime.GOARCH == "amd64" && (held < 100 || broken < 20) {
		t.Errorf("guards held %d times and were broken %d times", held, broken)
	}
}

// Of a memory that is known to have much to put back, nobody looks through the page table before the answer.
func TestHeavyMemoryIsNotLookedThroughBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	pagemap := openPagemap(t)
	const size = populateMax // a mapping of a file: no huge pages
	m, err := newMemory(size, pagemap)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	im, err := newImage(make([]byte, size), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer im.close()
	if err := m.adopt(im); err != nil {
		t.Fatal(err)
	}
	const first, second = heavyMin + 5*sys.PageSize, 2 * heavyMin
	write := func(n int) uint64 {
		for at := 0; at < n; at += sys.PageSize {
			m.region[at] = 1
		}
		return sys.Faults()
	}
	faults := write(first)
	if !m.heavy(faults) || m.bytes != first {
		t.Errorf("%d bytes were written, %d are dirty", first, m.bytes)
	}
	if err := m.restore(faults); err != nil {
		t.Fatal(err)
	}
	faults = write(second)
	if !m.heavy(faults) || m.bytes != first {
		t.Errorf("looked through: %d bytes are dirty", m.bytes)
	}
	if err := m.restore(faults); err != nil || m.bytes != second {
		t.Errorf("%d bytes are dirty, want %d; %v", m.bytes, second, err)
	}
	if !bytes.Equal(m.region[:size], make([]byte, size)) {
		t.Error("not put back")
	}
}
