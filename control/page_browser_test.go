package control

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/browser"
)

// pageBound is how long the page may take for a step. A browser on a loaded
// machine with the race detector beside it is slow.
const pageBound = time.Minute

// picture is a tab on the fake's page, and what the tests do with it: each step
// ends the test when it does not come true.
type picture struct {
	t *testing.T
	*browser.Tab
	api *fakeAPI
}

func (p picture) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}
func (p picture) until(expression string)    { p.t.Helper(); p.must(p.Until(pageBound, expression)) }
func (p picture) click(selector string)      { p.t.Helper(); p.must(p.Click(selector)) }
func (p picture) fill(selector, text string) { p.t.Helper(); p.must(p.Fill(selector, text)) }
func (p picture) at(hash string)             { p.t.Helper(); p.must(p.At(hash)) }
func (p picture) shows(selector, text string) {
	p.t.Helper()
	p.until("document.querySelector(`" + selector + "`)?.innerText.includes(`" + text + "`)")
}

// shot writes what the page looks like, for eyes, where BATON_SCREENSHOTS names
// a folder.
func (p picture) shot(name string) {
	p.t.Helper()
	if dir := os.Getenv("BATON_SCREENSHOTS"); dir != "" {
		p.must(p.Eval("void window.scrollTo(0, 0)", nil))
		p.must(p.Screenshot(filepath.Join(dir, name+".png")))
	}
}

// fits fails when something is wider than the window.
func (p picture) fits(what string) {
	p.t.Helper()
	var wide []string
	p.must(p.Eval(`[...document.querySelectorAll("body *")].filter(e => e.getClientRects().length && !e.closest("pre,textarea,.lines,#panel-versions,.hidden,svg,.editor,.tabs,thead") && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + "#" + e.id + "." + e.className + " " + e.innerText.slice(0, 40))`, &wide))
	if len(wide) > 0 {
		p.t.Errorf("%s: wider than the window: %v", what, wide)
	}
	var scroll bool
	p.must(p.Eval("document.documentElement.scrollWidth > innerWidth", &scroll))
	if scroll {
		p.t.Errorf("%s: scrolls sideways", what)
	}
}

func TestPageInBrowser(t *testing.T) {
	b := browser.Need(t)
	for _, test := range []struct {
		name string
		view browser.View
		run  func(picture)
	}{
		{"signs in with the token, and out", browser.View{}, pageSignsIn},
		{"says what is there, and when nothing is", browser.View{}, pageEmpty},
		{"says what went wrong, and recovers", browser.View{}, pageErrors},
		{"deploys with the log streaming", browser.View{}, pageDeploys},
		{"shows the compiler's words at their line", browser.View{}, pageCompileError},
		{"shows wrong fields at their place, form and JSON in step", browser.View{}, pageFields},
		{"packs several files", browser.View{}, pagePacks},
		{"rolls back, changes the descriptor, removes", browser.View{}, pageVersions},
		{"asks back, and does what it asked about", browser.View{}, pageQuestions},
		{"shows the newest of what it asked for", browser.View{}, pageOrder},
		{"opens the tab that was clicked while it loads", browser.View{}, pageTabs},
		{"deploys what the form shows, once", browser.View{}, pageDeploysOnce},
		{"takes any method where the descriptor names none", browser.View{}, pageMethod},
		{"is worked with the keyboard alone", browser.View{}, pageKeyboard},
		{"looks right in light", browser.View{}, pageLooks("light")},
		{"looks right in dark", browser.View{Dark: true}, pageLooks("dark")},
		{"fits 360 pixels", browser.View{Width: 360, Height: 740, Still: true}, pageLooks("narrow")},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := newFakeAPI(t)
			tab, err := b.Open(test.view)
			if err != nil {
				t.Fatal(err)
			}
			defer tab.Close()
			test.run(picture{t, tab, api})
			if hosts := tab.Hosts(); !slices.Equal(hosts, []string{api.URL}) {
				t.Errorf("the page asked %v, want %s alone", hosts, api.URL)
			}
			// A browser reports every answer of 400 and above in the console,
			// whoever asked for it, and that a server has gone.
			allowed := []string{"the server responded with a status of"}
			if api.gone {
				allowed = append(allowed, "net::ERR_")
			}
			if troubles := tab.Troubles(allowed...); len(troubles) > 0 {
				t.Errorf("the console says:\n%s", strings.Join(troubles, "\n"))
			}
		})
	}
}

// open opens the page of a browser that is signed in, with a table to show.
func (p picture) open(hash string) {
	p.t.Helper()
	p.api.sign(true)
	p.api.furnish()
	p.must(p.Go(p.api.URL + "/" + hash))
	p.until("!document.getElementById('nav').hidden")
}

func pageSignsIn(p picture) {
	p.api.furnish()
	p.must(p.Go(p.api.URL + "/"))
	p.until("!document.getElementById('view-signin').hidden && document.activeElement.id === 'token'")
	p.fits("signing in")
	p.shot("signin-light")
	p.must(p.Type("#token", "wrong\r"))
	p.shows("#signin-error", "not the admin token")
	p.until("document.getElementById('token').getAttribute('aria-invalid') === 'true'")
	p.fill("#token", testToken)
	p.click("#signin-form button")
	p.shows("#functions", "hello")
	p.click("#signout")
	p.until("!document.getElementById('view-signin').hidden")
	p.until("document.getElementById('nav').hidden")
	var text string
	p.must(p.Eval("document.documentElement.outerHTML", &text))
	if strings.Contains(text, testToken) {
		p.t.Error("the token is still in the document")
	}
	p.must(p.Go(p.api.URL + "/upload?login=used"))
	p.shows("#signin-why", "was used before")
	p.until("location.search === ''")
}

func pageEmpty(p picture) {
	p.api.sign(true)
	p.must(p.Go(p.api.URL + "/"))
	p.shows("#home-empty", "Nothing is deployed yet")
	p.shot("empty-light")
	p.click("#home-empty a")
	p.until("!document.getElementById('view-deploy').hidden")
	p.at("#/f/nobody")
	p.shows("#view-missing", "There is no function nobody")
	p.at("#/nowhere")
	p.shows("#view-missing", "There is nothing here")
}

func pageErrors(p picture) {
	p.api.breaks(true)
	p.open("")
	p.shows("#notice", "could not answer")
	p.api.breaks(false)
	p.until("document.querySelectorAll('#functions tr').length === 6")
	p.until("document.getElementById('notice').hidden")
	// The session ends behind the page's back.
	p.api.sign(false)
	p.until("!document.getElementById('view-signin').hidden")
	p.api.sign(true)
	p.must(p.Go(p.api.URL + "/"))
	p.shows("#state", "serving")
	p.api.gone = true
	p.api.CloseClientConnections()
	p.must(p.api.Listener.Close())
	p.shows("#notice", "does not answer")
	p.shows("#state", "no connection")
	p.shot("lost-light")
}

func pageDeploys(p picture) {
	p.api.building = make(chan struct{})
	p.open("#/deploy")
	p.click("#runtimes label:nth-child(2)") // C
	p.shows("#editor-name", "main.c")
	p.until("document.getElementById('editor').value.includes('int main')")
	p.fill("#d-path", "/api/hello")
	p.click("#deploy-go")
	p.shows("#deploy-log", "clang -O2")
	p.until("document.querySelector('#deploy-steps li.now')?.innerText.startsWith('Building')")
	p.shot("deploying-light")
	close(p.api.building)
	p.shows("#deploy-result", "hello-c v3 is live")
	p.shows("#deploy-result", "curl --data-binary Ada "+p.api.URL+"/api/hello")
	p.click("#deploy-result .try button[type=submit]")
	p.shows("#deploy-result .response", "Hello, Ada")
	p.shows("#deploy-result .response", "200")
	p.shows("#deploy-result .response", `"cookie": ""`)
	p.shot("deployed-light")
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	u := p.api.uploads[0]
	if u.file != "main.c" || !strings.Contains(string(u.code), "int main") || u.descriptor["name"] != "hello-c" || u.descriptor["path"] != "/api/hello" || u.descriptor["runtime"] != "c" {
		p.t.Errorf("uploaded %s with %v", u.file, u.descriptor)
	}
}

func pageCompileError(p picture) {
	p.open("#/deploy")
	p.click("#runtimes label:nth-child(2)")
	p.until("document.getElementById('editor').value.includes('int main')")
	p.must(p.Eval("document.getElementById('editor').value = document.getElementById('editor').value.replace('return', 'retrun')", nil))
	p.click("#deploy-go")
	p.shows("#deploy-failure", "It does not compile")
	p.shows("#deploy-log", "use of undeclared identifier")
	p.shows("#editor-gutter .wrong", "7")
	p.shot("broken-light")
	p.click("#deploy-log button.at")
	p.until("document.activeElement.id === 'editor' && document.getElementById('editor').selectionStart > 0")
	// Cancelling ends the upload and says that nothing changed.
	p.api.mu.Lock()
	p.api.building = make(chan struct{})
	p.api.mu.Unlock()
	p.click("#deploy-go")
	p.until("document.querySelector('#deploy-steps li.now')?.innerText.startsWith('Building')")
	p.click("#deploy-cancel")
	p.shows("#deploy-failure", "Cancelled")
}

func pageFields(p picture) {
	p.open("#/deploy")
	p.fill("#d-memory", "lots")
	p.click("#descriptor .segments label:nth-child(2)")
	p.until(`JSON.parse(document.getElementById('d-json').value).memory === "lots"`)
	p.fill("#d-json", `{"name":"a","runtime":"go","memory":-3,"hanlder":"x","env":{"2nd":"b"}}`)
	p.click("#descriptor .segments label:nth-child(1)")
	p.until("document.getElementById('d-memory').value === '-3' && document.getElementById('d-name').value === 'a'")
	p.click("#deploy-go")
	p.shows("#d-memory-error", "a whole number of MB from 1 to 4096; this is -3")
	p.shows(".env-row .error", "the first no digit")
	p.shows("#descriptor .field-errors", "did you mean \"handler\"?")
	p.until("document.activeElement.id === 'd-memory'")
	p.shot("fields-light")
	p.click("#descriptor .segments label:nth-child(2)")
	p.shows("#d-json-errors", "memory: Expected a whole number")
	// What is no JSON is never sent.
	p.fill("#d-json", `{"name":`)
	p.shows("#d-json-errors", "Not JSON yet")
	p.click("#deploy-go")
	p.shows("#d-json-errors", "descriptor: Expected one JSON object")
	p.fill("#d-json", `{"name":"a","runtime":"go","memory":64,"unheard":[1]}`)
	p.click("#descriptor .segments label:nth-child(1)")
	p.fill("#d-timeout", "5")
	p.click("#deploy-go")
	p.shows("#deploy-result", "a v3 is live")
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	d := p.api.uploads[len(p.api.uploads)-1].descriptor
	if d["timeout"] != 5.0 || d["memory"] != 64.0 || d["unheard"] == nil {
		p.t.Errorf("sent %v: a field was lost", d)
	}
	if len(p.api.uploads) != 2 {
		p.t.Errorf("%d uploads, want 2", len(p.api.uploads))
	}
}

func pagePacks(p picture) {
	dir := p.t.TempDir()
	var paths []string
	for name, text := range map[string]string{"go.mod": "module hello\n", "main.go": "package main\n", "größe.txt": "ä"} {
		paths = append(paths, filepath.Join(dir, name))
		p.must(os.WriteFile(paths[len(paths)-1], []byte(text), 0o600))
	}
	p.open("#/deploy")
	p.click("#runtimes label:nth-child(6)") // PHP
	p.click(".segments label:nth-child(2)") // Files
	p.click("#deploy-go")
	p.shows("#code-error", "choose a file first")
	p.must(p.Files("#files", paths...))
	p.shows("#file-list", "3 files, packed as one zip archive")
	p.until("document.querySelector('#runtimes input:checked').value === 'go'") // by go.mod
	p.shot("files-light")
	p.click("#deploy-go")
	p.shows("#deploy-result", "is live")
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	u := p.api.uploads[0]
	archive, err := zip.NewReader(bytes.NewReader(u.code), int64(len(u.code)))
	p.must(err)
	var names []string
	for _, f := range archive.File {
		names = append(names, f.Name)
		r, err := f.Open()
		p.must(err)
		var content bytes.Buffer
		_, err = content.ReadFrom(r) // checks the CRC
		p.must(err)
		p.must(r.Close())
	}
	slices.Sort(names)
	if u.file != "source.zip" || !slices.Equal(names, []string{"go.mod", "größe.txt", "main.go"}) {
		p.t.Errorf("%s with %q", u.file, names)
	}
}

func pageVersions(p picture) {
	p.open("#/f/hello/versions")
	p.shows("#panel-versions", "v3")
	p.shot("versions-light")
	p.click("#panel-versions tbody tr:nth-child(2) button")
	p.shows("#confirm", "Roll back to v2?")
	p.shot("confirm-light")
	p.click("#confirm-no")
	p.until("!document.getElementById('confirm')")
	p.click("#panel-versions tbody tr:nth-child(2) button")
	p.shows("#confirm", "Roll back to v2?")
	p.click("#confirm-yes")
	p.shows("#panel-versions tbody tr:nth-child(2)", "live")
	p.click("#tab-settings")
	p.fill("#s-memory", "9000")
	p.click("#panel-settings button[type=submit]")
	p.shows("#s-memory-error", "from 1 to 4096")
	p.fill("#s-memory", "256")
	p.click("#panel-settings button[type=submit]")
	p.shows("#toast", "Saved")
	p.until("document.getElementById('s-memory').value === '256'")
	p.click("#fn-remove")
	p.shows("#confirm", "Remove hello?")
	p.click("#confirm-yes")
	p.until("location.hash === '#/'")
	p.until("document.querySelectorAll('#functions tr').length === 5")
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	for i, want := range []string{`POST /system/functions/hello/rollback {"Version":2}`, "PUT /system/functions/hello ", "PUT /system/functions/hello ", "DELETE /system/functions/hello"} {
		if i >= len(p.api.changes) || !strings.HasPrefix(p.api.changes[i], want) {
			p.t.Fatalf("changes %q, want %q at %d", p.api.changes, want, i)
		}
	}
}

// A form that shows another default than the API's would change what it saves.
func pageMethod(p picture) {
	p.open("")
	p.api.mu.Lock()
	delete(p.api.one["ping"]["descriptor"].(object), "method")
	p.api.mu.Unlock()
	p.at("#/f/ping/settings")
	p.until("document.getElementById('s-method')?.value === 'ANY'")
	p.at("#/f/python")
	p.until("document.querySelector('#panel-try select')?.value === 'POST'")
	p.at("#/deploy")
	p.until("document.getElementById('d-method')?.value === 'POST'")
}

func pageKeyboard(p picture) {
	p.open("")
	p.shows("#functions", "hello")
	p.must(p.Press("\t"))
	p.until("document.activeElement.id === 'skip'")
	p.must(p.Press("\r"))
	p.until("document.activeElement.id === 'main'")
	p.must(p.Press("\t"))
	p.until("document.activeElement.id === 'home-filter'")
	p.must(p.Press("resi"))
	p.until("document.querySelectorAll('#functions tr').length === 1")
	var outline string
	p.must(p.Eval("getComputedStyle(document.activeElement).outlineStyle", &outline))
	if outline != "solid" {
		p.t.Errorf("the focus is not seen: outline %s", outline)
	}
	p.must(p.Press("\t\t\t")) // the pulse's link is between
	p.until("document.activeElement.closest('#functions') && document.activeElement.innerText === 'resize'")
	p.must(p.Press("\r"))
	p.until("location.hash === '#/f/resize'")
	// In the editor, Tab indents; Escape and Tab leave it.
	p.at("#/deploy")
	p.until("!document.getElementById('view-deploy').hidden")
	p.must(p.Eval("document.getElementById('editor').focus()", nil))
	p.must(p.Press("\t"))
	p.until("document.activeElement.id === 'editor' && document.getElementById('editor').value.includes('\\t')")
	p.must(p.Press("\x1b\t"))
	p.until("document.activeElement.id !== 'editor'")
	// Every control has a name.
	var nameless []string
	p.must(p.Eval(`[...document.querySelectorAll("input,select,textarea,button,a[href]")].filter(e => !e.closest("[aria-hidden]") && !(e.innerText || e.textContent || e.getAttribute("aria-label") || (e.labels && e.labels.length) || e.placeholder && e.getAttribute("aria-label"))).map(e => e.outerHTML.slice(0, 120))`, &nameless))
	if len(nameless) > 0 {
		p.t.Errorf("without a name: %q", nameless)
	}
}

func pageLooks(scheme string) func(picture) {
	return func(p picture) {
		p.api.workers = 4
		p.open("")
		p.until("document.querySelectorAll('#functions tr').length === 6")
		p.until("document.querySelectorAll('#pulse-lanes .mini').length === 4 && document.querySelector('#pulse-chart path')?.getAttribute('d').split('L').length > 30")
		p.fits("functions")
		var cut []string
		p.must(p.Eval(`[...document.querySelectorAll("#pulse-lanes b")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText)`, &cut))
		if len(cut) > 0 {
			p.t.Errorf("words of the workers do not fit: %q", cut)
		}
		p.shot("home-" + scheme)
		for _, view := range []struct{ hash, name, ready string }{
			{"#/workers", "workers", "document.querySelectorAll('#workers article').length === 4 && document.querySelectorAll('#isolation li').length === 4"},
			{"#/deploy", "deploy", "document.getElementById('editor').value !== ''"},
			{"#/f/hello", "function", "document.querySelector('#panel-try button')"},
			{"#/f/hello/versions", "versions", "document.querySelectorAll('#panel-versions tbody tr').length === 3"},
			{"#/f/hello/logs", "logs", "document.querySelectorAll('#log-lines .line').length === 6"},
			{"#/f/hello/settings", "settings", "document.getElementById('s-name')?.value === 'hello'"},
		} {
			p.at(view.hash)
			p.until(view.ready)
			p.fits(view.name)
			p.shot(view.name + "-" + scheme)
		}
		p.at("#/f/hello")
		p.click("#panel-try button[type=submit]")
		p.shows("#panel-try .response", "Hello, Ada")
		p.fits("trying")
		p.shot("tried-" + scheme)
		p.api.sign(false)
		p.until("!document.getElementById('view-signin').hidden")
		p.fits("signing in")
		p.shot("signin-" + scheme)
		if contrast := p.contrast(); len(contrast) > 0 {
			p.t.Errorf("too faint: %q", contrast)
		}
	}
}

// contrast lists pairs of tokens whose contrast is below 4.5:1. WCAG 2.2, 1.4.3.
func (p picture) contrast() []string {
	var low []string
	p.must(p.Eval(`(() => {
		const c = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
		const of = name => { c.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); c.fillRect(0, 0, 1, 1); return [...c.getImageData(0, 0, 1, 1).data].slice(0, 3); };
		const lum = rgb => rgb.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }).reduce((n, v, i) => n + v * [0.2126, 0.7152, 0.0722][i], 0);
		const bad = [];
		for (const [ink, ground] of [["ink", "paper"], ["ink", "card"], ["ink", "sunk"], ["soft", "paper"], ["soft", "card"], ["soft", "sunk"], ["mark", "mark-wash"], ["mark-ink", "mark"], ["good", "good-wash"], ["warn", "warn-wash"], ["bad", "bad-wash"], ["bad", "card"], ["bad", "paper"], ["good", "card"], ["cool", "card"], ["paper", "ink"], ["card", "bad"]]) {
			const [a, b] = [lum(of(ink)), lum(of(ground))];
			const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
			if (ratio < 4.5) bad.push(ink + " on " + ground + " " + ratio.toFixed(2));
		}
		return bad;
	})()`, &low))
	return low
}
