package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRespond(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, handler, body, want string }{
		{"ping answers its clock", "ping", "", `{"pong":true,"ts":1700000000}`},
		{"hello greets the named", "hello", `{"name":"Alice"}`, `{"message":"Hello, Alice","runtime":"wasm","endpoint":"/api/hello"}`},
		{"hello greets the world without a body", "hello", "", `{"message":"Hello, world","runtime":"wasm","endpoint":"/api/hello"}`},
		{"hello greets the world without a name", "hello", `{}`, `{"message":"Hello, world","runtime":"wasm","endpoint":"/api/hello"}`},
		{"hello escapes what it repeats", "hello", `{"name":"\"\\\u0001\n<ü>"}`, `{"message":"Hello, \"\\\u0001\n<ü>","runtime":"wasm","endpoint":"/api/hello"}`},
		{"hello joins surrogates", "hello", `{"name":"\ud83d\ude00"}`, `{"message":"Hello, 😀","runtime":"wasm","endpoint":"/api/hello"}`},
		{"the last of two names counts", "hello", `{"name":"A","name":"B"}`, `{"message":"Hello, B","runtime":"wasm","endpoint":"/api/hello"}`},
		{"a name inside another value does not count", "hello", `{"a":{"name":"A"},"b":["name"]}`, `{"message":"Hello, world","runtime":"wasm","endpoint":"/api/hello"}`},
		{"info", "info", "", `{"service":"faas","status":"ok","runtime":"wasm","version":"1.0.0"}`},
		{"resize repeats the width", "resize", `{"width":320}`, `{"ok":true,"note":"a demo: nothing was scaled","requested_width":320}`},
		{"python is JSON", "python", "", `{"message":"Hello from the route of the Python demo","runtime":"wasm","python":false,"note":"deploy a Python function to this path to replace this one"}`},

		{"hello refuses cut JSON", "hello", `{"name":"Al`, "400 the body is not valid JSON"},
		{"hello refuses bytes behind the object", "hello", `{} {}`, "400 the body is not valid JSON"},
		{"hello refuses an array", "hello", `[]`, "400 the body is not a JSON object"},
		{"hello refuses a number as a name", "hello", `{"name":7}`, "400 name is not a string"},
		{"resize refuses no width", "resize", `{}`, "400 width is missing"},
		{"resize refuses no body", "resize", ``, "400 width is missing"},
		{"resize refuses zero", "resize", `{"width":0}`, "400 width is not a whole number from 1 to 65535"},
		{"resize refuses 65536", "resize", `{"width":65536}`, "400 width is not a whole number from 1 to 65535"},
		{"resize refuses a fraction", "resize", `{"width":1.5}`, "400 width is not a whole number from 1 to 65535"},
		{"resize refuses a string", "resize", `{"width":"320"}`, "400 width is not a whole number from 1 to 65535"},
		{"hello refuses a body of 64 KiB and one byte", "hello", strings.Repeat(" ", 64<<10+1), "413 the body is larger than 64 KiB"},
		{"an unknown function is not found", "no\"pe", "", `404 no such function: no"pe`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := string(respond(nil, tc.handler, strings.NewReader(tc.body), time.Unix(1700000000, 0)))
			if status, message, ok := strings.Cut(tc.want, " "); ok && len(status) == 3 {
				head, body, _ := strings.Cut(got, "\n\n")
				if !strings.HasPrefix(head, "Status: "+status+" ") || !strings.Contains(head, "\nContent-Type: application/json") {
					t.Errorf("header block %q, want status %s", head, status)
				}
				var parsed struct{ Error string }
				if err := json.Unmarshal([]byte(body), &parsed); err != nil || parsed.Error != message {
					t.Errorf("body %q (%v), want the error %q", body, err, message)
				}
				return
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("not JSON: %s", got)
			}
		})
	}
}

func TestHandlerName(t *testing.T) {
	t.Parallel()
	getenv := func(name string) string { return map[string]string{"_HANDLER": "info"}[name] }
	if got := handlerName([]string{"demo", "ping"}, getenv); got != "ping" {
		t.Errorf("with an argument: %q, want ping", got)
	}
	if got := handlerName([]string{"demo"}, getenv); got != "info" {
		t.Errorf("without an argument: %q, want info", got)
	}
}

func TestMemberBoundsDepth(t *testing.T) {
	t.Parallel()
	nested := func(n int) []byte {
		return []byte(`{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`)
	}
	if _, err := member(nested(depthMax), "a"); err != nil {
		t.Errorf("depth %d: %v", depthMax, err)
	}
	if _, err := member(nested(depthMax+1), "a"); err == nil {
		t.Errorf("depth %d was accepted", depthMax+1)
	}
}

// FuzzMember compares with encoding/json: the same bodies are accepted, and the
// same name is found in them.
func FuzzMember(f *testing.F) {
	for _, seed := range []string{
		`{"name":"Alice"}`, `{"name":"\ud83d\ude00\ud83d"}`, `{"name":null}`, ` {"a":[1,-0.5e+3,{}],"name":"x"} `,
		`{"name":01}`, `{"name":-}`, `{"name":1.}`, `{"name":"\x"}`, `{"name":"a",}`, `[1]`, `{`, ``, "{\"name\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		value, err := member(body, "name")
		var object map[string]json.RawMessage
		want := json.Unmarshal(body, &object)
		if len(space(body)) == 0 {
			return // no body is an empty object to us
		}
		if strings.Count(string(body), "[")+strings.Count(string(body), "{") > depthMax {
			return
		}
		if object == nil && want == nil {
			return // null
		}
		if (err == nil) != (want == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", body, err, want)
		}
		if err != nil {
			return
		}
		if string(value) != string(object["name"]) {
			t.Fatalf("%q: got %q, encoding/json finds %q", body, value, object["name"])
		}
		var name *string
		if json.Unmarshal(value, &name) != nil || name == nil {
			return
		}
		got, ok := text(value)
		if !ok || got != *name {
			t.Fatalf("%q: got %q, encoding/json reads %q", value, got, *name)
		}
		if back := ""; json.Unmarshal(appendString(nil, got), &back) != nil || back != got || !utf8.ValidString(got) {
			t.Fatalf("%q written as %s", got, appendString(nil, got))
		}
	})
}
