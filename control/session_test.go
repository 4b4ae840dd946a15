package control

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// sessionOf is the session cookie that an answer sets, with its attributes
// checked.
func sessionOf(t *testing.T, a answer) string {
	t.Helper()
	cookies := a.Cookies()
	if len(cookies) != 1 || cookies[0].Name != sessionCookie {
		t.Fatalf("cookies %v, want one %s", cookies, sessionCookie)
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/system/" || c.Domain != "" {
		t.Errorf("cookie %v, want HttpOnly, SameSite=Strict, Path=/system/ and no Domain", c)
	}
	return "Cookie: " + sessionCookie + "=" + c.Value
}

func TestOneTimeLink(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/upload"} {
		s := serve(t, nil)
		secret, err := s.Login()
		if err != nil {
			t.Fatal(err)
		}
		link := path + "?login=" + secret

		// Looking ahead uses nothing up.
		if a := s.tcp(t, request("HEAD", link)); a.StatusCode != 200 {
			t.Errorf("HEAD: %d, want 200", a.StatusCode)
		}
		if a := s.tcp(t, request("GET", link, "Sec-Purpose: prefetch")); a.StatusCode != 200 || len(a.Cookies()) > 0 {
			t.Errorf("prefetch: %d and cookies %v, want the page and none", a.StatusCode, a.Cookies())
		}

		a := s.tcp(t, request("GET", link))
		if a.StatusCode != 303 || a.Header.Get("Location") != path {
			t.Fatalf("first use: %d to %q, want 303 to %s", a.StatusCode, a.Header.Get("Location"), path)
		}
		checkForm(t, a)
		session := sessionOf(t, a)
		if a := s.tcp(t, request("GET", "/system/functions", session)); a.StatusCode != 200 {
			t.Errorf("with the session: %d %s, want 200", a.StatusCode, a.body)
		}

		a = s.tcp(t, request("GET", link))
		if a.StatusCode != 403 || len(a.Cookies()) > 0 || !strings.Contains(a.body, "<title>baton</title>") {
			t.Errorf("second use: %d, cookies %v; want the page with 403 and none", a.StatusCode, a.Cookies())
		}
		if a := s.tcp(t, request("GET", path+"?login="+strings.Repeat("0", 64))); a.StatusCode != 403 || len(a.Cookies()) > 0 {
			t.Errorf("an invented link: %d, cookies %v; want 403 and none", a.StatusCode, a.Cookies())
		}
	}
}

// TestSessionLaw: what a cookie may and may not do.
func TestSessionLaw(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	signIn := func() string {
		a := s.tcp(t, request("POST", "/system/session", authorized, "Origin: http://baton.example:8080", "Content-Length: 0"))
		if a.StatusCode != 204 {
			t.Fatalf("sign in: %d %s, want 204", a.StatusCode, a.body)
		}
		return sessionOf(t, a)
	}
	session := signIn()
	for _, law := range []struct {
		name   string
		method string
		path   string
		fields []string
		status int
	}{
		{"reading, no browser's fields", "GET", "/system/status", nil, 200},
		{"reading from our page", "GET", "/system/status", []string{"Sec-Fetch-Site: same-origin"}, 200},
		{"reading by typing the address", "GET", "/system/status", []string{"Sec-Fetch-Site: none"}, 200},
		{"reading from another site", "GET", "/system/status", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"changing without proof of our page", "POST", "/upload", []string{"Content-Length: 0"}, 403},
		{"changing by a typed address", "POST", "/upload", []string{"Sec-Fetch-Site: none", "Content-Length: 0"}, 403},
		{"changing from another origin", "POST", "/upload", []string{"Origin: http://other.example", "Content-Length: 0"}, 403},
		{"changing from another origin of the same site", "POST", "/upload", []string{"Sec-Fetch-Site: same-site", "Content-Length: 0"}, 403},
		{"changing from our page", "POST", "/upload", []string{"Origin: http://baton.example:8080", "Sec-Fetch-Site: same-origin", "Content-Length: 0"}, 501},
		{"changing from our page, an old browser", "POST", "/upload", []string{"Origin: http://baton.example:8080", "Content-Length: 0"}, 501},
		{"stopping the server", "POST", "/system/stop", []string{"Origin: http://baton.example:8080", "Content-Length: 0"}, 403},
		{"signing out without proof of our page", "DELETE", "/system/session", nil, 403},
	} {
		a := s.tcp(t, request(law.method, law.path, append(law.fields, session)...))
		if a.StatusCode != law.status {
			t.Errorf("%s: %d %s, want %d", law.name, a.StatusCode, a.body, law.status)
		}
	}
	for fields, want := range map[string]string{session: "{\"signedIn\":true}\n", "Cookie: baton_session=x": "{\"signedIn\":false}\n", "X: y": "{\"signedIn\":false}\n"} {
		if a := s.tcp(t, request("GET", "/system/session", fields)); a.StatusCode != 200 || a.body != want {
			t.Errorf("signed in with %.30s? %d %s, want %s", fields, a.StatusCode, a.body, want)
		}
	}
	other := signIn()
	a := s.tcp(t, request("DELETE", "/system/session", session, "Sec-Fetch-Site: same-origin"))
	if a.StatusCode != 204 || a.Cookies()[0].MaxAge >= 0 {
		t.Errorf("sign out: %d, %v; want 204 and a cookie that ends", a.StatusCode, a.Cookies())
	}
	if a := s.tcp(t, request("GET", "/system/status", session)); a.StatusCode != 401 {
		t.Errorf("after signing out: %d, want 401", a.StatusCode)
	}
	if a := s.tcp(t, request("GET", "/system/status", other)); a.StatusCode != 200 {
		t.Errorf("the other session: %d, want 200", a.StatusCode)
	}
}

func TestSessionBounds(t *testing.T) {
	t.Parallel()
	var s sessions
	now := time.Unix(1_000_000, 0)
	first, err := s.signIn(now)
	if err != nil {
		t.Fatal(err)
	}
	if !s.valid(first, now.Add(sessionLife-time.Second)) || s.valid(first, now.Add(sessionLife)) || s.valid(first, now) {
		t.Error("a session lives for sessionLife, and never again")
	}
	var all []string
	for i := range sessionsMax + 1 {
		secret, err := s.signIn(now.Add(time.Duration(i)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, secret)
	}
	if len(s.live) != sessionsMax || s.valid(all[0], now) || !s.valid(all[1], now) || !s.valid(all[sessionsMax], now) {
		t.Errorf("%d sessions, want %d, and the oldest one gone", len(s.live), sessionsMax)
	}
	link, err := s.newLogin(now)
	if err != nil {
		t.Fatal(err)
	}
	if s.useLogin(link, now.Add(loginLife)) || s.useLogin(link, now) {
		t.Error("a link that is too old is void, and asking voids it")
	}
	for range 2 * loginsMax {
		if _, err := s.newLogin(now); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.logins) != loginsMax {
		t.Errorf("%d links wait, want at most %d", len(s.logins), loginsMax)
	}
}

func TestGuardLaw(t *testing.T) {
	t.Parallel()
	var g guard
	now := time.Unix(1_000_000, 0)
	p := sourceOf(loopback)
	for i, want := range []time.Duration{100, 200, 400, 800, 1600, 3200, 3200} {
		delay, held := g.fail(p, now)
		if delay != want*time.Millisecond || held == nil {
			t.Errorf("failure %d: %v, held %v; want %v", i+1, delay, held, want*time.Millisecond)
		}
		g.done(held)
	}
	if delay, held := g.fail(p, now.Add(guardForget+time.Second)); delay != guardDelayMin {
		t.Errorf("after a quiet minute: %v, want %v", delay, guardDelayMin)
	} else {
		g.done(held)
	}

	// Of one source only a few wait; another is not held up by it.
	var waits []*source
	for range guardWaitingSourceMax {
		if !g.allow(p) {
			t.Fatal("refused below the bound")
		}
		_, held := g.fail(p, now)
		waits = append(waits, held)
	}
	if g.allow(p) {
		t.Error("an attempt of a source with all its waits taken is looked at")
	}
	if _, held := g.fail(p, now); held != nil {
		t.Error("more answers wait for one source than the bound")
	}
	if !g.allow(sourceOf(netip.MustParseAddr("192.0.2.1"))) {
		t.Error("one source holds up another")
	}

	// In all, too; and the right token still passes then.
	for i := range 2 * guardWaitingMax {
		q := sourceOf(netip.AddrFrom4([4]byte{10, 0, byte(i), 1}))
		if !g.allow(q) {
			t.Fatal("a new source is not looked at")
		}
		if _, held := g.fail(q, now); held != nil {
			waits = append(waits, held)
		}
	}
	if len(waits) != guardWaitingMax || g.waiting != guardWaitingMax {
		t.Errorf("%d answers wait, counted %d; want %d", len(waits), g.waiting, guardWaitingMax)
	}
	for _, held := range waits {
		g.done(held)
	}
	if g.waiting != 0 || !g.allow(p) {
		t.Errorf("%d still wait", g.waiting)
	}

	// The table of sources has a bound, and old ones make room.
	for i := range 3 * guardSourcesMax {
		_, held := g.fail(sourceOf(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 1})), now)
		g.done(held)
	}
	if len(g.sources) > guardSourcesMax {
		t.Errorf("%d sources are kept, want at most %d", len(g.sources), guardSourcesMax)
	}
	late := now.Add(time.Hour)
	_, held := g.fail(p, late)
	g.done(held)
	if len(g.sources) > guardSourcesMax || g.sources[p] == nil {
		t.Errorf("%d sources, and the new one is %v", len(g.sources), g.sources[p])
	}
}

func TestSourceOf(t *testing.T) {
	t.Parallel()
	for _, law := range [][2]string{
		{"192.0.2.7", "192.0.2.7/32"},
		{"::ffff:192.0.2.7", "192.0.2.7/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
	} {
		if got := sourceOf(netip.MustParseAddr(law[0])).String(); got != law[1] {
			t.Errorf("sourceOf(%s) = %s, want %s", law[0], got, law[1])
		}
	}
	if p := sourceOf(netip.Addr{}); p.IsValid() {
		t.Errorf("sourceOf(zero) = %v, want the zero prefix", p)
	}
}
