package build

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"baton/internal/testenv"
	"baton/sandbox"
)

// secret is what no build must get to see.
const secret = "do_not_let_a_build_read_this_token"

// victim is a machine with something to steal.
type victim struct {
	*Builder
	data, token, socket, tcp, mark, outside string
}

// victims runs a test with all layers that this machine gives, and without a root
// directory and a user of its own: as where baton does not run as root.
func victims(t *testing.T, o Options, f func(t *testing.T, v *victim)) {
	t.Helper()
	for _, c := range []struct {
		name    string
		without []string
	}{{"all layers", nil}, {"no root of its own", []string{sandbox.LayerRoot}}} {
		if c.without != nil && os.Geteuid() != 0 {
			continue // it was the first one
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := o
			o.Data, o.Without = t.TempDir(), c.without
			v := &victim{Builder: builder(t, o), data: o.Data, token: filepath.Join(o.Data, "admin.token"), socket: filepath.Join(o.Data, "admin.sock")}
			if err := os.WriteFile(v.token, []byte(secret+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			v.outside = filepath.Join(os.TempDir(), "baton-evil-"+strconv.Itoa(os.Getpid()))
			v.mark = filepath.Join(o.Data, "written")
			for _, network := range []string{"unix", "tcp"} {
				address := v.socket
				if network == "tcp" {
					address = "127.0.0.1:0"
				}
				listener, err := net.Listen(network, address) //nolint:noctx
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = listener.Close() })
				v.tcp = listener.Addr().String()
			}
			f(t, v)
			if _, err := os.Lstat(v.mark); err == nil {
				t.Error("a build wrote into the data directory")
			}
		})
	}
}

// text replaces the names of what is to be stolen.
func (v *victim) text(s string) string {
	return strings.NewReplacer("TOKEN", v.token, "SOCKET", v.socket, "TCP", v.tcp, "MARK", v.mark, "OUTSIDE", v.outside,
		"REGISTRY", v.cache.dir(cacheCargo)+"/registry/evil", "GOCACHE", v.cache.dir(cacheGo)+"/evil", "PID", strconv.Itoa(os.Getpid())).Replace(s)
}

// fails builds and wants it to fail, for this reason, without a word of the secret.
func (v *victim) fails(t *testing.T, req Request, reason string) *Error {
	t.Helper()
	m, err := run(t.Context(), t, v.Builder, req)
	if reasonOf(err) == ToolchainMissing {
		t.Skipf("%v", err)
	}
	var mine *Error
	if !errors.As(err, &mine) || mine.Reason != reason {
		t.Fatalf("got %v, want %s", err, reason)
	}
	if strings.Contains(mine.Error()+m.log, secret) {
		t.Errorf("a build has read the token: %v", err)
	}
	return mine
}

// What compilers put into a program, or print, is what they may read.
func TestCompilersReadNoSecret(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, runtime, target string
		files                 map[string]string
	}{
		{"#include", "c", "", map[string]string{"x.c": "#include \"TOKEN\"\nint main(void) { return 0; }\n"}},
		{"#include, by a way up", "c", "", map[string]string{"x.c": "#include \"../../../admin.token\"\nint main(void) { return 0; }\n"}},
		{"#include to wasm", "c", "wasm", map[string]string{"x.c": "#include \"TOKEN\"\nint main(void) { return 0; }\n"}},
		{".incbin", "c", "", map[string]string{"x.c": "__asm__(\".data\\n.incbin \\\"TOKEN\\\"\");\nint main(void) { return 0; }\n"}},
		{".incbin to wasm", "cpp", "wasm", map[string]string{"x.cpp": "__asm__(\".data\\n.incbin \\\"TOKEN\\\"\");\nint main() { return 0; }\n"}},
		{"#embed", "c", "", map[string]string{"x.c": "static const char t[] = {\n#embed \"TOKEN\"\n};\nint main(void) { return t[0]; }\n"}},
		{"include_str!", "rust", "", map[string]string{"x.rs": "fn main() { print!(\"{}\", include_str!(\"TOKEN\")); }\n"}},
		{"#[path]", "rust", "", map[string]string{"x.rs": "#[path = \"TOKEN\"]\nmod token;\nfn main() {}\n"}},
		{"go:embed of a path", "go", "", map[string]string{"x.go": "package main\n\nimport _ \"embed\"\n\n//go:embed TOKEN\nvar t string\n\nfunc main() { print(t) }\n"}},
		{"replace in go.mod", "go", "", map[string]string{"go.mod": "module x\n\ngo 1.24\n\nrequire y v0.0.0\n\nreplace y => DATA\n", "x.go": "package main\n\nimport _ \"y\"\n\nfunc main() {}\n"}},
		{"import \"C\"", "go", "", map[string]string{"x.go": "package main\n\n// #include \"TOKEN\"\nimport \"C\"\n\nfunc main() {}\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			victims(t, Options{}, func(t *testing.T, v *victim) {
				files := map[string]string{}
				for name, text := range c.files {
					files[name] = v.text(strings.ReplaceAll(text, "DATA", v.data))
				}
				v.fails(t, Request{Source: folder(t, files), Runtime: c.runtime, Target: c.target}, CompileFailed)
			})
		})
	}
}

// Archives hold no links, and whoever hands a folder with one over gets nothing by it.
func TestLinksInSourcesLeadNowhere(t *testing.T) {
	t.Parallel()
	victims(t, Options{}, func(t *testing.T, v *victim) {
		dir := folder(t, map[string]string{"x.go": "package main\n\nimport _ \"embed\"\n\n//go:embed link\nvar t string\n\nfunc main() { print(t) }\n"})
		if err := os.Symlink(v.token, filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		v.fails(t, Request{Source: dir, Runtime: "go"}, CompileFailed)
	})
}

// attempts is Rust that tries everything and says of each what came of it.
const attempts = `
fn tell<T>(what: &str, r: std::io::Result<T>) -> String {
    match r { Ok(_) => format!("[{} ESCAPED]", what), Err(e) => format!("[{} refused: {}]", what, e.to_string().replace("\n", " ")) }
}
fn attempts() -> String {
    let mut all = String::new();
    all += &tell("token", std::fs::read_to_string("TOKEN"));
    all += &tell("shadow", std::fs::read_to_string("/etc/shadow"));
    all += &tell("root", std::fs::read_dir("/root"));
    all += &tell("environ", std::fs::read("/proc/PID/environ"));
    all += &tell("write", std::fs::write("MARK", "x"));
    all += &tell("registry", std::fs::write("REGISTRY", "x"));
    all += &tell("gocache", std::fs::write("GOCACHE", "x"));
    all += &tell("tmp", std::fs::write("OUTSIDE", "x"));
    all += &tell("tcp", std::net::TcpStream::connect("TCP"));
    all += &tell("udp", std::net::UdpSocket::bind("0.0.0.0:0"));
    all += &tell("unix", std::os::unix::net::UnixStream::connect("SOCKET"));
    let run = |name: &str, args: &[&str]| std::process::Command::new(name).args(args).stderr(std::process::Stdio::null()).status()
        .and_then(|s| if s.success() { Ok(()) } else { Err(std::io::Error::new(std::io::ErrorKind::Other, format!("{}", s))) });
    all += &tell("signal", run("/bin/sh", &["-c", "kill -0 PID"]));
    all += &tell("session", run("/usr/bin/setsid", &["--wait", "true"]));
    all += &tell("setuid", run("/bin/su", &["-c", "true"]));
    all
}
`

var attemptNames = []string{"token", "shadow", "root", "environ", "write", "registry", "gocache", "tmp", "tcp", "udp", "unix", "signal", "session", "setuid"}

// A build script and a procedural macro are the user's code that runs while a
// build does.
func TestUserCodeOfABuildIsConfined(t *testing.T) {
	t.Parallel()
	victims(t, Options{}, func(t *testing.T, v *victim) {
		left := fmt.Sprintf("8%d.%d", os.Getpid(), len(t.Name()))
		mine := v.fails(t, Request{Runtime: "rust", Source: folder(t, map[string]string{
			"Cargo.toml":        "[package]\nname = \"evil\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\nmacros = { path = \"macros\" }\n",
			"build.rs":          v.text(attempts + "fn main() {\n    use std::process::{Command, Stdio};\n    Command::new(\"/bin/sleep\").arg(\"" + left + "\").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();\n    println!(\"cargo:warning=SCRIPT {}\", attempts());\n}\n"),
			"src/main.rs":       "macros::steal!();\nfn main() {}\n",
			"macros/Cargo.toml": "[package]\nname = \"macros\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[lib]\nproc-macro = true\n",
			"macros/src/lib.rs": v.text(attempts + "#[proc_macro]\npub fn steal(_: proc_macro::TokenStream) -> proc_macro::TokenStream { panic!(\"MACRO {}\", attempts()) }\n"),
		})}, CompileFailed)
		for _, who := range []string{"SCRIPT", "MACRO"} {
			_, report, _ := strings.Cut(mine.Detail, who+" [")
			report, _, _ = strings.Cut(report, "\n")
			for _, name := range attemptNames {
				if !strings.Contains("["+report, "["+name+" refused: ") {
					t.Errorf("%s: %s: not refused: %s", who, name, mine.Detail)
				}
			}
		}
		testenv.Until(t, "what a build script left behind is gone", func() bool { return len(processesWith(t, left)) == 0 })
		for _, name := range []string{filepath.Join(v.cache.dir(cacheCargo), "registry", "evil"), filepath.Join(v.cache.dir(cacheGo), "evil"), v.outside} {
			if _, err := os.Lstat(name); err == nil {
				t.Errorf("a build wrote %s", name)
			}
		}
	})
}

// processesWith lists the processes, zombies left out, with this argument.
func processesWith(t *testing.T, argument string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "\x00"+argument+"\x00") {
			pids = append(pids, name)
		}
	}
	return pids
}

// A program that a build has made where it may write is run only where the
// user's code must: in cargo's builds.
func TestOnlyCargoRunsWhatItMakes(t *testing.T) {
	t.Parallel()
	victims(t, Options{Path: scriptPath(t, "php", "printf '#!/bin/sh\\necho ran >&2\\n' >x; chmod +x x; ./x; exit 1")}, func(t *testing.T, v *victim) {
		mine := v.fails(t, Request{Source: folder(t, phpFile), Runtime: "php"}, CompileFailed)
		if strings.Contains(mine.Detail, "ran") || !strings.Contains(mine.Detail, "denied") {
			t.Errorf("got %q", mine.Detail)
		}
	})
}

// A link that user code leaves in the place of what it should make is not
// followed by the server, whose rights are others.
func TestLeftLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	need(t, "go", "golang-go")
	module := "printf '\\0asm\\1\\0\\0\\0' "
	for name, c := range map[string]struct{ script, want string }{
		"a file":             {"rm -f \"$2\"; ln -s TOKEN \"$2\"", "made no file"},
		"a folder":           {"d=$(dirname \"$2\"); rmdir \"$d\"; ln -s DATA/other \"$d\"", "made no file"},
		"a pipe":             {"rm -f \"$2\"; mkfifo \"$2\" || ln -s /dev/zero \"$2\"", "made no file"},
		"a file beside them": {module + ">\"$2\"; ln -s TOKEN \"$(dirname \"$2\")\"/token", "no file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			victims(t, Options{}, func(t *testing.T, v *victim) {
				other := filepath.Join(v.data, "other")
				if err := os.MkdirAll(other, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(other, "module.wasm"), wasmModule, 0o600); err != nil {
					t.Fatal(err)
				}
				script := strings.NewReplacer("TOKEN", v.token, "DATA", v.data).Replace(c.script)
				v.opt.Path = scriptPath(t, "tinygo", "[ \"$1\" = version ] && { echo tinygo version 0.0.0; exit; }\nwhile [ \"$1\" != -o ]; do shift; done\n"+script) +
					":" + os.Getenv("PATH")
				mine := v.fails(t, Request{Source: folder(t, map[string]string{"main.go": goMain}), Runtime: "tinygo"}, BadSource)
				if !strings.Contains(mine.Detail, c.want) {
					t.Errorf("got %v", mine)
				}
				if kept, err := os.ReadDir(v.cache.dir(cacheResults)); err != nil || len(kept) > 0 && c.want == "made no file" {
					t.Errorf("a result is kept: %v, %v", kept, err)
				}
			})
		})
	}
}
