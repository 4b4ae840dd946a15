package control

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// hold makes the next answer to a request late.
func (p picture) hold(request string) lateAnswer {
	_, path, _ := strings.Cut(request, " ")
	return lateAnswer{p, path, p.api.hold(request)}
}

// lateAnswer is a late one, and what the tests do with it.
type lateAnswer struct {
	picture
	path string
	*late
}

// asked waits until the page has asked, which is when the answer is made.
func (a lateAnswer) asked() {
	a.t.Helper()
	timer := time.NewTimer(pageBound)
	defer timer.Stop()
	select {
	case <-a.made:
	case <-timer.C:
		a.t.Fatalf("the page does not ask for %s", a.path)
	}
}

// arrives sends it, or the refusal in its place, and waits until the page has
// taken it: the browser lists it among what it loaded, and has drawn since.
func (a lateAnswer) arrives(whole bool) {
	a.t.Helper()
	loaded := fmt.Sprintf("performance.getEntriesByType('resource').filter(e => new URL(e.name).pathname === %q).length", a.path)
	var before int
	a.must(a.Eval("(performance.setResourceTimingBufferSize(10000), "+loaded+")", &before))
	a.sent <- whole
	a.until(fmt.Sprintf("%s > %d", loaded, before))
	a.must(a.Eval("new Promise(done => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(() => setTimeout(done)))))", nil))
}

// row is the versions' line of hello's version v, of 3.
func row(v int) string { return fmt.Sprintf("#panel-versions tbody tr:nth-child(%d)", 4-v) }

// changed compares what was asked to be changed so far.
func (p picture) changed(want ...string) {
	p.t.Helper()
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	if !slices.Equal(p.api.changes, want) {
		p.t.Errorf("changes %q, want %q", p.api.changes, want)
	}
}

func pageQuestions(p picture) {
	p.open("#/f/hello/versions")
	p.shows("#panel-versions", "v3")
	// Two clicks that are quicker than the browser's word that a dialog has closed.
	p.must(p.Eval("(document.querySelector(`"+row(2)+" button`).click(), document.getElementById('confirm-no').click(), document.querySelector(`"+row(1)+" button`).click())", nil))
	p.shows("#confirm", "Roll back to v1?")
	p.click("#confirm-yes")
	p.shows(row(1), "live")
	want := []string{`POST /system/functions/hello/rollback {"Version":1}`}
	p.changed(want...)

	// What was sent is not cancelled by Escape: the page shows what came of it.
	late := p.hold("POST /system/functions/hello/rollback")
	p.click(row(2) + " button")
	p.shows("#confirm", "Roll back to v2?")
	p.click("#confirm-yes")
	late.asked()
	p.until("document.getElementById('confirm-no').disabled")
	p.must(p.Press("\x1b"))
	p.until("!document.getElementById('confirm').open")
	late.arrives(true)
	p.shows(row(2), "live")
	want = append(want, `POST /system/functions/hello/rollback {"Version":2}`)
	p.changed(want...)

	// A refusal is said in the dialog, and where that was left, without it.
	late = p.hold("POST /system/functions/hello/rollback")
	p.click(row(3) + " button")
	p.click("#confirm-yes")
	late.asked()
	late.arrives(false)
	p.shows("#confirm", "the change was not stored")
	late = p.hold("POST /system/functions/hello/rollback")
	p.click("#confirm-yes")
	late.asked()
	p.must(p.Press("\x1b"))
	p.until("!document.getElementById('confirm').open")
	late.arrives(false)
	p.shows("#toast", "the change was not stored")
	p.until("!document.getElementById('confirm')")

	// A question does not outlive the view that it is about.
	p.click(row(1) + " button")
	p.shows("#confirm", "Roll back to v1?")
	p.at("#/f/ping/versions")
	p.until("!document.getElementById('confirm')")
	p.shows("#fn-name", "ping")
}

func pageOrder(p picture) {
	p.open("#/f/hello/versions")
	p.shows(row(3), "live")
	// A list of before the way back comes after the one of after it.
	late := p.hold("GET /system/functions/hello/versions")
	p.must(p.Eval("void (window.was = document.querySelector(`"+row(1)+" button`))", nil))
	p.click("#tab-versions")
	late.asked()
	p.click(row(2) + " button")
	p.click("#confirm-yes")
	p.shows(row(2), "live")
	late.arrives(true)
	p.until("document.querySelector(`" + row(2) + "`).innerText.includes('live') && !document.querySelector(`" + row(3) + "`).innerText.includes('live')")
	// A button that may be pressed just now is still the one to be released.
	p.until("document.querySelector(`" + row(1) + " button`) === window.was")

	// What is removed does not come back with a table that was asked for before.
	late = p.hold("GET /system/functions")
	late.asked()
	newer := p.hold("GET /system/functions")
	p.at("#/f/resize")
	p.shows("#fn-facts", "rust")
	p.click("#fn-remove")
	p.shows("#confirm", "Remove resize?")
	p.click("#confirm-yes")
	newer.asked()
	p.until("document.querySelectorAll('#functions tr').length === 5 && !document.getElementById('view-home').hidden")
	for _, answer := range []lateAnswer{late, newer} {
		answer.arrives(true)
		var rows int
		p.must(p.Eval("document.querySelectorAll('#functions tr').length", &rows))
		if rows != 5 {
			p.t.Errorf("%d functions after one of 6 was removed", rows)
		}
	}

	// Nor does an answer about a view replace the next one.
	late = p.hold("GET /system/functions/nobody")
	p.at("#/f/nobody")
	late.asked()
	p.at("#/workers")
	late.arrives(true)
	var hidden bool
	p.must(p.Eval("document.getElementById('view-workers').hidden", &hidden))
	if hidden {
		p.t.Error("the workers went away for a function that nobody looks at")
	}

	// What is deployed meanwhile is not shown as it was.
	p.at("#/f/hello")
	p.shows("#fn-facts", "v2")
	p.at("#/deploy")
	p.fill("#d-name", "hello")
	p.api.mu.Lock()
	p.api.one["hello"]["version"] = 4
	p.api.mu.Unlock()
	p.click("#deploy-go")
	p.shows("#deploy-result", "is live")
	p.at("#/f/hello")
	p.shows("#fn-facts", "v4")
}

func pageTabs(p picture) {
	p.open("")
	late := p.hold("GET /system/functions/ping")
	p.at("#/f/ping")
	late.asked()
	p.click("#tab-settings")
	late.arrives(true)
	p.until("document.getElementById('s-name')?.value === 'ping' && document.getElementById('s-name').checkVisibility()")
	// And while it is asked for again after a change, by which an answer to an
	// earlier question is out of date.
	first := p.hold("GET /system/functions/hello")
	p.at("#/f/hello/versions")
	first.asked()
	p.at("#/")
	second := p.hold("GET /system/functions/hello")
	p.at("#/f/hello/versions")
	second.asked()
	first.arrives(true)
	p.shows(row(3), "live")
	third := p.hold("GET /system/functions/hello")
	p.click(row(2) + " button")
	p.click("#confirm-yes")
	third.asked()
	p.click("#tab-settings")
	second.arrives(true)
	third.arrives(true)
	p.until("document.getElementById('s-name')?.value === 'hello' && document.getElementById('s-name').checkVisibility()")
	// It is the descriptor of after the change, and can be saved.
	p.click("#panel-settings button[type=submit]")
	p.shows("#toast", "Saved")
	// A form of before a change is not saved after it.
	p.click("#tab-versions")
	p.click(row(1) + " button")
	p.click("#confirm-yes")
	p.shows(row(1), "live")
	p.click("#tab-settings")
	p.click("#panel-settings button[type=submit]")
	p.shows("#toast", "Saved")
}

func pageDeploysOnce(p picture) {
	p.open("#/deploy")
	p.until("document.getElementById('d-name')?.value === 'hello-go'")
	// The form of one function is not sent, nor filled, for another.
	late := p.hold("GET /system/functions/resize")
	p.at("#/deploy/resize")
	p.shows("#deploy-title", "New version of resize")
	late.asked()
	p.until("document.getElementById('deploy-go').closest('[inert]')")
	p.at("#/deploy")
	p.until("!document.getElementById('deploy-go').closest('[inert]')")
	late.arrives(true)
	var name string
	p.must(p.Eval("document.getElementById('d-name').value", &name))
	if name != "hello-go" {
		p.t.Errorf("the form of a new function is %s's", name)
	}
	p.at("#/deploy/resize")
	p.until("document.getElementById('d-name').value === 'resize' && !document.getElementById('deploy-go').closest('[inert]')")
	p.at("#/deploy")
	p.until("document.getElementById('d-name').value === 'hello-go'")

	// Sent twice at once, and changed before it is packed.
	p.api.mu.Lock()
	p.api.building = make(chan struct{})
	p.api.mu.Unlock()
	p.must(p.Eval(`(() => {
		const form = document.getElementById("deploy-form"), path = document.getElementById("d-path");
		form.requestSubmit();
		form.requestSubmit();
		path.value = "/too/late";
		path.dispatchEvent(new Event("input"));
	})()`, nil))
	p.until("document.querySelector('#deploy-steps li.now')?.innerText.startsWith('Building')")
	// While it runs, the form and its title stay what was sent.
	p.at("#/deploy/resize")
	p.until("document.getElementById('deploy-title').innerText === 'Deploy' && document.getElementById('d-name').value === 'hello-go'")
	close(p.api.building)
	p.shows("#deploy-result", "is live")
	p.api.mu.Lock()
	defer p.api.mu.Unlock()
	if len(p.api.uploads) != 1 || p.api.uploads[0].descriptor["path"] != nil {
		p.t.Errorf("uploads %+v, want one, without a path", p.api.uploads)
	}
}
