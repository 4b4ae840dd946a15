package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"baton/runtime/logs"
)

// AdminSocket is the admin socket's place in a data directory.
func AdminSocket(data string) string { return filepath.Join(data, "run", "admin.sock") }

const (
	// answerBytesMax bounds what a client reads of one answer: 100,000 routes are
	// about 40 MB.
	answerBytesMax = 256 << 20

	// eventBytesMax bounds one line of an event stream: a compiler's whole output
	// in one error is below it.
	eventBytesMax = 16 << 20

	// dialTimeout bounds the wait for a connection to a remote server.
	dialTimeout = 10 * time.Second
)

// ErrNotRunning says that nobody serves the data directory, or at the address.
var ErrNotRunning = errors.New("not running")

// ErrCutOff says that the server's answer ended before it was whole.
var ErrCutOff = errors.New("the server's answer ended too early")

// RefusedError is an answer of the control plane that is an error.
type RefusedError struct {
	Status    int    // of HTTP
	Text      string // what it says
	Reason    string
	Details   string       // a compiler's output, for example
	Fields    []FieldFault // of a descriptor
	RequestID string
}

// FieldFault is one wrong field of a descriptor.
type FieldFault struct {
	Field string `json:"field"`
	Want  string `json:"want"`
	Got   string `json:"got,omitempty"`
}

func (e *RefusedError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the server answered %d", e.Status)
	}
	return e.Text
}

// refused reads the body of an error.
func refused(status int, body []byte) *RefusedError {
	var e struct {
		Error     string       `json:"error"`
		Message   string       `json:"message"`
		Reason    string       `json:"reason"`
		Details   string       `json:"details"`
		Fields    []FieldFault `json:"fields"`
		RequestID string       `json:"requestId"`
		Code      int          `json:"code"`
	}
	if json.Unmarshal(body, &e) != nil {
		return &RefusedError{Status: status, Text: strings.TrimSpace(string(body[:min(len(body), 200)]))}
	}
	if e.Error == "" {
		e.Error = e.Message
	}
	if e.Code != 0 {
		status = e.Code
	}
	return &RefusedError{status, e.Error, e.Reason, e.Details, e.Fields, e.RequestID}
}

// Client speaks to a control plane: by the admin socket of a data directory,
// with the token when it can be read, or by an URL and a token. Its zero value
// is not usable; its methods may be called from any goroutine.
type Client struct {
	data  string // of the admin socket; empty: remote
	base  string // of every URL, without a slash at its end
	token string // remote
	http  http.Client
}

// NewClient makes a client of the admin socket. It connects anew for each call
// and holds nothing.
func NewClient(data string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		address, release, err := unixAddress(AdminSocket(data))
		if err != nil {
			return nil, err
		}
		defer release()
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	}
	return &Client{data: data, base: "http://baton", http: newHTTP(dial, nil)}
}

// NewRemoteClient makes a client of the server at an URL, as in
// https://faas.example.org, with the admin token. It holds nothing either.
func NewRemoteClient(server, token string) (*Client, error) {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return nil, fmt.Errorf("server %q: %w", server, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("server %q: want an URL, as in http://127.0.0.1:8080 or https://faas.example.org", server)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, fmt.Errorf("server %q: want scheme, host and port only, as in %s://%s", server, u.Scheme, u.Host)
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	return &Client{base: u.Scheme + "://" + u.Host, token: token, http: newHTTP(dialer.DialContext, http.ProxyFromEnvironment)}, nil
}

func newHTTP(dial func(context.Context, string, string) (net.Conn, error), proxy func(*http.Request) (*url.URL, error)) http.Client {
	return http.Client{
		Transport: &http.Transport{DialContext: dial, Proxy: proxy, DisableKeepAlives: true, DisableCompression: true},
		// A redirect would carry the token to who knows whom.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// where names the server in an error.
func (c *Client) where() string {
	if c.data != "" {
		return AdminSocket(c.data)
	}
	return c.base
}

// Functions lists the rows of the functions table.
func (c *Client) Functions(ctx context.Context) ([]Function, error) {
	var list []Function
	return list, c.call(ctx, http.MethodGet, "/system/functions", nil, &list)
}

// Function asks for one function by name; etag names its state, for Delete.
func (c *Client) Function(ctx context.Context, name string) (detail FunctionDetail, etag string, err error) {
	response, err := c.do(ctx, http.MethodGet, functionPath(name, ""), nil, nil)
	if err != nil {
		return detail, "", err
	}
	defer response.Body.Close()
	err = read(response, &detail)
	return detail, response.Header.Get("ETag"), err
}

// VersionInfo is one kept version of a function.
type VersionInfo struct {
	Version    int             `json:"version"`
	Active     bool            `json:"active"`
	Created    time.Time       `json:"created"`
	Descriptor json.RawMessage `json:"descriptor,omitempty"`
	Digest     string          `json:"digest,omitempty"`
	Size       int64           `json:"size,omitempty"` // bytes of its files
}

// Versions lists the versions of a function that are kept.
func (c *Client) Versions(ctx context.Context, name string) ([]VersionInfo, error) {
	var list []VersionInfo
	return list, c.call(ctx, http.MethodGet, functionPath(name, "/versions"), nil, &list)
}

// Rollback makes a kept version the one that serves; 0: the one before.
func (c *Client) Rollback(ctx context.Context, name string, version int) (DeployResult, error) {
	body := []byte("{}")
	if version != 0 {
		body = fmt.Appendf(nil, `{"version":%d}`, version)
	}
	var r DeployResult
	return r, c.call(ctx, http.MethodPost, functionPath(name, "/rollback"), body, &r)
}

// Delete removes a function, all its routes and versions. A non-empty etag has
// it refused when the function has changed since.
func (c *Client) Delete(ctx context.Context, name, etag string) error {
	header := http.Header{}
	if etag != "" {
		header.Set("If-Match", etag)
	}
	response, err := c.do(ctx, http.MethodDelete, functionPath(name, ""), header, nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// Status describes the server, its workers and the rows it refuses.
func (c *Client) Status(ctx context.Context) (Report, error) {
	var r Report
	err := c.call(ctx, http.MethodGet, "/system/status", nil, &r)
	return r, err
}

// Stop asks the server to stop. It returns when the server has accepted that,
// not when it has stopped.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/system/stop", nil, nil)
}

// RotateToken has the server make a new admin token, and returns it. The old one
// and every session are refused from then on.
func (c *Client) RotateToken(ctx context.Context) (string, error) {
	var answer struct {
		Token string `json:"token"`
	}
	err := c.call(ctx, http.MethodPost, "/system/token/rotate", nil, &answer)
	return answer.Token, err
}

// Invoke calls a function by name and returns its own answer, whatever its
// status, whose body the caller closes. query and contentType may be empty, body
// nil.
func (c *Client) Invoke(ctx context.Context, name, query, contentType string, body io.Reader) (*http.Response, error) {
	path := functionPath(name, "/invoke")
	if query != "" {
		path += "?" + query
	}
	header := http.Header{}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	return c.send(ctx, http.MethodPost, path, header, body)
}

// PublicURL is where the functions of the server are, without a slash at its end.
func (c *Client) PublicURL(ctx context.Context) (string, error) {
	if c.data == "" {
		return c.base, nil
	}
	status, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	address, err := netip.ParseAddrPort(status.Listen)
	if err != nil {
		return "", fmt.Errorf("read the server's answer: %w", err)
	}
	if address.Addr().IsUnspecified() {
		return "http://localhost:" + strconv.Itoa(int(address.Port())), nil
	}
	return "http://" + address.String(), nil
}

// Call is one request to a function by its name, as any client makes it: the
// token is not sent. Header may be nil, and so may Body.
type Call struct {
	Name   string
	Method string
	Query  string // as sent, without '?'
	Header http.Header
	Body   io.Reader
}

// Call calls a function and returns its own answer, whatever its status, whose
// body the caller closes. Redirects are not followed.
func (c *Client) Call(ctx context.Context, call Call) (*http.Response, error) {
	asking, cancel := context.WithTimeout(ctx, dialTimeout) // the function may take longer
	defer cancel()
	base, err := c.PublicURL(asking)
	if err != nil {
		return nil, err
	}
	target := base + "/function/" + url.PathEscape(call.Name)
	if call.Query != "" {
		target += "?" + call.Query
	}
	request, err := http.NewRequestWithContext(ctx, call.Method, target, call.Body)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", call.Name, err)
	}
	for name, values := range call.Header {
		request.Header[name] = values
	}
	if host := call.Header.Get("Host"); host != "" {
		request.Host = host
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	proxy := http.ProxyFromEnvironment
	if c.data != "" {
		proxy = nil // it is this machine
	}
	client := newHTTP(dialer.DialContext, proxy)
	response, err := client.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: nobody answers at %s", ErrNotRunning, base)
	} else if err != nil {
		return nil, fmt.Errorf("call %s: %w", call.Name, err)
	}
	return response, nil
}

// Logs calls each for the entries of a function's log that q wants; see
// logs.Read. It returns each's first error as it is.
func (c *Client) Logs(ctx context.Context, q logs.Query, each func(logs.Entry) error) error {
	parameters := url.Values{}
	if q.Tail > 0 {
		parameters.Set("tail", strconv.Itoa(q.Tail))
	}
	if !q.Since.IsZero() {
		parameters.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Request != "" {
		parameters.Set("request", q.Request)
	}
	if q.Follow {
		parameters.Set("follow", "1")
	}
	path := functionPath(q.Function, "/logs")
	if len(parameters) > 0 {
		path += "?" + parameters.Encode()
	}
	response, err := c.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, eventBytesMax)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue // says only that the server is still there
		}
		var e logs.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// Upload is code and what it is to become.
type Upload struct {
	FileName   string // of the code: its extension says what it is
	Code       io.Reader
	Size       int64 // of Code, in bytes; below 0: not known before its end
	Descriptor []byte

	// Progress is told how it goes, on any goroutine, but on one at a time and
	// not after Deploy. nil: nobody is.
	Progress func(Progress)
}

// Progress is one thing that happened during a deploy: one field is set.
type Progress struct {
	Sent  int64  // bytes of the code, so far
	State string // "waiting", "fetching", "building", "preparing", "publishing"
	Log   string // what the compiler has printed
}

// DeployResult is what a deploy or a rollback has made.
type DeployResult struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version int    `json:"version"`
	URI     string `json:"uri"`
	Method  string `json:"method"`
	Key     string `json:"key"` // "METHOD:/path"
	URL     string `json:"url"` // by name
	Message string `json:"message"`

	Unchanged bool     `json:"unchanged"` // this version served already
	Assumed   []string `json:"assumed"`   // by the builder, in words
	Build     struct {
		Log        string  `json:"log"`
		DurationMS float64 `json:"duration_ms"`
		Cached     bool    `json:"cached"`
	} `json:"build"`

	Raw json.RawMessage `json:"-"` // the answer, whole
}

// UnmarshalJSON keeps the answer beside its fields.
func (r *DeployResult) UnmarshalJSON(text []byte) error {
	type fields DeployResult
	if err := json.Unmarshal(text, (*fields)(r)); err != nil {
		return err
	}
	r.Raw = bytes.Clone(text)
	return nil
}

// Deploy sends code and its descriptor, and returns when the new version serves
// every request that starts afterwards, or is refused: a *RefusedError with the
// compiler's output or the wrong fields.
func (c *Client) Deploy(ctx context.Context, u Upload) (DeployResult, error) {
	var r DeployResult
	code := &uploadBody{from: u.Code, progress: u.Progress}
	if u.Size >= 0 {
		code.from = io.LimitReader(u.Code, u.Size)
	}
	defer code.close()
	body, size, kind, err := u.form(code)
	if err != nil {
		return r, fmt.Errorf("send the code: %w", err)
	}
	request, err := c.request(ctx, http.MethodPost, "/system/upload", body)
	if err != nil {
		return r, err
	}
	request.ContentLength = size
	request.Header.Set("Content-Type", kind)
	return r, c.deploy(request, code.tell, &r)
}

// Describe gives a deployed function another descriptor: the code stays, and
// nothing is built. progress may be nil; otherwise as Deploy.
func (c *Client) Describe(ctx context.Context, name string, descriptor []byte, progress func(Progress)) (DeployResult, error) {
	var r DeployResult
	request, err := c.request(ctx, http.MethodPut, functionPath(name, ""), bytes.NewReader(descriptor))
	if err != nil {
		return r, err
	}
	request.Header.Set("Content-Type", "application/json")
	if progress == nil {
		progress = func(Progress) {}
	}
	return r, c.deploy(request, progress, &r)
}

// deploy makes a request whose answer tells how a deploy goes.
func (c *Client) deploy(request *http.Request, tell func(Progress), r *DeployResult) error {
	request.Header.Set("Accept", "text/event-stream")
	response, err := c.roundTrip(request)
	if err != nil {
		return err
	}
	if err := refusal(response); err != nil {
		return err
	}
	defer response.Body.Close()
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind != "text/event-stream" {
		return read(response, r)
	}
	return readEvents(response.Body, tell, r)
}

// form is the upload as multipart/form-data: the descriptor first, so that a
// wrong one is refused before the code is sent.
func (u *Upload) form(code io.Reader) (body io.Reader, size int64, kind string, err error) {
	var head bytes.Buffer
	form := multipart.NewWriter(&head)
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", `form-data; name="descriptor"`)
	h.Set("Content-Type", "application/json")
	part, err := form.CreatePart(h)
	if err == nil {
		_, err = part.Write(u.Descriptor)
	}
	if err == nil {
		_, err = form.CreateFormFile("code", u.FileName)
	}
	if err != nil {
		return nil, 0, "", err
	}
	n := head.Len()
	if err := form.Close(); err != nil {
		return nil, 0, "", err
	}
	tail := head.Bytes()[n:]
	size = -1 // sent in chunks
	if u.Size >= 0 {
		size = int64(head.Len()) + u.Size
	}
	return io.MultiReader(bytes.NewReader(head.Bytes()[:n]), code, bytes.NewReader(tail)),
		size, form.FormDataContentType(), nil
}

// uploadBody is the code on its way. It is read by a goroutine of the transport,
// which may outlive the answer: not after close.
type uploadBody struct {
	mu       sync.Mutex // above from, and held while progress is told
	from     io.Reader
	sent     int64
	progress func(Progress)
}

func (b *uploadBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from == nil {
		return 0, os.ErrClosed
	}
	n, err := b.from.Read(p)
	b.sent += int64(n)
	if n > 0 {
		b.tellLocked(Progress{Sent: b.sent})
	}
	return n, err
}

func (b *uploadBody) tell(p Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tellLocked(p)
}

func (b *uploadBody) tellLocked(p Progress) {
	if b.progress != nil {
		b.progress(p)
	}
}

func (b *uploadBody) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from = nil
}

// readEvents reads the stream of a deploy up to its last event.
//
// Source: HTML, section 9.2.6 "Interpreting an event stream".
func readEvents(body io.Reader, tell func(Progress), r *DeployResult) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, eventBytesMax)
	event, data := "", []byte(nil)
	for lines.Scan() {
		line := lines.Text()
		if line != "" {
			field, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch field {
			case "event":
				event = value
			case "data":
				if data != nil {
					data = append(data, '\n')
				}
				data = append(data, value...)
			}
			continue
		}
		done, err := readEvent(event, data, tell, r)
		if done || err != nil {
			return err
		}
		event, data = "", nil
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return fmt.Errorf("deploy: %w: whether the new version serves is not known, `baton versions` tells", ErrCutOff)
}

func readEvent(event string, data []byte, tell func(Progress), r *DeployResult) (done bool, err error) {
	switch event {
	case "state", "log":
		var p struct {
			State string `json:"state"`
			Text  string `json:"text"`
		}
		if err := json.Unmarshal(data, &p); err != nil {
			return false, fmt.Errorf("read the server's answer: event %s: %w", event, err)
		}
		tell(Progress{State: p.State, Log: p.Text})
	case "done":
		if err := json.Unmarshal(data, r); err != nil {
			return true, fmt.Errorf("read the server's answer: event %s: %w", event, err)
		}
		return true, nil
	case "error":
		return true, refused(http.StatusInternalServerError, data)
	}
	return false, nil // a later server's
}

func functionPath(name, rest string) string {
	return "/system/functions/" + url.PathEscape(name) + rest
}

// call makes one request; body, when not nil, is JSON. A nil into drops the
// answer's body. Errors are a *RefusedError, ErrNotRunning wrapped, or those of
// the connection.
func (c *Client) call(ctx context.Context, method, path string, body []byte, into any) error {
	header := http.Header{}
	if body != nil {
		header.Set("Content-Type", "application/json")
	}
	response, err := c.do(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if into == nil {
		return nil
	}
	return read(response, into)
}

func read(response *http.Response, into any) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// do makes one request whose answer is no error; the caller closes its body.
func (c *Client) do(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, error) {
	var from io.Reader
	if body != nil {
		from = bytes.NewReader(body)
	}
	response, err := c.send(ctx, method, path, header, from)
	if err == nil {
		err = refusal(response)
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// refusal is the error that an answer is; its body is closed then.
func refusal(response *http.Response) error {
	if response.StatusCode < http.StatusMultipleChoices {
		return nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, eventBytesMax))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return refused(response.StatusCode, body)
}

func (c *Client) send(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	request, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	return c.roundTrip(request)
}

// request carries the token.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	token := c.token
	if c.data != "" {
		token, _ = LoadToken(c.data) // the admin socket may do without
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return request, nil
}

func (c *Client) roundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.http.Do(request)
	switch {
	case c.data != "" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody answers at %s", ErrNotRunning, c.where())
	case c.data != "" && errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("ask the server: %w: only the user who runs it may (and root)", err)
	case err != nil:
		return nil, fmt.Errorf("ask the server: %w", err)
	}
	return response, nil
}
