package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"baton/deploy/build"
	"baton/route"
)

// opened is what the flags in args make of a path.
func opened(path string, served func(string) (json.RawMessage, error), args ...string) (*parcel, error) {
	flags := pflag.NewFlagSet("deploy", pflag.ContinueOnError)
	d := addDescribing(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return d.open(path, served)
}

// lay writes files below a new folder called hello.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hello")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDeployDescribes(t *testing.T) {
	t.Parallel()
	goFolder := map[string]string{"go.mod": "module x\n", "main.go": "package main"}
	with := func(name, text string) map[string]string {
		files := map[string]string{name: text}
		for n, f := range goFolder {
			files[n] = f
		}
		return files
	}
	serves := func(string) (json.RawMessage, error) {
		return json.RawMessage(`{"name":"hello","runtime":"c","handler":"x","target":"wasm","memory":64,"method":"GET","path":"/old","env":{"A":"1"},"module":"import/x"}`), nil
	}
	for _, law := range []struct {
		name   string
		files  map[string]string
		below  string // of the folder; empty: itself
		served func(string) (json.RawMessage, error)
		args   []string
		want   string   // the descriptor
		tells  []string // what is assumed
		err    string
	}{
		{name: "a folder with go.mod", files: goFolder, want: `{"name":"hello","runtime":"go"}`, tells: []string{"runtime go, because there is a go.mod", "name hello, after hello"}},
		{name: "a file", files: map[string]string{"resize.c": "x"}, below: "resize.c", want: `{"name":"resize","runtime":"c"}`, tells: []string{"target native", "name resize, after resize.c"}},
		{name: "a file whose name says nothing", files: map[string]string{"main.py": "x"}, below: "main.py", want: `{"name":"hello","runtime":"python"}`, tells: []string{"name hello, after the folder hello"}},
		{name: "a script", files: map[string]string{"run": "#!/bin/sh\n"}, below: "run", want: `{"name":"run","runtime":"native"}`, tells: []string{"starts with #!"}},
		{name: "a name with signs", files: map[string]string{"_my func!.php": "x"}, below: "_my func!.php", want: `{"name":"my-func-","runtime":"php"}`},
		{name: "every flag", files: goFolder, args: []string{"--name", "n", "--route", "post /p", "--runtime", "tinygo", "--handler", "h", "--memory", "64", "--timeout", "1500ms", "--env", "A=b=c", "--env", "B="},
			want: `{"name":"n","runtime":"tinygo","handler":"h","memory":64,"timeout":1.5,"method":"POST","path":"/p","env":{"A":"b=c","B":""}}`},
		{name: "descriptor.json", files: with("descriptor.json", `{"name":"j","runtime":"go","method":"GET","path":"/j","env":{"A":"1"}}`), want: `{"name":"j","runtime":"go","method":"GET","path":"/j","env":{"A":"1"}}`},
		{name: "descriptor.json without name and runtime", files: with("descriptor.json", `{"path":"/j"}`), want: `{"name":"hello","runtime":"go","path":"/j"}`},
		{name: "descriptor.json with a module of its own", files: with("descriptor.json", `{"module":"../x"}`), want: `{"name":"hello","runtime":"go"}`},
		{name: "flags over descriptor.json", files: with("descriptor.json", `{"method":"GET","path":"/j","env":{"A":"1","B":"2"},"memory":32}`), args: []string{"--route", "/k", "--env", "A=3"},
			want: `{"name":"hello","runtime":"go","memory":32,"path":"/k","env":{"A":"3","B":"2"}}`},
		{name: "descriptor.json with a wrong field", files: with("descriptor.json", `{"memry":1,"timeout":"x"}`), err: "timeout: want"},
		{name: "descriptor.json with an unknown field", files: with("descriptor.json", `{"memry":1}`), err: `did you mean "memory"?`},
		{name: "descriptor.json with a field twice", files: with("descriptor.json", `{"memory":1,"memory":2}`), err: "memory: want to be given once"},
		{name: "descriptor.json that is none", files: with("descriptor.json", `memory: 1`), err: "one JSON object"},
		{name: "what serves says the rest", files: goFolder, served: serves, want: `{"name":"hello","runtime":"go","memory":64,"method":"GET","path":"/old","env":{"A":"1"}}`,
			tells: []string{"as in the version that serves: env, memory, method, path"}},
		{name: "what serves, in the same language", files: map[string]string{"a.c": "x"}, served: serves, want: `{"name":"hello","runtime":"c","handler":"x","memory":64,"method":"GET","path":"/old","env":{"A":"1"},"target":"wasm"}`},
		{name: "flags over what serves", files: goFolder, served: serves, args: []string{"--route", "/new", "--env", "B=2", "--memory", "16"}, want: `{"name":"hello","runtime":"go","memory":16,"path":"/new","env":{"A":"1","B":"2"}}`},
		{name: "descriptor.json is the whole, whatever serves", files: with("descriptor.json", `{"name":"hello"}`), served: serves, want: `{"name":"hello","runtime":"go"}`},
		{name: "what serves cannot be asked", files: goFolder, served: func(string) (json.RawMessage, error) { return nil, errors.New("no server") }, err: "no server"},
		{name: "nothing of that name serves", files: goFolder, served: func(string) (json.RawMessage, error) { return nil, nil }, want: `{"name":"hello","runtime":"go"}`},
		{name: "several things", files: map[string]string{"a.c": "x", "b.py": "x"}, err: "could be several things: a.c (c), b.py (python)"},
		{name: "several things, and it is said which", files: map[string]string{"a.c": "x", "b.py": "x"}, args: []string{"--runtime", "python"}, want: `{"name":"hello","runtime":"python"}`},
		{name: "nothing", files: map[string]string{"a.txt": "x"}, err: "looks like a function"},
		{name: "an unknown runtime", files: goFolder, args: []string{"--runtime", "cobol"}, err: "runtime: want one of"},
		{name: "a wrong name", files: goFolder, args: []string{"--name", "../x"}, err: "name: want"},
		{name: "a wrong route", files: goFolder, args: []string{"--route", "POST api"}, err: "as in 'POST /api/hello'"},
		{name: "a wrong method", files: goFolder, args: []string{"--route", "FETCH /x"}, err: "method: want"},
		{name: "a wrong variable", files: goFolder, args: []string{"--env", "A"}, err: "want NAME=value"},
		{name: "too much memory", files: goFolder, args: []string{"--memory", "5000", "--timeout", "2h"}, err: "memory: want a whole number of MB from 1 to 4096"},
	} {
		s, err := opened(filepath.Join(lay(t, law.files), law.below), law.served, law.args...)
		if law.err != "" {
			if err == nil || !strings.Contains(err.Error(), law.err) {
				t.Errorf("%s: %v, want %q", law.name, err, law.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", law.name, err)
			continue
		}
		want, err := route.ParseDescriptor([]byte(law.want))
		if err != nil {
			t.Fatal(law.name, err)
		}
		if got := string(s.descriptor); got != string(want.AppendJSON(nil)) {
			t.Errorf("%s: %s, want %s", law.name, got, law.want)
		}
		for _, part := range law.tells {
			if !strings.Contains(strings.Join(s.assumed, "\n"), part) {
				t.Errorf("%s: told %q, want %q", law.name, s.assumed, part)
			}
		}
	}
	link := filepath.Join(t.TempDir(), "linked")
	if err := os.Symlink(lay(t, map[string]string{"a.c": "x"}), link); err != nil {
		t.Fatal(err)
	}
	if s, err := opened(link, nil); err != nil || string(s.descriptor) != `{"name":"linked","runtime":"c"}` || s.tree == nil || s.tree.Bytes != 1 {
		t.Errorf("a link to a folder: %+v, %v", s, err)
	}
	if _, err := opened(filepath.Join(t.TempDir(), "none"), nil); err == nil || !strings.Contains(err.Error(), "there is nothing at") {
		t.Errorf("a path that is not there: %v", err)
	}
}

// What is sent of a folder is what the server unpacks; the descriptor is not
// part of the code, so that a change of it builds nothing.
func TestDeploySendsFolder(t *testing.T) {
	t.Parallel()
	for _, law := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"a folder", map[string]string{"main.c": "x", "descriptor.json": "{}", "sub/descriptor.json": "{}"}, []string{"main.c", "sub/descriptor.json"}},
		{"a folder with everything in one folder", map[string]string{"src/main.c": "x", "src/a/b.c": "y", "descriptor.json": "{}"}, []string{"descriptor.json", "src/a/b.c", "src/main.c"}},
	} {
		s, err := opened(lay(t, law.files), nil)
		if err != nil {
			t.Fatal(law.name, err)
		}
		u, end, err := s.upload(nil)
		if err != nil {
			t.Fatal(law.name, err)
		}
		if u.Size >= 0 {
			t.Errorf("%s: its packed size is said to be %d before it is packed", law.name, u.Size)
		}
		out := t.TempDir()
		if err := build.Extract(out, u.FileName, u.Code, build.Limits{}); err != nil {
			t.Fatal(law.name, err)
		}
		end()
		var got []string
		_ = fs.WalkDir(os.DirFS(out), ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				got = append(got, name)
			}
			return err
		})
		if !slices.Equal(got, law.want) {
			t.Errorf("%s: %q, want %q", law.name, got, law.want)
		}
	}
}

// end waits for the goroutine that packs, also when nobody reads what it packs.
func TestUploadEndsEarly(t *testing.T) {
	t.Parallel()
	s, err := opened(lay(t, map[string]string{"main.c": strings.Repeat("x", 1<<20)}), nil)
	if err != nil {
		t.Fatal(err)
	}
	u, end, err := s.upload(nil)
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := u.Code.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read after the end: %v", err)
	}
}

func TestDeployArchive(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for name, text := range map[string]string{"hi/main.php": "<?php", "hi/descriptor.json": `{"path":"/hi"}`} {
		f, err := w.Create(name)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "greeting.zip")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := opened(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(s.descriptor); got != `{"name":"greeting","runtime":"php","path":"/hi"}` || s.fileName != "greeting.zip" || s.tree != nil {
		t.Errorf("%s, %+v", got, s)
	}
	if err := os.WriteFile(path, []byte("PK\x03\x04"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := opened(path, nil); err == nil || !strings.HasPrefix(err.Error(), path) {
		t.Errorf("a damaged archive: %v", err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Each starter is what its runtime's detection takes it for, and its descriptor
// is right.
func TestNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, runtime := range starterRuntimes() {
		folder := filepath.Join(dir, "fn-"+runtime)
		got := baton(nil, "new", runtime, folder)
		if got.code != exitOK || !strings.HasSuffix(got.out, "\n\nNext: baton deploy "+folder+"\n") {
			t.Errorf("new %s: %+v", runtime, got)
			continue
		}
		s, err := opened(folder, nil)
		if err != nil {
			t.Errorf("%s: %v", runtime, err)
			continue
		}
		d, err := route.ParseDescriptor(s.descriptor)
		if err != nil || d.Name != "fn-"+runtime || d.Runtime != runtime || d.Path != "/api/fn-"+runtime {
			t.Errorf("%s: %s, %v", runtime, s.descriptor, err)
		}
		if kind, _, _, err := build.Detect(folder); err != nil || kind != runtime && !(runtime == "tinygo" && kind == "go") {
			t.Errorf("%s looks like %s, %v", runtime, kind, err)
		}
		for _, name := range []string{"main.go.txt", "go.mod.txt"} {
			if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
				t.Errorf("%s: %s keeps the name it is embedded under", runtime, name)
			}
		}
		for _, name := range strings.Split(strings.TrimPrefix(strings.Split(got.out, "\n")[0], "wrote "), ", ") {
			if text, err := os.ReadFile(name); err != nil || bytes.Contains(text, []byte("{{name}}")) {
				t.Errorf("%s: %v, or it does not have the function's name", name, err)
			}
		}
		again := baton(nil, "new", runtime, folder)
		if again.code != exitFailure || !strings.Contains(again.err, "is there already") {
			t.Errorf("new %s over what is there: %+v", runtime, again)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "fn-native", "function")); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("the script cannot be executed: %v", err)
	}
}

func TestNewLaw(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, law := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"go"}, exitUsage, "want a runtime"},
		{[]string{"golang", "x"}, exitUsage, `there is no runtime "golang"`},
		{[]string{"rust-lang", "x"}, exitUsage, "want one of"},
		{[]string{"pyton", "x"}, exitUsage, "did you mean python?"},
		{[]string{"go", filepath.Join(dir, "-x")}, exitUsage, "the first a letter or digit"},
		{[]string{"go", filepath.Join(dir, "a b")}, exitUsage, `the name "a b"`},
		{[]string{"go", filepath.Join(dir, "none", "x")}, exitFailure, "no such file"},
		{[]string{"c++", filepath.Join(dir, "x")}, exitOK, ""},
	} {
		got := baton(nil, append([]string{"new"}, append(law.args, "--data", dir)...)...)
		if strings.HasPrefix(law.args[len(law.args)-1], filepath.Join(dir, "-")) {
			got = baton(nil, append([]string{"new", "--data", dir, "--"}, law.args...)...)
		}
		if got.code != law.code || !strings.Contains(got.err, law.err) {
			t.Errorf("new %q: %+v, want %d and %q", law.args, got, law.code, law.err)
		}
	}
}

func TestShellWord(t *testing.T) {
	t.Parallel()
	for _, law := range [][2]string{{"http://a:80/b_c-d", "http://a:80/b_c-d"}, {"a b", "'a b'"}, {"it's", `'it'\''s'`}, {"", "''"}, {"$(x)", "'$(x)'"}, {"a&b", "'a&b'"}, {"~x", "'~x'"}} {
		if got := shellWord(law[0]); got != law[1] {
			t.Errorf("shellWord(%q) = %s, want %s", law[0], got, law[1])
		}
	}
}

func TestCallOf(t *testing.T) {
	t.Parallel()
	for _, law := range []struct{ key, address, command string }{
		{"ANY:/api/hello", "http://h/api/hello", `curl -d '{"name":"Alice"}' http://h/api/hello`},
		{"GET:/ping", "http://h/ping", "curl http://h/ping"},
		{"HEAD:/ping", "http://h/ping", "curl -I http://h/ping"},
		{"PUT:/u/{id}", "http://h/u/{id}", `curl -X PUT -d '{"name":"Alice"}' http://h/function/hello`},
		{"DELETE:/it's", "http://h/it's", `curl -X DELETE 'http://h/it'\''s'`},
	} {
		address, command := callOf("http://h", law.key, "/function/hello")
		if address != law.address || command != law.command {
			t.Errorf("%s: %s and %s", law.key, address, command)
		}
	}
}
