package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// configNames are what a configuration file in a data directory may be called.
var configNames = []string{"baton.toml", "baton.yaml", "baton.yml"}

// configBytesMax bounds a configuration file: all settings together are a few
// hundred bytes.
const configBytesMax = 64 << 10

// Where a setting's value comes from, as `baton serve --check` says it.
const (
	fromDefault     = "default"
	fromFile        = "file"
	fromEnvironment = "environment"
	fromFlag        = "flag"
)

// twinKey annotates a flag with its variable, sourceKey with where its value
// comes from.
const (
	twinKey   = "baton_environment"
	sourceKey = "baton_source"
)

// twin makes a flag a setting: what is not given is taken from the variable, and
// then from the configuration file's key of the flag's name.
func twin(flags *pflag.FlagSet, flag, variable string) {
	f := flags.Lookup(flag)
	f.Usage += " (" + variable + ")"
	if err := flags.SetAnnotation(flag, twinKey, []string{variable}); err != nil {
		panic("baton: a twin of a flag that does not exist: " + flag)
	}
}

// settings fills in the flags that were not given: from the environment, then
// from the configuration file. Every fault is reported at once.
func (c *commands) settings(cmd *cobra.Command) error {
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		variable := f.Annotations[twinKey]
		if len(variable) == 0 {
			return
		}
		if f.Changed {
			setSource(f, fromFlag)
			return
		}
		value := c.env(variable[0])
		if value == "" {
			return
		}
		setSource(f, fromEnvironment)
		if err := f.Value.Set(value); err != nil {
			errs = append(errs, fmt.Errorf("%s=%q in the environment: %w", variable[0], value, err))
		}
	})
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	if cmd.Hidden {
		return nil // started by serve, which has read the file
	}
	file, err := c.configFile(cmd.Flags().Changed("config"))
	if err != nil {
		return usageError{err}
	}
	return c.apply(cmd, file)
}

// config is a configuration file that was read: settings by flag, as texts.
type config struct {
	path   string
	values map[string]string
}

// configFile reads the file that --config names, or the one in the data
// directory. Neither: an empty config. An empty --config says that there is none.
func (c *commands) configFile(given bool) (config, error) {
	if c.config != "" {
		return readConfig(c.config)
	}
	if given {
		return config{}, nil
	}
	var found []string
	for _, name := range configNames {
		path := filepath.Join(c.data, name)
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		} else if !errors.Is(err, fs.ErrNotExist) && !isNotDirectory(err) {
			return config{}, fmt.Errorf("configuration: %w", err)
		}
	}
	switch len(found) {
	case 0:
		return config{}, nil
	case 1:
		return readConfig(found[0])
	}
	return config{}, fmt.Errorf("there are %s: keep one of them, or name it with --config", strings.Join(found, " and "))
}

// readConfig reads a TOML or YAML file whose top level holds settings.
func readConfig(path string) (config, error) {
	wrong := func(err error) (config, error) { return config{}, fmt.Errorf("configuration %s: %w", path, err) }
	file, err := os.Open(path)
	if err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, configBytesMax+1))
	if err != nil {
		return wrong(err)
	}
	if len(text) > configBytesMax {
		return wrong(fmt.Errorf("it is larger than %d bytes", configBytesMax))
	}
	values, err := parseConfig(filepath.Ext(path), text)
	if err != nil {
		return wrong(err)
	}
	return config{path, values}, nil
}

func parseConfig(extension string, text []byte) (map[string]string, error) {
	var raw map[string]any
	switch extension {
	case ".toml":
		if err := toml.Unmarshal(text, &raw); err != nil {
			return nil, err
		}
	case ".yaml", ".yml":
		d := yaml.NewDecoder(bytes.NewReader(text))
		if err := d.Decode(&raw); err != nil && !errors.Is(err, io.EOF) { // EOF: an empty document
			return nil, err
		}
		if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
			return nil, errors.New("want one document")
		}
	default:
		return nil, fmt.Errorf("want a name that ends in .toml or .yaml, got %q", extension)
	}
	values := make(map[string]string, len(raw))
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		switch v := raw[key].(type) {
		case string:
			values[key] = v
		case bool:
			values[key] = strconv.FormatBool(v)
		case int:
			values[key] = strconv.Itoa(v)
		case int64:
			values[key] = strconv.FormatInt(v, 10)
		case float64:
			values[key] = strconv.FormatFloat(v, 'f', -1, 64)
		default:
			errs = append(errs, fmt.Errorf("%s: want a text, a number, true or false", key))
		}
	}
	return values, errors.Join(errs...)
}

// apply sets what the file says, after it has checked all of it: also the
// settings of other commands, so that a slip does not wait for the day on which
// it matters.
func (c *commands) apply(cmd *cobra.Command, file config) error {
	known := knownSettings(c.fresh())
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(file.values)) {
		value := file.values[key]
		same, ok := known[key]
		if !ok {
			err := fmt.Errorf("unknown key %q", key)
			if near := nearest(key, slices.Sorted(maps.Keys(known))); near != "" {
				err = fmt.Errorf("%w: did you mean %q?", err, near)
			}
			errs = append(errs, err)
			continue
		}
		if err := setAll(same, value); err != nil {
			errs = append(errs, fmt.Errorf("%s = %q: %w", key, value, err))
			continue
		}
		f := cmd.Flags().Lookup(key)
		if f == nil || f.Changed || source(f) != fromDefault {
			continue
		}
		if err := f.Value.Set(value); err != nil {
			errs = append(errs, fmt.Errorf("%s = %q: %w", key, value, err))
		}
		setSource(f, fromFile)
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{fmt.Errorf("configuration %s: %w", file.path, err)}
	}
	c.configPath = file.path
	return nil
}

func setAll(same []*pflag.Flag, value string) error {
	for _, f := range same {
		if err := f.Value.Set(value); err != nil {
			return err
		}
	}
	return nil
}

// knownSettings are the flags of all commands that a file may set, by name.
func knownSettings(root *cobra.Command) map[string][]*pflag.Flag {
	known := make(map[string][]*pflag.Flag)
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) {
				if len(f.Annotations[twinKey]) > 0 && f.Name != "config" {
					known[f.Name] = append(known[f.Name], f)
				}
			})
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	return known
}

// fresh is another command tree, to try values on.
func (c *commands) fresh() *cobra.Command {
	other := &commands{out: io.Discard, err: io.Discard, env: c.env, now: c.now, demo: c.demo}
	return other.root()
}

func setSource(f *pflag.Flag, from string) {
	if f.Annotations == nil {
		f.Annotations = make(map[string][]string)
	}
	f.Annotations[sourceKey] = []string{from}
}

func source(f *pflag.Flag) string {
	if from := f.Annotations[sourceKey]; len(from) > 0 {
		return from[0]
	}
	return fromDefault
}

// nearest is the known name that is a slip away from name, or empty.
func nearest(name string, known []string) string {
	best, distance := "", 1+max(1, len(name)/3)
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return len(a) + len(b) // no slip
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
