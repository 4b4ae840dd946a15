package httpparse

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Every status line is of the form of RFC 9112 section 4, and its phrase is
// net/http's where both have one.
func TestStatusLines(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^HTTP/1\.1 [1-5][0-9][0-9] [A-Za-z -]*\r\n$`)
	renamed := map[int]string{ // RFC 9110 renamed them; net/http keeps the old names
		413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content",
	}
	for status := statusMin; status <= statusMax; status++ {
		got := string(AppendStatusLine([]byte("x"), status))
		if !form.MatchString(got[1:]) || !strings.HasPrefix(got, "xHTTP/1.1 ") {
			t.Errorf("%d: %q", status, got)
		}
		text := http.StatusText(status)
		if renamed[status] != "" {
			text = renamed[status]
		}
		if StatusText(status) != text && !(status == 418 && StatusText(status) == "") {
			t.Errorf("%d: %q, want %q", status, StatusText(status), text)
		}
	}
	for _, status := range []int{-1, 0, 99, 600, 1 << 40} {
		if got := string(AppendStatusLine(nil, status)); got != "HTTP/1.1 500 Internal Server Error\r\n" {
			t.Errorf("%d: %q", status, got)
		}
		if StatusText(status) != "" {
			t.Errorf("%d: %q", status, StatusText(status))
		}
	}
}

// A response made of the Append functions is what net/http reads.
func TestResponse(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 9, 4, 5, 6, 0, time.UTC)
	b := AppendStatusLine(nil, 404)
	b = AppendDate(b, now.Unix())
	b = AppendField(b, "X-A", "b c")
	b = AppendFieldBytes(b, []byte("X-A"), []byte{'d', 0xff})
	b = AppendField(b, "X-Empty", "")
	b = append(AppendContentLength(b, 5), "\r\nhello"...)
	b = append(AppendStatusLine(b, 200), "Transfer-Encoding: chunked\r\n\r\n"...)
	for _, data := range []string{"hello", strings.Repeat("x", 0x1a0)} {
		b = append(append(AppendChunkSize(b, len(data)), data...), "\r\n"...)
	}
	b = AppendLastChunk(b)

	reader := bufio.NewReader(bytes.NewReader(b))
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil || string(body) != "hello" || response.Status != "404 Not Found" || response.ContentLength != 5 ||
		response.Header.Get("Date") != now.Format(http.TimeFormat) || len(response.Header["X-Empty"]) != 1 ||
		strings.Join(response.Header["X-A"], "|") != "b c|d\xff" {
		t.Fatal(err, response, string(body))
	}
	response, err = http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err = io.ReadAll(response.Body)
	if err != nil || string(body) != "hello"+strings.Repeat("x", 0x1a0) || reader.Buffered() != 0 {
		t.Fatal(err, response, string(body))
	}
}

func TestAppendDate(t *testing.T) {
	t.Parallel()
	for unix, want := range map[int64]string{
		784111777:    "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", // RFC 9110 section 5.6.7
		0:            "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
		253402300799: "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
		253402300800: "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
		-1 << 62:     "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
		-62167219200: "Date: Sat, 01 Jan 0000 00:00:00 GMT\r\n",
	} {
		if got := string(AppendDate(nil, unix)); got != want || len(got) != DateBytes {
			t.Errorf("%d: %q, want %q", unix, got, want)
		}
	}
}

// No byte of a name or a value can end the line or start another.
func TestFieldLinesCannotBeInjected(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		name, value := "X"+string([]byte{byte(c)}), "a"+string([]byte{byte(c)})+"b"
		inName := isOf(oracleToken, byte(c))
		inValue := c == '\t' || c >= ' ' && c != 0x7f
		if got := len(AppendField(nil, name, "v")) > 0; got != inName {
			t.Errorf("%#x in a name: %v", c, got)
		}
		if got := len(AppendField(nil, "X", value)) > 0; got != inValue {
			t.Errorf("%#x in a value: %v", c, got)
		}
		if got := len(AppendFieldBytes(nil, []byte(name), nil)) > 0; got != inName || ValidFieldName([]byte(name)) != inName {
			t.Errorf("%#x in a name of bytes: %v", c, got)
		}
		if got := len(AppendFieldBytes(nil, []byte("X"), []byte(value))) > 0; got != inValue || ValidFieldValue([]byte(value)) != inValue {
			t.Errorf("%#x in a value of bytes: %v", c, got)
		}
	}
	if len(AppendField(nil, "", "v")) > 0 || ValidFieldName(nil) || !ValidFieldValue(nil) {
		t.Error("empty names and values")
	}
}

func TestDefectsOfTheCallerPanic(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"negative length": func() { AppendContentLength(nil, -1) },
		"empty chunk":     func() { AppendChunkSize(nil, 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}
