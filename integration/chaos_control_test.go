package integration

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
)

// Every door of the control plane, tried with and without the key, and by every
// window. The answer is one, and the connection ends where it must.
func TestChaosControlDoors(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	token := "Authorization: Bearer " + s.Token(t) + "\r\n"
	for _, tc := range []struct {
		name, line, fields string
		status             int
	}{
		{"no token", "GET /system/functions", "", 401},
		{"a wrong token", "GET /system/functions", "Authorization: Bearer " + strings.Repeat("0", 64) + "\r\n", 401},
		{"the token as a query", "GET /system/functions?token=" + s.Token(t), "", 401},
		{"the token by another scheme", "GET /system/functions", "Authorization: Basic " + s.Token(t) + "\r\n", 401},
		{"two tokens", "GET /system/functions", token + token, 400},
		{"the token", "GET /system/functions", token, 200},
		{"in absolute form", "GET http://t/system/functions", token, 200},
		{"a page of another origin", "POST /system/session", token + "Origin: http://evil.example\r\nContent-Length: 0\r\n", 403},
		{"stop over TCP", "POST /system/stop", token, 403},
		{"stop over TCP, no token", "POST /system/stop", "", 401},
		{"another method", "DELETE /system/functions", token, 405},
		{"a made-up method", "BREW /system/functions", token, 405},
		{"CONNECT", "CONNECT t:80", token, 501},
		{"up and away", "GET /system/../ping", "", 401},
		{"a slash behind", "GET /system/functions/", token, 404},
		{"an escaped letter", "GET /system/%66unctions", token, 404},
		{"an escaped NUL", "GET /system/functions%00", token, 404},
		{"a parameter", "GET /system/functions;x", token, 404},
		{"a fragment", "GET /system/functions#x", token, 400},
		{"the path inside a query", "GET http://t?/system/functions", token, 404},
		{"two slashes", "GET //system/functions", token, 404},
		{"from a function's path", "GET /ping/../system/functions", token, 404},
		{"capitals", "GET /SYSTEM/functions", token, 404},
		{"an escaped folder", "GET /%73ystem/functions", token, 404},
		{"metrics, no token", "GET /metrics", "", 401},
		{"upload, no token", "POST /upload", "Content-Length: 3\r\n", 401},
		{"a head that is too large", "GET /system/functions", token + "X-Large: " + strings.Repeat("x", 40_000) + "\r\n", 431},
		{"a body's length beyond all", "POST /system/session", token + "Content-Length: 9223372036854775808\r\n", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := testenv.Dial(t, s.Addr)
			c.Send(t, tc.line+" HTTP/1.1\r\nHost: t\r\n"+tc.fields+"\r\nabc")
			if r := c.Response(t); r.Status != tc.status {
				t.Errorf("status %d, body %.200q; want %d", r.Status, r.Body, tc.status)
			}
		})
	}
	for path, mode := range map[string]os.FileMode{"run": os.ModeDir | 0o700, "run/admin.sock": os.ModeSocket | 0o600, "run/serve.pid": 0o600} {
		if info, err := os.Stat(filepath.Join(s.Data, path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
}

// What follows a control request on its connection is never answered, nor run.
func TestChaosBytesBehindControl(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	token := "Authorization: Bearer " + s.Token(t) + "\r\n"
	behind := get("/ping") + "POST /system/stop HTTP/1.1\r\nHost: t\r\n" + token + "\r\n"
	for _, first := range []string{"", get("/ping")} { // parsed by the gateway, by a worker
		for _, request := range []string{
			"GET /system/functions HTTP/1.1\r\nHost: t\r\n" + token + "\r\n",
			"POST /system/session HTTP/1.1\r\nHost: t\r\n" + token + "Content-Length: 3\r\n\r\nabc",
			"POST /system/session HTTP/1.1\r\nHost: t\r\n" + token + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		} {
			c := testenv.Dial(t, s.Addr)
			c.Send(t, first+request+behind)
			if first != "" {
				want(t, c.Response(t), 200, "pong")
			}
			if r := c.Response(t); r.Status != 200 && r.Status != 204 || !r.Close {
				t.Errorf("%.60q: status %d, close %v", request, r.Status, r.Close)
			}
			c.WantEnd(t)
		}
	}
}

// Strangers who announce bodies and send none hold up neither functions nor the
// owner's commands, and lose their places.
func TestChaosControlPlacesTaken(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	conns := make([]*testenv.Conn, 300)
	for i := range conns {
		conns[i] = testenv.Dial(t, s.Addr)
		conns[i].Send(t, "POST /system/session HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
	}
	if out, code := s.Baton(t, "status"); code != 0 {
		t.Errorf("baton status meanwhile: exit %d, %s", code, out)
	}
	if r, err := testenv.Get(s.Addr, "/ping"); err != nil || r.Status != 200 {
		t.Errorf("a function meanwhile: %d, %v", r.Status, err)
	}
	if r, err := testenv.Get(s.Addr, "/readyz"); err != nil || r.Status != 200 {
		t.Errorf("/readyz meanwhile: %d, %v", r.Status, err)
	}
	answers := map[int]int{}
	for _, c := range conns {
		answers[c.Response(t).Status]++
	}
	if answers[503] == 0 || answers[408] == 0 || answers[503]+answers[408] != len(conns) {
		t.Errorf("answers %v, want 503 beyond the bound and 408 for the rest", answers)
	}
	testenv.Until(t, "a place is free again", func() bool {
		r, err := testenv.Do(s.Addr, "GET /system/functions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer "+s.Token(t)+"\r\n\r\n")
		return err == nil && r.Status == 200
	})
}

// Heads that come a byte at a time end when their time is over, wherever they
// are parsed, and hold up nobody.
func TestChaosSlowHeads(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	var wg sync.WaitGroup
	for i := range 60 {
		c := testenv.Dial(t, s.Addr)
		if i%2 == 0 { // at the worker
			c.Send(t, get("/ping"))
			want(t, c.Response(t), 200, "pong")
		}
		wg.Go(func() {
			stop := make(chan struct{})
			defer close(stop)
			go drip(c, stop)
			r, err := c.ReadResponse("GET")
			if err != nil || r.Status != 408 || !r.Close {
				t.Errorf("a slow head: status %d, close %v, %v; want 408 and the end", r.Status, r.Close, err)
			}
		})
	}
	if r, err := testenv.Get(s.Addr, "/ping"); err != nil || r.Status != 200 {
		t.Errorf("meanwhile: %d, %v", r.Status, err)
	}
	wg.Wait()
	awaitRestOfOne(t, s)
}

// drip sends the begin of a head and then a byte every 200 ms.
func drip(c net.Conn, stop <-chan struct{}) {
	_, _ = io.WriteString(c, "GET /ping HTTP/1.1\r\nX: ")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if _, err := io.WriteString(c, "x"); err != nil {
			return
		}
	}
}

func awaitRestOfOne(t testing.TB, s *testenv.Server) {
	t.Helper()
	awaitRest(t, s, 1, idleDescriptors{})
}
