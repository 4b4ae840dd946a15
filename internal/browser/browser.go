// Package browser drives a headless Chromium for the tests of the page: one
// process for all tests of a package, and a tab with cookies of its own for each
// of them. A tab remembers every request that its page made and everything that
// its console complained about.
//
// Nothing that the browser does leaves the machine: no name resolves but
// 127.0.0.1 and localhost, and its own background traffic is off.
//
// Goroutines: those of chromedp, which end with Close, and none of our own.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Package is the Debian package that brings the browser.
const Package = "chromium"

// ErrMissing says that no Chromium is installed.
var ErrMissing = errors.New("needs chromium (apt-get install chromium)")

// startTimeout bounds the browser's start: on a loaded machine with two cores it
// takes several seconds.
const startTimeout = 60 * time.Second

// commands are the names under which distributions install it.
var commands = []string{"chromium", "chromium-browser", "google-chrome"}

// Browser is one running Chromium.
type Browser struct {
	ctx    context.Context // of the first tab, which stays empty
	cancel []context.CancelFunc
	data   string // its profile, below a directory of the caller
}

// Start starts a browser with a fresh profile below dir, an absolute path that
// the caller removes after Close. Without a Chromium it returns ErrMissing.
func Start(dir string) (*Browser, error) {
	command := ""
	for _, name := range commands {
		if path, err := exec.LookPath(name); err == nil {
			command = path
			break
		}
	}
	if command == "" {
		return nil, ErrMissing
	}
	data := filepath.Join(dir, "profile")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(command),
		chromedp.UserDataDir(data),
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"),
		chromedp.Flag("force-prefers-reduced-motion", false),
		chromedp.Flag("font-render-hinting", "none"),
		chromedp.Flag("hide-scrollbars", true),
	)
	if os.Geteuid() == 0 {
		// Chromium refuses to run as root with its sandbox. It sees our own page
		// and what our own tests deploy.
		options = append(options, chromedp.NoSandbox)
	}
	b := &Browser{data: data}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	b.cancel = append(b.cancel, cancel)
	b.ctx, cancel = chromedp.NewContext(allocator)
	b.cancel = append(b.cancel, cancel)

	// The context of the first run is the browser's life: the bound on the start
	// is beside it.
	started := make(chan error, 1)
	go func() { started <- chromedp.Do(b.ctx) }() // ends at the latest with the contexts
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case err := <-started:
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", command, err), b.Close())
		}
		return b, nil
	case <-timer.C:
		return nil, errors.Join(fmt.Errorf("start %s: not up after %v", command, startTimeout), b.Close())
	}
}

// test is what Need takes of a testing.TB.
type test interface {
	Helper()
	TempDir() string
	Cleanup(f func())
	Skip(args ...any)
	Fatal(args ...any)
	Error(args ...any)
}

// Need starts a browser for t, which is skipped where there is none; it ends with the test.
func Need(t test) *Browser {
	t.Helper()
	b, err := Start(t.TempDir())
	if errors.Is(err, ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Close ends the browser and returns when its processes are gone.
func (b *Browser) Close() error {
	for i := len(b.cancel) - 1; i >= 0; i-- {
		b.cancel[i]()
	}
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(b.processes()) > 0 {
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("chromium's processes %v are still there", b.processes())
		}
	}
	return nil
}

// processes lists those that were started with this browser's profile.
func (b *Browser) processes() []string {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var pids []string
	for _, line := range lines {
		text, err := os.ReadFile(line)
		if err == nil && strings.Contains(string(text), b.data) {
			pids = append(pids, filepath.Base(filepath.Dir(line)))
		}
	}
	return pids
}

// View is what a tab pretends to be.
type View struct {
	Width, Height int  // CSS pixels; 0: 1280 by 900
	Dark          bool // prefers-color-scheme
	Still         bool // prefers-reduced-motion
}

// Open opens a tab with a profile of its own: no cookie is shared with another.
// It is closed by Close, at the latest with the browser.
func (b *Browser) Open(v View) (*Tab, error) {
	if v.Width == 0 {
		v.Width, v.Height = 1280, 900
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t := &Tab{ctx: ctx, cancel: cancel, hosts: map[string]int{}}
	// The first call ties the tab to its context, which must not be one with a
	// bound.
	err := chromedp.Listen(ctx, t.take)
	if err == nil {
		err = errors.Join(order(t, network.Enable, network.EnableParams{}), order(t, log.Enable, cdp.Empty{}), order(t, runtime.Enable, cdp.Empty{}),
			order(t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(v.Width), Height: int64(v.Height), DeviceScaleFactor: 1}),
			order(t, emulation.SetEmulatedMedia, media(v)))
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open tab: %w", err)
	}
	return t, nil
}

// media sets the features that style sheets ask for.
func media(v View) emulation.SetEmulatedMediaParams {
	scheme, motion := "light", "no-preference"
	if v.Dark {
		scheme = "dark"
	}
	if v.Still {
		motion = "reduce"
	}
	return emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
		{Name: "prefers-reduced-motion", Value: motion},
	}}
}
