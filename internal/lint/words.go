package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Call is a function that some files must not call.
type Call struct {
	Name    string // package.Function, as it is imported here
	Where   func(file) bool
	Instead string
}

// Calls: the banned ones, and what to write.
var Calls = []Call{
	{"time.Sleep", file.isTest, "wait for the condition: testenv.Until"},
	{"time.Now", in("sched", "httpparse", "route"), "take the time or the tick as an argument"},
	{"time.Since", in("sched", "httpparse", "route"), "take the time or the tick as an argument"},
	{"os.Exit", file.isLibrary, "return an error: only main ends the process"},
	{"fmt.Print", file.isLibrary, "write to an io.Writer, or log with log/slog"},
	{"fmt.Printf", file.isLibrary, "write to an io.Writer, or log with log/slog"},
	{"fmt.Println", file.isLibrary, "write to an io.Writer, or log with log/slog"},
	{"context.TODO", everywhere, "take the caller's context"},
}

// Import is an import that some files must not have, whatever the package.
type Import struct {
	Path    string
	Where   func(file) bool
	Instead string
}

// Imports: the banned ones, and what to use.
var Imports = []Import{
	{"log", everywhere, "log/slog"},
	{"io/ioutil", everywhere, "io and os"},
	{"math/rand", everywhere, "math/rand/v2"},
	{"unsafe", func(f file) bool {
		return !strings.HasSuffix(f.name, "_unsafe.go") && !strings.HasSuffix(f.name, "_unsafe_test.go")
	}, "a file named *_unsafe.go, so that ls shows where to be afraid"},
	{"testing", func(f file) bool { return !f.isTest() && f.pkg != "internal/testenv" }, "a _test.go file"},
}

// blankImports are the only imports for their side effects.
var blankImports = map[string]string{
	"embed":              "go:embed into a string or bytes",
	"modernc.org/sqlite": "the driver registers itself with database/sql",
	"unsafe":             "go:linkname",
}

// packageNames say nothing about what is in them.
var packageNames = []string{"util", "utils", "common", "manager", "impl", "helper", "helpers", "misc", "base"}

// comments that must not stand, with the reason.
var comments = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\b(FIXME|XXX|HACK)\b`), "TODO with its condition: when X, do Y"},
	{regexp.MustCompile(`\bTODO\b`), "name its condition: TODO: when X, do Y"},
}

var todoWithCondition = regexp.MustCompile(`\bTODO: when \S`)

// strings that must not stand in Go code, with what to write.
var texts = []struct {
	pattern *regexp.Regexp
	where   func(file) bool
	instead string
}{
	{regexp.MustCompile(`^"/tmp/`), everywhere, "t.TempDir or os.MkdirTemp: nothing under fixed names in /tmp"},
	{regexp.MustCompile(`(?i)\bfailed to\b`), everywhere, "say what was being done: \"open table: …\""},
	{regexp.MustCompile(`^"(pkill|killall)"$`), everywhere, "a signal through the pidfd of a process that is ours"},
}

// machinePath is a path that exists on somebody's machine only.
var machinePath = regexp.MustCompile(`(^|[^\w.])(/` + `work/|/home/[a-z]+/)`)

// Finding is one broken rule.
type Finding struct {
	File string
	Line int
	Text string // what is wrong, and what to do instead
}

func (f Finding) String() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text) }

// file is where a rule looks: the folder and the base name.
type file struct{ pkg, name, clause string }

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// isLibrary: neither a command nor a test.
func (f file) isLibrary() bool { return f.clause != "main" && !f.isTest() }

func everywhere(file) bool { return true }

func in(packages ...string) func(file) bool {
	return func(f file) bool { return slices.Contains(packages, f.pkg) && !f.isTest() }
}

// CheckTree applies all rules to all files below root.
func CheckTree(root fs.FS) ([]Finding, error) {
	var findings []Finding
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipped(name) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !isText(name) {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		findings = append(findings, CheckText(name, source)...)
		if path.Ext(name) == ".go" && !strings.Contains(name, "testdata/") {
			findings = append(findings, CheckGo(name, source)...)
		}
		return nil
	})
	return excuse(findings, true), err
}

// skipped folders are not source: what is built, stored or git's own.
func skipped(dir string) bool {
	switch dir {
	case "bin", "data", ".git", "bench/results":
		return true
	}
	return false
}

// isText: the files that people write.
func isText(name string) bool {
	switch path.Ext(name) {
	case ".go", ".md", ".sh", ".mod", ".html", ".css", ".js", ".json", ".conf", ".yml", "":
		return true
	}
	return false
}

// CheckText applies the rules for all files.
func CheckText(name string, source []byte) []Finding {
	var findings []Finding
	for i, line := range strings.Split(string(source), "\n") {
		if found := machinePath.FindStringSubmatch(line); found != nil {
			findings = append(findings, Finding{name, i + 1, "path of one machine (" + found[2] + "): a relative one, or t.TempDir"})
		}
	}
	return findings
}

// CheckGo applies the rules for Go files.
func CheckGo(name string, source []byte) []Finding {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return []Finding{{name, 1, err.Error()}}
	}
	f := file{pkg: path.Dir(name), name: path.Base(name), clause: tree.Name.Name}
	var findings []Finding
	add := func(at token.Pos, format string, args ...any) {
		findings = append(findings, Finding{name, set.Position(at).Line, fmt.Sprintf(format, args...)})
	}

	if slices.Contains(packageNames, tree.Name.Name) {
		add(tree.Name.Pos(), "package %s: a noun for what it owns", tree.Name.Name)
	}
	names := map[string]string{} // local name → import path
	for _, spec := range tree.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		names[local] = imported
		if err := CheckImport(f.pkg, f.name, imported); err != nil {
			add(spec.Pos(), "%v", err)
		}
		for _, banned := range Imports {
			if banned.Path == imported && banned.Where(f) {
				add(spec.Pos(), "import %s: use %s", imported, banned.Instead)
			}
		}
		if imported == "runtime" && local != "goruntime" && !strings.HasPrefix(f.pkg, "examples") {
			add(spec.Pos(), `import "runtime" as goruntime: ours has that name too`)
		}
		if local == "_" && blankImports[imported] == "" {
			add(spec.Pos(), "import of %s for its side effect: pass the value in", imported)
		}
	}
	for _, group := range tree.Comments {
		for _, comment := range group.List {
			if strings.HasPrefix(comment.Text, "//go:linkname") && !strings.Contains(f.name, "_unsafe") {
				add(comment.Pos(), "go:linkname: a file named *_unsafe.go")
			}
			for _, banned := range comments {
				if banned.pattern.MatchString(comment.Text) && !todoWithCondition.MatchString(comment.Text) {
					add(comment.Pos(), "comment: %s", banned.instead)
				}
			}
		}
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		checkSecurity(f, names, n, add)
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				add(n.Pos(), "func init: a constructor that the caller calls")
			}
		case *ast.CallExpr:
			checkCall(f, names, n, add)
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && (isErrorText(n.X) || isErrorText(n.Y)) && !f.isTest() {
				add(n.Pos(), "an error compared as text: errors.Is or errors.As")
			}
		case *ast.BasicLit:
			for _, banned := range texts {
				if n.Kind == token.STRING && f.pkg != "internal/lint" && banned.pattern.MatchString(n.Value) && banned.where(f) {
					add(n.Pos(), "string %.40s: %s", n.Value, banned.instead)
				}
			}
		}
		return true
	})
	return findings
}

func checkCall(f file, names map[string]string, call *ast.CallExpr, add func(token.Pos, string, ...any)) {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	from, ok := selector.X.(*ast.Ident)
	if !ok {
		return
	}
	called := path.Base(names[from.Name]) + "." + selector.Sel.Name
	for _, banned := range Calls {
		if banned.Name == called && banned.Where(f) {
			add(call.Pos(), "call of %s: %s", called, banned.Instead)
		}
	}
	if names[from.Name] == "strings" && slices.Contains(comparisons, selector.Sel.Name) &&
		!f.isTest() && len(call.Args) > 0 && isErrorText(call.Args[0]) {
		add(call.Pos(), "an error compared as text: errors.Is or errors.As")
	}
}

// comparisons of package strings; to cut an error's text for a person is fine.
var comparisons = []string{"Contains", "HasPrefix", "HasSuffix", "EqualFold", "Index"}

// isErrorText tells whether e is a call of a method Error without arguments.
func isErrorText(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) > 0 {
		return false
	}
	selector, ok := call.Fun.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "Error"
}
