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
