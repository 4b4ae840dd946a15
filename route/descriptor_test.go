package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// with is a good descriptor with more fields.
func with(fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return `{"name":"hello","runtime":"wasm"` + fields + `}`
}

func TestDescriptorDefaults(t *testing.T) {
	t.Parallel()
	d, err := ParseDescriptor([]byte(with("")))
	want := &Descriptor{Name: "hello", Runtime: "wasm", MemoryMB: 128, Timeout: 30 * time.Second, MaxBody: 10 << 20}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("%+v %v", d, err)
	}
}

// TestDescriptorLaw: one case per rule. wrong lists the fields that are
// refused; none means that the descriptor is good.
func TestDescriptorLaw(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70<<10)
	for _, c := range []struct{ law, value, wrong string }{
		{"the least", with(""), ""},
		{"white space anywhere", " {\t\"name\" :\n\"a\" , \"runtime\"\r:\"c\" } ", ""},
		{"every field", with(`"module":"functions/u/1/module.wasm","handler":"h","memory":64,"timeout":0.5,"method":"GET","path":"/a/{b}","env":{"A":"b"},` +
			`"files":"static","network":true,"freeze":true,"processes":2,"max_body":5,"max_inflight":9`), ""},
		{"a name and a runtime are needed", `{}`, "name runtime"},
		{"every fault at once", `{"name":7,"runtime":"cobol","memory":"much","timeout":-1,"colour":"red"}`, "name runtime memory timeout colour"},

		{"not an object: array", `[]`, "descriptor"},
		{"not an object: text", `"x"`, "descriptor"},
		{"not an object: nothing", ``, "descriptor"},
		{"trailing data", with("") + `{}`, "descriptor"},
		{"trailing comma", `{"name":"a","runtime":"c",}`, "descriptor"},
		{"leading comma", `{,"name":"a","runtime":"c"}`, "descriptor"},
		{"no comma", `{"name":"a" "runtime":"c"}`, "descriptor"},
		{"no colon", `{"name" "a"}`, "descriptor"},
		{"cut short", `{"name":"a","runtime":"c"`, "descriptor"},
		{"cut short in a text", `{"name":"a`, "descriptor"},
		{"cut short in an escape", `{"name":"a\`, "descriptor"},
		{"a bare control character", "{\"name\":\"a\x01\"}", "descriptor"},
		{"a bad escape", `{"name":"\q"}`, "descriptor"},
		{"a lone surrogate", `{"name":"\ud800"}`, "descriptor"},
		{"a number with a leading zero", with(`"memory":064`), "memory descriptor"},
		{"a number with a plus", with(`"memory":+64`), "descriptor"},
		{"not a number", with(`"memory":NaN`), "descriptor"},
		{"too deep", with(`"env":` + strings.Repeat("[", 10) + strings.Repeat("]", 10)), "descriptor"},
		{"bytes that are not UTF-8", "{\"name\":\"\xff\"}", "descriptor"},
		{"more than 64 KiB", with(`"handler":"` + long + `"`), "descriptor"},
		{"a comment", with("") + "// x", "descriptor"},

		{"a field twice", with(`"name":"b"`), "name"},
		{"a field twice, spelt with an escape", with(`"n\u0061me":"b"`), "name"},
		{"an unknown field", with(`"colour":"red"`), "colour"},
		{"an unknown field twice is said once", with(`"colour":"red","colour":"blue"`), "colour"},
		{"an unknown field of any kind", with(`"a":{"b":[1,{"c":null}]},"b":true`), "a b"},
		{"field names are case-sensitive", with(`"Memory":64`), "Memory"},
		{"reserved fields", with(`"host":"a","auth":{},"cors":[],"rate":1,"secrets":null,"response":""`), "host auth cors rate secrets response"},
		{"null is no value", with(`"module":null,"memory":null,"network":null,"env":null`), "module memory network env"},

		{"name: the longest", `{"runtime":"c","name":"` + long[:64] + `"}`, ""},
		{"name: too long", `{"runtime":"c","name":"` + long[:65] + `"}`, "name"},
		{"name: all it may hold", `{"runtime":"c","name":"0aZ._-"}`, ""},
		{"name: empty", `{"runtime":"c","name":""}`, "name"},
		{"name: a dot first", `{"runtime":"c","name":".a"}`, "name"},
		{"name: a slash", `{"runtime":"c","name":"a/b"}`, "name"},
		{"name: beyond ASCII", `{"runtime":"c","name":"é"}`, "name"},
		{"runtime: c++ is cpp", `{"runtime":"c++","name":"a"}`, ""},
		{"runtime: exact", `{"runtime":"WASM","name":"a"}`, "runtime"},

		{"module: import", with(`"module":"import/a.wasm"`), ""},
		{"module: absolute, for ResolveModule to judge", with(`"module":"/srv/baton/import/a.wasm"`), ""},
		{"module: elsewhere", with(`"module":"cache/a"`), "module"},
		{"module: the folder itself", with(`"module":"functions/"`), "module"},
		{"module: up", with(`"module":"functions/../admin.token"`), "module"},
		{"module: up, absolute", with(`"module":"/srv/../etc/passwd"`), "module"},
		{"module: here", with(`"module":"functions/./a"`), "module"},
		{"module: double slash", with(`"module":"functions//a"`), "module"},
		{"module: backslash", with(`"module":"functions\\a"`), "module"},
		{"module: NUL", with(`"module":"functions/a\u0000b"`), "module"},
		{"module: empty", with(`"module":""`), "module"},
		{"module: too long", with(`"module":"functions/` + long[:512] + `"`), "module"},
		{"handler: empty is none", with(`"handler":""`), ""},
		{"handler: longest", with(`"handler":"` + long[:256] + `"`), ""},
		{"handler: too long", with(`"handler":"` + long[:257] + `"`), "handler"},
		{"handler: control character", with(`"handler":"a\nb"`), "handler"},

		{"memory: least and most", with(`"memory":1`), ""},
		{"memory: most", with(`"memory":4096`), ""},
		{"memory: none", with(`"memory":0`), "memory"},
		{"memory: too much", with(`"memory":4097`), "memory"},
		{"memory: whole in another form", with(`"memory":1.28e2`), ""},
		{"memory: a fraction", with(`"memory":0.5`), "memory"},
		{"memory: a text", with(`"memory":"128"`), "memory"},
		{"memory: huge", with(`"memory":1e400`), "memory"},
		{"timeout: least", with(`"timeout":0.001`), ""},
		{"timeout: most", with(`"timeout":3600`), ""},
		{"timeout: none", with(`"timeout":0`), "timeout"},
		{"timeout: too long", with(`"timeout":3600.1`), "timeout"},
		{"timeout: a text", with(`"timeout":"5s"`), "timeout"},
		{"method: any", with(`"method":"ANY"`), ""},
		{"method: lower case", with(`"method":"get"`), "method"},
		{"path: bad", with(`"path":"a"`), "path"},
		{"env: none", with(`"env":{}`), ""},
		{"env: a number", with(`"env":{"A":1}`), "env.A"},
		{"env: twice", with(`"env":{"A":"1","A":"2"}`), "env.A"},
		{"env: a bad name", with(`"env":{"A=B":"1"}`), "env"},
		{"env: NUL", with(`"env":{"A":"\u0000"}`), "env.A"},
		{"env: not an object", with(`"env":["A=1"]`), "env"},
		{"env: too big", with(`"env":{"A":"` + long[:33<<10] + `"}`), "env"},
		{"files: up", with(`"files":"../x"`), "files"},
		{"files: absolute", with(`"files":"/etc"`), "files"},
		{"target: of c", `{"name":"a","runtime":"c","target":"wasm"}`, ""},
		{"target: unknown", `{"name":"a","runtime":"c","target":"arm"}`, "target"},
		{"target: not of php", `{"name":"a","runtime":"php","target":"wasm"}`, "target"},
		{"network: not 1", with(`"network":1`), "network"},
		{"freeze: not a text", with(`"freeze":"true"`), "freeze"},
		{"processes: negative", with(`"processes":-1`), "processes"},
		{"max_body: none at all", with(`"max_body":0`), ""},
		{"max_body: too much", with(`"max_body":1099511627777`), "max_body"},
		{"max_inflight: too many", with(`"max_inflight":1048577`), "max_inflight"},
	} {
		d, err := ParseDescriptor([]byte(c.value))
		var wrong []string
		for _, e := range FieldErrors(err) {
			wrong = append(wrong, e.Field)
			if e.Want == "" || len(e.Error()) > 400 || !utf8.ValidString(e.Error()) {
				t.Errorf("%s: %q", c.law, e.Error())
			}
		}
		if got := strings.Join(wrong, " "); got != c.wrong || (d == nil) != (err != nil) {
			t.Errorf("%s: wrong %q, want %q (%v)", c.law, got, c.wrong, err)
		}
	}
}

func TestDescriptorFields(t *testing.T) {
	t.Parallel()
	many := `{"name":"a","runtime":"c"`
	for i := range 100 {
		many += fmt.Sprintf(`,"x%d":1`, i)
	}
	_, err := ParseDescriptor([]byte(many + "}"))
	if n := len(FieldErrors(err)); n != fieldsMax-2+1 {
		t.Errorf("%d faults of a hundred", n)
	}
}

// TestDescriptorSuggestion: an unknown field's message names the nearest known
// one, or none when there is none.
func TestDescriptorSuggestion(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"memmory": `"memory"`, "Timeout": `"timeout"`, "max-body": `"max_body"`, "maxbody": `"max_body"`, "handlr": `"handler"`,
		"envs": `"env"`, "colour": "", "x": "", "": "", strings.Repeat("memory", 100): "", "rate": "reserved", "secrets": "reserved",
	} {
		_, err := ParseDescriptor([]byte(with(`"` + field + `":1`)))
		if err == nil || !strings.Contains(err.Error(), want) || want == "" && strings.Contains(err.Error(), "mean") {
			t.Errorf("%s: %v, want %q", field, err, want)
		}
	}
}

func TestParseRowLaw(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ law, key, value, wrong string }{
		{"good", "GET:/a", goodValue, ""},
		{"a key's and a descriptor's faults at once", "GET", "{}", "key name runtime"},
		{"a module is needed", "GET:/a", with(""), "module"},
		{"the method agrees", "GET:/a", with(`"module":"import/a","method":"GET"`), ""},
		{"the method disagrees, and the path, and no module", "GET:/a", with(`"method":"PUT","path":"/b"`), "method path module"},
	} {
		_, err := ParseRow(c.key, c.value)
		var wrong []string
		for _, e := range FieldErrors(err) {
			wrong = append(wrong, e.Field)
		}
		if got := strings.Join(wrong, " "); got != c.wrong {
			t.Errorf("%s: %q, want %q", c.law, got, c.wrong)
		}
	}
	var field *FieldError
	if err := error(RowError{"GET:/a", &FieldError{"name", "x", ""}}); !errors.As(err, &field) || len(FieldErrors(err)) != 1 {
		t.Error("a RowError hides its FieldError")
	}
}

func TestResolveModule(t *testing.T) {
	t.Parallel()
	for module, want := range map[string]string{
		"functions/u/1/module.wasm": "/srv/data/functions/u/1/module.wasm",
		"import/a":                  "/srv/data/import/a",
		"/srv/data/import/a":        "/srv/data/import/a",
		"/srv/data/cache/a":         "",
		"/srv/data/functions":       "",
		"/srv/data2/import/a":       "",
		"/srv/data//etc/import":     "",
		"/srv/data/import/../x":     "",
		"/etc/passwd":               "",
		"cache/a":                   "",
		"":                          "",
		"functions/../import/a":     "",
	} {
		got, err := ResolveModule("/srv/data", module)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v, want %q", module, got, err, want)
		}
	}
	if got, err := ResolveModule("/", "/import/a"); got != "/import/a" || err != nil {
		t.Errorf("the root as data directory: %q %v", got, err)
	}
}

// FuzzParseDescriptor: what encoding/json does not read as an object is
// refused; what is accepted, encoding/json reads too, with equal values; and
// written again it is the same descriptor.
func FuzzParseDescriptor(f *testing.F) {
	f.Add(with(""))
	f.Add(goodValue)
	f.Add(with(`"handler":"\ud83d\ude00\u0000","env":{"A":"\"\\\/\b\f\n\r\t"}`))
	f.Add(with(`"memory":1e2,"timeout":1.5E-1,"max_body":-0,"x":[[],{}]`))
	f.Add(`{"name":"a"}}`)
	f.Fuzz(func(t *testing.T, v string) {
		d, err := ParseDescriptor([]byte(v))
		if (d == nil) == (err == nil) {
			t.Fatal("a descriptor and an error, or neither")
		}
		if err != nil {
			for _, e := range FieldErrors(err) {
				_ = e.Error()
			}
			if len(FieldErrors(err)) == 0 {
				t.Fatalf("an error without a field: %v", err)
			}
			return
		}
		var plain struct {
			Name, Runtime, Module, Handler, Method, Path, Files, Target string
			Memory, Timeout, MaxBody, MaxInflight, Processes            *float64
			Network, Freeze                                             bool
			Env                                                         map[string]string
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(v), &fields); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		if err := json.Unmarshal([]byte(strings.NewReplacer(`"max_body"`, `"MaxBody"`, `"max_inflight"`, `"MaxInflight"`).Replace(v)), &plain); err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		if plain.Name != d.Name || plain.Handler != d.Handler || plain.Module != d.Module || plain.Path != d.Path || plain.Files != d.Files ||
			plain.Network != d.Network || len(plain.Env) != len(d.Env) || plain.Memory != nil && int(*plain.Memory) != d.MemoryMB {
			t.Fatalf("%+v, want %+v", d, plain)
		}
		again, err := ParseDescriptor(d.AppendJSON(nil))
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Fatalf("%+v, then %+v %v", d, again, err)
		}
		if row, err := ParseRow("ANY:/"+d.Name, v); err == nil {
			f, err := newFunction(Row{"ANY:/" + d.Name, v, 1})
			if err != nil || !reflect.DeepEqual(f.Descriptor(), row) {
				t.Fatalf("%+v, packed %+v %v", row, f, err)
			}
		}
	})
}
