package reactor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"baton/httpparse"
	"baton/internal/sys"
)

// controlBodyMax bounds the body of a control request in bytes. A larger
// Content-Length is answered 413, more in chunks reads as errControlBody; the
// control plane has limits of its own below it.
const controlBodyMax = 256 << 20

// A client that sends nothing for controlLinger after its answer is closed, and at
// the latest after controlLingerTimes that: a place among controlMax is held so
// long.
const (
	controlLinger      = time.Second
	controlLingerTimes = 5
)

var errControlBody = errors.New("the body of the control request breaks its framing or is too large")

// ControlConn is one control request as a net.Conn: reading yields the bytes
// that the loop had read already, then the rest of this one request as our
// parser frames it, then io.EOF, whatever the client sends behind it. So the
// control plane's own HTTP server never sees a byte that our grammar has not
// delimited. Whoever gets it owns it and closes it.
type ControlConn struct {
	net.Conn

	head    []byte // read already, not delivered
	left    int64  // bytes of the request after head; -1: chunked
	chunks  httpparse.Chunks
	ended   bool
	failed  error
	watch   sync.Once
	closing sync.Once
	hangup  chan struct{}
	watched chan struct{}
	done    chan struct{} // closed by Close
	probe   time.Duration // from a client's FIN to the question whether it is still there, and between two
	interim bool          // it may be asked by an interim response: not in HTTP/1.0

	writes sync.Mutex // held while an interim response is written
	begun  bool       // the answer has begun: no interim response any more
}

// newControlConn makes a connection of the descriptor n, which it owns from
// here on, also on error. b starts with a complete head.
func newControlConn(n int, peer sys.Peer, b []byte, probe time.Duration) (*ControlConn, error) {
	f := os.NewFile(uintptr(n), "control connection")
	raw, err := net.FileConn(f) // a duplicate of its own, close-on-exec and non-blocking
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("take over connection of %s: %w", peer.Addr(), err)
	}
	c := &ControlConn{Conn: raw, hangup: make(chan struct{}), done: make(chan struct{}), probe: probe}
	var r httpparse.Request
	o, size, _ := httpparse.ParseHead(&r, b)
	if o != httpparse.Complete {
		_ = raw.Close()
		return nil, fmt.Errorf("take over connection of %s: its head is not complete", peer.Addr())
	}
	c.interim = r.Minor > 0
	end := size
	switch {
	case r.Chunked:
		c.left = -1
		used, done, why := c.frame(b[size:])
		if why != 0 {
			c.failed = errControlBody
		}
		end += used
		c.ended = done
	default:
		body := max(r.ContentLength, 0) // decideControl bounds it
		have := min(int64(len(b)-size), body)
		end += int(have)
		c.left = body - have
		c.ended = c.left == 0
	}
	c.head = append([]byte(nil), b[:end]...)
	return c, nil
}

// frame finds how many bytes of b belong to a chunked body.
func (c *ControlConn) frame(b []byte) (used int, done bool, why httpparse.Reason) {
	for used < len(b) {
		_, n, o, why := c.chunks.Next(b[used:])
		used += n
		if c.chunks.Declared() > controlBodyMax {
			return used, false, httpparse.ReasonBodyTooLarge
		}
		switch {
		case o == httpparse.Complete:
			return used, true, 0
		case o == httpparse.Invalid:
			return used, false, why
		case n == 0:
			return used, false, 0
		}
	}
	return used, false, 0
}

// Read implements net.Conn for the one request.
func (c *ControlConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	if c.failed != nil {
		return 0, c.failed
	}
	if c.ended {
		c.watch.Do(c.watchHangup)
		return 0, io.EOF
	}
	if c.left > 0 && int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	if c.left > 0 {
		c.left -= int64(n)
		c.ended = c.left == 0
	} else if n > 0 {
		used, done, why := c.frame(p[:n])
		if why != 0 {
			c.failed = errControlBody
		}
		n, c.ended = used, done
	}
	if c.ended && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Write implements net.Conn.
func (c *ControlConn) Write(p []byte) (int, error) {
	c.writes.Lock()
	c.begun = true
	c.writes.Unlock()
	return c.Conn.Write(p)
}

// Hangup is closed when the client goes away after its request was read to
// the end; then nobody waits for the answer any more. A client that has ended
// its sending side alone still waits.
func (c *ControlConn) Hangup() <-chan struct{} {
	if c.ended && len(c.head) == 0 {
		c.watch.Do(c.watchHangup)
	}
	return c.hangup
}

// watchHangup reads on behind the request. Its goroutine ends when the
// connection is closed.
func (c *ControlConn) watchHangup() {
	c.watched = make(chan struct{})
	go func() {
		defer close(c.watched)
		var b [512]byte
		for range 128 {
			_, err := c.Conn.Read(b[:])
			if err == nil {
				continue
			}
			select {
			case <-c.done: // close has ended the read
				return
			default:
			}
			if !errors.Is(err, io.EOF) || c.awaitReset() {
				close(c.hangup)
			}
			return
		}
	}()
}

// awaitReset says whether a client that has sent its FIN is gone; false: the
// connection was closed here first. What is sent to a client that has fully
// closed is answered with a reset: an interim response is, or the answer itself.
// RATIONALE.md, "Is a FIN from the client a hang-up?".
func (c *ControlConn) awaitReset() bool {
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	tick := time.NewTicker(c.probe)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return false
		case <-tick.C:
		}
		c.writes.Lock()
		if !c.begun && c.interim {
			_, err = c.Conn.Write(continueAnswer)
		}
		c.writes.Unlock()
		var ready int16
		if e := raw.Control(func(fd uintptr) { ready, _ = sys.Poll(int(fd), 0, 0) }); e != nil || err != nil ||
			ready&(sys.PollErr|sys.PollHup) != 0 {
			return true
		}
	}
}

// Close implements net.Conn, and waits for the goroutine behind Hangup. Closing
// again does nothing: fasthttp closes what it has served, and so does whoever
// owns the connection.
func (c *ControlConn) Close() error {
	err := os.ErrClosed
	c.closing.Do(func() { err = c.close() })
	return err
}

// drain discards what the client still sends, within bounds as the loops do: see
// loop.linger.
func (c *ControlConn) drain() {
	end := time.Now().Add(controlLingerTimes * controlLinger)
	var b [16 << 10]byte
	for discarded := 0; discarded < lingerBytesMax; {
		next := time.Now().Add(controlLinger)
		if next.After(end) {
			next = end
		}
		if c.Conn.SetReadDeadline(next) != nil {
			return
		}
		n, err := c.Conn.Read(b[:])
		if err != nil {
			return
		}
		discarded += n
	}
}

func (c *ControlConn) close() error {
	c.watch.Do(func() {}) // from here on nobody begins to watch
	close(c.done)
	// An answer on its way is destroyed by a reset, and closing with unread
	// input sends one: RFC 9112 section 9.6.
	if tcp, ok := c.Conn.(*net.TCPConn); ok && tcp.CloseWrite() == nil {
		if c.watched != nil {
			_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // its read ends
			<-c.watched
		}
		c.drain()
	}
	err := c.Conn.Close()
	if c.watched != nil {
		<-c.watched
	}
	return err
}
