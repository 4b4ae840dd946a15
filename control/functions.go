package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"baton/deploy"
	"baton/route"
	"baton/runtime/logs"
)

// Deployer is what the control plane asks for deploys, changes and deletes:
// *deploy.Deployer.
type Deployer interface {
	Deploy(ctx context.Context, r deploy.Request) (deploy.Result, error)
	Rollback(ctx context.Context, name string, version int, c deploy.Conditions, state func(string)) (deploy.Result, error)
	Delete(ctx context.Context, name string, c deploy.Conditions) error
	Get(ctx context.Context, name string) (deploy.Function, error)
	Versions(ctx context.Context, name string) ([]deploy.Version, error)
}

// Invocation is one call of a function by its name.
type Invocation struct {
	Name        string
	Query       string // as sent, without '?'
	ContentType string
	RequestID   string
	Body        []byte
}

const (
	// nameBytesMax bounds a function's name, as in a descriptor.
	nameBytesMax = 64
	// invokeBytesMax bounds the body of an invocation through the control plane:
	// the default of a function's max_body. Larger ones go to its own URL.
	invokeBytesMax = 10 << 20
	// smallBodyMax bounds the body of a rollback.
	smallBodyMax = 1 << 10
)

// nameKey is where a request keeps the name that its path has.
const nameKey = "baton.name"

// functionsFolder is what the paths of single functions start with.
const functionsFolder = "/system/functions/"

// functionResources are the paths below a function's own: "" is the function.
func (s *Server) functionResources() map[string]resource {
	return map[string]resource{
		"":          {{"GET", rightToken, s.getFunction, nil}, {"PUT", rightToken, s.putFunction, s.admitPut}, {"DELETE", rightToken, s.deleteFunction, nil}},
		"/versions": {{"GET", rightToken, s.getVersions, nil}},
		"/rollback": {{"POST", rightToken, s.postRollback, s.admitRollback}},
		"/logs":     {{"GET", rightToken, s.getLogs, nil}},
		"/invoke":   {{"POST", rightToken, s.postInvoke, s.admitInvoke}},
	}
}

// functionResource finds the resource of a path below functionsFolder. The name
// is compared as sent: its characters need no escape.
func (s *Server) functionResource(ctx *fasthttp.RequestCtx, path []byte) (resource, bool) {
	rest, ok := bytes.CutPrefix(path, []byte(functionsFolder))
	if !ok {
		return nil, false
	}
	name, sub := string(rest), ""
	if i := strings.IndexByte(name, '/'); i >= 0 {
		name, sub = name[:i], name[i:]
	}
	r, ok := s.functionRoutes[sub]
	if !ok || !validName(name) {
		return nil, false
	}
	ctx.SetUserValue(nameKey, name)
	return r, true
}

// validName: [A-Za-z0-9][A-Za-z0-9._-]{0,63}, as in a descriptor.
func validName(name string) bool {
	return len(name) <= nameBytesMax && validRequestID(name) && !strings.ContainsAny(name[:1], "._-")
}

func nameOf(ctx *fasthttp.RequestCtx) string {
	name, _ := ctx.UserValue(nameKey).(string)
	return name
}

// deployer is the one there is; nil: the request is answered 501.
func (s *Server) deployer(ctx *fasthttp.RequestCtx) Deployer {
	if s.config.Deployer == nil {
		s.fail(ctx, reasonNotImplemented)
	}
	return s.config.Deployer
}

func splitKey(key string) (method, path string, ok bool) { return strings.Cut(key, ":") }

// FunctionDetail is the answer of GET /system/functions/NAME.
type FunctionDetail struct {
	Function
	Versions   int             `json:"versions"` // that are kept; 0: it was not deployed
	Keys       []string        `json:"keys"`     // of all its rows
	Descriptor json.RawMessage `json:"descriptor,omitempty"`
}

func (s *Server) getFunction(ctx *fasthttp.RequestCtx) {
	d := s.deployer(ctx)
	if d == nil {
		return
	}
	f, err := d.Get(ctx.Conn().(*conn).context(), nameOf(ctx))
	if err != nil {
		s.refuseWith(ctx, s.faultOf(err))
		return
	}
	detail := FunctionDetail{Versions: f.Versions, Keys: list(f.Keys), Descriptor: f.Descriptor}
	// What is stored may be newer than what is listed, and may be bad.
	detail.Function = Function{State: Bad, Error: "its row was deleted: roll back or deploy again"}
	if len(f.Keys) > 0 {
		detail.Function = Function{Key: f.Keys[0], State: Bad, Error: "its row is not served yet"}
		all := s.backend.Functions()
		if i := slices.IndexFunc(all, func(c Function) bool { return c.Key == f.Keys[0] }); i >= 0 {
			detail.Function = all[i]
		}
	}
	detail.Name, detail.ID, detail.Version, detail.URL = f.Name, f.ID, f.Version, "/function/"+f.Name
	ctx.Response.Header.Set("ETag", etag(f.Tag))
	s.reply(ctx, http.StatusOK, detail)
}

// admitPut, as method.admit.
func (s *Server) admitPut(ctx *fasthttp.RequestCtx) bool {
	if s.deployer(ctx) == nil {
		return false
	}
	if _, ok := s.conditions(ctx); !ok {
		return false
	}
	switch mediaType(ctx) {
	case "multipart/form-data":
		return s.admitUpload(ctx)
	case "application/json":
		return true
	}
	f := because(reasonMediaType, "")
	f.text += ", or application/json for a descriptor alone"
	s.refuseWith(ctx, f)
	return false
}

// mediaType is that of the body; empty: it is none.
func mediaType(ctx *fasthttp.RequestCtx) string {
	kind, _, err := mime.ParseMediaType(string(ctx.Request.Header.ContentType()))
	if err != nil {
		return ""
	}
	return kind
}

// putFunction deploys a new version: of code, with an upload, or of the
// descriptor alone.
func (s *Server) putFunction(ctx *fasthttp.RequestCtx) {
	conditions, ok := s.conditions(ctx)
	if !ok {
		return
	}
	if mediaType(ctx) == "multipart/form-data" {
		s.upload(ctx, nameOf(ctx), conditions)
		return
	}
	text, err := io.ReadAll(io.LimitReader(s.body(ctx, descriptorBytesMax), descriptorBytesMax))
	if err != nil {
		s.refuseWith(ctx, s.unreadable(err))
		return
	}
	descriptor, err := parseDescriptor(text)
	if err != nil {
		s.refuseWith(ctx, wrongDescriptor(route.FieldErrors(err)))
		return
	}
	r := deploy.Request{Name: nameOf(ctx), Descriptor: descriptor, Conditions: conditions}
	if wantsEvents(ctx) {
		s.deployEvents(ctx, r, func() {})
		return
	}
	s.deployNow(ctx, r)
}

func (s *Server) deleteFunction(ctx *fasthttp.RequestCtx) {
	d := s.deployer(ctx)
	if d == nil {
		return
	}
	conditions, ok := s.conditions(ctx)
	if !ok {
		return
	}
	if err := d.Delete(ctx.Conn().(*conn).context(), nameOf(ctx), conditions); err != nil {
		s.refuseWith(ctx, s.faultOf(err))
		return
	}
	ctx.SetStatusCode(http.StatusNoContent)
}

func (s *Server) getVersions(ctx *fasthttp.RequestCtx) {
	d := s.deployer(ctx)
	if d == nil {
		return
	}
	versions, err := d.Versions(ctx.Conn().(*conn).context(), nameOf(ctx))
	if err != nil {
		s.refuseWith(ctx, s.faultOf(err))
		return
	}
	all := make([]VersionInfo, 0, len(versions))
	for _, v := range versions {
		all = append(all, VersionInfo{Version: v.Number, Active: v.Active, Created: v.Created.UTC(), Descriptor: json.RawMessage(v.Descriptor),
			Digest: "sha256:" + v.Digest, Size: v.Size})
	}
	s.reply(ctx, http.StatusOK, all)
}

// admitRollback, as method.admit.
func (s *Server) admitRollback(ctx *fasthttp.RequestCtx) bool {
	if s.deployer(ctx) == nil {
		return false
	}
	if _, ok := s.conditions(ctx); !ok {
		return false
	}
	return s.admitLength(ctx, smallBodyMax, fmt.Sprintf("the body is larger than %d bytes", smallBodyMax))
}

// admitLength refuses a body that says to be longer than most bytes, with text.
func (s *Server) admitLength(ctx *fasthttp.RequestCtx, most int64, text string) bool {
	if int64(ctx.Request.Header.ContentLength()) <= most {
		return true
	}
	f := because(reasonTooLarge, "")
	f.text = text
	s.refuseWith(ctx, f)
	return false
}

func (s *Server) postRollback(ctx *fasthttp.RequestCtx) {
	conditions, ok := s.conditions(ctx)
	if !ok {
		return
	}
	text, err := io.ReadAll(s.body(ctx, smallBodyMax))
	if err != nil {
		s.refuseWith(ctx, s.unreadable(err))
		return
	}
	var want struct {
		Version int `json:"version"`
	}
	if len(bytes.TrimSpace(text)) > 0 {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&want); err != nil || want.Version < 0 || decoder.More() {
			f := because(reasonBadRequest, "")
			f.text = `want {"version":N}, or {} for the version before this one`
			s.refuseWith(ctx, f)
			return
		}
	}
	result, err := s.config.Deployer.Rollback(ctx.Conn().(*conn).context(), nameOf(ctx), want.Version, conditions, nil)
	if err != nil {
		s.refuseWith(ctx, s.faultOf(err))
		return
	}
	s.replyDeployed(ctx, result)
}

// etag is a tag as a header field has it.
func etag(tag string) string { return `"` + tag + `"` }

// conditions reads If-Match and If-None-Match; not ok: the request is answered.
//
// Source: RFC 9110 sections 13.1.1 and 13.1.2. A weak tag matches nothing that
// is to be changed.
func (s *Server) conditions(ctx *fasthttp.RequestCtx) (c deploy.Conditions, ok bool) {
	h := &ctx.Request.Header
	match, matchAny, ok1 := tags(h.PeekAll("If-Match"))
	none, noneAny, ok2 := tags(h.PeekAll("If-None-Match"))
	if !ok1 || !ok2 {
		f := because(reasonBadRequest, "")
		f.text = `want If-Match and If-None-Match to be * or tags in quotes, as in an ETag`
		s.refuseWith(ctx, f)
		return c, false
	}
	c = deploy.Conditions{Match: match, MatchAny: matchAny, NoneMatch: none, NoneMatchAny: noneAny}
	if len(h.PeekAll("If-Match")) > 0 && !matchAny {
		c = c.Demand()
	}
	return c, true
}

func tags(fields [][]byte) (tags []string, all, ok bool) {
	for _, field := range fields {
		if strings.TrimSpace(string(field)) == "*" {
			all = true
			continue
		}
		for _, one := range strings.Split(string(field), ",") {
			one = strings.TrimSpace(one)
			if one == "" || strings.HasPrefix(one, "W/") {
				continue
			}
			if len(one) < 2 || one[0] != '"' || one[len(one)-1] != '"' {
				return nil, false, false
			}
			tags = append(tags, one[1:len(one)-1])
		}
	}
	return tags, all, true
}

// getLogs sends the lines of a function's log.
func (s *Server) getLogs(ctx *fasthttp.RequestCtx) {
	if s.config.Logs == nil {
		s.fail(ctx, reasonNotImplemented)
		return
	}
	q, err := logQuery(ctx)
	if err != nil {
		f := because(reasonBadRequest, "")
		f.text = err.Error()
		s.refuseWith(ctx, f)
		return
	}
	if !s.takeStream(ctx) {
		return
	}
	if ctx.IsHead() {
		defer s.streams.Add(-1)
	}
	s.stream(ctx, "application/x-ndjson", func(ctx context.Context, w io.Writer) {
		defer s.streams.Add(-1)
		ctx, cancel := s.until(ctx)
		defer cancel()
		if q.Follow {
			defer beatLines(ctx, w)()
		}
		var line []byte
		err := s.config.Logs(ctx, q, func(e logs.Entry) error {
			line = append(e.AppendJSON(line[:0]), '\n')
			_, err := w.Write(line)
			return err
		})
		if err != nil && ctx.Err() == nil && !errors.Is(err, io.ErrClosedPipe) {
			s.log.Warn("read a function's log", "function", q.Function, "err", err)
		}
	})
}

// beatLines is beat for a stream of lines: an empty one says nothing.
func beatLines(ctx context.Context, w io.Writer) (stop func()) {
	return beat(ctx, writerFunc(func([]byte) (int, error) { return w.Write([]byte{'\n'}) }))
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// logQuery reads tail, since, request and follow.
func logQuery(ctx *fasthttp.RequestCtx) (q logs.Query, err error) {
	q.Function = nameOf(ctx)
	for name, value := range ctx.QueryArgs().All() {
		text := string(value)
		switch string(name) {
		case "tail":
			if q.Tail, err = strconv.Atoi(text); err != nil || q.Tail < 0 || q.Tail > logs.TailMax {
				return q, fmt.Errorf("tail: want a number of lines from 0 (all) to %d", logs.TailMax)
			}
		case "since":
			if q.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return q, errors.New("since: want a time as in 2006-01-02T15:04:05Z")
			}
		case "request":
			if q.Request = text; !validRequestID(text) {
				return q, errors.New("request: want a request id: 1 to 128 of A-Z a-z 0-9 . _ -")
			}
		case "follow":
			if q.Follow, err = strconv.ParseBool(text); err != nil {
				return q, errors.New("follow: want 1 or 0")
			}
		default:
			return q, fmt.Errorf("there is no parameter %.64q: want tail, since, request or follow", name)
		}
	}
	return q, nil
}

// admitInvoke, as method.admit.
func (s *Server) admitInvoke(ctx *fasthttp.RequestCtx) bool {
	if s.config.Invoke == nil {
		s.fail(ctx, reasonNotImplemented)
		return false
	}
	return s.admitLength(ctx, invokeBytesMax, invokeTooLarge)
}

var invokeTooLarge = fmt.Sprintf("more than %d bytes: call the function at its own URL", invokeBytesMax)

// postInvoke calls a function by its name and passes its answer on.
func (s *Server) postInvoke(ctx *fasthttp.RequestCtx) {
	body, err := io.ReadAll(s.body(ctx, invokeBytesMax))
	if err != nil {
		f := s.unreadable(err)
		if errors.Is(err, errUploadTooLarge) {
			f.text = invokeTooLarge
		}
		s.refuseWith(ctx, f)
		return
	}
	c := ctx.Conn().(*conn)
	answer, err := s.config.Invoke(c.context(), Invocation{
		Name: nameOf(ctx), Query: string(ctx.URI().QueryString()), ContentType: string(ctx.Request.Header.ContentType()),
		RequestID: string(ctx.Response.Header.Peek("X-Request-Id")), Body: body,
	})
	if err != nil {
		s.log.Warn("invoke", "function", nameOf(ctx), "err", err)
		s.fail(ctx, reasonNotReady)
		return
	}
	h := &ctx.Response.Header
	ctx.SetStatusCode(answer.StatusCode)
	h.Del("Cache-Control")
	for name, values := range answer.Header {
		if hopByHop[name] {
			continue
		}
		h.Del(name)
		for _, value := range values {
			h.Add(name, value)
		}
	}
	// A function's page must not run with the rights of ours: this address is
	// the control plane's.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Del("Set-Cookie")
	ctx.SetBodyStream(&answerBody{answer.Body, c}, int(answer.ContentLength))
}

// answerBody is a function's answer on its way through; see streamBody.
type answerBody struct {
	io.ReadCloser
	c *conn
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	_ = b.c.SetWriteDeadline(time.Now().Add(requestTimeout))
	return n, err
}

// hopByHop fields are of one connection: RFC 9110 section 7.6.1. The length is
// said with the body.
var hopByHop = map[string]bool{"Connection": true, "Keep-Alive": true, "Transfer-Encoding": true, "Upgrade": true, "Trailer": true,
	"Te": true, "Content-Length": true, "Date": true}

// getRoutes lists what is served where.
func (s *Server) getRoutes(ctx *fasthttp.RequestCtx) {
	all := []Route{}
	for _, f := range s.backend.Functions() {
		if f.State == Bad {
			continue
		}
		all = append(all, Route{Key: f.Key, Method: f.Method, Path: f.Path, Function: f.Name, Version: f.Version})
	}
	s.reply(ctx, http.StatusOK, all)
}

// Route is one route that is served.
type Route struct {
	Key      string `json:"key"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	Function string `json:"function"`
	Version  int    `json:"version,omitempty"` // of a deployed function
}

// postRotate replaces the admin token. Whoever had the old one, or a session,
// is a stranger from then on.
func (s *Server) postRotate(ctx *fasthttp.RequestCtx) {
	if s.config.Data == "" {
		s.fail(ctx, reasonNotImplemented)
		return
	}
	s.rotating.Lock()
	defer s.rotating.Unlock()
	// Two at once with the same old token: the second one's is none any more.
	if c := ctx.Conn().(*conn); !c.admin && !s.authorise(ctx, c, rightToken) {
		return
	}
	token, err := replaceToken(s.config.Data)
	if err != nil {
		s.log.Error("rotate the admin token", "err", err)
		s.fail(ctx, reasonInternal)
		return
	}
	d := digestOf(token)
	s.token.Store(&d)
	s.sessions.endAll()
	s.log.Info("the admin token was rotated")
	s.reply(ctx, http.StatusOK, map[string]string{"token": token})
}
