package reactor

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"baton/httpparse"
	"baton/internal/testenv"
	"baton/runtime"
)

const (
	// groupRunsMax bounds the connections that are open at one time.
	groupRunsMax = 600

	// cutsRaceMax bounds the places where one case is cut in two under the race
	// detector, which is there for the loops and not for the grammar. Without it,
	// every case is cut everywhere.
	cutsRaceMax = 6

	// dullStep is how often a run of equal bytes that the function gets is cut.
	dullStep = 5000

	// heldBytesMax is what a socket takes for certain from which nobody reads.
	heldBytesMax = 16 << 10

	// cutsBehind is how many bytes of the next request are cut off too.
	cutsBehind = 4
)

// differing is what two answers to the same request may differ in.
var differing = regexp.MustCompile(`Date: [^\r]*|X-Request-Id: [^\r]*|"requestId":"[^"]*"`)

// span is a range of bytes.
type span struct{ from, to int }

// parsing is one request, or what is none, with another one behind it.
type parsing struct {
	name    string
	request string
	behind  string
	verdict string // a reason's name, "accepted" or "incomplete"; empty: whatever it is
	ends    bool   // the client ends its side: the request may wait for more
	from    int    // it is not cut before: others that begin the same are
	dull    span   // equal bytes, that are cut now and then only

	// answer is what the first run got; the others must get the same.
	answer string
	first  *parsingRun
}

// parsingRun is one way to send a parsing.
type parsingRun struct {
	*parsing
	how    string
	handed bool // on a connection that a worker has
	parts  []string
	wire   testenv.Wire
}

// The gateway and the worker are one parser and one set of policies: the same
// bytes get the same answers, byte for byte, from either, however they are cut
// on their way, and whatever is pipelined behind them. That goes for every law
// of httpparse as for every policy here: whole, a byte at a time, and cut in two
// at every place, as a connection's first request, which the gateway parses, and
// as a later one, which a worker does.
func TestGatewayAndWorkerAgree(t *testing.T) {
	t.Parallel()
	p := newParsingPair(t)
	cases := append(policyCases(), lawCases(t)...)
	var runs []*parsingRun
	for i, c := range cases {
		runs = append(runs, c.runs(i)...)
	}
	for group := range slices.Chunk(runs, groupRunsMax) {
		p.runAll(t, group)
	}
	t.Logf("%d cases, %d connections", len(cases), len(runs))
}

func newParsingPair(t testing.TB) *pair {
	t.Helper()
	p := newPairWith(t, pairOptions{
		conns: 2 * groupRunsMax, timeouts: Timeouts{Head: testenv.Patience(), Body: testenv.Patience()},
		fakes: map[string]*fake{
			"cgi":   text("Status: 404\r\nX-A: b\r\n\r\nbody"),
			"empty": text(""),
			"env":   {run: printEnv, inline: true},
		},
		handlers: map[string]string{"GET:/get": "cgi", "ANY:/": "env", "ANY:/a/{rest...}": "env"},
	})
	// Nobody asks what the control plane has seen.
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-p.controls:
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() { close(done) })
	return p
}

// Bytes that nobody thought of: the gateway and the worker give the same answer,
// also when they come in two pieces.
func FuzzGatewayAndWorkerAgree(f *testing.F) {
	p := newParsingPair(f)
	for _, c := range append(policyCases(), lawCases(f)...) {
		f.Add([]byte(c.request), uint16(len(c.request)/2))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		if len(b) == 0 {
			return
		}
		at := int(cut) % len(b)
		c := &parsing{name: fmt.Sprintf("%q", b), request: string(b)}
		for i, r := range []*parsingRun{
			{c, "whole", false, []string{string(b)}, testenv.Wire{}},
			{c, "whole", true, []string{string(b)}, testenv.Wire{}},
			{c, fmt.Sprintf("cut at %d", at), false, []string{string(b[:at]), string(b[at:])}, testenv.Wire{}},
			{c, fmt.Sprintf("cut at %d", at), true, []string{string(b[:at]), string(b[at:])}, testenv.Wire{}},
		} {
			if i == 0 {
				c.first = r
			}
			r.dial(t, p)
			if r.handed {
				r.wire.Send(handOver)
				r.awaitHandOver(t)
			}
			for _, part := range r.parts {
				r.wire.Send(part)
				p.settleAll(t)
			}
			r.wire.EndSending()
			r.check(t)
		}
	})
}

// printEnv prints what a function knows of its request, without what is of this
// connection alone.
func printEnv(inv *runtime.Invocation) runtime.Result {
	var b bytes.Buffer
	for line := range bytes.SplitSeq(inv.Env.AppendTo(nil), []byte{0}) {
		if !bytes.HasPrefix(line, []byte("X_CLIENT_ADDR=")) && !bytes.HasPrefix(line, []byte("HTTP_X_REQUEST_ID=")) {
			b.Write(append(line, '\n'))
		}
	}
	b.Write(inv.Body)
	_, _ = inv.Stdout.Write(b.Bytes())
	return runtime.Result{}
}

// policyCases are what this package decides about requests.
func policyCases() (cases []*parsing) {
	requests := []string{
		get("/echo"), get("/get"), get("/nowhere"), get("/healthz"), get("/readyz"), get("/absent"), get("/empty"),
		post("/echo", "[1]"), post("/beside", "[1]"), post("/nowhere", "[1]"), post("/get", "[1]"), post("/healthz", "[1]"),
		"HEAD /get HTTP/1.1\r\nHost: t\r\n\r\n", "HEAD /nowhere HTTP/1.1\r\nHost: t\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: t\r\nBad\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n", "OPTIONS /get HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n[1]",
		"POST http://other/echo?q=1 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /function/f-echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /nowhere HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n[1]",
		"POST /echo HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine-1\r\nContent-Length: 3\r\n\r\n[1]",
		chunked + "3\r\n[1]\r\n0\r\n\r\n", chunked + "1;a=b\r\n[\r\n2\r\n1]\r\n0\r\nT: v\r\n\r\n",
		"POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
		"POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n[1]\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000001\r\n\r\n[1]",
		"GET /system/x HTTP/1.1\r\nHost: t\r\n\r\n", "POST /system/x HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n[1]",
		"\r\n" + get("/echo"),
	}
	for i := range refusals {
		if len(refusals[i].request) < 4096 { // the others: longCases, and below
			requests = append(requests, refusals[i].request)
		}
	}
	const behind = "GET /nowhere HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
	for _, r := range requests {
		cases = append(cases, &parsing{name: strconv.Quote(r), request: r, behind: behind})
	}
	// Too large when much of it has streamed to its function; and one that has not.
	data := strings.Repeat("x", 100_000)
	for name, end := range map[string]string{"too large in the end": "\r\ndbba1\r\n", "not too large": "\r\n1\r\ny\r\n0\r\n\r\n"} {
		head := strings.Replace(chunked, "/echo", "/sink", 1) + "186a0\r\n"
		cases = append(cases, &parsing{name: name, request: head + data + end, behind: behind, dull: span{len(head), len(head) + len(data)}})
	}
	return cases
}

// lawCases are the laws of httpparse, of which that package keeps a file.
func lawCases(t testing.TB) (cases []*parsing) {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "httpparse", "testdata", "laws.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const behind = "GET /a/next?law HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n"
	chunkLaws := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		c := &parsing{behind: behind, ends: true}
		if n, err := fmt.Sscanf(lines.Text(), "%q %q %q", &c.name, &c.verdict, &c.request); n != 3 {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		var head httpparse.Request
		if strings.HasPrefix(c.name, "chunks: ") {
			const head = "POST /a/chunks HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
			c.request = head + c.request
			if chunkLaws++; chunkLaws > 1 {
				c.from = len(head) - 1
			}
		} else if httpparse.ParseHead(&head, []byte(c.request)); c.verdict == "accepted" {
			if head.Chunked {
				c.request += "2\r\nab\r\n0\r\n\r\n"
			} else if head.ContentLength < 100 {
				c.request += strings.Repeat("x", int(max(head.ContentLength, 0)))
			}
		}
		if c.verdict == "incomplete" {
			c.behind = "" // it would be a part of this
		}
		cases = append(cases, c)
	}
	if len(cases) < 300 {
		t.Fatalf("%d laws", len(cases))
	}
	return cases
}

// runs are all the ways in which c is sent; i is the number of c.
func (c *parsing) runs(i int) (all []*parsingRun) {
	text := c.request + c.behind
	step := 1
	if raceEnabled {
		step = max(1, (len(c.request)+cutsBehind)/cutsRaceMax)
	}
	for _, handed := range []bool{false, true} {
		all = append(all, &parsingRun{c, "whole", handed, []string{text}, testenv.Wire{}})
	}
	c.first = all[0]
	for _, handed := range []bool{false, true} {
		if c.dull == (span{}) {
			all = append(all, &parsingRun{c, "byte by byte", handed, strings.Split(text, ""), testenv.Wire{}})
		}
		for at := max(c.from, 1) + i%step; at <= len(c.request)+cutsBehind && at < len(text); at += step {
			if c.dull.from < at && at < c.dull.to && at%dullStep != 0 {
				continue
			}
			all = append(all, &parsingRun{c, fmt.Sprintf("cut at %d", at), handed, []string{text[:at], text[at:]}, testenv.Wire{}})
		}
	}
	return all
}

// runAll sends all runs at the same time, part by part: every loop has read the
// one before the next is sent. The loops stand still meanwhile, or each part
// would wake one.
func (p *pair) runAll(t *testing.T, all []*parsingRun) {
	t.Helper()
	parts, fresh := 0, 0
	held := p.held
	for _, r := range all {
		if len(r.request) > heldBytesMax {
			held = func(do func()) { do() }
		}
	}
	held(func() {
		for _, r := range all {
			r.dial(t, p)
			if r.handed {
				r.wire.Send(handOver)
			} else {
				fresh++
			}
			parts = max(parts, len(r.parts))
		}
	})
	for _, r := range all {
		r.awaitHandOver(t)
	}
	testenv.Until(t, "every connection is accepted", func() bool {
		n := 0
		for _, l := range p.front.loops {
			_ = l.ask(func() {
				for _, c := range l.conns {
					if c != nil {
						n++
					}
				}
			})
		}
		return n >= fresh
	})
	for i := range parts {
		held(func() {
			for _, r := range all {
				if i < len(r.parts) {
					r.wire.Send(r.parts[i])
				}
			}
		})
		p.settleAll(t)
	}
	for _, r := range all {
		if r.ends {
			r.wire.EndSending()
		}
	}
	for _, r := range all {
		r.check(t)
	}
}

// held calls do while no loop turns.
func (p *pair) held(do func()) {
	stands, goOn := make(chan struct{}), make(chan struct{})
	stand := func() { stands <- struct{}{}; <-goOn }
	var loops []*loop
	for _, l := range p.front.loops {
		loops = append(loops, &l.loop)
	}
	for _, b := range p.backs {
		loops = append(loops, &b.back.loop)
	}
	for _, l := range loops {
		_ = l.post(stand)
	}
	for range loops {
		<-stands
	}
	defer close(goOn)
	do()
}

// settleAll waits until the loops have read everything that had arrived when it
// was called, also on connections that are on their way to a worker.
func (p *pair) settleAll(t testing.TB) {
	t.Helper()
	p.settle()
	testenv.Until(t, "what is donated is adopted", func() bool {
		for _, b := range p.backs {
			if p.board.Worker(b.id).Pending() > 0 {
				return false
			}
		}
		return true
	})
	for range 2 { // the first may have been announced before what has arrived
		for _, b := range p.backs {
			_ = b.back.ask(func() {})
		}
	}
}

// handOver is a request whose connection a worker has from then on, and handedOver
// how its answer ends.
var (
	handOver   = post("/echo", "[0]")
	handedOver = "\r\n\r\n[0]"
)

func (r *parsingRun) dial(t testing.TB, p *pair) {
	t.Helper()
	var err error
	if r.wire, err = testenv.DialWire(p.front.Addr()); err != nil {
		t.Fatal(err)
	}
}

// awaitHandOver waits until a worker has r's connection, where it is to.
func (r *parsingRun) awaitHandOver(t testing.TB) {
	t.Helper()
	if !r.handed {
		return
	}
	if err := r.wire.ReadUntil(handedOver); err != nil {
		t.Fatal(err)
	}
}

func (r *parsingRun) check(t *testing.T) {
	t.Helper()
	defer r.wire.Close()
	where := "gateway"
	if r.handed {
		where = "worker"
	}
	all, err := r.wire.Read(nil, nil)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%s %s at the %s: %v after %q", r.name, r.how, where, err, all)
	}
	got := differing.ReplaceAllString(string(all), "-")
	// A body that is cut off its head with Expect is asked for.
	got = strings.TrimPrefix(got, string(continueAnswer))
	if r == r.first {
		r.answer = got
		r.checkVerdict(t)
		return
	}
	if got != r.answer {
		t.Errorf("%s %s at the %s:\n%q\nwant, as whole at the gateway,\n%q", r.name, r.how, where, got, r.answer)
	}
}

// reasonIn finds the reason in an answer.
var reasonIn = regexp.MustCompile(`^HTTP/1\.1 (\d+) [^\r]*\r\n(?s:.*)\r\n\r\n\{[^}]*"component":"gateway","reason":"([a-z0-9_]+)"`)

// checkVerdict compares the answer with what the law says.
func (r *parsingRun) checkVerdict(t *testing.T) {
	t.Helper()
	if r.verdict == "" || strings.HasPrefix(r.request, "HEAD ") {
		return
	}
	head, _, _ := strings.Cut(r.answer, "HTTP/1.1 200") // the next request's may be behind it
	reason := ""
	if m := reasonIn.FindStringSubmatch(head); m != nil {
		reason = m[2]
	}
	// What the policies say of a request that the parser accepts.
	policies := []string{"", reasonNoRoute, reasonMethodNotAllowed, reasonBodyTooLarge}
	switch {
	case r.verdict != "accepted" && r.verdict != "incomplete":
		if reason != r.verdict || strings.Contains(r.answer, "/a/next") {
			t.Errorf("%s: the law says %s; the answer:\n%q", r.name, r.verdict, r.answer)
		}
	case !slices.Contains(policies, reason):
		t.Errorf("%s: the law says %s; the answer:\n%q", r.name, r.verdict, r.answer)
	}
}
