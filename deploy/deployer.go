package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"baton/deploy/build"
	"baton/route"
	"baton/route/sqlite"
)

const (
	// KeepDefault is how many versions of a function are kept.
	KeepDefault = 10

	// deploysMax bounds the deploys, changes and deletes at a time, those that
	// wait for each other or for a build included. Each may have an upload on
	// the disk. One more is refused with Busy.
	deploysMax = 32

	// lingerDefault is how much longer than its timeout a dropped version's
	// files stay: a request may have begun on it until the table without it was
	// everywhere.
	lingerDefault = time.Minute

	// sweepPeriod is how often the files of dropped versions are looked at.
	sweepPeriod = time.Minute

	// publishTimeout bounds the wait for a switched row to be served. A worker
	// that does not confirm is lost after 5 s; the rest is for a table that was
	// on its way before. When it is over the change is durable, and is told not
	// to be confirmed.
	publishTimeout = 30 * time.Second

	// writeTimeout bounds one transaction that must not be given up halfway.
	writeTimeout = 15 * time.Second

	// namedMax bounds the hand-written rows of one name that are looked at.
	namedMax = 100

	// workPrefix is of the temporary folder of a deploy, below <data>/tmp.
	workPrefix = "deploy-"
)

// Host is the process that serves what is deployed.
type Host interface {
	// Prepare has a module made ready for workers, and kept so until release. An
	// error that wraps ErrTemporary says nothing about the module.
	Prepare(ctx context.Context, d *route.Descriptor) (release func(), err error)
	// Check says why the table that is served would not take the rows.
	Check(changes []sqlite.KVChange) error
	// Published returns when the change log up to seq is with the table, and
	// the rows with those keys are served everywhere or gone; or why one is not.
	Published(ctx context.Context, seq int64, keys []string) error
}

// ErrTemporary is wrapped by a Host's error that says nothing about the module.
var ErrTemporary = errors.New("try again")

// Builder makes artifacts: package deploy/build's.
type Builder interface {
	Build(ctx context.Context, r build.Request) (build.Result, error)
}

// Options are a Deployer's. Zero values without a note are not allowed.
type Options struct {
	Data    string     // the data directory
	DB      *sqlite.DB // its database; stays the caller's
	Host    Host
	Builder Builder
	Limits  build.Limits  // of uploads; zero fields: build's own
	Keep    int           // versions of a function; zero: KeepDefault
	Linger  time.Duration // beyond the timeout, before a dropped version's files go; zero: a minute
	Log     *slog.Logger  // nil: none

	// Step is called before each step of a deploy that leaves a trace, with its
	// name; nil: nobody is told. It exists to show what a crash leaves.
	Step func(name string)
}

// Deployer keeps deployed functions: their files, versions and rows. Its
// methods may be called from any goroutine.
//
// Changes of one function take turns; those of different ones do not wait for
// each other. One goroutine removes the files of dropped versions, and ends with
// Close.
type Deployer struct {
	Options
	functions string // <data>/functions
	tmp       string // <data>/tmp

	base    context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // the sweeper, and calls that change something

	mu     sync.Mutex
	closed bool
	busy   int              // calls that change something
	turns  map[string]*turn // by function's name

	starting sync.Mutex // held while the first sweep runs
	started  bool       // it is done: versions may be made. Guarded by starting
}

// turn is whose it is to change one function.
type turn struct {
	free  chan struct{} // 1: nobody's
	users int           // that have it or wait; guarded by Deployer.mu
}

// New makes a Deployer and removes what deploys of an earlier process left; when
// the database cannot be read yet, the first call that changes something does. No
// other process may deploy to the data directory.
func New(o Options) (*Deployer, error) {
	if o.Keep <= 0 {
		o.Keep = KeepDefault
	}
	if o.Linger <= 0 {
		o.Linger = lingerDefault
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return nil, fmt.Errorf("deploy: %w", err)
	}
	o.Data = data
	d := &Deployer{
		Options: o, functions: filepath.Join(data, "functions"), tmp: filepath.Join(data, "tmp"), turns: make(map[string]*turn),
	}
	for _, dir := range []string{d.functions, d.tmp} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("deploy: %w", err)
		}
	}
	left, err := filepath.Glob(filepath.Join(d.tmp, workPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("deploy: %w", err)
	}
	for _, path := range left {
		if err := removeAll(path); err != nil {
			return nil, fmt.Errorf("deploy: remove what was left: %w", err)
		}
	}
	if err := d.sweepStart(context.Background()); err != nil {
		d.Log.Warn("what deploys left is removed later", "err", err) // the database is not there yet, say
	}
	d.base, d.cancel = context.WithCancel(context.Background())
	d.running.Go(d.sweeps)
	return d, nil
}

// Close ends what runs, as if its caller had gone away, and waits for it.
func (d *Deployer) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed {
		return os.ErrClosed
	}
	d.cancel()
	d.running.Wait()
	return nil
}

func (d *Deployer) step(name string) {
	if d.Step != nil {
		d.Step(name)
	}
}

// change runs f when it is name's turn.
func (d *Deployer) change(ctx context.Context, name string, f func(ctx context.Context) error) error {
	d.mu.Lock()
	switch {
	case d.closed:
		d.mu.Unlock()
		return &Error{Reason: Stopping, Text: "the server is stopping"}
	case d.busy >= deploysMax:
		d.mu.Unlock()
		return &Error{Reason: Busy, Text: fmt.Sprintf("%d deploys run or wait already", deploysMax)}
	}
	t := d.turns[name]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		d.turns[name] = t
	}
	t.users++
	d.busy++
	d.running.Add(1)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(d.turns, name)
		}
		d.busy--
		d.running.Done()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.base, cancel)()
	select {
	case <-t.free:
	case <-ctx.Done():
		return fmt.Errorf("wait for another change of %s: %w", name, context.Cause(ctx))
	}
	defer func() { t.free <- struct{}{} }()
	if err := d.sweepStart(ctx); err != nil {
		return err
	}
	return full(f(ctx))
}

// sweepStart is the first sweep: nothing is made before it.
func (d *Deployer) sweepStart(ctx context.Context) error {
	d.starting.Lock()
	defer d.starting.Unlock()
	if d.started {
		return nil
	}
	err := d.sweep(ctx, true)
	d.started = err == nil
	return err
}

// sweeps removes the files of dropped versions until Close.
func (d *Deployer) sweeps() {
	tick := time.NewTicker(min(sweepPeriod, d.Linger))
	defer tick.Stop()
	for {
		select {
		case <-d.base.Done():
			return
		case <-tick.C:
		}
		if err := d.sweep(d.base, false); err != nil && d.base.Err() == nil {
			d.Log.Warn("old versions' files are not removed", "err", err)
		}
	}
}

// sweep removes folders that no version names any more; with making those of
// deploys that did not come to their end too.
func (d *Deployer) sweep(ctx context.Context, making bool) error {
	folders, err := d.DB.Leftovers(ctx, time.Now(), making)
	if err != nil {
		return err
	}
	for _, f := range folders {
		if !validID(f.ID) || f.Number < 1 {
			d.Log.Error("a version in the database is none", "id", f.ID, "version", f.Number)
			continue
		}
		if err := d.uninstall(f.ID, f.Number); err != nil {
			return err
		}
		d.step("files removed")
		if err := d.DB.Removed(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// Conditions are a request's If-Match and If-None-Match. The zero value is none.
type Conditions struct {
	Match         []string // tags, one of which must be the function's; nil: any or no function
	MatchAny      bool     // "*": there must be one
	NoneMatch     []string
	NoneMatchAny  bool // "*": there must be none
	matchIsDemand bool
}

// Demand makes an empty Match one that nothing fulfils.
func (c Conditions) Demand() Conditions { c.matchIsDemand = true; return c }

func (c Conditions) check(tag string) error {
	exists := tag != ""
	wrong := (c.MatchAny && !exists) ||
		(!c.MatchAny && (len(c.Match) > 0 || c.matchIsDemand) && (!exists || !slices.Contains(c.Match, tag))) ||
		(c.NoneMatchAny && exists) || (exists && slices.Contains(c.NoneMatch, tag))
	if !wrong {
		return nil
	}
	text := "the function is not what the request expects: read it again"
	if !exists {
		text = "there is no function of this name"
	} else if c.NoneMatchAny {
		text = "there is a function of this name already"
	}
	return &Error{Reason: Precondition, Text: text}
}

// Function is a function by its name.
type Function struct {
	Name       string
	ID         string // empty: it was not deployed, somebody wrote its rows
	Version    int    // that serves; 0: none, or not deployed
	Versions   int    // that are kept
	Keys       []string
	Tag        string          // of what it is now, for Conditions
	Descriptor json.RawMessage // of the row with the lowest key
}

// current is what a function is in the database at one moment.
type current struct {
	deployed *sqlite.Deployed // nil: not deployed
	rows     []sqlite.KV      // that are its own, ascending by key
	foreign  []sqlite.KV      // that have its name, and were not deployed with it
}

// tag changes with everything that makes a function what it is. It is empty
// when there is none.
func (c *current) tag() string {
	if c.deployed == nil && len(c.rows) == 0 {
		return ""
	}
	h := sha256.New()
	if c.deployed != nil {
		fmt.Fprintf(h, "%s\n", c.deployed.ID)
	}
	for _, r := range c.rows {
		fmt.Fprintf(h, "%q %q\n", r.Key, r.Value)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// ours says whether a row is the function's with that id: its module is one of
// its versions'.
func ours(id string, row sqlite.KV) bool {
	d, err := route.ParseRow(row.Key, row.Value)
	return err == nil && strings.HasPrefix(d.Module, "functions/"+id+"/")
}

// look reads what a function is now.
func (d *Deployer) look(ctx context.Context, name string) (*current, error) {
	c := &current{}
	deployed, err := d.DB.Deployed(ctx, name)
	switch {
	case err == nil:
		if !validID(deployed.ID) {
			return nil, fmt.Errorf("read function %s: its id %q is none", name, deployed.ID)
		}
		c.deployed = &deployed
	case !errors.Is(err, sqlite.ErrNoRow):
		return nil, err
	}
	rows, err := d.DB.Named(ctx, name, namedMax)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		mine := c.deployed != nil && ours(c.deployed.ID, row)
		if mine || c.deployed == nil {
			c.rows = append(c.rows, row)
		}
		if !mine {
			c.foreign = append(c.foreign, row)
		}
	}
	if c.deployed == nil {
		return c, nil
	}
	// The row of the active version is its own whatever somebody has made of it,
	// unless that is another function's.
	if v := c.deployed.Active(); v != nil && !hasKey(c.rows, v.Row.Key) && !hasKey(c.foreign, v.Row.Key) {
		value, found, err := d.DB.Get(ctx, v.Row.Key)
		if err != nil {
			return nil, err
		}
		row := sqlite.KV{Key: v.Row.Key, Value: value}
		if _, err := route.ParseRow(row.Key, row.Value); found && (err != nil || ours(c.deployed.ID, row)) {
			c.rows = append(c.rows, row)
		}
	}
	return c, nil
}

func hasKey(rows []sqlite.KV, key string) bool {
	return slices.ContainsFunc(rows, func(r sqlite.KV) bool { return r.Key == key })
}

// Get describes a function.
func (d *Deployer) Get(ctx context.Context, name string) (Function, error) {
	c, err := d.look(ctx, name)
	if err != nil {
		return Function{}, err
	}
	f := Function{Name: name, Tag: c.tag()}
	if f.Tag == "" {
		return Function{}, &Error{Reason: NotFound, Text: "there is no function of this name"}
	}
	for _, r := range c.rows {
		f.Keys = append(f.Keys, r.Key)
	}
	if len(c.rows) > 0 && json.Valid([]byte(c.rows[0].Value)) {
		f.Descriptor = json.RawMessage(c.rows[0].Value)
	}
	if c.deployed != nil {
		f.ID, f.Versions = c.deployed.ID, len(c.deployed.Versions)
		if v := c.deployed.Active(); v != nil {
			f.Version = v.Number
			if len(c.rows) > 0 && c.rows[0] == v.Row {
				f.Descriptor = json.RawMessage(v.Descriptor)
			}
		}
	}
	return f, nil
}

// Versions lists the kept versions of a deployed function, the newest first.
func (d *Deployer) Versions(ctx context.Context, name string) ([]Version, error) {
	deployed, err := d.DB.Deployed(ctx, name)
	if errors.Is(err, sqlite.ErrNoRow) {
		return nil, &Error{Reason: NotFound, Text: "no function of this name was deployed"}
	} else if err != nil {
		return nil, err
	}
	slices.Reverse(deployed.Versions)
	return deployed.Versions, nil
}

// Delete removes a function with all its rows and versions. When it returns
// without error, no request that starts afterwards finds it.
func (d *Deployer) Delete(ctx context.Context, name string, conditions Conditions) error {
	return d.change(ctx, name, func(ctx context.Context) error {
		return d.retry(func() error {
			c, err := d.look(ctx, name)
			if err != nil {
				return err
			}
			if err := conditions.check(c.tag()); err != nil {
				return err
			}
			if c.tag() == "" {
				return &Error{Reason: NotFound, Text: "there is no function of this name"}
			}
			s := sqlite.Switch{Forget: c.deployed != nil}
			var keys []string
			for _, r := range c.rows {
				keys = append(keys, r.Key)
				s.Expect = append(s.Expect, sqlite.KVChange{KV: r})
				s.Rows = append(s.Rows, sqlite.KVChange{KV: sqlite.KV{Key: r.Key}, Deleted: true})
			}
			if c.deployed != nil {
				s.ID = c.deployed.ID
				for _, v := range c.deployed.Versions {
					s.Drop = append(s.Drop, d.drop(v))
				}
			}
			seq, err := d.switchTo(ctx, s)
			if err != nil {
				return err
			}
			d.step("deleted")
			return d.published(ctx, seq, keys)
		})
	})
}

// drop says when the files of a version may go.
func (d *Deployer) drop(v sqlite.FunctionVersion) sqlite.Drop {
	timeout := time.Hour // the longest there is
	if parsed, err := route.ParseDescriptor([]byte(v.Descriptor)); err == nil {
		timeout = parsed.Timeout
	}
	return sqlite.Drop{Number: v.Number, Until: time.Now().Add(timeout + d.Linger)}
}

// retry repeats what lost against somebody who changed a row by hand.
func (d *Deployer) retry(f func() error) error {
	var err error
	for range 3 {
		if err = f(); !errors.Is(err, sqlite.ErrChanged) {
			return err
		}
	}
	return &Error{Reason: Changed, Text: "somebody else changes this route all the time: try again", Err: err}
}

// switchTo is one transaction, which the caller's going away does not stop.
func (d *Deployer) switchTo(ctx context.Context, s sqlite.Switch) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return d.DB.Switch(ctx, s)
}

// published waits until what was switched is served.
func (d *Deployer) published(ctx context.Context, seq int64, keys []string) error {
	// The caller's going away changes nothing any more: what is durable will be
	// served. But the process may stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishTimeout)
	defer cancel()
	defer context.AfterFunc(d.base, cancel)()
	err := d.Host.Published(ctx, seq, keys)
	if err != nil && ctx.Err() != nil {
		return &Error{Reason: NotConfirmed, Text: "the change is stored, and is not yet seen to be served: look at the status of the server", Err: err}
	}
	return err
}

// Rollback makes an older version the one that serves; 0: the one before the
// active one. Its code is not built again.
func (d *Deployer) Rollback(ctx context.Context, name string, number int, conditions Conditions, state func(string)) (result Result, err error) {
	err = d.change(ctx, name, func(ctx context.Context) error {
		c, err := d.look(ctx, name)
		if err != nil {
			return err
		}
		if err := conditions.check(c.tag()); err != nil {
			return err
		}
		if c.deployed == nil {
			return &Error{Reason: NotFound, Text: "no function of this name was deployed"}
		}
		v, err := target(c.deployed, number)
		if err != nil {
			return err
		}
		result = Result{ID: c.deployed.ID, Name: name, Cached: true}
		return d.activate(ctx, &result, v, false, conditions, state)
	})
	return result, err
}

// target finds the version to go back to.
func target(f *sqlite.Deployed, number int) (sqlite.FunctionVersion, error) {
	if number == 0 {
		active := f.Active()
		for _, v := range f.Versions { // ascending
			if active == nil || v.Number < active.Number {
				number = v.Number
			}
		}
		if number == 0 {
			return sqlite.FunctionVersion{}, &Error{Reason: NoVersion, Text: "there is no version before this one"}
		}
	}
	for _, v := range f.Versions {
		if v.Number == number {
			return v, nil
		}
	}
	var known []string
	for _, v := range f.Versions {
		known = append(known, fmt.Sprint(v.Number))
	}
	return sqlite.FunctionVersion{}, &Error{Reason: NoVersion, Text: fmt.Sprintf("version %d is not kept; there are %s", number, strings.Join(known, ", "))}
}

var _ io.Closer = (*Deployer)(nil)

// Version is one kept version of a function.
type Version = sqlite.FunctionVersion

// ModuleVersion reads id and version of a deployed function from a row's
// module; not ok: the module is no deployed one's.
func ModuleVersion(module string) (id string, version int, ok bool) {
	parts := strings.SplitN(module, "/", 4)
	if len(parts) != 4 || parts[0] != "functions" {
		return "", 0, false
	}
	// Version 4: drawn here. What init plants has an id of its content, version 5.
	if u, err := uuid.Parse(parts[1]); err != nil || u.Version() != 4 || u.String() != parts[1] {
		return "", 0, false
	}
	version, err := strconv.Atoi(parts[2])
	return parts[1], version, err == nil && version > 0 && strconv.Itoa(version) == parts[2]
}
