package reactor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
	"baton/runtime"
)

// writes is an executor that writes each piece, and then ends with result.
func writes(inline bool, result runtime.Result, pieces ...string) *fake {
	return &fake{inline: inline, run: func(inv *runtime.Invocation) runtime.Result {
		for _, s := range pieces {
			if _, err := inv.Stdout.Write([]byte(s)); err != nil {
				return runtime.Result{Reason: runtime.Cancelled}
			}
		}
		return result
	}}
}

func repeat(s string, n int) (pieces []string) {
	for range n {
		pieces = append(pieces, s)
	}
	return pieces
}

func chunks(path, body string, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n", path)
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.String()
}

// A large body reaches its function whole, however it is framed, and the next
// request behind it is untouched.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	p := newPairWith(t, pairOptions{maxBody: 64 << 20})
	for _, size := range []int{bodyBufferMax, bodyBufferMax + 1, 100_000, 1_000_000, 5_000_000} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		body = "[" + body[2:] + "]"
		for name, request := range map[string]string{
			"a length":     post("/beside", body),
			"small chunks": chunks("/beside", body, 1000),
			"large chunks": chunks("/beside", body, 300_000),
		} {
			t.Run(fmt.Sprint(size, " ", name), func(t *testing.T) {
				onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
					sent := make(chan error, 1)
					go func() {
						_, err := io.WriteString(c.Conn, request+post("/sink", "[1]")+strings.Replace(request, "/beside", "/sink", 1)+get("/nowhere"))
						sent <- err
					}()
					if r := c.Response(t); string(r.Body) != body {
						t.Fatalf("status %d, %d of %d bytes came back", r.Status, len(r.Body), size)
					}
					want(t, c.Response(t), 200, "[3]")
					want(t, c.Response(t), 200, fmt.Sprintf("[%d]", size))
					want(t, c.Response(t), 404, "route_not_found")
					if err := <-sent; err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

// A function that does not read stops its client, and the memory that its
// body takes is bounded whatever the body's size.
func TestLargeBodyInConstantMemory(t *testing.T) {
	const size = 96 << 20
	g := newGate()
	p := newPairWith(t, pairOptions{maxBody: 1 << 30, fakes: map[string]*fake{"gate": {run: func(inv *runtime.Invocation) runtime.Result {
		g.started <- struct{}{}
		<-g.open
		return sink(inv)
	}}}})
	for _, head := range []string{fmt.Sprintf("Content-Length: %d", size), "Transfer-Encoding: chunked"} {
		c := p.connect(t, true)
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		c.Send(t, "POST /gate HTTP/1.1\r\nHost: t\r\n"+head+"\r\n\r\n")
		block := bytes.Repeat([]byte("x"), 1<<20)
		if strings.HasPrefix(head, "T") {
			block = append([]byte("100000\r\n"), append(block, "\r\n"...)...)
		}
		taken := make(chan int, 1)
		go func() {
			for n := range size >> 20 {
				if n == 64 {
					taken <- n
				}
				if _, err := c.Write(block); err != nil {
					t.Error(err)
					return
				}
			}
			if strings.HasPrefix(head, "T") {
				_, _ = io.WriteString(c.Conn, "0\r\n\r\n")
			}
		}()
		<-g.started
		select {
		case n := <-taken:
			t.Errorf("%d MiB were taken for a function that reads nothing", n)
		case <-time.After(300 * time.Millisecond):
		}
		g.open <- struct{}{}
		want(t, c.Response(t), 200, fmt.Sprintf("[%d]", size))
		<-taken
		goruntime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
			t.Errorf("%d bytes were allocated for a body of %d", n, size)
		}
	}
}

func TestLargeBodyEndings(t *testing.T) {
	t.Parallel()
	g := newGate()
	options := pairOptions{
		maxBody: 1 << 30,
		fakes: map[string]*fake{
			"deaf": text(`{"deaf":1}`),
			"wait": {run: func(inv *runtime.Invocation) runtime.Result {
				g.started <- struct{}{}
				_, err := io.Copy(io.Discard, inv.More)
				if err == nil || !inv.Cancel.Load() {
					return runtime.Result{Reason: runtime.Internal}
				}
				g.cancelled <- struct{}{}
				return runtime.Result{Reason: runtime.Cancelled}
			}},
		},
	}
	p := newPairWith(t, options)
	// Only where it is meant to end: a busy machine may pause for longer.
	options.timeouts = Timeouts{Body: 300 * time.Millisecond}
	impatient := newPairWith(t, options)
	begin := func(length string) string {
		return "POST /wait HTTP/1.1\r\nHost: t\r\n" + length + "\r\n\r\n"
	}
	data := strings.Repeat("x", 100_000)
	t.Run("the client stops sending: 408", func(t *testing.T) {
		onBoth(t, impatient, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, begin("Content-Length: 1000000")+data)
			<-g.started
			want(t, c.Response(t), 408, "body_timeout")
			<-g.cancelled
			c.WantEnd(t)
		})
	})
	t.Run("the client leaves: cancelled", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			before := p.backs[0].back.counters.Hangups.Load()
			c.Send(t, begin("Content-Length: 1000000")+data)
			<-g.started
			c.Close()
			<-g.cancelled
			if n := p.backs[0].back.counters.Hangups.Load(); n != before+1 {
				t.Errorf("%d hang-ups", n-before)
			}
		})
	})
	t.Run("a chunk breaks a rule: 400", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, begin("Transfer-Encoding: chunked")+"186a0\r\n"+data+"\r\nx\r\n")
			<-g.started
			want(t, c.Response(t), 400, "bad_chunk_size")
			<-g.cancelled
			c.WantEnd(t)
		})
	})
	t.Run("the function reads nothing, the rest is short: the connection stays", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, "POST /deaf HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n"+data[:60_000])
			want(t, c.Response(t), 200, "deaf")
			c.Send(t, data[60_000:]+post("/echo", "[1]"))
			want(t, c.Response(t), 200, "[1]")
		})
	})
	t.Run("the function reads nothing, the rest is long: it ends, and the answer arrives", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, "POST /deaf HTTP/1.1\r\nHost: t\r\nContent-Length: 100000000\r\n\r\n"+data)
			r := c.Response(t)
			want(t, r, 200, "deaf")
			if !r.Close {
				t.Error("the rest of the body would be taken for a request")
			}
			c.Send(t, data)
			c.WantEnd(t)
		})
	})
	t.Run("100 is sent", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, "POST /sink HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n")
			if r := c.Response(t); r.Status != 100 {
				t.Fatal(r.Status)
			}
			c.Send(t, data)
			want(t, c.Response(t), 200, "[100000]")
		})
	})
}

// A large answer streams, whatever ran it and however it is framed.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	json1 := append([]string{`{"a":"`}, append(repeat(strings.Repeat("j", 100_000), 20), `"}`)...)
	plain := append([]string{"x"}, repeat("äöü漢😀\"\n", 100_000)...)
	cgi := append([]string{"Status: 203\r\nContent-Type: text/x\r\nX-A: b\r\n\r\n"}, repeat(strings.Repeat("c", 100_000), 20)...)
	cgiOne := []string{"Status: 203\r\nContent-", "Type: text/x\r\nX-A: b\r\n\r\n" + strings.Repeat("d", 2_000_000)}
	one := []string{"[" + strings.Repeat("1,", 1_000_000) + "1]"}
	ok := runtime.Result{}
	p := newPairWith(t, pairOptions{fakes: map[string]*fake{
		"json": writes(false, ok, json1...), "json-inline": writes(true, ok, json1...),
		"plain": writes(false, ok, plain...), "plain-inline": writes(true, ok, plain...),
		"cgi": writes(false, ok, cgi...), "cgi-inline": writes(true, ok, cgi...),
		"cgi-one": writes(false, ok, cgiOne...), "cgi-one-inline": writes(true, ok, cgiOne...),
		"one": writes(false, ok, one...), "one-inline": writes(true, ok, one...),
	}})
	wrapped := func(pieces []string) string {
		b, err := json.Marshal(map[string]string{"result": strings.Join(pieces, "")})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, test := range []struct {
		name   string
		status int
		body   string
		kind   string
	}{
		{"json", 200, strings.Join(json1, ""), "application/json"},
		{"plain", 200, wrapped(plain), "application/json"},
		{"cgi", 203, strings.Join(cgi[1:], ""), "text/x"},
		{"cgi-one", 203, strings.Repeat("d", 2_000_000), "text/x"},
		{"one", 200, strings.Join(one, ""), "application/json"},
	} {
		for _, path := range []string{test.name, test.name + "-inline"} {
			t.Run(path, func(t *testing.T) {
				onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
					c.Send(t, get("/"+path)+get("/nowhere")+"HEAD /"+path+" HTTP/1.1\r\nHost: t\r\n\r\n"+
						"GET /"+path+" HTTP/1.0\r\n\r\n")
					check := func(r testenv.Response) {
						t.Helper()
						if r.Status != test.status || r.Header.Get("Content-Type") != test.kind || string(r.Body) != test.body {
							t.Fatalf("status %d, %v, %d bytes; want %d", r.Status, r.Header, len(r.Body), len(test.body))
						}
					}
					r := c.Response(t)
					check(r)
					if r.Header.Get("Content-Length") != "" || r.Close {
						t.Errorf("a streamed answer with %v", r.Header)
					}
					want(t, c.Response(t), 404, "route_not_found")
					if r, err := c.ReadResponse("HEAD"); err != nil || r.Status != test.status {
						t.Fatal(r.Status, err)
					}
					r = c.Response(t)
					check(r)
					if !r.Close {
						t.Error("RFC 9112 6.3: the end of the connection ends a 1.0 answer")
					}
					c.WantEnd(t)
				})
			})
		}
	}
}

func TestLargeAnswerEndings(t *testing.T) {
	t.Parallel()
	block := strings.Repeat("x", 100_000)
	endless := make(chan struct{}, 10)
	p := newPairWith(t, pairOptions{
		timeouts: Timeouts{Write: 300 * time.Millisecond},
		fakes: map[string]*fake{
			"bad":  writes(false, runtime.Result{}, append([]string{"Status: 99\r\nX-A: b\r\n\r\n"}, repeat(block, 10)...)...),
			"fail": writes(false, runtime.Result{Reason: runtime.Trap}, repeat("["+block, 60)...),
			"endless": {run: func(inv *runtime.Invocation) runtime.Result {
				for {
					if _, err := io.WriteString(inv.Stdout, "["+block); err != nil {
						endless <- struct{}{}
						return runtime.Result{Reason: runtime.Cancelled}
					}
				}
			}},
		},
	})
	t.Run("a bad header block: 502, and nothing of it", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, get("/bad")+get("/nowhere"))
			want(t, c.Response(t), 502, "cgi_bad_status")
			want(t, c.Response(t), 404, "route_not_found")
		})
	})
	t.Run("the function fails behind the first bytes: cut", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, get("/fail")+get("/nowhere"))
			if r, err := c.ReadResponse("GET"); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("status %d, %v", r.Status, err)
			}
			c.WantEnd(t)
		})
	})
	t.Run("the client does not read: cut after the write timeout", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			before := p.backs[0].back.counters.WriteTimeouts.Load()
			c.Send(t, get("/endless"))
			<-endless
			if n := p.backs[0].back.counters.WriteTimeouts.Load(); n != before+1 {
				t.Errorf("%d write timeouts", n-before)
			}
		})
	})
	t.Run("the client leaves: cancelled", func(t *testing.T) {
		onBoth(t, p, func(t *testing.T, c *testenv.Conn) {
			c.Send(t, get("/endless"))
			if _, err := io.ReadFull(c.Conn, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			_ = c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close()
			<-endless
		})
	})
	testenv.Until(t, "all slots are free", func() bool { return p.front.Stats().Retained == 0 })
	if n := p.board.Worker(0).Inflight(); n != 0 {
		t.Errorf("%d requests are counted in flight", n)
	}
}
