package php

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"baton/runtime"
	"baton/runtime/child"
)

const (
	// overheadMB is what PHP itself needs of the address space beside its
	// memory_limit, in MiB: 200 with Debian's extensions (64 of them for opcache), some more with large ones.
	overheadMB = 320
	// opcacheMB holds compiled scripts; a large framework fills 40. When it is full, what
	// is left is compiled for each request.
	opcacheMB = 64
	// fileMB bounds uploads and bodies, which PHP keeps in files, in MiB.
	fileMB = 256
	// fewProcesses is how many processes a function that is asked for has in each worker without waiting for them: while
	// one runs a script the answer of another is given on.
	fewProcesses = 2
	// perProcessor is how many processes for each processor are enough for a function whose requests
	// compute: half of them wait for their next request.
	perProcessor = 2
	// usesMax is how many requests a process serves: an extension that leaks is not for
	// ever. A start costs as much as some hundred requests.
	usesMax = 50_000
	// lostLength: getenv() does not find what came by FastCGI under a name of three letters. They go
	// by the environment of the process.
	//
	// Source: php-src, main/fastcgi.c, FCGI_HASH_FUNC looks at the fourth.
	lostLength = 3
	// usesVariable is the descriptor's own number for that.
	usesVariable = "MAX_REQUESTS"
)

// Executor runs PHP functions. It implements runtime.Executor.
type Executor struct {
	*child.Functions
	find   func() (string, error)
	serial atomic.Uint64 // of folders of boot files
}

// New makes the executor. PHP is looked for when a function is loaded.
func New(shared *child.Shared) *Executor {
	return &Executor{Functions: shared.NewFunctions(), find: find}
}

// settings are PHP's, beside the system's own. The first column that differs
// from php.ini's is why it is here: what a request is, where its log goes and how long it takes is baton's to say.
func settings(memory int64, prepend string) []string {
	return []string{
		"memory_limit=" + strconv.FormatInt(memory, 10),
		"auto_prepend_file=" + prepend, "auto_append_file=",
		// The limits are those of the descriptor.
		"max_execution_time=0", "max_input_time=0", "post_max_size=0", "upload_max_filesize=" + strconv.Itoa(fileMB) + "M", "enable_post_data_reading=1",
		// What the script has not said is not said.
		"default_mimetype=", "expose_php=0", "zlib.output_compression=0", "output_buffering=4096", "implicit_flush=0", "cgi.rfc2616_headers=0", "cgi.nph=0",
		// Errors are for the log, which is standard error.
		"display_errors=0", "display_startup_errors=0", "log_errors=1", "error_log=", "html_errors=0", "fastcgi.logging=0",
		// The script is the one that was deployed, and stays as it is.
		"cgi.fix_pathinfo=0", "user_ini.filename=", "doc_root=", "user_dir=", "open_basedir=",
		"opcache.enable=1", "opcache.validate_timestamps=0", "opcache.file_update_protection=0", "opcache.memory_consumption=" + strconv.Itoa(opcacheMB),
		"opcache.lockfile_path=${TMPDIR}", "opcache.preload=", "opcache.restrict_api=", "opcache.file_cache=",
		"variables_order=GPCS", "request_order=GP", "auto_globals_jit=1",
	}
}

// Load implements runtime.Executor. It starts nothing: the first request does.
func (e *Executor) Load(_ context.Context, f *runtime.Function) (runtime.Loaded, error) {
	program, err := e.find()
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(f.Module)
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("script %s: not a file", f.Module)
	}
	spec, err := e.Spec(f)
	if err != nil {
		return nil, err
	}
	l := &loaded{f: f, entry: f.Module, uses: usesMax}
	l.boot = filepath.Join(e.Work, "php-"+strconv.FormatUint(e.serial.Add(1), 36))
	seen, err := look(f.Module, e.Artifact(f.Module))
	if err != nil {
		return nil, err
	}
	_, function, _ := strings.Cut(f.Handler, ":")
	if err := seen.write(l.boot, f.Module, function); err != nil {
		return nil, err
	}
	l.exits, l.included = seen.exits, seen.exits || seen.shebang
	if function != "" {
		l.mode.Store(modeHandler)
	}
	for _, v := range f.Env {
		l.addVariable(v)
	}
	if f.Handler != "" {
		l.addVariable("_HANDLER=" + f.Handler)
	}
	spec.Argv = []string{program}
	for _, s := range settings(f.Memory(), filepath.Join(l.boot, "prepend.php")) {
		spec.Argv = append(spec.Argv, "-d", s)
	}
	spec.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "PHP_FCGI_MAX_REQUESTS=0", "PHP_FCGI_CHILDREN=0"}
	for _, v := range f.Env {
		if strings.IndexByte(v, '=') == lostLength {
			spec.Env = append(spec.Env, v)
		}
	}
	spec.Read = append(append(spec.Read, l.boot), configuration()...)
	if f.Files != "" {
		spec.Read = append(spec.Read, f.Files)
	}
	spec.MemoryMB += overheadMB
	spec.FileMB = fileMB
	l.Function = e.Add(child.Config{Name: f.Name, Few: fewProcesses, Spec: spec, Open: e.open, Ready: l.ready, Free: free, Gone: l.gone})
	return l, nil
}

// mode is what a file is known to be.
type mode = int32

const (
	modeUnknown mode = iota
	modeScript
	modeHandler
)

// loaded is a function and its pool.
type loaded struct {
	// Immutable after Load.
	*child.Function
	f        *runtime.Function
	entry    string
	boot     string // folder of its boot files
	exits    bool   // it may exit with another code than 0
	included bool   // run.php runs it, always
	uses     int
	names    []string // of the variables that are always the same
	values   []string

	mode atomic.Int32 // a mode
}

func (l *loaded) addVariable(s string) {
	name, value, _ := strings.Cut(s, "=")
	l.names, l.values = append(l.names, name), append(l.values, value)
	if name == usesVariable {
		if n, err := strconv.Atoi(value); err == nil && n > 0 {
			l.uses = n
		}
	}
}

// gone removes the boot files.
func (l *loaded) gone() error {
	if err := os.RemoveAll(l.boot); err != nil {
		return fmt.Errorf("boot files: %w", err)
	}
	return nil
}

// Invoke implements runtime.Loaded.
func (l *loaded) Invoke(inv *runtime.Invocation) runtime.Result {
	done := make(chan runtime.Result, 1)
	l.Start(inv, func(r runtime.Result) { done <- r })
	return <-done
}

// Start implements runtime.Starter.
func (l *loaded) Start(inv *runtime.Invocation, done func(runtime.Result)) {
	deadline := inv.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(l.f.Limit())
	}
	l.Pool.Do(inv, deadline, &task{l, inv, deadline, done})
}

// task is an invocation. It implements child.Task.
type task struct {
	l        *loaded
	inv      *runtime.Invocation
	deadline time.Time
	done     func(runtime.Result)
}

func (t *task) Done(r runtime.Result) { t.done(r) }

func (t *task) Serve(p *child.Process) (result runtime.Result, reusable bool) {
	l, inv := t.l, t.inv
	s := p.State.(*server)
	p.Begin(inv, t.deadline)
	var o outcome
	var err error
	if l.mode.Load() == modeHandler {
		o, err = l.call(p, s, inv)
	} else {
		o, err = l.run(p, s, inv)
	}
	if err == nil && o.ends {
		// What it was will be its exit code.
		p.Terminate()
		s.hangUp()
		err = errEnds
	}
	result = p.End(err)
	reusable = err == nil && p.Requests < l.uses && !(l.f.Processes > 0 && left(p.PID))
	if waiting, known := s.look(p.PID, p.Requests); known && waiting {
		l.Pool.Enough(0)
	} else if known {
		l.Pool.Enough(perProcessor * goruntime.NumCPU())
	}
	if !errors.Is(err, errEnds) && result.Reason == runtime.Exit && result.Exit == memoryExit {
		result = runtime.Result{Reason: runtime.Memory, Exit: memoryExit, Detail: "address space"}
	} else if result.Reason == runtime.OK || errors.Is(err, errEnds) && result.Reason == runtime.Exit && (result.Exit == 0 || o.kind == kindMemory) {
		result = o.result()
	}
	return result, reusable
}

// left tells whether a process has others below it, which may be dead: what was
// left to itself is its child too. Where the kernel does not say, it has.
func left(pid int) bool {
	name := strconv.Itoa(pid)
	text, err := os.ReadFile("/proc/" + name + "/task/" + name + "/children")
	return err != nil || len(text) > 0
}

var errEnds = errors.New("the process ends with its request")

// outcome is how a request has ended.
type outcome struct {
	kind byte // kindEnd when nothing is to be said
	ends bool // the process is to end, and its exit code is the request's
}

const (
	// fatalExit is PHP's exit code after an error that ends a script.
	fatalExit = 255
	// memoryExit is its exit code when malloc(3) has failed, the only end of its own in the midst of a request.
	memoryExit = 1
)

// result is the outcome of a request whose process lives on.
func (o outcome) result() runtime.Result {
	switch o.kind {
	case kindFatal, kindThrown:
		return runtime.Result{Reason: runtime.Exit, Exit: fatalExit}
	case kindMemory:
		return runtime.Result{Reason: runtime.Memory, Exit: fatalExit, Detail: "memory_limit"}
	}
	return runtime.Result{}
}

// run is one request of a script.
func (l *loaded) run(p *child.Process, s *server, inv *runtime.Invocation) (outcome, error) {
	script := l.entry
	known := l.mode.Load() == modeScript
	if !known || l.included {
		script = filepath.Join(l.boot, "run.php")
	}
	s.answer.reset()
	s.out = l.appendRequest(s, script, inv, !known)
	if err := s.exchange(p, inv); err != nil {
		return outcome{}, err
	}
	said := s.said()
	if rest, ok := bytes.CutPrefix(said, []byte{kindHandler}); ok {
		l.mode.Store(modeHandler)
		said = rest
	} else if !known && len(said) == 0 {
		l.mode.Store(modeScript)
	}
	if len(said) == 0 {
		return outcome{kind: kindEnd}, nil
	}
	return outcome{kind: said[0], ends: l.exits}, nil
}

// appendRequest makes all of a request but its body; with the event for a
// handler, if that is what it turns out to be.
func (l *loaded) appendRequest(s *server, script string, inv *runtime.Invocation, event bool) []byte {
	b := appendBegin(s.out[:0])
	b = append(b, make([]byte, recordBytes)...)
	at := len(b)
	for i, name := range l.names {
		b = appendParam(b, name, l.values[i])
	}
	length := false
	s.scratch = variables(s.scratch, inv.Env, func(name, value []byte) {
		b = appendParam(b, name, value)
		switch string(name) {
		case "CONTENT_LENGTH":
			length = true
		case fullURL:
			b = appendParam(b, []byte(requestURI), uriOf(value))
		}
	})
	if !length && inv.More == nil {
		b = appendParam(b, "CONTENT_LENGTH", strconv.Itoa(len(inv.Body)))
	}
	if event {
		s.text = s.event.Append(s.text[:0], inv.Env, time.Now())
		b = appendParam(b, []byte(eventVariable), s.text)
	}
	b = appendParam(b, "SCRIPT_FILENAME", script)
	return closeParams(b, at)
}

const (
	// eventVariable carries the event to boot/run.php and boot/loop.php, which take it out.
	eventVariable = "BATON_EVENT"
	fullURL       = "X_FULL_URL"
	requestURI    = "REQUEST_URI"
)

// uriOf is a URL's path and query.
func uriOf(url []byte) []byte {
	if _, rest, ok := bytes.Cut(url, []byte("://")); ok {
		if at := bytes.IndexByte(rest, '/'); at >= 0 {
			return rest[at:]
		}
	}
	return url
}

// call is one request of a handler.
func (l *loaded) call(p *child.Process, s *server, inv *runtime.Invocation) (outcome, error) {
	if !s.loops {
		if o, err := l.startLoop(s); err != nil || o.ends {
			return o, err
		}
	}
	s.answer.reset()
	b := append(s.out[:0], make([]byte, frameBytes)...)
	b = openArray(b)
	count := len(l.names)
	for i, name := range l.names {
		b = appendPair(b, name, l.values[i])
	}
	add := func(name, value []byte) {
		b = appendPair(b, name, value)
		count++
	}
	var script, info []byte
	s.scratch = variables(s.scratch, inv.Env, func(name, value []byte) {
		add(name, value)
		switch string(name) {
		case "SCRIPT_NAME":
			script = value
		case "PATH_INFO":
			info = value
		case fullURL:
			add([]byte(requestURI), uriOf(value))
		}
	})
	if s.events {
		s.text = s.event.Append(s.text[:0], inv.Env, time.Now())
		add([]byte(eventVariable), s.text)
	}
	b = append(b, `s:15:"SCRIPT_FILENAME";`...)
	b = appendText(b, l.entry)
	b = append(b, `s:8:"PHP_SELF";`...)
	b = appendText(b, slices.Concat(script, info))
	b = closeArray(b, frameBytes, count+2)
	vars := len(b) - frameBytes
	body := inv.Body
	var rest []byte
	if len(b)+len(body) > firstMax {
		body, rest = nil, body
	}
	more := inv.More != nil || len(rest) > 0
	b = append(b, body...)
	putFrame(b, vars, len(body), more)
	s.out = b
	return s.converse(p, inv, rest, more)
}

// startLoop has a process load the handler, and waits for that. An outcome with
// ends: it is no handler, or has failed to load.
func (l *loaded) startLoop(s *server) (outcome, error) {
	b := appendBegin(s.out[:0])
	b = append(b, make([]byte, recordBytes)...)
	at := len(b)
	for i, name := range l.names {
		b = appendParam(b, name, l.values[i])
	}
	b = appendParam(b, "REQUEST_METHOD", "GET")
	b = appendParam(b, "SCRIPT_NAME", "/"+l.f.Name)
	b = appendParam(b, "SCRIPT_FILENAME", filepath.Join(l.boot, "loop.php"))
	b = closeParams(b, at)
	s.out = appendRecord(b, recordStdin, 0)
	if _, err := s.conn.file.Write(s.out); err != nil {
		return outcome{}, fmt.Errorf("have the handler loaded: %w", err)
	}
	var head [replyBytes]byte
	if _, err := io.ReadFull(s.side.file, head[:]); err != nil {
		return outcome{}, fmt.Errorf("wait for the handler: %w", err)
	}
	if head[0] != kindLoaded && head[0] != kindEvents {
		return outcome{kind: kindFatal, ends: true}, nil
	}
	s.loops, s.events = true, head[0] == kindEvents
	return outcome{}, nil
}

// ready waits until a new process serves, with the script compiled, and with a
// handler loaded.
func (l *loaded) ready(p *child.Process) error {
	s := p.State.(*server)
	limit := time.Now().Add(readyTimeout)
	_ = s.conn.file.SetDeadline(limit)
	_ = s.side.file.SetDeadline(limit)
	err := l.readyRequest(p, s)
	if err == nil && l.mode.Load() == modeHandler {
		var o outcome
		if o, err = l.startLoop(s); err == nil && o.ends {
			err = errors.New("the handler's file does not load")
		}
	}
	_ = s.conn.file.SetDeadline(time.Time{})
	_ = s.side.file.SetDeadline(time.Time{})
	return err
}

// readyTimeout bounds a start, as child's own bound does.
const readyTimeout = 20 * time.Second

func (l *loaded) readyRequest(p *child.Process, s *server) error {
	var none runtime.Invocation
	none.Stdout = io.Discard
	s.answer.reset()
	s.out = l.appendRequest(s, filepath.Join(l.boot, "ready.php"), &none, false)
	if err := s.exchange(p, &none); err != nil {
		return fmt.Errorf("wait for PHP: %w", err)
	}
	_ = s.said() // the script does not compile: who calls it is told
	return nil
}
