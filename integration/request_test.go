package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
)

func TestDemoRoutes(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{})
	c := testenv.Dial(t, s.Addr)

	c.Send(t, get("/ping"))
	r := c.Response(t)
	var ping struct {
		Pong bool  `json:"pong"`
		TS   int64 `json:"ts"`
	}
	if err := json.Unmarshal(r.Body, &ping); err != nil || !ping.Pong {
		t.Fatalf("GET /ping: %q (%v)", r.Body, err)
	}
	if d := time.Since(time.Unix(ping.TS, 0)); d < -time.Minute || d > time.Minute {
		t.Errorf("GET /ping: ts is off by %v", d)
	}
	if r.Header.Get("X-Request-Id") == "" || r.Header.Get("Date") == "" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("GET /ping: fields %v", r.Header)
	}
	for _, tc := range []struct{ request, body string }{
		{post("/api/hello", `{"name":"Alice"}`), `{"message":"Hello, Alice","runtime":"wasm","endpoint":"/api/hello"}`},
		{post("/api/hello", ``), `{"message":"Hello, world","runtime":"wasm","endpoint":"/api/hello"}`},
		{get("/api/info"), `{"service":"faas","status":"ok",`},
		{post("/resize", `{"width":320}`), `"requested_width":320}`},
		{get("/python"), `{"`},
		{get("/function/ping"), `{"pong":true`},
	} {
		c.Send(t, tc.request)
		want(t, c.Response(t), 200, tc.body)
	}
}

// The way of a request: everything a connection may carry, on a fresh one (the
// gateway parses) and as a later request (the worker parses).
func TestRequests(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 2})
	for _, tc := range []struct {
		name, request string
		status        int
		body          string
		fields        map[string]string
	}{
		{"JSON output is sent as it is", post("/p/echo", `{"a":1}`), 200, `{"a":1}`, map[string]string{"Content-Type": "application/json"}},
		{"text is wrapped", get("/p/text"), 200, `{"result":"plain \"text\"\n"}`, nil},
		{"a CGI header block takes over", get("/p/cgi"), 418, "short and stout", map[string]string{"X-Kettle": "on", "Content-Type": "text/plain"}},
		{"a header line cannot be injected", get("/p/inject"), 502, `"component":"function"`, nil},
		{"a failed function is 502", get("/p/exit?code=3"), 502, `"exit_code":3`, map[string]string{"X-Baton-Error": "function"}},
		{"exit code 0 in the middle is success", get("/p/exit?code=0"), 200, `{"result":"some output"}`, nil},
		{"no output is 502", get("/p/nothing"), 502, `"output_bytes":0`, nil},
		{"a panic is 502", get("/p/panic"), 502, `"Function failed"`, nil},
		{"no route is 404", get("/nowhere"), 404, `"reason":"route_not_found"`, map[string]string{"X-Baton-Error": "gateway"}},
		{"another method is 405 with Allow", post("/ping", ""), 405, `"reason":"method_not_allowed"`, map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
		{"OPTIONS on a known path is 204 with Allow", "OPTIONS /ping HTTP/1.1\r\nHost: t\r\n\r\n", 204, "", map[string]string{"Allow": "GET, HEAD, OPTIONS"}},
		{"a client's request id is kept", "GET /ping HTTP/1.1\r\nHost: t\r\nX-Request-Id: abc.1_2-3\r\n\r\n", 200, "pong", map[string]string{"X-Request-Id": "abc.1_2-3"}},
		{"chunked bodies", "POST /p/echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n", 200, "[1,2]", nil},
		{"a large response", get("/p/size?n=300000"), 200, "xxx", map[string]string{"Content-Length": "300000"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			check := func(where string, r testenv.Response) {
				t.Helper()
				if r.Status != tc.status || !strings.Contains(string(r.Body), tc.body) {
					t.Errorf("%s: status %d, body %.300q; want %d with %q", where, r.Status, r.Body, tc.status, tc.body)
				}
				for name, value := range tc.fields {
					if got := r.Header.Get(name); got != value {
						t.Errorf("%s: %s: %q, want %q", where, name, got, value)
					}
				}
			}
			c := testenv.Dial(t, s.Addr)
			c.Send(t, tc.request)
			r := c.Response(t)
			check("first request", r)
			if ends := tc.status == 405; r.Close != ends {
				t.Errorf("close %v, want %v", r.Close, ends)
			} else if ends {
				c.WantEnd(t)
				c = testenv.Dial(t, s.Addr)
			}
			c.Send(t, get("/ping"))
			want(t, c.Response(t), 200, "pong")
			c.Send(t, tc.request)
			check("later request", c.Response(t))
		})
	}
}

func TestFunctionSeesItsRequest(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	c := testenv.Dial(t, s.Addr)
	c.Send(t, "GET /p/env?a=1&b=2 HTTP/1.1\r\nHost: example.org:8080\r\nX-Two: 1\r\nX-Two: 2\r\nProxy: evil\r\nX_Under: evil\r\n"+
		"Authorization: Bearer secret\r\nConnection: keep-alive\r\n\r\n")
	body := string(c.Response(t).Body)
	for _, line := range []string{
		"GATEWAY_INTERFACE=CGI/1.1", "SERVER_NAME=example.org", "SERVER_PORT=8080", "SERVER_PROTOCOL=HTTP/1.1", "REQUEST_METHOD=GET",
		"SCRIPT_NAME=/p/env", "QUERY_STRING=a=1&b=2", "REMOTE_ADDR=127.0.0.1", "HTTP_X_TWO=1, 2", "HTTP_HOST=example.org:8080",
		"X_FULL_URL=http://example.org:8080/p/env?a=1&b=2", "X_MATCHED_ROUTE=/p/env", "_HANDLER=env", "args probe-env|env",
	} {
		if !strings.Contains("\n"+body, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, body)
		}
	}
	for _, word := range []string{"evil", "secret", "HTTP_CONNECTION", "\nPATH=", "HOME="} {
		if strings.Contains(body, word) {
			t.Errorf("%q reaches the function:\n%s", word, body)
		}
	}
}

func TestPipeliningAcrossHandOver(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 2})
	c := testenv.Dial(t, s.Addr)
	// All of it is in the gateway's first read.
	c.Send(t, post("/p/echo", `["first"]`)+get("/ping")+post("/p/echo", `["third"]`)+get("/nowhere")+get("/p/sleep?ms=50")+get("/p/text"))
	want(t, c.Response(t), 200, "first")
	want(t, c.Response(t), 200, "pong")
	want(t, c.Response(t), 200, "third")
	want(t, c.Response(t), 404, "route_not_found")
	want(t, c.Response(t), 200, `"slept":50`)
	want(t, c.Response(t), 200, "plain")
	c.Send(t, get("/ping"))
	want(t, c.Response(t), 200, "pong")
}

func TestBodySplitByHandOver(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 2})
	for _, size := range []int{10, 1000, 70_000, 3_000_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			body := `["` + strings.Repeat("b", size) + `"]`
			request := post("/p/echo", body)
			cut := len(request) - len(body) + 5
			c := testenv.Dial(t, s.Addr)
			for range 2 {
				c.Send(t, request[:cut])
				c.WantSilence(t, 20*time.Millisecond) // the head was handed over, the rest was not sent
				c.Send(t, request[cut:])
				if r := c.Response(t); r.Status != 200 || string(r.Body) != body {
					t.Fatalf("status %d, %d bytes; want all %d back", r.Status, len(r.Body), len(body))
				}
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	c := testenv.Dial(t, s.Addr)
	c.Send(t, "POST /p/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	r, err := c.ReadResponse("POST")
	if err != nil || r.Status != 100 {
		t.Fatalf("%v, %v; want 100 before the body", r.Status, err)
	}
	c.Send(t, "[]")
	want(t, c.Response(t), 200, "[]")
}

// RFC 9110 section 10.1.1: the control plane asks nobody for a body that it does
// not read.
func TestExpectContinueOfControlRequests(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 1})
	right := "Authorization: Bearer " + s.Token(t) + "\r\n"
	for _, tc := range []struct {
		name, line, fields string
		interim            bool
		status             int
		reason             string
	}{
		{"no token", "POST /upload", "", false, 401, "token_missing"},
		{"a wrong token", "PUT /system/functions/ping", "Authorization: Bearer " + strings.Repeat("0", 64) + "\r\n", false, 401, "token_wrong"},
		{"the right token, another media type", "POST /upload", right + "Content-Type: text/plain\r\n", false, 415, "unsupported_media_type"},
		{"the right token", "POST /upload", right, true, 400, "bad_upload"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, later := range []bool{false, true} {
				c := testenv.Dial(t, s.Addr)
				if later {
					c.Send(t, get("/ping"))
					want(t, c.Response(t), 200, "pong")
				}
				if !strings.Contains(tc.fields, "Content-Type") {
					tc.fields += "Content-Type: multipart/form-data; boundary=b\r\n"
				}
				c.Send(t, tc.line+" HTTP/1.1\r\nHost: t\r\n"+tc.fields+"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
				r := c.Response(t)
				if tc.interim {
					if r.Status != 100 {
						t.Fatalf("status %d, want 100 before the body", r.Status)
					}
					c.Send(t, "abc")
					r = c.Response(t)
				}
				want(t, r, tc.status, `"reason":"`+tc.reason+`"`)
				if !r.Close {
					t.Error("the connection stays")
				}
				c.WantEnd(t)
			}
		})
	}
}

// A function whose body has not come runs until it has, so the requests are at
// once however slow the machine is: whoever gets no answer is in.
func TestMaxInflightIsExact(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 2})
	const limit, clients = 3, 12
	put(t, open(t, s), "POST:/limited", row{"name": "limited", "handler": "echo", "max_inflight": limit})
	awaitRoute(t, s.Addr, "/limited", true)
	head, body := unhurried("")
	head = strings.Replace(head, "/p/echo", "/limited", 1)
	for round := range 3 {
		type result struct {
			client int
			answer testenv.Response
			err    error
		}
		results := make(chan result, clients)
		conns := make([]*testenv.Conn, clients)
		for i := range conns {
			conns[i] = testenv.Dial(t, s.Addr)
		}
		for i, c := range conns {
			go func() {
				_, err := io.WriteString(c.Conn, head)
				var r testenv.Response
				if err == nil {
					r, err = c.ReadResponse("POST")
				}
				results <- result{i, r, err}
			}()
		}
		inside := map[int]bool{}
		for i := range conns {
			inside[i] = true
		}
		for range clients - limit {
			r := <-results
			delete(inside, r.client)
			if r.err != nil || r.answer.Status != 429 || r.answer.Header.Get("Retry-After") == "" {
				t.Fatalf("round %d: status %d, %v, %q; want 429 with Retry-After for all but %d", round, r.answer.Status, r.err, r.answer.Body, limit)
			}
		}
		for i := range inside {
			conns[i].Send(t, body)
		}
		for range limit {
			if r := <-results; r.err != nil || r.answer.Status != 200 || string(r.answer.Body) != body {
				t.Fatalf("round %d: status %d, %v, %d bytes; want the body back", round, r.answer.Status, r.err, len(r.answer.Body))
			}
		}
	}
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	put(t, open(t, s), "POST:/small", row{"name": "small", "handler": "echo", "max_body": 10})
	awaitRoute(t, s.Addr, "/small", true)
	for _, request := range []string{
		"POST /small HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\n",
		"POST /small HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n",
	} {
		c := testenv.Dial(t, s.Addr)
		c.Send(t, request)
		want(t, c.Response(t), 413, "body_too_large")
		c.WantEnd(t)
	}
}

func TestFunctionTimeout(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 1})
	put(t, open(t, s), "GET:/slow", row{"name": "slow", "handler": "spin", "timeout": 0.2})
	awaitRoute(t, s.Addr, "/slow", true)
	c := testenv.Dial(t, s.Addr)
	c.Send(t, get("/slow?ms=60000"))
	other := testenv.Dial(t, s.Addr)
	other.Send(t, get("/ping"))
	want(t, other.Response(t), 200, "pong")
	want(t, c.Response(t), 504, "function_timeout")
	c.Send(t, get("/ping"))
	want(t, c.Response(t), 200, "pong")
}
