package integration

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
)

// uploadPatience bounds one upload: on two busy cores a first build of Go's
// standard library takes minutes.
const uploadPatience = 8 * time.Minute

// buildTries bounds the builds of one upload: on a busy machine the first one of Go's standard library
// may be out of time, and the next goes on from what it has left in the cache.
const buildTries = 4

// uploaded is what an upload was answered with.
type uploaded struct {
	Status  string `json:"status"`
	Message string `json:"message"`
	Details string `json:"details"`
	Reason  string `json:"reason"`
	URI     string `json:"uri"`
	code    int
	text    string
}

// upload sends code, in a file of that name, and its descriptor.
func upload(t testing.TB, s *testenv.Server, descriptor []byte, name string, code []byte) uploaded {
	t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	err := w.WriteField("descriptor", string(descriptor))
	if err == nil {
		var part io.Writer
		if part, err = w.CreateFormFile("code", name); err == nil {
			_, err = part.Write(code)
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(s.Data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr+"/upload", &form)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", w.FormDataContentType())
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	client := http.Client{Timeout: uploadPatience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	u := uploaded{code: response.StatusCode, text: string(text)}
	if err := json.Unmarshal(text, &u); err != nil {
		t.Fatalf("upload: status %d, %v in %.500q", response.StatusCode, err, text)
	}
	return u
}

// deployed is upload of what must serve. A toolchain that this machine lacks
// skips the test, with what the answer says to install.
func deployed(t testing.TB, s *testenv.Server, descriptor []byte, name string, code []byte) {
	t.Helper()
	u := upload(t, s, descriptor, name, code)
	for tries := 1; u.Reason == "build_timeout" && tries < buildTries; tries++ {
		u = upload(t, s, descriptor, name, code)
	}
	if u.Reason == "toolchain_missing" {
		t.Skipf("%s", u.text)
	}
	if u.code != http.StatusOK {
		t.Fatalf("upload of %s: status %d: %s", name, u.code, u.text)
	}
}

// packed is the files below dir, but for those on top that are named, as an
// archive.
func packed(t testing.TB, dir string, without ...string) []byte {
	t.Helper()
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || slices.Contains(without, name) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		header, err := zip.FileInfoHeader(info)
		if err != nil {
			return err
		}
		header.Name, header.Method = filepath.ToSlash(name), zip.Deflate
		to, err := z.CreateHeader(header)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = to.Write(content)
		return err
	})
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}
