package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/browser"
	"baton/internal/testenv"
)

// tab is the page of a running server, in a browser. Each step ends the test when
// it does not come true.
type tab struct {
	t *testing.T
	*browser.Tab
	base string
}

func (p tab) must(err error) {
	p.t.Helper()
	if err != nil {
		var text string
		_ = p.Eval("document.body.innerText", &text)
		p.t.Fatalf("%v\nthe page says:\n%s", err, text)
	}
}

func (p tab) until(expression string) { p.t.Helper(); p.must(p.Until(testenv.Patience(), expression)) }
func (p tab) click(selector string)   { p.t.Helper(); p.must(p.Click(selector)) }
func (p tab) at(hash string)          { p.t.Helper(); p.must(p.At(hash)) }

func (p tab) shows(bound time.Duration, selector, text string) {
	p.t.Helper()
	p.must(p.Until(bound, "document.querySelector(`"+selector+"`)?.innerText.includes(`"+text+"`)"))
}

// shot writes what the page looks like, for eyes, where BATON_SCREENSHOTS names a folder.
func (p tab) shot(name string) {
	p.t.Helper()
	if dir := os.Getenv("BATON_SCREENSHOTS"); dir != "" {
		p.must(p.Screenshot(filepath.Join(dir, name+".png")))
	}
}

// form fills the form of a deploy: the runtime's starter text, or code.
func (p tab) form(runtime, name, code string) {
	p.t.Helper()
	p.at("#/")
	p.at("#/deploy")
	p.click("#runtimes label:has(input[value=" + runtime + "])")
	p.until("document.getElementById('editor').value !== '' && document.querySelector('#runtimes input[value=" + runtime + "]').checked")
	p.must(p.Fill("#d-name", name))
	p.must(p.Fill("#d-path", "/page/"+name))
	if code != "" {
		p.must(p.Fill("#editor", code))
	}
}

// deploy sends the form and waits until the version is live.
func (p tab) deploy(name, version string) {
	p.t.Helper()
	p.click("#deploy-go")
	p.shows(uploadPatience, "#deploy-result", name+" "+version+" is live")
}

// The page, on the server itself: it deploys, tries, rolls back, and says what is wrong.
func TestPageOnTheServer(t *testing.T) {
	t.Parallel()
	b := browser.Need(t)
	testenv.Need(t, "clang", "wasm-ld")
	if text, err := exec.CommandContext(t.Context(), "clang", "--target=wasm32-wasi", "-print-file-name=libc.a").Output(); err != nil || !filepath.IsAbs(strings.TrimSpace(string(text))) {
		t.Skip("needs wasi-libc (apt-get install wasi-libc)")
	}
	s := testenv.Start(t, testenv.Options{})
	link := ""
	testenv.Until(t, "the server has printed the one-time link", func() bool {
		link = regexp.MustCompile(`http://[^ ]*/upload\?login=[0-9a-f]+`).FindString(s.Log())
		return link != ""
	})
	open, err := b.Open(browser.View{Still: true})
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	p := tab{t, open, "http://" + s.Addr}

	p.must(p.Go(link))
	p.until("!document.getElementById('nav').hidden && location.search === ''")
	p.until("document.querySelectorAll('#functions tr').length === 5")

	// C, to WebAssembly.
	p.form("c", "page-c", "")
	p.must(p.Eval(`(() => { const s = document.getElementById("d-target"); s.value = "wasm"; s.dispatchEvent(new Event("change", { bubbles: true })); })()`, nil))
	p.deploy("page-c", "v1")
	p.click("#deploy-result .try button[type=submit]")
	p.shows(testenv.Patience(), "#deploy-result .response", "200")
	p.shot("real-deployed-c")

	// A broken program changes nothing.
	p.form("c", "page-c", "int main(void) { return nothing; }")
	p.click("#deploy-go")
	p.shows(uploadPatience, "#deploy-failure", "does not compile")
	p.shows(testenv.Patience(), "#deploy-log", "nothing")
	p.shot("real-broken")

	// A second version, and back.
	p.form("c", "page-c", "#include <stdio.h>\nint main(void) { puts(\"{\\\"second\\\":true}\"); return 0; }\n")
	p.must(p.Eval(`(() => { const s = document.getElementById("d-target"); s.value = "wasm"; s.dispatchEvent(new Event("change", { bubbles: true })); })()`, nil))
	p.deploy("page-c", "v3") // the broken one had the number between
	p.click("#deploy-result .try button[type=submit]")
	p.shows(testenv.Patience(), "#deploy-result .response", "second")
	p.at("#/f/page-c/versions")
	p.until("document.querySelectorAll('#panel-versions tbody tr').length === 2")
	p.click("#panel-versions tbody tr:nth-child(2) button")
	p.shows(testenv.Patience(), "#confirm", "Roll back to v1?")
	p.click("#confirm-yes")
	p.shows(testenv.Patience(), "#panel-versions tbody tr:nth-child(2)", "live")
	p.shot("real-versions")
	if r, err := testenv.Do(s.Addr, "POST /page/page-c HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nConnection: close\r\n\r\nAda"); err != nil || r.Status != 200 || strings.Contains(string(r.Body), "second") {
		t.Errorf("after the way back: %v, %v", r, err)
	}

	// Go.
	p.form("go", "page-go", "")
	p.deploy("page-go", "v1")
	p.click("#deploy-result .try button[type=submit]")
	p.shows(testenv.Patience(), "#deploy-result .response", "200")
	p.shot("real-deployed-go")

	functions := 7
	if _, err := exec.LookPath("php"); err == nil {
		p.form("php", "page-php", "")
		p.deploy("page-php", "v1")
		p.click("#deploy-result .try button[type=submit]")
		p.shows(testenv.Patience(), "#deploy-result .response", "200")
		p.shot("real-deployed-php")
		functions++
	}

	// What runs, and who runs it.
	p.at("#/")
	p.until(fmt.Sprintf("document.querySelectorAll('#functions tr').length === %d", functions))
	p.shot("real-home")
	p.at("#/workers")
	p.until("document.querySelectorAll('#workers article').length > 0 && document.querySelectorAll('#isolation li').length > 5")
	p.shot("real-workers")
	p.at("#/f/page-c/logs")
	p.until("!document.getElementById('panel-logs').hidden && document.getElementById('log-state').innerText === 'following'")

	if hosts := p.Hosts(); !slices.Equal(hosts, []string{p.base}) {
		t.Errorf("the page asked %v, want %s alone", hosts, p.base)
	}
	// The 422 of the broken program is the browser's own line.
	if troubles := p.Troubles("the server responded with a status of"); len(troubles) > 0 {
		t.Errorf("the console says:\n%s", strings.Join(troubles, "\n"))
	}
}
