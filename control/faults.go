package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/valyala/fasthttp"

	"baton/deploy"
	"baton/deploy/build"
	"baton/route"
)

// fault is why something was not deployed, changed or deleted, as a client is
// told. Its texts name no path of the server's.
type fault struct {
	status    int
	component string // "gateway" or "build"
	reason    string
	text      string
	details   string // a compiler's whole output, say
	fields    []FieldFault
	retry     bool // the same again may succeed
}

// faultBody is a fault's form: that of every error of the platform, and beside
// it the members of the uploads of old.
type faultBody struct {
	Status    string       `json:"status"` // "error"
	Message   string       `json:"message"`
	Details   string       `json:"details,omitempty"`
	Error     string       `json:"error"`
	Component string       `json:"component"`
	Reason    string       `json:"reason"`
	RequestID string       `json:"requestId"`
	Fields    []FieldFault `json:"fields,omitempty"`
	Code      int          `json:"code,omitempty"` // of HTTP, where the answer has begun already
}

func (f *fault) body(id string, code int) faultBody {
	return faultBody{Status: "error", Message: f.text, Details: f.details, Error: f.text, Component: f.component,
		Reason: f.reason, RequestID: id, Fields: f.fields, Code: code}
}

// because is the fault for a reason of the control plane's own.
func because(r reason, text string) *fault {
	f := &fault{status: r.Status(), component: component, reason: r.String(), text: reasons[r].text}
	if text != "" {
		f.text += ": " + text
	}
	return f
}

// deployStatus is how the reasons of a deploy are answered.
var deployStatus = map[deploy.Reason]int{
	deploy.NotFound: 404, deploy.NoVersion: 404, deploy.Precondition: 412, deploy.RouteTaken: 409, deploy.NameTaken: 409,
	deploy.NameMismatch: 400, deploy.CodeMissing: 400, deploy.CodeNeeded: 400, deploy.ModuleRefused: 422, deploy.Changed: 409,
	deploy.DiskFull: 507, deploy.Busy: 503, deploy.NotConfirmed: 503, deploy.NotServed: 409, deploy.Stopping: 503,
}

// buildStatus is the same for those of a build: 422 where the source is at
// fault, also when it takes too long or too much.
var buildStatus = map[string]int{
	build.CompileFailed: 422, build.ToolchainMissing: 501, build.BuildTimeout: 422, build.BuildOOM: 422, build.OutputLimit: 422, build.ProcessLimit: 422,
	build.BadSource: 422, build.BuilderBusy: 503,
}

// buildText says what a build's reasons mean.
var buildText = map[string]string{
	build.CompileFailed: "the program does not compile", build.ToolchainMissing: "the server has no toolchain for this",
	build.BuildTimeout: "the build took too long", build.BuildOOM: "the build took more memory than it may",
	build.OutputLimit: "the build printed or wrote too much", build.ProcessLimit: "the build started too many processes", build.BadSource: "the code cannot be built",
	build.BuilderBusy: "too many builds at a time",
}

// faultOf turns what a deploy answered into what the client is told. What it
// does not know is ours: logged, and told as internal.
func (s *Server) faultOf(err error) *fault {
	var deployed *deploy.Error
	var built *build.Error
	switch {
	case errors.As(err, &deployed):
		f := &fault{status: deployStatus[deployed.Reason], component: component, reason: string(deployed.Reason), text: deployed.Text}
		if deployed.Field != "" && f.status < 500 {
			f.fields = []FieldFault{{Field: deployed.Field, Want: deployed.Text}}
		}
		if deployed.Reason == deploy.ModuleRefused {
			f.component, f.details, f.text = "build", deployed.Text, "the module cannot run"
		}
		f.retry = f.status == http.StatusServiceUnavailable
		if deployed.Err != nil {
			s.log.Warn("deploy", "reason", f.reason, "err", deployed.Err)
		}
		return f
	case errors.As(err, &built):
		f := &fault{status: buildStatus[built.Reason], component: "build", reason: built.Reason, text: buildText[built.Reason], details: built.Detail}
		if errors.Is(err, build.ErrTooLarge) {
			f.status = http.StatusRequestEntityTooLarge
		}
		if built.Hint != "" {
			f.text += ": " + built.Hint
		}
		f.retry = f.status == http.StatusServiceUnavailable
		return f
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return because(reasonDraining, "") // or nobody reads this
	case errors.Is(err, deploy.ErrTemporary):
		s.log.Warn("deploy", "err", err)
		f := because(reasonBusy, "")
		f.text, f.retry = "the server could not do this now: try again", true
		return f
	}
	s.log.Error("deploy", "err", err)
	return because(reasonInternal, "")
}

// fieldFaults lists the wrong fields of a descriptor.
func fieldFaults(errs []*route.FieldError) []FieldFault {
	all := make([]FieldFault, 0, len(errs))
	for _, e := range errs {
		all = append(all, FieldFault{Field: e.Field, Want: e.Want, Got: e.Got})
	}
	return all
}

// wrongDescriptor is the fault of these fields.
func wrongDescriptor(errs []*route.FieldError) *fault {
	f := because(reasonDescriptor, "")
	f.text = fmt.Sprintf("the descriptor has %d wrong fields", len(errs))
	if len(errs) == 1 {
		f.text = "the descriptor is wrong: " + errs[0].Error()
	}
	f.fields = fieldFaults(errs)
	return f
}

// refuseWith answers a request with a fault.
func (s *Server) refuseWith(ctx *fasthttp.RequestCtx, f *fault) {
	s.refused[reasonDeploy].Add(1)
	h := &ctx.Response.Header
	ctx.SetStatusCode(f.status)
	h.SetContentType("application/json")
	h.Set("X-Baton-Error", f.component)
	if f.retry || f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	body, err := encode(f.body(string(h.Peek("X-Request-Id")), 0))
	if err != nil {
		panic("control: an error body is not JSON: " + err.Error())
	}
	ctx.SetBody(body)
}
