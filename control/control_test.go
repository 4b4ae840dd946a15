package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"baton/internal/testenv"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv("BATON_TEST_ASK"); socket != "" {
		os.Exit(ask(socket, os.Getenv("BATON_TEST_GENERATIONS")))
	}
	// Starts fasthttp's clock, which then runs for ever.
	_ = new(fasthttp.ResponseHeader).String()
	awaitClock()
	os.Exit(testenv.Main(m))
}

// awaitClock returns when the clock sleeps: the leak check compares stacks.
func awaitClock() {
	stacks := make([]byte, 64<<10)
	for {
		text := string(stacks[:goruntime.Stack(stacks, true)])
		if i := strings.Index(text, "updateServerDate.func"); i >= 0 && strings.Contains(text[:i], "time.Sleep") {
			return
		}
		goruntime.Gosched()
	}
}

const testToken = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// world is a backend that says what a test wants.
type world struct {
	mu        sync.Mutex
	functions []Function
	workers   []Worker
	status    Status
	started   map[int]bool
	stops     atomic.Int32
}

func (w *world) Functions() []Function { w.mu.Lock(); defer w.mu.Unlock(); return w.functions }
func (w *world) Workers() []Worker     { w.mu.Lock(); defer w.mu.Unlock(); return w.workers }
func (w *world) Status() Status        { w.mu.Lock(); defer w.mu.Unlock(); return w.status }
func (w *world) Stop()                 { w.stops.Add(1) }
func (w *world) Started(pid int) bool  { w.mu.Lock(); defer w.mu.Unlock(); return w.started[pid] }

func newWorld() *world {
	return &world{
		functions: []Function{
			{Key: "GET:/ping", State: Serving, Name: "ping", Method: "GET", Path: "/ping", Runtime: "wasm", Invocations: 7, Errors: 2, Inflight: 1, Codes: map[int]uint64{200: 5, 502: 2}},
			{Key: "GET:/pong", State: Serving, Name: "ping", Method: "GET", Path: "/pong", Runtime: "wasm", Invocations: 1},
			{Key: "POST:/broken", State: Bad, Error: "memory: want a number, got \"x\""},
		},
		workers: []Worker{
			{Worker: 0, PID: 4711, State: Ready, Load: "idle", CPU: 1, Mem: 2, IO: 3, Score: 1.7, Requests: 8, Restarts: 1, Crashes: 1},
			{Worker: 1, State: "starting", CPU: -1, Mem: -1, IO: -1, Score: -1},
		},
		status: Status{Version: "test", Loaded: true, Ready: true, Generation: 3, Routes: 2, Counters: []Counter{{"donated", 9}}},
	}
}

// serving is a Server and a way to reach both of its doors.
type serving struct {
	*Server
	world *world
	admin string // path of the admin socket
}

func serve(t *testing.T, change func(*Config)) *serving {
	t.Helper()
	w := newWorld()
	config := Config{Backend: w, Token: testToken}
	if change != nil {
		change(&config)
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(privateDir(t), "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(run, "admin.sock")
	if err := s.ListenAdmin(admin); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return &serving{s, w, admin}
}

// privateDir is a temporary directory as a data directory is: 0700.
func privateDir(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tcpPair is a TCP connection: the client's end and the server's.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// takenOver is a connection as the event loops hand it over: it ends behind
// the request, and tells of the hang-up beside it.
type takenOver struct {
	net.Conn
	request io.Reader
	hangup  chan struct{}
	closed  atomic.Int32
}

func (c *takenOver) Read(p []byte) (int, error) { return c.request.Read(p) }
func (c *takenOver) Hangup() <-chan struct{}    { return c.hangup }
func (c *takenOver) Close() error               { c.closed.Add(1); return c.Conn.Close() }
func request(method, path string, fields ...string) string {
	return method + " " + path + " HTTP/1.1\r\nHost: baton.example:8080\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

// answer is one response, read to the end of its connection.
type answer struct {
	*http.Response
	body string
}

func (a answer) reason() string {
	var e errorBody
	_ = json.Unmarshal([]byte(a.body), &e)
	return e.Reason
}

func readAnswer(t *testing.T, c net.Conn, method string) answer {
	t.Helper()
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Fatalf("behind the answer: %q, %v; want the end", rest, err)
	}
	return answer{response, string(body)}
}

// tcp sends a request through ServeConn.
func (s *serving) tcp(t *testing.T, text string) answer {
	t.Helper()
	client, server := tcpPair(t)
	c := &takenOver{Conn: server, request: strings.NewReader(text), hangup: make(chan struct{})}
	if err := s.ServeConn(c); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	return readAnswer(t, client, method)
}

// unix sends a request through the admin socket.
func (s *serving) unix(t *testing.T, text string) answer {
	t.Helper()
	c := s.dialAdmin(t)
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	return readAnswer(t, c, method)
}

const authorized = "Authorization: Bearer " + testToken

// checkForm: what every response carries, error or not.
func checkForm(t *testing.T, a answer) {
	t.Helper()
	id := a.Header.Get("X-Request-Id")
	if !validRequestID(id) {
		t.Errorf("X-Request-Id = %q, want 1 to 128 of [A-Za-z0-9._-]", id)
	}
	if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Date") == "" || !a.Close {
		t.Errorf("Cache-Control %q, Date %q, close %v; want no-store, a date and Connection: close",
			a.Header.Get("Cache-Control"), a.Header.Get("Date"), a.Close)
	}
	for name := range a.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("%s: no page of another origin may read anything", name)
		}
	}
	if a.StatusCode < 400 || strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
		return
	}
	if a.Header.Get("X-Baton-Error") != "gateway" {
		t.Errorf("X-Baton-Error = %q, want gateway", a.Header.Get("X-Baton-Error"))
	}
	if a.Request.Method == "HEAD" {
		return
	}
	var e errorBody
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil || e.Error == "" || e.Component != "gateway" || e.Reason == "" || e.RequestID != id {
		t.Errorf("error body %q (%v), want error, component, reason and requestId %s", a.body, err, id)
	}
}

// TestRightsLaw: every way without the right is refused, with its reason, and
// reaches no backend.
func TestRightsLaw(t *testing.T) {
	t.Parallel()
	guarded := []string{"GET /metrics", "GET /system/functions", "GET /system/workers", "GET /system/status",
		"POST /system/session", "DELETE /system/session", "POST /system/stop", "POST /upload",
		"GET /system/unknown", "PUT /system/functions", "OPTIONS /system/functions", "HEAD /system/status", "GET /system/"}
	table := serve(t, nil)
	for folder, resources := range map[string]map[string]resource{"": table.routes, "/system/functions/ping": table.functionRoutes} {
		for path, r := range resources {
			for _, m := range r {
				if line := m.name + " " + folder + path; m.right != rightAnyone && !slices.Contains(guarded, line) {
					guarded = append(guarded, line)
				}
			}
		}
	}
	ways := []struct {
		name   string
		fields []string
		status int
		reason string
	}{
		{"no token", nil, 401, "token_missing"},
		{"a wrong token", []string{"Authorization: Bearer " + strings.Repeat("0", 64)}, 401, "token_wrong"},
		{"a part of the token", []string{"Authorization: Bearer " + testToken[:63]}, 401, "token_wrong"},
		{"the token and more", []string{authorized + "0"}, 401, "token_wrong"},
		{"the token in capitals", []string{"Authorization: Bearer " + strings.ToUpper(testToken)}, 401, "token_wrong"},
		{"an empty token", []string{"Authorization: Bearer "}, 401, "token_missing"},
		{"the bare token", []string{"Authorization: " + testToken}, 401, "token_missing"},
		{"another scheme", []string{"Authorization: Basic " + testToken}, 401, "token_missing"},
		{"the right token and another", []string{authorized, "Authorization: Bearer x"}, 400, "bad_request"},
		{"a session that never was", []string{"Cookie: baton_session=" + strings.Repeat("0", 64)}, 401, "token_missing"},
		{"the token as a session", []string{"Cookie: baton_session=" + testToken}, 401, "token_missing"},
		{"the token from another site's page", []string{authorized, "Sec-Fetch-Site: cross-site"}, 403, "cross_origin"},
		{"the token from another port's page", []string{authorized, "Sec-Fetch-Site: same-site"}, 403, "cross_origin"},
		{"the token with another origin", []string{authorized, "Origin: http://evil.example"}, 403, "cross_origin"},
		{"the token with another port's origin", []string{authorized, "Origin: http://baton.example:9090"}, 403, "cross_origin"},
		{"the token with the origin null", []string{authorized, "Origin: null"}, 403, "cross_origin"},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, nil)
			for _, line := range guarded {
				method, path, _ := strings.Cut(line, " ")
				a := s.tcp(t, request(method, path, way.fields...))
				if a.StatusCode == 429 {
					t.Errorf("%s: 429: one attempt after the other is never over the bound", line)
				}
				if a.StatusCode != way.status || method != "HEAD" && a.reason() != way.reason {
					t.Errorf("%s: %d %s, want %d %s", line, a.StatusCode, a.body, way.status, way.reason)
				}
				if challenge := a.Header.Get("WWW-Authenticate"); way.status == 401 && challenge == "" {
					t.Errorf("%s: 401 without WWW-Authenticate", line)
				}
				checkForm(t, a)
				// The delay after failures is for a test of its own.
				s.guard.mu.Lock()
				s.guard.sources = nil
				s.guard.mu.Unlock()
			}
			if n := s.world.stops.Load(); n != 0 {
				t.Errorf("the backend was stopped %d times", n)
			}
		})
	}
}

func TestResourceLaw(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, law := range []struct {
		request string
		door    string // tcp, unix or both
		status  int
		has     string
	}{
		{request("GET", "/healthz"), "both", 200, "ok"},
		{request("HEAD", "/healthz"), "both", 200, ""},
		{request("GET", "/readyz"), "both", 200, "ready"},
		{request("POST", "/healthz"), "both", 405, "method_not_allowed"},
		{request("GET", "/system/functions", authorized), "both", 200, `[{"key":"GET:/ping"`},
		{request("GET", "/system/functions", "authorization: bEARER "+testToken), "tcp", 200, `"POST:/broken"`},
		{request("GET", "/system/functions"), "unix", 200, `"error":"memory: want`},
		{request("GET", "http://baton.example:8080/system/functions", authorized), "tcp", 200, `"POST:/broken"`},
		{request("GET", "/system/workers", authorized), "both", 200, `"pid":4711`},
		{request("GET", "/system/status", authorized), "both", 200, `"badRows":[{"key":"POST:/broken"`},
		{request("GET", "/system/status?x=1"), "unix", 200, `"generation":3`},
		{request("GET", "/metrics", authorized), "both", 200, "baton_table_generation 3"},
		{request("POST", "/system/functions", authorized, "Content-Length: 0"), "both", 405, "method_not_allowed"},
		{request("POST", "/system/stop", authorized, "Content-Length: 0"), "tcp", 403, "admin_socket_only"},
		{request("POST", "/upload", authorized, "Content-Length: 2") + "{}", "both", 501, "not_implemented"},
		{request("GET", "/_/health"), "both", 501, "not_implemented"},
		{request("POST", "/async-function/ping", "Content-Length: 0"), "tcp", 501, "not_implemented"},
		{request("GET", "/2018-06-01/runtime/invocation/next"), "tcp", 501, "not_implemented"},
		{request("GET", "/ping"), "unix", 404, "not_found"},
		{request("GET", "/system/x", authorized), "both", 404, "not_found"},
		{request("GET", "/system"), "tcp", 404, "not_found"},
		// Never cleaned or decoded: another parser has routed by the raw path.
		{request("GET", "//system/functions", authorized), "tcp", 404, "not_found"},
		{request("GET", "/x/../system/functions", authorized), "tcp", 404, "not_found"},
		{request("GET", "/system/%66unctions", authorized), "tcp", 404, "not_found"},
		{request("GET", "/system/./functions", authorized), "tcp", 404, "not_found"},
	} {
		line, _, _ := strings.Cut(law.request, "\r")
		for _, door := range []string{"tcp", "unix"} {
			if law.door != door && law.door != "both" {
				continue
			}
			ask := s.tcp
			if door == "unix" {
				ask = s.unix
			}
			a := ask(t, law.request)
			if a.StatusCode != law.status || !strings.Contains(a.body, law.has) {
				t.Errorf("%s by %s: %d %s, want %d with %s", line, door, a.StatusCode, a.body, law.status, law.has)
			}
			if law.status == 405 && a.Header.Get("Allow") == "" {
				t.Errorf("%s by %s: 405 without Allow", line, door)
			}
			checkForm(t, a)
		}
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, law := range []struct {
		name, sent string
		kept       bool
	}{
		{"the client's own is kept", "My.Request_id-1", true},
		{"128 characters are kept", strings.Repeat("x", 128), true},
		{"129 are not", strings.Repeat("x", 129), false},
		{"a space is not", "a b", false},
		{"an empty one is not", "", false},
		{"quotes are not", `a"b`, false},
	} {
		a := s.tcp(t, request("GET", "/system/functions", "X-Request-Id: "+law.sent))
		checkForm(t, a)
		if kept := a.Header.Get("X-Request-Id") == law.sent; kept != law.kept {
			t.Errorf("%s: sent %q, got %q", law.name, law.sent, a.Header.Get("X-Request-Id"))
		}
	}
}

func TestReadyFollowsTheBackend(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, law := range []struct {
		status Status
		code   int
		reason string
	}{
		{Status{}, 503, "no_table"},
		{Status{Loaded: true}, 503, "no_worker"},
		{Status{Loaded: true, Ready: true}, 200, ""},
		{Status{Ready: true, Draining: true}, 503, "draining"},
	} {
		s.world.mu.Lock()
		s.world.status = law.status
		s.world.mu.Unlock()
		a := s.unix(t, request("GET", "/readyz"))
		if a.StatusCode != law.code || a.reason() != law.reason {
			t.Errorf("%+v: %d %s, want %d %s", law.status, a.StatusCode, a.reason(), law.code, law.reason)
		}
		if a.StatusCode == 503 && a.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
}

func TestUnreadableRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, law := range []struct {
		name, request string
		status        int
	}{
		{"no HTTP", "hello\r\n\r\n", 400},
		{"ends inside the head", "GET / HTTP/1.1\r\nHost: x\r\n", 400},
		{"a head above the bound", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", headBytesMax) + "\r\n\r\n", 431},
	} {
		a := s.tcp(t, law.request)
		if a.StatusCode != law.status {
			t.Errorf("%s: %d, want %d", law.name, a.StatusCode, law.status)
		}
		checkForm(t, a)
	}
}

func TestStopOnlyByAdminSocket(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	if a := s.unix(t, request("POST", "/system/stop", "Content-Length: 0")); a.StatusCode != 202 {
		t.Errorf("stop by the admin socket: %d %s, want 202", a.StatusCode, a.body)
	}
	if n := s.world.stops.Load(); n != 1 {
		t.Errorf("the backend was stopped %d times, want 1", n)
	}
}

func TestServeConnClosesOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	client, server := tcpPair(t)
	c := &takenOver{Conn: server, request: strings.NewReader(request("GET", "/healthz")), hangup: make(chan struct{})}
	if err := s.ServeConn(c); err != nil {
		t.Fatal(err)
	}
	readAnswer(t, client, "GET")
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := c.closed.Load(); n != 1 {
		t.Errorf("closed %d times, want once", n)
	}
}

// A request that waits (here for the answer to a wrong token) ends when its
// client goes away: both where the connection tells, and where it is read on.
func TestHangupEndsARequestThatWaits(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	wrong := request("GET", "/system/functions", "Authorization: Bearer wrong")
	long := func() { // as if from many failures before: 3.2 s
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		s.guard.sources = nil
		s.guard.source(sourceOf(loopback), time.Now()).failures = 20
		s.guard.sources[sourceOf(loopback)].last = time.Now()
	}
	waiting := func() int { s.guard.mu.Lock(); defer s.guard.mu.Unlock(); return s.guard.waiting }

	for _, name := range []string{"told", "read"} {
		long()
		client, server := tcpPair(t)
		hangup := make(chan struct{})
		var c net.Conn = server
		if name == "told" {
			c = &takenOver{Conn: server, request: strings.NewReader(wrong), hangup: hangup}
		} else if _, err := io.WriteString(client, wrong); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.ServeConn(c); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "the answer is held back", func() bool { return waiting() == 1 })
		if name == "told" {
			close(hangup)
		} else {
			client.Close()
		}
		testenv.Until(t, "the wait is over", func() bool { return waiting() == 0 })
		if took := time.Since(start); took >= guardDelayMax {
			t.Errorf("%s: the request waited %v after its client had gone", name, took)
		}
	}
}

func TestBoundOfConnections(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for range connsMax {
		_, server := tcpPair(t)
		if err := s.ServeConn(server); err != nil { // says nothing: occupies its place
			t.Fatal(err)
		}
	}
	client, server := tcpPair(t)
	if err := s.ServeConn(server); !errors.Is(err, ErrBusy) {
		t.Fatalf("connection %d: %v, want ErrBusy", connsMax+1, err)
	}
	a := readAnswer(t, client, "GET")
	if a.StatusCode != 503 || a.reason() != "capacity_exceeded" || a.Header.Get("Retry-After") == "" {
		t.Errorf("answered %d %s, want 503 capacity_exceeded with Retry-After", a.StatusCode, a.body)
	}
	if n := s.refused[reasonBusy].Load(); n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
	if a := s.unix(t, request("GET", "/system/status")); a.StatusCode != 200 {
		t.Errorf("the admin socket answers %d while strangers fill the bound, want 200", a.StatusCode)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown with silent connections = %v, want the context's error", err)
	}
	client, server = tcpPair(t)
	if err := s.ServeConn(server); !errors.Is(err, os.ErrClosed) {
		t.Errorf("ServeConn after Shutdown = %v, want os.ErrClosed", err)
	}
	if a := readAnswer(t, client, "GET"); a.StatusCode != 503 || a.reason() != "draining" {
		t.Errorf("answered %d %s, want 503 draining", a.StatusCode, a.body)
	}
}

// A stranger who announces a body and never sends it loses the place soon; who
// has shown the token has longer.
func TestBodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	client, server := tcpPair(t)
	if err := s.ServeConn(server); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := io.WriteString(client, request("POST", "/system/session", "Content-Length: 1000000")); err != nil {
		t.Fatal(err)
	}
	a := readAnswer(t, client, "POST")
	if took := time.Since(begin); a.StatusCode != 408 || took > requestTimeout/2 {
		t.Errorf("answered %d after %v, want 408 after %v", a.StatusCode, took, strangerTimeout)
	}
}

// A connection that Shutdown cuts off stays cut: whoever serves it may set its
// own deadline just afterwards.
func TestCutOutlivesDeadlines(t *testing.T) {
	t.Parallel()
	_, server := tcpPair(t)
	c := &conn{Conn: server}
	defer c.Close()
	c.cut()
	later := time.Now().Add(time.Hour)
	for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline} {
		if err := set(later); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a deadline after the cut: %v, want os.ErrClosed", err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v, want os.ErrDeadlineExceeded", err)
	}
}

func TestNewRefusesAWeakToken(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "short", strings.Repeat("x", 31), strings.Repeat("x", 513), strings.Repeat("x", 40) + "\n"} {
		if _, err := New(Config{Backend: newWorld(), Token: token}); err == nil {
			t.Errorf("New accepted the token %q", token)
		}
	}
}
