package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	// actionTimeout bounds one step: a click, a typed text, a screenshot.
	actionTimeout = 60 * time.Second
	// askInterval is how often a condition in the page is asked for.
	askInterval = 25 * time.Millisecond
)

// Tab is one page. Its methods are for one goroutine at a time.
type Tab struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex     // below: written by chromedp's event goroutine
	hosts    map[string]int // origin → requests
	troubles []string
}

// Close closes the tab.
func (t *Tab) Close() { t.cancel() }

// take collects requests and complaints.
func (t *Tab) take(event any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" && u.Scheme != "blob" {
			t.hosts[u.Scheme+"://"+u.Host]++
		}
	case *network.EventWebSocketCreated:
		t.hosts[e.URL]++
	case *runtime.EventExceptionThrown:
		t.troubles = append(t.troubles, "exception: "+exceptionText(e.ExceptionDetails))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
			text := "console." + string(e.Type)
			for _, a := range e.Args {
				text += " " + string(a.Value) + a.Description
			}
			t.troubles = append(t.troubles, text)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			t.troubles = append(t.troubles, fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	}
}

func exceptionText(e *runtime.ExceptionDetails) string {
	text := e.Text
	if e.Exception != nil {
		text += " " + e.Exception.Description
	}
	return fmt.Sprintf("%s at line %d", text, e.LineNumber+1)
}

// Hosts lists the origins that were asked for anything, ascending.
func (t *Tab) Hosts() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for h := range t.hosts {
		all = append(all, h)
	}
	slices.Sort(all)
	return all
}

// Troubles lists what the console complained about: exceptions, errors,
// warnings, violations of the policy, and answers of 400 and above, which a
// browser reports whoever caused them. allowed are parts of texts to leave out.
func (t *Tab) Troubles(allowed ...string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(t.troubles), func(text string) bool {
		return slices.ContainsFunc(allowed, func(part string) bool { return strings.Contains(text, part) })
	})
}

// do is one or more actions, within actionTimeout.
func (t *Tab) do(actions ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(t.ctx, actionTimeout)
	defer cancel()
	return chromedp.Do(ctx, actions...)
}

// demand is a command of the protocol and its answer, within actionTimeout.
func demand[P, R any](t *Tab, command cdp.Command[P, R], params P) (R, error) {
	ctx, cancel := context.WithTimeout(t.ctx, actionTimeout)
	defer cancel()
	return chromedp.Call(ctx, command, params)
}

// order is demand of what answers nothing.
func order[P, R any](t *Tab, command cdp.Command[P, R], params P) error {
	_, err := demand(t, command, params)
	return err
}

// Go opens an address and waits until it is loaded.
func (t *Tab) Go(address string) error {
	if err := t.do(chromedp.Navigate(address)); err != nil {
		return fmt.Errorf("go to %s: %w", address, err)
	}
	return nil
}

// Eval evaluates an expression, waits for it when it is a promise, and decodes
// its value into to, when to is not nil.
func (t *Tab) Eval(expression string, to any) error {
	ctx, cancel := context.WithTimeout(t.ctx, actionTimeout)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("(async () => JSON.stringify(await ("+expression+")) ?? 'null')()",
		chromedp.EvalAwaitPromise, func(p *runtime.EvaluateParams) { yes := true; p.UserGesture = &yes }))
	if err != nil {
		return fmt.Errorf("evaluate %.200s: %w", expression, err)
	}
	if to == nil {
		return nil
	}
	if err := json.Unmarshal([]byte(text), to); err != nil {
		return fmt.Errorf("evaluate %.200s: %w", expression, err)
	}
	return nil
}

// until asks until it is told yes or an end, at most bound, and returns the last
// reason why not.
func (t *Tab) until(bound time.Duration, ask func() (yes bool, why error)) error {
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		yes, why := ask()
		if yes {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return errors.Join(fmt.Errorf("after %v", bound), why)
		case <-t.ctx.Done():
			return errors.Join(t.ctx.Err(), why)
		}
	}
}

// Until waits until an expression is true, at most bound.
func (t *Tab) Until(bound time.Duration, expression string) error {
	err := t.until(bound, func() (yes bool, why error) {
		why = t.Eval("Boolean("+expression+")", &yes)
		return yes && why == nil, why
	})
	if err == nil {
		return nil
	}
	var text string
	_ = t.Eval("document.querySelector('main') ? document.querySelector('main').innerText : document.body.innerText", &text)
	return fmt.Errorf("still waiting until %s: %w; the page shows:\n%s", expression, err, text)
}

// usable says what keeps a person from using the element e; empty: nothing.
const usable = `(e => !e ? "is not there" : !e.checkVisibility({visibilityProperty: true}) ? "is not visible" : e.matches(":disabled") ? "is disabled" : e.closest("[inert]") ? "is inert" : "")`

// aim looks where a mouse would click the element e: in the window, at a place
// that stays the same for two frames and that nothing covers. From then on
// window.batonClick says what the next click meets: "" is the element itself.
const aim = `(async e => {
	let why = ` + usable + `(e);
	if (why) return {why};
	e.scrollIntoViewIfNeeded();
	const frame = () => new Promise(requestAnimationFrame);
	const place = () => { const r = e.getBoundingClientRect(); return {x: r.left + r.width / 2, y: r.top + r.height / 2}; };
	const named = e => e ? e.tagName.toLowerCase() + (e.id && "#" + e.id) : "nothing";
	const before = place();
	await frame();
	await frame();
	const {x, y} = place();
	if (x !== before.x || y !== before.y) return {why: "moves"};
	const top = document.elementFromPoint(x, y);
	if (!e.contains(top)) return {why: "is covered by " + named(top)};
	window.batonClick = null;
	window.batonClickOff?.abort();
	window.batonClickOff = new AbortController();
	addEventListener("click", event => { window.batonClick ??= e.contains(event.target) ? "" : named(event.target); }, {capture: true, signal: window.batonClickOff.signal});
	return {x, y, why};
})`

// Click clicks the element that a selector names, as a mouse does, as soon as a
// person could: it is visible, enabled, at rest and not covered. A click that
// the page did not see on that element is an error, not a wait for its effect.
func (t *Tab) Click(selector string) error {
	name, err := json.Marshal(selector)
	if err != nil {
		return err
	}
	var at struct {
		X, Y float64
		Why  string
	}
	err = t.until(actionTimeout, func() (bool, error) {
		at.Why = ""
		if err := t.Eval(aim+"(document.querySelector("+string(name)+"))", &at); err != nil {
			return false, err
		}
		return at.Why == "", errors.New("it " + at.Why)
	})
	if err != nil {
		return fmt.Errorf("click %s: %w", selector, err)
	}
	if err := t.do(chromedp.MouseClickXY(at.X, at.Y)); err != nil {
		return fmt.Errorf("click %s: %w", selector, err)
	}
	var met *string
	err = t.until(actionTimeout, func() (bool, error) {
		err := t.Eval("window.batonClick", &met)
		return met != nil && err == nil, errors.Join(err, errors.New("the page saw no click"))
	})
	if err == nil && *met != "" {
		err = fmt.Errorf("it met %s", *met)
	}
	if err != nil {
		return fmt.Errorf("click %s: %w", selector, err)
	}
	return nil
}

// Type types keys into the element that a selector names.
func (t *Tab) Type(selector, keys string) error {
	if err := t.do(chromedp.SendKeys(chromedp.CSS(selector), keys)); err != nil {
		return fmt.Errorf("type into %s: %w", selector, err)
	}
	return nil
}

// Press sends keys to whatever has the focus.
func (t *Tab) Press(keys string) error {
	if err := t.do(chromedp.KeyEvent(keys)); err != nil {
		return fmt.Errorf("press: %w", err)
	}
	return nil
}

// Fill replaces the text of an input, as typing would, as soon as a person could:
// the page hears of it.
func (t *Tab) Fill(selector, text string) error {
	quoted, err := json.Marshal(text)
	if err != nil {
		return err
	}
	name, err := json.Marshal(selector)
	if err != nil {
		return err
	}
	fill := `(e => {
		const why = ` + usable + `(e);
		if (why) return why;
		e.value = ` + string(quoted) + `;
		for (const kind of ["input", "change"]) e.dispatchEvent(new Event(kind, {bubbles: true}));
		return "";
	})(document.querySelector(` + string(name) + `))`
	err = t.until(actionTimeout, func() (bool, error) {
		var why string
		if err := t.Eval(fill, &why); err != nil {
			return false, err
		}
		return why == "", errors.New("it " + why)
	})
	if err != nil {
		return fmt.Errorf("fill %s: %w", selector, err)
	}
	return nil
}

// At goes to another view of the page, by the part of the address behind #, and
// waits until the page has heard of it.
func (t *Tab) At(hash string) error {
	name, err := json.Marshal(hash)
	if err != nil {
		return err
	}
	return t.Eval(`(async hash => {
		if (location.hash === hash) return;
		const heard = new Promise(done => addEventListener("hashchange", done, {once: true}));
		location.hash = hash;
		await heard;
	})(`+string(name)+`)`, nil)
}

// Files gives files to an input of type file, as the dialog would.
func (t *Tab) Files(selector string, paths ...string) error {
	if err := t.do(chromedp.SetUploadFiles(chromedp.CSS(selector), paths)); err != nil {
		return fmt.Errorf("choose files in %s: %w", selector, err)
	}
	return nil
}

// Text is what an element shows.
func (t *Tab) Text(selector string) (string, error) {
	name, err := json.Marshal(selector)
	if err != nil {
		return "", err
	}
	var text string
	err = t.Eval("document.querySelector("+string(name)+").innerText", &text)
	return text, err
}

// Cookies lists the cookies that the tab would send to an address.
func (t *Tab) Cookies(address string) ([]*network.Cookie, error) {
	answer, err := demand(t, network.GetCookies, network.GetCookiesParams{URLs: []string{address}})
	return answer.Cookies, err
}

// Screenshot writes the whole page as a PNG file.
func (t *Tab) Screenshot(path string) error {
	ctx, cancel := context.WithTimeout(t.ctx, actionTimeout)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		return fmt.Errorf("screenshot: %w", err)
	}
	return os.WriteFile(path, picture, 0o600)
}
