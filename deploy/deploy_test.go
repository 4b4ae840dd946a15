package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"baton/deploy/build"
	"baton/internal/testenv"
	"baton/route"
	"baton/route/sqlite"
)

func TestMain(m *testing.M) {
	if os.Getenv(childData) != "" {
		os.Exit(child())
	}
	os.Exit(testenv.Main(m))
}

// world is a process that serves rows, made of nothing.
type world struct {
	db *sqlite.DB

	mu       sync.Mutex
	served   map[string]string // what a table would have
	prepared []string          // modules
	refuse   error             // what Prepare answers
	notServe error             // what Published answers, once
}

func (w *world) Prepare(_ context.Context, d *route.Descriptor) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prepared = append(w.prepared, d.Module)
	return func() {}, w.refuse
}

func (w *world) Check(changes []sqlite.KVChange) error {
	for _, c := range changes {
		if _, err := route.ParseRow(c.Key, c.Value); !c.Deleted && err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Published(ctx context.Context, _ int64, keys []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.notServe; err != nil {
		w.notServe = nil
		return err
	}
	for _, key := range keys {
		value, found, err := w.db.Get(ctx, key)
		if err != nil {
			return err
		}
		if delete(w.served, key); found {
			w.served[key] = value
		}
	}
	return nil
}

// builder copies what it is given, and fails where the code says so.
type builder struct {
	mu     sync.Mutex
	builds int
	wait   chan struct{} // a build of "wait" goes on when it is closed
	began  chan struct{} // has one when a build of "wait" has begun
}

func (b *builder) Build(ctx context.Context, r build.Request) (build.Result, error) {
	b.mu.Lock()
	b.builds++
	b.mu.Unlock()
	code, err := os.ReadFile(filepath.Join(r.Source, "module.wasm"))
	if err != nil {
		return build.Result{}, &build.Error{Reason: build.BadSource, Detail: "no module"}
	}
	fmt.Fprintf(r.Log, "compiling\n")
	switch {
	case bytes.Contains(code, []byte("broken")):
		fmt.Fprintf(r.Log, "line 1: wrong\n")
		return build.Result{}, &build.Error{Reason: build.CompileFailed, Detail: "compiling\nline 1: wrong\n"}
	case bytes.Contains(code, []byte("wait")):
		b.began <- struct{}{}
		select {
		case <-b.wait:
		case <-ctx.Done():
			return build.Result{}, ctx.Err()
		}
	}
	if err := os.Mkdir(filepath.Join(r.Out, "data"), 0o700); err != nil {
		return build.Result{}, err
	}
	if err := os.WriteFile(filepath.Join(r.Out, "data", "more"), bytes.Repeat(code, 3), 0o600); err != nil {
		return build.Result{}, err
	}
	return build.Result{Module: "module.wasm"}, os.WriteFile(filepath.Join(r.Out, "module.wasm"), code, 0o600)
}

func (b *builder) count() int { b.mu.Lock(); defer b.mu.Unlock(); return b.builds }

// desk is a Deployer and what is around it.
type desk struct {
	*Deployer
	t       *testing.T
	data    string
	db      *sqlite.DB
	world   *world
	builder *builder
}

func newDesk(t *testing.T, change func(*Options)) *desk {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if err := MakeTree(data); err != nil {
		t.Fatal(err)
	}
	return openDesk(t, data, change)
}

func openDesk(t *testing.T, data string, change func(*Options)) *desk {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(data, "faas_meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, data: data, db: db, world: &world{db: db, served: map[string]string{}},
		builder: &builder{wait: make(chan struct{}), began: make(chan struct{}, 64)}}
	o := Options{Data: data, DB: db, Host: d.world, Builder: d.builder}
	if change != nil {
		change(&o)
	}
	if d.Deployer, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.end)
	return d
}

// end closes the desk; again: nothing.
func (d *desk) end() {
	_ = d.Deployer.Close()
	_ = d.db.Close()
}

// request is a deploy of code; empty: of the descriptor alone.
func request(t *testing.T, descriptor, code string) Request {
	t.Helper()
	parsed, err := route.ParseDescriptor([]byte(descriptor))
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Descriptor: parsed}
	if code != "" {
		r.Source = &Source{Name: "module.wasm", Reader: strings.NewReader(wasmMagic + code)}
	}
	return r
}

func (d *desk) deploy(descriptor, code string) Result {
	d.t.Helper()
	result, err := d.Deploy(d.t.Context(), request(d.t, descriptor, code))
	if err != nil {
		d.t.Fatalf("deploy %s %q: %v", descriptor, code, err)
	}
	return result
}

// refused is the reason for which a deploy fails, of ours or of a build.
func (d *desk) refused(descriptor, code string) Reason {
	d.t.Helper()
	_, err := d.Deploy(d.t.Context(), request(d.t, descriptor, code))
	return reasonOf(err)
}

func reasonOf(err error) Reason {
	var ours *Error
	var built *build.Error
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &ours):
		return ours.Reason
	case errors.As(err, &built):
		return Reason(built.Reason)
	}
	return Reason(err.Error())
}

// serves is the code that the row with that key leads to; "" when there is none.
func (d *desk) serves(key string) string {
	d.t.Helper()
	d.world.mu.Lock()
	value, ok := d.world.served[key]
	d.world.mu.Unlock()
	if !ok {
		return ""
	}
	return codeOf(d.t, d.data, key, value)
}

func codeOf(t *testing.T, data, key, value string) string {
	t.Helper()
	parsed, err := route.ParseRow(key, value)
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join(data, parsed.Module))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(string(code), wasmMagic)
}

// left lists what lies in the folders of deploys, relative to the data directory.
func left(t *testing.T, data string) (all []string) {
	t.Helper()
	for _, dir := range []string{"functions", "tmp"} {
		err := filepath.WalkDir(filepath.Join(data, dir), func(p string, e fs.DirEntry, err error) error {
			if err == nil && strings.Count(strings.TrimPrefix(p, data), "/") > 1 && e.IsDir() {
				rel, _ := filepath.Rel(data, p)
				all = append(all, rel)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return all
}

const one = `{"name":"one","runtime":"wasm"}`

func TestDeploy(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	var states []string
	r := request(t, one, "first")
	r.State = func(s string) { states = append(states, s) }
	var log bytes.Buffer
	r.Log = &log
	result, err := d.Deploy(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if !validID(result.ID) || result.Version != 1 || result.Key != "ANY:/api/"+result.ID || result.Log != "compiling\n" || log.String() != "compiling\n" {
		t.Errorf("result %+v, log %q", result, log.String())
	}
	if want := []string{StatePreparing, StatePublishing}; !slices.Equal(states, want) {
		t.Errorf("states %q, want %q", states, want)
	}
	if d.serves(result.Key) != "first" {
		t.Errorf("serves %q", d.serves(result.Key))
	}
	folder := filepath.Join(d.data, "functions", result.ID, "1")
	for name, mode := range map[string]fs.FileMode{"": fs.ModeDir | 0o700, "module.wasm": 0o400, "data": fs.ModeDir | 0o700, "data/more": 0o400} {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%q: mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	if f, err := d.Get(t.Context(), "one"); err != nil || f.ID != result.ID || f.Version != 1 || f.Versions != 1 || f.Tag != result.Tag || string(f.Descriptor) != one {
		t.Errorf("get: %+v, %v", f, err)
	}
	if found := left(t, d.data); len(found) != 3 {
		t.Errorf("left: %q", found)
	}
}

func TestSameAgainIsTheSame(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	first := d.deploy(one, "first")
	again := d.deploy(`{"runtime":"wasm", "timeout":30, "name":"one"}`, "first") // the same, said otherwise
	if again.Version != 1 || !again.Unchanged || again.Tag != first.Tag || d.builder.count() != 1 {
		t.Errorf("again: %+v, %d builds", again, d.builder.count())
	}
	// Somebody has changed the row by hand: the same again is what it should be.
	if err := d.db.Put(t.Context(), first.Key, `{"name":"one","runtime":"wasm","module":"functions/`+first.ID+`/1/data/more"}`); err != nil {
		t.Fatal(err)
	}
	if again = d.deploy(one, "first"); again.Version != 1 || d.serves(first.Key) != "first" {
		t.Errorf("after a change by hand: %+v serves %q", again, d.serves(first.Key))
	}
	if err := d.db.Delete(t.Context(), first.Key); err != nil {
		t.Fatal(err)
	}
	if again = d.deploy(one, "first"); again.Version != 1 || d.serves(first.Key) != "first" {
		t.Errorf("after a delete by hand: %+v serves %q", again, d.serves(first.Key))
	}
}

func TestDescriptorAloneBuildsNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	if got := d.refused(one, ""); got != CodeMissing {
		t.Errorf("without code before: %s", got)
	}
	first := d.deploy(one, "first")
	second := d.deploy(`{"name":"one","runtime":"wasm","memory":64,"method":"POST","path":"/one"}`, "")
	if second.Version != 2 || !second.Cached || d.builder.count() != 1 || second.Key != "POST:/one" {
		t.Errorf("second: %+v, %d builds", second, d.builder.count())
	}
	if d.serves("POST:/one") != "first" || d.serves(first.Key) != "" {
		t.Error("the route has not moved")
	}
	a, err1 := os.Stat(filepath.Join(d.data, "functions", first.ID, "1", "data", "more"))
	b, err2 := os.Stat(filepath.Join(d.data, "functions", first.ID, "2", "data", "more"))
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		t.Errorf("the files are not the same: %v, %v", err1, err2)
	}
	if got := d.refused(`{"name":"one","runtime":"go"}`, ""); got != CodeNeeded {
		t.Errorf("another runtime: %s", got)
	}
	// The same code with another descriptor is not built either; other code is.
	if third := d.deploy(`{"name":"one","runtime":"wasm","memory":32}`, "first"); third.Version != 3 || d.builder.count() != 1 {
		t.Errorf("third: %+v, %d builds", third, d.builder.count())
	}
	if fourth := d.deploy(one, "second"); fourth.Version != 4 || d.builder.count() != 2 || d.serves(fourth.Key) != "second" {
		t.Errorf("fourth: %+v, %d builds", fourth, d.builder.count())
	}
	// Code of a version that is not the active one.
	if fifth := d.deploy(one, "first"); fifth.Version != 5 || d.builder.count() != 2 || d.serves(fifth.Key) != "first" {
		t.Errorf("fifth: %+v, %d builds", fifth, d.builder.count())
	}
}

func TestRollback(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	first := d.deploy(one, "first")
	back := func(version int) (Result, Reason) {
		r, err := d.Rollback(t.Context(), "one", version, Conditions{}, nil)
		return r, reasonOf(err)
	}
	if _, why := back(0); why != NoVersion {
		t.Errorf("before the first: %s", why)
	}
	d.deploy(`{"name":"one","runtime":"wasm","path":"/two"}`, "second")
	d.deploy(one, "third")
	for _, c := range []struct {
		to, version int
		key, code   string
	}{{0, 2, "ANY:/two", "second"}, {0, 1, first.Key, "first"}, {3, 3, first.Key, "third"}, {3, 3, first.Key, "third"}} {
		r, why := back(c.to)
		if why != "none" || r.Version != c.version || r.Key != c.key || d.serves(c.key) != c.code {
			t.Errorf("to %d: %+v, %s, serves %q", c.to, r, why, d.serves(c.key))
		}
		if len(d.world.served) != 1 {
			t.Errorf("to %d: rows %v", c.to, slices.Collect(maps.Keys(d.world.served)))
		}
	}
	if _, why := back(9); why != NoVersion {
		t.Errorf("to 9: %s", why)
	}
	if _, err := d.Rollback(t.Context(), "none", 0, Conditions{}, nil); reasonOf(err) != NotFound {
		t.Errorf("no such function: %v", err)
	}
	versions, err := d.Versions(t.Context(), "one")
	if err != nil || len(versions) != 3 || versions[0].Number != 3 || !versions[0].Active || versions[1].Active {
		t.Errorf("versions: %+v, %v", versions, err)
	}
	if d.builder.count() != 3 {
		t.Errorf("%d builds", d.builder.count())
	}
}

func TestOldVersionsGo(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(o *Options) { o.Keep, o.Linger = 3, time.Millisecond })
	const quick = `{"name":"one","runtime":"wasm","timeout":0.001}`
	var id string
	for n := range 6 {
		id = d.deploy(quick, fmt.Sprint("code", n)).ID
	}
	versions, err := d.Versions(t.Context(), "one")
	if err != nil || len(versions) != 3 || versions[2].Number != 4 {
		t.Fatalf("versions: %+v, %v", versions, err)
	}
	folder := filepath.Join(d.data, "functions", id)
	testenv.Until(t, "the files of dropped versions are gone", func() bool {
		entries, err := os.ReadDir(folder)
		return err == nil && len(entries) == 3
	})
	// The active one stays however old it is.
	if _, err := d.Rollback(t.Context(), "one", 4, Conditions{}, nil); err != nil {
		t.Fatal(err)
	}
	d.deploy(quick, "code7")
	if versions, err = d.Versions(t.Context(), "one"); err != nil || versions[2].Number != 4 {
		t.Errorf("after a rollback: %+v, %v", versions, err)
	}
	if err := d.Delete(t.Context(), "one", Conditions{}); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "the deleted function's files are gone", func() bool {
		_, err := os.Stat(folder)
		return errors.Is(err, fs.ErrNotExist)
	})
	if again := d.deploy(quick, "code7"); again.ID == id || again.Version != 1 {
		t.Errorf("deployed again: %+v", again)
	}
}

// What may still run on a version keeps its files.
func TestDroppedFilesLinger(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(o *Options) { o.Keep = 1 })
	first := d.deploy(one, "first")
	d.deploy(one, "second")
	d.deploy(one, "third")
	if err := d.sweep(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.data, "functions", first.ID, "1", "module.wasm")); err != nil {
		t.Errorf("a version that may run: %v", err)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	first := d.deploy(one, "first")
	for _, kv := range [][2]string{{"GET:/hand", `{"name":"hand","runtime":"wasm","module":"import/x.wasm"}`}, {"PUT:/hand", `{"name":"hand","runtime":"wasm","module":"import/x.wasm"}`}} {
		if err := d.db.Put(t.Context(), kv[0], kv[1]); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := d.Get(t.Context(), "hand"); err != nil || f.ID != "" || !slices.Equal(f.Keys, []string{"GET:/hand", "PUT:/hand"}) {
		t.Errorf("hand: %+v, %v", f, err)
	}
	for _, name := range []string{"one", "hand"} {
		if err := d.Delete(t.Context(), name, Conditions{}); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
		if err := d.Delete(t.Context(), name, Conditions{}); reasonOf(err) != NotFound {
			t.Errorf("delete %s again: %v", name, err)
		}
	}
	if d.serves(first.Key) != "" {
		t.Error("a deleted function serves")
	}
	if rows, err := d.db.List(t.Context(), "", 10); err != nil || len(rows) > 0 {
		t.Errorf("rows: %v, %v", rows, err)
	}
}

func TestWhoseNameAndRoute(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	d.deploy(`{"name":"one","runtime":"wasm","method":"GET","path":"/one"}`, "first")
	for key, value := range map[string]string{
		"GET:/hand":    `{"name":"hand","runtime":"wasm","module":"import/x.wasm"}`,
		"GET:/mine":    `{"name":"mine","runtime":"wasm","module":"import/x.wasm"}`,
		"GET:/bad":     `{"name":`,
		"POST:/hello":  `{"name":"hello","runtime":"wasm","module":"functions/` + artifactID([]byte("demo")) + `/1/module.wasm"}`,
		"POST:/hello2": `{"name":"hello","runtime":"wasm","module":"functions/` + artifactID([]byte("demo")) + `/1/module.wasm"}`,
	} {
		if err := d.db.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		law, descriptor string
		want            Reason
	}{
		{"another function's route", `{"name":"two","runtime":"wasm","method":"GET","path":"/one"}`, RouteTaken},
		{"a hand-written row's route", `{"name":"two","runtime":"wasm","method":"GET","path":"/hand"}`, RouteTaken},
		{"a broken row's route", `{"name":"two","runtime":"wasm","method":"GET","path":"/bad"}`, RouteTaken},
		{"a hand-written row's name elsewhere", `{"name":"hand","runtime":"wasm","path":"/two"}`, NameTaken},
		{"a hand-written row's name and route", `{"name":"mine","runtime":"wasm","method":"GET","path":"/mine"}`, "none"},
		{"the same path for another method", `{"name":"two","runtime":"wasm","method":"PUT","path":"/one"}`, "none"},
		{"a demo function gives way", `{"name":"hello","runtime":"wasm","path":"/greet"}`, "none"},
		{"… and has done so", `{"name":"hello","runtime":"wasm","path":"/greet2"}`, "none"},
	} {
		if got := d.refused(c.descriptor, "x"+c.law); got != c.want {
			t.Errorf("%s: %s, want %s", c.law, got, c.want)
		}
	}
	for key, found := range map[string]bool{"POST:/hello": false, "POST:/hello2": false, "ANY:/greet2": true, "ANY:/greet": false, "GET:/hand": true} {
		if _, is, err := d.db.Get(t.Context(), key); err != nil || is != found {
			t.Errorf("row %s: %v, %v", key, is, err)
		}
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		law  string
		c    Conditions
		tag  string
		want bool
	}{
		{"none", Conditions{}, "", true},
		{"none", Conditions{}, "a", true},
		{"RFC 9110 13.1.1: If-Match: * needs one", Conditions{MatchAny: true}, "", false},
		{"RFC 9110 13.1.1: If-Match: *", Conditions{MatchAny: true}, "a", true},
		{"RFC 9110 13.1.1: one of the list", Conditions{Match: []string{"b", "a"}}, "a", true},
		{"RFC 9110 13.1.1: none of the list", Conditions{Match: []string{"b"}}, "a", false},
		{"RFC 9110 13.1.1: a list and no function", Conditions{Match: []string{"b"}}, "", false},
		{"a list of weak tags only", Conditions{}.Demand(), "a", false},
		{"RFC 9110 13.1.2: If-None-Match: * needs none", Conditions{NoneMatchAny: true}, "a", false},
		{"RFC 9110 13.1.2: If-None-Match: *", Conditions{NoneMatchAny: true}, "", true},
		{"RFC 9110 13.1.2: one of the list", Conditions{NoneMatch: []string{"a"}}, "a", false},
		{"RFC 9110 13.1.2: none of the list", Conditions{NoneMatch: []string{"b"}}, "a", true},
	} {
		if got := c.c.check(c.tag) == nil; got != c.want {
			t.Errorf("%s: %v", c.law, got)
		}
	}
	d := newDesk(t, nil)
	first := d.deploy(one, "first")
	second := d.deploy(one, "second")
	if first.Tag == second.Tag {
		t.Error("two versions have one tag")
	}
	r := request(t, one, "third")
	r.Conditions = Conditions{Match: []string{first.Tag}}
	if _, err := d.Deploy(t.Context(), r); reasonOf(err) != Precondition {
		t.Errorf("an old tag: %v", err)
	}
	if err := d.Delete(t.Context(), "one", Conditions{Match: []string{first.Tag}}); reasonOf(err) != Precondition {
		t.Errorf("delete with an old tag: %v", err)
	}
	if _, err := d.Rollback(t.Context(), "one", 1, Conditions{Match: []string{second.Tag}}, nil); err != nil {
		t.Errorf("rollback with the tag: %v", err)
	}
	if f, err := d.Get(t.Context(), "one"); err != nil || f.Tag != first.Tag {
		t.Errorf("what is again what it was has its tag: %+v, %v", f, err)
	}
}

// Whatever a deploy fails of, what was before serves and nothing is left.
func TestFailuresLeaveNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	first := d.deploy(one, "first")
	before := left(t, d.data)
	for _, c := range []struct {
		law     string
		code    string
		prepare func()
		want    Reason
	}{
		{"the compiler refuses it", "broken", nil, build.CompileFailed},
		{"the module cannot run", "second", func() { d.world.refuse = errors.New("no such import") }, ModuleRefused},
		{"the table does not take it", "third", func() { d.world.notServe = fmt.Errorf("%w: no room", ErrNotServed) }, NotServed},
		{"it is no module", "", nil, CodeNeeded},
	} {
		if c.prepare != nil {
			c.prepare()
		}
		descriptor := one
		if c.code == "" {
			descriptor = `{"name":"one","runtime":"go"}`
		}
		if got := d.refused(descriptor, c.code); got != c.want {
			t.Errorf("%s: %s, want %s", c.law, got, c.want)
		}
		d.world.refuse = nil
		value, found, err := d.db.Get(t.Context(), first.Key)
		if err != nil || !found || codeOf(t, d.data, first.Key, value) != "first" || d.serves(first.Key) != "first" {
			t.Errorf("%s: row %q, %v", c.law, value, err)
		}
		if now := left(t, d.data); !slices.Equal(now, before) {
			t.Errorf("%s: left %q, before %q", c.law, now, before)
		}
		if versions, err := d.Versions(t.Context(), "one"); err != nil || len(versions) != 1 || !versions[0].Active {
			t.Errorf("%s: versions %+v, %v", c.law, versions, err)
		}
	}
	if got := d.refused(`{"name":"new","runtime":"wasm"}`, "broken"); got != build.CompileFailed {
		t.Errorf("a new one: %s", got)
	}
	if _, err := d.Get(t.Context(), "new"); reasonOf(err) != NotFound {
		t.Errorf("a function that was never made: %v", err)
	}
	d.world.notServe = fmt.Errorf("%w: no room", ErrNotServed)
	if got := d.refused(`{"name":"new","runtime":"wasm"}`, "second"); got != NotServed {
		t.Errorf("a new one: %s", got)
	}
	if _, err := d.Get(t.Context(), "new"); reasonOf(err) != NotFound {
		t.Errorf("a function that was never served: %v", err)
	}
}

func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := d.Deploy(ctx, request(t, one, "wait"))
		failed <- err
	}()
	<-d.builder.began
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("deploy: %v", err)
	}
	if now := left(t, d.data); len(now) > 0 {
		t.Errorf("left: %q", now)
	}
	// The end of the process is the end of all callers.
	go func() {
		_, err := d.Deploy(t.Context(), request(t, one, "wait"))
		failed <- err
	}()
	<-d.builder.began
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("deploy at the end: %v", err)
	}
	if got := d.refused(one, "x"); got != Stopping {
		t.Errorf("after the end: %s", got)
	}
}

func TestTurnsAndBounds(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	var all sync.WaitGroup
	var mu sync.Mutex
	versions := map[int]bool{}
	for n := range 8 { // of one name: one after the other
		all.Go(func() {
			r, err := d.Deploy(t.Context(), request(t, one, fmt.Sprint("code", n)))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			versions[r.Version] = true
		})
	}
	all.Wait()
	if len(versions) != 8 || !versions[1] || !versions[8] {
		t.Errorf("versions: %v", versions)
	}
	for n := range deploysMax { // of different names: all at once
		r := request(t, fmt.Sprintf(`{"name":"f%d","runtime":"wasm"}`, n), "wait")
		all.Go(func() {
			if _, err := d.Deploy(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	for range deploysMax {
		<-d.builder.began
	}
	if got := d.refused(`{"name":"more","runtime":"wasm"}`, "x"); got != Busy {
		t.Errorf("one more than the bound: %s", got)
	}
	close(d.builder.wait)
	all.Wait()
	if got := d.refused(`{"name":"more","runtime":"wasm"}`, "x"); got != "none" {
		t.Errorf("when there is room again: %s", got)
	}
}

// A row that is changed by hand at the wrong moment is not overwritten.
func TestChangedByHandMeanwhile(t *testing.T) {
	t.Parallel()
	var d *desk
	const foreign = `{"name":"foreign","runtime":"wasm","module":"import/x.wasm"}`
	d = newDesk(t, func(o *Options) {
		o.Step = func(name string) {
			if name == "planned" {
				if err := d.db.Put(context.Background(), "GET:/one", foreign); err != nil {
					t.Error(err)
				}
			}
		}
	})
	if got := d.refused(`{"name":"one","runtime":"wasm","method":"GET","path":"/one"}`, "x"); got != RouteTaken {
		t.Errorf("deploy: %s", got)
	}
	if value, _, err := d.db.Get(t.Context(), "GET:/one"); err != nil || value != foreign {
		t.Errorf("the row: %q, %v", value, err)
	}
	if now := left(t, d.data); len(now) > 0 {
		t.Errorf("left: %q", now)
	}
}

func TestModuleVersion(t *testing.T) {
	t.Parallel()
	const id = "67cdfd84-cf3e-42c4-9901-8b0fcf08237b"
	for _, c := range []struct {
		module  string
		version int
		ok      bool
	}{
		{"functions/" + id + "/3/module.wasm", 3, true},
		{"functions/" + id + "/3/a/b.php", 3, true},
		{"functions/" + id + "/03/module.wasm", 0, false},
		{"functions/" + id + "/0/module.wasm", 0, false},
		{"functions/" + id + "/3", 0, false},
		{"functions/" + strings.ToUpper(id) + "/3/m", 0, false},
		{"functions/{" + id + "}/3/m", 0, false},
		{"functions/" + artifactID([]byte("x")) + "/1/module.wasm", 0, false},
		{"import/x.wasm", 0, false},
	} {
		got, version, ok := ModuleVersion(c.module)
		if ok != c.ok || ok && (got != id || version != c.version) {
			t.Errorf("%s: %s %d %v", c.module, got, version, ok)
		}
	}
}

// No id that is not one of ours becomes a path.
func FuzzID(f *testing.F) {
	for _, seed := range []string{"", ".", "..", "/", "../../etc", "67cdfd84-cf3e-42c4-9901-8b0fcf08237b", "67CDFD84-CF3E-42C4-9901-8B0FCF08237B",
		"{67cdfd84-cf3e-42c4-9901-8b0fcf08237b}", "urn:uuid:67cdfd84-cf3e-42c4-9901-8b0fcf08237b", "67cdfd84cf3e42c499018b0fcf08237b", "67cdfd84-cf3e-42c4-9901-8b0fcf08237\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if !validID(id) {
			return
		}
		if len(id) != 36 || strings.Trim(id, "0123456789abcdef-") != "" || path.Base(id) != id {
			t.Errorf("%q is taken for an id", id)
		}
	})
}

// What a crash leaves.

const (
	childData  = "BATON_TEST_DEPLOY_DATA"
	childStep  = "BATON_TEST_DEPLOY_STEP"
	childLimit = "BATON_TEST_DEPLOY_FSIZE"
)

// child is the process that deploys and is killed at a step, or may write no
// file larger than a limit.
func child() int {
	data, at := os.Getenv(childData), os.Getenv(childStep)
	db, err := sqlite.Open(filepath.Join(data, "faas_meta.db"))
	if err != nil {
		fmt.Println(err)
		return 2
	}
	if limit := os.Getenv(childLimit); limit != "" {
		var n uint64
		_, _ = fmt.Sscan(limit, &n)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			fmt.Println(err)
			return 2
		}
	}
	removed := make(chan struct{}, 1) // the files of the dropped version, after the deploy
	d, err := New(Options{Data: data, DB: db, Host: &world{db: db, served: map[string]string{}}, Builder: &builder{}, Keep: 2, Linger: time.Millisecond,
		Step: func(name string) {
			if at == "" {
				fmt.Println("step", name)
			}
			if name == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			if name == "files removed" {
				select {
				case removed <- struct{}{}:
				default:
				}
			}
		}})
	if err != nil {
		fmt.Println(err)
		return 2
	}
	parsed, _ := route.ParseDescriptor([]byte(`{"name":"one","runtime":"wasm","timeout":0.001,"path":"/two"}`))
	_, err = d.Deploy(context.Background(), Request{Descriptor: parsed, Source: &Source{Name: "module.wasm", Reader: strings.NewReader(wasmMagic + strings.Repeat("second", 1000))}})
	fmt.Println("deploy", reasonOf(err))
	if err != nil {
		fmt.Println(err)
		return 0
	}
	select {
	case <-removed:
	case <-time.After(testenv.Patience()):
		fmt.Println("the files of the dropped version stay")
	}
	return 0
}

// runChild runs it on a data directory in which version 1 serves.
func runChild(t *testing.T, data, step, limit string) (output string, killed bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess(self, []string{self}, &os.ProcAttr{Env: append(os.Environ(), childData+"="+data, childStep+"="+step, childLimit+"="+limit),
		Files: []*os.File{nil, w, w}})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r)
	_ = r.Close()
	state, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	status := state.Sys().(syscall.WaitStatus)
	return string(text), status.Signaled() && status.Signal() == syscall.SIGKILL
}

// madeBefore is a data directory with two versions, the second of which serves.
func madeBefore(t *testing.T) (data, id string) {
	d := newDesk(t, func(o *Options) { o.Keep = 2 })
	d.deploy(`{"name":"one","runtime":"wasm","timeout":0.001}`, "zeroth")
	id = d.deploy(`{"name":"one","runtime":"wasm","timeout":0.001}`, "first").ID
	d.end()
	return d.data, id
}

func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	data, _ := madeBefore(t)
	output, _ := runChild(t, data, "", "")
	var steps []string
	for line := range strings.Lines(output) {
		if step, ok := strings.CutPrefix(strings.TrimSpace(line), "step "); ok && !slices.Contains(steps, step) {
			steps = append(steps, step)
		}
	}
	if len(steps) < 9 || !strings.Contains(output, "deploy none") {
		t.Fatalf("a deploy that nobody kills: %s", output)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			data, id := madeBefore(t)
			if output, killed := runChild(t, data, step, ""); !killed {
				t.Fatalf("not killed: %s", output)
			}
			// The next start.
			d := openDesk(t, data, func(o *Options) { o.Keep, o.Linger = 2, time.Millisecond })
			rows, err := d.db.List(t.Context(), "", 10)
			if err != nil || len(rows) != 1 {
				t.Fatalf("rows: %v, %v", rows, err)
			}
			code := codeOf(t, data, rows[0].Key, rows[0].Value)
			second := rows[0].Key == "ANY:/two" && code == strings.Repeat("second", 1000)
			if first := rows[0].Key == "ANY:/api/"+id && code == "first"; !first && !second {
				t.Fatalf("neither the old nor the new version: %s leads to %.20q", rows[0].Key, code)
			}
			versions, err := d.Versions(t.Context(), "one")
			if err != nil || len(versions) != 2 || !versions[0].Active || second != (versions[0].Number == 3) {
				t.Errorf("versions: %+v, %v", versions, err)
			}
			testenv.Until(t, "nothing is left but what is kept", func() bool {
				var want []string
				want = append(want, "functions/"+id)
				for _, v := range slices.Backward(versions) {
					want = append(want, fmt.Sprintf("functions/%s/%d", id, v.Number), fmt.Sprintf("functions/%s/%d/data", id, v.Number))
				}
				return slices.Equal(left(t, data), want)
			})
			// And it goes on.
			if r := d.deploy(one, "third"); d.serves(r.Key) != "third" {
				t.Errorf("the next deploy: %+v", r)
			}
			if _, err := d.Rollback(t.Context(), "one", 0, Conditions{}, nil); err != nil {
				t.Errorf("the way back: %v", err)
			}
		})
	}
}

// A disk that is full, as far as one process can see it: no file may grow above
// a limit. Every write that a deploy makes fails at some limit.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	failed := 0
	for limit := 0; limit < 1<<18; limit = limit*2 + 512 {
		data, id := madeBefore(t)
		output, _ := runChild(t, data, "none", fmt.Sprint(limit))
		if strings.Contains(output, "deploy none") {
			break
		}
		failed++
		if !strings.Contains(output, string("deploy "+DiskFull)) {
			t.Errorf("limit %d: %s", limit, output)
		}
		d := openDesk(t, data, func(o *Options) { o.Keep = 2 })
		rows, err := d.db.List(t.Context(), "", 10)
		if err != nil || len(rows) != 1 || codeOf(t, data, rows[0].Key, rows[0].Value) != "first" {
			t.Errorf("limit %d: rows %v, %v", limit, rows, err)
		}
		if now := left(t, data); len(now) != 5 {
			t.Errorf("limit %d: left %q", limit, now)
		}
		if r := d.deploy(one, "third"); r.ID != id || d.serves(r.Key) != "third" {
			t.Errorf("limit %d: when there is room again: %+v", limit, r)
		}
		d.end()
	}
	if failed < 3 {
		t.Errorf("only %d limits failed", failed)
	}
}

// Who reads the files of a version while they go, a backup say, finds them whole,
// or finds that they are gone.
func TestFilesGoAtOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil)
	id := uuid.NewString()
	folder := d.folderOf(id, 1)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	const files = 3000
	for i := range files {
		if err := os.WriteFile(filepath.Join(folder, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reading, gone := make(chan struct{}), make(chan error)
	go func() {
		for first := true; ; first = false {
			entries, err := os.ReadDir(folder)
			if first {
				close(reading)
			}
			if err == nil && len(entries) != files { // it was opened before, and read while they went
				_, err = os.Lstat(folder)
			}
			if errors.Is(err, fs.ErrNotExist) {
				gone <- nil
				return
			}
			if err == nil && len(entries) != files {
				err = fmt.Errorf("%d files are there, of %d", len(entries), files)
			}
			if err != nil {
				gone <- err
				return
			}
		}
	}()
	<-reading
	if err := d.uninstall(id, 1); err != nil {
		t.Error(err)
	}
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(d.tmp); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}
