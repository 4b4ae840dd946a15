package php

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"baton/sandbox"
)

//go:embed boot/*.php
var boot embed.FS

// ErrMissing says that PHP is not installed, and what to install.
var ErrMissing = errors.New("php-cgi is not installed: install Debian's package php-cgi (apt-get install php-cgi)")

// find finds php-cgi.
func find() (string, error) {
	for _, name := range []string{"php-cgi", "/usr/bin/php-cgi", "/usr/local/bin/php-cgi"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		// Without the links of update-alternatives(1) on the way.
		if path, err = filepath.EvalSymlinks(path); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", ErrMissing
}

// configuration is where PHP's own settings lie, by system.
func configuration() []string {
	return []string{"/etc/php", "/etc/php.ini", "/etc/php.d"}
}

// source is what a look at a function's files has told.
type source struct {
	streams   bool     // php://stdin or php://stdout is named
	constants []string // of STDIN, STDOUT and STDERR: those that are named
	exits     bool     // a script may exit with another code than 0
	shebang   bool     // the first line of the entry is an interpreter's
}

const (
	// scanMax bounds the files that are looked at, in bytes together. Beyond it
	// everything is taken to be there, which costs some microseconds per request.
	scanMax = 64 << 20
)

var (
	streamNames = regexp.MustCompile(`(?i)php://std(in|out)`)
	exitCalls   = regexp.MustCompile(`(?i)\b(?:exit|die)\b\s*(\(?)\s*(\)|0\s*\)|.?)`)
	constants   = []string{"STDIN", "STDOUT", "STDERR"}
)

// look looks at all PHP files of what a function may read.
func look(entry, artifact string) (s source, err error) {
	head, err := readHead(entry)
	if err != nil {
		return s, fmt.Errorf("script: %w", err)
	}
	s.shebang = strings.HasPrefix(head, "#!")
	named := map[string]bool{}
	left := int64(scanMax)
	err = filepath.WalkDir(artifact, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		switch strings.ToLower(filepath.Ext(path)) {
		case ".php", ".inc", ".phtml", ".module", ".phar", "":
		default:
			if path != entry {
				return nil
			}
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if left -= info.Size(); left < 0 {
			s.streams, s.exits = true, true
			for _, name := range constants {
				named[name] = true
			}
			return fs.SkipAll
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s.scan(text, named)
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("script: %w", err)
	}
	for _, name := range constants {
		if named[name] {
			s.constants = append(s.constants, name)
		}
	}
	return s, nil
}

func (s *source) scan(text []byte, named map[string]bool) {
	s.streams = s.streams || streamNames.Match(text)
	for _, name := range constants {
		named[name] = named[name] || strings.Contains(string(text), name)
	}
	s.exits = s.exits || exits(text)
}

// exits tells whether a script may exit with another code than 0. It errs on
// that side: what looks like exit in a comment counts.
func exits(text []byte) bool {
	for _, m := range exitCalls.FindAllSubmatch(text, -1) {
		called, argument := len(m[1]) > 0, string(m[2])
		switch {
		case called && (argument == `'` || argument == `"` || strings.HasSuffix(argument, ")")):
		case !called && argument != `'` && argument != `"` && argument != "/" && argument != "#":
		default:
			return true
		}
	}
	return false
}

func readHead(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	var head [2]byte
	n, _ := file.Read(head[:])
	return string(head[:n]), nil
}

// shebang has an interpreter's line left out of what an included script writes: PHP
// passes over it only in the file that it is told to run.
const shebang = `ob_start(static function (string $text): string {
    static $first = true;
    $cut = $first && str_starts_with($text, '#!') ? strpos($text, "\n") : false;
    $first = $first && $text === '';
    return $cut === false ? $text : substr($text, $cut + 1);
}, 1);`

// streamsOf are what the constants of the command line's PHP stand for.
var streamsOf = map[string]string{
	"STDIN": "fopen('php://input', 'r')", "STDOUT": "fopen('php://output', 'w')", "STDERR": "fopen('php://stderr', 'w')",
}

// write writes the boot files for a function into dir, which it makes, for its
// children to read.
func (s *source) write(dir, entry, function string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("boot files: %w", err)
	}
	first := ""
	if s.shebang {
		first = shebang
	}
	replace := strings.NewReplacer("@ENTRY@", quote(entry), "@DIR@", quote(filepath.Dir(entry)), "@FUNCTION@", quote(function), "@SHEBANG@", first, "@EVENT@", eventVariable, "@MARK@", quote(mark))
	files, err := boot.ReadDir("boot")
	if err != nil {
		return fmt.Errorf("boot files: %w", err)
	}
	for _, f := range files {
		text, err := boot.ReadFile("boot/" + f.Name())
		if err != nil {
			return fmt.Errorf("boot files: %w", err)
		}
		if f.Name() == "prepend.php" {
			if text, err = s.prepend(text); err != nil {
				return fmt.Errorf("boot files: %w", err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name()), []byte(replace.Replace(string(text))), 0o600); err != nil {
			return fmt.Errorf("boot files: %w", err)
		}
	}
	if err := sandbox.Share(dir); err != nil {
		return fmt.Errorf("boot files: %w", err)
	}
	return nil
}

// prepend adds what this function needs to what runs before each script.
func (s *source) prepend(text []byte) ([]byte, error) {
	for _, name := range s.constants {
		text = append(text, "define('"+name+"', "+streamsOf[name]+");\n"...)
	}
	if s.streams {
		stream, err := boot.ReadFile("boot/stream.php")
		if err != nil {
			return nil, err
		}
		text = append(text, strings.TrimPrefix(string(stream), "<?php\n")...)
	}
	return text, nil
}

// quote writes a PHP string.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
