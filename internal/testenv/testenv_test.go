package testenv

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// These tests look at the whole process, so they are not parallel.

func TestInventoryNamesWhatIsLeft(t *testing.T) {
	before := takeInventory()
	if left := takeInventory().beyond(before); len(left) > 0 {
		t.Fatalf("nothing happened, and left is %q", left)
	}

	file, err := os.Open("testenv.go")
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { <-stop; close(stopped) }()
	child := exec.Command("cat")
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}

	Until(t, "all that is left is named", func() bool {
		left := strings.Join(takeInventory().beyond(before), "\n")
		return strings.Contains(left, "testenv.go") && strings.Contains(left, "pipe:[") &&
			strings.Contains(left, "TestInventoryNamesWhatIsLeft") && strings.Contains(left, " cat")
	})

	file.Close()
	close(stop)
	<-stopped
	input.Close()
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	Until(t, "nothing is left", func() bool { return len(takeInventory().beyond(before)) == 0 })
}

func TestPollAsksOnceMoreAtTheEnd(t *testing.T) {
	asked := 0
	if poll(0, func() bool { asked++; return asked == 2 }); asked < 2 {
		t.Errorf("asked %d times, want 2", asked)
	}
	if poll(time.Millisecond, func() bool { return false }) {
		t.Error("a condition that never holds was reported to hold")
	}
}

// serve answers each connection with the given bytes, then closes it.
func serve(t *testing.T, answer string) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 1024)
			_, _ = c.Read(buf)
			_, _ = io.WriteString(c, answer)
			c.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().String()
}

func TestConnReadsOneResponseAtATime(t *testing.T) {
	addr := serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"+
		"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"+
		"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	c := Dial(t, addr)
	c.Send(t, "GET / HTTP/1.1\r\n\r\n")
	for _, want := range []struct {
		status int
		body   string
		close  bool
	}{{200, "one", false}, {404, "two", false}, {204, "", true}} {
		got := c.Response(t)
		if got.Status != want.status || string(got.Body) != want.body || got.Close != want.close {
			t.Errorf("got %d %q close %v, want %v", got.Status, got.Body, got.Close, want)
		}
	}
	c.WantEnd(t)
}

func TestGet(t *testing.T) {
	response, err := Get(serve(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "/")
	if err != nil || response.Status != 200 || string(response.Body) != "ok" {
		t.Errorf("got %v, %v", response, err)
	}
}

func TestFreeAddrIsBelowOutgoingPorts(t *testing.T) {
	addr := FreeAddr(t)
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if port := listener.Addr().(*net.TCPAddr).Port; port < 20_000 || port >= 30_000 {
		t.Errorf("port %d", port)
	}
}

func TestNeedSkipsByName(t *testing.T) {
	var recorder recorderTB
	func() {
		defer func() { _ = recover() }()
		Need(&recorder, "sh", "no-such-command-here")
	}()
	if want := "needs no-such-command-here (apt-get install no-such-command-here)"; recorder.skipped != want {
		t.Errorf("skipped with %q, want %q", recorder.skipped, want)
	}
}

// recorderTB records a skip; every other method panics.
type recorderTB struct {
	testing.TB
	skipped string
}

func (r *recorderTB) Helper() {}

func (r *recorderTB) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	panic("skipped")
}
