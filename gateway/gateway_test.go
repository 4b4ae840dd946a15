package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"baton/control"
	"baton/internal/sys"
	"baton/internal/testenv"
	"baton/route/sqlite"
)

// serving is one Run, in this process, over fake workers.
type serving struct {
	t     *testing.T
	data  string
	addr  string
	token string
	db    *sqlite.DB
	log   *lockedBuffer
	stop  context.CancelFunc
	abort chan struct{}
	done  chan struct{}
	err   error // how Run ended; after done
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type preparerFunc func(context.Context, Artifact) error

func (f preparerFunc) Prepare(ctx context.Context, a Artifact) error { return f(ctx, a) }

// madeData is a data directory with a database and one artifact, import/m.wasm.
func madeData(t *testing.T) (string, *sqlite.DB) {
	t.Helper()
	data := newData(t)
	if err := os.Mkdir(filepath.Join(data, "import"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "import", "m.wasm"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(filepath.Join(data, databaseName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return data, db
}

func config(data string, workerArgs ...string) Config {
	return Config{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Data: data, Workers: 2, Loops: 1, ConnsMax: 100, Version: "test", Drain: time.Minute,
		Worker:   append([]string{"/proc/self/exe", fakeWorkerName}, workerArgs...),
		Preparer: preparerFunc(func(context.Context, Artifact) error { return nil }),
	}
}

var servesLine = regexp.MustCompile(`serves http://(\S+)`)

func serve(t *testing.T, workerArgs ...string) *serving {
	t.Helper()
	data, db := madeData(t)
	s := &serving{t: t, data: data, db: db, log: &lockedBuffer{}, abort: make(chan struct{}), done: make(chan struct{})}
	s.token = strings.Repeat("t", 64)
	s.put("GET:/x", row1("x", "import/m.wasm"))
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	out := &lockedBuffer{}
	cfg := config(data, workerArgs...)
	cfg.Stdout, cfg.Logger, cfg.Abort = out, slog.New(slog.NewTextHandler(s.log, nil)), s.abort
	go func() {
		s.err = Run(ctx, cfg)
		close(s.done)
	}()
	t.Cleanup(func() {
		stop()
		<-s.done
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	testenv.Until(t, "the opening message is printed", func() bool {
		m := servesLine.FindStringSubmatch(out.String())
		if m == nil {
			select {
			case <-s.done:
				t.Fatalf("Run ended: %v", s.err)
			default:
			}
			return false
		}
		s.addr = m[1]
		return true
	})
	return s
}

func (s *serving) put(key, value string) {
	s.t.Helper()
	if err := s.db.Put(context.Background(), key, value); err != nil {
		s.t.Fatal(err)
	}
}

func (s *serving) get(path string) (int, string) {
	s.t.Helper()
	r, err := testenv.Do(s.addr, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", path, s.token))
	if err != nil {
		s.t.Fatalf("GET %s: %v", path, err)
	}
	return r.Status, string(r.Body)
}

func (s *serving) ended() {
	s.t.Helper()
	testenv.Until(s.t, "Run has ended", func() bool {
		select {
		case <-s.done:
			return true
		default:
			return false
		}
	})
}

// processors is how many Go has before any gateway runs.
var processors = goruntime.GOMAXPROCS(0)

func TestRun(t *testing.T) {
	t.Parallel()
	s := serve(t)
	if n := goruntime.GOMAXPROCS(0); n < processors+2 {
		t.Errorf("%d of Go's processors with two loops, %d without: a loop that wakes may find none", n, processors)
	}
	for path, want := range map[string]string{
		"/healthz": "ok", "/readyz": "ready", "/system/functions": `"GET:/x"`, "/system/status": `"routes":1`,
	} {
		if status, body := s.get(path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}

	t.Run("a row is live, a bad one reported", func(t *testing.T) {
		s.put("GET:/y", row1("why", "import/m.wasm"))
		s.put("GET:/z", `{"name":"z"}`)
		testenv.Until(t, "both are seen", func() bool {
			_, body := s.get("/system/functions")
			return strings.Contains(body, `"name":"why"`) && strings.Contains(body, `"state":"bad"`)
		})
	})
	t.Run("a second one is refused by name", func(t *testing.T) {
		err := Run(context.Background(), config(s.data))
		var held *HeldError
		if !errors.As(err, &held) || held.By.PID != os.Getpid() {
			t.Errorf("got %v", err)
		}
		if status, _ := s.get("/readyz"); status != 200 {
			t.Errorf("the first one answers %d now", status)
		}
	})
	t.Run("a killed worker is replaced and counted", func(t *testing.T) {
		_, body := s.get("/system/status")
		pid, err := strconv.Atoi(regexp.MustCompile(`"pid":(\d+),"state":"ready"`).FindStringSubmatch(body)[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		testenv.Until(t, "it is counted", func() bool {
			_, body := s.get("/system/status")
			return strings.Contains(body, `"restarts":1`) && strings.Count(body, `"state":"ready"`) == 2
		})
	})

	s.stop()
	s.ended()
	if s.err != nil {
		t.Errorf("Run: %v", s.err)
	}
	if _, err := os.Stat(filepath.Join(s.data, runName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run directory is there still: %v", err)
	}
	if c, err := net.Dial("tcp", s.addr); err == nil {
		_ = c.Close()
		t.Error("the port is open still")
	}
	d, err := openDataDir(s.data)
	if err != nil {
		t.Fatalf("the data directory is not free: %v", err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

func TestRunEndsWhenTheControlPlaneSaysSo(t *testing.T) {
	t.Parallel()
	s := serve(t)
	if err := control.NewClient(s.data).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.ended()
	if s.err != nil {
		t.Errorf("Run: %v", s.err)
	}
}

// A request that was donated and is not answered holds a drain up to its limit,
// or to the second signal.
func TestRunIsAborted(t *testing.T) {
	t.Parallel()
	s := serve(t, "stubborn") // the fake worker adopts nothing
	c := testenv.Dial(t, s.addr)
	c.Send(t, "GET /x HTTP/1.1\r\nHost: t\r\n\r\n")
	testenv.Until(t, "it is on its way", func() bool {
		_, body := s.get("/system/status")
		return strings.Contains(body, `"pending":1`)
	})
	s.stop()
	testenv.Until(t, "it drains", func() bool { return strings.Contains(s.log.String(), "draining") })
	select {
	case <-s.done:
		t.Fatal("it has ended with a request open")
	default:
	}
	close(s.abort)
	s.ended()
	if s.err != nil {
		t.Errorf("Run: %v", s.err)
	}
	// It was never adopted, so the gateway has all of it and answers.
	if r := c.Response(t); r.Status != 503 {
		t.Errorf("the request was answered %d", r.Status)
	}
	c.WantEnd(t)
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	shared, err := sys.ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"), sys.ListenOptions{ReusePort: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.CloseRaw(shared) })
	sharedAddr, err := sys.LocalAddr(shared)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*Config) error
		want  string
	}{
		"a port that is taken":                   {func(c *Config) error { c.Listen = netip.MustParseAddrPort(taken.Addr().String()); return nil }, "address already in use"},
		"a port that another server would share": {func(c *Config) error { c.Listen = sharedAddr; return nil }, "address already in use"},
		"no token":                               {func(c *Config) error { return os.Remove(filepath.Join(c.Data, tokenName)) }, "token"},
		"no data":                                {func(c *Config) error { c.Data += "x"; return nil }, "baton init"},
		"too many loops":                         {func(c *Config) error { c.Loops = 1000; return nil }, "at most 250"},
		"too many workers":                       {func(c *Config) error { c.Workers = WorkersMax + 1; return nil }, "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, _ := madeData(t)
			cfg := config(data)
			if err := c.spoil(&cfg); err != nil {
				t.Fatal(err)
			}
			err := Run(context.Background(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(cfg.Data, runName)); err == nil {
				t.Error("a run directory is left")
			}
		})
	}
}

func TestRunThatIsStoppedBeforeItServes(t *testing.T) {
	t.Parallel()
	data, db := madeData(t)
	if err := db.Put(t.Context(), "GET:/x", row1("x", "import/m.wasm")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cfg := config(data)
	cfg.Preparer = preparerFunc(func(ctx context.Context, _ Artifact) error {
		stop() // while the first artifact is prepared
		<-ctx.Done()
		return ctx.Err()
	})
	if err := Run(ctx, cfg); err != nil {
		t.Errorf("Run: %v", err)
	}
	t.Run("or while no worker gets ready", func(t *testing.T) {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		log := &lockedBuffer{}
		cfg := config(data, "silent")
		cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		done := make(chan error)
		go func() { done <- Run(ctx, cfg) }()
		testenv.Until(t, "workers run", func() bool { return strings.Count(log.String(), "worker started") == 2 })
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// A database that cannot be read at the start: the server says that it has no
// table, wherever it is asked, until it can be.
func TestRunWithABrokenDatabase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		damage func(path string) error
	}{
		{"missing", os.Remove},
		{"damaged", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("no database"), 1000), 0o600) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			data, db := madeData(t)
			if err := db.Put(t.Context(), "GET:/x", row1("x", "import/m.wasm")); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(data, databaseName)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(path); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			out, log := &lockedBuffer{}, &lockedBuffer{}
			cfg := config(data)
			cfg.Stdout, cfg.Logger = out, slog.New(slog.NewTextHandler(log, nil))
			done := make(chan error)
			go func() { done <- Run(ctx, cfg) }()
			testenv.Until(t, "the port is open all the same", func() bool { return servesLine.MatchString(out.String()) })
			s := &serving{t: t, addr: servesLine.FindStringSubmatch(out.String())[1], token: strings.Repeat("t", 64)}
			if _, body := s.get("/system/status"); !strings.Contains(body, `"database":"`) || !strings.Contains(body, `"ready":false,"loaded":false`) {
				t.Errorf("the status says nothing of the database: %s", body)
			}
			for path, reason := range map[string]string{"/readyz": "no_table", "/x": "starting"} {
				if code, body := s.get(path); code != 503 || !strings.Contains(body, reason) {
					t.Errorf("%s: %d %s, want 503 with %s", path, code, body, reason)
				}
			}
			if !strings.Contains(log.String(), "there is no table yet") {
				t.Errorf("the log does not say that there is no table:\n%s", log)
			}
			if err := os.WriteFile(path+".good", good, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".good", path); err != nil {
				t.Fatal(err)
			}
			testenv.Until(t, "the server is ready", func() bool { code, _ := s.get("/readyz"); return code == 200 })
			if _, body := s.get("/system/status"); !strings.Contains(body, `"ready":true,"loaded":true`) || !strings.Contains(body, `"routes":1`) {
				t.Errorf("the status afterwards: %s", body)
			}
			stop()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func TestShownAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"0.0.0.0:80": "localhost:80", "[::]:80": "localhost:80", "127.0.0.1:8080": "127.0.0.1:8080",
		"[::ffff:10.0.0.1]:1": "10.0.0.1:1", "[::1]:8080": "[::1]:8080",
	} {
		if got := shown(netip.MustParseAddrPort(in)); got != want {
			t.Errorf("%s is shown as %s, want %s", in, got, want)
		}
	}
}
