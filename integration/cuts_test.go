package integration

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/internal/testenv"
)

const (
	// crowdMax bounds the connections that are open at one time.
	crowdMax = 1000

	// cutsRaceMax bounds the places where one case is cut in two under the race
	// detector.
	cutsRaceMax = 3

	// bytewiseMax is the longest case that comes byte by byte, and bytewiseCrowdMax
	// how many do at one time: each byte takes a round, and a head's limit of time
	// is the product's own here, 10 s. The longer ones come so in package reactor.
	// Under the race detector every bytewiseRaceStep of the shorter ones does.
	bytewiseMax      = 300
	bytewiseCrowdMax = 100
	bytewiseRaceMax  = 60
	bytewiseRaceStep = 4
)

// sending is one way to send a case.
type sending struct {
	of     *cutCase
	how    string
	later  bool // not the connection's first request: a worker has it
	parts  []string
	wire   testenv.Wire
	answer string
}

// cutCase is one request, or what is none.
type cutCase struct {
	name, request string
	statuses      string // of all answers, the one to the request behind it included; empty: any
	reason        string // of the first answer; empty: any
	incomplete    bool   // nothing is sent behind it: that would be a part of it
	whole         *sending
}

// Every law of the parser, and requests that somebody thought of who wanted to
// find a hole: whole, byte by byte and cut at every place, with another request
// behind it, as a connection's first request, which the gateway parses, and as its
// second, which a worker does. The real server gives the same answers, byte for
// byte. The cases that are KiBs long are cut like that in package reactor.
func TestEveryCutOnBothSides(t *testing.T) {
	t.Parallel()
	s := start(t, testenv.Options{Workers: 2})
	db := open(t, s)
	for _, key := range []string{"ANY:/", "ANY:/a/{rest...}"} {
		put(t, db, key, row{"name": "laws", "handler": "cgi"})
		awaitRoute(t, s.Addr, strings.Replace(strings.TrimPrefix(key, "ANY:"), "{rest...}", "b", 1), true)
	}
	addr := netip.MustParseAddrPort(s.Addr)
	cases := append(cutLaws(t), craftedCases...)
	var whole, bytewise, cut []*sending
	const behind = "GET /ping?behind HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
	for i := range cases {
		c := &cases[i]
		text := c.request
		if !c.incomplete {
			text += behind
		}
		step, bytewiseMax := 1, bytewiseMax
		if raceEnabled {
			bytewiseMax = bytewiseRaceMax
			step = len(c.request)/cutsRaceMax + 1
		}
		for _, later := range []bool{false, true} {
			one := &sending{of: c, how: "whole", later: later, parts: []string{text}}
			whole = append(whole, one)
			if c.whole == nil {
				c.whole = one
			}
			if len(c.request) <= bytewiseMax && (!raceEnabled || i%bytewiseRaceStep == 0) {
				parts := append(strings.Split(c.request, ""), text[len(c.request):])
				bytewise = append(bytewise, &sending{of: c, how: "byte by byte", later: later, parts: parts})
			}
			for at := 1 + i%step; at <= min(len(c.request)+1, len(text)-1); at += step {
				cut = append(cut, &sending{of: c, how: fmt.Sprintf("cut at %d", at), later: later, parts: []string{text[:at], text[at:]}})
			}
		}
	}
	slices.SortStableFunc(bytewise, func(a, b *sending) int { return len(a.parts) - len(b.parts) })
	for _, all := range []struct {
		sendings []*sending
		most     int
	}{{whole, crowdMax}, {bytewise, bytewiseCrowdMax}, {cut, crowdMax}} {
		start := time.Now()
		for crowd := range slices.Chunk(all.sendings, all.most) {
			sendCrowd(t, addr, crowd)
			for _, one := range crowd {
				one.check(t)
			}
		}
		t.Logf("%d connections, %q the first: %v", len(all.sendings), all.sendings[0].how, time.Since(start))
	}
	t.Logf("%d cases, %d connections", len(cases), len(whole)+len(bytewise)+len(cut))
}

// sendCrowd sends all at the same time, part by part: the server has read the one
// before the next is sent.
func sendCrowd(t *testing.T, addr netip.AddrPort, all []*sending) {
	t.Helper()
	parts := 0
	for _, one := range all {
		var err error
		if one.wire, err = testenv.DialWire(addr); err != nil {
			t.Fatal(err)
		}
		defer one.wire.Close()
		if one.later {
			one.wire.Send(get("/healthz") + post("/nowhere", "") + get("/ping"))
		}
		parts = max(parts, len(one.parts))
	}
	for _, one := range all {
		if !one.later {
			continue
		}
		_, err := one.wire.Read(nil, func(have []byte) bool {
			return strings.Contains(string(have), `{"pong":true`) && strings.HasSuffix(string(have), "}")
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	diag, err := testenv.OpenDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer diag.Close()
	_, open, err := diag.Unread(all[0].wire)
	testenv.NeedFeature(t, "inet_diag of the kernel", err == nil && open, err)
	for i := range parts {
		for _, one := range all {
			if i < len(one.parts) {
				one.wire.Send(one.parts[i])
			}
		}
		if parts > 1 {
			awaitRead(t, diag, all, i)
		}
	}
	for _, one := range all {
		one.wire.EndSending() // whoever waits for more is told that there is none
	}
	for _, one := range all {
		all, err := one.wire.Read(nil, nil)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("%s, %s: %v after %q", one.of.name, one.how, err, all)
		}
		one.answer = cutDiffering.ReplaceAllString(strings.TrimPrefix(string(all), "HTTP/1.1 100 Continue\r\n\r\n"), "-")
	}
}

// cutDiffering is what two answers to the same request may differ in.
var cutDiffering = regexp.MustCompile(`Date: [^\r]*|X-Request-Id: [^\r]*|"requestId":"[^"]*"|"ts":\d+`)

// awaitRead waits until the server has read all that was sent as part i.
func awaitRead(t *testing.T, diag testenv.Diag, all []*sending, i int) {
	t.Helper()
	for _, one := range all {
		if i >= len(one.parts) {
			continue
		}
		has := func() bool {
			unread, _, err := diag.Unread(one.wire)
			if err != nil {
				t.Fatal(err)
			}
			return unread == 0
		}
		if !has() {
			testenv.Until(t, "the server has read what was sent", has)
		}
	}
}

// check compares one with how its case was answered whole, as the first request.
func (one *sending) check(t *testing.T) {
	t.Helper()
	c := one.of
	where := "first"
	if one.later {
		where = "later"
	}
	if first := c.whole; one != first {
		if one.answer != first.answer {
			t.Errorf("%s, %s, as %s request:\n%q\nwant, as whole and first,\n%q", c.name, one.how, where, one.answer, first.answer)
		}
		return
	}
	var statuses []string
	for _, begin := range answerBegin.FindAllString(one.answer, -1) {
		statuses = append(statuses, strings.Fields(begin)[1])
	}
	if got := strings.Join(statuses, " "); c.statuses != "" && got != c.statuses {
		t.Errorf("%s: %s, want %s: %q", c.name, got, c.statuses, one.answer)
	}
	if c.reason != "" && !strings.HasPrefix(c.request, "HEAD ") && !strings.Contains(one.answer, `"reason":"`+c.reason+`"`) {
		t.Errorf("%s: want the reason %s: %q", c.name, c.reason, one.answer)
	}
	// A refusal is the last answer, and says so.
	if c.reason != "" && (len(statuses) != 1 || !strings.Contains(one.answer, "\r\nConnection: close\r\n")) {
		t.Errorf("%s: want one answer, which ends the connection: %q", c.name, one.answer)
	}
}

// cutLaws are the laws of httpparse, of which that package keeps a file.
func cutLaws(t *testing.T) (cases []cutCase) {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "httpparse", "testdata", "laws.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var c cutCase
		var verdict string
		if n, err := fmt.Sscanf(lines.Text(), "%q %q %q", &c.name, &verdict, &c.request); n != 3 {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if strings.HasPrefix(c.name, "chunks: ") {
			c.request = "POST /api/hello HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + c.request
		}
		switch verdict {
		case "accepted", "incomplete":
			// A body that it announces begins with what is behind it, or is missing.
			c.incomplete = verdict == "incomplete"
		default:
			c.reason = verdict
		}
		cases = append(cases, c)
	}
	if len(cases) < 300 {
		t.Fatalf("%d laws", len(cases))
	}
	return cases
}

// crafted is a GET of /ping with more lines.
func crafted(lines string) string { return "GET /ping HTTP/1.1\r\nHost: t\r\n" + lines + "\r\n" }

// body is a POST with fields and what is behind its head.
func body(fields, rest string) string {
	return "POST /api/hello HTTP/1.1\r\nHost: t\r\n" + fields + "\r\n" + rest
}

// coded is a POST in chunks.
func coded(chunks string) string { return body("Transfer-Encoding: chunked\r\n", chunks) }

// line is a GET with that request line.
func line(text string) string { return text + "\r\nHost: t\r\n\r\n" }

// craftedCases, with what RFC 9110, 9112 and 3986 say of them, and README.md where
// it is stricter.
var craftedCases = []cutCase{
	{name: "plain", request: get("/ping"), statuses: "200 200"},
	{name: "HEAD", request: "HEAD /ping HTTP/1.1\r\nHost: t\r\n\r\n", statuses: "200 200"},
	{name: "a method in small letters", request: line("get /ping HTTP/1.1"), statuses: "405", reason: "method_not_allowed"},
	{name: "a method of one's own", request: line("BREW /ping HTTP/1.1"), statuses: "405", reason: "method_not_allowed"},
	{name: "PRI of HTTP/2", request: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", statuses: "505", reason: "unsupported_version"},
	{name: "two spaces", request: line("GET  /ping HTTP/1.1"), statuses: "400", reason: "bad_request_line"},
	{name: "a tab before the target", request: line("GET\t/ping HTTP/1.1"), statuses: "400", reason: "bad_method"},
	{name: "a tab before the version", request: line("GET /ping\tHTTP/1.1"), statuses: "400", reason: "bad_target"},
	{name: "a space behind the version", request: line("GET /ping HTTP/1.1 "), statuses: "400", reason: "bad_request_line"},
	{name: "a space before the method", request: line(" GET /ping HTTP/1.1"), statuses: "400", reason: "bad_method"},
	{name: "an empty line before", request: "\r\n" + get("/ping"), statuses: "200 200"},
	{name: "two empty lines before", request: "\r\n\r\n" + get("/ping"), statuses: "400", reason: "bad_request_line"},
	{name: "LF before", request: "\n" + get("/ping"), statuses: "400", reason: "bare_lf"},
	{name: "no version", request: "GET /ping\r\n\r\n", statuses: "400", reason: "bad_request_line"},
	{name: "HTTP/0.9", request: line("GET /ping HTTP/0.9"), statuses: "505", reason: "unsupported_version"},
	{name: "HTTP/1.2", request: line("GET /ping HTTP/1.2"), statuses: "200 200"},
	{name: "HTTP/1.9", request: line("GET /ping HTTP/1.9"), statuses: "200 200"},
	{name: "HTTP/3.0", request: line("GET /ping HTTP/3.0"), statuses: "505", reason: "unsupported_version"},
	{name: "http/1.1", request: line("GET /ping http/1.1"), statuses: "400", reason: "bad_version"},
	{name: "HTTP/1.10", request: line("GET /ping HTTP/1.10"), statuses: "400", reason: "bad_version"},
	{name: "HTTP/11.1", request: line("GET /ping HTTP/11.1"), statuses: "400", reason: "bad_version"},
	{name: "HTTP/1,1", request: line("GET /ping HTTP/1,1"), statuses: "400", reason: "bad_version"},
	{name: "no slash", request: line("GET ping HTTP/1.1"), statuses: "400", reason: "bad_target"},
	{name: "two slashes", request: line("GET //ping HTTP/1.1"), statuses: "404 200"},
	{name: "a dot segment", request: line("GET /./ping HTTP/1.1"), statuses: "404 200"},
	{name: "two dots", request: line("GET /x/../ping HTTP/1.1"), statuses: "404 200"},
	{name: "an escaped letter", request: line("GET /%70ing HTTP/1.1"), statuses: "404 200"},
	{name: "an escaped NUL", request: line("GET /ping%00 HTTP/1.1"), statuses: "404 200"},
	{name: "an escaped slash", request: line("GET /%2Fping HTTP/1.1"), statuses: "404 200"},
	{name: "half an escape", request: line("GET /ping% HTTP/1.1"), statuses: "400", reason: "bad_percent_encoding"},
	{name: "a fragment", request: line("GET /ping?a=b#c HTTP/1.1"), statuses: "400", reason: "fragment_in_target"},
	{name: "DEL in the target", request: line("GET /ping\x7f HTTP/1.1"), statuses: "400", reason: "bad_target"},
	{name: "a high byte in the target", request: line("GET /ping\x80 HTTP/1.1"), statuses: "400", reason: "bad_target"},
	{name: "a backslash in the target", request: line("GET /ping\\x HTTP/1.1"), statuses: "400", reason: "bad_target"},
	{name: "a question mark alone", request: line("GET /ping? HTTP/1.1"), statuses: "200 200"},
	{name: "absolute, another Host", request: "GET http://t/ping HTTP/1.1\r\nHost: other\r\n\r\n", statuses: "200 200"},
	{name: "absolute, scheme in capitals", request: line("GET HTTP://t/ping HTTP/1.1"), statuses: "200 200"},
	{name: "absolute, without authority", request: line("GET http:///ping HTTP/1.1"), statuses: "400", reason: "bad_authority"},
	{name: "absolute, a port too large", request: line("GET http://t:99999/ping HTTP/1.1"), statuses: "400", reason: "bad_authority"},
	{name: "absolute, with user", request: line("GET http://u@t/ping HTTP/1.1"), statuses: "400", reason: "bad_authority"},
	{name: "absolute, without Host", request: "GET http://t/ping HTTP/1.1\r\n\r\n", statuses: "400", reason: "missing_host"},
	{name: "https", request: line("GET https://t/ping HTTP/1.1"), statuses: "421", reason: "misdirected"},
	{name: "CONNECT", request: line("CONNECT t:80 HTTP/1.1"), statuses: "501", reason: "connect_unsupported"},
	{name: "CONNECT a path", request: line("CONNECT /ping HTTP/1.1"), statuses: "501", reason: "connect_unsupported"},
	{name: "OPTIONS *", request: line("OPTIONS * HTTP/1.1"), statuses: "204 200"},
	{name: "OPTIONS of a path", request: line("OPTIONS /ping HTTP/1.1"), statuses: "204 200"},
	{name: "TRACE", request: line("TRACE /ping HTTP/1.1"), statuses: "405", reason: "method_not_allowed"},
	{name: "no Host", request: "GET /ping HTTP/1.1\r\n\r\n", statuses: "400", reason: "missing_host"},
	{name: "no Host in 1.0", request: "GET /ping HTTP/1.0\r\n\r\n", statuses: "200"},
	{name: "Host twice", request: crafted("Host: t\r\n"), statuses: "400", reason: "repeated_host"},
	{name: "an empty Host", request: "GET /ping HTTP/1.1\r\nHost:\r\n\r\n", statuses: "200 200"},
	{name: "Host with an empty port", request: "GET /ping HTTP/1.1\r\nHost: t:\r\n\r\n", statuses: "200 200"},
	{name: "Host of IPv6", request: "GET /ping HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", statuses: "200 200"},
	{name: "Host of half an IPv6", request: "GET /ping HTTP/1.1\r\nHost: [::1\r\n\r\n", statuses: "400", reason: "bad_host"},
	{name: "two names in Host", request: "GET /ping HTTP/1.1\r\nHost: t, u\r\n\r\n", statuses: "400", reason: "bad_host"},
	{name: "a path in Host", request: "GET /ping HTTP/1.1\r\nHost: t/x\r\n\r\n", statuses: "400", reason: "bad_host"},
	{name: "a user in Host", request: "GET /ping HTTP/1.1\r\nHost: u@t\r\n\r\n", statuses: "400", reason: "bad_host"},
	{name: "a space before the colon", request: crafted("X : y\r\n"), statuses: "400", reason: "space_before_colon"},
	{name: "a tab before the colon", request: crafted("X\t: y\r\n"), statuses: "400", reason: "space_before_colon"},
	{name: "a fold", request: crafted("X: y\r\n z\r\n"), statuses: "400", reason: "obs_fold"},
	{name: "no name", request: crafted(": y\r\n"), statuses: "400", reason: "bad_field_name"},
	{name: "no colon", request: crafted("X\r\n"), statuses: "400", reason: "missing_colon"},
	{name: "CR in a value", request: crafted("X: a\rb\r\n"), statuses: "400", reason: "bare_cr"},
	{name: "CR before CRLF", request: crafted("X: a\r\r\n"), statuses: "400", reason: "bare_cr"},
	{name: "LF in a value", request: crafted("X: a\nb: c\r\n"), statuses: "400", reason: "bare_lf"},
	{name: "NUL in a value", request: crafted("X: a\x00\r\n"), statuses: "400", reason: "bad_field_value"},
	{name: "a high byte in a value", request: crafted("X: \xff\r\n"), statuses: "200 200"},
	{name: "a separator in a name", request: crafted("X;Y: 1\r\n"), statuses: "400", reason: "bad_field_name"},
	{name: "a high byte in a name", request: crafted("X\xe9: 1\r\n"), statuses: "400", reason: "bad_field_name"},
	{name: "an empty value", request: crafted("X:\r\n"), statuses: "200 200"},
	{name: "Upgrade", request: crafted("Connection: Upgrade\r\nUpgrade: h2c\r\n"), statuses: "200 200"},
	{name: "close in a list", request: crafted("Connection: x, CLOSE\r\n"), statuses: "200"},
	{name: "Expect of another kind", request: body("Expect: x\r\nContent-Length: 2\r\n", "{}"), statuses: "417", reason: "unsupported_expectation"},
	{name: "Expect of two kinds", request: body("Expect: 100-continue, x\r\nContent-Length: 2\r\n", "{}"), statuses: "417", reason: "unsupported_expectation"},
	{name: "Expect", request: body("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"), statuses: "200 200"},
	{name: "a length", request: body("Content-Length: 2\r\n", "{}"), statuses: "200 200"},
	{name: "a length with zeros before", request: body("Content-Length: 0002\r\n", "{}"), statuses: "200 200"},
	{name: "a length with space around", request: body("Content-Length: \t2 \r\n", "{}"), statuses: "200 200"},
	{name: "a list of one length", request: body("Content-Length: 2, 2\r\n", "{}"), statuses: "400", reason: "bad_content_length"},
	{name: "a list of lengths", request: body("Content-Length: 2, 3\r\n", "{}"), statuses: "400", reason: "bad_content_length"},
	{name: "two lengths", request: body("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"), statuses: "400", reason: "repeated_content_length"},
	{name: "a signed length", request: body("Content-Length: +2\r\n", "{}"), statuses: "400", reason: "bad_content_length"},
	{name: "a hexadecimal length", request: body("Content-Length: 0x2\r\n", "{}"), statuses: "400", reason: "bad_content_length"},
	{name: "an empty length", request: body("Content-Length:\r\n", "{}"), statuses: "400", reason: "bad_content_length"},
	{name: "a length of 2 to the 64th and 2", request: body("Content-Length: 18446744073709551618\r\n", "{}"), statuses: "400", reason: "bad_content_length"},
	{name: "a length above max_body", request: body("Content-Length: 10485761\r\n", "{}"), statuses: "413", reason: "body_too_large"},
	{name: "a length and chunks", request: body("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), statuses: "400", reason: "length_and_transfer_encoding"},
	{name: "a length with an underscore", request: body("Content_Length: 5\r\nContent-Length: 2\r\n", "{}"), statuses: "200 200"},
	{name: "chunks of an unknown coding", request: body("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), statuses: "501", reason: "unsupported_transfer_encoding"},
	{name: "gzip and chunks", request: body("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), statuses: "501", reason: "unsupported_transfer_encoding"},
	{name: "identity", request: body("Transfer-Encoding: identity\r\n", ""), statuses: "501", reason: "unsupported_transfer_encoding"},
	{name: "chunked twice", request: body("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), statuses: "400", reason: "bad_transfer_encoding"},
	{name: "Chunked", request: body("Transfer-Encoding: Chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), statuses: "200 200"},
	{name: "chunked with a parameter", request: body("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), statuses: "400", reason: "bad_transfer_encoding"},
	{name: "chunked behind VT", request: body("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"), statuses: "400", reason: "bad_field_value"},
	{name: "chunked in 1.0", request: "POST /api/hello HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", statuses: "400", reason: "transfer_encoding_in_http_1_0"},
	{name: "chunks", request: coded("2\r\n{}\r\n0\r\n\r\n"), statuses: "200 200"},
	{name: "a size with zeros before", request: coded("0002\r\n{}\r\n000\r\n\r\n"), statuses: "200 200"},
	{name: "a size and LF", request: coded("2\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bare_lf"},
	{name: "a size and a space", request: coded("2 \r\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_extension"},
	{name: "a hexadecimal prefix", request: coded("0x2\r\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_size"},
	{name: "no size", request: coded("\r\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_size"},
	{name: "a signed size", request: coded("-2\r\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_size"},
	{name: "a size of 16 f", request: coded("ffffffffffffffff\r\n{}\r\n0\r\n\r\n"), statuses: "413", reason: "chunk_too_large"},
	{name: "a size of 2 to the 64th and 2", request: coded("10000000000000002\r\n{}\r\n0\r\n\r\n"), statuses: "413", reason: "chunk_too_large"},
	{name: "an extension", request: coded("2;a=b;c=\"d;\\\"e\"\r\n{}\r\n0;x\r\n\r\n"), statuses: "200 200"},
	{name: "LF in an extension", request: coded("2;a\n\r\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bare_lf"},
	{name: "an open quote in an extension", request: coded("2;a=\"b\r\n{}\r\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_extension"},
	{name: "more data than the size", request: coded("2\r\n{}}\r\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_end"},
	{name: "data and LF", request: coded("2\r\n{}\n0\r\n\r\n"), statuses: "400", reason: "bad_chunk_end"},
	{name: "a trailer", request: coded("2\r\n{}\r\n0\r\nX: y\r\n\r\n"), statuses: "200 200"},
	{name: "a length in the trailer", request: coded("2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n"), statuses: "200 200"},
	{name: "a fold in the trailer", request: coded("2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n"), statuses: "400", reason: "obs_fold"},
	{name: "LF in the trailer", request: coded("2\r\n{}\r\n0\r\nX: y\n\r\n"), statuses: "400", reason: "bare_lf"},
	{name: "LF for the trailer's end", request: coded("2\r\n{}\r\n0\r\n\n"), statuses: "400", reason: "bare_lf"},
	{name: "a body for another method", request: "DELETE /ping HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}", statuses: "405", reason: "method_not_allowed"},
	{name: "a body for nothing", request: post("/nowhere", "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"), statuses: "404 200"},
	{name: "chunks for nothing", request: "POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", statuses: "404"},
	{name: "a body for GET", request: "GET /ping HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\n{}", statuses: "200 200"},
	{name: "the control plane, without the token", request: get("/system/status"), statuses: "401", reason: "token_missing"},
}
