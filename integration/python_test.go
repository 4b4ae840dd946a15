package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
)

const pythonScript = `import json
import os
import socket
import sys
import time

command, _, argument = os.environ["QUERY_STRING"].partition("=")
body = sys.stdin.read()
if command == "echo":
    print(json.dumps({"method": os.environ["REQUEST_METHOD"], "x": os.environ.get("HTTP_X_MINE"), "body": body, "left": os.environ.get("LEFT")}))
    os.environ["LEFT"] = "1"
elif command == "status":
    print("Status: " + argument + "\nContent-Type: text/plain\nX-Made: by Python\nSet-Cookie: a=1\nSet-Cookie: b=2\n\nmade")
elif command == "exit":
    sys.exit(int(argument))
elif command == "raise":
    raise ValueError("for the log")
elif command == "spin":
    while True:
        pass
elif command == "memory":
    bytearray(1 << 40)
elif command == "close":
    sys.stdout.close()
elif command == "size":
    sys.stdout.write("[" + "1," * int(argument) + "1]")
elif command == "length":
    print([len(body)])
elif command == "probe":
    found = []
    for path in json.loads(body):
        try:
            with open(path, "rb") as file:
                found.append([path, len(file.read(16))])
        except OSError:
            pass
        try:
            socket.socket(socket.AF_UNIX).connect(path)
            found.append(["connected", path])
        except OSError:
            pass
    print(json.dumps(found))
`

const pythonHandler = `import os
import time

calls = 0


def handler(event, context):
    global calls
    calls += 1
    command, _, argument = event["rawQueryString"].partition("=")
    if command == "echo":
        return {"method": event["requestContext"]["http"]["method"], "x": event["headers"].get("x-mine"), "body": event["body"], "left": None}
    if command == "status":
        return {"statusCode": int(argument), "headers": {"Content-Type": "text/plain", "X-Made": "by Python"}, "cookies": ["a=1", "b=2"], "body": "made"}
    if command == "exit":
        os._exit(int(argument))
    if command == "raise":
        raise ValueError("for the log")
    if command == "spin":
        while True:
            pass
    if command == "memory":
        bytearray(1 << 40)
    if command == "size":
        return [1] * (int(argument) + 1)
    if command == "length":
        return [len(event["body"])]
    if command == "text":
        return "a text"
    if command == "calls":
        return [calls]
    return {"path": event["rawPath"], "parameters": event["pathParameters"], "id": context.aws_request_id}
`

// Python functions of both forms, on the real binary: one connection is asked
// one thing after another, the faults among them.
func TestPython(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	s := testenv.Start(t, testenv.Options{Workers: 2})
	deployed(t, s, []byte(`{"name":"script","runtime":"python","path":"/script","timeout":10}`), "script.py", []byte(pythonScript))
	deployed(t, s, []byte(`{"name":"called","runtime":"python","path":"/called/{rest...}","timeout":10}`), "called.py", []byte(pythonHandler))
	for name, path := range map[string]string{"a script": "/script", "a handler": "/called/x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := strings.HasPrefix(path, "/called")
			c := testenv.Dial(t, s.Addr)
			echo := func(method, body string) {
				t.Helper()
				send(t, c, fmt.Sprintf("%s %s?echo HTTP/1.1\r\nHost: t\r\nX-Mine: yes\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body))
				r := c.Response(t)
				var got struct{ Method, X, Body, Left string }
				if err := json.Unmarshal(r.Body, &got); err != nil || r.Status != 200 || got.Method != method || got.X != "yes" || got.Body != body || got.Left != "" {
					t.Fatalf("%s of %d bytes: status %d, %.300s (%v)", method, len(body), r.Status, r.Body, err)
				}
				if got := r.Header.Get("Content-Type"); got != "application/json" {
					t.Errorf("Content-Type is %q", got)
				}
			}
			echo("GET", "")
			echo("POST", "text ü")
			echo("PUT", strings.Repeat("large ", 50_000)) // it streams
			for _, status := range []int{200, 404, 201} {
				send(t, c, get(fmt.Sprintf("%s?status=%d", path, status)))
				r := c.Response(t)
				if r.Status != status || string(r.Body) != "made" && string(r.Body) != "made\n" || r.Header.Get("X-Made") != "by Python" || len(r.Header.Values("Set-Cookie")) != 2 || r.Header.Get("Content-Type") != "text/plain" {
					t.Errorf("status %d, %q, %v", r.Status, r.Body, r.Header)
				}
			}
			for _, f := range []struct {
				query  string
				status int
				part   string
			}{
				{"exit=7", 502, `"exit_code":7`}, {"raise", 502, `"exit_code":1`}, {"memory", 502, `"reason":"oom"`}, {"size=300000", 200, "1,"},
			} {
				send(t, c, get(path+"?"+f.query))
				want(t, c.Response(t), f.status, f.part)
				echo("POST", "after "+f.query)
			}
			send(t, c, post(path+"?length", strings.Repeat("x", 3_000_000)))
			want(t, c.Response(t), 200, "[3000000]")
			if !handler {
				send(t, c, get(path+"?close"))
				want(t, c.Response(t), 502, `"reason":"no_output"`)
			} else {
				send(t, c, get("/called/a%20b/c"))
				want(t, c.Response(t), 200, `"path": "/called/a%20b/c", "parameters": {"rest": "a b/c"}`)
				send(t, c, get(path+"?text"))
				want(t, c.Response(t), 200, `{"result": "a text"}`)
			}
			if text, exit := s.Baton(t, "ls"); exit != 0 || !strings.Contains(text, "python") {
				t.Errorf("ls: exit %d, %s", exit, text)
			}
		})
	}
}

// A function that does not end is answered 504, killed and replaced.
func TestPythonTimeout(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	for name, source := range map[string]string{"script": pythonScript, "called": pythonHandler} {
		// Long enough for a start on a busy machine.
		deployed(t, s, fmt.Appendf(nil, `{"name":%q,"runtime":"python","path":"/%s","timeout":4}`, name, name), name+".py", []byte(source))
		c := testenv.Dial(t, s.Addr)
		awaitAnswer(t, c, "/"+name+"?echo")
		send(t, c, get("/"+name+"?spin"))
		want(t, c.Response(t), 504, `"reason":"function_timeout"`)
		awaitAnswer(t, c, "/"+name+"?echo")
	}
}

// send sends a request on a connection that has carried others: its deadline is
// this request's.
func send(t *testing.T, c *testenv.Conn, request string) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(testenv.Patience())); err != nil {
		t.Fatal(err)
	}
	c.Send(t, request)
}

// awaitAnswer asks until the function is answered with success: a start may
// take longer than the function's timeout.
func awaitAnswer(t *testing.T, c *testenv.Conn, path string) {
	t.Helper()
	testenv.Until(t, path+" answers", func() bool {
		send(t, c, get(path))
		return c.Response(t).Status == 200
	})
}

// Many connections, each with one request behind the other: every answer is the
// one to its request.
func TestPythonKeepAlive(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	s := testenv.Start(t, testenv.Options{Workers: 2})
	deployed(t, s, []byte(`{"name":"script","runtime":"python","path":"/script"}`), "script.py", []byte(pythonScript))
	deployed(t, s, []byte(`{"name":"called","runtime":"python","path":"/called"}`), "called.py", []byte(pythonHandler))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c, err := testenv.Connect(s.Addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for j := range 10 {
				path := "/script?echo"
				if (i+j)%2 == 0 {
					path = "/called?echo"
				}
				body := fmt.Sprintf("%d of %d", j, i)
				_ = c.SetDeadline(time.Now().Add(testenv.Patience()))
				if _, err := io.WriteString(c.Conn, post(path, body)); err != nil {
					t.Error(err)
					return
				}
				r, err := c.ReadResponse("POST")
				if err != nil || r.Status != 200 || !strings.Contains(string(r.Body), `"body": "`+body+`"`) {
					t.Errorf("%s: status %d, %v, %.200s", path, r.Status, err, r.Body)
					return
				}
			}
		})
	}
	wg.Wait()
}

// What a Python function cannot reach of baton itself.
func TestPythonIsolation(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	deployed(t, s, []byte(`{"name":"other","runtime":"python","path":"/other"}`), "other.py", []byte("print('other')\n"))
	deployed(t, s, []byte(`{"name":"script","runtime":"python","path":"/script"}`), "script.py", []byte(pythonScript))
	paths := []string{filepath.Join(s.Data, "admin.token"), filepath.Join(s.Data, "faas_meta.db"), filepath.Join(s.Data, "run", "admin.sock")}
	others, err := filepath.Glob(filepath.Join(s.Data, "functions", "*", "1", "*"))
	if err != nil || len(others) < 2 {
		t.Fatalf("%v, %v", others, err)
	}
	for _, pid := range append(s.Workers(), s.Pid) {
		paths = append(paths, fmt.Sprintf("/proc/%d/environ", pid), fmt.Sprintf("/proc/%d/mem", pid))
	}
	text, err := json.Marshal(append(paths, others...))
	if err != nil {
		t.Fatal(err)
	}
	c := testenv.Dial(t, s.Addr)
	send(t, c, post("/script?probe", string(text)))
	r := c.Response(t)
	var found [][]any
	// Its own file is all that it finds.
	if err := json.Unmarshal(r.Body, &found); err != nil || r.Status != 200 || len(found) != 1 || !strings.HasSuffix(fmt.Sprint(found[0][0]), "/1/module.py") {
		t.Errorf("status %d, %s (%v)", r.Status, r.Body, err)
	}
}
