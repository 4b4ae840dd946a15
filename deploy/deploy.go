package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"baton/deploy/build"
	"baton/route"
	"baton/route/sqlite"
)

// What a deploy is doing: Request.State. Those of a build come between.
const (
	StatePreparing  = "preparing"  // the module for the workers
	StatePublishing = "publishing" // the new row at every worker
)

// Source is what a user uploads.
type Source struct {
	Name   string // of the file; see build.Extract
	Reader io.Reader
}

// Request is one deploy.
type Request struct {
	// Name is the function that is meant; empty: the one that the descriptor names.
	Name string
	// Descriptor is complete, as route.ParseDescriptor gives it. What it says of
	// a module is not looked at: the code's becomes it.
	Descriptor *route.Descriptor
	// Source is the code; nil: the one that the function has.
	Source *Source
	Conditions
	// State is told what is being done; may be nil. Called from Deploy's goroutine.
	State func(string)
	// Log takes the compiler's output while it is printed; may be nil. Called
	// from one goroutine at a time.
	Log io.Writer
}

// Result is what a deploy or rollback came to.
type Result struct {
	ID        string
	Name      string
	Version   int
	Key       string // "METHOD:/path" of its row
	Unchanged bool   // the same code and descriptor serve already
	Tag       string // of what the function is now

	Assumed  []string // what the builder decided where nobody said
	Log      string   // the compiler's whole output
	Duration time.Duration
	Cached   bool // nothing was compiled
}

// Deploy makes a new version of a function and has it served. When it returns
// without error the version is on the disk, and every request that starts
// afterwards runs it; requests that run finish on the one before.
//
// The same code and descriptor as the active version's are that version. A
// descriptor alone, or the same code with another one, builds nothing.
//
// On error nothing is left of the deploy and what served before serves, but for
// NotConfirmed. Errors are an *Error, a *build.Error, ctx's, or the system's.
func (d *Deployer) Deploy(ctx context.Context, r Request) (result Result, err error) {
	name := r.Descriptor.Name
	if r.Name != "" && r.Name != name {
		return Result{}, &Error{Reason: NameMismatch, Field: "name", Text: fmt.Sprintf("the descriptor names %q, and the request is about %q", name, r.Name)}
	}
	err = d.change(ctx, name, func(ctx context.Context) error {
		work, err := os.MkdirTemp(d.tmp, workPrefix) // 0700
		if err != nil {
			return err
		}
		result, err = d.deploy(ctx, r, work)
		return errors.Join(err, removeAll(work))
	})
	return result, err
}

// attempt is one deploy on its way.
type attempt struct {
	Request
	work   string // its folder
	id     string
	source string // digest of the code
	from   *sqlite.FunctionVersion
}

func (d *Deployer) deploy(ctx context.Context, r Request, work string) (Result, error) {
	a := &attempt{Request: r, work: work}
	result := Result{Name: r.Descriptor.Name}
	if err := a.unpack(d.Limits); err != nil {
		return result, err
	}
	d.step("unpacked")
	c, err := d.look(ctx, result.Name)
	if err != nil {
		return result, err
	}
	if err := r.Conditions.check(c.tag()); err != nil {
		return result, err
	}
	a.id = uuid.NewString()
	if c.deployed != nil {
		a.id = c.deployed.ID
	}
	if err := a.reuse(c); err != nil {
		return result, err
	}
	result.ID = a.id
	if active := c.active(); active != nil && active == a.from && active.Descriptor == a.descriptor() {
		result.Unchanged, result.Cached = true, true
		return result, d.activate(ctx, &result, *active, false, r.Conditions, r.State)
	}
	// Before a build that may take minutes: what can be refused, is.
	if _, err := d.plan(ctx, c, result.Name, a.id, sqlite.KV{Key: a.key(), Value: a.value(1, "module.wasm")}); err != nil {
		return result, err
	}
	return result, d.makeVersion(ctx, a, &result)
}

func (c *current) active() *sqlite.FunctionVersion {
	if c.deployed == nil {
		return nil
	}
	return c.deployed.Active()
}

// unpack writes the code to the attempt's folder.
func (a *attempt) unpack(limits build.Limits) error {
	if a.Source == nil {
		return nil
	}
	dir := filepath.Join(a.work, "source")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := build.Extract(dir, a.Source.Name, a.Source.Reader, limits); err != nil {
		return err
	}
	t, err := digestTree(dir)
	a.source = t.digest
	return err
}

// reuse finds a kept version that was built of the same code in the same way.
func (a *attempt) reuse(c *current) error {
	if a.Source != nil && c.deployed == nil {
		return nil
	}
	active := c.active()
	if a.Source == nil {
		if active == nil {
			return &Error{Reason: CodeMissing, Text: "a descriptor alone changes a function that was deployed, and there is none of this name: send code too"}
		}
		old, err := route.ParseDescriptor([]byte(active.Descriptor))
		if err != nil {
			return fmt.Errorf("descriptor of version %d: %w", active.Number, err)
		}
		if field := buildField(old, a.Descriptor); field != "" {
			return &Error{Reason: CodeNeeded, Field: field, Text: field + ": this change needs a build: send the code too"}
		}
		a.source, a.from = active.Source, active
		return nil
	}
	// The active one first, so that the same again is the same.
	candidates := []*sqlite.FunctionVersion{active}
	for i := len(c.deployed.Versions) - 1; i >= 0; i-- {
		candidates = append(candidates, &c.deployed.Versions[i])
	}
	for _, v := range candidates {
		if v == nil || v.Source != a.source {
			continue
		}
		if old, err := route.ParseDescriptor([]byte(v.Descriptor)); err == nil && buildField(old, a.Descriptor) == "" {
			a.from = v
			return nil
		}
	}
	return nil
}

// buildField is the first field of two descriptors for which one code is built
// in two ways; empty: none.
func buildField(a, b *route.Descriptor) string {
	switch {
	case a.Runtime != b.Runtime:
		return "runtime"
	case a.Target != b.Target:
		return "target"
	case a.Handler != b.Handler && a.Runtime != "wasm": // it may say which of the files is the program
		return "handler"
	}
	return ""
}

// key is of the row: the descriptor's route, or the one by id.
func (a *attempt) key() string {
	method, at := a.Descriptor.Method, a.Descriptor.Path
	if method == "" {
		method = "ANY"
	}
	if at == "" {
		at = "/api/" + a.id
	}
	return method + ":" + at
}

// descriptor is the descriptor as it was given, in one form.
func (a *attempt) descriptor() string {
	given := *a.Descriptor
	given.Module = ""
	return string(given.AppendJSON(nil))
}

// value is of the row of version number.
func (a *attempt) value(number int, module string) string {
	row := *a.Descriptor
	row.Module = path.Join("functions", a.id, fmt.Sprint(number), module)
	row.Method, row.Path = "", ""
	return string(row.AppendJSON(nil))
}

// makeVersion reserves a number, makes its files and has them served.
func (d *Deployer) makeVersion(ctx context.Context, a *attempt, result *Result) error {
	id, number, err := d.DB.Reserve(ctx, result.Name, a.id, time.Now())
	if err != nil {
		return err
	}
	if id != a.id {
		return fmt.Errorf("function %s has two ids, %s and %s", result.Name, id, a.id)
	}
	d.step("reserved")
	v := sqlite.FunctionVersion{Number: number, Descriptor: a.descriptor(), Source: a.source, Created: time.Now()}
	err = d.makeFiles(ctx, a, &v, result)
	if err == nil {
		d.step("installed")
		err = d.activate(ctx, result, v, true, a.Conditions, a.State)
	}
	if err == nil {
		return nil
	}
	var ours *Error
	if errors.As(err, &ours) && ours.Reason == NotConfirmed {
		return err
	}
	// Only what is known not to be kept may go: an error of a COMMIT may hide
	// that it happened.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	kept, e := d.DB.Kept(clean, a.id, number)
	if e != nil || kept {
		return errors.Join(err, e)
	}
	if e = d.uninstall(a.id, number); e == nil {
		e = d.DB.Removed(clean, sqlite.Folder{ID: a.id, Number: number})
	}
	if e != nil {
		d.Log.Warn("what a deploy left is removed at the next start", "function", result.Name, "version", number, "err", e)
	}
	return err
}

// makeFiles builds or reuses the files of v and puts them where they stay.
func (d *Deployer) makeFiles(ctx context.Context, a *attempt, v *sqlite.FunctionVersion, result *Result) error {
	out := filepath.Join(a.work, "out")
	began := time.Now()
	var module string
	if a.from != nil {
		old, err := route.ParseRow(a.from.Row.Key, a.from.Row.Value)
		if err != nil {
			return fmt.Errorf("row of version %d: %w", a.from.Number, err)
		}
		base := path.Join("functions", a.id, fmt.Sprint(a.from.Number))
		if module, err = filepath.Rel(base, old.Module); err != nil || !filepath.IsLocal(module) {
			return fmt.Errorf("module of version %d: %q is not in its folder", a.from.Number, old.Module)
		}
		if err := linkTree(out, d.folderOf(a.id, a.from.Number)); err != nil {
			return err
		}
		v.Digest, v.Size, result.Cached = a.from.Digest, a.from.Size, true
	} else {
		if err := os.Mkdir(out, 0o700); err != nil {
			return err
		}
		built, log, err := d.build(ctx, a, out)
		result.Log, result.Assumed, result.Cached = log, built.Assumed, built.Cached
		if err != nil {
			return err
		}
		module = built.Module
		if !filepath.IsLocal(module) {
			return fmt.Errorf("the builder's module %q is not in its folder", module)
		}
		if info, err := os.Lstat(filepath.Join(out, module)); err != nil || !info.Mode().IsRegular() {
			return errors.Join(fmt.Errorf("the builder's module %q is no file", module), err)
		}
		t, err := digestTree(out)
		if err != nil {
			return err
		}
		v.Digest, v.Size = t.digest, t.size
	}
	result.Duration = time.Since(began)
	d.step("built")
	v.Row = sqlite.KV{Key: a.key(), Value: a.value(v.Number, module)}
	if _, err := route.ParseRow(v.Row.Key, v.Row.Value); err != nil {
		return fmt.Errorf("row of the new version: %w", err)
	}
	return d.install(out, a.id, v.Number)
}

// build runs the builder, and keeps what it prints.
func (d *Deployer) build(ctx context.Context, a *attempt, out string) (build.Result, string, error) {
	var kept bytes.Buffer // bounded by the builder's OutputMax
	var log io.Writer = &kept
	if a.Log != nil {
		log = io.MultiWriter(&kept, a.Log)
	}
	result, err := d.Builder.Build(ctx, build.Request{
		Source: filepath.Join(a.work, "source"), Runtime: a.Descriptor.Runtime, Target: a.Descriptor.Target,
		Handler: a.Descriptor.Handler, Out: out, Log: log, State: a.State,
	})
	return result, kept.String(), err
}

// plan is the change of rows that makes row the one of the function with that
// id, or why it cannot be.
func (d *Deployer) plan(ctx context.Context, c *current, name, id string, row sqlite.KV) (sqlite.Switch, error) {
	s := sqlite.Switch{ID: id}
	var replaced []sqlite.KV // with other keys
	for _, r := range c.rows {
		if r.Key != row.Key {
			replaced = append(replaced, r)
		}
	}
	for _, r := range c.foreign {
		switch {
		case r.Key == row.Key || slices.Contains(replaced, r) && planted(r):
		case planted(r):
			replaced = append(replaced, r) // a demo function gives way
		default:
			return s, &Error{Reason: NameTaken, Field: "name", Text: fmt.Sprintf(
				"the name %s is that of the route %s, which was not deployed: choose another name or the same route, or delete it first", name, r.Key)}
		}
	}
	value, found, err := d.DB.Get(ctx, row.Key)
	if err != nil {
		return s, err
	}
	if found && !hasKey(c.rows, row.Key) && !hasKey(c.foreign, row.Key) {
		whose := "a row that cannot be read"
		if other, err := route.ParseRow(row.Key, value); err == nil {
			whose = other.Name
		}
		return s, &Error{Reason: RouteTaken, Field: "path", Text: fmt.Sprintf("the route %s is that of %s: choose another one, or delete that first", row.Key, whose)}
	}
	s.Expect = append(s.Expect, sqlite.KVChange{KV: sqlite.KV{Key: row.Key, Value: value}, Deleted: !found})
	for _, r := range replaced {
		s.Expect = append(s.Expect, sqlite.KVChange{KV: r})
		s.Rows = append(s.Rows, sqlite.KVChange{KV: sqlite.KV{Key: r.Key}, Deleted: true})
	}
	s.Rows = append(s.Rows, sqlite.KVChange{KV: row})
	return s, d.Host.Check(s.Rows)
}

// planted says whether a row is one of init's: its artifact has an id that comes
// of its content.
func planted(row sqlite.KV) bool {
	d, err := route.ParseRow(row.Key, row.Value)
	if err != nil {
		return false
	}
	parts := strings.SplitN(d.Module, "/", 3)
	u, err := uuid.Parse(parts[min(1, len(parts)-1)])
	return err == nil && parts[0] == "functions" && u.Version() == 5
}

// activate makes v the version that serves and waits until it does. fresh: it
// was reserved by the deploy that calls.
func (d *Deployer) activate(ctx context.Context, result *Result, v sqlite.FunctionVersion, fresh bool, conditions Conditions, state func(string)) error {
	tell := func(s string) {
		if state != nil {
			state(s)
		}
	}
	result.Version, result.Key = v.Number, v.Row.Key
	descriptor, err := route.ParseRow(v.Row.Key, v.Row.Value)
	if err != nil {
		return fmt.Errorf("row of version %d: %w", v.Number, err)
	}
	tell(StatePreparing)
	release, err := d.Host.Prepare(ctx, descriptor)
	switch {
	case err == nil:
		defer release()
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrTemporary):
		return fmt.Errorf("prepare version %d: %w", v.Number, err)
	default:
		return &Error{Reason: ModuleRefused, Text: err.Error()}
	}
	d.step("prepared")
	var seq int64
	var s sqlite.Switch
	err = d.retry(func() error {
		c, err := d.look(ctx, result.Name)
		if err != nil {
			return err
		}
		if err := conditions.check(c.tag()); err != nil {
			return err
		}
		s, err = d.plan(ctx, c, result.Name, result.ID, v.Row)
		if err != nil {
			return err
		}
		s.Active = v.Number
		if fresh {
			s.New = &v
		}
		s.Drop = d.surplus(c, v.Number, fresh)
		result.Tag = (&current{deployed: &sqlite.Deployed{ID: result.ID}, rows: []sqlite.KV{v.Row}}).tag()
		if active := c.active(); active != nil && active.Number == v.Number && len(s.Rows) == 1 && s.Expect[0].KV == v.Row {
			s.Rows = nil // it is what serves
			return nil
		}
		tell(StatePublishing)
		d.step("planned")
		seq, err = d.switchTo(ctx, s)
		return err
	})
	if err != nil {
		return err
	}
	d.step("switched")
	keys := []string{v.Row.Key}
	for _, r := range s.Rows {
		if r.Key != v.Row.Key {
			keys = append(keys, r.Key)
		}
	}
	err = d.published(ctx, seq, keys)
	if errors.Is(err, ErrNotServed) {
		return d.takeBack(ctx, s, v, err)
	}
	d.step("published")
	return err
}

// ErrNotServed is wrapped by a Host's error about a row that the table did not
// take.
var ErrNotServed = errors.New("not served")

// takeBack undoes a switch whose row the table did not take.
func (d *Deployer) takeBack(ctx context.Context, done sqlite.Switch, v sqlite.FunctionVersion, why error) error {
	refused := &Error{Reason: NotServed, Text: "the route is not served: " + why.Error()}
	if len(done.Rows) == 0 {
		return refused // it was so before
	}
	deployed, err := d.DB.Deployed(context.WithoutCancel(ctx), mustName(v.Row))
	if err != nil {
		return errors.Join(refused, err)
	}
	back := sqlite.Switch{ID: done.ID, Rows: done.Expect, Expect: []sqlite.KVChange{{KV: v.Row}}}
	if done.New != nil {
		back.Drop = append(back.Drop, sqlite.Drop{Number: v.Number, Until: time.Now().Add(d.Linger)})
	}
	for _, old := range deployed.Versions {
		if slices.ContainsFunc(done.Expect, func(r sqlite.KVChange) bool { return !r.Deleted && r.KV == old.Row }) {
			back.Active = old.Number
		}
	}
	back.Forget = done.New != nil && len(deployed.Versions) == 1
	seq, err := d.switchTo(context.WithoutCancel(ctx), back)
	if err != nil {
		return errors.Join(refused, err)
	}
	var keys []string
	for _, r := range back.Rows {
		keys = append(keys, r.Key)
	}
	if err := d.published(ctx, seq, keys); err != nil && !errors.Is(err, ErrNotServed) {
		return errors.Join(refused, err)
	}
	return refused
}

// mustName is the name in a row that was parsed before.
func mustName(row sqlite.KV) string {
	d, err := route.ParseRow(row.Key, row.Value)
	if err != nil {
		panic("deploy: a row that was parsed is none: " + err.Error())
	}
	return d.Name
}

// surplus are the versions that are not kept once active is the active one.
func (d *Deployer) surplus(c *current, active int, fresh bool) (drop []sqlite.Drop) {
	if c.deployed == nil {
		return nil
	}
	left := len(c.deployed.Versions)
	if fresh {
		left++
	}
	for _, v := range c.deployed.Versions { // the oldest first
		if left <= d.Keep {
			return drop
		}
		// The one before is kept whatever its age: it is what to go back to.
		if v.Number != active && !v.Active {
			drop = append(drop, d.drop(v))
			left--
		}
	}
	return drop
}
