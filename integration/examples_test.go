package integration

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"baton/internal/testenv"
)

const exampleDescriptor, exampleExpect = "descriptor.json", "expect.json"

// call is one element of an example's expect.json: a request, and what the
// function answers. A descriptor.json with the code makes a folder below
// examples an example; expect.json is a list of calls:
//
//	[{"method": "POST",               the default; GET without a body
//	  "target": "/path?query",        default: the descriptor's path
//	  "headers_sent": {"Name": "…"},  beside Host and Content-Length
//	  "body": "…",
//	  "status": 200,                  the default
//	  "headers": {"Name": "…"},       those that must be there, with just this value
//	  "answer": "…",                  the whole body of the answer
//	  "match": "…"}]                  or a regular expression for it
type call struct {
	Method      string            `json:"method"`
	Target      string            `json:"target"`
	HeadersSent map[string]string `json:"headers_sent"`
	Body        string            `json:"body"`
	Status      int               `json:"status"`
	Headers     map[string]string `json:"headers"`
	Answer      *string           `json:"answer"`
	Match       string            `json:"match"`
}

// Every folder of examples that has a descriptor is uploaded as a user would do
// it, and answers each request of its expect.json, more than once: what a
// function is must not show how often it was called before.
func TestExamples(t *testing.T) {
	t.Parallel()
	root, err := testenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	var folders []string
	err = filepath.WalkDir(filepath.Join(root, "examples"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path == filepath.Join(root, "examples", "starter") {
			return fs.SkipDir // what `baton new` fills in
		}
		if err == nil && !d.IsDir() && d.Name() == exampleDescriptor {
			folders = append(folders, filepath.Dir(path))
		}
		return err
	})
	if err != nil || len(folders) < 8 {
		t.Fatalf("%d examples, %v", len(folders), err)
	}
	s := testenv.Start(t, testenv.Options{Workers: 1})
	for _, folder := range folders {
		name, err := filepath.Rel(filepath.Join(root, "examples"), folder)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { example(t, s, folder) })
	}
}

func example(t *testing.T, s *testenv.Server, folder string) {
	descriptor, err := os.ReadFile(filepath.Join(folder, exampleDescriptor))
	if err != nil {
		t.Fatal(err)
	}
	var path struct{ Path string }
	if err := json.Unmarshal(descriptor, &path); err != nil || path.Path == "" {
		t.Fatalf("%s: path %q, %v", exampleDescriptor, path.Path, err)
	}
	text, err := os.ReadFile(filepath.Join(folder, exampleExpect))
	if err != nil {
		t.Fatal(err)
	}
	var calls []call
	in := json.NewDecoder(strings.NewReader(string(text)))
	in.DisallowUnknownFields()
	if err := in.Decode(&calls); err != nil || len(calls) == 0 {
		t.Fatalf("%s: %d calls, %v", exampleExpect, len(calls), err)
	}
	deployed(t, s, descriptor, filepath.Base(folder)+".zip", packed(t, folder, exampleDescriptor, exampleExpect))
	for range 3 {
		for i, c := range calls {
			if err := c.do(s.Addr, path.Path); err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		}
	}
}

// do makes the call and compares.
func (c *call) do(addr, path string) error {
	method, target, status := c.Method, c.Target, c.Status
	if method == "" {
		method = "POST"
	}
	if target == "" {
		target = path
	}
	if status == 0 {
		status = 200
	}
	head := method + " " + target + " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
	for name, value := range c.HeadersSent {
		head += name + ": " + value + "\r\n"
	}
	if method == "POST" || method == "PUT" || c.Body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(c.Body))
	}
	r, err := testenv.Do(addr, head+"\r\n"+c.Body)
	if err != nil {
		return err
	}
	if r.Status != status {
		return fmt.Errorf("status %d, want %d; body %.500q", r.Status, status, r.Body)
	}
	for name, value := range c.Headers {
		if got := r.Header.Values(name); len(got) != 1 || got[0] != value {
			return fmt.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	switch {
	case c.Answer != nil && string(r.Body) != *c.Answer:
		return fmt.Errorf("answer %.500q, want %.500q", r.Body, *c.Answer)
	case c.Answer == nil && c.Match == "":
		return fmt.Errorf("%s has neither answer nor match", exampleExpect)
	case c.Answer == nil:
		pattern, err := regexp.Compile(c.Match)
		if err != nil {
			return err
		}
		if !pattern.Match(r.Body) {
			return fmt.Errorf("answer %.500q, want a match of %q", r.Body, c.Match)
		}
	}
	return nil
}
