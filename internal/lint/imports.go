package lint

import (
	"fmt"
	"slices"
	"strings"
)

// module is the path of this module: imports that start with it are our own.
const module = "baton/"

// Door is a dependency, or a part of the standard library, that only some
// packages may know.
type Door struct {
	Import   string // an import path, or the start of some when it ends in '/'
	Packages []string
	Why      string
	Peers    []string // packages whose benchmarks, or benchmark programs, measure us against it
}

// Doors: one per dependency. An import outside the standard library that has
// no door is refused.
var Doors = []Door{
	{"github.com/panjf2000/gnet/", []string{"reactor"}, "both kinds of event loop look the same to everybody else", []string{"bench/peers"}},
	{"github.com/tetratelabs/wazero/", []string{"runtime/wasm"}, "the engine can be replaced without a caller noticing", []string{"bench/peers"}},
	{"modernc.org/", []string{"route/sqlite"}, "the driver's version is checked in one place", nil},
	{"database/sql", []string{"route/sqlite"}, "no SQL text outside the package that owns the schema", nil},
	{"github.com/valyala/fasthttp/", []string{"control"}, "two HTTP grammars must never see one connection", []string{"httpparse", "bench/peers"}},
	{"github.com/prometheus/", []string{"control"}, "metrics are values until somebody asks for the page", nil},
	{"golang.org/x/sys/unix", []string{"internal/sys", "internal/fd"}, "every system call is wrapped once, with EINTR handled", nil},
	{"golang.org/x/sys/cpu", []string{"runtime/wasm"}, "native code is stamped with the CPU's features, nothing else asks", nil},
	{"github.com/spf13/", []string{"cmd/baton"}, "flags are the command line's own", nil},
	{"github.com/BurntSushi/toml", []string{"cmd/baton"}, "settings are flags first, whatever file they are in", nil},
	{"go.yaml.in/yaml/v3", []string{"cmd/baton"}, "settings are flags first, whatever file they are in", nil},
	{"github.com/chromedp/", []string{"internal/browser"}, "the tests of the page drive a browser: nothing of it is in the product", nil},
	{"github.com/getkin/kin-openapi/", []string{"integration"}, "a test holds the running server against its description: nothing of it is in the product", nil},
	{"github.com/google/uuid", []string{"deploy", "control", "cmd/baton"}, "a function gets its id where it is created", nil},
	{"unsafe", []string{"*"}, "allowed in files named *_unsafe.go, see words.go", nil},
}

// Row says what of ours a package may import, beside the standard library.
type Row struct {
	Package string   // a package, or all below it when it ends in '/'
	May     []string // in the same form
	Never   []string // parts of the standard library it must not know
	Why     string
}

// Rows: the first that fits a package counts. A package without a row may not
// exist.
var Rows = []Row{
	{"httpparse", nil, []string{"net", "os", "sync", "syscall"}, "grammar over the caller's bytes: no sockets, no goroutines"},
	{"sched", nil, []string{"net", "os", "syscall"}, "pure: values and ticks in, a decision out; no HTTP, no pids"},
	{"route", nil, []string{"net", "database/sql", "syscall"}, "an immutable table: no SQL, no sockets"},
	{"route/sqlite", []string{"route", "internal/"}, []string{"net"}, "rows become tables: no connections, no workers"},
	{"ipc", []string{"internal/"}, []string{"net/http"}, "frames and the board: no HTTP, no routes, not what a worker runs"},
	{"runtime", []string{"internal/"}, []string{"net"}, "what an executor is: no patterns, no event loop, no request syntax"},
	{"runtime/wasm/gowrap", nil, []string{"net"}, "the source text that a Go function is compiled with, nothing else"},
	{"runtime/wasm/", []string{"runtime", "runtime/wasm/", "sandbox", "internal/"}, []string{"net"}, "one kind each: no other kind, no client's socket"},
	{"runtime/wasm", []string{"runtime", "runtime/wasm/", "sandbox", "internal/"}, []string{"net"}, "one kind each: no other kind, no client's socket"},
	{"runtime/logs", []string{"internal/"}, []string{"net"}, "lines in files: not who writes them, nor who asks for them"},
	{"runtime/child", []string{"runtime", "sandbox", "internal/"}, []string{"net/http"}, "processes in pools: not what they run"},
	{"runtime/event", []string{"runtime", "internal/"}, nil, "variables become an event: not whose"},
	{"runtime/", []string{"runtime", "runtime/child", "runtime/event", "sandbox", "internal/"}, nil, "one kind each: no other kind, no client's socket"},
	{"reactor", []string{"httpparse", "route", "sched", "ipc", "runtime", "internal/"}, []string{"net/http", "database/sql"}, "connections on loops: no SQL, no flags, no function's language"},
	{"sandbox", []string{"internal/"}, []string{"net/http"}, "what a child may do: not what it starts, nor why"},
	{"deploy/gomodule", []string{"runtime/wasm/gowrap"}, []string{"net"}, "baton's own modules, before baton is there to build them"},
	{"deploy/build", []string{"deploy/gomodule", "runtime", "runtime/native", "runtime/wasm/gowrap", "sandbox", "internal/"}, []string{"net", "database/sql"}, "source to artifact: no routes, no versions"},
	{"deploy", []string{"deploy/build", "route", "route/sqlite", "runtime", "runtime/wasm/gowrap", "sandbox", "internal/"}, []string{"net"}, "source to artifact to route: no connections"},
	{"control", []string{"deploy", "deploy/build", "runtime/logs", "route", "sched", "httpparse", "internal/"}, nil, "the API asks for values through interfaces of its own"},
	{"gateway", []string{"reactor", "httpparse", "route", "route/sqlite", "sched", "ipc", "runtime", "runtime/", "sandbox", "deploy", "deploy/build", "control", "internal/"}, nil, "composition of a process: no grammar, no epoll call, no SQL text"},
	{"worker", []string{"reactor", "httpparse", "route", "sched", "ipc", "runtime", "runtime/", "sandbox", "internal/"}, []string{"database/sql"}, "composition of a process: no grammar, no epoll call, no SQL"},
	{"cmd/baton", []string{"gateway", "worker", "control", "deploy", "deploy/build", "route", "route/sqlite", "runtime", "runtime/", "sandbox", "sched", "ipc", "bench", "examples", "internal/"}, nil, "wiring only"},
	{"bench/", []string{"bench"}, nil, "it speaks through sockets and /proc, as to any other server"},
	{"bench", nil, nil, "it speaks through sockets and /proc, as to any other server"},
	{"examples", nil, nil, "functions as a user would write them, and their descriptors"},
	{"examples/", nil, nil, "functions as a user would write them"},
	{"integration", []string{"deploy", "deploy/gomodule", "route/sqlite"}, nil, "the product from outside: it builds artifacts and writes rows as another process would"},
	{"internal/lint", nil, nil, "knows files, not packages"},
	{"internal/tools/", []string{"deploy/gomodule", "internal/"}, nil, "steps of the build, outside the product"},
	{"internal/testenv", []string{"deploy/gomodule", "internal/"}, nil, "tests start the product from outside"},
	{"internal/fd", nil, nil, "a number that is owned"},
	{"internal/sys", []string{"internal/fd"}, []string{"net/http"}, "system calls, thin"},
	{"internal/", []string{"internal/"}, []string{"net/http"}, "below everything: knows nothing of what uses it"},
}

// testsMay is what test files may import beside what their package may: what
// helps tests, and the product as a whole.
var testsMay = []string{"internal/"}

// CheckImport judges one import of one file. pkg is the package's folder
// below the module's root.
func CheckImport(pkg, file, imported string) error {
	for _, door := range Doors {
		if fits(door.Import, imported) {
			for _, allowed := range door.Packages {
				if allowed == "*" || allowed == pkg {
					return nil
				}
			}
			if (strings.HasSuffix(file, "_test.go") || strings.HasPrefix(pkg, "bench/")) && slices.Contains(door.Peers, pkg) {
				return nil
			}
			return fmt.Errorf("%s is for %s alone: %s", imported, strings.Join(door.Packages, ", "), door.Why)
		}
	}
	row, ok := rowOf(pkg)
	if !ok {
		return fmt.Errorf("package %s has no row in internal/lint/imports.go", pkg)
	}
	test := strings.HasSuffix(file, "_test.go")
	if own, ok := strings.CutPrefix(imported, module); ok {
		for _, may := range row.May {
			if fits(may, own) {
				return nil
			}
		}
		if own == pkg { // an external test package
			return nil
		}
		for _, may := range testsMay {
			if test && fits(may, own) {
				return nil
			}
		}
		return fmt.Errorf("%s may not import %s: %s", pkg, own, row.Why)
	}
	if strings.Contains(strings.Split(imported, "/")[0], ".") {
		return fmt.Errorf("%s has no door in internal/lint/imports.go", imported)
	}
	for _, never := range row.Never {
		if !test && fits(never, imported) {
			return fmt.Errorf("%s must not know %s: %s", pkg, imported, row.Why)
		}
	}
	return nil
}

func rowOf(pkg string) (Row, bool) {
	for _, row := range Rows {
		if fits(row.Package, pkg) {
			return row, true
		}
	}
	return Row{}, false
}

// fits tells whether name is the package that pattern names or, when pattern
// ends in '/', one below it. A dependency's own root counts as below it.
func fits(pattern, name string) bool {
	if below, ok := strings.CutSuffix(pattern, "/"); ok {
		return strings.HasPrefix(name, pattern) || name == below && strings.Contains(below, ".")
	}
	return name == pattern
}
