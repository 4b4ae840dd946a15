package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"baton/internal/testenv"
)

// described is a running server and what it says of itself.
type described struct {
	*testenv.Server
	token  string
	doc    *openapi3.T
	client *http.Client
	seen   map[string][]int // statuses, by operation
}

// call makes one request of an operation ("GET /path/{name}"), at path when
// that is not the operation's own, and holds the answer against its description.
func (d *described) call(t *testing.T, operation, at string, body []byte, fields ...string) (int, []byte, http.Header) {
	t.Helper()
	method, template, _ := strings.Cut(operation, " ")
	if at == "" {
		at = template
	}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+d.Addr+at, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if d.token != "" {
		request.Header.Set("Authorization", "Bearer "+d.token)
	}
	for i := 0; i < len(fields); i += 2 {
		request.Header.Set(fields[i], fields[i+1])
	}
	response, err := d.client.Do(request)
	if err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	defer response.Body.Close()
	var text []byte
	if strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") && template == "/system/events" {
		first := make([]byte, 1<<10) // it has no end
		n, err := response.Body.Read(first)
		if err != nil {
			t.Fatalf("%s: %v", operation, err)
		}
		text = first[:n]
	} else if text, err = io.ReadAll(response.Body); err != nil {
		t.Fatalf("%s: %v", operation, err)
	}
	d.seen[operation] = append(d.seen[operation], response.StatusCode)
	if id := response.Header.Get("X-Request-Id"); id == "" {
		t.Errorf("%s: no X-Request-Id", operation)
	}
	d.check(t, operation, response, text)
	return response.StatusCode, text, response.Header
}

// check holds an answer against the description of its operation.
func (d *described) check(t *testing.T, operation string, response *http.Response, text []byte) {
	t.Helper()
	method, template, _ := strings.Cut(operation, " ")
	described := d.doc.Paths.Value(template).GetOperation(method).Responses
	want := described.Status(response.StatusCode)
	if want == nil {
		want = described.Default()
	}
	if want == nil {
		t.Errorf("%s: %d is not described: %s", operation, response.StatusCode, text)
		return
	}
	if len(want.Value.Content) == 0 {
		if len(text) > 0 {
			t.Errorf("%s: %d has a body, and none is described: %s", operation, response.StatusCode, text)
		}
		return
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	media := want.Value.Content.Get(kind)
	if err != nil || media == nil {
		t.Errorf("%s: %d: the media type %q is not described", operation, response.StatusCode, kind)
		return
	}
	if kind != "application/json" || media.Schema.Value.IsEmpty() {
		return
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Errorf("%s: %d: %v: %s", operation, response.StatusCode, err, text)
		return
	}
	if err := media.Schema.Value.VisitJSON(value, openapi3.MultiErrors()); err != nil {
		t.Errorf("%s: %d: %s\n%v", operation, response.StatusCode, text, err)
	}
}

func describe(t *testing.T) *described {
	t.Helper()
	s := start(t, testenv.Options{Workers: 1})
	d := &described{Server: s, token: s.Token(t), seen: map[string][]int{}, client: &http.Client{
		Timeout:       testenv.Patience(),
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr+"/system/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+d.token)
	response, err := d.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if d.doc, err = openapi3.NewLoader().LoadFromData(text); err != nil {
		t.Fatal(err)
	}
	if err := d.doc.Validate(context.Background()); err != nil {
		t.Fatalf("the document is none: %v", err)
	}
	return d
}

// form is an upload's body and its media type.
func form(t *testing.T, descriptor, name string, code []byte) (body []byte, kind string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	err := w.WriteField("descriptor", descriptor)
	part, e := w.CreateFormFile("code", name)
	if err = errors.Join(err, e); err == nil {
		_, err = part.Write(code)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

// What the server answers is what its document says, for every operation.
func TestDocumentedAnswers(t *testing.T) {
	t.Parallel()
	d := describe(t)
	module, err := os.ReadFile(probeModule(t))
	if err != nil {
		t.Fatal(err)
	}
	want := func(status int, operation, at string, body []byte, fields ...string) ([]byte, http.Header) {
		t.Helper()
		got, text, header := d.call(t, operation, at, body, fields...)
		if got != status {
			t.Errorf("%s %s: %d, want %d: %s", operation, at, got, status, text)
		}
		return text, header
	}

	// A stranger.
	token := d.token
	d.token = ""
	for path, item := range d.doc.Paths.Map() {
		for method, o := range item.Operations() {
			if o.Security != nil && len(*o.Security) == 0 {
				continue
			}
			at := strings.ReplaceAll(path, "{name}", "probe-echo")
			want(401, method+" "+path, at, nil)
			want(403, method+" "+path, at, nil, "Origin", "http://elsewhere.example")
		}
	}
	d.token = token

	const one = "/system/functions/documented"
	const item = "/system/functions/{name}"
	descriptor := `{"name":"documented","runtime":"wasm","handler":"text","path":"/documented"}`
	good, kind := form(t, descriptor, "m.wasm", module)
	want(404, "GET "+item, one, nil)
	want(404, "DELETE "+item, one, nil)
	want(404, "GET "+item+"/versions", one+"/versions", nil)
	want(404, "POST "+item+"/rollback", one+"/rollback", nil)
	want(400, "PUT "+item, one, []byte(descriptor), "Content-Type", "application/json") // no code
	want(200, "POST /upload", "", good, "Content-Type", kind)
	want(200, "POST /system/upload", "", good, "Content-Type", kind) // unchanged
	_, header := want(200, "GET "+item, one, nil)
	want(412, "PUT "+item, one, good, "Content-Type", kind, "If-None-Match", "*")
	want(412, "DELETE "+item, one, nil, "If-Match", `"another"`)
	want(412, "POST "+item+"/rollback", one+"/rollback", nil, "If-Match", `"another"`)
	want(200, "PUT "+item, one, []byte(strings.Replace(descriptor, `"text"`, `"stderr"`, 1)), "Content-Type", "application/json", "If-Match", header.Get("ETag"))
	want(400, "PUT "+item, "/system/functions/other", good, "Content-Type", kind) // another name
	want(400, "PUT "+item, one, good, "Content-Type", kind, "If-Match", "no tag")
	want(415, "PUT "+item, one, good, "Content-Type", "text/plain")
	want(415, "POST /upload", "", []byte("{}"), "Content-Type", "application/json")
	want(400, "POST /upload", "", []byte("no form"), "Content-Type", kind)
	wrong, wrongKind := form(t, `{"name":"","runtime":"cobol","memory":"x","colour":1}`, "m.wasm", module)
	text, _ := want(400, "POST /upload", "", wrong, "Content-Type", wrongKind)
	for _, field := range []string{"name", "runtime", "memory", "colour"} {
		if !strings.Contains(string(text), `"field":"`+field+`"`) {
			t.Errorf("the wrong field %s is not named: %s", field, text)
		}
	}
	taken, takenKind := form(t, `{"name":"another","runtime":"wasm","path":"/documented"}`, "m.wasm", module)
	want(409, "POST /upload", "", taken, "Content-Type", takenKind)
	broken, brokenKind := form(t, `{"name":"broken","runtime":"wasm"}`, "m.wasm", []byte("this is no module"))
	want(422, "POST /upload", "", broken, "Content-Type", brokenKind)
	events, _ := want(200, "POST /upload", "", broken, "Content-Type", brokenKind, "Accept", "text/event-stream")
	if !strings.Contains(string(events), "event: error\ndata: ") || !strings.Contains(string(events), `"code":422`) {
		t.Errorf("events: %s", events)
	}

	want(200, "GET "+item+"/versions", one+"/versions", nil)
	want(200, "POST "+item+"/invoke", one+"/invoke", []byte("x"))
	want(404, "POST "+item+"/invoke", "/system/functions/nobody/invoke", nil)
	testenv.Until(t, "the log has what the function said", func() bool {
		_, text, _ := d.call(t, "GET "+item+"/logs", one+"/logs", nil)
		return d.checkLog(t, text) > 0
	})
	want(400, "GET "+item+"/logs", one+"/logs?tail=many", nil)
	want(200, "POST "+item+"/rollback", one+"/rollback", nil)
	want(200, "POST "+item+"/rollback", one+"/rollback", []byte(`{"version":2}`), "Content-Type", "application/json")
	want(404, "POST "+item+"/rollback", one+"/rollback", []byte(`{"version":7}`), "Content-Type", "application/json")
	want(400, "POST "+item+"/rollback", one+"/rollback", []byte(`{"wersion":7}`), "Content-Type", "application/json")
	if err := open(t, d.Server).Put(t.Context(), "GET:/bad", `{"name":1}`); err != nil {
		t.Fatal(err)
	}
	testenv.Until(t, "the bad row is listed", func() bool {
		_, text, _ := d.call(t, "GET /system/functions", "", nil)
		return strings.Contains(string(text), `"state":"bad"`)
	})
	for _, path := range []string{"/", "/upload", "/healthz", "/readyz", "/metrics", "/system/openapi.json", "/system/routes", "/system/workers", "/system/status", "/system/events", "/system/session"} {
		want(200, "GET "+path, "", nil)
	}
	want(204, "POST /system/session", "", nil)
	want(204, "DELETE /system/session", "", nil)
	want(413, "POST "+item+"/invoke", one+"/invoke", make([]byte, 11<<20))
	want(431, "GET /system/routes", "", nil, "X-Long", strings.Repeat("x", 40<<10))
	want(401, "GET /system/routes", "", nil, "Authorization", "Basic")
	want(204, "DELETE "+item, one, nil)

	d.token = strings.Repeat("w", 40)
	want(401, "GET /system/routes", "", nil)
	d.token = token
	want(403, "POST /system/stop", "", nil)
	text, _ = want(200, "POST /system/token/rotate", "", nil)
	var rotated struct{ Token string }
	if err := json.Unmarshal(text, &rotated); err != nil {
		t.Fatal(err)
	}
	want(401, "GET /system/routes", "", nil)
	d.token = rotated.Token
	want(200, "GET /system/routes", "", nil)
	d.stop(t)

	for path, item := range d.doc.Paths.Map() {
		for method := range item.Operations() {
			name := method + " " + path
			if !slices.ContainsFunc(d.seen[name], func(status int) bool { return status < 400 }) {
				t.Errorf("%s has never answered well: %v", name, d.seen[name])
			}
		}
	}
}

// checkLog holds the lines of a log against their description, and counts them.
func (d *described) checkLog(t *testing.T, text []byte) (lines int) {
	t.Helper()
	for line := range strings.Lines(string(text)) {
		var value any
		if err := json.Unmarshal([]byte(line), &value); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		if err := d.doc.Components.Schemas["LogEntry"].Value.VisitJSON(value, openapi3.MultiErrors()); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		lines++
	}
	return lines
}

// stop asks for the end where that is accepted.
func (d *described) stop(t *testing.T) {
	t.Helper()
	client := &http.Client{Timeout: testenv.Patience(), Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", filepath.Join(d.Data, "run", "admin.sock"))
	}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://baton/system/stop", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	d.seen["POST /system/stop"] = append(d.seen["POST /system/stop"], response.StatusCode)
	d.check(t, "POST /system/stop", response, text)
	if exit := d.Wait(t); exit != 0 {
		t.Errorf("the server ended with %d", exit)
	}
}
