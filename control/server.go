package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"baton/runtime/logs"
)

const (
	// connsMax control requests are served at a time. The one above is answered
	// 503 with Retry-After and counted.
	connsMax = 256
	// adminConnsMax is the same for the admin socket, apart from the others: what
	// strangers do must not keep the owner's commands out.
	adminConnsMax = 32
	// refusalTimeout bounds the life of an answer to a connection above the bound.
	refusalTimeout = 2 * time.Second
	// requestTimeout bounds reading one request, and writing one answer.
	requestTimeout = 30 * time.Second
	// strangerTimeout bounds how long a request whose head is here may keep its
	// place without having shown a right: fasthttp waits for the first 8 KiB of a
	// body before it asks us. It is longer than guardDelayMax, for a client is
	// seen to hang up by a read.
	strangerTimeout = 5 * time.Second
	// headBytesMax is the room fasthttp has for one head: what httpparse lets
	// through (32 KiB) and the empty line. A longer head is answered 431.
	headBytesMax = 33 << 10
	// acceptRetry is the pause after accept(2) failed, most likely for want of
	// descriptors.
	acceptRetry = 100 * time.Millisecond

	// acceptComplaint is how often that is logged.
	acceptComplaint = 10 * time.Second
)

// ErrBusy says that as many control requests are being served as may be.
var ErrBusy = errors.New("control plane: too many requests at a time")

// Config is what a Server is made of.
type Config struct {
	Backend Backend
	// Token is the admin token, as LoadToken gives it.
	Token string
	// AdminToken demands the token on the admin socket as well. To be set where
	// neither seccomp nor a user of their own keeps functions off it.
	AdminToken bool
	// Data is the data directory: a rotated token is written there, and uploads
	// wait below it. Empty: neither is possible.
	Data string
	// Deployer deploys; nil: what needs it is answered 501.
	Deployer Deployer
	// Invoke calls a function by its name; nil: 501.
	Invoke func(context.Context, Invocation) (*http.Response, error)
	// Logs reads functions' logs, as logs.Read does; nil: 501.
	Logs func(ctx context.Context, q logs.Query, each func(logs.Entry) error) error
	// Logger receives what went wrong here; nil discards it.
	Logger *slog.Logger
}

// Server is the control plane of one process. Its methods may be called from
// any goroutine.
type Server struct {
	// Immutable after New.
	backend        Backend
	config         Config
	adminToken     bool
	log            *slog.Logger
	http           fasthttp.Server
	metrics        http.Handler
	page           page
	routes         map[string]resource
	functionRoutes map[string]resource // by what follows a function's path
	base           context.Context     // ends with cancel; the parent of every request's
	cancel         context.CancelFunc
	peerOf         func(*net.UnixConn) (peer, func(), error) // replaced in tests

	stopping chan struct{} // closed when Shutdown begins
	token    atomic.Pointer[digest]
	rotating sync.Mutex // held while the token is replaced
	uploads  atomic.Int64
	streams  atomic.Int64
	sessions sessions
	guard    guard
	refused  [reasonCount]atomic.Uint64

	wait sync.WaitGroup // every goroutine of the server

	mu       sync.Mutex
	closed   bool
	conns    map[*conn]struct{}
	admins   int // of conns, those of the admin socket
	listener net.Listener
}

// New makes a Server. It opens nothing and starts no goroutine.
func New(c Config) (*Server, error) {
	if c.Backend == nil {
		panic("control: New without a backend")
	}
	if !validToken(c.Token) {
		return nil, fmt.Errorf("control plane: the admin token is not one: want %d to %d letters, digits and -._~+/=", tokenLengthMin, tokenLengthMax)
	}
	s := &Server{
		backend:    c.Backend,
		config:     c,
		adminToken: c.AdminToken,
		log:        c.Logger,
		page:       newPage(),
		peerOf:     peerOf,
		conns:      map[*conn]struct{}{},
		stopping:   make(chan struct{}),
	}
	token := digestOf(c.Token)
	s.token.Store(&token)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.base, s.cancel = context.WithCancel(context.Background())
	s.routes, s.functionRoutes = s.resources(), s.functionResources()
	registry := prometheus.NewRegistry()
	s.metrics = newMetrics(registry, s)
	s.http = fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.handleUnreadable,
		DisableKeepalive:             true, // one request per take-over
		ReadTimeout:                  requestTimeout,
		WriteTimeout:                 requestTimeout,
		ReadBufferSize:               headBytesMax,
		StreamRequestBody:            true, // a refusal does not wait for the body
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		HeaderReceived:               limits,
		ExpectHandler:                s.handleExpect,
		Concurrency:                  connsMax + adminConnsMax + 1, // never reached: the bounds are ours
		Logger:                       logger{s.log},
	}
	return s, nil
}

// ServeConn answers the one request that c carries and closes c. It takes
// ownership of c, also on error, and returns at once.
//
// c must end (io.EOF) behind the request's last byte. When c has a method
// Hangup() <-chan struct{}, that channel ends the context of a request that
// waits; otherwise such a request reads on behind its end. Close is called
// exactly once.
//
// ErrBusy and os.ErrClosed say that c is being answered 503: at the bound, or
// after Shutdown.
func (s *Server) ServeConn(c net.Conn) error {
	return s.serve(&conn{Conn: c})
}

func (s *Server) serve(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		// Shutdown may be past waiting: nobody waits for this one, it ends by
		// refusalTimeout.
		go s.refuse(c, reasonDraining)
		return fmt.Errorf("control plane: %w", os.ErrClosed)
	}
	have, most := len(s.conns)-s.admins, connsMax
	if c.admin {
		have, most = s.admins, adminConnsMax
	}
	if have >= most {
		s.wait.Go(func() { s.refuse(c, reasonBusy) })
		return ErrBusy
	}
	c.base, c.cancel = context.WithCancel(s.base)
	s.conns[c] = struct{}{}
	if c.admin {
		s.admins++
	}
	s.wait.Go(func() { s.run(c) })
	return nil
}

// limits are a request's from the end of its head on; authorise lifts them. A
// body that is empty is not waited for, so nobody is asked for it.
func limits(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if n := h.ContentLength(); n == 0 || n == -2 { // -2: none is said
		h.Del("Expect")
	}
	return fasthttp.RequestConfig{ReadTimeout: strangerTimeout}
}

// run serves c to its end.
func (s *Server) run(c *conn) {
	defer func() {
		// fasthttp parses here what a stranger sent. A panic costs this
		// connection: no state is shared with it but what locks guard.
		if p := recover(); p != nil {
			s.refused[reasonInternal].Add(1)
			s.log.Error("control request panicked", "panic", p, "stack", string(debug.Stack()))
		}
		c.cancel()
		_ = c.Close()
		c.watch.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if c.admin {
			s.admins--
		}
	}()
	if err := s.http.ServeConn(c); err != nil && !errors.Is(err, io.EOF) {
		s.log.Debug("control connection ended", "err", err)
	}
}

// ListenAdmin opens the admin socket at path with mode 0600 and serves it
// until Shutdown. A file that is there is replaced: the caller holds the lock of
// the data directory. Its directory must be private (0700).
func (s *Server) ListenAdmin(path string) error {
	l, err := listenAdmin(path)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.listener != nil {
		_ = l.Close()
		return fmt.Errorf("admin socket: %w", os.ErrClosed)
	}
	s.listener = l
	s.wait.Go(func() { s.accept(l) })
	return nil
}

// accept ends when l is closed.
func (s *Server) accept(l *adminListener) {
	var said time.Time
	for {
		raw, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if time.Since(said) >= acceptComplaint {
				said = time.Now()
				s.log.Warn("accept on the admin socket", "err", err)
			}
			select {
			case <-s.base.Done():
				return
			case <-time.After(acceptRetry):
			}
			continue
		}
		c := &conn{Conn: raw, admin: true}
		if err := s.admit(raw); err != nil {
			c.foreign = true
			s.log.Warn("admin socket: peer refused", "err", err)
		}
		_ = s.serve(c)
	}
}

// Shutdown closes the admin socket, refuses further connections, and returns
// when the requests that run are answered. When ctx ends first, they are cut
// off, and ctx's error is returned. A second call waits as well.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		close(s.stopping)
	}
	s.closed = true
	l := s.listener
	s.listener = nil
	s.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	done := make(chan struct{})
	go func() { s.wait.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("control plane: shut down: %w", ctx.Err())
		s.cancel()
		s.mu.Lock()
		for c := range s.conns {
			c.cut()
		}
		s.mu.Unlock()
		<-done
	}
	s.cancel()
	return err
}

// Login makes a one-time link's secret, to be put behind "/?login=" or
// "/upload?login=" ("/" may be a function's). It is good for one use within an
// hour.
func (s *Server) Login() (string, error) {
	return s.sessions.newLogin(time.Now())
}

// conn is a connection being served.
type conn struct {
	net.Conn

	// Immutable once it is served.
	admin   bool // came through the admin socket
	foreign bool // … from a process that may not
	base    context.Context
	cancel  context.CancelFunc

	closing  sync.Once
	closeErr error

	deadlines sync.Mutex // held while a deadline is set
	isCut     bool       // no deadline is set any more

	watching sync.Once
	watch    sync.WaitGroup // the watcher
}

// Close implements net.Conn; only the first call reaches the connection.
func (c *conn) Close() error {
	c.closing.Do(func() { c.closeErr = c.Conn.Close() })
	return c.closeErr
}

// cut ends every read and write, now and later. It does not close: whoever
// serves c does, once.
func (c *conn) cut() {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	c.isCut = true
	_ = c.Conn.SetDeadline(time.Unix(1, 0))
}

// deadline sets one, unless c was cut: fasthttp's own would undo that.
func (c *conn) deadline(set func(time.Time) error, t time.Time) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.isCut {
		return os.ErrClosed
	}
	return set(t)
}

// The three deadlines of net.Conn.

func (c *conn) SetDeadline(t time.Time) error      { return c.deadline(c.Conn.SetDeadline, t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.deadline(c.Conn.SetReadDeadline, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.deadline(c.Conn.SetWriteDeadline, t) }

// context is the request's: it ends with the client's hang-up, with the answer,
// and with the server. A handler asks for it when it has read what it wants of
// the body; from then on the rest of it is gone, and no deadline of reading is
// left, for it would look like a hang-up.
func (c *conn) context() context.Context {
	c.watching.Do(func() {
		_ = c.SetReadDeadline(time.Time{})
		if h, ok := c.Conn.(interface{ Hangup() <-chan struct{} }); ok {
			gone := h.Hangup()
			c.watch.Go(func() {
				select {
				case <-gone:
					c.cancel()
				case <-c.base.Done():
				}
			})
			return
		}
		c.watch.Go(func() {
			// What follows the request is not answered; reading it on, to the
			// end, is how a hang-up is seen. Ends at the latest when the connection
			// is cut or closed.
			_, _ = io.CopyN(io.Discard, c.Conn, 64<<10)
			c.cancel()
		})
	})
	return c.base
}

// logger takes fasthttp's own words.
type logger struct{ to *slog.Logger }

func (l logger) Printf(format string, args ...any) {
	l.to.Debug("fasthttp", "message", fmt.Sprintf(format, args...))
}
