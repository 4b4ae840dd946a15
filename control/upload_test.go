package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"baton/deploy"
	"baton/deploy/build"
	"baton/internal/testenv"
)

// desk is a Deployer that does what it is told, and remembers what it was asked.
type desk struct {
	deploy func(ctx context.Context, r deploy.Request) (deploy.Result, error) // nil: it serves

	mu    sync.Mutex
	asked []asked
}

// asked is one request of a deploy.
type asked struct {
	name, descriptor, file, code string
	conditions                   deploy.Conditions
}

func (d *desk) Deploy(ctx context.Context, r deploy.Request) (deploy.Result, error) {
	a := asked{name: r.Name, descriptor: string(r.Descriptor.AppendJSON(nil)), conditions: r.Conditions}
	if r.Source != nil {
		code, err := io.ReadAll(r.Source.Reader)
		if err != nil {
			return deploy.Result{}, err
		}
		a.file, a.code = r.Source.Name, string(code)
	}
	d.mu.Lock()
	d.asked = append(d.asked, a)
	d.mu.Unlock()
	if d.deploy != nil {
		return d.deploy(ctx, r)
	}
	return deploy.Result{ID: "an-id", Name: r.Descriptor.Name, Version: 1, Key: "ANY:/x", Tag: "tag", Log: "built\n"}, nil
}

func (d *desk) all() []asked { d.mu.Lock(); defer d.mu.Unlock(); return d.asked }

func (d *desk) Rollback(_ context.Context, name string, version int, _ deploy.Conditions, _ func(string)) (deploy.Result, error) {
	if version > 2 {
		return deploy.Result{}, &deploy.Error{Reason: deploy.NoVersion, Text: "no"}
	}
	return deploy.Result{Name: name, Version: version, Key: "GET:/x", Tag: "tag"}, nil
}
func (d *desk) Delete(context.Context, string, deploy.Conditions) error { return nil }
func (d *desk) Get(_ context.Context, name string) (deploy.Function, error) {
	return deploy.Function{}, &deploy.Error{Reason: deploy.NotFound, Text: "there is no function of this name"}
}
func (d *desk) Versions(context.Context, string) ([]deploy.Version, error) { return nil, nil }

// deploying is a server with a desk and a data directory.
func deploying(t *testing.T, d *desk) *serving {
	t.Helper()
	data := privateDir(t)
	if err := os.Mkdir(filepath.Join(data, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateToken(data); err != nil {
		t.Fatal(err)
	}
	return serve(t, func(c *Config) { c.Deployer, c.Data = d, data })
}

// part is one part of a form.
type part struct{ name, file, text string }

const fine = `{"name":"x","runtime":"wasm"}`

// post is an upload as bytes on the wire.
func post(t *testing.T, method, path string, parts []part, fields ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		h := textproto.MIMEHeader{}
		disposition := fmt.Sprintf(`form-data; name="%s"`, p.name)
		if p.file != "" {
			disposition += fmt.Sprintf(`; filename="%s"`, p.file)
		}
		h.Set("Content-Disposition", disposition)
		out, err := w.CreatePart(h)
		if err == nil {
			_, err = io.WriteString(out, p.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	fields = append(fields, authorized, "Content-Type: "+w.FormDataContentType(), fmt.Sprintf("Content-Length: %d", b.Len()))
	return request(method, path, fields...) + b.String()
}

func TestUploadLaw(t *testing.T) {
	t.Parallel()
	many := make([]part, 9)
	for i := range many {
		many[i] = part{"code", "x", "x"}
	}
	large := strings.Repeat("x", spoolMemory+100)
	for _, c := range []struct {
		name   string
		parts  []part
		status int
		want   string // the reason, or of what arrived: "file: code"
	}{
		{"descriptor, then code", []part{{"descriptor", "", fine}, {"code", "m.wasm", "code"}}, 200, "m.wasm: code"},
		{"code, then descriptor", []part{{"code", "m.wasm", "code"}, {"descriptor", "", fine}}, 200, "m.wasm: code"},
		{"a descriptor as a file", []part{{"code", "m.wasm", "code"}, {"descriptor", "d.json", fine}}, 200, "m.wasm: code"},
		{"code without a file's name", []part{{"descriptor", "", fine}, {"code", "", "code"}}, 200, "module.wasm: code"},
		{"a name with folders", []part{{"descriptor", "", fine}, {"code", "../../etc/passwd", "code"}}, 200, "passwd: code"},
		{"code that does not fit in memory", []part{{"descriptor", "", fine}, {"code", "m.wasm", large}}, 200, "m.wasm: " + large},
		{"no code", []part{{"descriptor", "", fine}}, 400, "bad_upload"},
		{"no descriptor", []part{{"code", "m.wasm", "code"}}, 400, "bad_upload"},
		{"nothing", nil, 400, "bad_upload"},
		{"code twice", []part{{"code", "m", "x"}, {"code", "m", "x"}, {"descriptor", "", fine}}, 400, "bad_upload"},
		{"a descriptor twice", []part{{"descriptor", "", fine}, {"descriptor", "", fine}, {"code", "m", "x"}}, 400, "bad_upload"},
		{"a part too many", []part{{"descriptor", "", fine}, {"code", "m", "x"}, {"extra", "", "x"}}, 400, "bad_upload"},
		{"many parts", many, 400, "bad_upload"},
		{"a long name", []part{{"descriptor", "", fine}, {"code", strings.Repeat("n", fileNameMax+1), "x"}}, 400, "bad_upload"},
		{"a wrong descriptor", []part{{"descriptor", "", `{"name":""}`}, {"code", "m", "x"}}, 400, "bad_descriptor"},
		{"a descriptor that is none", []part{{"descriptor", "", `[]`}, {"code", "m", "x"}}, 400, "bad_descriptor"},
		{"a descriptor that is too large", []part{{"descriptor", "", `{"name":"` + strings.Repeat("x", descriptorBytesMax) + `"}`}, {"code", "m", "x"}}, 400, "bad_descriptor"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := &desk{}
			s := deploying(t, d)
			a := s.tcp(t, post(t, "POST", "/upload", c.parts))
			if a.StatusCode != c.status {
				t.Fatalf("%d %s, want %d", a.StatusCode, a.body, c.status)
			}
			all := d.all()
			if c.status != 200 {
				if a.reason() != c.want || len(all) > 0 {
					t.Errorf("%s, %d deploys; want %s and none", a.body, len(all), c.want)
				}
			} else if len(all) != 1 || all[0].file+": "+all[0].code != c.want {
				t.Errorf("%d deploys arrived, want %.40s", len(all), c.want)
			}
			if left, err := os.ReadDir(s.spoolDir()); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// Every wrong field is told at once, by name, with what was expected.
func TestUploadTellsAllWrongFields(t *testing.T) {
	t.Parallel()
	d := &desk{}
	s := deploying(t, d)
	a := s.tcp(t, post(t, "POST", "/upload", []part{{"descriptor", "", `{"name":"-","runtime":"cobol","memory":0,"timeout":"x","method":"BREW","path":"x","env":[],"colour":"red","auth":{}}`}, {"code", "m", "x"}}))
	var body faultBody
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.StatusCode != 400 || body.Status != "error" || body.Message == "" {
		t.Fatalf("%d %s, %v", a.StatusCode, a.body, err)
	}
	got := map[string]bool{}
	for _, f := range body.Fields {
		got[f.Field] = f.Want != ""
	}
	for _, field := range []string{"name", "runtime", "memory", "timeout", "method", "path", "env", "colour", "auth"} {
		if !got[field] {
			t.Errorf("%s is not told: %s", field, a.body)
		}
	}
}

func TestUploadAnswers(t *testing.T) {
	t.Parallel()
	upload := []part{{"descriptor", "", fine}, {"code", "m.wasm", "code"}}
	for _, c := range []struct {
		err     error
		status  int
		want    []string
		retries bool
	}{
		{nil, 200, []string{`"status":"success"`, `"uri":"/x"`, `"method":"POST"`, `"id":"an-id"`, `"version":1`, `"url":"/function/x"`, `"build":{"log":"built\n"`}, false},
		{&build.Error{Reason: build.CompileFailed, Detail: "x.c:1: no\n"}, 422, []string{`"status":"error"`, `"details":"x.c:1: no\n"`, `"component":"build"`, `"reason":"compile_failed"`}, false},
		{&build.Error{Reason: build.ProcessLimit, Hint: "512"}, 422, []string{`"reason":"process_limit"`, "512"}, false},
		{&build.Error{Reason: build.BuilderBusy}, 503, []string{`"reason":"builder_busy"`}, true},
		{&build.Error{Reason: build.ToolchainMissing, Hint: "apt install gcc"}, 501, []string{"apt install gcc"}, false},
		{&build.Error{Reason: build.BadSource, Err: build.ErrTooLarge}, 413, []string{`"reason":"bad_source"`}, false},
		{&deploy.Error{Reason: deploy.ModuleRefused, Text: "no _start"}, 422, []string{`"details":"no _start"`}, false},
		{&deploy.Error{Reason: deploy.RouteTaken, Field: "path", Text: "taken"}, 409, []string{`"fields":[{"field":"path"`}, false},
		{&deploy.Error{Reason: deploy.DiskFull, Text: "no room"}, 507, []string{`"reason":"disk_full"`}, false},
		{deploy.ErrTemporary, 503, []string{`"reason":"capacity_exceeded"`}, true},
		{errors.New("/srv/secret: no such file"), 500, []string{`"reason":"internal"`}, false},
	} {
		t.Run(fmt.Sprint(c.err), func(t *testing.T) {
			t.Parallel()
			d := &desk{}
			if c.err != nil {
				d.deploy = func(context.Context, deploy.Request) (deploy.Result, error) { return deploy.Result{}, c.err }
			}
			s := deploying(t, d)
			for _, fields := range [][]string{nil, {"Accept: text/event-stream"}} {
				a := s.tcp(t, post(t, "POST", "/system/upload", upload, fields...))
				want := c.status
				if fields != nil {
					want = 200
				}
				if a.StatusCode != want || strings.Contains(a.body, "secret") || (a.Header.Get("Retry-After") != "") != (c.retries && fields == nil) {
					t.Errorf("%d %v %s, want %d", a.StatusCode, a.Header, a.body, want)
				}
				for _, text := range c.want {
					if !strings.Contains(a.body, text) {
						t.Errorf("%s: not in %s", text, a.body)
					}
				}
				if fields != nil && c.err != nil && !strings.Contains(a.body, fmt.Sprintf(`"code":%d`, c.status)) {
					t.Errorf("the event does not tell the status %d: %s", c.status, a.body)
				}
			}
		})
	}
}

// The compiler's words come while it speaks, and in their order.
func TestUploadStreams(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	d := &desk{deploy: func(_ context.Context, r deploy.Request) (deploy.Result, error) {
		r.State(build.StateBuilding)
		for i := range 3 {
			_, _ = fmt.Fprintf(r.Log, "line %d\n", i)
			<-next
		}
		return deploy.Result{Name: "x", Version: 1, Key: "ANY:/x"}, nil
	}}
	s := deploying(t, d)
	client, server := tcpPair(t)
	c := &takenOver{Conn: server, request: strings.NewReader(post(t, "POST", "/upload", []part{{"descriptor", "", fine}, {"code", "m", "x"}}, "Accept: text/html, text/event-stream;q=0.9")), hangup: make(chan struct{})}
	if err := s.ServeConn(c); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for i := range 3 {
		want := fmt.Sprintf(`data: {"text":"line %d\n"}`, i)
		for !bytes.Contains(got, []byte(want)) {
			b := make([]byte, 4096)
			n, err := client.Read(b)
			if got = append(got, b[:n]...); err != nil {
				t.Fatalf("%q: %v", got, err)
			}
		}
		next <- struct{}{}
	}
	rest, err := io.ReadAll(client)
	if got = append(got, rest...); err != nil || !bytes.Contains(got, []byte("event: done\ndata: {\"status\":\"success\"")) {
		t.Errorf("%q, %v", got, err)
	}
	if first := bytes.Index(got, []byte("event: state")); first < 0 || first > bytes.Index(got, []byte("line 0")) {
		t.Errorf("the state comes after what it is of: %q", got)
	}
}

// A client that goes away ends its deploy, with events and without.
func TestHangupEndsADeploy(t *testing.T) {
	t.Parallel()
	for _, fields := range [][]string{nil, {"Accept: text/event-stream"}} {
		began, ended := make(chan struct{}), make(chan error, 1)
		d := &desk{deploy: func(ctx context.Context, _ deploy.Request) (deploy.Result, error) {
			close(began)
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return deploy.Result{}, context.Cause(ctx)
		}}
		s := deploying(t, d)
		client, server := tcpPair(t)
		c := &takenOver{Conn: server, request: strings.NewReader(post(t, "POST", "/upload", []part{{"descriptor", "", fine}, {"code", "m", "x"}}, fields...)), hangup: make(chan struct{})}
		if err := s.ServeConn(c); err != nil {
			t.Fatal(err)
		}
		<-began
		_ = client.Close()
		close(c.hangup)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		testenv.Until(t, "the upload gives its place back", func() bool { return s.uploads.Load() == 0 })
	}
}

func TestUploadsAreBounded(t *testing.T) {
	t.Parallel()
	s := deploying(t, &desk{})
	s.uploads.Add(uploadsMax)
	a := s.tcp(t, post(t, "POST", "/upload", []part{{"descriptor", "", fine}, {"code", "m", "x"}}))
	if a.StatusCode != http.StatusServiceUnavailable || a.reason() != "capacity_exceeded" || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	s.uploads.Add(-uploadsMax)
}

// A body is refused by what it announces, before it comes.
func TestUploadThatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := deploying(t, &desk{})
	a := s.tcp(t, request("POST", "/upload", authorized, "Content-Type: multipart/form-data; boundary=x", "Content-Length: 99999999999")+strings.Repeat("x", 16<<10))
	if a.StatusCode != http.StatusRequestEntityTooLarge || a.reason() != "body_too_large" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestPutLaw(t *testing.T) {
	t.Parallel()
	const json = "Content-Type: application/json"
	for _, c := range []struct {
		name, body string
		fields     []string
		status     int
		reason     string
	}{
		{"a descriptor", fine, []string{json}, 200, ""},
		{"with a condition", fine, []string{json, `If-Match: "tag", W/"weak"`}, 200, ""},
		{"with a condition that is none", fine, []string{json, "If-Match: tag"}, 400, "bad_request"},
		{"nothing", "", []string{json}, 400, "bad_descriptor"},
		{"text", fine, []string{"Content-Type: text/plain"}, 415, "unsupported_media_type"},
		{"no media type", fine, nil, 415, "unsupported_media_type"},
	} {
		d := &desk{}
		s := deploying(t, d)
		a := s.tcp(t, request("PUT", "/system/functions/x", append(c.fields, authorized, fmt.Sprintf("Content-Length: %d", len(c.body)))...)+c.body)
		if a.StatusCode != c.status || a.reason() != c.reason {
			t.Errorf("%s: %d %s, want %d %s", c.name, a.StatusCode, a.body, c.status, c.reason)
		}
		if all := d.all(); (len(all) == 1 && all[0].name == "x") != (c.status == 200) {
			t.Errorf("%s: %d deploys", c.name, len(all))
		}
		if c.status == 200 && a.Header.Get("ETag") != `"tag"` {
			t.Errorf("%s: ETag %q", c.name, a.Header.Get("ETag"))
		}
	}
}

// A name is a name: nothing that leads elsewhere finds a resource, and no Deployer hears of it.
func TestNamesAreNoPaths(t *testing.T) {
	t.Parallel()
	d := &desk{}
	s := deploying(t, d)
	for _, name := range []string{"..", ".", "../x", "%2e%2e", "..%2fx", "x%00", "x'--", "x;y", "-x", "_x", "x\\y", "%78", strings.Repeat("x", 65), "x/../y", "x/versions/../../y", ""} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			a := s.tcp(t, request(method, "/system/functions/"+name, authorized, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(fine)))+fine)
			if a.StatusCode != 404 && a.StatusCode != 400 || a.reason() == "function_not_found" {
				t.Errorf("%s %q: %d %s", method, name, a.StatusCode, a.body)
			}
		}
	}
	if all := d.all(); len(all) > 0 {
		t.Errorf("deploys: %+v", all)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	s := deploying(t, &desk{})
	session := sessionOf(t, s.tcp(t, request("POST", "/system/session", authorized, "Content-Length: 0")))
	if a := s.tcp(t, request("GET", "/system/routes", session)); a.StatusCode != 200 {
		t.Fatalf("the session is none: %d %s", a.StatusCode, a.body)
	}
	link, err := s.Login()
	if err != nil {
		t.Fatal(err)
	}
	a := s.tcp(t, request("POST", "/system/token/rotate", authorized, "Content-Length: 0"))
	var rotated struct{ Token string }
	if err := json.Unmarshal([]byte(a.body), &rotated); err != nil || a.StatusCode != 200 {
		t.Fatalf("%d %s, %v", a.StatusCode, a.body, err)
	}
	if kept, err := LoadToken(s.config.Data); err != nil || kept != rotated.Token || kept == testToken {
		t.Errorf("the file has %q, %v; want the new token", kept, err)
	}
	for _, old := range []string{authorized, session} {
		if a := s.tcp(t, request("GET", "/system/routes", old)); a.StatusCode != 401 {
			t.Errorf("%s: %d, want 401", old, a.StatusCode)
		}
	}
	if a := s.tcp(t, request("GET", "/upload?login="+link)); a.StatusCode == 303 {
		t.Error("a link from before is still good")
	}
	if a := s.tcp(t, request("GET", "/system/routes", "Authorization: Bearer "+rotated.Token)); a.StatusCode != 200 {
		t.Errorf("the new token: %d %s", a.StatusCode, a.body)
	}
}
