package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// look lists the commands called name in the builder's path, in its order.
func (b *Builder) look(name string) []string { return b.lookIn(b.opt.Path, name) }

// lookIn is look in another path.
func (b *Builder) lookIn(list, name string) []string {
	var found []string
	for _, dir := range filepath.SplitList(list) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, name)
		if b.isCommand(path) {
			found = append(found, path)
		}
	}
	return found
}

func (b *Builder) isCommand(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// placeOf is what a command needs to be read beside the system's own places: the
// folder that holds its bin, when it is a toolchain's own (/srv/go for
// /srv/go/bin/go) and not one that somebody lives in.
func (b *Builder) placeOf(command string) []string {
	real, err := filepath.EvalSymlinks(command)
	if err != nil {
		return nil
	}
	place := filepath.Dir(filepath.Dir(real))
	if filepath.Base(filepath.Dir(real)) != "bin" || b.private(place) {
		return []string{real}
	}
	return []string{place}
}

// private says whether a folder is not a toolchain's: it holds a home, the data
// directory, or everything.
func (b *Builder) private(place string) bool {
	homes := []string{"/root", "/home", b.opt.Data}
	if home, err := os.UserHomeDir(); err == nil {
		homes = append(homes, home)
	}
	for _, home := range homes {
		if real, err := filepath.EvalSymlinks(home); err == nil {
			home = real
		}
		if home == place || place == "/" || slices.Contains([]string{".local", ".cargo"}, filepath.Base(place)) || strings.HasPrefix(home, place+"/") || filepath.Dir(place) == "/home" {
			return true
		}
	}
	return false
}

// proxyRead is what must be read for that.
func proxyRead(env []string) []string {
	var read []string
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "SSL_CERT_FILE", "SSL_CERT_DIR":
			read = append(read, filepath.SplitList(value)...)
		case "GOPROXY": // a list, each after "," or "|"
			for _, proxy := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == '|' }) {
				if path, ok := strings.CutPrefix(proxy, "file://"); ok {
					read = append(read, path)
				}
			}
		}
	}
	return read
}

// proxyEnv is how the machine's owner reaches the network, for fetching.
func proxyEnv() []string {
	var env []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
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

// ask runs a toolchain's command, as a build would run it, that prints
// something about itself, and returns that. Answers are kept.
func (j *job) ask(ctx context.Context, env []string, argv ...string) (string, error) {
	return j.b.probes.answer(fmt.Sprintf("%q %q", argv, env), argv[0], func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		var text strings.Builder
		err := j.run(ctx, step{argv: argv, env: env, dir: j.home(), stdout: &limitedText{&text, probeMax}, quiet: true})
		return text.String(), err
	})
}

// askOwner is ask outside of the sandbox, with the environment of the
// machine's owner, for what their settings decide. The command sees nothing of the user's.
func (j *job) askOwner(ctx context.Context, argv ...string) (string, error) {
	return j.b.probes.answer(fmt.Sprintf("owner %q", argv), argv[0], func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		var text strings.Builder
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "RUSTUP_AUTO_INSTALL=0")
		cmd.Stdout = &limitedText{&text, probeMax}
		cmd.WaitDelay = killWait
		err := cmd.Run()
		return text.String(), err
	})
}

// answer returns what was said to a question before, or asks.
func (p *probes) answer(question, command string, ask func() (string, error)) (string, error) {
	info, err := os.Stat(command)
	if err != nil {
		return "", err
	}
	key := fmt.Sprintf("%s %d %v", question, info.Size(), info.ModTime())
	p.mu.Lock()
	said, ok := p.said[key]
	p.mu.Unlock()
	if ok {
		return said, nil
	}
	if said, err = ask(); err != nil {
		return "", err
	}
	said = strings.TrimSpace(said)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said == nil || len(p.said) >= probesMax {
		p.said = map[string]string{}
	}
	p.said[key] = said
	return said, nil
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
