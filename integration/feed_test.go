package integration

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
)

// sql runs statements in the sqlite3 shell: another process, another writer.
func sql(t testing.TB, s *testenv.Server, statements string) string {
	t.Helper()
	cmd := exec.Command("sqlite3", "-cmd", ".timeout 5000", filepath.Join(s.Data, "faas_meta.db"))
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v: %s", err, out)
	}
	return string(out)
}

const infoRow = `{"name":"x","runtime":"wasm","module":"%MODULE%","handler":"info"}`

// demoModule is the artifact of the bundled functions, which is prepared.
func demoModule(t testing.TB, s *testenv.Server) string {
	t.Helper()
	return strings.TrimSpace(sql(t, s, "SELECT json_extract(v,'$.module') FROM functions WHERE k='GET:/ping';"))
}

func TestChangesByAnotherProcess(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	s := testenv.Start(t, testenv.Options{Workers: 2})
	info := strings.ReplaceAll(infoRow, "%MODULE%", demoModule(t, s))
	ping := strings.ReplaceAll(info, `"info"`, `"ping"`)

	// held is a connection that stays with its worker: it sees what workers see.
	held := testenv.Dial(t, s.Addr)
	held.Send(t, get("/ping"))
	want(t, held.Response(t), 200, "pong")
	both := func(path, part string, status int) {
		t.Helper()
		testenv.Until(t, path+" answers "+part, func() bool {
			r, err := testenv.Get(s.Addr, path)
			return err == nil && r.Status == status && strings.Contains(string(r.Body), part)
		})
		// What the gateway publishes every worker has published before.
		held.Send(t, get(path))
		want(t, held.Response(t), status, part)
	}
	sql(t, s, "INSERT INTO functions(k,v,updated) VALUES('GET:/x','"+info+"',strftime('%s','now'));")
	both("/x", `"service"`, 200)
	// The same second, and updated is not touched.
	sql(t, s, "UPDATE functions SET v='"+ping+"' WHERE k='GET:/x';")
	both("/x", "pong", 200)
	sql(t, s, "UPDATE functions SET k='GET:/y' WHERE k='GET:/x';")
	both("/y", "pong", 200)
	both("/x", "route_not_found", 404)
	sql(t, s, "INSERT OR REPLACE INTO functions(k,v,updated) VALUES('GET:/y','"+info+"',0);")
	both("/y", `"service"`, 200)
	sql(t, s, "DELETE FROM functions WHERE k='GET:/y';")
	both("/y", "route_not_found", 404)
}

func TestBadRowLeavesTheOldServing(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	sql(t, s, `UPDATE functions SET v='{"name":"ping","runtime":"wasm","module":"../../etc/passwd","handlr":"ping"}' WHERE k='GET:/ping';`)
	testenv.Until(t, "status reports the bad row", func() bool {
		out, _ := s.Baton(t, "status")
		return strings.Contains(out, "GET:/ping") && strings.Contains(out, "handlr")
	})
	r, err := testenv.Get(s.Addr, "/ping")
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, 200, "pong")
	testenv.Until(t, "the log reports it", func() bool {
		return strings.Contains(s.Log(), "its previous version serves") && strings.Contains(s.Log(), "handlr")
	})
	api, err := testenv.Do(s.Addr, "GET /system/functions HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer "+s.Token(t)+"\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	want(t, api, 200, `"state":"stale"`)
	want(t, api, 200, "handlr")
}

func TestSchemaChangeReloads(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	s := testenv.Start(t, testenv.Options{Workers: 1})
	ping := strings.ReplaceAll(strings.ReplaceAll(infoRow, "%MODULE%", demoModule(t, s)), `"info"`, `"ping"`)
	triggers := strings.Fields(sql(t, s, "SELECT name FROM sqlite_master WHERE type='trigger';"))
	if len(triggers) == 0 {
		t.Fatal("no trigger")
	}
	for _, name := range triggers {
		sql(t, s, "DROP TRIGGER "+name+";")
	}
	sql(t, s, "INSERT INTO functions(k,v,updated) VALUES('GET:/after','"+ping+"',0);")
	awaitRoute(t, s.Addr, "/after", true)
	testenv.Until(t, "the triggers are back", func() bool {
		return len(strings.Fields(sql(t, s, "SELECT name FROM sqlite_master WHERE type='trigger';"))) == len(triggers)
	})
	sql(t, s, "INSERT INTO functions(k,v,updated) VALUES('GET:/again','"+ping+"',0);")
	awaitRoute(t, s.Addr, "/again", true)
}

// How long a change takes to be live is told, not judged: a slow machine must
// not fail a test. That each one comes is judged.
func TestChangeLatency(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sqlite3")
	s := testenv.Start(t, testenv.Options{Workers: 2})
	row := strings.ReplaceAll(infoRow, "%MODULE%", demoModule(t, s))
	db := open(t, s)
	c := testenv.Dial(t, s.Addr)
	times := make([]time.Duration, 30)
	for i := range times {
		// By this process, which is not the server's.
		handler := []string{"ping", "info"}[i%2]
		begin := time.Now()
		if err := db.Put(t.Context(), "GET:/late", strings.ReplaceAll(row, `"info"`, `"`+handler+`"`)); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "the change is live", func() bool {
			c.Send(t, get("/late"))
			r := c.Response(t)
			return r.Status == 200 && strings.Contains(string(r.Body), map[string]string{"ping": "pong", "info": "service"}[handler])
		})
		times[i] = time.Since(begin)
	}
	slices.Sort(times)
	t.Logf("live after %v (median of %d; %v to %v)", times[len(times)/2], len(times), times[0], times[len(times)-1])
}

func TestCommands(t *testing.T) {
	t.Parallel()
	s := testenv.Start(t, testenv.Options{Workers: 2})
	out, code := s.Baton(t, "ls")
	if code != 0 || !strings.Contains(out, "/api/hello") {
		t.Errorf("baton ls: exit %d: %s", code, out)
	}
	out, code = s.Baton(t, "status")
	if code != 0 || !strings.Contains(out, "ready") && !strings.Contains(out, "idle") {
		t.Errorf("baton status: exit %d: %s", code, out)
	}
	out, code = s.Baton(t, "stop")
	if code != 0 {
		t.Errorf("baton stop: exit %d: %s", code, out)
	}
	if code := s.Wait(t); code != 0 {
		t.Errorf("the gateway's exit code after baton stop: %d", code)
	}
	if out, code = s.Baton(t, "status"); code == 0 {
		t.Errorf("baton status of a stopped server exits with 0: %s", out)
	}
}
