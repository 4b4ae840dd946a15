package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// seen is one request that a server got.
type seen struct {
	method, uri, authorization, kind, body string
	length                                 int64
}

// recorder is a server that answers with what it is told, and remembers.
func recorder(t *testing.T, answer func(w http.ResponseWriter)) (c *Client, last func() seen) {
	t.Helper()
	var mu sync.Mutex
	var got seen
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = seen{r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), string(body), r.ContentLength}
		mu.Unlock()
		answer(w)
	}))
	t.Cleanup(s.Close)
	c, err := NewRemoteClient(s.URL, "secret-token")
	if err != nil {
		t.Fatal(err)
	}
	return c, func() seen { mu.Lock(); defer mu.Unlock(); return got }
}

func TestCallIsAnyClients(t *testing.T) {
	t.Parallel()
	c, last := recorder(t, func(w http.ResponseWriter) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusFound)
	})
	r, err := c.Call(t.Context(), Call{Name: "hello", Method: "PATCH", Query: "a=1&b=%20", Header: http.Header{"Content-Type": {"text/x"}, "X-A": {"1", "2"}}, Body: strings.NewReader("body")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got, want := last(), (seen{"PATCH", "/function/hello?a=1&b=%20", "", "text/x", "body", 4}); got != want {
		t.Errorf("the server got %+v, want %+v: without the token", got, want)
	}
	if r.StatusCode != http.StatusFound {
		t.Errorf("the answer is %s, want the redirect itself", r.Status)
	}
}

const doneEvent = "event: state\ndata: {\"state\":\"building\"}\n\nevent: log\ndata: {\"text\":\"warning\"}\n\n:\n\nevent: done\ndata: {\"name\":\"hello\",\"version\":3,\"key\":\"ANY:/x\"}\n\n"

func TestDeployOfUnknownSize(t *testing.T) {
	t.Parallel()
	c, last := recorder(t, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, doneEvent)
	})
	for _, law := range []struct {
		size   int64
		length int64 // of the body; -1: in chunks
		code   string
	}{{-1, -1, "the code, whole"}, {8, 0, "the code"}} {
		var told []Progress
		from, to := io.Pipe()
		go func() { // ended by the client, which reads or closes
			_, err := io.WriteString(to, "the code, whole")
			_ = to.CloseWithError(err)
		}()
		result, err := c.Deploy(t.Context(), Upload{FileName: "a.tar.gz", Code: from, Size: law.size, Descriptor: []byte(`{"name":"hello"}`),
			Progress: func(p Progress) { told = append(told, p) }})
		_ = from.Close()
		if err != nil || result.Version != 3 {
			t.Fatalf("size %d: %+v, %v", law.size, result, err)
		}
		got := last()
		if got.method != "POST" || got.authorization != "Bearer secret-token" || (got.length == -1) != (law.length == -1) ||
			!strings.Contains(got.body, "\r\n\r\n"+law.code+"\r\n--") {
			t.Errorf("size %d: the server got %+v", law.size, got)
		}
		if n := len(told); n < 3 || told[n-2].State != "building" || told[n-1].Log != "warning" || told[n-3].Sent != int64(len(law.code)) {
			t.Errorf("size %d: told %+v", law.size, told)
		}
	}
	// What goes wrong with the code is the deploy's error.
	from, to := io.Pipe()
	broken := errors.New("the disk is broken")
	_ = to.CloseWithError(broken)
	if _, err := c.Deploy(t.Context(), Upload{FileName: "a", Code: from, Size: -1}); !errors.Is(err, broken) {
		t.Errorf("code that cannot be read: %v", err)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	c, last := recorder(t, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, doneEvent)
	})
	result, err := c.Describe(t.Context(), "hello", []byte(`{"name":"hello"}`), nil)
	if got, want := last(), (seen{"PUT", "/system/functions/hello", "Bearer secret-token", "application/json", `{"name":"hello"}`, 16}); got != want || err != nil || result.Version != 3 {
		t.Errorf("the server got %+v, want %+v; %+v, %v", got, want, result, err)
	}
	c, _ = recorder(t, func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"error":"a build is needed","reason":"code_needed"}`)
	})
	var refused *RefusedError
	if _, err := c.Describe(t.Context(), "hello", nil, nil); !errors.As(err, &refused) || refused.Reason != "code_needed" || refused.Status != http.StatusConflict {
		t.Errorf("a refusal: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Describe(ended, "hello", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("an end that was asked for: %v", err)
	}
}

func TestPublicURL(t *testing.T) {
	t.Parallel()
	c, err := NewRemoteClient("https://faas.example.org/", "t")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.PublicURL(t.Context()); err != nil || got != "https://faas.example.org" {
		t.Errorf("%s, %v", got, err)
	}
}
