package event

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"baton/internal/testenv"
)

var then = time.Date(2026, 11, 28, 9, 5, 3, 250e6, time.FixedZone("", 3600))

// request is a request with everything.
var request = testenv.Variables{
	"GATEWAY_INTERFACE=CGI/1.1", "SERVER_SOFTWARE=baton", "SERVER_NAME=api.example.org", "SERVER_PORT=80", "SERVER_PROTOCOL=HTTP/1.1",
	"REQUEST_METHOD=POST", "SCRIPT_NAME=/pets/a%20b/x/y", "PATH_INFO=", "QUERY_STRING=t=1&q=a+b%26&t=2&empty&bad=%zz", "REMOTE_ADDR=192.0.2.7",
	"CONTENT_LENGTH=3", "X_FULL_URL=http://api.example.org/pets/a%20b/x/y?t=1&q=a+b%26&t=2&empty&bad=%zz", "X_MATCHED_ROUTE=/pets/{petId}/{rest...}",
	"HTTP_X_REQUEST_ID=id-1", "X_PARAM_PETID=a%20b", "X_PARAM_REST=x/y", "CONTENT_TYPE=text/plain", "HTTP_HOST=api.example.org",
	"HTTP_COOKIE=a=1; b=2 ;; c=3", "HTTP_USER_AGENT=curl/8", "HTTP_X_TWO=1, 2", "HTTP_X_BYTES=\xff\"", "NOTHING",
}

const wanted = `{"version":"2.0","routeKey":"POST /pets/{petId}/{rest...}","rawPath":"/pets/a%20b/x/y","rawQueryString":"t=1&q=a+b%26&t=2&empty&bad=%zz",
"cookies":["a=1","b=2","c=3"],
"headers":{"content-length":"3","x-request-id":"id-1","content-type":"text/plain","host":"api.example.org","user-agent":"curl/8","x-two":"1, 2","x-bytes":"\ufffd\""},
"queryStringParameters":{"t":"1,2","q":"a b&","empty":"","bad":"%zz"},"pathParameters":{"petId":"a b","rest":"x/y"},
"requestContext":{"http":{"method":"POST","path":"/pets/a%20b/x/y","protocol":"HTTP/1.1","sourceIp":"192.0.2.7","userAgent":"curl/8"},
"requestId":"id-1","routeKey":"POST /pets/{petId}/{rest...}","domainName":"api.example.org","domainPrefix":"api","stage":"$default",
"time":"28/Nov/2026:08:05:03 +0000","timeEpoch":1795853103250},"body":"","isBase64Encoded":false}`

func TestEvent(t *testing.T) {
	t.Parallel()
	var b Builder
	for range 2 { // the buffers are used again
		same(t, b.Append([]byte("x"), request, then)[1:], wanted)
	}
	empty := b.Append(nil, nil, then)
	var members map[string]any
	if err := json.Unmarshal(empty, &members); err != nil || len(members) != len(decode(t, []byte(wanted)).(map[string]any)) {
		t.Errorf("an event without variables has not the same members: %s (%v)", empty, err)
	}
	for name, empty := range map[string]any{"cookies": []any{}, "headers": map[string]any{}, "queryStringParameters": map[string]any{}, "pathParameters": map[string]any{}, "body": ""} {
		if !reflect.DeepEqual(members[name], empty) {
			t.Errorf("%s is %v, want %v", name, members[name], empty)
		}
	}
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	if g, w := decode(t, got), decode(t, []byte(want)); !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestManyParameters: a query of thousands of parameters costs no more than
// each of them.
func TestManyParameters(t *testing.T) {
	t.Parallel()
	var query strings.Builder
	for i := range 3000 {
		query.WriteString("&k" + strings.Repeat("x", i%50) + "=1")
	}
	var b Builder
	got := decode(t, b.Append(nil, testenv.Variables{"QUERY_STRING=" + query.String()}, then)).(map[string]any)["queryStringParameters"].(map[string]any)
	if len(got) != 50 || got["k"] != strings.Repeat("1,", 59)+"1" {
		t.Errorf("%d parameters, k is %v", len(got), got["k"])
	}
}

// FuzzEvent: whatever the variables hold, the event is JSON, and its query is
// what net/url reads where that accepts it.
func FuzzEvent(f *testing.F) {
	f.Add("a=1&b=2&a=3", "/p/{x}", "x=1; y", "v\x00")
	f.Add("%ff=%fe&+", "}{", ";", "\"\\")
	f.Fuzz(func(t *testing.T, query, route, cookie, header string) {
		for _, s := range []*string{&query, &route, &cookie, &header} {
			*s = strings.ReplaceAll(*s, "\x00", "")
		}
		var b Builder
		text := b.Append(nil, testenv.Variables{"QUERY_STRING=" + query, "X_MATCHED_ROUTE=" + route, "HTTP_COOKIE=" + cookie, "HTTP_X=" + header, "X_PARAM_X=" + query, "X_FULL_URL=" + header}, then)
		event := decode(t, text).(map[string]any)
		values, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		got := event["queryStringParameters"].(map[string]any)
		for name, all := range values {
			valid := strings.ToValidUTF8(name, "") == name
			if want := strings.Join(all, ","); valid && strings.ToValidUTF8(want, "") == want && got[name] != want {
				t.Errorf("parameter %q is %v, want %q, of query %q", name, got[name], want, query)
			}
		}
	})
}

func BenchmarkEvent(b *testing.B) {
	var builder Builder
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = builder.Append(dst[:0], request, then)
	}
}
