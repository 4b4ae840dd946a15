package python_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
	"baton/sandbox"
)

func loadHandler(t testing.TB, f runtime.Function, without ...string) runtime.Loaded {
	t.Helper()
	text, err := os.ReadFile("testdata/handler.py")
	if err != nil {
		t.Fatal(err)
	}
	// Names of the standard library are the function's own.
	return load(t, "handler.py", files{"handler.py": string(text), "beside.py": "from colorsys import NAME\n", "colorsys.py": "NAME = 'mine'\n"}, f, without...)
}

const jsonHead, octets = "Content-Type: application/json\r\n\r\n", "Content-Type: application/octet-stream\r\n\r\n"

func TestReplies(t *testing.T) {
	t.Parallel()
	l := loadHandler(t, runtime.Function{})
	failed := runtime.Result{Reason: runtime.Exit, Exit: 1}
	for _, c := range []struct {
		query, out string
		want       runtime.Result
		log        string
	}{
		{"dict", `{"a": [1, "gr\u00fcn", null]}`, runtime.Result{}, ""},
		{"list", `[1, 2]`, runtime.Result{}, ""},
		{"tuple", `[1, 2]`, runtime.Result{}, ""},
		{"number", jsonHead + `4.5`, runtime.Result{}, ""},
		{"true", jsonHead + `true`, runtime.Result{}, ""},
		{"none", jsonHead + `null`, runtime.Result{}, ""},
		{"text", `{"result": "plain \"text\"\n"}`, runtime.Result{}, ""},
		{"empty", `{"result": ""}`, runtime.Result{}, ""},
		{"json", `{"as": "it is"}`, runtime.Result{}, ""},
		{"head", `{"result": "Content-Type: text/html\n\n<b>"}`, runtime.Result{}, ""},
		{"bytes", octets + "\x00\xff", runtime.Result{}, ""},
		{"odd", "", failed, "TypeError: Object of type Odd is not JSON serializable\n"},
		{"nan", "", failed, "ValueError: "},
		{"full", "Status: 201\r\nContent-Type: text/plain\r\nX-N: 3\r\nX-B: true\r\nX-Two: a\r\nX-Two: b\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nmade", runtime.Result{}, ""},
		{"base64", "Status: 200\r\ncontent-type: image/png\r\n\r\n\x00\xff", runtime.Result{}, ""},
		{"object", "Status: 200\r\n" + jsonHead + `{"a": 1}`, runtime.Result{}, ""},
		{"raw", "Status: 200\r\n\r\n\x01", runtime.Result{}, ""},
		{"nobody", "Status: 204\r\n\r\n", runtime.Result{}, ""},
		{"badstatus", "", failed, "ValueError: statusCode: "},
		{"boolstatus", "", failed, "ValueError: statusCode: "},
		{"inject", "", failed, "ValueError: header 'Location': "},
		{"injectname", "", failed, "ValueError: header "},
		{"badvalue", "", failed, "TypeError: header X: want a string, got dict\n"},
		{"badbase64", "", failed, "Error: "},
		{"surrogate", `{"result": "\udcff"}`, runtime.Result{}, ""},
		{"large 3000000", `{"result": "` + strings.Repeat("x", 3000000) + `"}`, runtime.Result{}, ""},
		{"print", "{}", runtime.Result{}, "printed\nwritten\ntold"},
		{"dict", `{"a": [1, "gr\u00fcn", null]}`, runtime.Result{}, ""},
	} {
		out, log, got := call(l, c.query, "")
		log = strings.TrimPrefix(log, "loaded\n") // the first request's
		if out != c.out || got != c.want || !strings.Contains(log, c.log) || c.log == "" && log != "" || strings.Contains(log, "<baton>") {
			t.Errorf("%s: %.200q (%d bytes), want %.200q; %+v; log %q", c.query, out, len(out), c.out, got, log)
		}
	}
}

// TestEvents: the handler gets what package event makes, and the body.
func TestEvents(t *testing.T) {
	t.Parallel()
	l := loadHandler(t, runtime.Function{})
	for _, c := range []struct {
		body, text string
		base64     bool
	}{{"", "", false}, {"text ü", "text ü", false}, {"\x00\xff", "AP8=", true}} {
		out, log, got := call(l, "event", c.body)
		var event struct {
			Version        string
			Headers        map[string]string
			RequestContext struct{ HTTP struct{ Method string } }
			Body           string
			Base64         bool `json:"isBase64Encoded"`
		}
		if err := json.Unmarshal([]byte(out), &event); err != nil || got.Reason != runtime.OK {
			t.Fatalf("%v: %q, %+v, log %q", err, out, got, log)
		}
		if event.Version != "2.0" || event.Headers["x-request-id"] != "id" || event.RequestContext.HTTP.Method != "GET" || event.Body != c.text || event.Base64 != c.base64 {
			t.Errorf("body %q: %s", c.body, out)
		}
	}
	// A request whose variables are longer than one read.
	long := strings.Repeat("v", 200_000)
	var out bytes.Buffer
	got := l.Invoke(&runtime.Invocation{Body: []byte("xyz"), Env: testenv.Variables{"QUERY_STRING=length", "HTTP_LONG=" + long}, Stdout: &out, Deadline: time.Now().Add(testenv.Patience())})
	if got.Reason != runtime.OK || out.String() != `[3, false, "xyz"]` {
		t.Errorf("long variables: %q, %+v", out.String(), got)
	}
}

// slow gives a body byte by byte and in pieces of all sizes.
type slow struct {
	text string
	n    int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.text == "" {
		return 0, io.EOF
	}
	s.n++
	n := copy(p[:min(len(p), s.n*s.n)], s.text)
	s.text = s.text[n:]
	return n, nil
}

func TestHandlerStreamedBody(t *testing.T) {
	t.Parallel()
	l := loadHandler(t, runtime.Function{})
	for _, size := range []int{0, 1, 1000, 1_000_000} {
		for _, here := range []int{0, 1, size / 2, min(size, 70_000)} {
			here = min(here, size)
			text := strings.Repeat("abc", size/3+1)[:size]
			var out bytes.Buffer
			got := l.Invoke(&runtime.Invocation{
				Body: []byte(text[:here]), More: &slow{text: text[here:]}, Env: testenv.Variables{"QUERY_STRING=length"}, Stdout: &out,
				Deadline: time.Now().Add(testenv.Patience()),
			})
			if want := fmt.Sprintf("[%d, false, %q]", size, text[:min(3, size)]); got.Reason != runtime.OK || out.String() != want {
				t.Errorf("%d of %d bytes are here: %q, %+v", here, size, out.String(), got)
			}
		}
	}
	// A client that leaves in the middle.
	got := l.Invoke(&runtime.Invocation{More: io.MultiReader(strings.NewReader("abc"), broken{}), Env: testenv.Variables{"QUERY_STRING=length"}, Stdout: io.Discard, Deadline: time.Now().Add(testenv.Patience())})
	if got.Reason != runtime.Cancelled {
		t.Errorf("a body that breaks off: %+v", got)
	}
	if out, _, got := call(l, "list", ""); out != "[1, 2]" || got.Reason != runtime.OK {
		t.Errorf("afterwards: %q, %+v", out, got)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestHandlerBodyIsBounded: a body has room in the function's memory, or the
// answer is that it has not; the interpreter reads all of it.
func TestHandlerBodyIsBounded(t *testing.T) {
	t.Parallel()
	l := loadHandler(t, runtime.Function{MemoryMB: 32})
	got := l.Invoke(&runtime.Invocation{
		More: io.LimitReader(endless{}, 64<<20), Env: testenv.Variables{"QUERY_STRING=length"}, Stdout: io.Discard, Deadline: time.Now().Add(10 * time.Minute),
	})
	if got.Reason != runtime.Memory {
		t.Errorf("64 MiB for 32 MiB: %+v", got)
	}
	if out, _, got := call(l, "length", "abc"); out != `[3, false, "abc"]` || got.Reason != runtime.OK {
		t.Errorf("afterwards: %q, %+v", out, got)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestHandlerState: the file is loaded once, and what it keeps stays; what the
// function has is its own.
func TestHandlerState(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		l := loadHandler(t, runtime.Function{Env: []string{"OWN=1"}, Handler: "handler.handler"}, without...)
		for i := 1; i <= 3; i++ {
			out, log, got := call(l, "state", "body")
			if want := fmt.Sprintf(`[1, %d, "mine", "handler", "1", "handler.handler", null, "", 1]`, i); out != want || got.Reason != runtime.OK {
				t.Errorf("%q, want %q; %+v", out, want, got)
			}
			if want := map[bool]string{true: "loaded\n"}[i == 1]; log != want {
				t.Errorf("log of request %d is %q", i, log)
			}
			if _, log, got := call(l, "raise", ""); got != (runtime.Result{Reason: runtime.Exit, Exit: 1}) || !strings.HasPrefix(log, "Traceback (most recent call last):\n") ||
				!strings.HasSuffix(log, "KeyError: 'gone'\n") || strings.Contains(log, "<baton>") {
				t.Errorf("%+v, log %q", got, log)
			}
			i++ // an exception ends a request, not the interpreter
		}
	})
}

func TestHandlerEndings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		l := loadHandler(t, runtime.Function{MemoryMB: 64}, without...)
		for _, c := range []struct {
			query string
			want  runtime.Result
			fresh bool // the next request has a new interpreter
		}{
			{"exit 7", runtime.Result{Reason: runtime.Exit, Exit: 7}, true},
			{"exit", runtime.Result{}, true},
			{"_exit 3", runtime.Result{Reason: runtime.Exit, Exit: 3}, true},
			{"segv", runtime.Result{Reason: runtime.Signal, Exit: 139, Detail: "SIGSEGV"}, true},
			{"memory", runtime.Result{Reason: runtime.Memory, Exit: 1, Detail: "memory ended"}, true},
			{"slowmemory", runtime.Result{Reason: runtime.Memory, Exit: 1, Detail: "memory ended"}, true},
			{"recursion", runtime.Result{Reason: runtime.Exit, Exit: 1}, false},
			{"garbage", runtime.Result{Reason: runtime.Trap}, true},
			{"longer", runtime.Result{Reason: runtime.Trap}, true},
			{"thread", runtime.Result{}, false},
		} {
			if _, _, got := call(l, "list", ""); got.Reason != runtime.OK {
				t.Fatalf("before %s: %+v", c.query, got)
			}
			out, log, got := call(l, c.query, "")
			if got.Reason == runtime.Trap {
				got.Detail = ""
			}
			if got != c.want {
				t.Errorf("%s: %q, %+v, want %+v (log %q)", c.query, out, got, c.want, log)
			}
			out, _, got = call(l, "state", "")
			if got.Reason != runtime.OK || strings.HasPrefix(out, "[1, 1, ") != c.fresh {
				t.Errorf("after %s: %q, %+v; want a new interpreter: %v", c.query, out, got, c.fresh)
			}
		}
	})
}

// TestHandlerChannel: a handler that closes its channel has not answered.
func TestHandlerChannel(t *testing.T) {
	t.Parallel()
	l := loadHandler(t, runtime.Function{})
	if out, _, got := call(l, "close", ""); out != "" || got.Reason != runtime.Trap && got.Reason != runtime.Exit && got.Reason != runtime.OK {
		t.Errorf("%q, %+v", out, got)
	}
	if out, _, got := call(l, "list", ""); out != "[1, 2]" || got.Reason != runtime.OK {
		t.Errorf("afterwards: %q, %+v", out, got)
	}
}

func TestHandlerDeadline(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		l := loadHandler(t, runtime.Function{}, without...)
		for _, query := range []string{"spin", "wait"} {
			if out, _, got := call(l, "list", ""); out != "[1, 2]" || got.Reason != runtime.OK {
				t.Fatalf("%q, %+v", out, got)
			}
			got := l.Invoke(&runtime.Invocation{Env: testenv.Variables{"QUERY_STRING=" + query}, Stdout: io.Discard, Deadline: time.Now().Add(400 * time.Millisecond)})
			if got.Reason != runtime.Timeout {
				t.Errorf("%s: %+v", query, got)
			}
		}
		if out, _, got := call(l, "list", ""); out != "[1, 2]" || got.Reason != runtime.OK {
			t.Errorf("afterwards: %q, %+v", out, got)
		}
	})
}

func TestHandlerCancel(t *testing.T) {
	t.Parallel()
	l := load(t, "m.py", files{"m.py": "import time\ndef handler(event):\n    print('here')\n    time.sleep(3600)\n"}, runtime.Function{})
	var log once
	got := l.Invoke(&runtime.Invocation{Stdout: io.Discard, Stderr: &log, Cancel: &log.cancel, Deadline: time.Now().Add(time.Hour)})
	if got.Reason != runtime.Cancelled {
		t.Errorf("%+v", got)
	}
}

func TestHandlerOutputLimit(t *testing.T) {
	t.Parallel()
	l := loadHandler(t, runtime.Function{})
	got := l.Invoke(&runtime.Invocation{Env: testenv.Variables{"QUERY_STRING=large 3000000"}, Stdout: &limited{1 << 20}, Deadline: time.Now().Add(testenv.Patience())})
	if got.Reason != runtime.OutputLimit {
		t.Errorf("%+v", got)
	}
	if out, _, got := call(l, "list", ""); out != "[1, 2]" || got.Reason != runtime.OK {
		t.Errorf("afterwards: %q, %+v", out, got)
	}
}

// TestHandlerProcesses: those that the descriptor does not grant are refused,
// and of those that it grants only the interpreter answers.
func TestHandlerProcesses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		if !slices.Contains(without, sandbox.LayerSeccomp) {
			if out, _, got := call(loadHandler(t, runtime.Function{}, without...), "fork", ""); out != `["PermissionError"]` || got.Reason != runtime.OK {
				t.Errorf("%q, %+v", out, got)
			}
		}
		l := loadHandler(t, runtime.Function{Processes: 8}, without...)
		for _, c := range []struct{ query, out, log string }{
			{"fork", "[true]", ""}, {"run", `["ran\n"]`, ""}, {"forkraise", "[true]", "ValueError: in the child\n"}, {"fork", "[true]", ""},
		} {
			if out, log, got := call(l, c.query, ""); out != c.out || !strings.HasSuffix(log, c.log) || got.Reason != runtime.OK {
				t.Errorf("%s: %q, %+v, log %q", c.query, out, got, log)
			}
		}
	})
}

func TestHandlerLeavesNoProcess(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, without []string) {
		if slices.Contains(without, sandbox.LayerSeccomp) && slices.Contains(without, sandbox.LayerRoot) {
			return // nothing keeps it from leaving the group that is killed
		}
		l := loadHandler(t, runtime.Function{Processes: 8}, without...)
		for range 2 {
			seconds := uniqueSeconds()
			if out, log, got := call(l, "daemon "+seconds, ""); out != "{}" || got.Reason != runtime.OK {
				t.Fatalf("%q, %+v, log %q", out, got, log)
			}
			testenv.Until(t, "the daemon is dead", func() bool { return !running(t, seconds) })
			if out, _, got := call(l, "list", ""); out != "[1, 2]" || got.Reason != runtime.OK {
				t.Fatalf("afterwards: %q, %+v", out, got)
			}
		}
	})
}

// TestHandlerNames: which function of which file is called.
func TestHandlerNames(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		main, handler string
		files         files
		out, log      string
	}{
		"handler, by default":      {"m.py", "", files{"m.py": "def handler(event):\n    return [1]\n"}, "[1]", ""},
		"a function":               {"m.py", "other", files{"m.py": "def handler(event): pass\ndef other(event):\n    return [2]\n"}, "[2]", ""},
		"file.function":            {"m.py", "m.other", files{"m.py": "def other(event):\n    return [3]\n"}, "[3]", ""},
		"file:function":            {"m.py", "m.py:other", files{"m.py": "def other(event):\n    return [4]\n"}, "[4]", ""},
		"a file":                   {"m.py", "m.py", files{"m.py": "print('[5]')\n"}, "[5]\n", ""},
		"a file without its end":   {"m.py", "m", files{"m.py": "def handler(event):\n    return [6]\n"}, "[6]", ""},
		"a function by its name":   {"module.py", "other", files{"module.py": "def other(event):\n    return [14]\n"}, "[14]", ""},
		"a file that was renamed":  {"module.py", "hello", files{"module.py": "print('[15]')\n"}, "[15]\n", ""},
		"assigned":                 {"m.py", "", files{"m.py": "handler = lambda event: [7]\n"}, "[7]", ""},
		"imported":                 {"m.py", "", files{"m.py": "try:\n    from n import handler\nexcept ImportError:\n    raise\n", "n.py": "def handler(event):\n    return [8]\n"}, "[8]", ""},
		"in a package":             {"p/q/m.py", "p.q.m.handler", files{"p/q/m.py": "from .. import r\nimport s\nhandler = lambda event: [r.N, s.N]\n", "p/r.py": "N = 9\n", "s.py": "N = 10\n"}, "[9, 10]", ""},
		"a class with __call__":    {"m.py", "", files{"m.py": "class H:\n    def __call__(self, event, context):\n        return [context.function_name]\nhandler = H()\n"}, `["fn"]`, ""},
		"two parameters":           {"m.py", "", files{"m.py": "def handler(event, context):\n    left = context.get_remaining_time_in_millis()\n    return [context.aws_request_id, context.memory_limit_in_mb, 0 < left]\n"}, `["id", 128, true]`, ""},
		"decorated":                {"m.py", "", files{"m.py": "import functools\ndef d(f):\n    @functools.wraps(f)\n    def w(*a):\n        return f(*a)\n    return w\n@d\ndef handler(event):\n    return [11]\n"}, "[11]", ""},
		"a name of the library":    {"time.py", "", files{"time.py": "def handler(event):\n    return [12]\n"}, "[12]", ""},
		"no such function":         {"m.py", "m.nothing", files{"m.py": "pass\n"}, "", "TypeError: m.py has no function nothing\n"},
		"not a function":           {"m.py", "", files{"m.py": "handler = 1\n"}, "", "TypeError: m.py has no function handler\n"},
		"a coroutine":              {"m.py", "", files{"m.py": "async def handler(event):\n    return 1\n"}, "", "want one that returns its reply\n"},
		"a script with a function": {"m.py", "", files{"m.py": "def main():\n    def handler(): pass\n    print('[13]')\nmain()\n"}, "[13]\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := load(t, c.main, c.files, runtime.Function{Handler: c.handler})
			for range 2 {
				out, log, got := call(l, "", "")
				if out != c.out || (got.Reason == runtime.OK) != (c.log == "") || !strings.HasSuffix(log, c.log) {
					t.Errorf("%q, want %q; %+v; log %q", out, c.out, got, log)
				}
			}
		})
	}
}

// TestLoadFailures: a file that cannot be loaded fails the requests, with its
// traceback in each one's log.
func TestLoadFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		source, log string
		want        runtime.Result
	}{
		"an exception": {"import nothing_like_it\ndef handler(event): pass\n", "ModuleNotFoundError: No module named 'nothing_like_it'\n", runtime.Result{Reason: runtime.Exit, Exit: 1}},
		"an exit":      {"import sys\nsys.exit(5)\ndef handler(event): pass\n", "", runtime.Result{Reason: runtime.Exit, Exit: 5}},
		"memory":       {"x = bytearray(1 << 40)\ndef handler(event): pass\n", "MemoryError\n", runtime.Result{Reason: runtime.Memory, Exit: 1, Detail: "memory ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := load(t, "m.py", files{"m.py": c.source}, runtime.Function{})
			for range 3 {
				_, log, got := call(l, "", "")
				if got != c.want || !strings.HasSuffix(log, c.log) || strings.Contains(log, "<baton>") {
					t.Errorf("%+v, log %q", got, log)
				}
			}
		})
	}
	t.Run("a loop", func(t *testing.T) {
		t.Parallel()
		l := load(t, "m.py", files{"m.py": "while True: pass\ndef handler(event): pass\n"}, runtime.Function{})
		got := l.Invoke(&runtime.Invocation{Stdout: io.Discard, Deadline: time.Now().Add(3 * time.Second)})
		if got.Reason != runtime.Timeout {
			t.Errorf("%+v", got)
		}
	})
}

func TestManyCallsAtOnce(t *testing.T) {
	t.Parallel()
	l := load(t, "m.py", files{"m.py": "def handler(event):\n    return [event['body']]\n"}, runtime.Function{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				body := fmt.Sprint(i, " ", j)
				if out, _, got := call(l, "", body); out != `["`+body+`"]` || got.Reason != runtime.OK {
					t.Errorf("%q for %q, %+v", out, body, got)
				}
			}
		})
	}
	wg.Wait()
}
