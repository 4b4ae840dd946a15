package control

import (
	"bytes"
	"crypto/subtle"
	_ "embed" // openapi.json
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

// right says who may use a resource.
type right uint8

const (
	rightAnyone right = iota
	rightToken        // the token, a session, or the admin socket
	rightAdmin        // the admin socket
)

// method is one way to use a resource.
type method struct {
	name  string
	right right
	serve func(*fasthttp.RequestCtx)
	// admit, of a method that reads its request's body, says whether it is going
	// to, as far as the head tells; otherwise it has answered. nil: serve reads no
	// body.
	admit func(*fasthttp.RequestCtx) bool
}

// resource is one path. HEAD is answered as GET.
type resource []method

// find gives the method that answers a request's.
func (r resource) find(name string) (method, bool) {
	if name == fasthttp.MethodHead {
		name = fasthttp.MethodGet
	}
	i := slices.IndexFunc(r, func(m method) bool { return m.name == name })
	if i < 0 {
		return method{}, false
	}
	return r[i], true
}

func (r resource) allow() string {
	var names []string
	for _, m := range r {
		names = append(names, m.name)
		if m.name == fasthttp.MethodGet {
			names = append(names, fasthttp.MethodHead)
		}
	}
	return strings.Join(names, ", ")
}

// resources is the control plane: path, method, right. What belongs to single
// functions is in functionResources.
func (s *Server) resources() map[string]resource {
	return map[string]resource{
		"/":                 {{"GET", rightAnyone, s.getPage, nil}},
		"/upload":           {{"GET", rightAnyone, s.getPage, nil}, {"POST", rightToken, s.postUpload, s.admitUpload}},
		"/healthz":          {{"GET", rightAnyone, s.getHealth, nil}},
		"/readyz":           {{"GET", rightAnyone, s.getReady, nil}},
		"/metrics":          {{"GET", rightToken, s.getMetrics, nil}},
		"/system/upload":    {{"POST", rightToken, s.postUpload, s.admitUpload}},
		"/system/functions": {{"GET", rightToken, s.getFunctions, nil}},
		"/system/routes":    {{"GET", rightToken, s.getRoutes, nil}},
		"/system/events":    {{"GET", rightToken, s.getEvents, nil}},
		"/system/workers":   {{"GET", rightToken, s.getWorkers, nil}},
		"/system/status":    {{"GET", rightToken, s.getStatus, nil}},
		"/system/session":   {{"GET", rightAnyone, s.getSession, nil}, {"POST", rightToken, s.postSession, nil}, {"DELETE", rightToken, s.deleteSession, nil}},
		"/system/stop":      {{"POST", rightAdmin, s.postStop, nil}},

		"/system/token/rotate": {{"POST", rightToken, s.postRotate, nil}},
		"/system/openapi.json": {{"GET", rightToken, s.getOpenAPI, nil}},
	}
}

// later are folders that belong to the platform and have nothing in them yet.
var later = [][]byte{[]byte("/_/"), []byte("/async-function/"), []byte("/2018-06-01/"), []byte("/2015-03-31/")}

// system is the folder whose every name needs the token, also one that is not
// there: an answer says nothing to a stranger.
var system = []byte("/system/")

// requestIDBytes of randomness in a request id made here.
const requestIDBytes = 10

// handle answers one request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	if m, ok := s.method(ctx); ok && (m.admit == nil || m.admit(ctx)) {
		m.serve(ctx)
	}
}

// handleExpect is asked in place of handle, before the body of a client that
// waits for 100 before it sends it. 100: the body is wanted, and handle will be
// asked. Everything else is the status of the answer, which is made here: what is
// refused, and what needs no body, asks for none.
//
// fasthttp sends the response that it finds, with the status returned; the
// version is pinned, and TestExpectContinue holds it.
//
// Source: RFC 9110 section 10.1.1.
func (s *Server) handleExpect(ctx *fasthttp.RequestCtx) int {
	m, ok := s.method(ctx)
	switch {
	case !ok:
	case m.admit == nil:
		m.serve(ctx)
	case m.admit(ctx):
		return fasthttp.StatusContinue
	}
	return ctx.Response.StatusCode()
}

// method finds what serves a request that has the right to be served; otherwise
// it is answered.
func (s *Server) method(ctx *fasthttp.RequestCtx) (method, bool) {
	s.begin(ctx)
	c := ctx.Conn().(*conn)
	if c.foreign {
		s.fail(ctx, reasonPeer)
		return method{}, false
	}
	// The path as sent: what our own parser and table saw. The decoded and
	// cleaned one could be another.
	path := ctx.URI().PathOriginal()
	r, ok := s.routes[string(path)]
	if !ok {
		r, ok = s.functionResource(ctx, path)
	}
	if !ok {
		switch {
		case slices.ContainsFunc(later, func(p []byte) bool { return bytes.HasPrefix(path, p) }):
			s.fail(ctx, reasonNotImplemented)
		case !bytes.HasPrefix(path, system) || s.authorise(ctx, c, rightToken):
			s.fail(ctx, reasonNotFound)
		}
		return method{}, false
	}
	m, ok := r.find(string(ctx.Method()))
	if !ok {
		if bytes.HasPrefix(path, system) && !s.authorise(ctx, c, rightToken) {
			return method{}, false
		}
		ctx.Response.Header.Set("Allow", r.allow())
		s.fail(ctx, reasonMethod)
		return method{}, false
	}
	return m, s.authorise(ctx, c, m.right)
}

// begin sets what every response carries.
func (s *Server) begin(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	id := string(ctx.Request.Header.Peek("X-Request-Id"))
	if !validRequestID(id) {
		var err error
		if id, err = randomText(requestIDBytes); err != nil {
			id = "none" // no randomness: an answer is worth more than its name
		}
	}
	h.Set("X-Request-Id", id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// validRequestID: 1 to 128 of [A-Za-z0-9._-].
func validRequestID(s string) bool {
	if len(s) == 0 || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// sessionCookie is bound to /system/, so that no function is ever sent it.
const sessionCookie = "baton_session"

// authorise says whether a request has the right; otherwise it has answered it.
// Who has it may take longer over a body than a stranger.
func (s *Server) authorise(ctx *fasthttp.RequestCtx, c *conn, want right) bool {
	if want == rightAnyone {
		return true
	}
	if !s.authorised(ctx, c, want) {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(requestTimeout)) // fails when it was cut: reading does too
	return true
}

func (s *Server) authorised(ctx *fasthttp.RequestCtx, c *conn, want right) bool {
	if crossOrigin(&ctx.Request.Header) {
		s.fail(ctx, reasonCrossOrigin)
		return false
	}
	if c.admin && !s.adminToken {
		return true
	}
	switch secrets := ctx.Request.Header.PeekAll("Authorization"); {
	case len(secrets) > 1:
		s.fail(ctx, reasonBadRequest)
		return false
	case len(secrets) == 1:
		if secret, ok := bearer(secrets[0]); !ok {
			s.fail(ctx, reasonTokenMissing)
			return false
		} else if !s.checkToken(ctx, c, secret) {
			return false
		}
	default:
		// A wrong cookie is not held against anybody: every browser that was
		// signed in at an earlier process sends one.
		session := string(ctx.Request.Header.Cookie(sessionCookie))
		if session == "" || !s.sessions.valid(session, time.Now()) {
			s.fail(ctx, reasonTokenMissing)
			return false
		}
		if !safe(ctx) && !sameOrigin(&ctx.Request.Header) {
			s.fail(ctx, reasonCrossOrigin)
			return false
		}
	}
	if want == rightAdmin && !c.admin {
		s.fail(ctx, reasonAdminOnly)
		return false
	}
	return true
}

// bearer takes the token out of "Bearer <token>". The scheme's case does not
// matter: RFC 9110 section 11.1.
func bearer(field []byte) (secret string, ok bool) {
	scheme, secret, ok := strings.Cut(string(field), " ")
	secret = strings.Trim(secret, " ")
	return secret, ok && strings.EqualFold(scheme, "Bearer") && secret != ""
}

// checkToken compares in constant time, holds back the answer to a wrong token,
// and has then given it.
func (s *Server) checkToken(ctx *fasthttp.RequestCtx, c *conn, secret string) bool {
	from := remote(c)
	if !s.guard.allow(from) {
		ctx.Response.Header.Set("Retry-After", "1")
		s.fail(ctx, reasonTokenGuessing)
		return false
	}
	given := digestOf(secret)
	if token := s.token.Load(); subtle.ConstantTimeCompare(given[:], token[:]) == 1 {
		return true
	}
	s.holdBack(ctx, c, from, reasonTokenWrong)
	return false
}

// holdBack answers a wrong secret after a while, with r, or at once with 429.
func (s *Server) holdBack(ctx *fasthttp.RequestCtx, c *conn, from netip.Prefix, r reason) {
	delay, held := s.guard.fail(from, time.Now())
	if held == nil {
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(int((delay+time.Second-1)/time.Second)))
		s.fail(ctx, reasonTokenGuessing)
		return
	}
	timer := time.NewTimer(delay)
	select {
	case <-timer.C:
	case <-c.context().Done():
		timer.Stop()
	}
	s.guard.done(held)
	s.fail(ctx, r)
}

// remote is where a connection's failures are counted.
func remote(c net.Conn) netip.Prefix {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return sourceOf(tcp.AddrPort().Addr())
}

func safe(ctx *fasthttp.RequestCtx) bool { return ctx.IsGet() || ctx.IsHead() }

// crossOrigin says whether a browser says that a page of another origin made
// this request. Command-line clients say nothing.
//
// Source: Fetch Metadata Request Headers (W3C), section 2; RFC 6454 section 7.
func crossOrigin(h *fasthttp.RequestHeader) bool {
	switch string(h.Peek("Sec-Fetch-Site")) {
	case "", "same-origin", "none":
	default: // same-site too: another port or subdomain is another's
		return true
	}
	origin := h.Peek("Origin")
	return len(origin) > 0 && !isOrigin(origin, h.Host())
}

// sameOrigin says whether a browser says that our own page made this request.
func sameOrigin(h *fasthttp.RequestHeader) bool {
	return string(h.Peek("Sec-Fetch-Site")) == "same-origin" || isOrigin(h.Peek("Origin"), h.Host())
}

// isOrigin compares an Origin with the Host that was asked. The scheme is not
// compared: a proxy in front may speak TLS.
func isOrigin(origin, host []byte) bool {
	u, err := url.Parse(string(origin))
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && strings.EqualFold(u.Host, string(host))
}

// reply answers with a value as JSON.
func (s *Server) reply(ctx *fasthttp.RequestCtx, status int, value any) {
	body, err := encode(value)
	if err != nil {
		s.log.Error("control answer is not JSON", "err", err)
		s.fail(ctx, reasonInternal)
		return
	}
	ctx.SetStatusCode(status)
	ctx.Response.Header.SetContentType("application/json")
	ctx.SetBody(body)
}

// getHealth answers as the event loops do, who answer it for everybody but the
// admin socket.
func (s *Server) getHealth(ctx *fasthttp.RequestCtx) {
	s.reply(ctx, fasthttp.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) getReady(ctx *fasthttp.RequestCtx) {
	switch status := s.backend.Status(); {
	case status.Draining:
		s.fail(ctx, reasonDraining)
	case !status.Loaded:
		s.fail(ctx, reasonNoTable)
	case !status.Ready:
		s.fail(ctx, reasonNotReady)
	default:
		s.reply(ctx, fasthttp.StatusOK, map[string]string{"status": "ready"})
	}
}

func (s *Server) getFunctions(ctx *fasthttp.RequestCtx) {
	s.reply(ctx, fasthttp.StatusOK, list(s.backend.Functions()))
}

func (s *Server) getWorkers(ctx *fasthttp.RequestCtx) {
	s.reply(ctx, fasthttp.StatusOK, list(s.backend.Workers()))
}

func (s *Server) getStatus(ctx *fasthttp.RequestCtx) {
	report := Report{Status: s.backend.Status(), Workers: list(s.backend.Workers()), BadRows: []Function{}}
	report.Isolation = list(report.Isolation)
	for _, f := range s.backend.Functions() {
		if f.State != Serving {
			report.BadRows = append(report.BadRows, f)
		}
	}
	s.reply(ctx, fasthttp.StatusOK, report)
}

// list is what JSON shows as [] and not as null.
func list[T any](values []T) []T {
	if values == nil {
		return []T{}
	}
	return values
}

func (s *Server) getMetrics(ctx *fasthttp.RequestCtx) {
	fasthttpadaptor.NewFastHTTPHandler(s.metrics)(ctx)
}

// openAPI describes all resources of this package. Tests hold it against the
// table above and against a running server.
//
//go:embed openapi.json
var openAPI []byte

func (s *Server) getOpenAPI(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.SetContentType("application/json")
	ctx.SetBody(openAPI)
}

func (s *Server) postStop(ctx *fasthttp.RequestCtx) {
	s.backend.Stop()
	s.reply(ctx, fasthttp.StatusAccepted, map[string]string{"status": "stopping"})
}

// getSession says whether the browser is signed in. It exists so that the page
// can ask without an error in the browser's console.
func (s *Server) getSession(ctx *fasthttp.RequestCtx) {
	s.reply(ctx, fasthttp.StatusOK, map[string]bool{
		"signedIn": s.sessions.valid(string(ctx.Request.Header.Cookie(sessionCookie)), time.Now()),
	})
}

// postSession gives a session to who has shown the token, so that a page need
// not keep it.
func (s *Server) postSession(ctx *fasthttp.RequestCtx) {
	if !s.setSession(ctx) {
		s.fail(ctx, reasonInternal)
		return
	}
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

func (s *Server) deleteSession(ctx *fasthttp.RequestCtx) {
	s.sessions.end(string(ctx.Request.Header.Cookie(sessionCookie)))
	s.cookie(ctx, "", -time.Second)
	ctx.SetStatusCode(fasthttp.StatusNoContent)
}

func (s *Server) setSession(ctx *fasthttp.RequestCtx) bool {
	secret, err := s.sessions.signIn(time.Now())
	if err != nil {
		s.log.Error("sign in", "err", err)
		return false
	}
	s.cookie(ctx, secret, sessionLife)
	return true
}

// cookie sets the session's, or unsets it with a life below zero. Secure is
// not said: baton listens without TLS, and a browser would not send it.
func (s *Server) cookie(ctx *fasthttp.RequestCtx, secret string, life time.Duration) {
	ctx.Response.Header.Set("Set-Cookie", sessionCookie+"="+secret+"; Path=/system/; Max-Age="+
		strconv.Itoa(int(life/time.Second))+"; HttpOnly; SameSite=Strict")
}
