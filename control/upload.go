package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"baton/deploy"
	"baton/deploy/build"
	"baton/route"
)

const (
	// uploadsMax uploads are read and deployed at a time: each may have its code
	// on the disk. The one above is answered 503.
	uploadsMax = 32
	// descriptorBytesMax is what is read of a descriptor: one byte more than
	// route accepts, which then says so.
	descriptorBytesMax = 64<<10 + 1
	// uploadFrameMax is what an upload may have beside its code: the descriptor,
	// the parts' heads and boundaries.
	uploadFrameMax = 256 << 10
	// partsMax is more than the two parts that there may be, so that a wrong one
	// is named.
	partsMax = 8
	// fileNameMax bounds the name of the code's file, in bytes.
	fileNameMax = 255
	// spoolMemory is how much of the code is kept in memory; what is larger goes
	// to a file that has no name.
	spoolMemory = 1 << 20
	// uploadTimeout bounds the reading of one upload, however busily it comes;
	// requestTimeout bounds each pause in it.
	uploadTimeout = 15 * time.Minute
)

// parts is a read upload.
type parts struct {
	descriptor *route.Descriptor
	name       string // of the code's file
	code       *spool // nil: none
}

func (p *parts) close() {
	if p != nil && p.code != nil {
		p.code.close()
	}
}

// spool keeps code until it is unpacked: in memory, or in a file without a name.
type spool struct {
	memory bytes.Buffer
	file   *os.File // nil: all is in memory
}

func (s *spool) reader() io.Reader {
	if s.file == nil {
		return &s.memory
	}
	return s.file
}

func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// spoolFrom reads all of r. dir is where a file may lie.
func spoolFrom(r io.Reader, dir string) (*spool, error) {
	s := &spool{}
	n, err := io.CopyN(&s.memory, r, spoolMemory)
	if errors.Is(err, io.EOF) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if s.file, err = os.CreateTemp(dir, "upload-"); err != nil { // 0600
		return nil, err
	}
	// From here on nothing is left of it when this process ends.
	if err := os.Remove(s.file.Name()); err != nil {
		s.close()
		return nil, err
	}
	_, err = io.Copy(s.file, io.MultiReader(&s.memory, r))
	if err == nil {
		_, err = s.file.Seek(0, io.SeekStart)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("keep upload of more than %d bytes: %w", n, err)
	}
	return s, nil
}

// bodyReader reads a request's body within the bounds of an upload.
type bodyReader struct {
	c     *conn
	from  io.Reader
	left  int64
	until time.Time
}

var errUploadTooLarge = errors.New("the upload is too large")

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		// One byte more would be too many; that there is none shows the end.
		if n, err := b.from.Read(make([]byte, 1)); n == 0 && err != nil {
			return 0, err
		}
		return 0, errUploadTooLarge
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	// The slowest that is waited for; an end of all waiting bounds the busy ones.
	next := time.Now().Add(requestTimeout)
	if next.After(b.until) {
		next = b.until
	}
	if err := b.c.SetReadDeadline(next); err != nil {
		return 0, err
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	return n, err
}

// body is the request's, bounded.
func (s *Server) body(ctx *fasthttp.RequestCtx, most int64) io.Reader {
	from := ctx.RequestBodyStream()
	if from == nil {
		from = bytes.NewReader(ctx.Request.Body())
	}
	return &bodyReader{c: ctx.Conn().(*conn), from: from, left: most, until: time.Now().Add(uploadTimeout)}
}

// readUpload reads a request's parts. Nothing of them is left when it returns a
// fault. A wrong descriptor that comes before the code is told before the code
// is read.
func (s *Server) readUpload(ctx *fasthttp.RequestCtx) (*parts, *fault) {
	p := &parts{}
	found := s.readParts(multipart.NewReader(s.body(ctx, uploadBytesMax()), uploadBoundary(ctx)), p)
	if found == nil && p.descriptor == nil {
		found = because(reasonUpload, "there is no part descriptor")
	}
	if found == nil && p.code == nil {
		found = because(reasonUpload, "there is no part code")
	}
	if found != nil {
		p.close()
		return nil, found
	}
	if p.name == "" {
		p.name = usualName(p.descriptor.Runtime)
	}
	return p, nil
}

func (s *Server) readParts(form *multipart.Reader, p *parts) *fault {
	for n := 0; ; n++ {
		// Raw: a part is what it is, whatever it says of its encoding.
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.unreadable(err)
		}
		if n >= partsMax {
			return because(reasonUpload, fmt.Sprintf("more than %d parts", partsMax))
		}
		switch name := part.FormName(); {
		case name == "descriptor" && p.descriptor == nil:
			text, err := io.ReadAll(io.LimitReader(part, descriptorBytesMax))
			if err != nil {
				return s.unreadable(err)
			}
			if p.descriptor, err = parseDescriptor(text); err != nil {
				return wrongDescriptor(route.FieldErrors(err))
			}
		case name == "code" && p.code == nil:
			p.name = part.FileName() // without folders
			if len(p.name) > fileNameMax {
				return because(reasonUpload, fmt.Sprintf("the file's name is longer than %d bytes", fileNameMax))
			}
			if p.code, err = spoolFrom(part, s.spoolDir()); err != nil {
				return s.unreadable(err)
			}
		case name == "descriptor" || name == "code":
			return because(reasonUpload, "the part "+name+" comes twice")
		default:
			return because(reasonUpload, fmt.Sprintf("there is no part %.64q: want code and descriptor", name))
		}
	}
}

func (s *Server) spoolDir() string { return filepath.Join(s.config.Data, "tmp") }

// unreadable says why an upload could not be read to its end.
func (s *Server) unreadable(err error) *fault {
	switch {
	case errors.Is(err, errUploadTooLarge):
		return because(reasonTooLarge, "")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return because(reasonTimeout, "")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return s.faultOf(&deploy.Error{Reason: deploy.DiskFull, Text: "the server has no room left on its disk: nothing was changed", Err: err})
	}
	var path *os.PathError
	if errors.As(err, &path) {
		s.log.Error("keep an upload", "err", err)
		return because(reasonInternal, "")
	}
	return because(reasonUpload, "it is no multipart/form-data, or ends too early")
}

// parseDescriptor reads a descriptor that comes with code. What it says of a
// module is not looked at: the code becomes it.
func parseDescriptor(text []byte) (*route.Descriptor, error) {
	d, err := route.ParseDescriptor(text)
	if err == nil {
		return d, nil
	}
	var others []error
	module := false
	for _, e := range route.FieldErrors(err) {
		if e.Field == "module" {
			module = true
			continue
		}
		others = append(others, e)
	}
	if !module || len(others) > 0 {
		return nil, errors.Join(others...)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return nil, err
	}
	delete(fields, "module")
	if text, err = json.Marshal(fields); err != nil {
		return nil, err
	}
	return route.ParseDescriptor(text)
}

// usualName is the file name of code that comes without one.
func usualName(runtime string) string {
	switch runtime {
	case "go", "tinygo":
		return "main.go"
	case "c":
		return "main.c"
	case "cpp":
		return "main.cpp"
	case "rust":
		return "main.rs"
	case "php":
		return "index.php"
	case "python":
		return "main.py"
	case "wasm":
		return "module.wasm"
	}
	return "module.bin"
}

// uploadAnswer is the success of a deploy or rollback. Status to Info are the
// members of old.
type uploadAnswer struct {
	Status  string `json:"status"` // "success"
	Message string `json:"message"`
	URI     string `json:"uri"`    // the route's path
	Method  string `json:"method"` // one that the route answers
	Info    string `json:"info"`

	ID        string      `json:"id"`
	Name      string      `json:"name"`
	Version   int         `json:"version"`
	Key       string      `json:"key"` // "METHOD:/path"; ANY answers every method
	URL       string      `json:"url"` // by name
	Unchanged bool        `json:"unchanged,omitempty"`
	Assumed   []string    `json:"assumed,omitempty"`
	Build     buildAnswer `json:"build"`
}

type buildAnswer struct {
	Log        string  `json:"log"`
	DurationMS float64 `json:"duration_ms"`
	Cached     bool    `json:"cached"`
}

// uploadBytesMax is what is read of an upload.
func uploadBytesMax() int64 { return build.DefaultLimits().InputBytes + uploadFrameMax }

// admitUpload, as method.admit.
func (s *Server) admitUpload(ctx *fasthttp.RequestCtx) bool {
	if s.deployer(ctx) == nil {
		return false
	}
	if uploadBoundary(ctx) == "" {
		s.refuseWith(ctx, because(reasonMediaType, ""))
		return false
	}
	if s.uploads.Load() >= uploadsMax {
		s.refuseUpload(ctx)
		return false
	}
	most := uploadBytesMax()
	return s.admitLength(ctx, most, fmt.Sprintf("the upload is too large: at most %d bytes", most))
}

// refuseUpload answers the upload above the bound.
func (s *Server) refuseUpload(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set("Retry-After", "5")
	s.fail(ctx, reasonBusy)
}

// uploadBoundary is what stands between the parts of an upload; empty: it is
// none.
func uploadBoundary(ctx *fasthttp.RequestCtx) string {
	kind, parameters, err := mime.ParseMediaType(string(ctx.Request.Header.ContentType()))
	if err != nil || kind != "multipart/form-data" {
		return ""
	}
	return parameters["boundary"]
}

// postUpload answers POST /upload and /system/upload.
func (s *Server) postUpload(ctx *fasthttp.RequestCtx) { s.upload(ctx, "", deploy.Conditions{}) }

// upload reads an upload and deploys it. name: see deploy.Request.
func (s *Server) upload(ctx *fasthttp.RequestCtx, name string, conditions deploy.Conditions) {
	if s.uploads.Add(1) > uploadsMax {
		s.uploads.Add(-1)
		s.refuseUpload(ctx)
		return
	}
	p, refused := s.readUpload(ctx)
	if refused != nil {
		s.uploads.Add(-1)
		s.refuseWith(ctx, refused)
		return
	}
	r := deploy.Request{Name: name, Descriptor: p.descriptor, Source: &deploy.Source{Name: p.name, Reader: p.code.reader()}, Conditions: conditions}
	done := func() { p.close(); s.uploads.Add(-1) }
	if wantsEvents(ctx) {
		s.deployEvents(ctx, r, done)
		return
	}
	defer done()
	s.deployNow(ctx, r)
}

// deployNow deploys and answers with what came of it.
func (s *Server) deployNow(ctx *fasthttp.RequestCtx, r deploy.Request) {
	result, err := s.config.Deployer.Deploy(ctx.Conn().(*conn).context(), r)
	if err != nil {
		s.refuseWith(ctx, s.faultOf(err))
		return
	}
	s.replyDeployed(ctx, result)
}

func (s *Server) replyDeployed(ctx *fasthttp.RequestCtx, result deploy.Result) {
	ctx.Response.Header.Set("ETag", etag(result.Tag))
	s.reply(ctx, http.StatusOK, deployed(result))
}

// deployed says what a deploy came to.
func deployed(r deploy.Result) uploadAnswer {
	method, path, _ := splitKey(r.Key)
	a := uploadAnswer{
		Status: "success", URI: path, Method: method, ID: r.ID, Name: r.Name, Version: r.Version, Key: r.Key, URL: "/function/" + r.Name,
		Unchanged: r.Unchanged, Assumed: r.Assumed,
		Build:   buildAnswer{Log: r.Log, DurationMS: float64(r.Duration.Microseconds()) / 1000, Cached: r.Cached},
		Message: fmt.Sprintf("version %d of %s serves", r.Version, r.Name),
	}
	if r.Unchanged {
		a.Message = fmt.Sprintf("version %d of %s serves already: same code, same descriptor", r.Version, r.Name)
	}
	a.Info = "every request that starts now runs it, at " + path + " and at " + a.URL
	if method == "ANY" {
		a.Method = http.MethodPost // any does
	}
	return a
}
