package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// AdminSocket is the admin socket's place in a data directory.
func AdminSocket(data string) string { return filepath.Join(data, "run", "admin.sock") }

// answerBytesMax bounds what a client reads of one answer: 100,000 routes are
// about 40 MB.
const answerBytesMax = 256 << 20

// ErrNotRunning says that nobody serves the data directory.
var ErrNotRunning = errors.New("not running")

// RefusedError is an answer of the control plane that is an error.
type RefusedError struct {
	Status int    // of HTTP
	Text   string // what it says
	Reason string
}

func (e *RefusedError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the server answered %d", e.Status)
	}
	return e.Text
}

// Client speaks to the admin socket of a data directory, with the token when it
// can be read. Its zero value is not usable; its methods may be called from any
// goroutine.
type Client struct {
	data string
	http http.Client
}

// NewClient makes a client. It connects anew for each call and holds nothing.
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
	return &Client{data: data, http: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}}}
}

// Functions lists the rows of the functions table.
func (c *Client) Functions(ctx context.Context) ([]Function, error) {
	var list []Function
	return list, c.call(ctx, http.MethodGet, "/system/functions", &list)
}

// Status describes the server, its workers and the rows it refuses.
func (c *Client) Status(ctx context.Context) (Report, error) {
	var r Report
	err := c.call(ctx, http.MethodGet, "/system/status", &r)
	return r, err
}

// Stop asks the server to stop. It returns when the server has accepted that,
// not when it has stopped.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/system/stop", nil)
}

// call makes one request. A nil into drops the answer's body. Errors are a
// *RefusedError, ErrNotRunning wrapped, or those of the connection.
func (c *Client) call(ctx context.Context, method, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://baton"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if token, err := LoadToken(c.data); err == nil {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: nobody answers at %s", ErrNotRunning, AdminSocket(c.data))
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("ask the server: %w: only the user who runs it may (and root)", err)
	case err != nil:
		return fmt.Errorf("ask the server: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerBytesMax))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		var e errorBody
		if json.Unmarshal(body, &e) != nil {
			e = errorBody{Error: strings.TrimSpace(string(body[:min(len(body), 200)]))}
		}
		return &RefusedError{response.StatusCode, e.Error, e.Reason}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}
