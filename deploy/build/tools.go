package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// look lists the commands called name in the builder's path, in its order.
func (b *Builder) look(name string) []string {
	var found []string
	for _, dir := range filepath.SplitList(b.opt.Path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			found = append(found, path)
		}
	}
	return found
}

// lookOne returns the first command of any of these names.
func (b *Builder) lookOne(names ...string) (string, bool) {
	for _, name := range names {
		if found := b.look(name); len(found) > 0 {
			return found[0], true
		}
	}
	return "", false
}

// missing says that a toolchain is not there, and how to get it.
func missing(what, packages string) error {
	return &Error{Reason: ToolchainMissing, Detail: what + " is not installed on this machine", Hint: "apt install " + packages}
}

// probes remembers what toolchains said about themselves, for as long as
// their files stay the same.
type probes struct {
	mu   sync.Mutex
	said map[string]string
}

// probeTimeout bounds one question to a toolchain; on a busy machine rustup
// takes a second.
const probeTimeout = 20 * time.Second

// ask runs a command of the machine's owner, not of an uploader, that prints
// something about itself, and returns that. Answers are kept.
func (j *job) ask(ctx context.Context, env []string, argv ...string) (string, error) {
	info, err := os.Stat(argv[0])
	if err != nil {
		return "", err
	}
	key := fmt.Sprintf("%q %q %d %v", argv, env, info.Size(), info.ModTime())
	p := &j.b.probes
	p.mu.Lock()
	said, ok := p.said[key]
	p.mu.Unlock()
	if ok {
		return said, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var text strings.Builder
	if err := j.run(ctx, step{argv: argv, env: env, dir: j.home(), stdout: &limitedText{&text, probeMax}, quiet: true}); err != nil {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said == nil || len(p.said) >= probesMax {
		p.said = map[string]string{}
	}
	p.said[key] = strings.TrimSpace(text.String())
	return p.said[key], nil
}

const (
	probesMax = 256      // answers kept; toolchains change seldom
	probeMax  = 64 << 10 // bytes of one
)

// limitedText keeps the first bytes.
type limitedText struct {
	to   *strings.Builder
	room int
}

func (l *limitedText) Write(p []byte) (int, error) {
	keep := min(len(p), l.room)
	l.to.Write(p[:keep])
	l.room -= keep
	return len(p), nil
}
