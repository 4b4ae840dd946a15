package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"baton/internal/browser"
	"baton/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.Main(m)) }

// A page whose elements cannot be used at once: each becomes usable 400 ms after it was asked for, and is in
// the list of what was clicked then.
const slow = `<!doctype html><title>slow</title>
<style>button, input { display: block } [hidden] { display: none } #cover { position: fixed; inset: 0 } .move { animation: move 400ms linear } @keyframes move { from { transform: translateX(600px) } }</style>
<button id="plain">p</button><button id="disabled" disabled>d</button><button id="hidden" hidden>h</button><button id="moving">m</button><button id="covered">c</button>
<button id="leaving">l</button><fieldset inert><input id="inert"></fieldset><input id="unseen" hidden>
<script>
const clicked = [], heard = [], typed = [];
const at = id => document.getElementById(id);
const later = f => setTimeout(f, 400);
const early = e => e.hidden || e.closest("[inert]") || e.getAnimations().length ? " too early" : "";
addEventListener("click", event => clicked.push(event.target.id + early(event.target)), true);
addEventListener("input", event => typed.push(event.target.id + early(event.target)), true);
addEventListener("hashchange", () => heard.push(location.hash));
const begin = {
	disabled() { later(() => { at("disabled").disabled = false; }); },
	hidden() { later(() => { at("hidden").hidden = false; }); },
	moving() { at("moving").className = "move"; },
	covered() { const cover = document.createElement("div"); cover.id = "cover"; document.body.append(cover); later(() => cover.remove()); },
	absent() { later(() => { const input = document.createElement("input"); input.id = "absent"; document.body.append(input); }); },
	unseen() { later(() => { at("unseen").hidden = false; }); },
	inert() { later(() => { document.querySelector("fieldset").inert = false; }); },
};
at("leaving").addEventListener("mousedown", () => { at("leaving").style.transform = "translateX(600px)"; });
</script>`

func TestTabWaitsAsAPersonWould(t *testing.T) {
	t.Parallel()
	b := browser.Need(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, slow)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	tab, err := b.Open(browser.View{})
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	list := func(name string, want ...string) {
		t.Helper()
		var got []string
		must(tab.Eval(name, &got))
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	must(tab.Go(s.URL + "/"))
	must(tab.Click("#plain"))
	for _, id := range []string{"disabled", "hidden", "moving", "covered"} {
		must(tab.Eval("begin."+id+"()", nil))
		must(tab.Click("#" + id))
	}
	list("clicked", "plain", "disabled", "hidden", "moving", "covered")
	for _, id := range []string{"absent", "inert", "unseen"} {
		must(tab.Eval("begin."+id+"()", nil))
		must(tab.Fill("#"+id, "text"))
	}
	list("typed", "absent", "inert", "unseen")
	for _, hash := range []string{"#/a", "#/b", "#/b", "#/c"} {
		must(tab.At(hash))
	}
	list("heard", "#/a", "#/b", "#/c")
	// An element that is elsewhere when the button is released was not clicked.
	if err := tab.Click("#leaving"); err == nil || !strings.Contains(err.Error(), "it met body") {
		t.Errorf("a click that is lost: %v", err)
	}
}
