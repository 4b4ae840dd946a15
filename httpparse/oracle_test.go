package httpparse

import (
	"bytes"
	"math/big"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The second parser: slow and obvious, the oracle of the tests and the fuzz
// targets. The head is read by one byte at a time in a machine of small
// states, so it knows the first byte at which each verdict is certain; what
// fields say is judged with regular expressions written off the RFCs.

// verdict is all that a parser says about a head.
type verdict struct {
	outcome Outcome
	n       int
	why     Reason

	method, target, path, query, authority, requestID string
	hasPath, hasQuery, hasAuthority, hasRequestID     bool
	form                                              TargetForm
	minor                                             uint8
	fields                                            []string // name, value, name, …
	length                                            int64
	chunked, keepAlive, expect, underscores           bool
}

// verdictOf gives ParseHead's verdict the oracle's shape. On Invalid only the
// reason counts, and the method and version, which an answer needs.
func verdictOf(r *Request, o Outcome, n int, why Reason) verdict {
	v := verdict{outcome: o, n: n, why: why}
	if o == Incomplete {
		return v
	}
	v.method, v.minor = string(r.Method), r.Minor
	if o == Invalid {
		return v
	}
	v.target, v.path, v.query, v.authority, v.requestID =
		string(r.Target), string(r.Path), string(r.Query), string(r.Authority), string(r.RequestID)
	v.hasPath, v.hasQuery, v.hasAuthority, v.hasRequestID =
		r.Path != nil, r.Query != nil, r.Authority != nil, r.RequestID != nil
	v.form = r.Form
	for _, f := range r.Fields {
		v.fields = append(v.fields, string(f.Name), string(f.Value))
	}
	v.length, v.chunked, v.keepAlive, v.expect, v.underscores =
		r.ContentLength, r.Chunked, r.KeepAlive, r.ExpectContinue, r.Underscores
	return v
}

const (
	oracleToken = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	oracleHost  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=" // unreserved, sub-delims
	oraclePath  = oracleHost + ":@/"
	oracleQuery = oraclePath + "?[]{}|^`\\"
	oracleHex   = "0123456789abcdefABCDEF"
)

func isOf(set string, c byte) bool { return strings.IndexByte(set, c) >= 0 }

// head is the machine. Its state is a function that takes the next byte and
// returns a Reason, or ReasonNone to go on.
type head struct {
	verdict
	state     func(c byte) Reason
	done      bool
	count     int // bytes taken
	line      int // … since the request line began
	inRequest bool
	emptySeen bool

	token, value  []byte
	pathB, queryB []byte
	fieldCount    int
	hosts         int
	codings       int
	close, keep   bool
	ids           int
	lengths       int
}

func oracleHead(b []byte) verdict {
	h := &head{inRequest: true}
	h.minor = 1
	h.length = -1
	h.state = h.first
	for _, c := range b {
		h.count++
		if h.inRequest {
			h.line++
		}
		why := h.state(c)
		if why == ReasonNone && h.inRequest && h.line == RequestLineBytesMax+2 {
			why = ReasonRequestLineTooLong
		}
		if why == ReasonNone && h.count == HeadBytesMax && !h.done {
			why = ReasonHeadTooLarge
		}
		if why != ReasonNone {
			return verdict{outcome: Invalid, why: why, method: h.method, minor: h.minor}
		}
		if h.done {
			h.outcome, h.n = Complete, h.count
			return h.verdict
		}
	}
	return verdict{outcome: Incomplete}
}

func (h *head) first(c byte) Reason {
	if c == '\r' && !h.emptySeen {
		h.emptySeen = true
		h.state = func(c byte) Reason {
			if c != '\n' {
				return ReasonBareCR
			}
			h.line = 0
			h.state = h.inMethod
			return ReasonNone
		}
		return ReasonNone
	}
	h.state = h.inMethod
	return h.state(c)
}

func (h *head) inMethod(c byte) Reason {
	switch {
	case isOf(oracleToken, c):
		h.token = append(h.token, c)
		return ReasonNone
	case c == '\n':
		return ReasonBareLF
	case c == '\r':
		return ReasonBadRequestLine
	case c != ' ' || len(h.token) == 0:
		return ReasonBadMethod
	}
	h.method = string(h.token)
	if h.method == "CONNECT" {
		return ReasonConnect
	}
	h.state = h.targetStart
	return ReasonNone
}

func oracleTargetEnd(c byte) Reason {
	switch c {
	case '\n':
		return ReasonBareLF
	case '\r':
		return ReasonBadRequestLine
	case '#':
		return ReasonFragmentInTarget
	}
	return ReasonBadTarget
}

func (h *head) targetStart(c byte) Reason {
	h.token = []byte{c}
	switch {
	case c == '/':
		h.hasPath = true
		h.pathB = []byte("/")
		h.state = h.inPath
	case c == '*':
		h.state = func(c byte) Reason {
			if c != ' ' {
				return oracleTargetEnd(c)
			}
			h.form = AsteriskForm
			return h.targetEnd()
		}
	case c == ' ':
		return ReasonBadRequestLine
	case c == ':' || !isOf("+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", c):
		return oracleTargetEnd(c)
	default:
		h.state = h.inScheme
	}
	return ReasonNone
}

func (h *head) inScheme(c byte) Reason {
	h.token = append(h.token, c)
	t := string(h.token)
	scheme, after, colon := strings.Cut(t, ":")
	if !colon {
		if !isOf("+-.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", c) {
			return oracleTargetEnd(c)
		}
		return ReasonNone
	}
	if !strings.HasPrefix("//", after) {
		return oracleTargetEnd(c)
	}
	if after == "//" {
		switch strings.ToLower(scheme) {
		case "http":
		case "https":
			return ReasonMisdirected
		default:
			return ReasonBadScheme
		}
		h.form = AbsoluteForm
		h.value = nil
		h.state = h.inAuthority
	}
	return ReasonNone
}

func (h *head) inAuthority(c byte) Reason {
	h.token = append(h.token, c)
	if isOf(oracleHost+":[]%", c) {
		h.value = append(h.value, c)
		return ReasonNone
	}
	if c == '@' {
		return ReasonBadAuthority
	}
	if c != '/' && c != '?' && c != ' ' {
		return oracleTargetEnd(c)
	}
	h.authority, h.hasAuthority = string(h.value), true
	if h.authority == "" || !oracleValidHost(h.authority) {
		return ReasonBadAuthority
	}
	h.hasPath = true
	h.pathB = []byte("/")
	switch c {
	case '/':
		h.state = h.inPath
	case '?':
		h.hasQuery = true
		h.state = h.inQuery
	default:
		h.token = h.token[:len(h.token)-1]
		if h.method == "OPTIONS" {
			h.form, h.pathB, h.hasPath = AsteriskForm, nil, false
		}
		return h.targetEnd()
	}
	return ReasonNone
}

// inPercent takes two hexadecimal digits and goes back.
func (h *head) inPercent(part *[]byte, back func(byte) Reason) func(byte) Reason {
	left := 2
	return func(c byte) Reason {
		if !isOf(oracleHex, c) {
			return ReasonBadPercentEncoding
		}
		h.token = append(h.token, c)
		*part = append(*part, c)
		if left--; left == 0 {
			h.state = back
		}
		return ReasonNone
	}
}

func (h *head) inPath(c byte) Reason {
	switch {
	case c == ' ':
		return h.targetEnd()
	case c == '?':
		h.hasQuery = true
		h.state = h.inQuery
	case c == '%':
		h.pathB = append(h.pathB, c)
		h.state = h.inPercent(&h.pathB, h.inPath)
	case isOf(oraclePath, c):
		h.pathB = append(h.pathB, c)
	default:
		return oracleTargetEnd(c)
	}
	h.token = append(h.token, c)
	return ReasonNone
}

func (h *head) inQuery(c byte) Reason {
	switch {
	case c == ' ':
		return h.targetEnd()
	case c == '%':
		h.queryB = append(h.queryB, c)
		h.state = h.inPercent(&h.queryB, h.inQuery)
	case isOf(oracleQuery, c):
		h.queryB = append(h.queryB, c)
	default:
		return oracleTargetEnd(c)
	}
	h.token = append(h.token, c)
	return ReasonNone
}

func (h *head) targetEnd() Reason {
	if h.form == AbsoluteForm && h.token[len(h.token)-1] == ' ' {
		panic("oracle: the space is not part of a target")
	}
	h.target, h.path, h.query = string(h.token), string(h.pathB), string(h.queryB)
	h.token = nil
	h.state = h.inVersion
	return ReasonNone
}

var oracleVersion = regexp.MustCompile(`^(H(T(T(P(/([0-9](\.([0-9](\r\n?)?)?)?)?)?)?)?)?)?$`)

func (h *head) inVersion(c byte) Reason {
	before := len(h.token)
	h.token = append(h.token, c)
	t := string(h.token)
	if !oracleVersion.MatchString(t) {
		switch {
		case before == 9 && t[8] == '\r':
			return ReasonBareCR
		case c == '\n':
			return ReasonBareLF
		case before == 0 && (c == ' ' || c == '\r'):
			return ReasonBadRequestLine
		case before == 8 && (c == ' ' || c == '\t'):
			return ReasonBadRequestLine
		}
		return ReasonBadVersion
	}
	if !strings.HasSuffix(t, "\r\n") {
		return ReasonNone
	}
	if t[5] != '1' {
		return ReasonUnsupportedVersion
	}
	if t[7] == '0' {
		h.minor = 0
	}
	if h.form == AsteriskForm && h.method != "OPTIONS" {
		return ReasonAsteriskForm
	}
	h.inRequest = false
	h.state = h.lineStart
	return ReasonNone
}

func (h *head) lineStart(c byte) Reason {
	h.token, h.value = nil, nil
	if c == '\r' {
		h.state = func(c byte) Reason {
			if c != '\n' {
				return ReasonBareCR
			}
			return h.end()
		}
		return ReasonNone
	}
	if h.fieldCount == FieldsMax {
		return ReasonTooManyFields
	}
	h.fieldCount++
	if c == ' ' || c == '\t' {
		return ReasonObsFold
	}
	h.state = h.inName
	return h.state(c)
}

func (h *head) inName(c byte) Reason {
	switch {
	case isOf(oracleToken, c):
		h.token = append(h.token, c)
		return ReasonNone
	case c == ':' && len(h.token) > 0:
		h.state = h.inValue
		return ReasonNone
	case c == ' ' || c == '\t':
		return ReasonSpaceBeforeColon
	case c == '\n':
		return ReasonBareLF
	case c == '\r':
		return ReasonMissingColon
	}
	return ReasonBadFieldName
}

func (h *head) inValue(c byte) Reason {
	switch {
	case c == '\r':
		h.state = func(c byte) Reason {
			if c != '\n' {
				return ReasonBareCR
			}
			h.state = h.lineStart
			return h.field(string(h.token), strings.Trim(string(h.value), " \t"))
		}
		return ReasonNone
	case c == '\n':
		return ReasonBareLF
	case c == 0x7f || c < 0x20 && c != '\t':
		return ReasonBadFieldValue
	}
	h.value = append(h.value, c)
	return ReasonNone
}

var (
	oracleChunked = regexp.MustCompile(`^(?i:chunked)$`)
	oracleCodings = regexp.MustCompile(`^[ \t]*[!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z]+[ \t]*(;[^,]*)?$`)
	oracleID      = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	oracleTokens  = regexp.MustCompile(`^[!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z]*$`)
)

func (h *head) field(name, value string) Reason {
	h.fields = append(h.fields, name, value)
	if strings.Contains(name, "_") {
		h.underscores = true
	}
	switch strings.ToLower(name) {
	case "host":
		if h.hosts++; h.hosts > 1 {
			return ReasonRepeatedHost
		}
		if !oracleValidHost(value) {
			return ReasonBadHost
		}
		if !h.hasAuthority {
			h.authority, h.hasAuthority = value, true
		}
	case "content-length":
		if h.lengths++; h.lengths > 1 {
			return ReasonRepeatedContentLength
		}
		if h.chunked {
			return ReasonLengthAndTransferEncoding
		}
		n, ok := new(big.Int).SetString(value, 10)
		if !ok || !n.IsInt64() || strings.Trim(value, "0123456789") != "" {
			return ReasonBadContentLength
		}
		h.length = n.Int64()
	case "transfer-encoding":
		if h.codings++; h.codings > 1 {
			return ReasonRepeatedTransferEncoding
		}
		if h.minor == 0 {
			return ReasonTransferEncodingHTTP10
		}
		if h.lengths > 0 {
			return ReasonLengthAndTransferEncoding
		}
		if oracleChunked.MatchString(value) {
			h.chunked = true
			return ReasonNone
		}
		elements := strings.Split(value, ",")
		for i, element := range elements {
			coding := strings.Trim(strings.SplitN(element, ";", 2)[0], " \t")
			if !oracleCodings.MatchString(element) ||
				oracleChunked.MatchString(coding) && (i < len(elements)-1 || strings.Contains(element, ";")) {
				return ReasonBadTransferEncoding
			}
		}
		return ReasonUnsupportedTransferEncoding
	case "connection":
		for option := range strings.SplitSeq(value, ",") {
			option = strings.Trim(option, " \t")
			switch {
			case !oracleTokens.MatchString(option):
				return ReasonBadConnection
			case oracleFold(option, "close"):
				h.close = true
			case oracleFold(option, "keep-alive"):
				h.keep = true
			}
		}
	case "expect":
		if !oracleFold(value, "100-continue") {
			return ReasonUnsupportedExpectation
		}
		h.expect = h.minor == 1
	case "x-request-id":
		if h.ids++; h.ids == 1 && oracleID.MatchString(value) {
			h.requestID, h.hasRequestID = value, true
		}
	}
	return ReasonNone
}

// oracleFold is strings.EqualFold for ASCII alone.
func oracleFold(a, b string) bool {
	return len(a) == len(b) && strings.EqualFold(a, b)
}

func (h *head) end() Reason {
	if h.hosts == 0 && h.minor == 1 {
		return ReasonMissingHost
	}
	h.keepAlive = !h.close && (h.minor == 1 || h.keep)
	h.done = true
	return ReasonNone
}

var (
	oracleRegName  = regexp.MustCompile(`^((?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]*))?$`)
	oracleLiteral  = regexp.MustCompile(`^\[([^\]]*)\](?::([0-9]*))?$`)
	oracleIPFuture = regexp.MustCompile(`^[vV][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+$`)
)

func oracleValidHost(s string) bool {
	if s == "" {
		return true
	}
	m := oracleRegName.FindStringSubmatch(s)
	if m == nil {
		if m = oracleLiteral.FindStringSubmatch(s); m == nil {
			return false
		}
		if a, err := netip.ParseAddr(m[1]); (err != nil || !a.Is6() || a.Zone() != "") && !oracleIPFuture.MatchString(m[1]) {
			return false
		}
	}
	port, _ := new(big.Int).SetString("0"+m[2], 10)
	return port.Cmp(big.NewInt(65535)) <= 0
}

// chunkVerdict is all that a decoder says about a chunked body.
type chunkVerdict struct {
	outcome  Outcome
	n        int // bytes consumed; on Invalid, before the offending byte
	why      Reason
	data     string
	declared int64
}

// oracleChunks decodes a whole body by descending through the grammar, where
// Chunks steps over bytes.
func oracleChunks(b []byte) (v chunkVerdict) {
	total := new(big.Int)
	overhead := 0
	fail := func(at int, why Reason) chunkVerdict {
		v.outcome, v.n, v.why = Invalid, at, why
		return v
	}
	short := func() chunkVerdict {
		v.n = len(b)
		return v
	}
	for at := 0; ; {
		line := b[at:]
		cr := bytes.IndexByte(line, '\r')
		if cr >= 0 {
			line = line[:cr+1]
		}
		digits := 0
		for digits < len(line) && isOf(oracleHex, line[digits]) {
			digits++
		}
		size, err := strconv.ParseUint("0"+string(line[:min(digits, 16)]), 16, 63)
		var offence int
		var why Reason
		switch {
		case err != nil:
			// The digit that leads out of range.
			for size, offence = 0, 0; size < 1<<59; offence++ {
				d, _ := strconv.ParseUint(string(line[offence]), 16, 8)
				size = size<<4 | d
			}
			why = ReasonChunkTooLarge
		case digits > 16:
			offence, why = 16, ReasonChunkTooLarge
		case digits == 0 && len(line) > 0:
			offence, why = 0, ReasonBadChunkSize
		default:
			if offence = oracleExtensions(string(line), digits); offence == digits {
				why = ReasonBadChunkSize
			} else if offence < len(line) {
				why = ReasonBadChunkExtension
			}
		}
		if why != ReasonChunkTooLarge && offence < len(line) && line[offence] == '\n' {
			why = ReasonBareLF
		}
		length := len(line)
		if cr >= 0 {
			length = cr
		}
		if length > ChunkLineBytesMax && offence >= ChunkLineBytesMax {
			return fail(at+ChunkLineBytesMax, ReasonChunkLineTooLong)
		}
		if offence < len(line) {
			return fail(at+offence, why)
		}
		if at += len(line); at == len(b) {
			return short()
		}
		if b[at] != '\n' {
			return fail(at, ReasonBareCR)
		}
		overhead = max(0, overhead+length+2-16-2*int(min(size, chunkOverheadBytesMax)))
		if overhead > chunkOverheadBytesMax {
			return fail(at, ReasonChunkOverhead)
		}
		at++
		if size == 0 {
			return v.trailers(b, at)
		}
		total.Add(total, new(big.Int).SetUint64(size))
		if v.declared = 1<<63 - 1; total.IsInt64() {
			v.declared = total.Int64()
		}
		if uint64(len(b)-at) < size {
			v.data += string(b[at:])
			return short()
		}
		v.data += string(b[at : at+int(size)])
		at += int(size)
		for _, want := range []byte("\r\n") {
			if at == len(b) {
				return short()
			}
			if b[at] != want {
				return fail(at, ReasonBadChunkEnd)
			}
			at++
		}
	}
}

// oracleExtensions returns the index of the first byte of s from i on with
// which no line of extensions goes on, or len(s). s ends behind its CR, or in
// the middle of the line.
func oracleExtensions(s string, i int) int {
	skip := func(i int, f func(c byte) bool) int {
		for i < len(s) && f(s[i]) {
			i++
		}
		return i
	}
	space := func(c byte) bool { return c == ' ' || c == '\t' }
	token := func(c byte) bool { return isOf(oracleToken, c) }
	for {
		j := skip(i, space)
		if j == len(s) || s[j] == '\r' && j == i {
			return len(s)
		}
		if s[j] != ';' {
			return j
		}
		name := skip(j+1, space)
		i = skip(name, token)
		if i == name {
			return i
		}
		equal := skip(i, space)
		if equal == len(s) || s[equal] != '=' {
			continue
		}
		value := skip(equal+1, space)
		if i = skip(value, token); i > value || i == len(s) {
			continue
		}
		if s[i] != '"' {
			return i
		}
		for i++; ; i++ {
			if i < len(s) && s[i] == '\\' {
				i++
			} else if i < len(s) && s[i] == '"' {
				i++
				break
			}
			if i >= len(s) {
				return len(s)
			}
			if s[i] == 0x7f || s[i] < 0x20 && s[i] != '\t' {
				return i
			}
		}
	}
}

// trailers judges the trailer section from b[at] on, line by line.
func (v chunkVerdict) trailers(b []byte, at int) chunkVerdict {
	section := at
	for field := 0; ; field++ {
		line := b[at:]
		cr := bytes.IndexByte(line, '\r')
		if cr >= 0 {
			line = line[:cr+1]
		}
		offence, why := len(line), ReasonNone
		switch colon := bytes.IndexByte(line, ':'); {
		case len(line) == 0 || line[0] == '\r':
		case field == TrailerFieldsMax:
			offence, why = 0, ReasonTooManyFields
		case line[0] == ' ' || line[0] == '\t':
			offence, why = 0, ReasonObsFold
		default:
			name := line
			if colon >= 0 {
				name = line[:colon]
			}
			for i, c := range name {
				if isOf(oracleToken, c) {
					continue
				}
				switch offence, why = i, ReasonBadFieldName; c {
				case ' ', '\t':
					why = ReasonSpaceBeforeColon
				case '\n':
					why = ReasonBareLF
				case '\r':
					why = ReasonMissingColon
				}
				break
			}
			if why != ReasonNone || colon < 0 {
				break
			}
			if colon == 0 {
				offence, why = 0, ReasonBadFieldName
				break
			}
			for i := colon; i < len(line); i++ {
				if c := line[i]; c == 0x7f || c < 0x20 && c != '\t' && c != '\r' {
					offence, why = i, ReasonBadFieldValue
					if c == '\n' {
						why = ReasonBareLF
					}
					break
				}
			}
		}
		if at+offence-section >= TrailerBytesMax {
			v.outcome, v.n, v.why = Invalid, section+TrailerBytesMax, ReasonTrailerTooLarge
			if v.n >= len(b) {
				v.outcome, v.n, v.why = Incomplete, len(b), ReasonNone
			}
			return v
		}
		at += offence
		if why == ReasonNone {
			if at == len(b) {
				v.n = at
				return v
			}
			if b[at] != '\n' {
				why = ReasonBareCR
			}
		}
		if why != ReasonNone {
			v.outcome, v.n, v.why = Invalid, at, why
			return v
		}
		if at++; len(line) == 1 {
			v.outcome, v.n = Complete, at
			return v
		}
	}
}

// cgiVerdict is all that ParseCGI says about an output.
type cgiVerdict struct {
	isBlock                     bool
	n                           int
	why                         CGIReason
	status                      int
	contentType, location       string
	hasContentType, hasLocation bool
	length                      int64
	fields                      []string
}

func cgiVerdictOf(h *CGIHead, isBlock bool, n int, why CGIReason) cgiVerdict {
	v := cgiVerdict{isBlock: isBlock, n: n, why: why}
	if !isBlock || why != CGIReasonNone {
		return v
	}
	v.status, v.length = h.Status, h.ContentLength
	v.contentType, v.location = string(h.ContentType), string(h.Location)
	v.hasContentType, v.hasLocation = h.ContentType != nil, h.Location != nil
	for _, f := range h.Fields {
		v.fields = append(v.fields, string(f.Name), string(f.Value))
	}
	return v
}

var (
	oracleCGILine   = regexp.MustCompile(`^([!#$%&'*+\-.^_` + "`" + `|~0-9A-Za-z]+):(?s:(.*))$`)
	oracleCGIStatus = regexp.MustCompile(`^([2-5][0-9][0-9])( (?s:.*))?$`)
	oracleDigits    = regexp.MustCompile(`^[0-9]+$`)
)

// oracleCGI cuts the output into lines first, and judges them afterwards.
func oracleCGI(b []byte) (v cgiVerdict) {
	window := string(b[:min(len(b), CGIHeadBytesMax)])
	var lines []string
	ended, bad, cgi := false, false, false
	for !ended && !bad {
		line, rest, ok := strings.Cut(window, "\n")
		if !ok {
			break
		}
		v.n += len(line) + 1
		window = rest
		line = strings.TrimSuffix(line, "\r")
		switch m := oracleCGILine.FindStringSubmatch(line); {
		case line == "":
			ended = true
		case m == nil:
			bad = true
		default:
			lines = append(lines, m[1], strings.Trim(m[2], " \t"))
			switch strings.ToLower(m[1]) {
			case "status", "content-type", "location":
				cgi = true
			}
		}
	}
	switch {
	case !cgi || !ended && !bad && len(b) < CGIHeadBytesMax:
		return cgiVerdict{}
	case bad:
		return cgiVerdict{isBlock: true, why: CGIReasonBadLine}
	case !ended:
		return cgiVerdict{isBlock: true, why: CGIReasonTooLarge}
	}
	v.isBlock, v.length = true, -1
	count := map[string]int{}
	for i := 0; i < len(lines); i += 2 {
		name, value := strings.ToLower(lines[i]), lines[i+1]
		if strings.ContainsFunc(value, func(c rune) bool { return c == 0x7f || c < ' ' && c != '\t' }) {
			return cgiVerdict{isBlock: true, why: CGIReasonBadValue}
		}
		count[name]++
		switch name {
		case "status", "content-type", "location", "content-length":
			if count[name] > 1 {
				return cgiVerdict{isBlock: true, why: CGIReasonRepeated}
			}
		}
		switch name {
		case "status":
			m := oracleCGIStatus.FindStringSubmatch(value)
			if m == nil {
				return cgiVerdict{isBlock: true, why: CGIReasonBadStatus}
			}
			v.status, _ = strconv.Atoi(m[1])
		case "content-type":
			v.contentType, v.hasContentType = value, true
		case "location":
			v.location, v.hasLocation = value, true
		case "content-length":
			n, ok := new(big.Int).SetString(value, 10)
			if !ok || !n.IsInt64() || !oracleDigits.MatchString(value) {
				return cgiVerdict{isBlock: true, why: CGIReasonBadContentLength}
			}
			v.length = n.Int64()
		case "date", "x-request-id", "x-baton-error":
		case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
			return cgiVerdict{isBlock: true, why: CGIReasonForbidden}
		default:
			if len(v.fields) == 2*CGIFieldsMax {
				return cgiVerdict{isBlock: true, why: CGIReasonTooManyFields}
			}
			v.fields = append(v.fields, lines[i], value)
		}
	}
	if v.status == 0 {
		v.status = 200
		if v.hasLocation {
			v.status = 302
		}
	}
	return v
}
