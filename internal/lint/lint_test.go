package lint

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestRepository holds every file of the repository to the rules.
func TestRepository(t *testing.T) {
	t.Parallel()
	findings, err := CheckTree(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, finding := range findings {
		t.Error(finding)
	}
}

// TestRulesFire shows that each rule finds what it is for, and what it lets
// through.
func TestRulesFire(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, file, source, want string }{
		{"gnet outside its door", "gateway/x.go", `import _ "github.com/panjf2000/gnet/v2"`, "is for reactor alone"},
		{"gnet in a test outside its door", "gateway/x_test.go", `import "github.com/panjf2000/gnet/v2"`, "is for reactor alone"},
		{"gnet at its door", "reactor/x.go", `import "github.com/panjf2000/gnet/v2"`, ""},
		{"a peer in a benchmark", "httpparse/x_test.go", `import "github.com/valyala/fasthttp"`, ""},
		{"a peer in the product", "httpparse/x.go", `import "github.com/valyala/fasthttp"`, "is for control alone"},
		{"wazero's root", "control/x.go", `import "github.com/tetratelabs/wazero"`, "is for runtime/wasm alone"},
		{"wazero below its root", "control/x.go", `import "github.com/tetratelabs/wazero/api"`, "is for runtime/wasm alone"},
		{"a dependency nobody chose", "reactor/x.go", `import "example.org/x"`, "has no door"},
		{"a package nobody planned", "extra/x.go", `import "os"`, "has no row"},
		{"an import upwards", "route/x.go", `import "baton/reactor"`, "route may not import reactor"},
		{"an import sideways", "runtime/php/x.go", `import "baton/runtime/wasm"`, "runtime/php may not import runtime/wasm"},
		{"an import downwards", "runtime/php/x.go", `import "baton/internal/sys"`, ""},
		{"a part of the standard library", "httpparse/x.go", `import "net"`, "httpparse must not know net"},
		{"… in a test", "httpparse/x_test.go", `import "net"`, ""},
		{"a test's own package", "httpparse/x_test.go", `import "baton/httpparse"`, ""},
		{"a test helper", "httpparse/x_test.go", `import "baton/internal/testenv"`, ""},
		{"Go's runtime under our name", "reactor/x.go", `import "runtime"`, "goruntime"},
		{"Go's runtime under its own", "reactor/x.go", `import goruntime "runtime"`, ""},
		{"unsafe in the open", "reactor/x.go", `import "unsafe"`, "_unsafe.go"},
		{"unsafe in its file", "reactor/x_unsafe.go", `import "unsafe"`, ""},
		{"the old logger", "reactor/x.go", `import "log"`, "log/slog"},
		{"a side effect", "control/x.go", `import _ "net/http/pprof"`, "side effect"},
		{"testing in the product", "control/x.go", `import "testing"`, "_test.go"},
		{"a sleep in a test", "route/x_test.go", `import "time"; func f() { time.Sleep(1) }`, "testenv.Until"},
		{"a sleep under another name", "route/x_test.go", `import clock "time"; func f() { clock.Sleep(1) }`, "testenv.Until"},
		{"a sleep outside tests", "gateway/x.go", `import "time"; func f() { time.Sleep(1) }`, ""},
		{"the wall clock in a pure package", "sched/x.go", `import "time"; func f() { time.Now() }`, "as an argument"},
		{"an exit in a library", "route/x.go", `import "os"; func f() { os.Exit(1) }`, "only main"},
		{"an init", "route/x.go", `func init() {}`, "func init"},
		{"a method named init", "route/x.go", `type t int; func (t) init() {}`, ""},
		{"a TODO without a condition", "route/x.go", "// TODO later\n", "name its condition"},
		{"a TODO with one", "route/x.go", "// TODO: when Go has X, drop this.\n", ""},
		{"a fixed name", "route/x.go", `var s = "/tmp/baton"`, "fixed names"},
		{"an error as text", "route/x.go", `func f(e error) bool { return e.Error() == "EOF" }`, "compared as text"},
		{"an error searched as text", "route/x.go", `import "strings"; func f(e error) bool { return strings.Contains(e.Error(), "EOF") }`, "compared as text"},
		{"an error's text, cut", "route/x.go", `import "strings"; func f(e error) { strings.Cut(e.Error(), "EOF") }`, ""},
		{"G501, MD5", "control/x.go", `import "crypto/md5"`, "G501"},
		{"G404, a guess", "control/x.go", `import "math/rand/v2"`, "G404"},
		{"G404, in a test", "control/x_test.go", `import "math/rand/v2"`, ""},
		{"G114, a request without limits", "control/x.go", `import "net/http"; func f() { http.Get("x") }`, "G114"},
		{"G114, everybody's client", "control/x.go", `import "net/http"; var c = http.DefaultClient`, "G114"},
		{"G112, a server without limits", "control/x.go", `import "net/http"; var s = http.Server{Addr: ":1"}`, "G112"},
		{"G112, a server with one", "control/x.go", `import "net/http"; var s = http.Server{ReadHeaderTimeout: 1}`, ""},
		{"G402, TLS with anybody", "control/x.go", `import "net/http"; var c = http.Config{InsecureSkipVerify: true}`, "G402"},
		{"G301, an open folder", "control/x.go", `import "os"; func f() { _ = os.MkdirAll("x", 0o755) }`, "G301"},
		{"G301, a private folder", "control/x.go", `import "os"; func f() { _ = os.MkdirAll("x", 0o700) }`, ""},
		{"G302, an open file", "control/x.go", `import "os"; func f() { os.OpenFile("x", os.O_RDWR, 0o644) }`, "G302"},
		{"G306, an open file, written", "control/x.go", `import "os"; func f() { _ = os.WriteFile("x", nil, 0644) }`, "G306"},
		{"G204, a shell", "gateway/x.go", `import "os/exec"; func f(a string) { exec.Command("sh", "-c", a) }`, "G204"},
		{"G204, a program", "gateway/x.go", `import "os/exec"; func f(a string) { exec.Command("git", a) }`, ""},
		{"G202, SQL from a name", "route/sqlite/x.go", `type d struct{}; func (d) Exec(string) {}; func f(n string) { d{}.Exec("DELETE FROM " + n) }`, "G202"},
		{"G202, SQL from a format", "route/sqlite/x.go", `import "fmt"; type d struct{}; func (d) Query(string) {}; func f(n string) { d{}.Query(fmt.Sprintf("DELETE FROM %s", n)) }`, "G202"},
		{"G202, SQL in two lines", "route/sqlite/x.go", `type d struct{}; func (d) Exec(string) {}; func f() { d{}.Exec("DELETE" + " FROM x") }`, ""},
		{"failed to", "route/x.go", `import "errors"; var e = errors.New("failed to open")`, "being done"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			findings := CheckGo(tc.file, []byte("package x\n\n"+tc.source+"\n"))
			var all []string
			for _, finding := range findings {
				all = append(all, finding.String())
			}
			got := strings.Join(all, "\n")
			if tc.want == "" && got != "" {
				t.Errorf("found %q in what is right", got)
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

func TestExcuses(t *testing.T) {
	t.Parallel()
	e := Excuses[0]
	excused := Finding{e.File, 3, e.Rule + ": something"}
	other := Finding{"control/x.go", 3, e.Rule + ": something"}
	if got := excuse([]Finding{excused, other}, false); len(got) != 1 || got[0] != other {
		t.Errorf("left: %v, want %v", got, other)
	}
	if got := excuse(nil, true); len(got) != len(Excuses) || !strings.Contains(got[0].Text, "nothing to excuse") {
		t.Errorf("of excuses that excuse nothing are told: %v", got)
	}
	for _, e := range Excuses {
		if e.Why == "" {
			t.Errorf("%s in %s is excused without a reason", e.Rule, e.File)
		}
	}
}

func TestMachinePath(t *testing.T) {
	t.Parallel()
	text := "see /" + "work/x and ./work" + "/y\n"
	if got := CheckText("README.md", []byte(text)); len(got) != 1 || got[0].Line != 1 {
		t.Errorf("found %v, want one in line 1", got)
	}
}

// TestReferences: where code points to a heading of a record, it is there.
func TestReferences(t *testing.T) {
	t.Parallel()
	pointer := regexp.MustCompile(`(RATIONALE|PERFORMANCE)\.md,\s+(?://\s+)?"([^"]+)"`)
	wrapped := regexp.MustCompile(`\s*\n\s*//\s*`)
	headings := map[string]string{}
	for _, record := range []string{"RATIONALE", "PERFORMANCE"} {
		text, err := os.ReadFile("../../" + record + ".md")
		if err != nil {
			t.Fatal(err)
		}
		headings[record] = string(text)
	}
	err := fs.WalkDir(os.DirFS("../.."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && skipped(name) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		source, err := os.ReadFile("../../" + name)
		if err != nil {
			return err
		}
		for _, found := range pointer.FindAllStringSubmatch(string(source), -1) {
			title := wrapped.ReplaceAllString(found[2], " ")
			heading := regexp.MustCompile(`(?m)^##+ ` + regexp.QuoteMeta(title) + `$`)
			if !heading.MatchString(headings[found[1]]) {
				t.Errorf("%s points to %q, which is no heading of %s.md", name, title, found[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTables keeps the tables honest: every entry has its reason.
func TestTables(t *testing.T) {
	t.Parallel()
	for _, door := range Doors {
		if door.Why == "" || len(door.Packages) == 0 {
			t.Errorf("door %s lacks its reason or its packages", door.Import)
		}
	}
	for _, row := range Rows {
		if row.Why == "" {
			t.Errorf("row %s lacks its reason", row.Package)
		}
	}
}
