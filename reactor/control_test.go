package reactor

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
)

// What the control plane reads is its one request and nothing behind it, and
// what breaks the framing or is too large ends as an error, before it is read.
func TestControlRequestIsFramed(t *testing.T) {
	t.Parallel()
	head := func(field string) string { return "POST /system/x HTTP/1.1\r\nHost: t\r\n" + field + "\r\n\r\n" }
	length, coded := head("Content-Length: 3"), head("Transfer-Encoding: chunked")
	for _, test := range []struct {
		name, request string
		sees          string // of it
		fails         bool
	}{
		{"no body", get("/system/x"), get("/system/x"), false},
		{"a length", length + "abc", length + "abc", false},
		{"chunked", coded + "3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n", coded + "3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n", false},
		{"a chunk above the limit", coded + "10000001\r\n", "", true},
		{"chunks above the limit", coded + "3\r\nabc\r\nfffffff\r\n", "", true},
		{"a bad chunk", coded + "3\r\nabc\r\nx\r\n", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t, 1, 1)
			for _, cut := range []int{len(test.request), len(test.request) - 1, strings.Index(test.request, "\r\n\r\n") + 4} {
				onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
					c.Send(t, test.request[:cut])
					if cut < len(test.request) {
						p.settle()
					}
					if _, err := io.WriteString(c.Conn, test.request[cut:]+get("/behind")); err != nil && !test.fails {
						t.Fatal(err)
					}
					saw := <-p.controls
					if test.fails {
						if !strings.HasSuffix(saw, " "+errControlBody.Error()) {
							t.Errorf("cut at %d: the control plane saw %q", cut, saw)
						}
						return
					}
					if saw != test.sees+" <nil>" {
						t.Errorf("cut at %d: the control plane saw %q", cut, saw)
					}
					want(t, c.Response(t), 200, "control")
					c.WantEnd(t)
				})
			}
		})
	}
}

// A control request's client that has ended its sending side gets its answer;
// one that is gone is noticed.
func TestControlHalfCloseAndHangup(t *testing.T) {
	t.Parallel()
	started, release, gone := make(chan struct{}), make(chan struct{}), make(chan bool, 1)
	p := newPairWith(t, pairOptions{timeouts: Timeouts{Probe: 10 * time.Millisecond}, control: func(c *ControlConn) {
		_, _ = io.ReadAll(c)
		started <- struct{}{}
		select {
		case <-c.Hangup():
			gone <- true
			return
		case <-release:
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncon")
		select {
		case <-c.Hangup():
			gone <- true
			return
		case <-release:
		}
		_, _ = io.WriteString(c, "trol")
		gone <- false
	}})
	for _, test := range []struct {
		name, request string
		interim       bool
	}{
		{"1.1", get("/system/x"), true},
		{"a body", "POST /system/x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc", true},
		{"RFC 9110 15.2: no interim response in 1.0", "GET /system/x HTTP/1.0\r\n\r\n", false},
	} {
		t.Run("half-close, "+test.name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, test.request)
				closeWrite(t, c)
				<-started
				if test.interim {
					for range 2 {
						if r := c.Response(t); r.Status != 100 {
							t.Fatal(r.Status)
						}
					}
				} else {
					c.WantSilence(t, 100*time.Millisecond)
				}
				release <- struct{}{}
				release <- struct{}{} // not before there were some more questions, perhaps
				r := c.Response(t)
				for r.Status == 100 {
					r = c.Response(t)
				}
				want(t, r, 200, "control")
				c.WantEnd(t)
				if <-gone {
					t.Error("taken for one that left")
				}
			})
		})
	}
	for name, leave := range map[string]func(c *net.TCPConn){
		"close": func(c *net.TCPConn) { _ = c.Close() },
		"reset": func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, get("/system/x"))
				<-started
				leave(c.Conn.(*net.TCPConn))
				if !<-gone {
					t.Error("not noticed")
				}
			})
			t.Run("in the middle of the answer", func(t *testing.T) {
				onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
					c.Send(t, get("/system/x"))
					<-started
					release <- struct{}{}
					if _, err := io.ReadFull(c.Conn, make([]byte, 10)); err != nil {
						t.Fatal(err)
					}
					leave(c.Conn.(*net.TCPConn)) // unread bytes: a reset
					if !<-gone {
						t.Error("not noticed")
					}
				})
			})
		})
	}
}

// One control request too many is answered the same, whoever has parsed it.
func TestTooManyControlRequests(t *testing.T) {
	t.Parallel()
	started, release := make(chan struct{}, controlMax), make(chan struct{})
	p := newPairWith(t, pairOptions{conns: 2 * controlMax, control: func(*ControlConn) {
		started <- struct{}{}
		<-release
	}})
	defer close(release)
	for range controlMax {
		testenv.Dial(t, p.addr()).Send(t, get("/system/x"))
	}
	for range controlMax {
		<-started
	}
	first := ""
	onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
		got := wantRefusal(t, c, get("/system/x"), 503, "capacity_exceeded")
		if !strings.Contains(got, "\r\nRetry-After: 1\r\n") {
			t.Errorf("503 without Retry-After: %q", got)
		}
		if first == "" {
			first = got
		} else if got != first {
			t.Errorf("the worker:\n%q\nthe gateway:\n%q", got, first)
		}
	})
	if n := p.count("too_busy"); n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
}

// A control request's answer reaches a client that is still sending, whatever is
// read of its request.
func TestControlAnswerIsNotReset(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for name, read := range map[string]func(c *ControlConn){
		"read whole": func(c *ControlConn) { _, _ = io.ReadAll(c) },
		"watched":    func(c *ControlConn) { _, _ = io.ReadAll(c); c.Hangup() },
		"unread":     func(*ControlConn) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPairWith(t, pairOptions{control: func(c *ControlConn) {
				read(c)
				_, _ = io.WriteString(c, answer)
			}})
			onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
				c.Send(t, get("/system/x")+strings.Repeat("still sending\r\n", 1_000_000))
				if all, err := io.ReadAll(c.Conn); err != nil || string(all) != answer {
					t.Errorf("%q, %v", all, err)
				}
			})
		})
	}
}
