package lint

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The security rules are those of gosec that have something to say about this
// repository; each has gosec's number. They are held here, and not by gosec, because its
// module brings a hundred others along, and minutes of compiling; see RATIONALE.md,
// "Why are gosec's rules held by our own lint?".

// inProduct: what runs on a user's machine.
func inProduct(f file) bool {
	return !f.isTest() && !strings.HasPrefix(f.pkg, "internal/tools") && !strings.HasPrefix(f.pkg, "bench") &&
		!strings.HasPrefix(f.pkg, "examples") && !slices.Contains([]string{"internal/lint", "internal/testenv", "internal/browser"}, f.pkg)
}

// weakImports are packages that a secret must not depend on.
var weakImports = map[string]string{
	"crypto/md5":                 "G501: crypto/sha256",
	"crypto/sha1":                "G505: crypto/sha256",
	"crypto/des":                 "G502: crypto/aes",
	"crypto/rc4":                 "G503: crypto/aes",
	"math/rand/v2":               "G404: crypto/rand, where anybody could gain by a guess",
	"net/http/pprof":             "G108: nothing is served that the control plane does not guard",
	"net/http/cgi":               "G504: httpoxy",
	"text/template":              "G203: markup that is not escaped; html/template",
	"encoding/gob":               "nothing from outside is decoded into what it names",
	"plugin":                     "nothing is loaded into this process",
	"golang.org/x/crypto/bcrypt": "no passwords are kept",
}

// endless are functions that wait for a peer for ever.
var endless = []string{"http.Get", "http.Post", "http.PostForm", "http.Head", "http.ListenAndServe", "http.ListenAndServeTLS", "http.Serve"}

// modes: which argument of a function is a mode, and the widest that is right
// without a reason. What baton writes is its user's alone.
var modes = map[string]struct {
	argument int
	widest   int64
	rule     string
}{
	"os.Mkdir": {1, 0o700, "G301"}, "os.MkdirAll": {1, 0o700, "G301"}, "os.Chmod": {1, 0o700, "G302"},
	"os.OpenFile": {2, 0o600, "G302"}, "os.WriteFile": {2, 0o600, "G306"},
}

// sqlCalls take SQL; which argument it is differs, so all are looked at.
var sqlCalls = []string{"Exec", "ExecContext", "Query", "QueryContext", "QueryRow", "QueryRowContext", "Prepare", "PrepareContext"}

// Excuse lets one rule pass in one file.
type Excuse struct{ Rule, File, Why string }

// Excuses: each with its reason. One that excuses nothing must go.
var Excuses = []Excuse{
	{"G301", "cmd/baton/new.go", "a folder of sources that the user keeps, as editors make it"},
	{"G301", "deploy/build/job.go", "folders of an artifact are read by children with a user of their own; what encloses them is 0700"},
	{"G301", "sandbox/root.go", "directories of a root in memory that one child sees, as another user"},
	{"G306", "sandbox/root.go", "an empty file to mount on, in a root that one child sees"},
	{"G202", "route/sqlite/db.go", "selectKV is a constant, the key a parameter"},
	{"G202", "route/sqlite/versions.go", "selectKV is a constant, the key a parameter"},
}

// checkSecurity looks at one node. names are the file's imports by their local names.
func checkSecurity(f file, names map[string]string, n ast.Node, add func(token.Pos, string, ...any)) {
	if !inProduct(f) {
		return
	}
	switch n := n.(type) {
	case *ast.ImportSpec:
		imported, _ := strconv.Unquote(n.Path.Value)
		if instead := weakImports[imported]; instead != "" {
			add(n.Pos(), "import of %s: %s", imported, instead)
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "InsecureSkipVerify" {
			add(n.Pos(), "G402: TLS without a check of the other side")
		}
	case *ast.CompositeLit:
		if calledName(names, n.Type) == "http.Server" && !hasKey(n, "ReadHeaderTimeout") {
			add(n.Pos(), "G112: an http.Server that waits for a head for ever")
		}
	case *ast.SelectorExpr:
		if name := calledName(names, n); name == "http.DefaultClient" || name == "http.DefaultServeMux" {
			add(n.Pos(), "G114: %s has no limits, and is everybody's", name)
		}
	case *ast.CallExpr:
		checkSecureCall(names, n, add)
	}
}

func checkSecureCall(names map[string]string, call *ast.CallExpr, add func(token.Pos, string, ...any)) {
	called := calledName(names, call.Fun)
	if slices.Contains(endless, called) {
		add(call.Pos(), "G114: %s waits for a peer for ever", called)
	}
	if mode, ok := modes[called]; ok && len(call.Args) > mode.argument {
		if literal, ok := call.Args[mode.argument].(*ast.BasicLit); ok {
			if value, err := strconv.ParseInt(literal.Value, 0, 32); err == nil && value&^mode.widest != 0 {
				add(call.Pos(), "%s: %s with mode %s: at most %#o, or an excuse", mode.rule, called, literal.Value, mode.widest)
			}
		}
	}
	if called == "exec.Command" || called == "exec.CommandContext" {
		for _, argument := range call.Args {
			if text, ok := argument.(*ast.BasicLit); ok && slices.Contains([]string{`"sh"`, `"bash"`, `"/bin/sh"`, `"/bin/bash"`}, text.Value) {
				add(call.Pos(), "G204: a shell reads more into words than they say: start the program itself")
			}
		}
	}
	if method, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains(sqlCalls, method.Sel.Name) {
		for _, argument := range call.Args {
			if isMadeText(names, argument) {
				add(argument.Pos(), "G202: SQL that is put together: a parameter, ?")
			}
		}
	}
}

// calledName is "package.Name" of what is imported, by the last part of its path.
func calledName(names map[string]string, e ast.Expr) string {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	from, ok := selector.X.(*ast.Ident)
	if !ok || names[from.Name] == "" {
		return ""
	}
	return path.Base(names[from.Name]) + "." + selector.Sel.Name
}

func hasKey(literal *ast.CompositeLit, name string) bool {
	return slices.ContainsFunc(literal.Elts, func(e ast.Expr) bool {
		pair, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		key, ok := pair.Key.(*ast.Ident)
		return ok && key.Name == name
	})
}

// isMadeText tells whether e is text that is put together of more than
// literals and names of constants' kind.
func isMadeText(names map[string]string, e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CallExpr:
		return slices.Contains([]string{"fmt.Sprintf", "fmt.Sprint", "strings.Join", "strings.ReplaceAll"}, calledName(names, e.Fun))
	case *ast.BinaryExpr:
		return e.Op == token.ADD && (!isLiteral(e.X) || !isLiteral(e.Y))
	}
	return false
}

func isLiteral(e ast.Expr) bool {
	if sum, ok := e.(*ast.BinaryExpr); ok {
		return sum.Op == token.ADD && isLiteral(sum.X) && isLiteral(sum.Y)
	}
	text, ok := e.(*ast.BasicLit)
	return ok && text.Kind == token.STRING
}

// excuse drops the findings that have an excuse. With all, the whole repository
// was looked at, and an excuse that excuses nothing is a finding.
func excuse(findings []Finding, all bool) []Finding {
	used := make([]bool, len(Excuses))
	var left []Finding
	for _, finding := range findings {
		i := slices.IndexFunc(Excuses, func(e Excuse) bool {
			return e.File == finding.File && strings.Contains(finding.Text, e.Rule+":")
		})
		if i < 0 {
			left = append(left, finding)
			continue
		}
		used[i] = true
	}
	for i, e := range Excuses {
		if all && !used[i] {
			left = append(left, Finding{e.File, 1, "internal/lint excuses " + e.Rule + " here, and there is nothing to excuse"})
		}
	}
	return left
}
