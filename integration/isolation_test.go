package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"baton/internal/testenv"
)

// nobody is a user without rights.
const nobody = 65534

// confinement is a way to run functions, and what `baton status` says of it.
type confinement struct {
	user    uint32
	without []string
}

// confinements are the ways of this machine. Each must keep a function off what it may not have;
// the last layers are tested by leaving out the first.
func confinements() map[string]confinement {
	all := map[string]confinement{
		"as it is":   {},
		"no seccomp": {without: []string{"seccomp"}},
	}
	if os.Geteuid() == 0 {
		all["no namespaces"] = confinement{without: []string{"own root"}}
		all["ordinary user"] = confinement{user: nobody}
		all["ordinary user, no seccomp"] = confinement{user: nobody, without: []string{"seccomp"}}
	}
	return all
}

// layersOf asks `baton status` for the layers that are active.
func layersOf(t testing.TB, s *testenv.Server) (active map[string]bool, details map[string]string) {
	t.Helper()
	out, code := s.Baton(t, "status", "--json")
	var status struct {
		Isolation []struct {
			Name   string `json:"name"`
			Active bool   `json:"active"`
			Detail string `json:"detail"`
		} `json:"isolation"`
	}
	if err := json.Unmarshal([]byte(out), &status); code != 0 || err != nil {
		t.Fatalf("baton status: exit %d, %v: %s", code, err, out)
	}
	active, details = map[string]bool{}, map[string]string{}
	for _, l := range status.Isolation {
		active[l.Name], details[l.Name] = l.Active, l.Detail
	}
	return active, details
}

// lines asks a function for a line per line of the body and returns them.
func lines(t testing.TB, s *testenv.Server, fn, query, body string) []string {
	t.Helper()
	r := ask(t, s, fn, query, body)
	if r.Status != 200 {
		t.Fatalf("%s?%s: status %d, body %.500q", fn, query, r.Status, r.Body)
	}
	return strings.Split(strings.TrimSuffix(string(r.Body), "\n"), "\n")
}

// From inside of a function: what it may not read, change, reach or leave behind.
func TestIsolation(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "gcc")
	for name, c := range confinements() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var args []string
			for _, layer := range c.without {
				args = append(args, "--without", layer)
			}
			s := testenv.Start(t, testenv.Options{Workers: 1, User: c.user, Args: args, Env: []string{"CANARY_OF_THE_HOST=secret"}})
			active, details := layersOf(t, s)
			for _, layer := range c.without {
				if active[layer] || details[layer] != "left out" {
					t.Errorf("status says of %s: %v, %q", layer, active[layer], details[layer])
				}
			}
			if !active["rlimits"] || !active["no_new_privs"] {
				t.Errorf("layers: %v", active)
			}
			isolation(t, s, active, details)
		})
	}
}

func isolation(t *testing.T, s *testenv.Server, active map[string]bool, details map[string]string) {
	pid := onlyWorker(t, s)
	code := source(t, "hostile.c")
	deployed(t, s, descriptorOf(t, "other", "c", nil), "hostile.c", code)
	deployed(t, s, descriptorOf(t, "hostile", "c", row{"env": row{"OWN": "own"}}), "hostile.c", code)
	deployed(t, s, descriptorOf(t, "many", "c", row{"processes": 8}), "hostile.c", code)
	deployed(t, s, descriptorOf(t, "network", "c", row{"network": true}), "hostile.c", code)
	deployed(t, s, descriptorOf(t, "started", "native", nil), "program", program(t))
	script := "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nwhile read -r path; do cat \"$path\" >&2 && echo \"$path: open\"; ls \"$path/\" >&2 && echo \"$path: open\"; done\nexit 0\n"
	deployed(t, s, descriptorOf(t, "script", "native", row{"processes": 4}), "run", []byte(script))
	files := active["own root"] || active["landlock"]
	if !files {
		t.Log("neither a root directory of its own nor Landlock: what a function reads is not tested")
	}
	for _, fn := range []string{"hostile", "started", "many", "network"} {
		if files {
			isolationFiles(t, s, pid, fn)
		}
		isolationSockets(t, s, fn, active, details)
		isolationEnviron(t, s, fn)
		if active["seccomp"] {
			for _, l := range lines(t, s, fn, "calls", "") {
				if !strings.HasSuffix(l, ": EPERM") && !strings.HasSuffix(l, ": ENOSYS") {
					t.Errorf("%s: %s", fn, l)
				}
			}
		}
		if active["seccomp"] || active["own processes"] || strings.Contains(details["landlock"], "signals") {
			for _, victim := range []int{s.Pid, pid, os.Getpid()} {
				if l := lines(t, s, fn, fmt.Sprintf("kill=%d", victim), ""); l[0] != "EPERM" && l[0] != "ESRCH" {
					t.Errorf("%s: kill: %s", fn, l)
				}
			}
		}
	}
	if files {
		secrets := append(secretsOf(t, s, pid, "other"), s.Data, filepath.Join(s.Data, "functions"))
		if r := ask(t, s, "script", "", strings.Join(secrets, "\n")+"\n"); r.Status != 200 || len(r.Body) != 0 {
			t.Errorf("script: status %d, %.500q", r.Status, r.Body)
		}
	}
	for _, how := range []string{"none", "setsid", "setpgid"} {
		stray := fmt.Sprintf("away%08x", rand.Uint32())
		if l := lines(t, s, "many", "stay="+how+"="+stray, ""); l[0] != "started" {
			t.Errorf("stay %s: %s", how, l)
		}
		noneNamed(t, stray)
	}
	well(t, s, pid)
}

// secretsOf lists files that no function may read.
func secretsOf(t testing.TB, s *testenv.Server, worker int, other string) []string {
	t.Helper()
	secrets := []string{
		filepath.Join(s.Data, "admin.token"), filepath.Join(s.Data, "faas_meta.db"), filepath.Join(s.Data, "faas_meta.db-wal"),
		filepath.Join(s.Data, "run", "admin.sock"), "/etc/shadow", "/root/.profile", "/root/.bashrc", "/proc/1/environ",
	}
	for _, pid := range []int{s.Pid, worker, os.Getpid()} {
		for _, file := range []string{"environ", "mem", "maps", "cmdline", "root/etc/passwd"} {
			secrets = append(secrets, fmt.Sprintf("/proc/%d/%s", pid, file))
		}
	}
	value, found, err := open(t, s).Get(t.Context(), "ANY:/n/"+other)
	var d struct{ Module string }
	if err == nil {
		err = json.Unmarshal([]byte(value), &d)
	}
	if err != nil || !found || d.Module == "" {
		t.Fatalf("the row of %s: %q, %v", other, value, err)
	}
	secrets = append(secrets, filepath.Join(s.Data, d.Module))
	return secrets
}

func isolationFiles(t *testing.T, s *testenv.Server, worker int, fn string) {
	t.Helper()
	secrets := secretsOf(t, s, worker, "other")
	got := lines(t, s, fn, "files", "/etc/passwd\n"+strings.Join(secrets, "\n"))
	if len(got) != len(secrets)+1 || got[0] != "/etc/passwd: open, reads 1" {
		t.Fatalf("%s: %q", fn, got)
	}
	for _, l := range got[1:] {
		if strings.Contains(l, ": open") {
			t.Errorf("%s: %s", fn, l)
		}
	}
	fixed := append([]string{s.Data, filepath.Join(s.Data, "functions"), filepath.Join(s.Data, "run"), filepath.Join(s.Data, "logs"),
		"/etc", "/usr", "/usr/bin", "/var/tmp", "/dev/shm", "/"}, secrets...)
	got = lines(t, s, fn, "changes", strings.Join(fixed, "\n")+"\n.")
	if len(got) != len(fixed)+1 || got[len(fixed)] != ".: changed" {
		t.Fatalf("%s: %q", fn, got)
	}
	for _, l := range got[:len(fixed)] {
		if strings.HasSuffix(l, ": changed") {
			t.Errorf("%s: %s", fn, l)
		}
	}
}

func isolationSockets(t *testing.T, s *testenv.Server, fn string, active map[string]bool, details map[string]string) {
	t.Helper()
	for _, l := range lines(t, s, fn, "unix", filepath.Join(s.Data, "run", "admin.sock")) {
		// Where nothing keeps it from connecting the server does not serve it.
		refused := strings.HasPrefix(l, "socket: E") || strings.HasPrefix(l, "connect: E") ||
			slices.Contains([]string{"answer: none", "answer: HTTP/1.1 401", "answer: HTTP/1.1 403"}, l)
		if !refused {
			t.Errorf("%s: admin socket: %s", fn, l)
		}
	}
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	l := lines(t, s, fn, "tcp", port)[0]
	if fn == "network" {
		if l != "connected" {
			t.Errorf("%s: TCP: %s", fn, l)
		}
	} else if active["seccomp"] || active["own network"] || strings.Contains(details["landlock"], "TCP") {
		if l == "connected" {
			t.Errorf("%s: TCP: %s", fn, l)
		}
	}
}

func isolationEnviron(t *testing.T, s *testenv.Server, fn string) {
	t.Helper()
	got := lines(t, s, fn, "environ", "")
	allowed := []string{"PATH", "TMPDIR", "OWN", "_HANDLER", "GATEWAY_INTERFACE", "SERVER_SOFTWARE", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL",
		"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_USER", "AUTH_TYPE",
		"CONTENT_TYPE", "CONTENT_LENGTH"}
	for _, v := range got {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains(allowed, name) && !strings.HasPrefix(name, "HTTP_") && !strings.HasPrefix(name, "X_") {
			t.Errorf("%s: environment: %q", fn, v)
		}
	}
	if own := slices.Contains(got, "OWN=own"); own != (fn == "hostile") || !slices.Contains(got, "QUERY_STRING=environ") {
		t.Errorf("%s: environment: %q", fn, got)
	}
}
