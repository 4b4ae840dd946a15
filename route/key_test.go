package route

import (
	"strings"
	"testing"
)

// TestKeyLaw: one case per rule of a key.
func TestKeyLaw(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		law, key string
		good     bool
	}{
		{"the root", "GET:/", true},
		{"each method", "OPTIONS:/a", true},
		{"ANY", "ANY:/a", true},
		{"a colon in the path", "GET:/a:b", true},
		{"every byte of a path", "GET:/aZ09-._~!$&'()*+,;=:@%20", true},
		{"empty segments", "GET:/a//b/", true},
		{"parameters and rest", "GET:/{a}/x/{_B9}/{c...}", true},
		{"three dots", "GET:/...", true},
		{"a star inside a segment", "GET:/a*", true},
		{"the most segments with a parameter", "GET:/{a}" + strings.Repeat("/x", 31), true},
		{"many segments without", "GET:" + strings.Repeat("/x", 100), true},
		{"the longest", "GET:/" + strings.Repeat("x", 1023), true},
		{"below a name that only starts like a reserved one", "GET:/systems/a", true},
		{"below /metrics", "GET:/metrics/a", true},

		{"nothing", "", false},
		{"no colon", "GET/a", false},
		{"no method", ":/a", false},
		{"an unknown method", "BREW:/a", false},
		{"a method in lower case", "get:/a", false},
		{"two methods", "GET,POST:/a", false},
		{"no path", "GET:", false},
		{"no slash first", "GET:a", false},
		{"a star for ANY", "*:/a", false},
		{"a space", "GET:/a b", false},
		{"a control character", "GET:/a\x00", false},
		{"beyond ASCII", "GET:/é", false},
		{"a query", "GET:/a?b", false},
		{"a fragment", "GET:/a#b", false},
		{"a bare percent", "GET:/a%", false},
		{"half an escape", "GET:/a%2", false},
		{"no escape", "GET:/a%zz", false},
		{"a dot segment", "GET:/a/./b", false},
		{"two dots", "GET:/a/..", false},
		{"two dots, encoded", "GET:/a/%2e.", false},
		{"a colon parameter", "GET:/:id", false},
		{"a star segment", "GET:/a/*", false},
		{"a parameter in part of a segment", "GET:/a{b}", false},
		{"two parameters in a segment", "GET:/{a}{b}", false},
		{"an open brace", "GET:/{a", false},
		{"a closing brace", "GET:/a}", false},
		{"no name", "GET:/{}", false},
		{"no name of a rest", "GET:/{...}", false},
		{"a digit first in a name", "GET:/{1a}", false},
		{"a name with another byte", "GET:/{a-b}", false},
		{"a name twice", "GET:/{a}/{a}", false},
		{"a rest before the end", "GET:/{a...}/b", false},
		{"nine parameters", "GET:/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", false},
		{"a name too long", "GET:/{" + strings.Repeat("x", 33) + "}", false},
		{"too many segments with a parameter", "GET:/{a}" + strings.Repeat("/x", 32), false},
		{"too long", "GET:/" + strings.Repeat("x", 1024), false},
		{"reserved", "GET:/system/functions", false},
		{"reserved, a pattern", "GET:/function/{name}", false},
		{"reserved, exactly", "POST:/upload", false},
	} {
		_, _, err := splitKey(c.key)
		if (err == nil) != c.good {
			t.Errorf("%s: %q: %v", c.law, c.key, err)
		}
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]Area{
		"": AreaNone, "/": AreaNone, "/healthz": AreaHealth, "/readyz": AreaHealth, "/healthz/": AreaNone, "/healthzz": AreaNone, "/upload": AreaControl,
		"/uploads": AreaNone, "/upload/": AreaNone, "/system": AreaControl, "/system/": AreaControl, "/system/a/b": AreaControl, "/systems": AreaNone,
		"/metrics": AreaControl, "/_": AreaControl, "/_/health": AreaControl, "/_a": AreaNone, "/async-function/x": AreaControl, "/async-functions": AreaNone,
		"/2018-06-01/runtime": AreaControl, "/2015-03-31/functions": AreaControl, "/2018": AreaNone, "/function/x": AreaFunction, "/function/x/y": AreaFunction,
		"/function": AreaFunction, "/function/": AreaFunction, "/functions": AreaNone, "/api/system": AreaNone, "*": AreaNone, "/SYSTEM/": AreaNone, "/%73ystem": AreaNone,
	} {
		if got := Reserved([]byte(path)); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	for path, want := range map[string][2]string{
		"/function/a": {"a", ""}, "/function/a/b/c": {"a", "/b/c"}, "/function/a/": {"a", "/"}, "/function/": {"", ""}, "/function": {"", ""}, "/function//a": {"", "/a"},
	} {
		name, info := FunctionName([]byte(path))
		if string(name) != want[0] || string(info) != want[1] {
			t.Errorf("%s: %q %q", path, name, info)
		}
	}
}

func TestAppendDecoded(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "", "a": "a", "a%2Fb%2f": "a/b/", "%C3%A9": "é", "+": "+", "%": "!", "%2": "!", "%zz": "!", "a%00": "!", "%41%6a": "Aj"} {
		got, ok := AppendDecoded(nil, []byte(in))
		if ok != (want != "!") || ok && string(got) != want {
			t.Errorf("%q: %q %v", in, got, ok)
		}
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	for m, want := range map[Methods]string{Get: "GET, HEAD, OPTIONS", Post | Delete: "POST, DELETE, OPTIONS", Any: "OPTIONS", Head: "HEAD, OPTIONS"} {
		if got := string(m.AppendAllow(nil)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if Any.String() != "ANY" || Patch.String() != "PATCH" {
		t.Error(Any, Patch)
	}
}
