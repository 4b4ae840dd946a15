package wasm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"baton/runtime"
)

// A Go program that baton builds has its environment made by the wrapper, in
// room and with names that are there before the first request. The oracle is the
// same program with Go's own start. Only the order of os.Environ may differ.
func TestGoEnvironmentIsAsGoMakesIt(t *testing.T) {
	t.Parallel()
	ours := runtime.Function{Name: "env", Module: buildGo(t, "testdata/goenv", true)}
	plain := runtime.Function{Name: "env", Module: buildGo(t, "testdata/goenv", false)}
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("HTTP_X_%d=%s", i, strings.Repeat("v", i)))
	}
	cases := []struct {
		name    string
		handler string
		own     []string // of the descriptor
		request []string
	}{
		{"none", "", nil, nil},
		{"usual", "h", []string{"A=1"}, []string{"GATEWAY_INTERFACE=CGI/1.1", "REQUEST_METHOD=GET", "PATH_INFO=", "QUERY_STRING=a=b", "HTTP_HOST=h", "HTTP_X_OTHER=o"}},
		{"another order", "", nil, []string{"HTTP_HOST=h", "QUERY_STRING=q", "HTTP_COOKIE=c", "GATEWAY_INTERFACE=g", "HTTP_ACCEPT=a"}},
		{"twice: the first one counts", "", []string{"QUERY_STRING=own", "B=own"}, []string{"REQUEST_METHOD=GET", "QUERY_STRING=request", "B=request", "REQUEST_METHOD=again"}},
		{"empty values, odd names", "", []string{"E=", "=x", "NOVALUE", "QUERY_STRINGS=s", "QUERY=q"}, []string{"QUERY_STRING="}},
		{"more than there is room for", "h", nil, many},
		{"one that is longer than the room", "", nil, []string{"QUERY_STRING=" + strings.Repeat("long", 5000), "HTTP_HOST=h"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			said := func(f runtime.Function) []string {
				f.Handler, f.Env = c.handler, c.own
				l := load(t, executor(t), &f)
				var first string
				for i := range 3 { // the second starts from memory that was put back
					out, res := call(l, "", c.request...)
					if res.Reason != runtime.OK {
						t.Fatalf("%+v %q", res, out)
					}
					if i > 0 && out != first {
						t.Errorf("call %d said %q, the first %q", i, out, first)
					}
					first = out
				}
				lines := strings.Split(first, "\n")
				slices.Sort(lines)
				return lines
			}
			if got, want := said(ours), said(plain); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}
