package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// reason is why a control request was refused: one per rule broken.
type reason uint8

const (
	reasonTokenMissing reason = iota
	reasonTokenWrong
	reasonTokenGuessing
	reasonCrossOrigin
	reasonPeer
	reasonAdminOnly
	reasonNotFound
	reasonMethod
	reasonNotImplemented
	reasonBusy
	reasonDraining
	reasonNotReady
	reasonNoTable
	reasonBadRequest
	reasonHeadTooLarge
	reasonTimeout
	reasonUpload
	reasonMediaType
	reasonTooLarge
	reasonDescriptor
	reasonDeploy
	reasonInternal
	reasonCount
)

// reasons: what each is called, answered with and says. What a client reads
// names no path, no row and no internal error.
var reasons = [reasonCount]struct {
	name   string
	status int
	text   string
}{
	reasonTokenMissing:   {"token_missing", 401, "this needs the admin token: send `Authorization: Bearer <token>`, it is in admin.token in the data directory"},
	reasonTokenWrong:     {"token_wrong", 401, "this is not the admin token of this server: it is in admin.token in the data directory"},
	reasonTokenGuessing:  {"token_guessing", 429, "too many wrong tokens from here"},
	reasonCrossOrigin:    {"cross_origin", 403, "this request comes from a page of another origin"},
	reasonPeer:           {"peer_refused", 403, "the admin socket is not for this process"},
	reasonAdminOnly:      {"admin_socket_only", 403, "this is accepted on the admin socket only: use the baton command on the machine itself"},
	reasonNotFound:       {"not_found", 404, "there is nothing here"},
	reasonMethod:         {"method_not_allowed", 405, "this does not exist for this method"},
	reasonNotImplemented: {"not_implemented", 501, "this feature is not in this release"},
	reasonBusy:           {"capacity_exceeded", 503, "too many control requests at a time"},
	reasonDraining:       {"draining", 503, "the server is stopping"},
	reasonNotReady:       {"no_worker", 503, "no worker is ready"},
	reasonNoTable:        {"no_table", 503, "the routes of this server were not read yet"},
	reasonBadRequest:     {"bad_request", 400, "the request cannot be read"},
	reasonHeadTooLarge:   {"head_too_large", 431, "the request's head is too large"},
	reasonTimeout:        {"request_timeout", 408, "the request did not arrive in time"},
	reasonUpload:         {"bad_upload", 400, "the upload cannot be read"},
	reasonMediaType:      {"unsupported_media_type", 415, "want multipart/form-data with the parts code and descriptor"},
	reasonTooLarge:       {"body_too_large", 413, "the upload is too large"},
	reasonDescriptor:     {"bad_descriptor", 400, "the descriptor is wrong"},
	reasonDeploy:         {"deploy_refused", 422, "the function was not deployed"}, // counts all faults of a deploy, each with a reason of its own
	reasonInternal:       {"internal", 500, "the control plane could not answer"},
}

func (r reason) String() string { return reasons[r].name }

// Status is the code that the reason is answered with.
func (r reason) Status() int { return reasons[r].status }

// component is what made the errors of this package.
const component = "gateway"

// errorBody is the form of every error that the platform makes.
type errorBody struct {
	Error     string `json:"error"`
	Component string `json:"component"`
	Reason    string `json:"reason"`
	RequestID string `json:"requestId"`
}

func (r reason) body(id string) []byte {
	b, err := encode(errorBody{reasons[r].text, component, r.String(), id})
	if err != nil {
		panic("control: an error body is not JSON: " + err.Error())
	}
	return b
}

// encode is a value as one line of JSON, for eyes too: "<" stays what it is. It
// is never sent as anything that a browser would read as markup.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return b.Bytes(), err
}

// fail answers a request with a reason. The request id is in the response.
func (s *Server) fail(ctx *fasthttp.RequestCtx, r reason) {
	s.refused[r].Add(1)
	h := &ctx.Response.Header
	ctx.SetStatusCode(r.Status())
	h.SetContentType("application/json")
	h.Set("X-Baton-Error", component)
	if r.Status() == fasthttp.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="baton"`)
	}
	if r == reasonNotReady || r == reasonNoTable || r == reasonDraining {
		h.Set("Retry-After", "1")
	}
	ctx.SetBody(r.body(string(h.Peek("X-Request-Id"))))
}

// handleUnreadable answers what fasthttp could not read as a request.
func (s *Server) handleUnreadable(ctx *fasthttp.RequestCtx, err error) {
	s.begin(ctx)
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &small):
		s.fail(ctx, reasonHeadTooLarge)
	case errors.As(err, &network) && network.Timeout():
		s.fail(ctx, reasonTimeout)
	default:
		s.fail(ctx, reasonBadRequest)
	}
}

// refuse answers c without looking at its request, and closes it. It lives at
// most refusalTimeout and the time of a close.
func (s *Server) refuse(c *conn, r reason) {
	defer c.Close()
	s.refused[r].Add(1)
	id, err := randomText(requestIDBytes)
	if err != nil {
		return
	}
	if err := c.SetDeadline(time.Now().Add(refusalTimeout)); err != nil {
		return
	}
	body := r.body(id)
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n"+
		"Retry-After: 1\r\nDate: %s\r\nCache-Control: no-store\r\nX-Baton-Error: %s\r\nX-Request-Id: %s\r\n\r\n%s",
		r.Status(), fasthttp.StatusMessage(r.Status()), strconv.Itoa(len(body)),
		time.Now().UTC().Format(http.TimeFormat), component, id, body)
}
