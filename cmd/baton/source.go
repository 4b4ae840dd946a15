package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"baton/control"
	"baton/deploy/build"
	"baton/route"
)

// descriptorBytesMax bounds a descriptor's file: what the server accepts, and one.
const descriptorBytesMax = 64<<10 + 1

// describing are the flags that say what a function is to be, beside its code.
type describing struct {
	flags *pflag.FlagSet

	file, name, route, runtime, handler, target string
	env                                         []string
	memory                                      int // MB
	timeout                                     time.Duration
}

// addDescribing gives a command the flags. They say what one call is to do: none
// is a setting.
func addDescribing(flags *pflag.FlagSet) *describing {
	d := &describing{flags: flags}
	flags.StringVar(&d.file, "descriptor", "", "the descriptor's `file`; without it "+descriptorName+" in the folder, when it is there")
	flags.StringVar(&d.name, "name", "", "the function's name; without it that of the file or folder")
	flags.StringVar(&d.route, "route", "", "where it is served: `'METHOD /path'`, or /path for every method")
	flags.StringVar(&d.runtime, "runtime", "", "its runtime; without it what the code looks like")
	flags.StringVar(&d.handler, "handler", "", "its handler: the file or function that is run")
	flags.StringVar(&d.target, "target", "", "what C and C++ become: wasm or native")
	flags.StringArrayVar(&d.env, "env", nil, "a variable, `NAME=value`; may be given again")
	flags.IntVar(&d.memory, "memory", 0, "its memory in MB")
	flags.DurationVar(&d.timeout, "timeout", 0, "how long a request may take, as in 500ms or 10s")
	return d
}

// parcel is code with its descriptor, ready to be sent.
type parcel struct {
	path       string
	name       string // of the function
	descriptor []byte // complete
	assumed    []string

	tree     *build.Tree // of a folder
	fileName string      // of what is sent
}

// open finds out what is at a path, which may be empty: then the descriptor is
// all there is. served asks for the descriptor of the version of a function that
// serves, nil when there is none: where no descriptor is at hand, it says what
// the flags do not. It may be nil.
func (d *describing) open(path string, served func(name string) (json.RawMessage, error)) (*parcel, error) {
	s := &parcel{path: path}
	look := path // what its runtime is told by
	dir, folder := "", false
	if path != "" {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("there is nothing at %s: name a file or folder with code; `baton new go hello` begins one", path)
		case err != nil:
			return nil, fmt.Errorf("look at the code: %w", err)
		case info.IsDir():
			if dir, err = filepath.EvalSymlinks(path); err != nil { // a walk begins at no link
				return nil, fmt.Errorf("look at the code: %w", err)
			}
			look, folder = dir, true
		case !info.Mode().IsRegular():
			return nil, fmt.Errorf("%s: want a file or a folder, got %s", path, info.Mode().Type())
		case isArchive(path):
			temporary, remove, err := unpack(path)
			if err != nil {
				return nil, err
			}
			defer remove()
			look, dir = temporary, temporary
		}
		s.fileName = filepath.Base(path)
	}
	fields, err := d.readDescriptor(dir)
	if err != nil {
		return nil, err
	}
	described := len(fields) > 0
	if err := d.overlay(fields); err != nil {
		return nil, usageError{err}
	}
	if err := s.assume(fields, look); err != nil {
		return nil, err
	}
	if !described && served != nil {
		if err := d.keep(s, fields, served); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("write the descriptor: %w", err)
	}
	complete, err := route.ParseDescriptor(text)
	if err != nil {
		return nil, wrongDescriptor("the descriptor", route.FieldErrors(err))
	}
	s.name, s.descriptor = complete.Name, complete.AppendJSON(nil)
	if path != "" && !described && (complete.Runtime == "c" || complete.Runtime == "cpp") && complete.Target == "" {
		s.assumed = append(s.assumed, "target native: a program for the server's machine; --target wasm makes a WebAssembly module")
	}
	if folder {
		if err := s.list(dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// list reads what of a folder is sent. The descriptor is not code, so that a
// change of it builds nothing.
func (s *parcel) list(dir string) error {
	tree, err := build.ReadTree(dir, descriptorName)
	if err == nil && tree.OneFolder() {
		// Alone, that folder would be taken for the whole: see build.Extract.
		if _, e := os.Lstat(filepath.Join(dir, descriptorName)); e == nil {
			tree, err = build.ReadTree(dir)
		}
	}
	if err != nil {
		return said(dir, err)
	}
	s.tree, s.fileName = tree, "source.tar.gz"
	if len(tree.LeftOut) > 0 {
		s.assumed = append(s.assumed, "not uploaded: "+strings.Join(tree.LeftOut[:min(len(tree.LeftOut), 10)], ", "))
	}
	return nil
}

// said is an error of package build in words, without the reason for programs.
func said(path string, err error) error {
	var b *build.Error
	if !errors.As(err, &b) {
		return err
	}
	text := path + ": " + b.Detail
	if b.Hint != "" {
		text += ": " + b.Hint
	}
	return &toldError{text, err}
}

func isArchive(path string) bool {
	lower := strings.ToLower(path)
	for _, end := range []string{".zip", ".tar", ".tar.gz", ".tgz"} {
		if strings.HasSuffix(lower, end) {
			return true
		}
	}
	return false
}

// unpack looks into an archive as the server will, in a folder that remove
// removes.
func unpack(path string) (dir string, remove func(), err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", nil, fmt.Errorf("look at the code: %w", err)
	}
	defer file.Close()
	dir, err = os.MkdirTemp("", "baton-look-") // 0700
	if err != nil {
		return "", nil, fmt.Errorf("look at the code: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) }
	if err := build.Extract(dir, filepath.Base(path), file, build.Limits{}); err != nil {
		remove()
		return "", nil, said(path, err)
	}
	return dir, remove, nil
}

// readDescriptor reads the descriptor's file, if there is one, as fields. Its
// faults are told with the file's name; that it may lack fields which flags or
// the code give is none.
func (d *describing) readDescriptor(dir string) (map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	path := d.file
	if path == "" && dir != "" {
		path = filepath.Join(dir, descriptorName)
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return fields, nil
		}
	}
	if path == "" {
		return fields, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the descriptor: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, descriptorBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read the descriptor: %w", err)
	}
	var faults []*route.FieldError
	_, err = route.ParseDescriptor(text)
	for _, f := range route.FieldErrors(err) {
		missing := f.Got == "" && (f.Field == "name" || f.Field == "runtime")
		if !missing && f.Field != "module" { // the code becomes the module
			faults = append(faults, f)
		}
	}
	if len(faults) > 0 {
		return nil, wrongDescriptor(path, faults)
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("read the descriptor %s: %w", path, err)
	}
	delete(fields, "module")
	return fields, nil
}

// wrongDescriptor is the error of these fields.
func wrongDescriptor(what string, faults []*route.FieldError) error {
	list := make([]control.FieldFault, 0, len(faults))
	for _, f := range faults {
		list = append(list, control.FieldFault{Field: f.Field, Want: f.Want, Got: f.Got})
	}
	return fmt.Errorf("%s is wrong:%s", what, fieldList(list))
}

// overlay puts what the flags say over the fields.
func (d *describing) overlay(fields map[string]json.RawMessage) error {
	set := func(field string, value any) {
		text, err := json.Marshal(value)
		if err != nil {
			panic("baton: a flag's value is not JSON: " + err.Error())
		}
		fields[field] = text
	}
	for _, f := range []struct{ name, value string }{{"name", d.name}, {"runtime", d.runtime}, {"handler", d.handler}, {"target", d.target}} {
		if d.flags.Changed(f.name) {
			set(f.name, f.value)
		}
	}
	if d.flags.Changed("memory") {
		set("memory", d.memory)
	}
	if d.flags.Changed("timeout") {
		set("timeout", d.timeout.Seconds())
	}
	if d.flags.Changed("route") {
		method, path, err := parseRoute(d.route)
		if err != nil {
			return err
		}
		delete(fields, "method")
		if method != "" {
			set("method", method)
		}
		set("path", path)
	}
	if len(d.env) == 0 {
		return nil
	}
	env, err := addEnv(fields["env"], d.env)
	fields["env"] = env
	return err
}

// keep takes what nobody says from the version that serves.
func (d *describing) keep(s *parcel, fields map[string]json.RawMessage, served func(name string) (json.RawMessage, error)) error {
	var name string
	if json.Unmarshal(fields["name"], &name) != nil || !validName(name) {
		return nil // it is told what is wrong with it
	}
	text, err := served(name)
	if err != nil || text == nil {
		return err
	}
	var old map[string]json.RawMessage
	if err := json.Unmarshal(text, &old); err != nil {
		return fmt.Errorf("read the descriptor of %s: %w", name, err)
	}
	delete(old, "module")
	if string(old["runtime"]) != string(fields["runtime"]) { // they mean something to that one
		delete(old, "handler")
		delete(old, "target")
	}
	if _, given := fields["path"]; given {
		delete(old, "method")
	}
	if text, given := old["env"]; given && len(d.env) > 0 {
		if fields["env"], err = addEnv(text, d.env); err != nil {
			return err
		}
	}
	var kept []string
	for field, value := range old {
		if _, given := fields[field]; !given {
			fields[field] = value
			kept = append(kept, field)
		}
	}
	if len(kept) > 0 {
		slices.Sort(kept)
		s.assumed = append(s.assumed, "as in the version that serves: "+strings.Join(kept, ", "))
	}
	return nil
}

// addEnv puts NAME=value entries into an object of texts.
func addEnv(text json.RawMessage, entries []string) (json.RawMessage, error) {
	env := map[string]string{}
	if text != nil {
		if err := json.Unmarshal(text, &env); err != nil {
			return nil, fmt.Errorf("env: %w", err)
		}
	}
	for _, e := range entries {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--env %q: want NAME=value", e)
		}
		env[name] = value
	}
	return json.Marshal(env)
}

// parseRoute reads "METHOD /path" or "/path".
func parseRoute(text string) (method, path string, err error) {
	words := strings.Fields(text)
	switch {
	case len(words) == 1 && strings.HasPrefix(words[0], "/"):
		return "", words[0], nil
	case len(words) == 2 && strings.HasPrefix(words[1], "/"):
		return strings.ToUpper(words[0]), words[1], nil
	}
	return "", "", fmt.Errorf("--route %q: want a method and a path, as in 'POST /api/hello', or a path alone, as in /api/hello", text)
}

// assume fills in the runtime, handler and name that nobody said.
func (s *parcel) assume(fields map[string]json.RawMessage, look string) error {
	set := func(field, value string) {
		if text, err := json.Marshal(value); err == nil {
			fields[field] = text
		}
	}
	if _, given := fields["runtime"]; !given && s.path != "" {
		runtime, handler, assumed, err := build.Detect(look)
		var b *build.Error
		if errors.As(err, &b) {
			return fmt.Errorf("%s: %s: %s; or say it with --runtime", s.path, b.Detail, b.Hint)
		} else if err != nil {
			return err
		}
		set("runtime", runtime)
		if _, given := fields["handler"]; !given && handler != "" {
			set("handler", handler)
		}
		s.assumed = append(s.assumed, assumed...)
	}
	if _, given := fields["name"]; !given && s.path != "" {
		name, from, err := nameOf(s.path)
		if err != nil {
			return err
		}
		set("name", name)
		s.assumed = append(s.assumed, "name "+name+", after "+from)
	}
	return nil
}

// plainNames are file names that say nothing of a function; its folder does.
var plainNames = map[string]bool{"main": true, "index": true, "module": true, "function": true, "handler": true, "app": true, "lib": true, "mod": true}

// nameOf makes a function's name of a path's.
func nameOf(path string) (name, from string, err error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", "", fmt.Errorf("name the function: %w", err)
	}
	base := filepath.Base(absolute)
	from = base
	if info, err := os.Stat(absolute); err == nil && !info.IsDir() {
		if base = stem(base); plainNames[base] {
			base = filepath.Base(filepath.Dir(absolute))
			from = "the folder " + base
		}
	}
	name = strings.Map(func(r rune) rune {
		if r < 0x80 && validName("a"+string(r)) {
			return r
		}
		return '-'
	}, base)
	name = strings.TrimLeft(name, "._-")
	name = name[:min(len(name), 64)]
	if !validName(name) {
		return "", "", usageError{fmt.Errorf("no name can be made of %q: give one with --name", base)}
	}
	return name, from, nil
}

// stem is a file's name without what says its kind.
func stem(base string) string {
	for _, end := range []string{".tar.gz", filepath.Ext(base)} {
		if cut, ok := strings.CutSuffix(base, end); ok && cut != "" && end != "" {
			return cut
		}
	}
	return base
}

// upload is what is sent. end must be called when it was; read, which may be
// nil, is told how much of a folder was packed.
func (s *parcel) upload(read func(bytes int64)) (u control.Upload, end func(), err error) {
	u = control.Upload{FileName: s.fileName, Descriptor: s.descriptor}
	if s.tree == nil {
		file, err := os.Open(s.path)
		if err != nil {
			return u, nil, fmt.Errorf("read the code: %w", err)
		}
		info, err := file.Stat()
		if err == nil && info.Size() == 0 {
			err = fmt.Errorf("%s is empty", s.path)
		}
		if most := build.DefaultLimits().InputBytes; err == nil && info.Size() > most {
			err = fmt.Errorf("%s has %d bytes, at most %d can be uploaded", s.path, info.Size(), most)
		}
		if err != nil {
			_ = file.Close()
			return u, nil, err
		}
		u.Code, u.Size = file, info.Size()
		return u, func() { _ = file.Close() }, nil
	}
	from, to := io.Pipe()
	packed := make(chan struct{})
	go func() { // ended by end, which waits
		defer close(packed)
		_ = to.CloseWithError(s.tree.Pack(to, read))
	}()
	u.Code, u.Size = from, -1
	return u, func() { _ = from.Close(); <-packed }, nil
}
