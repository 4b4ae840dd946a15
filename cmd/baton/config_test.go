package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// settled is a flag of serve after every source was asked.
func settled(t *testing.T, flag string, env map[string]string, args ...string) (value, from string, err error) {
	t.Helper()
	c := &commands{out: &bytes.Buffer{}, err: &bytes.Buffer{}, env: func(name string) string { return env[name] }}
	root := c.root()
	cmd, _, err := root.Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	cmd.RunE = func(*cobra.Command, []string) error { return nil }
	root.SetArgs(append([]string{"serve"}, args...))
	err = root.Execute()
	f := cmd.Flag(flag)
	return f.Value.String(), source(f), err
}

func TestSettingsPrecedence(t *testing.T) {
	t.Parallel()
	write := func(dir, name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data := t.TempDir()
	write(data, "baton.toml", "listen = ':3'\nworkers = 3\ndrain = '7s'\n")
	elsewhere := t.TempDir()
	other := write(elsewhere, "other.yaml", "listen: ':4'\ndebug: true\nwait: 3m\n")
	withData := write(elsewhere, "data.yaml", "data: /srv/elsewhere\n")
	env := map[string]string{"BATON_LISTEN": ":2"}
	for _, law := range []struct {
		name, flag string
		env        map[string]string
		args       []string
		want, from string
	}{
		{"the default", "stall", nil, nil, "10s", fromDefault},
		{"the file in the data directory", "workers", nil, nil, "3", fromFile},
		{"the variable wins over the file", "listen", env, nil, ":2", fromEnvironment},
		{"the flag wins over both", "listen", env, []string{"--listen", ":1"}, ":1", fromFlag},
		{"the flag wins also with the default's value", "listen", env, []string{"--listen", ":8080"}, ":8080", fromFlag},
		{"--config instead", "listen", nil, []string{"--config", other}, ":4", fromFile},
		{"… and nothing of the other", "workers", nil, []string{"--config", other}, "0", fromDefault},
		{"the variable names the file", "debug", map[string]string{"BATON_CONFIG": other}, nil, "true", fromFile},
		{"an empty --config: no file", "workers", nil, []string{"--config", ""}, "0", fromDefault},
		{"a file may name the data directory", "data", nil, []string{"--config", withData}, "", fromFlag},
	} {
		args := append([]string{"--data", data}, law.args...)
		value, from, err := settled(t, law.flag, law.env, args...)
		if law.want == "" {
			law.want = data
		}
		if err != nil || value != law.want || from != law.from {
			t.Errorf("%s: --%s is %s (%s), %v; want %s (%s)", law.name, law.flag, value, from, err, law.want, law.from)
		}
	}
	if value, from, err := settled(t, "data", nil, "--config", withData); err != nil || value != "/srv/elsewhere" || from != fromFile {
		t.Errorf("data of a file: %s (%s), %v", value, from, err)
	}
}

func TestConfigLaw(t *testing.T) {
	t.Parallel()
	for _, law := range []struct {
		name, file, text string
		err              []string // parts of the error; none: it is accepted
	}{
		{"empty", "baton.toml", "", nil},
		{"empty YAML", "baton.yaml", "", nil},
		{"comments", "baton.yml", "# nothing\n", nil},
		{"a setting of another command", "baton.toml", "wait = '1m'\njson = true\n", nil},
		{"a wrong value of another command", "baton.toml", "wait = 'long'\n", []string{"wait", "long"}},
		{"an unknown key with a near one", "baton.toml", "lisen = ':1'\n", []string{`unknown key "lisen"`, `"listen"`}},
		{"a key with an underline", "baton.yaml", "token_file: x\n", []string{`"token-file"`}},
		{"every fault at once", "baton.yaml", "lisen: ':1'\nworkers: many\n", []string{"lisen", "workers"}},
		{"an unknown key", "baton.toml", "colour = 'red'\n", []string{`unknown key "colour"`}},
		{"a file that names a file", "baton.toml", "config = 'x.toml'\n", []string{`unknown key "config"`}},
		{"a table", "baton.toml", "[serve]\nlisten = ':1'\n", []string{"serve: want a text"}},
		{"a list", "baton.yaml", "listen: [a, b]\n", []string{"listen: want a text"}},
		{"no value", "baton.yaml", "listen:\n", []string{"listen: want a text"}},
		{"a key twice, TOML", "baton.toml", "workers = 1\nworkers = 2\n", []string{"workers"}},
		{"a key twice, YAML", "baton.yaml", "workers: 1\nworkers: 2\n", []string{"workers"}},
		{"two documents", "baton.yaml", "workers: 1\n---\nworkers: 2\n", []string{"want one document"}},
		{"a list as the document", "baton.yaml", "- workers\n", []string{"cannot unmarshal"}},
		{"broken TOML", "baton.toml", "workers = \n", []string{"line 1"}},
		{"broken YAML", "baton.yaml", "workers: [1\n", []string{"line 1"}},
		{"too large", "baton.toml", strings.Repeat("# x\n", configBytesMax), []string{"larger than"}},
		{"another name", "baton.json", "{}", []string{"ends in .toml or .yaml"}},
	} {
		path := filepath.Join(t.TempDir(), law.file)
		if err := os.WriteFile(path, []byte(law.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := baton(nil, "version", "--config", path)
		if law.err == nil {
			if got.code != exitOK {
				t.Errorf("%s: %+v", law.name, got)
			}
			continue
		}
		for _, part := range append(law.err, path) {
			if got.code != exitUsage || !strings.Contains(got.err, part) {
				t.Errorf("%s: %+v, want %q", law.name, got, part)
			}
		}
	}
	data := t.TempDir()
	for _, name := range configNames[:2] {
		if err := os.WriteFile(filepath.Join(data, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := baton(nil, "version", "--data", data); got.code != exitUsage || !strings.Contains(got.err, "keep one of them") {
		t.Errorf("two files: %+v", got)
	}
	if got := baton(nil, "version", "--config", filepath.Join(data, "none.toml")); got.code != exitUsage {
		t.Errorf("a file that is not there: %+v", got)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(true, []byte("listen = ':8080'\nworkers = 2\n[x]\n"))
	f.Add(false, []byte("listen: ':8080'\nworkers: 2\na: &a [*a]\n"))
	f.Add(false, []byte("a: &a {b: 1}\nc:\n  <<: *a\n"))
	f.Fuzz(func(t *testing.T, isTOML bool, text []byte) {
		extension := ".yaml"
		if isTOML {
			extension = ".toml"
		}
		values, err := parseConfig(extension, text)
		if err == nil && values == nil {
			t.Error("neither values nor an error")
		}
	})
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"data", "drain", "listen", "workers"}
	for _, law := range [][2]string{{"worker", "workers"}, {"Listen", "listen"}, {"lsiten", "listen"}, {"dat", "data"}, {"colour", ""}, {"", ""}, {strings.Repeat("x", 100), ""}} {
		if got := nearest(law[0], known); got != law[1] {
			t.Errorf("nearest(%q) = %q, want %q", law[0], got, law[1])
		}
	}
}
