package control

import (
	"regexp"
	"strings"
	"testing"
)

func TestPageLaw(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, path := range []string{"/", "/upload", "/?x=1"} {
		a := s.tcp(t, request("GET", path))
		checkForm(t, a)
		if a.StatusCode != 200 || a.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.Header.Get("Content-Type"))
		}
		policy := a.Header.Get("Content-Security-Policy")
		for _, rule := range []string{"default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy, rule) {
				t.Errorf("%s: policy %q without %s", path, policy, rule)
			}
		}
		for _, hole := range []string{"unsafe", "*", "http:", "https:"} {
			if strings.Contains(policy, hole) {
				t.Errorf("%s: policy %q allows %s", path, policy, hole)
			}
		}
		for element, directive := range map[string]string{"style": "style-src ", "script": "script-src "} {
			texts := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(a.body, -1)
			if len(texts) != 1 || !strings.Contains(policy, directive+sourceHash(texts[0][1])) {
				t.Errorf("%s: %d <%s>, and the policy %q does not name the one that is there", path, len(texts), element, policy)
			}
		}
		if !strings.Contains(a.Header.Get("X-Frame-Options"), "DENY") || a.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
}

// The page works without a network: it names no other host, loads no file, and
// holds nothing that its own policy would refuse.
func TestPageAsksNobodyElse(t *testing.T) {
	t.Parallel()
	page := string(newPage().body)
	withoutNames := strings.ReplaceAll(page, "http://www.w3.org/2000/svg", "") // a namespace, not an address
	for _, never := range []string{"http:", "https:", "src=", "@import", "url(", "style=", "onclick", "innerHTML", "eval(", "document.write", "{{"} {
		if i := strings.Index(withoutNames, never); i >= 0 {
			t.Errorf("the page has %q: …%.60s", never, withoutNames[i:])
		}
	}
	if scripts, data := strings.Count(page, "<script>"), strings.Count(page, `<script type="application/json" id="starters">`); scripts != 1 || data != 1 || strings.Count(page, "<script") != 2 {
		t.Errorf("%d scripts, want one; %d blocks of data, want one; nothing else", scripts, data)
	}
}
