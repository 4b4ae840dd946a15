package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

// phpPatience bounds what a process of PHP has a part in: it starts on busy cores.
const phpPatience = 90 * time.Second

// phpScript keeps in every way that a script can keep something, and tells what
// it has found.
const phpScript = `<?php
class Kept { public static int $n = 0; }
function calls() { static $n = 0; return ++$n; }
$found = [calls(), ++Kept::$n, $left ?? null, ini_get('precision'), getenv('LEFT'), getcwd() === __DIR__, defined('LEFT')];
$left = 1; ini_set('precision', '5'); putenv('LEFT=1'); chdir('/usr'); define('LEFT', 1); ob_start();
set_error_handler(fn() => true);
if (isset($_GET['exit'])) exit((int) $_GET['exit']);
if (isset($_GET['throw'])) throw new Exception('thrown by the test');
if (isset($_GET['status'])) http_response_code((int) $_GET['status']);
if (isset($_GET['spin'])) while (true);
if (isset($_GET['much'])) { while (ob_get_level()) ob_end_clean(); for ($i = 0; $i < 1024; $i++) echo str_repeat('x', 1 << 20); exit; }
header('X-Method: ' . $_SERVER['REQUEST_METHOD']);
echo json_encode(['found' => $found, 'body' => file_get_contents('php://stdin'), 'again' => file_get_contents('php://input'), 'q' => $_GET['q'] ?? null, 'post' => $_POST, 'pid' => getmypid()]);
`

// phpHandler counts its calls, as a handler may.
const phpHandler = `<?php
$calls = 0;
return function () use (&$calls) {
	if (isset($_GET['exit'])) exit((int) $_GET['exit']);
	if (isset($_GET['throw'])) throw new Exception('thrown by the test');
	if (isset($_GET['status'])) http_response_code((int) $_GET['status']);
	if (isset($_GET['spin'])) while (true);
	header('X-Method: ' . $_SERVER['REQUEST_METHOD']);
	echo json_encode(['calls' => ++$calls, 'body' => file_get_contents('php://stdin'), 'again' => file_get_contents('php://input'), 'q' => $_GET['q'] ?? null, 'post' => $_POST]);
};
`

// phpServer is a server with both functions.
func phpServer(t *testing.T) *testenv.Server {
	t.Helper()
	testenv.Need(t, "php-cgi")
	s := testenv.Start(t, testenv.Options{Workers: 2})
	for name, text := range map[string]string{"script": phpScript, "handler": phpHandler} {
		deployed(t, s, []byte(`{"name":"`+name+`","runtime":"php","path":"/`+name+`","timeout":60,"memory":64}`), name+".php", []byte(text))
		testenv.UntilWithin(t, phpPatience, name+" answers", func() bool {
			r, err := testenv.Get(s.Addr, "/"+name)
			return err == nil && r.Status == 200
		})
	}
	return s
}

// phpAsk is one request on a connection of its own.
func phpAsk(t *testing.T, s *testenv.Server, method, target, body string) testenv.Response {
	t.Helper()
	head := method + " " + target + " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
	if body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	r, err := testenv.Do(s.Addr, head+"\r\n"+body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return r
}

func TestPHP(t *testing.T) {
	t.Parallel()
	s := phpServer(t)
	const none = `"body":"","again":"","q":null,"post":[]`
	for _, c := range []struct {
		method, target, body string
		status               int
		want                 string // in the body
	}{
		{"GET", "/script", "", 200, `{"found":[1,1,null,"14",false,true,false],` + none},
		{"POST", "/script?q=a%20b", "the body", 200, `"body":"the body","again":"the body","q":"a b"`},
		{"GET", "/script?status=404", "", 404, `"found":[1,`},
		{"GET", "/script?exit=0", "", 502, ``}, // nothing was written
		{"GET", "/script?exit=3", "", 502, `"exit_code":3`},
		{"GET", "/script?throw=1", "", 502, `"exit_code":255`},
		{"GET", "/script", "", 200, `{"found":[1,1,null,"14",false,true,false],` + none},
		{"GET", "/handler", "", 200, none},
		{"POST", "/handler?q=a%20b", "the body", 200, `"body":"the body","again":"the body","q":"a b"`},
		{"GET", "/handler?status=404", "", 404, `"calls":`},
		{"GET", "/handler?exit=3", "", 502, `"exit_code":3`},
		{"GET", "/handler?throw=1", "", 502, `"exit_code":255`},
		{"GET", "/handler", "", 200, none},
	} {
		r := phpAsk(t, s, c.method, c.target, c.body)
		if r.Status != c.status || !bytes.Contains(r.Body, []byte(c.want)) {
			t.Errorf("%s %s: status %d, %.500s; want %d, %s", c.method, c.target, r.Status, r.Body, c.status, c.want)
		}
		if c.status < 500 && (r.Header.Get("X-Method") != c.method || r.Header.Get("Content-Type") != "application/json") {
			t.Errorf("%s %s: header %v", c.method, c.target, r.Header)
		}
	}
	for _, name := range []string{"script", "handler"} {
		testenv.UntilWithin(t, phpPatience, "what was thrown is in the log of "+name, func() bool {
			r, err := testenv.Do(s.Addr, "GET /system/functions/"+name+"/logs HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: Bearer "+s.Token(t)+"\r\n\r\n")
			return err == nil && bytes.Contains(r.Body, []byte("Uncaught Exception: thrown by the test"))
		})
	}
}

// Hundreds of requests on connections that stay open, for both functions in
// turn: each sees its own request, and a script nothing of those before.
func TestPHPKeepsNothing(t *testing.T) {
	t.Parallel()
	s := phpServer(t)
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			c, err := testenv.Connect(s.Addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for i := range 60 {
				name, q := []string{"script", "handler"}[i%2], fmt.Sprint(client, "-", i)
				body := strings.Repeat(q, 1+i*50)
				if err := c.SetDeadline(time.Now().Add(phpPatience)); err != nil {
					t.Error(err)
					return
				}
				if _, err := fmt.Fprintf(c, "POST /%s?q=%s HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s", name, q, len(body), body); err != nil {
					t.Error(err)
					return
				}
				r, err := c.ReadResponse("POST")
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				var got struct {
					Found          []any
					Body, Again, Q string
				}
				if err := json.Unmarshal(r.Body, &got); err != nil || got.Body != body || got.Again != body || got.Q != q {
					t.Errorf("request %d of %s: status %d, %.300s, %v", i, name, r.Status, r.Body, err)
					return
				}
				if found := fmt.Sprint(got.Found); name == "script" && found != "[1 1 <nil> 14 false true false]" {
					t.Errorf("request %d: the script has found %s", i, found)
					return
				}
			}
		})
	}
	wg.Wait()
}

// interpreters are the processes of PHP below a server's workers.
func interpreters(s *testenv.Server) (pids []int) {
	for _, worker := range s.Workers() {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", worker))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for word := range strings.FieldsSeq(string(text)) {
				pid, err := strconv.Atoi(word)
				line, _ := os.ReadFile("/proc/" + word + "/cmdline")
				if err == nil && bytes.Contains(line, []byte("php-cgi")) {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// An interpreter that is killed costs the request that it runs, and no other.
func TestPHPKilled(t *testing.T) {
	t.Parallel()
	s := phpServer(t)
	for _, name := range []string{"script", "handler"} {
		if r := phpAsk(t, s, "GET", "/"+name, ""); r.Status != 200 {
			t.Fatalf("%s: status %d, %.300s", name, r.Status, r.Body)
		}
		// Idle ones: the next request may meet a dead one, whose place another takes.
		for _, pid := range interpreters(s) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		testenv.UntilWithin(t, phpPatience, name+" answers again", func() bool {
			r, err := testenv.Get(s.Addr, "/"+name)
			return err == nil && r.Status == 200
		})
		// One that runs.
		before := map[int]bool{}
		for _, pid := range interpreters(s) {
			before[pid] = true
		}
		done := make(chan testenv.Response, 1)
		go func() {
			r, err := testenv.Get(s.Addr, "/"+name+"?spin=1")
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			done <- r
		}()
		var r testenv.Response
		testenv.UntilWithin(t, phpPatience, "the one that spins is killed", func() bool {
			for _, pid := range interpreters(s) {
				if busy(pid) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			select {
			case r = <-done:
				return true
			default:
				return false
			}
		})
		if r.Status != 502 || !bytes.Contains(r.Body, []byte("SIGKILL")) {
			t.Errorf("%s: status %d, %.300s; want 502 and SIGKILL", name, r.Status, r.Body)
		}
		testenv.UntilWithin(t, phpPatience, name+" answers again", func() bool {
			r, err := testenv.Get(s.Addr, "/"+name)
			return err == nil && r.Status == 200
		})
	}
}

// busy tells whether a process has used more than 0.3 seconds of processor time: it spins.
func busy(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	fields := strings.Fields(string(rest))
	user, err := strconv.Atoi(fields[11])
	return err == nil && user > 30
}

// Bounds have their documented answers, and leave the function well.
func TestPHPBounds(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "php-cgi")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	for name, text := range map[string]string{"script": phpScript, "handler": phpHandler} {
		deployed(t, s, []byte(`{"name":"`+name+`","runtime":"php","path":"/`+name+`","timeout":2,"memory":32}`), name+".php", []byte(text))
	}
	deployed(t, s, []byte(`{"name":"bomb","runtime":"php","path":"/bomb","memory":32,"timeout":60}`), "bomb.php", []byte(`<?php ini_set('memory_limit', '-1'); $a = []; while (true) $a[] = str_repeat('x', 1 << 20);`))
	for _, c := range []struct {
		target string
		status int
		reason string
	}{
		{"/script?spin=1", 504, "function_timeout"},
		{"/handler?spin=1", 504, "function_timeout"},
		{"/bomb", 502, "oom"},
	} {
		r := phpAsk(t, s, "GET", c.target, "")
		if r.Status != c.status || !bytes.Contains(r.Body, []byte(c.reason)) {
			t.Errorf("%s: status %d, %.300s; want %d, %s", c.target, r.Status, r.Body, c.status, c.reason)
		}
	}
	for _, name := range []string{"script", "handler"} {
		testenv.UntilWithin(t, phpPatience, name+" answers", func() bool {
			r, err := testenv.Get(s.Addr, "/"+name)
			return err == nil && r.Status == 200
		})
	}
}
