package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"baton/deploy"
)

const (
	// streamsMax answers that go on are sent at a time; the one above is
	// answered 503. A deploy is not counted: uploadsMax bounds those.
	streamsMax = 64
	// quietMax is how long a stream is silent: then it says that it is there.
	quietMax = 15 * time.Second
	// eventsPeriod is how often the workers are told: as often as they measure.
	eventsPeriod = 500 * time.Millisecond
	// listPeriod is how often the list of functions is compared when nothing was
	// published: a row may have become bad.
	listPeriod = 5 * time.Second
)

// wantsEvents says whether a client asks for server-sent events.
func wantsEvents(ctx *fasthttp.RequestCtx) bool {
	for _, field := range strings.Split(string(ctx.Request.Header.Peek("Accept")), ",") {
		kind, _, _ := strings.Cut(field, ";")
		if strings.EqualFold(strings.TrimSpace(kind), "text/event-stream") {
			return true
		}
	}
	return false
}

// stream answers with what produce writes, while it writes it. produce runs on
// a goroutine of its own, which Shutdown waits for; its context ends with the
// client. Writes may come from several goroutines; each is sent as one piece.
func (s *Server) stream(ctx *fasthttp.RequestCtx, contentType string, produce func(ctx context.Context, w io.Writer)) {
	c := ctx.Conn().(*conn)
	ctx.Response.Header.SetContentType(contentType)
	ctx.Response.ImmediateHeaderFlush = true
	if ctx.IsHead() {
		return
	}
	from, to := io.Pipe()
	ctx.SetBodyStream(&streamBody{from, c}, -1)
	base := c.context()
	s.wait.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				s.refused[reasonInternal].Add(1)
				s.log.Error("control stream panicked", "panic", p, "stack", string(debug.Stack()))
				_ = to.CloseWithError(errors.New("internal"))
			}
		}()
		produce(base, to)
		_ = to.Close()
	})
}

// streamBody is a stream's body as fasthttp reads and sends it. Each piece has
// requestTimeout to be written: a reader that takes nothing ends the stream.
type streamBody struct {
	*io.PipeReader
	c *conn
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.PipeReader.Read(p)
	_ = b.c.SetWriteDeadline(time.Now().Add(requestTimeout)) // fails when it was cut: writing does too
	return n, err
}

// writeEvent sends one server-sent event. data is JSON in one line.
func (s *Server) writeEvent(w io.Writer, name string, value any) error {
	data, err := encode(value) // ends with a newline
	if err != nil {
		s.log.Error("an event is not JSON", "err", err)
		return err
	}
	var b bytes.Buffer
	b.WriteString("event: " + name + "\ndata: ")
	b.Write(data)
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// deployEvents deploys and tells what happens meanwhile. done is called at the
// end, whatever happens.
func (s *Server) deployEvents(ctx *fasthttp.RequestCtx, r deploy.Request, done func()) {
	id := string(ctx.Response.Header.Peek("X-Request-Id"))
	s.stream(ctx, "text/event-stream", func(ctx context.Context, w io.Writer) {
		defer done()
		quiet := beat(ctx, w)
		defer quiet()
		r.State = func(state string) { _ = s.writeEvent(w, "state", map[string]string{"state": state}) }
		r.Log = logEvents{s, w}
		result, err := s.config.Deployer.Deploy(ctx, r)
		if err != nil {
			f := s.faultOf(err)
			s.refused[reasonDeploy].Add(1)
			_ = s.writeEvent(w, "error", f.body(id, f.status))
			return
		}
		_ = s.writeEvent(w, "done", deployed(result))
	})
}

// beat has a stream say now and then that it is there, until stop, which waits.
func beat(ctx context.Context, w io.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // ended by stop
		defer close(ended)
		tick := time.NewTicker(quietMax)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := io.WriteString(w, ":\n\n"); err != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// logEvents sends a compiler's output as it comes.
type logEvents struct {
	s *Server
	w io.Writer
}

// Write never fails: a build does not end because nobody reads its words. Who
// hangs up ends its context.
func (l logEvents) Write(p []byte) (int, error) {
	_ = l.s.writeEvent(l.w, "log", map[string]string{"text": strings.ToValidUTF8(string(p), "\uFFFD")})
	return len(p), nil
}

// takeStream counts a stream; false: it was refused.
func (s *Server) takeStream(ctx *fasthttp.RequestCtx) bool {
	if s.streams.Add(1) <= streamsMax {
		return true
	}
	s.streams.Add(-1)
	ctx.Response.Header.Set("Retry-After", "5")
	s.fail(ctx, reasonBusy)
	return false
}

// until is ctx that ends when the server begins to shut down too: what would go
// on for ever must not hold it up.
func (s *Server) until(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with ctx
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// getEvents tells of the workers every half second, and of the functions when
// something about them has changed.
func (s *Server) getEvents(ctx *fasthttp.RequestCtx) {
	if !s.takeStream(ctx) {
		return
	}
	if ctx.IsHead() {
		defer s.streams.Add(-1)
	}
	s.stream(ctx, "text/event-stream", func(ctx context.Context, w io.Writer) {
		defer s.streams.Add(-1)
		ctx, cancel := s.until(ctx)
		defer cancel()
		tick := time.NewTicker(eventsPeriod)
		defer tick.Stop()
		var generation uint64
		var states string
		looked := time.Time{}
		for {
			if s.writeEvent(w, "workers", list(s.backend.Workers())) != nil {
				return
			}
			if now := s.backend.Status().Generation; now != generation || time.Since(looked) >= listPeriod {
				functions := list(s.backend.Functions())
				if is := statesOf(functions); now != generation || is != states {
					if s.writeEvent(w, "functions", functions) != nil {
						return
					}
					states = is
				}
				generation, looked = now, time.Now()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// statesOf is a text that changes when a row's state does.
func statesOf(functions []Function) string {
	var b strings.Builder
	for _, f := range functions {
		if f.State != Serving {
			b.WriteString(f.Key + "\n" + f.State + "\n" + f.Error + "\n")
		}
	}
	return b.String()
}
