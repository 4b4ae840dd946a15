package php_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/runtime/child"
	"baton/runtime/php"
	"baton/sandbox"
)

// TestMain is the sandbox step as well: the test's own binary stands in for
// baton.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sandbox" {
		fmt.Fprintln(os.Stderr, "sandbox:", sandbox.Exec())
		os.Exit(sandbox.ExitRefused)
	}
	os.Exit(testenv.Main(m))
}

// place is a data directory with one function in it.
type place struct {
	data, dir string
	shared    *child.Shared
}

func newPlace(t testing.TB, without ...string) *place {
	t.Helper()
	testenv.Need(t, "php-cgi")
	data := t.TempDir()
	dir := filepath.Join(data, "functions", "id", "1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	shared, err := child.New(child.Options{Data: data, Work: filepath.Join(data, "work"), Without: without, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	return &place{data: data, dir: dir, shared: shared}
}

// load loads a script of the given text as a function.
func (p *place) load(t testing.TB, text string, f runtime.Function) runtime.Loaded {
	t.Helper()
	f.Module = filepath.Join(p.dir, "module.php")
	if err := os.WriteFile(f.Module, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if f.Name == "" {
		f.Name = "fn"
	}
	l, err := php.New(p.shared).Load(context.Background(), &f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func load(t testing.TB, text string, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	return newPlace(t, without...).load(t, text, f)
}

// get and post are the variables of a request, beside what a test adds.
func get(query string, more ...string) testenv.Variables {
	return append(testenv.Variables{"REQUEST_METHOD=GET", "QUERY_STRING=" + query, "SCRIPT_NAME=/fn", "PATH_INFO=", "SERVER_PROTOCOL=HTTP/1.1",
		"X_FULL_URL=http://localhost:8080/fn?" + query}, more...)
}

func post(kind string, more ...string) testenv.Variables {
	return append(testenv.Variables{"REQUEST_METHOD=POST", "QUERY_STRING=", "SCRIPT_NAME=/fn", "CONTENT_TYPE=" + kind}, more...)
}

// call is one invocation.
func call(l runtime.Loaded, env testenv.Variables, body string) (out, log string, result runtime.Result) {
	var stdout, stderr bytes.Buffer
	result = l.Invoke(&runtime.Invocation{
		Body: []byte(body), Env: env, Stdout: &stdout, Stderr: &stderr, Deadline: time.Now().Add(patience()),
	})
	return stdout.String(), stderr.String(), result
}

// patience bounds what must come: a process of PHP starts on busy cores.
func patience() time.Duration { return max(testenv.Patience(), 60*time.Second) }

// ways are the ways in which a process may be confined, by name.
var ways = map[string][]string{
	"all layers":       nil,
	"no namespaces":    {sandbox.LayerRoot},
	"no seccomp":       {sandbox.LayerSeccomp},
	"without landlock": {sandbox.LayerLandlock, sandbox.LayerRoot},
}

func TestScripts(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	const upload = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain\r\n\r\nfile\r\n--b--\r\n"
	for _, c := range []struct {
		name, text string
		env        testenv.Variables
		body       string
		out, log   string
		want       runtime.Result
	}{
		{name: "echo is the output, unchanged", text: `<?php echo "hello";`, env: get(""), out: "hello"},
		{name: "text outside of PHP", text: "before <?php echo 1 ?> after", env: get(""), out: "before 1 after"},
		{name: "an interpreter's line", text: "#!/usr/bin/env php\n<?php echo 'x'; echo \"#!y\\n\";", env: get(""), out: "x#!y\n"},
		{name: "php://stdin is the body", text: `<?php echo file_get_contents('php://stdin');`, env: post("text/plain"), body: "the\x00body", out: "the\x00body"},
		{name: "php://input is the body", text: `<?php echo file_get_contents('php://input');`, env: post("text/plain"), body: "the\x00body", out: "the\x00body"},
		{name: "both are", text: `<?php echo file_get_contents('PHP://stdin'), file_get_contents('php://input');`, env: post("text/plain"), body: "b", out: "bb"},
		{name: "STDIN line by line", text: `<?php while (($l = fgets(STDIN)) !== false) echo strrev(trim($l)), "|";`, env: post("text/plain"), body: "ab\ncd\n", out: "ba|dc|"},
		{name: "a large body by php://stdin", text: `<?php echo md5(stream_get_contents(fopen('php://stdin', 'rb')));`, env: post("text/plain"), body: strings.Repeat("0123456789abcdef", 1<<16), out: "e10aeeb2e8a10fdbb2f4c9c9d8b6a9a9"},
		{name: "STDOUT, STDERR and php://stdout", text: `<?php fwrite(STDOUT, 'a'); fwrite(STDERR, "log\n"); file_put_contents('php://stdout', 'b');`, env: get(""), out: "ab", log: "log\n"},
		{name: "php://memory beside php://stdin", text: `<?php $m = fopen('php://temp', 'w+'); fwrite($m, 'abc'); fseek($m, 1); echo fread($m, 9), feof($m) ? 'end' : '', ftell($m), file_get_contents('php://stdin');`, env: post("text/plain"), body: "x", out: "bcend3x"},
		{name: "$_GET", text: `<?php echo json_encode($_GET);`, env: get("a=1&b[]=x%20y&b[]=z"), out: `{"a":"1","b":["x y","z"]}`},
		{name: "$_POST of a form", text: `<?php echo json_encode([$_POST, file_get_contents('php://input')]);`, env: post(form), body: "a=1&b[k]=2", out: `[{"a":"1","b":{"k":"2"}},"a=1&b[k]=2"]`},
		{name: "an uploaded file", text: `<?php echo $_POST['a'], $_FILES['f']['name'], file_get_contents($_FILES['f']['tmp_name']), is_uploaded_file($_FILES['f']['tmp_name']) ? 'up' : '';`,
			env: post("multipart/form-data; boundary=b"), body: upload, out: "1x.txtfileup"},
		{name: "$_COOKIE", text: `<?php echo $_COOKIE['a'], $_COOKIE['b'];`, env: get("", "HTTP_COOKIE=a=1; b=%32"), out: "12"},
		{name: "$_SERVER and getenv", text: `<?php echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['QUERY_STRING'], ' ', getenv('HTTP_X_A'), ' ', $_SERVER['OWN'], getenv('OWN'), ' ', $_SERVER['REQUEST_URI'], ' ', getenv('_HANDLER'), ' ', $_SERVER['SCRIPT_NAME'];`,
			env: get("q=1", "HTTP_X_A=va"), out: "GET q=1 va vv /fn?q=1 h.php /fn"},
		{name: "nothing of the machine's environment", text: `<?php echo getenv('HOME'), getenv('BATON_SANDBOX'), getenv('USER'), '.';`, env: get(""), out: "."},
		{name: "nothing of baton's own", text: `<?php echo getenv('BATON_EVENT') ? '' : '', isset($_SERVER['BATON_EVENT']) ? 'event' : 'none';`, env: get(""), out: "none"},
		{name: "__DIR__ is the working directory", text: `<?php echo getcwd() === __DIR__ && $_SERVER['SCRIPT_FILENAME'] === __FILE__ ? 'yes' : 'no';`, env: get(""), out: "yes"},
		{name: "header() takes over", text: `<?php header('X-A: 1'); header('Content-Type: text/plain'); echo 'x';`, env: get(""), out: "X-A: 1\r\nContent-type: text/plain;charset=UTF-8\r\n\r\nx"},
		{name: "http_response_code()", text: `<?php http_response_code(404); echo 'x';`, env: get(""), out: "Status: 404 Not Found\r\nContent-Type: text/html; charset=UTF-8\r\n\r\nx"},
		{name: "a status with JSON", text: `<?php http_response_code(201); echo '{}';`, env: get(""), out: "Status: 201 Created\r\nContent-Type: application/json\r\n\r\n{}"},
		{name: "a redirect without a body", text: `<?php header('Location: /x'); exit;`, env: get(""), out: "Status: 302 Found\r\nLocation: /x\r\n\r\n"},
		{name: "cookies", text: `<?php setcookie('a', '1'); setcookie('b', '2'); echo '[]';`, env: get(""), out: "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Type: application/json\r\n\r\n[]"},
		{name: "exit", text: `<?php echo 'a'; exit;`, env: get(""), out: "a"},
		{name: "exit with text", text: `<?php exit("bye");`, env: get(""), out: "bye"},
		{name: "exit with 0", text: `<?php $code = 0; echo 'a'; exit($code);`, env: get(""), out: "a"},
		{name: "exit with a code", text: `<?php echo 'a'; fwrite(STDERR, "why\n"); exit(3);`, env: get(""), out: "a", log: "why\n", want: runtime.Result{Reason: runtime.Exit, Exit: 3}},
		{name: "exit below", text: `<?php function f($c) { exit($c + 1); } f(6);`, env: get(""), want: runtime.Result{Reason: runtime.Exit, Exit: 7}},
		{name: "an uncaught exception", text: `<?php throw new Exception('why');`, env: get(""), log: "PHP Fatal error:  Uncaught Exception: why", want: runtime.Result{Reason: runtime.Exit, Exit: 255}},
		{name: "an undefined function, log off", text: `<?php error_reporting(0); ini_set('log_errors', '0'); nothing();`, env: get(""), want: runtime.Result{Reason: runtime.Exit, Exit: 255}},
		{name: "a syntax error", text: `<?php echo 1 echo 2;`, env: get(""), log: "PHP Parse error:", want: runtime.Result{Reason: runtime.Exit, Exit: 255}},
		{name: "memory_limit", text: `<?php $s = 'x'; while (true) $s .= $s;`, env: get(""), log: "Allowed memory size of 67108864 bytes exhausted", want: runtime.Result{Reason: runtime.Memory, Exit: 255, Detail: "memory_limit"}},
		{name: "memory without the limit", text: `<?php ini_set('memory_limit', '-1'); $a = []; while (true) $a[] = str_repeat('x', 1 << 20);`, env: get(""), log: "Out of memory", want: runtime.Result{Reason: runtime.Memory, Exit: 255, Detail: "memory"}},
		{name: "a warning goes on", text: `<?php echo $nothing, 'on';`, env: get(""), out: "on", log: "PHP Warning:  Undefined variable $nothing"},
		{name: "error_log()", text: `<?php error_log('one'); echo 'x';`, env: get(""), out: "x", log: "one\n"},
		{name: "an include by its place", text: `<?php file_put_contents(sys_get_temp_dir() . '/i.php', '<?php return 5;'); echo include sys_get_temp_dir() . '/i.php';`, env: get(""), out: "5"},
		{name: "it returns what is no handler", text: `<?php echo 'x'; return ['a' => 1];`, env: get(""), out: "x"},
		{name: "its own words on standard output", text: `<?php $n = 'php://std' . 'out'; file_put_contents($n, 'HFMX'); echo 'x';`, env: get(""), out: "x"},
		{name: "standard output closed", text: `<?php fclose(fopen('php://stdout', 'w')); while (ob_get_level()) ob_end_clean(); echo 'on';`, env: get(""), out: "on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.name == "a large body by php://stdin" {
				c.out = md5Of(c.body)
			}
			l := load(t, c.text, runtime.Function{MemoryMB: 64, Env: []string{"OWN=v"}, Handler: "h.php"})
			// The first finds out what the file is, the second is how all others are.
			for i := range 3 {
				out, log, result := call(l, c.env, c.body)
				if c.want.Detail == "memory" && result.Reason == runtime.Memory {
					result = c.want // it depends on what of PHP finds it out
				}
				if out != c.out && c.want.Reason == runtime.OK || result != c.want || !strings.Contains(log, c.log) || c.log == "" && log != "" {
					t.Fatalf("request %d: out %.300q, log %.600q, %+v; want %.300q, %q, %+v", i, out, log, result, c.out, c.log, c.want)
				}
			}
		})
	}
}

// Nothing of one request is there in the next, which the same process serves.
func TestScriptsKeepNothing(t *testing.T) {
	t.Parallel()
	const text = `<?php
function counter() { static $n = 0; return ++$n; }
class Kept { public static $n = 0; }
$seen = [counter(), ++Kept::$n, $GLOBALS['left'] ?? 'none', ini_get('precision'), getcwd() === __DIR__ ? 'here' : getcwd(),
	var_export(getenv('LEFT'), true), ob_get_level(), defined('LEFT') ? 'defined' : 'new', function_exists('left') ? 'there' : 'not',
	error_get_last() === null ? 'clean' : 'error', date_default_timezone_get(), setlocale(LC_NUMERIC, 0), mb(), count(get_included_files()) < 4 ? 'few' : 'many',
	in_array('left', stream_get_wrappers()) ? 'wrapped' : 'plain', spl_autoload_functions() === [] ? 'none' : 'some', memory_get_usage() < 2000000 ? 'small' : 'large'];
function mb() { return ini_get('memory_limit'); }
$left = 'left'; ini_set('precision', '3'); ini_set('memory_limit', '500M'); chdir('/usr'); putenv('LEFT=1'); ob_start(); define('LEFT', 1);
eval('function left() {}');
date_default_timezone_set('Asia/Tokyo'); setlocale(LC_NUMERIC, 'C.UTF-8');
stream_wrapper_register('left', 'Kept'); spl_autoload_register(function ($c) {});
$big = str_repeat('x', 4000000);
set_error_handler(function () { echo 'handled'; return true; });
set_exception_handler(function () { echo 'caught'; });
$f = fopen('/dev/zero', 'r'); $g = $f;
header('X-Left: 1');
echo getmypid(), ' ', implode(',', $seen);
if (isset($_GET['warn'])) { restore_error_handler(); echo $undefined; }
if (isset($_GET['fail'])) { restore_exception_handler(); throw new Exception('x'); }`
	l := load(t, text, runtime.Function{MemoryMB: 64}, sandbox.LayerRoot) // so that processes have numbers of their own
	want := ""
	pids := map[string]bool{}
	for i := range 60 {
		query := []string{"", "warn=1", "fail=1"}[i%3]
		out, _, result := call(l, get(query), "")
		if query == "fail=1" {
			if result.Reason != runtime.Exit {
				t.Fatalf("request %d: %+v", i, result)
			}
			continue
		}
		_, body, _ := strings.Cut(out, "\r\n\r\n")
		pid, seen, _ := strings.Cut(body, " ")
		pids[pid] = true
		if want == "" {
			want = seen
		}
		if result.Reason != runtime.OK || seen != want || !strings.HasPrefix(seen, "1,1,none,14,here,false,1,new,not,clean,UTC,C,67108864,few,plain,none,small") {
			t.Fatalf("request %d: %q, %+v; the first saw %q", i, out, result, want)
		}
	}
	if len(pids) != 1 {
		t.Errorf("%d processes served, want 1", len(pids))
	}
}

func TestHandlers(t *testing.T) {
	t.Parallel()
	const upload = "--b\r\nContent-Disposition: form-data; name=\"a[]\"\r\n\r\n1\r\n--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain\r\n\r\nfile\r\n--b--\r\n"
	for _, c := range []struct {
		name, text string
		env        testenv.Variables
		body       string
		out, log   string
		want       runtime.Result
	}{
		{name: "what it echoes", text: `<?php return function () { echo 'hello'; };`, env: get(""), out: "hello"},
		{name: "what it returns", text: `<?php return fn() => 'hello';`, env: get(""), out: "hello"},
		{name: "an array", text: `<?php return fn() => ['a' => 1];`, env: get(""), out: `{"a":1}`},
		{name: "a function's name", text: `<?php function h() { echo 'named'; } return 'h';`, env: get(""), out: "named"},
		{name: "an object", text: `<?php class H { function __invoke() { return 'object'; } } return new H;`, env: get(""), out: "object"},
		{name: "a method", text: `<?php class H { static function m() { return 'method'; } } return [H::class, 'm'];`, env: get(""), out: "method"},
		{name: "an answer as an event's", text: `<?php return fn() => ['statusCode' => 201, 'headers' => ['X-A' => 'b', 'Content-Type' => 'text/plain'], 'cookies' => ['a=1', 'b=2'], 'body' => 'x'];`,
			env: get(""), out: "Status: 201\r\nX-A: b\r\nContent-type: text/plain;charset=UTF-8\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nx"},
		{name: "the event", text: `<?php return fn(array $e) => [$e['rawPath'], $e['queryStringParameters'], $e['headers']['x-a'], $e['requestContext']['http']['method'], $e['body'], $e['version'], $e['cookies']];`,
			env: get("q=1", "HTTP_X_A=v", "HTTP_COOKIE=a=1; b=2", "CONTENT_LENGTH=4"), body: "body", out: `["/fn",{"q":"1"},"v","GET","body","2.0",["a=1","b=2"]]`},
		{name: "a body that is no text", text: `<?php return fn($e) => $e['isBase64Encoded'] ? base64_decode($e['body']) : 'text';`, env: post("x/y"), body: "\xff\x00", out: "\xff\x00"},
		{name: "$_GET, $_SERVER, $_COOKIE, php://input and php://stdin", text: `<?php return function () { echo json_encode([$_GET, $_SERVER['HTTP_X_A'], $_SERVER['OWN'], $_COOKIE, file_get_contents('php://input'), file_get_contents('php://stdin')]); };`,
			env: get("a[]=1&a[]=2", "HTTP_X_A=\"q\"", "HTTP_COOKIE=c=%20d"), body: "b", out: `[{"a":["1","2"]},"\"q\"","v",{"c":" d"},"b","b"]`},
		{name: "$_POST", text: `<?php return function () { echo json_encode([$_POST, $_REQUEST]); };`, env: post("application/x-www-form-urlencoded"), body: "a=1&b=2", out: `[{"a":"1","b":"2"},{"a":"1","b":"2"}]`},
		{name: "an uploaded file", text: `<?php return function () { echo json_encode([$_POST, $_FILES['f']['name'], file_get_contents($_FILES['f']['tmp_name']), $_FILES['f']['size']]); };`,
			env: post("multipart/form-data; boundary=b"), body: upload, out: `[{"a":["1"]},"x.txt","file",4]`},
		{name: "a large body", text: `<?php return function () { echo md5(file_get_contents('php://input')); };`, env: post("x/y"), body: strings.Repeat("0123456789abcdef", 1<<16), out: "md5"},
		{name: "header() and status", text: `<?php return function () { header('X-A: 1'); http_response_code(404); setcookie('a', 'b'); echo '{}'; };`, env: get(""),
			out: "Status: 404\r\nX-A: 1\r\nSet-Cookie: a=b\r\nContent-Type: application/json\r\n\r\n{}"},
		{name: "a redirect", text: `<?php return function () { header('Location: /x'); };`, env: get(""), out: "Status: 302\r\nLocation: /x\r\n\r\n"},
		{name: "open output buffers", text: `<?php return function () { echo 'a'; ob_start(); echo 'b'; ob_start(); echo 'c'; };`, env: get(""), out: "abc"},
		{name: "flushes", text: `<?php return function () { echo 'a'; flush(); ob_flush(); echo 'b'; flush(); };`, env: get(""), out: "ab"},
		{name: "cleans", text: `<?php return function () { echo 'a'; ob_clean(); echo 'b'; };`, env: get(""), out: "b"},
		{name: "a large answer", text: `<?php return function () { for ($i = 0; $i < 1000; $i++) echo str_repeat('0123456789', 100); };`, env: get(""), out: strings.Repeat("0123456789", 100_000)},
		{name: "an exception", text: `<?php return function () { throw new Exception('why'); };`, env: get(""), log: "PHP Fatal error:  Uncaught Exception: why", want: runtime.Result{Reason: runtime.Exit, Exit: 255}},
		{name: "exit", text: `<?php return function () { echo 'a'; exit; };`, env: get(""), out: "a"},
		{name: "exit with a code", text: `<?php return function () { error_log('why'); exit(3); };`, env: get(""), log: "why\n", want: runtime.Result{Reason: runtime.Exit, Exit: 3}},
		{name: "memory_limit", text: `<?php return function () { $s = 'x'; while (true) $s .= $s; };`, env: get(""), log: "Allowed memory size", want: runtime.Result{Reason: runtime.Memory, Exit: 255, Detail: "memory_limit"}},
		{name: "a log", text: `<?php return function () { error_log('one'); echo 'x', $nothing; };`, env: get(""), out: "x", log: "one\nPHP Warning:  Undefined variable $nothing"},
		{name: "text before <?php is not the answer's", text: "<?php echo 'loading'; return fn() => 'x';", env: get(""), out: "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.out == "md5" {
				c.out = md5Of(c.body)
			}
			l := load(t, c.text, runtime.Function{MemoryMB: 64, Env: []string{"OWN=v"}})
			for i := range 4 {
				out, log, result := call(l, c.env, c.body)
				if i == 0 && c.out != "" { // by PHP's own request: its status has a text, and the file has just been loaded
					if result != c.want {
						t.Fatalf("the first: %.300q, log %.600q, %+v", out, log, result)
					}
					continue
				}
				if out != c.out && c.want.Reason == runtime.OK || result != c.want || !strings.Contains(log, c.log) || c.log == "" && log != "" {
					t.Fatalf("request %d: out %.300q, log %.600q, %+v; want %.300q, %q, %+v", i, out, log, result, c.out, c.log, c.want)
				}
			}
		})
	}
}

// A handler's state is its author's; a request's is not.
func TestHandlersKeepTheirState(t *testing.T) {
	t.Parallel()
	l := load(t, `<?php
error_log('loaded');
$n = 0;
return function () use (&$n) {
	static $seen = [];
	echo ++$n, ' ', json_encode([$_GET, $_POST, $_COOKIE, http_response_code(), headers_list(), ob_get_level()]), ' ', getmypid();
	header('X-A: ' . $n);
	http_response_code(202);
};`, runtime.Function{})
	if _, _, result := call(l, get("first=1"), ""); result.Reason != runtime.OK {
		t.Fatalf("%+v", result)
	}
	pid := ""
	for i := range 200 {
		env := get("")
		body, want := "", `{}`
		_ = want
		if i%2 == 0 {
			env, body = post("application/x-www-form-urlencoded", "HTTP_COOKIE=c=1"), "p=1"
		}
		out, log, result := call(l, env, body)
		seen := `[[],[],[],200,[],1]`
		if i%2 == 0 {
			seen = `[[],{"p":"1"},{"c":"1"},200,[],1]`
		}
		_, text, _ := strings.Cut(out, "\r\n\r\n")
		part := strings.Split(text, " ")
		if i == 0 && len(part) == 3 {
			pid = part[2]
		}
		if result.Reason != runtime.OK || len(part) != 3 || part[0] != fmt.Sprint(i+1) || part[1] != seen || part[2] != pid || !strings.HasPrefix(out, "Status: 202\r\n") || (i > 0 && log != "") {
			t.Fatalf("request %d: %q, log %q, %+v", i, out, log, result)
		}
	}
}

func TestMaxRequestsReplaces(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`<?php echo getmypid();`, `<?php return fn() => (string) getmypid();`} {
		l := load(t, text, runtime.Function{Env: []string{"MAX_REQUESTS=5"}}, sandbox.LayerRoot)
		pids := map[string]int{}
		for range 20 {
			out, _, result := call(l, get(""), "")
			if result.Reason != runtime.OK {
				t.Fatalf("%q, %+v", out, result)
			}
			pids[out]++
		}
		if len(pids) < 4 {
			t.Errorf("%s: %v", text, pids)
		}
	}
}

func TestStreamedBody(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("streamed ", 100_000)
	for _, text := range []string{`<?php echo file_get_contents('php://input');`, `<?php return fn() => file_get_contents('php://input');`} {
		l := load(t, text, runtime.Function{})
		for range 3 {
			var out bytes.Buffer
			result := l.Invoke(&runtime.Invocation{
				Body: []byte(body[:1000]), More: strings.NewReader(body[1000:]), Env: post("text/plain", fmt.Sprint("CONTENT_LENGTH=", len(body))), Stdout: &out,
				Deadline: time.Now().Add(patience()),
			})
			if result.Reason != runtime.OK || out.String() != body {
				t.Fatalf("%s: %d bytes, %+v", text, out.Len(), result)
			}
		}
	}
}

// A body that nobody reads does not stand in the way of the next request.
func TestUnreadBody(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 3<<20)
	for _, text := range []string{`<?php echo 'no';`, `<?php return fn() => 'no';`, `<?php echo str_repeat('y', 3 << 20);`} {
		l := load(t, text, runtime.Function{})
		for i := range 4 {
			out, log, result := call(l, post("text/plain"), body)
			if result.Reason != runtime.OK || len(out) != 2 && len(out) != 3<<20 {
				t.Fatalf("%s, request %d: %d bytes, log %q, %+v", text, i, len(out), log, result)
			}
		}
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	for name, without := range ways {
		for _, text := range []string{`<?php if (isset($_GET['spin'])) while (true); echo 'on';`, `<?php return function () { if (isset($_GET['spin'])) sleep(1000); return 'on'; };`} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := load(t, text, runtime.Function{}, without...)
				for range 2 {
					if out, log, result := call(l, get(""), ""); out != "on" || result.Reason != runtime.OK {
						t.Fatalf("%q, log %q, %+v", out, log, result)
					}
					result := l.Invoke(&runtime.Invocation{Env: get("spin=1"), Stdout: io.Discard, Deadline: time.Now().Add(500 * time.Millisecond)})
					if result.Reason != runtime.Timeout {
						t.Fatalf("%+v", result)
					}
				}
			})
		}
	}
}

// limited takes so many bytes.
type limited struct{ left int }

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, runtime.ErrOutputLimit
	}
	return len(p), nil
}

// counted counts what it takes.
type counted struct{ n int64 }

func (c *counted) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

func TestOutput(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`<?php $s = str_repeat('x', 1 << 20); for ($i = 0; $i < 1024; $i++) echo $s;`,
		`<?php return function () { $s = str_repeat('x', 1 << 20); for ($i = 0; $i < 1024; $i++) echo $s; };`,
	} {
		l := load(t, text, runtime.Function{MemoryMB: 32})
		for range 2 {
			result := l.Invoke(&runtime.Invocation{Env: get(""), Stdout: &limited{10 << 20}, Deadline: time.Now().Add(patience())})
			if result.Reason != runtime.OutputLimit {
				t.Errorf("%+v", result)
			}
			var c counted
			result = l.Invoke(&runtime.Invocation{Env: get(""), Stdout: &c, Deadline: time.Now().Add(patience())})
			if result.Reason != runtime.OK || c.n != 1<<30 {
				t.Errorf("%d bytes, %+v", c.n, result)
			}
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`<?php echo $_GET['a'], file_get_contents('php://stdin');`, `<?php return fn() => $_GET['a'] . file_get_contents('php://stdin');`} {
		l := load(t, text, runtime.Function{})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 20 {
					body := fmt.Sprint(i, " ", j)
					if out, log, result := call(l, append(post("text/plain"), "QUERY_STRING=a="+fmt.Sprint(i)), body); out != fmt.Sprint(i)+body || result.Reason != runtime.OK {
						t.Errorf("%q for %q, log %q, %+v", out, body, log, result)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestIsolation(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"all layers", "no namespaces"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, ways[name]...)
			secret := filepath.Join(p.data, "admin.token")
			other := filepath.Join(p.data, "functions", "other", "1")
			if err := os.MkdirAll(other, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{secret, filepath.Join(other, "x")} {
				if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := p.load(t, `<?php
$in = json_decode(file_get_contents('php://stdin'), true);
$can = [];
foreach ($in['read'] as $f) { $r = @file_get_contents($f); if ($r !== false && $r !== '') $can[] = "read $f"; }
foreach ($in['write'] as $f) if (@file_put_contents($f, 'x') !== false) $can[] = "write $f";
if (@stream_socket_client('tcp://127.0.0.1:' . $in['port'], $e, $s, 1)) $can[] = 'connect';
if (@stream_socket_client('unix://' . $in['socket'], $e, $s, 1)) $can[] = 'unix';
if (($q = @proc_open(['/bin/true'], [], $pipes)) && proc_close($q) === 0) $can[] = 'start a process';
if (@file_put_contents(sys_get_temp_dir() . '/mine', 'x') !== 1) $can[] = 'no temporary files';
if (!tmpfile()) $can[] = 'no tmpfile';
echo json_encode([$can]);`, runtime.Function{})
			port, socket := listeners(t)
			in := fmt.Sprintf(`{"read":[%q,%q,"/proc/%d/environ","/etc/shadow"],"write":[%q,%q,"/usr/x"],"port":%d,"socket":%q}`,
				secret, filepath.Join(other, "x"), os.Getpid(), filepath.Join(p.dir, "module.php"), secret, port, socket)
			for i := range 2 {
				out, log, result := call(l, post("application/json"), in)
				if out != "[[]]" || result.Reason != runtime.OK {
					t.Fatalf("request %d: a script can: %s, log %q, %+v", i, out, log, result)
				}
			}
		})
	}
}

// A script that computes has as many processes as two per processor, one that waits
// has as many as are asked for.
func TestAsManyProcessesAsHelp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		enough     func(processes int) bool
	}{
		{"computes", `<?php for ($i = 0; $i < 20000; $i++) $x = md5((string) $i); echo getmypid();`, func(n int) bool { return n <= 2*goruntime.NumCPU() }},
		{"waits", `<?php usleep(30000); echo getmypid();`, func(n int) bool { return n > 2*goruntime.NumCPU() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := load(t, c.text, runtime.Function{}, sandbox.LayerRoot) // so that processes have numbers of their own
			testenv.UntilWithin(t, 2*patience(), "there are as many as help", func() bool {
				var mu sync.Mutex
				var wg sync.WaitGroup
				pids := map[string]bool{}
				for range 4*goruntime.NumCPU() + 4 {
					wg.Go(func() {
						for range 20 {
							out, log, result := call(l, get(""), "")
							if result.Reason != runtime.OK {
								t.Errorf("%q, log %q, %+v", out, log, result)
								return
							}
							mu.Lock()
							pids[out] = true
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				return t.Failed() || c.enough(len(pids))
			})
		})
	}
}

// Processes that a request leaves behind are gone soon after it, also where it may start some.
func TestProcesses(t *testing.T) {
	t.Parallel()
	serial := 0
	for name, without := range ways {
		for _, text := range []string{"<?php %s", "<?php return function () { %s };"} {
			serial++
			seconds := fmt.Sprint(30_000+os.Getpid()%10_000, ".", serial) // nobody else sleeps that long
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l := load(t, fmt.Sprintf(text, `
					if (isset($_GET['leave'])) {
						$p = proc_open(['/bin/sh', '-c', 'sleep `+seconds+` >/dev/null & echo left'], [1 => ['pipe', 'w']], $pipes);
						echo trim(fgets($pipes[1]));
						return;
					}
					echo trim(shell_exec('echo ran'));`), runtime.Function{Processes: 8}, without...)
				for i := range 3 {
					if out, log, result := call(l, get(""), ""); out != "ran" || result.Reason != runtime.OK {
						t.Fatalf("%q, log %q, %+v", out, log, result)
					}
					if out, log, result := call(l, get("leave=1"), ""); out != "left" || result.Reason != runtime.OK {
						t.Fatalf("request %d: %q, log %q, %+v", i, out, log, result)
					}
					// Less than what an idle process lives.
					testenv.UntilWithin(t, 20*time.Second, "what was left is gone", func() bool { return !runs("sleep\x00" + seconds + "\x00") })
				}
			})
		}
	}
}

// runs tells whether a process with that command line runs.
func runs(line string) bool {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		if text, _ := os.ReadFile(name); string(text) == line { // a dead one has none
			return true
		}
	}
	return false
}

// Two functions share nothing, not even files in the temporary directory.
func TestFunctionsShareNothing(t *testing.T) {
	t.Parallel()
	const text = `<?php $f = sys_get_temp_dir() . '/f'; echo is_file($f) ? 'there' : 'none', isset(opcache_get_status(true)['scripts']) ? count(opcache_get_status(true)['scripts']) : 0; touch($f);`
	a, b := load(t, text, runtime.Function{ID: 1}), load(t, text, runtime.Function{ID: 2})
	for _, want := range []string{"none", "there"} {
		for _, l := range []runtime.Loaded{a, b} {
			if out, log, result := call(l, get(""), ""); !strings.HasPrefix(out, want) || result.Reason != runtime.OK {
				t.Errorf("%q, log %q, %+v; want %s", out, log, result, want)
			}
		}
	}
}

// What is compiled once is not compiled again.
func TestOpcache(t *testing.T) {
	t.Parallel()
	l := load(t, `<?php $s = opcache_get_status(true); echo $s['opcache_enabled'] ? 'on' : 'off', ' ', isset($s['scripts'][__FILE__]) ? 'kept' : 'not', ' ', $s['opcache_statistics']['misses'];`, runtime.Function{})
	var last string
	for i := range 5 {
		out, log, result := call(l, get(""), "")
		if result.Reason != runtime.OK || !strings.HasPrefix(out, "on kept ") || i > 1 && out != last {
			t.Fatalf("request %d: %q before %q, log %q, %+v", i, last, out, log, result)
		}
		last = out
	}
}

func TestClose(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l := p.load(t, `<?php echo 1;`, runtime.Function{})
	if out, log, result := call(l, get(""), ""); out != "1" {
		t.Fatalf("%q, log %q, %+v", out, log, result)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, result := call(l, get(""), ""); result.Reason != runtime.Unavailable {
		t.Errorf("after Close: %+v", result)
	}
	if left, err := os.ReadDir(filepath.Join(p.data, "work")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
